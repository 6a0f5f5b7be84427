"""The benchmarks run, check that ours and the peer agree, and say what they measured."""

import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from snn_delays.data.events import EventStore
from snn_delays.data.hdf5 import write_events
from snn_delays.data.sources import SOURCES
from snn_delays.errors import SnnDelaysError
from snn_delays.functional import delay_kernel
from snn_delays.neurons import LeakyIntegrator
from snn_delays.system import allocator

BENCH = Path(__file__).resolve().parents[1] / "scripts" / "bench"
SMALL = "hidden=6,6", "steps=20", "tail_steps=3", "max_delay=4", "dropout=0.0"

pytestmark = pytest.mark.skipif(not BENCH.is_dir(), reason="scripts are not installed")
pytest.importorskip("DCLS", reason="the peer, extra `bench`, is not installed")


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """Runs a benchmark in this process and gives what it wrote with `--json`."""
    monkeypatch.setattr(allocator, "keep_freed_memory", lambda: False)  # for the whole process
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # put back at the end
    monkeypatch.syspath_prepend(str(BENCH))
    threads, file = torch.get_num_threads(), tmp_path / "figures.json"

    def run(name, *words):
        command = [str(BENCH / name), *map(str, words), "--rounds", "1", "--json", str(file)]
        monkeypatch.setattr(sys, "argv", command)
        runpy.run_path(command[0], run_name="__main__")
        return json.loads(file.read_text())

    yield run
    torch.set_num_threads(threads)


def changes(*more):
    return [word for pair in (*SMALL, *more) for word in ("--set", pair)]


@pytest.mark.parametrize("kernel_count", [1, 2])
def test_a_step_against_the_peer(bench, kernel_count):
    words = changes(f"kernel_count={kernel_count}")
    figures = bench("train_step.py", "--recipe", "shd", "--batch", 3, *words)
    assert figures["ratio"] == pytest.approx(figures["peer_s"] / figures["ours_s"])
    assert figures["batch"] == 3
    assert 0 < figures["float64_difference"] <= 1e-10
    assert 0 < figures["float32_layer_difference"] <= 1e-4
    assert 0 < figures["float32_neuron_difference"] <= 1e-4
    assert figures["machine"]["clock"] == "wall"


def test_the_batch_is_the_published_one_when_it_is_not_said(bench):
    assert bench("train_step.py", "--recipe", "shd", *changes())["batch"] == 256


def test_a_difference_ends_a_benchmark_with_a_sentence(bench, monkeypatch):
    monkeypatch.setattr("snn_delays.nn.delay_kernel", lambda *words: 2 * delay_kernel(*words))
    with pytest.raises(SystemExit, match="float64_difference of ours and the peer is"):
        bench("train_step.py", "--recipe", "shd", "--batch", 3, *changes())


@pytest.mark.parametrize("form", ["transforms", "dense_convolutions"])
def test_where_the_time_of_a_step_goes(bench, form):
    more = [] if form == "dense_convolutions" else ["hidden=32,32", "steps=60", "max_delay=24"]
    figures = bench("breakdown.py", "--batch", 8, *changes(*more))
    parts = [form, "delay_kernels", "neurons", "products", "optimisers", "rest"]
    assert all(figures[f"{part}_s"] > 0 for part in parts)
    assert figures["products_over_limit"] > 0
    assert ("transforms_over_limit" in figures) == (form == "transforms")


def test_different_neurons_end_a_benchmark_too(bench, monkeypatch):
    """In float32 alone, as they may take another way there."""
    integrate = LeakyIntegrator.forward

    def wrong(self, x):
        return integrate(self, x) * (1.001 if x.dtype == torch.float32 else 1)

    monkeypatch.setattr(LeakyIntegrator, "forward", wrong)
    with pytest.raises(SystemExit, match="float32_neuron_difference of ours and the peer is"):
        bench("train_step.py", "--recipe", "shd", "--batch", 3, *changes())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("granularity=axonal", "the peer has no other `granularity` than synaptic; got axonal"),
        ("readout_tau=3.0", "the peer's readout has the `tau` of its neurons; got 3.0"),
        ("sigma_start=0.2", "the peer's sigma is at least 0.27; got 0.2"),
    ],
)
def test_what_the_peer_has_not_is_refused(bench, change, said):
    with pytest.raises(SystemExit, match=re.escape(said)):
        bench("train_step.py", *changes(change, "sigma_floor=0.1"))


