"""Long loops tell who watches how far they are; the command line shows them."""

import io
import re

import numpy as np
import pytest
import torch
from rich.console import Console
from sample_networks import document
from tiny import FLAGS

from snn_delays import data
from snn_delays.cli import console
from snn_delays.cli.console import LoopWatcher, TerminalReporter
from snn_delays.data.hdf5 import read_events
from snn_delays.engine import Network
from snn_delays.evaluation import answer, evaluate
from snn_delays.fidelity import compare_engines
from snn_delays.nn import round_delays
from snn_delays.predictions import predict, read_clips
from snn_delays.training.assembly import load_trained
from snn_delays.watching import by_steps, watched


@pytest.fixture
def told():
    """What is told within the test."""
    heard = []
    with watched(lambda *words: heard.append(words)):
        yield heard


@pytest.fixture
def clock(monkeypatch):
    """The time in seconds, in a list."""
    now = [0.0]
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(console.time, "perf_counter", lambda: now[0])
    return now


def test_a_loop_tells_its_start_each_step_and_its_end(told):
    assert list(by_steps("clips", 7, 3)) == [0, 3, 6]
    assert told == [("clips", 0, 7), ("clips", 3, 7), ("clips", 6, 7), ("clips", 7, 7)]
    with watched(None):
        assert list(by_steps("clips", 2, 1)) == [0, 1]
    assert len(told) == 4
    assert list(by_steps("clips", 0, 3)) == []
    assert told[4:] == [("clips", 0, 0)]


def test_a_loop_that_is_left_early_is_over(told):
    loop = by_steps("clips", 9, 3)
    assert next(loop) == 0
    loop.close()
    assert told == [("clips", 0, 9), ("clips", 9, 9)]


def test_whoever_watched_before_watches_again(told):
    with pytest.raises(KeyError), watched(lambda *_: None):
        raise KeyError
    list(by_steps("clips", 1, 1))
    assert len(told) == 2


def test_reading_and_answering_clips_is_told(told, trained, shd_folder, tmp_path):
    read_events(shd_folder / "shd_train.h5", channels=700, source="a.h5")
    assert told == [("clips of a.h5", done, 80) for done in (0, 80)]
    folder, _ = trained
    net, recipe, _ = load_trained(folder)
    valid = data.load("synthetic", "valid", steps=recipe.steps)
    for loop in (
        lambda: evaluate(round_delays(net), valid, 300),
        lambda: answer(Network.load(folder.network_file).engine, valid),
    ):
        told.clear()
        loop()
        assert told[0] == ("clips of synthetic valid", 0, 640)
        assert told[-1] == ("clips of synthetic valid", 640, 640)
        assert len(told) >= 3
    engine = Network.load(folder.network_file).engine
    told.clear()
    compare_engines(engine, engine, valid, 9)
    assert told == [("clips of synthetic valid", done, 9) for done in (0, 9)]


def test_clips_of_an_array_are_told(told, tmp_path):
    net = Network.model_validate(document())
    shape = (5, net.input.steps, net.input.channels)
    np.savez(tmp_path / "a.npz", x=np.ones(shape))
    found = predict(net, read_clips(tmp_path / "a.npz", net), spikes=False)
    assert len(found["classes"]) == 5
    assert {words[0] for words in told} == {"clips of a.npz"}
    assert told[-1] == ("clips of a.npz", 5, 5)


def test_lines_of_a_loop_where_there_is_no_terminal(clock):
    output = Console(file=io.StringIO(), width=200)
    watcher = LoopWatcher(output)
    for done in range(0, 101, 10):
        watcher("clips of a [b]", done, 100)
        clock[0] += 4
    assert output.file.getvalue().splitlines() == [
        "clips of a [b]: 30 of 100 done, 28 s left",
        "clips of a [b]: 60 of 100 done, 16 s left",
        "clips of a [b]: 90 of 100 done, 4 s left",
    ]
    watcher("others", 0, 2)  # a loop after it counts its own time
    clock[0] += 9
    watcher("others", 1, 2)
    assert "others" not in output.file.getvalue()


