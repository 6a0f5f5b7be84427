"""Worker processes: jobs come back with summaries or errors, and survive a killed worker."""

import multiprocessing
import threading
import time
from dataclasses import replace

import pytest
from tiny import tiny_recipe

from snn_delays.cli.runners import choose_workforce
from snn_delays.compare.jobs import Job, finished_summary, run_job
from snn_delays.compare.workers import run_locally
from snn_delays.errors import RunError, SnnDelaysError
from snn_delays.runs import RunFolder


def tiny_job(path, **changes):
    return Job(tiny_recipe(epochs=1, **changes), path, None, "cpu", "learned")


def test_a_job_is_done_once(tmp_path):
    job = tiny_job(tmp_path / "run")
    assert finished_summary(job) is None
    summary = run_job(job)
    assert finished_summary(job) == summary
    written = RunFolder(job.folder).network_file.stat().st_mtime_ns
    assert run_job(job) == summary
    assert RunFolder(job.folder).network_file.stat().st_mtime_ns == written
    with pytest.raises(RunError, match="another recipe"):
        run_job(replace(job, recipe=tiny_recipe(epochs=1, seed=1)))


@pytest.mark.slow
def test_jobs_in_processes_give_what_they_give_here(tmp_path):
    jobs = [tiny_job(tmp_path / f"there{seed}", seed=seed) for seed in range(3)]
    bad = tiny_job(tmp_path / "bad", dataset="shd", valid_speakers=[9])
    found = dict(run_locally([*jobs, bad], workers=2, threads=1))
    assert set(found) == {*jobs, bad}
    assert isinstance(found[bad], SnnDelaysError)
    assert "needs shd_train.h5" in str(found[bad])
    here = run_job(tiny_job(tmp_path / "here", seed=1))
    for key in ("train_loss", "valid_accuracy", "test_accuracy"):
        assert found[jobs[1]][key] == pytest.approx(here[key], rel=1e-4)
    assert found[jobs[1]]["threads"] == 1
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_a_killed_worker_costs_its_own_job_only(tmp_path):
    long = Job(tiny_recipe(epochs=500), tmp_path / "long", None, "cpu", "learned")
    short = tiny_job(tmp_path / "short")

    def kill():
        while not RunFolder(long.folder).checkpoint_file.exists():
            time.sleep(0.01)
        multiprocessing.active_children()[0].kill()

    threading.Thread(target=kill, daemon=True).start()
    (first, error), (second, summary) = run_locally([long, short], workers=1, threads=1)
    assert (first, second) == (long, short)
    assert isinstance(error, RunError)
    assert "worker process ended before its run did" in str(error)
    assert summary["epochs"] == 1


@pytest.mark.slow
def test_no_job_follows_one_that_failed_in_its_process(tmp_path):
    """Once a kernel has failed, CUDA answers everything else in its process with that error."""
    bad = tiny_job(tmp_path / "bad", dataset="shd", valid_speakers=[9])
    good = tiny_job(tmp_path / "good")
    ended = run_locally([bad, good], workers=1, threads=1)
    assert isinstance(next(ended)[1], SnnDelaysError)
    assert not multiprocessing.active_children()
    assert next(ended)[1]["epochs"] == 1
    ended.close()


def test_at_least_one_worker_and_thread():
    with pytest.raises(SnnDelaysError, match="at least 1; got 0"):
        next(run_locally([], workers=0, threads=1))


@pytest.mark.parametrize(
    ("device", "workers", "jobs", "expected"),
    [
        ("cpu", None, 20, (8, 1)),
        ("cuda:0", None, 20, (1, 8)),
        ("cuda:0", 2, 20, (2, 4)),
        ("cpu", 3, 20, (3, 2)),
        ("cpu", None, 2, (2, 4)),
        ("cpu", 5, 0, (1, 8)),
    ],
)
def test_cores_are_shared_between_the_runs(monkeypatch, device, workers, jobs, expected):
    monkeypatch.setattr("snn_delays.system.devices.check_device", lambda name: name)
    monkeypatch.setattr("snn_delays.system.threads.core_count", lambda: 8)
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    chosen = choose_workforce("local", None, workers, device, jobs)
    assert (chosen.workers, chosen.threads) == expected
    assert chosen.runner.keywords == {"workers": expected[0], "threads": expected[1]}


def test_a_run_of_a_study_has_no_more_threads_than_torch(monkeypatch):
    monkeypatch.setattr("snn_delays.system.threads.core_count", lambda: 8)
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)  # by OMP_NUM_THREADS=1
    assert choose_workforce("local", None, 1, "cpu", 20).threads == 1
