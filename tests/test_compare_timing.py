"""The time a study will take: measured on a short run that leaves nothing behind."""

import pytest
import torch
from tiny import tiny_recipe

from snn_delays.compare import timing
from snn_delays.compare.jobs import Job


def test_every_arm_is_measured_once_and_workers_share(monkeypatch, tmp_path):
    cost = {"none": 1.0, "learned": 3.0}
    asked = []

    def measured(job, threads):
        asked.append((job.arm, threads))
        return cost[job.arm]

    monkeypatch.setattr(timing, "seconds_per_epoch", measured)
    jobs = [
        Job(tiny_recipe(epochs=10, seed=seed), tmp_path, None, "cpu", arm)
        for seed in range(3)
        for arm in cost
    ]
    assert (
        timing.expected_seconds(jobs, workers=2, threads=1)
        == (3 * 10 * 4 + 6 * timing._RUN_SECONDS) / 2
    )
    assert asked == [("none", 1), ("learned", 1)]
    (tmp_path / "metrics.jsonl").write_text("{}\n" * 4)
    assert timing.expected_seconds(jobs[:1], 1, 1) == 6 + timing._RUN_SECONDS
    assert timing.expected_seconds([], 2, 1) == 0


def test_a_finished_run_that_lacks_only_its_answers_is_not_measured(trained):
    folder, summary = trained
    job = Job(tiny_recipe(), folder.path, None, "cpu", "learned")
    passes = 2 + 9  # live, rounded, and each variant
    answering = passes * summary["test_clips"] / (2 * summary["samples_per_second"])
    assert timing.expected_seconds([job], 1, 1) == pytest.approx(timing._RUN_SECONDS + answering)


def test_a_short_run_is_an_epoch_or_a_few_seconds_and_leaves_nothing(monkeypatch, tmp_path):
    job = Job(tiny_recipe(epochs=50), tmp_path / "run", None, "cpu", "learned")
    assert timing.seconds_per_epoch(job, threads=1) > 0
    monkeypatch.setattr(timing, "_LONGEST_SECONDS", 0.0)
    assert timing.seconds_per_epoch(job, threads=1) > 0
    one_batch = Job(tiny_recipe(batch_size=4000), tmp_path / "run", None, "cpu", "learned")
    assert timing.seconds_per_epoch(one_batch, threads=1) > 0
    assert not (tmp_path / "run").exists()


def test_an_epoch_is_reckoned_from_the_batches_after_the_first(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    stopwatch = timing._Stopwatch()
    stopwatch.start(epochs=10, done=0, batches=21)
    for number in (1, 2, 3):
        stopwatch.batch(1, number)
        clock[0] += 2.5
    with pytest.raises(timing._Enough):
        stopwatch.batch(1, 4)  # 7.5 s for three batches
    assert stopwatch.epoch_seconds == 2.5 * 21 * 1.5  # half as long again to evaluate
    stopwatch.start(epochs=10, done=0, batches=5)
    stopwatch.batch(1, 1)
    clock[0] += 4
    with pytest.raises(timing._Enough):
        stopwatch.epoch({"train_seconds": 9.0})  # four of five batches, and the evaluation
    assert stopwatch.epoch_seconds == 5
    stopwatch.start(epochs=10, done=0, batches=1)
    stopwatch.batch(1, 1)
    with pytest.raises(timing._Enough):
        stopwatch.epoch({"train_seconds": 9.0})
    assert stopwatch.epoch_seconds == 9


def test_a_short_run_has_the_threads_device_and_data_of_its_job(monkeypatch, tmp_path):
    told, before = {}, torch.get_num_threads()

    def trains(recipe, folder, *, data_dir, device, reporter):
        told.update(threads=torch.get_num_threads(), data=data_dir, device=device)
        reporter.epoch_seconds = 3.0

    monkeypatch.setattr(timing, "train", trains)
    job = Job(tiny_recipe(), tmp_path / "run", tmp_path, "cpu", "learned")
    assert timing.seconds_per_epoch(job, threads=before + 1) == 3.0
    assert told == {"threads": before + 1, "data": tmp_path, "device": "cpu"}
    assert torch.get_num_threads() == before


def test_a_run_without_test_data_answers_valid():
    summary = {"test_clips": 0, "valid_clips": 640, "samples_per_second": 100.0}
    assert timing._answering_seconds(summary) == 11 * 640 / 200
