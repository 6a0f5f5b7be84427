"""Shared fixtures: a private cache folder, and determinism."""

import os
import signal

import pytest
import torch
from hypothesis import settings

settings.register_profile("explore", deadline=None, max_examples=50)
settings.register_profile("same", settings.get_profile("explore"), derandomize=True)
settings.load_profile("same")  # `--hypothesis-profile explore` draws new examples


@pytest.fixture(autouse=True, scope="session")
def _cache_of_its_own(tmp_path_factory):
    """Tests neither read nor fill the user's cache."""
    os.environ["SNN_DELAYS_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c_is_heard():
    """In a shell's background SIGINT is ignored, here and in processes that tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def call(capsys, monkeypatch):
    """Run the command line; returns exit code, standard output, standard error."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)  # `auto` is the CPU everywhere
    from snn_delays.cli import main

    def run(*words):
        code = 0
        try:
            main([str(w) for w in words])
        except SystemExit as stop:
            code = stop.code or 0
        output = capsys.readouterr()
        return code, output.out, output.err

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The folder and summary of one tiny finished run, exported; shared, so not to be changed."""
    from tiny import tiny_run

    from snn_delays.export import export_run

    folder, summary = tiny_run(tmp_path_factory.mktemp("runs") / "tiny", epochs=4)
    export_run(folder)
    return folder, summary


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """A finished study of two arms and two seeds: cells, jobs, outcome, folder; not to be changed.

    Its jobs ran in this process.
    """
    from tiny import tiny_recipe

    from snn_delays.compare.jobs import run_job
    from snn_delays.compare.plan import Study, make_cells, make_jobs
    from snn_delays.compare.study import run_study

    out = tmp_path_factory.mktemp("study")
    cells = make_cells(Study(tiny_recipe(epochs=1), ("none", "learned"), 2), None)
    jobs = make_jobs(cells, 2, out, None, "cpu")
    here = lambda jobs: ((job, run_job(job)) for job in jobs)  # noqa: E731
    return cells, jobs, run_study(jobs, out, here), out


@pytest.fixture(scope="session")
def shd_folder(tmp_path_factory):
    """A folder with a tiny file in SHD's layout, 20 classes, 700 channels; train and test."""
    import numpy as np

    from snn_delays.data import SOURCES, EventStore
    from snn_delays.data.hdf5 import write_events

    folder = tmp_path_factory.mktemp("shd")
    rng = np.random.default_rng(0)
    classes = SOURCES["shd"].classes
    for split, speakers in (("train", (0, 1, 9, 11)), ("test", (4, 5))):
        labels = np.tile(np.arange(20), len(speakers))
        counts = rng.integers(5, 30, len(labels))
        store = EventStore(
            times_us=np.concatenate([np.sort(rng.integers(0, 10**6, n)) for n in counts]).astype(
                np.int32
            ),
            units=rng.integers(0, 700, counts.sum()).astype(np.int16),
            offsets=np.concatenate([[0], np.cumsum(counts)]),
            labels=labels,
            speakers=np.repeat(speakers, 20),
            channels=700,
            classes=classes,
            source=split,
        )
        write_events(folder / f"shd_{split}.h5", store)
    return folder
