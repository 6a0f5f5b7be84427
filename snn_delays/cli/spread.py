"""`train` under torchrun: its first process leads, writes and prints; the others follow.

A follower gets the recipe and the state to resume from over the wire, and keeps nothing. Of a run
that is finished the leader alone exports and draws again.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from snn_delays.config import Recipe
from snn_delays.distributed import World, joined, launched_rank
from snn_delays.runs import RunFolder
from snn_delays.system.atomic import write_bytes
from snn_delays.system.devices import check_device
from snn_delays.training.loop import train
from snn_delays.watching import watched

_NOTHING = b""
"""Sent in the place of a recipe when there is nothing to train."""


@contextmanager
def leading(device: str, recipe: Recipe, folder: RunFolder, resume: bool) -> Iterator[World | None]:
    """The processes to train with, told what to train; None where this one works alone."""
    if launched_rank() is None:
        yield None
        return
    folder.check(recipe, resume)  # before anyone waits for us
    if resume and folder.is_finished():
        with joined(_own_device(device)) as world:
            world.send(_NOTHING)
        yield None
        return
    with joined(_own_device(device)) as world:
        world.send(recipe.to_toml().encode())
        kept = resume and folder.checkpoint_file.is_file()
        world.send(folder.checkpoint_file.read_bytes() if kept else b"")
        try:
            yield world
        except BaseException:  # torchrun ends us as soon as another process is gone: say why first
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise


def follow(device: str, data_dir: Path | None) -> None:
    """Take part in the leader's run from its beginning to its end."""
    with joined(_own_device(device)) as world, TemporaryDirectory() as place, watched(None):
        for number in (signal.SIGINT, signal.SIGTERM):  # the leader stops the run, between batches
            signal.signal(number, signal.SIG_IGN)
        folder, recipe = RunFolder(place), world.send()
        if recipe == _NOTHING:
            return
        write_bytes(folder.recipe_file, recipe)
        state = world.send()
        if state:
            write_bytes(folder.checkpoint_file, state)
        train(folder.recipe(), folder, data_dir=data_dir, resume=True, world=world)


def _own_device(device: str) -> str:
    """`check_device`, on this process's own GPU: to look at another takes memory there."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    return check_device(device)
