"""Compiled loops work with and without a place to keep them."""

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
