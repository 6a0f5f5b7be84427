"""One training run spread over the processes that `torchrun` started: who is here, and exact sums.

Every process holds the whole network and works on its own clips of each batch; nothing else about
training changes. gloo on CPUs, NCCL on GPUs.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from snn_delays.errors import DataError, SnnDelaysError, TrainingError
from snn_delays.system.signals import at_once
from snn_delays.system.threads import core_count

PATIENCE = timedelta(minutes=10)
"""How long a process waits for another that is alive but does not answer."""


@dataclass(frozen=True)
class World:
    """The processes of a run.

    Attributes:
        rank: number of this process, from 0; rank 0 writes and prints.
        size: how many there are.
        device: where this process computes.
    """

    rank: int
    size: int
    device: torch.device

    def share(self, clips: int) -> Share:
        """What this process works on in a batch of so many clips."""
        first, last = (clips * r // self.size for r in (self.rank, self.rank + 1))
        return Share(clips, slice(first, last) if first < last else slice(0, 1), first < last)

    def check_data(self, fingerprint: Mapping[str, Any]) -> None:
        """Check that every process read the same data.

        Args:
            fingerprint: what this one read, as `Splits.fingerprint` gives it.
        Raises:
            DataError: another process read something else.
        """
        if not self._agrees(hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode())):
            raise DataError(
                "The processes of the run read different data",
                remedy="Put the same files on every machine; a .gz and what is in it count as two.",
            )

    def check_equal(self, net: nn.Module, epoch: int) -> None:
        """Check that the network is the same in every process, to the last bit.

        Raises:
            TrainingError: it is not.
        """
        digest = hashlib.sha256()
        for value in net.state_dict().values():
            digest.update(value.detach().cpu().contiguous().view(-1).numpy().tobytes())
        if not self._agrees(digest):
            raise TrainingError(
                f"The processes' networks differ after epoch {epoch}",
                remedy="Run them on machines of one kind, with the same versions of everything.",
            )

    def _agrees(self, digest: hashlib._Hash) -> bool:
        """Whether every process has the same."""
        number = int.from_bytes(digest.digest()[:7])
        bounds = torch.tensor([number, -number], device=self.device)
        _all_reduce(bounds, dist.ReduceOp.MAX)
        return int(bounds[0]) == -int(bounds[1])

    def send(self, data: bytes = b"") -> bytes:
        """The bytes that rank 0 gives, in every process."""
        size = torch.tensor([len(data)], device=self.device)
        _broadcast(size)
        content = torch.zeros(int(size), dtype=torch.uint8, device=self.device)
        if self.rank == 0 and data:
            content.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        _broadcast(content)
        return content.cpu().numpy().tobytes()


@dataclass(frozen=True)
class Share:
    """The part of a batch that one process works on.

    Attributes:
        clips: in the whole batch.
        own: the clips of this process.
        counts: False for a process that no clip was left for: it repeats the first, to keep step
            with the others, and adds nothing to any sum.
    """

    clips: int
    own: slice
    counts: bool = True

    def sum(self, part: Tensor) -> Tensor:
        """`total` over the processes that count."""
        return total(part if self.counts else torch.zeros_like(part))

    def differentiable_sum(self, part: Tensor) -> Tensor:
        """`sum`, through which gradients flow into every process's part."""
        whole: Tensor = _Sum.apply(part, self)
        return whole

    def weigh(self, loss: Tensor) -> Tensor:
        """This process's part of the batch's loss, given the mean over its own clips."""
        own = self.own.stop - self.own.start if self.counts else 0
        return loss * (own / self.clips)

    def sum_gradients(self, net: nn.Module, loss: Tensor) -> Tensor:
        """Make every gradient that of the whole batch, and return the whole batch's loss.

        Args:
            net: its gradients are those of this process's part of the loss; changed in place.
            loss: this process's part of it, a scalar.
        """
        gradients = [p.grad for p in net.parameters() if p.grad is not None]
        parts = [loss.detach().to(gradients[0].dtype).reshape(1), *(g.flatten() for g in gradients)]
        whole, *summed = self.sum(torch.cat(parts)).split([len(part) for part in parts])
        for gradient, value in zip(gradients, summed, strict=True):
            gradient.copy_(value.view_as(gradient))
        return whole[0].to(loss.dtype)


class _Sum(torch.autograd.Function):
    """Each process's result depends on each one's part, so gradients are summed likewise."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, share: Share) -> Tensor:
        ctx.share = share
        return share.sum(part)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.share.sum(gradients[0]), None


def backward(loss: Tensor, net: nn.Module, share: Share | None) -> Tensor:
    """Compute the gradients of the whole batch's loss.

    Args:
        loss: the mean over this process's clips.
        net: gets the gradients.
        share: which clips those are; None for the whole batch.
    Returns:
        The loss of the whole batch.
    """
    if share is None:
        loss.backward()
        return loss.detach()
    part = share.weigh(loss)
    part.backward()
    return share.sum_gradients(net, part)


def of_whole_batch(part: Tensor, share: Share | None) -> Tensor:
    """A sum over the clips of the whole batch, given that over this process's."""
    return part if share is None else share.sum(part)


def total(part: Tensor) -> Tensor:
    """The sum of what all processes give, the same to the last bit in each of them."""
    whole = part.detach().clone()
    _all_reduce(whole)
    return whole


def launched_rank() -> int | None:
    """The number of this process among those that torchrun started; None without torchrun."""
    return int(os.environ["RANK"]) if "TORCHELASTIC_RUN_ID" in os.environ else None


@contextmanager
def joined(device: str) -> Iterator[World]:
    """Meet the other processes that torchrun started; they part at the end of the block.

    On CPUs the processes of one machine share its cores, unless `OMP_NUM_THREADS` says otherwise
    (1 does not: torchrun sets that itself).

    Args:
        device: `cpu` or `cuda`; each process of a machine gets a GPU of its own.
    Raises:
        SnnDelaysError: there are more processes than GPUs.
    """
    local, beside = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    place = torch.device(device)
    if place.type == "cuda":
        if beside > torch.cuda.device_count():
            there = f"{torch.cuda.device_count()}, the number of GPUs here"
            raise SnnDelaysError("--nproc-per-node", f"at most {there}", beside)
        place = torch.device("cuda", local)
        torch.cuda.set_device(place)
    if os.environ.get("OMP_NUM_THREADS", "1") == "1":
        torch.set_num_threads(max(1, core_count() // beside))
    with at_once():  # nothing is lost yet, and torchrun would wait half a minute for us to end
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield World(dist.get_rank(), dist.get_world_size(), place)
    finally:
        dist.destroy_process_group()


def _all_reduce(value: Tensor, operation: Any = dist.ReduceOp.SUM) -> None:
    with _company():
        dist.all_reduce(value, operation)


def _broadcast(value: Tensor) -> None:
    with _company():
        dist.broadcast(value, src=0)


@contextmanager
def _company() -> Iterator[None]:
    """Say in one sentence that another process is gone."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).split("\n")[0]
        raise TrainingError(
            f"Process {dist.get_rank()} of the run lost another one: it died or does not answer "
            f"({reason})",
            remedy="What was saved is kept. Start torchrun again with --resume.",
        ) from error
