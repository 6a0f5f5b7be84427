"""Several reporters as one: each is told everything, in the order in which they are named."""

from pathlib import Path
from unittest.mock import Mock, call

import pytest
from torch import nn

from snn_delays.training.reporting import Reporter, Reporters

TOLD = {
    "message": ("a sentence",),
    "start": (4, 2, 8),
    "batch": (3, 1),
    "measured": ({"epoch": 3}, nn.Linear(1, 1)),
    "epoch": ({"epoch": 3},),
    "stop": (),
    "pictures": ([Path("curves.png")], 4),
}
"""All that a reporter can be told."""


@pytest.mark.parametrize("what", [name for name in vars(Reporter) if not name.startswith("_")])
def test_each_is_told_everything_in_order(what):
    both = Mock()
    getattr(Reporters(both.first, both.second), what)(*TOLD[what])
    expected = [getattr(each, what)(*TOLD[what]) for each in (call.first, call.second)]
    assert both.mock_calls == expected
