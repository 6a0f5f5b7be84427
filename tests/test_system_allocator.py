"""Keeping freed memory: large blocks come back without page faults; what was free is returned."""

import resource
import subprocess
import sys

import pytest

COUNT_FAULTS = """
import resource, sys
from snn_delays.system.allocator import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

kept = sys.argv[1] == "keep" and keep_freed_memory()
size = int(sys.argv[2])
b"x" * size
before = faults()
for _ in range(4):
    b"x" * size
print(faults() - before if kept or sys.argv[1] == "return" else "impossible")
"""


def page_faults(word, size):
    command = [sys.executable, "-c", COUNT_FAULTS, word, str(size)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("size", [2**27, 5 * 2**28])  # 128 MiB, and over a GiB
def test_where_it_applies_large_blocks_are_reused_without_page_faults(size):
    pages = 4 * size // resource.getpagesize()
    if page_faults("keep", size) == "impossible":
        pytest.skip("only glibc can be told to keep freed memory")
    if int(page_faults("return", size)) < pages // 2:
        pytest.skip("this system's pages are large, or its allocator keeps them anyway")
    assert int(page_faults("keep", size)) < pages // 100


HOLES = """
import resource, sys
from pathlib import Path
from snn_delays.system.allocator import keep_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

blocks = [b"x" * 2**16 for _ in range(2**11)]  # 128 MiB, below what is mapped alone
last = b"x" * 2**16  # holds the heap's end
del blocks
before = resident()
print(before - resident() if keep_freed_memory() else "impossible")
"""


def test_what_was_free_before_is_returned():
    done = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True)
    if done.stdout.strip() == "impossible":
        pytest.skip("only glibc can be told to keep freed memory")
    assert int(done.stdout) > 2**26