@pytest.mark.parametrize("words", [("--batch", "0"), ("--threads", "-1"), ("--clips", "x")])
def test_numbers_of_a_command_line_are_positive(bench, capsys, words):
    name = "epoch.py" if words[0] == "--clips" else "train_step.py"
    with pytest.raises(SystemExit):
        bench(name, *words)
    assert f"must be a whole number of at least 1; got {words[1]}" in capsys.readouterr().err


def test_bad_input_ends_a_benchmark_in_a_sentence(bench, capsys):
    with pytest.raises(SnnDelaysError) as found:
        bench("train_step.py", "--recipe", "nope")
    sys.excepthook(found.type, found.value, found.tb)
    sentence = capsys.readouterr().err
    assert sentence.startswith("Error: The recipe must be one of")
    assert "Traceback" not in sentence


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
@pytest.mark.parametrize("name", ["train_step", "memory", "scaling", "max_delay"])
def test_so_does_a_gpu_that_is_not_here(bench, name):
    with pytest.raises(SnnDelaysError, match="--device must be auto, cpu or an available cuda"):
        bench(f"{name}.py", "--device", "cuda")


def test_reading_needs_clips_of_all_classes(bench, tmp_path):
    pytest.importorskip("tonic")
    write_events(tmp_path / "shd_train.h5", noise_as_shd(500))
    with pytest.raises(SystemExit, match="--clips must give clips of all 20 classes"):
        bench("data.py", "--data-dir", tmp_path, "--clips", 3)
    figures = bench("data.py", "--data-dir", tmp_path, "--clips", 60)
    assert figures["ratio"] > 0
    assert figures["over_spikingjelly"] > 0


@pytest.mark.slow
def test_the_delay_range(bench):
    words = ["--batch", 2, "--peer-batch", 1, "--hidden", 3, 3]
    figures = bench("max_delay.py", *words)
    assert [row["max_delay"] for row in figures["rows"]] == [8, 25, 64, 128, 256, 512]
    assert all(row["form_difference"] <= 1e-4 for row in figures["rows"])
    at = {row["max_delay"]: row["ours_s"] for row in figures["rows"]}
    assert figures["growth"] == pytest.approx(at[512] / at[25])
    assert figures["peer_growth"] > 0


@pytest.mark.slow
def test_memory_of_both_sides_in_processes_of_their_own(bench):
    figures = bench("memory.py", "--recipe", "shd", "--batch", 64, *changes("hidden=64,64"))
    assert figures["ours_mib"] > 0
    assert figures["ratio"] == pytest.approx(figures["peer_mib"] / figures["ours_mib"])


def noise_as_shd(spikes=50):
    """60 clips of so many spikes, each class by speakers 0, 9 and 11."""
    rng = np.random.default_rng(0)
    return EventStore(
        times_us=np.sort(rng.integers(0, 10**6, (60, spikes)), 1).astype(np.int32).ravel(),
        units=rng.integers(0, 700, 60 * spikes).astype(np.int16),
        offsets=np.arange(61) * spikes,
        labels=np.tile(np.arange(20), 3),
        speakers=np.repeat([0, 9, 11], 20),
        channels=700,
        classes=SOURCES["shd"].classes,
        source="noise",
    )


def test_an_epoch_from_files(bench, tmp_path, monkeypatch):
    monkeypatch.setenv("SNN_DELAYS_CACHE", str(tmp_path / "cache"))
    write_events(tmp_path / "shd_train.h5", noise_as_shd())
    figures = bench("epoch.py", "--data-dir", tmp_path, "--clips", 8)
    assert figures["clips"] == 8
    assert 0 < figures["loading_share"] < 1


def test_inference_gives_the_same_spikes(bench):
    figures = bench("inference.py")
    assert set(figures["ratios"]) == {"shd_clip", "shd_batch", "ssc_clip", "ssc_batch"}
    assert figures["machine"]["threads"] == 1
