"""Compiled loops work with and without a place to keep them, and never with other sources."""

import os
import subprocess
import sys

import numpy as np
import pytest
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


FILES = {
    "inner.py": """
from snn_delays.system.compiled import compiled

@compiled
def scale(pair, x):
    return pair.factor * x
""",
    "middle.py": """
from inner import scale
from snn_delays.system.compiled import compiled

@compiled
def scaled(pair, x):
    return scale(pair, x)
""",
    "outer.py": """
from typing import NamedTuple
from middle import scaled
from snn_delays.system.compiled import compiled

class Pair(NamedTuple):
    factor: float

@compiled
def total(pair, x):
    return scaled(pair, x) + 0.5

print(total(Pair(2.0), 3.0))
""",
}


@pytest.fixture
def answer(tmp_path):
    """Run outer.py, once `old` is `new` in a file, which keeps its time of change."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
        os.utime(tmp_path / name, (1, 1))

    def run(name="outer.py", old="", new=""):
        path = tmp_path / name
        path.write_text(path.read_text().replace(old, new) if old else path.read_text())
        os.utime(path, (1, 1))
        command = [sys.executable, "-c", "import outer"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return float(done.stdout)

    return run


def kept(folder):
    """Each file of the cache, and when it was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("__pycache__/*.nb?")}


def test_kept_loops_are_used_with_the_sources_that_they_were_made_of(tmp_path, answer):
    assert answer() == 6.5
    first = kept(tmp_path)
    assert len(first) == 6
    assert answer() == 6.5
    assert kept(tmp_path) == first
    assert answer("inner.py", "factor * x", "factor * x + 1") == 7.5
    assert answer("outer.py", "Pair", "Couple") == 7.5
    assert answer("middle.py", "(pair, x)\n", "(pair, x) * 2\n") == 14.5
    others = kept(tmp_path)
    assert answer("outer.py", "+ 0.5", "+ 0.25") == 14.25
    new = kept(tmp_path).items() - others.items()
    assert {name.split("-")[1].split(".")[0] for name, _ in new} == {"outer"}


KILLED = """
import os
from numba.core.caching import IndexDataCacheFile
IndexDataCacheFile._save_data = lambda *_: os._exit(9)
import outer
"""


def test_a_process_killed_between_index_and_code_leaves_no_other_code(tmp_path, answer):
    assert answer() == 6.5
    path = tmp_path / "inner.py"
    path.write_text(path.read_text().replace("factor * x", "factor * x + 1"))
    os.utime(path, (1, 1))
    assert subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path).returncode == 9
    assert answer() == 7.5


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
@pytest.mark.parametrize("end", [0, -9])
def test_what_is_damaged_is_as_none(tmp_path, answer, kind, end):
    assert answer() == 6.5
    for file in tmp_path.glob(f"__pycache__/*.{kind}"):
        file.write_bytes(file.read_bytes()[:end])
    assert answer() == 6.5
