"""`FiniteCheck`: no loss or gradient that is not finite ever reaches the weights.

A CPU is asked after every batch. A GPU would have to be waited for: there the optimisers leave out
such a batch on their own, and training stops when it is next asked.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from snn_delays.errors import TrainingError

_NEVER = 2**62
_EPOCH = 2**32  # batches are fewer


class FiniteCheck:
    """Looks at the loss and the gradients of every batch.

    Args:
        net: whose gradients.
        waits: whether to look at once; else the device keeps the first bad batch in mind. A GPU is
            not waited for by default.
    """

    def __init__(self, net: nn.Module, waits: bool | None = None) -> None:
        self.net = net
        self.device = next(net.parameters()).device
        self.waits = self.device.type == "cpu" if waits is None else waits
        self._first_bad = torch.full((), _NEVER, device=self.device)

    def look(self, loss: Tensor, epoch: int, batch: int) -> Tensor | None:
        """Look at a batch (from 0), before the optimisers step.

        Returns:
            For `Optimisation.step`: float32, 1 if the batch must be left out, else 0; None where
            that is settled here.
        Raises:
            TrainingError: naming epoch, batch and the parameters with the largest gradients.
        """
        gradients = {n: p.grad for n, p in self.net.named_parameters() if p.grad is not None}
        total = loss.detach() + nn.utils.get_total_norm(gradients.values())
        if not self.waits:
            bad = ~total.isfinite()
            number = torch.where(bad, epoch * _EPOCH + batch, _NEVER)
            self._first_bad = torch.minimum(self._first_bad, number)
            return bad.float()
        if math.isfinite(total.item()):
            return None
        norms = {name: float(gradient.norm()) for name, gradient in gradients.items()}
        worst = sorted(norms, key=lambda n: norms[n] if norms[n] == norms[n] else math.inf)[-3:]
        listed = ", ".join(f"{n} ({norms[n]:.3g})" for n in reversed(worst))
        raise _stopped(
            f"The loss is {loss.item()} in epoch {epoch + 1}, batch {batch + 1}; "
            f"largest gradients: {listed}",
            epoch,
        )

    def ask(self) -> None:
        """Wait for the device, and stop if it has left out a batch.

        Raises:
            TrainingError: naming epoch and batch.
        """
        first = int(self._first_bad)
        if first != _NEVER:
            epoch, batch = divmod(first, _EPOCH)
            where = f"in epoch {epoch + 1}, batch {batch + 1}"
            raise _stopped(f"The loss or a gradient is not finite {where}", epoch)


def _stopped(what: str, epoch: int) -> TrainingError:
    kept = "The last finished epoch is kept in last.ckpt. " if epoch else ""
    return TrainingError(
        what, remedy=f"{kept}Try a lower weight_lr or delay_lr, or --set clip_norm=1."
    )