@pytest.mark.parametrize("hosted", [False, True])
def test_a_bar_on_a_terminal_is_there_while_a_loop_is_long(clock, hosted):
    output = Console(file=io.StringIO(), width=120, force_terminal=True)
    host = console._bars(output) if hosted else None
    with LoopWatcher(output, host) as watcher:
        watcher("clips of [b]", 0, 100)
        clock[0] = 0.9
        watcher("clips of [b]", 10, 100)
        assert watcher.bars is None  # a short loop has none
        clock[0] = 2.0
        watcher("clips of [b]", 50, 100)
        assert (watcher.bars is host) == hosted
        (task,) = watcher.bars.tasks
        assert (task.completed, task.total) == (50, 100)
        assert task.fields["rate"] == "25 a second"
        clock[0] = 100.0
        watcher("clips of [b]", 60, 100)
        assert task.fields["rate"] == "0.6 a second"
        bars = watcher.bars
        bars.refresh() if not hosted else output.print(host)
        assert "clips of [b] " in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output.file.getvalue())
        watcher("clips of [b]", 100, 100)
        assert watcher.bars is None
        assert not bars.tasks
        watcher("others", 0, 3)
        clock[0] = 110.0
        watcher("others", 1, 3)
    assert watcher.bars is None  # a loop that was left half done


def test_evaluation_has_a_bar_beside_that_of_training(clock):
    output = Console(file=io.StringIO(), width=120, force_terminal=True)
    reporter = TerminalReporter(output)
    reporter.start(epochs=2, done=0, batches=5)
    loop = by_steps("clips of shd valid", 20, 5)
    next(loop)
    clock[0] = 3.0
    next(loop)
    training, evaluating = reporter.progress.tasks
    assert (training.description, evaluating.description) == ("training", "clips of shd valid")
    list(loop)
    assert reporter.progress.tasks == [training]
    stopped = by_steps("clips", 20, 5)
    next(stopped)
    clock[0] = 6.0
    next(stopped)
    assert len(reporter.progress.tasks) == 2
    progress = reporter.progress
    reporter.stop()  # as after Ctrl-C
    assert progress.tasks == [training]
    clock[0] = 9.0
    list(by_steps("clips", 20, 5))  # is told nobody


def test_a_command_shows_its_loops_unless_it_is_quiet(call, trained, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(LoopWatcher, "__call__", lambda *words: shown.append(words[1:]))
    assert call("evaluate", trained[0].path)[0] == 0
    assert ("clips of synthetic test", 960, 960) in shown
    shown.clear()
    words = ("train", *FLAGS, "--epochs", 1, "--out")
    assert call(*words, tmp_path / "quiet", "--quiet")[0] == 0
    assert not shown
    assert call(*words, tmp_path / "loud")[0] == 0
    assert ("clips of synthetic valid", 640, 640) in shown


def test_indices_in_order_cover_the_first_clips_once():
    clips = data.load("synthetic", "valid")
    for size, count in ((7, None), (640, None), (64, 100), (10, 5), (9, 10**6)):
        whole = torch.cat(list(clips.in_order(size, count)))
        assert torch.equal(whole, torch.arange(min(count or 640, 640)))
        assert max(map(len, clips.in_order(size, count))) <= size


def test_bars_have_room_on_a_narrow_terminal(clock):
    """Every figure of the training's bar and a loop's beside it, on 80 columns."""
    output = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    bars = console._bars(output)
    bars.add_task("training", total=88200, completed=12345, unit="batches", rate="2301 clips/s")
    bars.add_task("clips of synthetic valid", total=2000, unit="", rate="12301 a second")
    output.print(bars.get_renderable())
    shown = output.file.getvalue()
    assert "…" not in shown
    assert "12345/88200 batches left" in shown


def test_a_narrow_bar_cuts_the_name_before_its_figures(clock):
    output = Console(file=io.StringIO(), force_terminal=True, width=60, color_system=None)
    bars = console._bars(output)
    words = "clips of recordings-of-a-microphone test"
    bars.add_task(words, total=8332, completed=500, unit="clips", rate="12301 a second")
    output.print(bars.get_renderable())
    line = output.file.getvalue()
    assert line.startswith("clips o… ")
    assert "500/8332 clips left" in line
    assert "12301 a second" in line
