"""Two hundred epochs: memory and open files stay flat."""

from __future__ import annotations

import os
import statistics
import sys

import pytest
from tiny import tiny_recipe

from snn_delays.runs import RunFolder
from snn_delays.training import assembly
from snn_delays.training.loop import train
from snn_delays.training.reporting import Reporter


class Watch(Reporter):
    """Notes resident memory (KiB) and open files after each epoch."""

    def __init__(self):
        self.memory, self.files = [], []

    def epoch(self, record):
        with open("/proc/self/statm") as file:
            self.memory.append(int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024)
        self.files.append(len(os.listdir("/proc/self/fd")))


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts what /proc says")
def test_memory_and_open_files_stay_flat(tmp_path, monkeypatch):
    """The median of the last 50 epochs lies within 2 MiB of that of epochs 50 to 100."""
    real = assembly.load_split

    def few(recipe, split, data_dir):
        data = real(recipe, split, data_dir)
        for name in ("_clips", "_lengths", "labels"):
            setattr(data, name, getattr(data, name)[::24])
        return data

    monkeypatch.setattr(assembly, "load_split", few)
    watch = Watch()
    recipe = tiny_recipe(epochs=200, batch_size=16, augment={"drop": 0.1})
    train(recipe, RunFolder(tmp_path / "run"), reporter=watch)
    early, late = watch.memory[50:100], watch.memory[150:]
    assert len(watch.memory) == 200
    assert statistics.median(late) - statistics.median(early) < 2048, watch.memory[::10]
    assert max(watch.files[10:]) <= watch.files[10]
