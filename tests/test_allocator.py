"""Keeping freed memory: large blocks come back without page faults."""

import resource
import subprocess
import sys

import pytest

from snn_delays.allocator import keep_freed_memory

COUNT_FAULTS = """
import resource, sys
import torch
from snn_delays.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(2**25)
before = faults()
for _ in range(4):
    torch.ones(2**25)
print(faults() - before)
"""


def test_where_it_applies_large_blocks_are_reused_without_page_faults():
    def faults(word):
        done = subprocess.run(
            [sys.executable, "-c", COUNT_FAULTS, word], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    pages = 4 * 2**27 // resource.getpagesize()
    if not keep_freed_memory() or faults("no") < pages // 2:
        pytest.skip("this C library keeps freed memory anyway, or cannot be told to")
    assert faults("keep") < pages // 100
