"""TensorBoard's event files, read back with TensorBoard's own reader."""

import json
import sys

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from tiny import FLAGS, tiny_recipe
from torch import nn

from snn_delays.nn import DelayLinear, delay_layers
from snn_delays.runs import RunFolder
from snn_delays.training import loop as training
from snn_delays.training.assembly import load_trained
from snn_delays.training.reporting import Reporter, Reporters
from snn_delays.training.tensorboard import TensorBoardReporter

reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def read(folder):
    events = reader.EventAccumulator(str(folder), dict.fromkeys(("scalars", "histograms"), 0))
    return events.Reload()


def steps(events):
    """The steps of every tag."""
    tags = events.Tags()
    found = {tag: [e.step for e in events.Scalars(tag)] for tag in tags["scalars"]}
    found |= {tag: [e.step for e in events.Histograms(tag)] for tag in tags["histograms"]}
    return found | {tag: [e.step for e in events.Images(tag)] for tag in tags["images"]}


def test_every_number_of_metrics_is_a_scalar_and_delays_are_histograms(call, tmp_path):
    run = RunFolder(tmp_path / "run")
    code, _, _ = call("train", *FLAGS, "--out", run.path, "--tensorboard")
    assert code == 0
    code, _, _ = call("train", "--resume", "--out", run.path, "--tensorboard", "--quiet")
    assert code == 0  # draws the finished run again
    events = read(run.tensorboard)
    for record in run.read_metrics():
        expected = {
            "train_loss": record["train_loss"],
            "valid_accuracy": record["valid_accuracy"],
            "sigma": record["sigma"],
            "rates/delays": record["rates"]["delays"],
            "spike_rates/0": record["spike_rates"][0],
            "delays/readout/mean_move": record["delays"]["readout"]["mean_move"],
        }
        for tag, value in expected.items():
            (found,) = [e.value for e in events.Scalars(tag) if e.step == record["epoch"]]
            assert found == pytest.approx(value, rel=1e-6)
    net, recipe, _ = load_trained(run)
    for name, layer in delay_layers(net).items():
        histogram = events.Histograms(f"delay/{name}")[-1].histogram_value
        assert histogram.num == layer.delay.numel()
        assert 0 <= histogram.min <= histogram.max <= recipe.max_delay
        assert sum(histogram.bucket) == layer.delay.numel()
    assert set(events.Tags()["images"]) == {"curves", "delays", "raster"}
    for tag in events.Tags()["images"]:
        (shown,) = events.Images(tag)
        assert imread(run.plots / f"{tag}.png").shape[:2] == (shown.height, shown.width)
    for tag, found in steps(events).items():
        assert found == ([3] if tag in events.Tags()["images"] else [1, 2]), tag


def test_bins_hold_the_whole_delays(tmp_path):
    layer = DelayLinear(1, 4, max_delay=3)
    layer.delay.data = torch.tensor([0.0, 1.4, 1.6, 3.0]).reshape(4, 1, 1)
    reporter = TensorBoardReporter(tmp_path)
    reporter.start(1, 0, 1)
    reporter.measured({"epoch": 1}, nn.Sequential(layer))
    (event,) = read(tmp_path).Histograms("delay/0")  # while training goes on
    reporter.stop()
    full = [
        (limit, count)
        for limit, count in zip(
            event.histogram_value.bucket_limit, event.histogram_value.bucket, strict=True
        )
        if count
    ]
    assert full == [(0.5, 1), (1.5, 1), (2.5, 1), (3.5, 1)]


class Killed(Reporter):
    """Stands for a process that dies after an epoch was measured and before it was saved."""

    def __init__(self, epoch):
        self.last = epoch

    def measured(self, record, net):
        if record["epoch"] == self.last:
            raise KeyboardInterrupt


def test_a_resumed_run_has_every_epoch_once(tmp_path):
    recipe, folder = tiny_recipe(epochs=4), RunFolder(tmp_path / "run")
    board = TensorBoardReporter(folder.tensorboard)
    with pytest.raises(KeyboardInterrupt):
        training.train(recipe, folder, reporter=Reporters(board, Killed(3)))
    assert len(json.loads("[" + ",".join(folder.metrics_file.read_text().splitlines()) + "]")) == 2
    assert set(map(tuple, steps(read(folder.tensorboard)).values())) == {(1, 2, 3)}
    for _ in range(2):  # the second time there is nothing left to do
        board = TensorBoardReporter(folder.tensorboard)
        training.train(recipe, folder, resume=True, reporter=board)
        assert set(map(tuple, steps(read(folder.tensorboard)).values())) == {(1, 2, 3, 4)}
    losses = [e.value for e in read(folder.tensorboard).Scalars("train_loss")]
    assert losses == pytest.approx([r["train_loss"] for r in folder.read_metrics()], rel=1e-6)


def test_a_run_that_began_without_gets_its_earlier_numbers(tmp_path):
    recipe, folder = tiny_recipe(epochs=3), RunFolder(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        training.train(recipe, folder, reporter=Killed(3))
    assert "--tensorboard" not in folder.how_to_go_on()
    board = TensorBoardReporter(folder.tensorboard)
    training.train(recipe, folder, resume=True, reporter=board)
    assert "--tensorboard" in folder.how_to_go_on()
    found = steps(read(folder.tensorboard))
    assert found.pop("train_loss") == found.pop("delays/readout/mean_move") == [1, 2, 3]
    assert found["delay/readout"] == [3]  # of the epochs before nothing is known but their numbers


def test_a_session_that_is_stopped_at_once_leaves_the_earlier_numbers(trained, tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_metrics([{**record, "sigma": 0} for record in trained[0].read_metrics()[:2]])
    board = TensorBoardReporter(folder.tensorboard)
    board.stop()  # before it is started
    board.start(4, 2, 8)
    board.stop()
    found = steps(read(folder.tensorboard))
    assert found["train_loss"] == found["sigma"] == [1, 2]


def test_without_tensorboard_one_sentence_says_what_to_install(call, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    code, _, err = call("train", *FLAGS, "--out", tmp_path / "run", "--tensorboard")
    assert code == 2
    assert 'pip install "snn-delays[tensorboard]"' in err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_comparison_writes_the_files_of_every_run(call, tmp_path):
    out = tmp_path / "study"
    words = ["--delays", "none,learned", "--seeds", "1", "--tensorboard", "--quiet"]
    code, _, _ = call("compare", *FLAGS, *words, "--out", out)
    assert code == 0
    for name in ("none-seed0", "learned-seed0"):
        events = read(out / name / "tensorboard")
        losses = [e.value for e in events.Scalars("train_loss")]
        assert np.isfinite(losses).all()
        assert len(losses) == 2
        assert [e.step for e in events.Images("curves")] == [3]
