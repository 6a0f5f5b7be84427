"""How much memory the machine has for this process, and how much of it is free."""

from __future__ import annotations

from pathlib import Path

import psutil

_LIMIT_FILES = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def total_bytes(device: str) -> int:
    """The memory of a GPU; else of the machine, or what this process may have of it."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_properties(device).total_memory
    limits = [psutil.virtual_memory().total]
    for name in _LIMIT_FILES:
        try:
            limits.append(int(Path(name).read_text("ascii")))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return min([*limits, *_address_limit()])


def free_bytes(device: str) -> int:
    """What this process could take now in addition, about."""
    if device.startswith("cuda"):
        import torch

        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept  # torch keeps what was freed
    own = psutil.Process().memory_info()
    taken = own.vms if _address_limit() else own.rss - _mapped_bytes()  # a limit counts addresses
    return max(0, total_bytes(device) - taken)


def _mapped_bytes() -> int:
    """Pages of files in memory, which Linux takes back when they are wanted; 0 elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("RssFile:"))


def _address_limit() -> list[int]:
    """The limit on this process's addresses, if there is one."""
    try:
        import resource
    except ImportError:  # Windows
        return []
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return [] if limit == resource.RLIM_INFINITY else [limit]
