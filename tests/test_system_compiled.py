"""Compiled loops work with and without a place to keep them."""

import subprocess
import sys

import numpy as np
from numba.core import caching

from snn_delays.system.compiled import compiled


def add_up(x):
    total = 0.0
    for value in x:
        total += value
    return total


def test_a_compiled_function_computes_the_same():
    assert compiled(add_up)(np.arange(5.0)) == add_up(np.arange(5.0)) == 10.0


def test_without_a_writable_folder_functions_still_compile(monkeypatch):
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    again = compiled(add_up)
    assert again(np.arange(4.0)) == 6.0
    assert not again.stats.cache_path


INNER = """
from snn_delays.system.compiled import compiled

@compiled
def scale(pair, x):
    return pair.factor * x
"""
OUTER = """
from typing import NamedTuple
from inner import scale
from snn_delays.system.compiled import compiled

class Pair(NamedTuple):
    factor: float

@compiled
def scaled(pair, x):
    return scale(pair, x)

print(scaled(Pair(2.0), 3.0))
"""


def test_loops_kept_by_an_older_version_are_not_used(tmp_path):
    """Neither where a loop of another file is within them, nor where a class has a new name."""

    def answer(inner, outer):
        (tmp_path / "inner.py").write_text(inner)
        (tmp_path / "outer.py").write_text(outer)
        command = [sys.executable, "-c", "import outer"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)

    assert answer(INNER, OUTER).stdout == "6.0\n"
    assert list(tmp_path.glob("__pycache__/*.nbi"))
    offset = INNER.replace("factor * x", "factor * x + 1")
    assert answer(offset, OUTER).stdout == "7.0\n"
    assert answer(offset, OUTER.replace("Pair", "Couple")).stdout == "7.0\n"
