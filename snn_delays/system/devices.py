"""Where a network computes: the device asked for, its name, and the same bits on it each time."""

from __future__ import annotations

import os
from typing import Any

import torch

from snn_delays.errors import SnnDelaysError


def check_device(device: str) -> str:
    """A device that exists; `auto` is the first GPU, else the CPU.

    Raises:
        SnnDelaysError: torch has no such device here.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if torch.device(device).type not in ("cpu", "cuda"):
            raise RuntimeError(f"{device} is not supported")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SnnDelaysError(
            "--device", "auto, cpu or an available cuda device", device, str(error).split("\n")[0]
        ) from None
    return device


def device_name(device: str) -> str:
    """`cpu`, or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"


def be_deterministic() -> None:
    """Let torch use deterministic algorithms only, in this process from now on.

    On a GPU the same run then gives the same bits, and takes longer; on a CPU it does so anyway.
    Call it before CUDA is first used.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    settings: Any = torch.utils.deterministic
    settings.fill_uninitialized_memory = False  # nothing reads it unwritten
    torch.backends.cudnn.benchmark = False
