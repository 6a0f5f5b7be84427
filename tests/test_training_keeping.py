"""A run that is killed at any moment and resumed gives the bits of one that never stopped."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time

import killed
import pytest

from snn_delays.runs import RunFolder

SETTINGS = ["hidden=8", "batch_size=192", "dropout=0.2", "optimizer=adamw", "augment.drop=0.1"]
WORDS = ["train", "--epochs", "2", "--device", "cpu", "--quiet"]
WORDS += [word for setting in SETTINGS for word in ("--set", setting)]

TIMES = {"train_seconds", "samples_per_second", "wall_seconds", "git_commit", "sessions"}
"""What may differ: how long it took, and the source's commit, if somebody commits meanwhile."""


def results(path):
    """All that a run comes to, but for `TIMES`: model, network, metrics, summary."""
    folder = RunFolder(path)
    history = [drop_times(record) for record in folder.read_metrics()]
    network = re.sub('"git_commit": [^,}]*', "", folder.network_file.read_text())
    return folder.model_file.read_bytes(), network, history, drop_times(folder.summary())


def drop_times(record):
    return {key: value for key, value in record.items() if key not in TIMES}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The results of a run that is never stopped, its seconds, and its calls of each kind."""
    place = tmp_path_factory.mktemp("whole")
    process = killed.start([*WORDS, "--out", place / "warm"], place / "log")  # fills caches
    assert killed.finish(process) == 0, (place / "log").read_text()
    began = time.monotonic()
    options = {"save_every_s": 0.0, "counts": place / "counts"}
    process = killed.start([*WORDS, "--out", place / "run"], place / "log", **options)
    assert killed.finish(process) == 0, (place / "log").read_text()
    seconds = time.monotonic() - began
    counts = dict(zip(killed.CALLS, map(int, (place / "counts").read_text().split()), strict=True))
    assert results(place / "warm") == results(place / "run")
    return results(place / "run"), seconds, counts


def resume(run, log):
    """Go on with a killed run a while later, or begin again where it had not begun; exit code 0."""
    for half_written in run.glob("**/.*"):
        os.utime(half_written, (0, 0))  # younger than a minute, they might be another process's
    if (run / "recipe.toml").exists():
        words = ["train", "--resume", "--out", run, "--quiet", "--device", "cpu"]
    else:
        words = [*WORDS, "--out", run]
    process = killed.start(words, log)
    assert killed.finish(process) == 0, log.read_text()


def stop_in_time(process, log, number, wait):
    """Send a signal once `wait` seconds have passed; the code is that signal's, or 0 if done."""
    process.join(wait)
    if process.is_alive():
        os.kill(process.pid, number)
    code = killed.finish(process)
    if number == signal.SIGKILL:
        return code in (0, -number)
    return code in (0, 128 + number) and "Traceback" not in log.read_text()


MOMENTS = random.Random(7)
TIMED = [
    (number, MOMENTS.random())
    for number in [signal.SIGKILL] * 6 + [signal.SIGTERM] * 2 + [signal.SIGINT] * 2
]
WRITTEN = [(call, MOMENTS.random()) for call in killed.CALLS * 3][:10]


@pytest.mark.slow
@pytest.mark.parametrize("case", range(10))
def test_stopped_at_a_random_time(whole, tmp_path, case):
    expected, seconds, _ = whole
    number, share = TIMED[case]
    run, log = tmp_path / "run", tmp_path / "log"
    process = killed.start([*WORDS, "--out", run], log, save_every_s=case % 3 * 0.1)
    assert stop_in_time(process, log, number, 0.1 + share * seconds), log.read_text()
    resume(run, log)
    assert results(run) == expected
    assert not list(run.glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize("case", range(10))
def test_killed_in_the_middle_of_writing(whole, tmp_path, case):
    expected, _, counts = whole
    call, share = WRITTEN[case]
    number = 1 + int(share * counts[call])
    run, log = tmp_path / "run", tmp_path / "log"
    options = {"fault": (call, number, "kill"), "save_every_s": 0.0}
    process = killed.start([*WORDS, "--out", run], log, **options)
    assert killed.finish(process) == -signal.SIGKILL
    resume(run, log)
    assert results(run) == expected
    assert not list(run.glob(".*"))


def test_ctrl_c_keeps_the_batches_and_says_so(whole, tmp_path):
    """Stopped in the first epoch, whose batches are then not done again."""
    expected, _, _ = whole
    run, log = tmp_path / "run", tmp_path / "log"
    process = killed.start([*WORDS, "--out", run], log)
    deadline = time.monotonic() + 60
    while not (run / "recipe.toml").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    assert killed.finish(process) == 130
    assert "Stopped by Ctrl-C. All that is done is kept" in log.read_text()
    resume(run, log)
    assert results(run) == expected


def test_nothing_but_the_seed_and_the_recipe_counts(whole, tmp_path):
    """`--recipe RUN/recipe.toml`, in another process, gives the same files."""
    expected, _, _ = whole
    process = killed.start([*WORDS, "--out", tmp_path / "a"], tmp_path / "log")
    assert killed.finish(process) == 0
    words = ["train", "--recipe", tmp_path / "a" / "recipe.toml", "--out", tmp_path / "b"]
    process = killed.start([*words, "--quiet", "--device", "cpu"], tmp_path / "log")
    assert killed.finish(process) == 0
    assert results(tmp_path / "a") == results(tmp_path / "b") == expected
    assert json.loads((tmp_path / "b" / "summary.json").read_text())["device"] == "cpu"
