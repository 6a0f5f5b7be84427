"""A tiny recipe and tiny runs that several tests share."""

from snn_delays.config import load_recipe
from snn_delays.runs import RunFolder
from snn_delays.training.loop import train

FLAGS = ["--set", "hidden=8", "--set", "batch_size=256", "--epochs", "2", "--device", "cpu"]
"""The same settings on the command line."""


def tiny_recipe(**changes):
    """The built-in task with a small network and two epochs."""
    return load_recipe("synthetic", {"hidden": [8], "batch_size": 256, "epochs": 2, **changes})


def tiny_run(path, **changes):
    """Train `tiny_recipe` into `path`; the folder and the summary."""
    folder = RunFolder(path)
    return folder, train(tiny_recipe(**changes), folder)
