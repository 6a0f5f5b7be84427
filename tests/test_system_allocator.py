"""Keeping freed memory: large blocks come back without page faults."""

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
