"""`DelaySNN`: hidden blocks of delayed synapses and LIF neurons, and a leaky readout.

All sizes are arguments; nothing here knows about data or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from snn_delays import neurons
from snn_delays.checks import (
    check_batch,
    check_finite,
    check_tensor,
    check_whole,
    check_word,
    is_number,
    sees_values,
    unshortened,
)
from snn_delays.distributed import Share
from snn_delays.errors import ShapeError, SnnDelaysError
from snn_delays.network_format import MAX_FEATURES, MAX_STEPS
from snn_delays.network_format.arrays import shown
from snn_delays.nn import DelayLinear
from snn_delays.ops import fused
from snn_delays.ops.synchronised import batch_norm
from snn_delays.words import Delays, Granularity, Readout


class Simulation(NamedTuple):
    """What a network did on one batch.

    Attributes:
        scores: ``[N, classes]``; the answer is the largest.
        potentials: the readout's membrane potentials, ``[T + tail_steps, N, classes]``.
        spikes: one tensor of zeros and ones per hidden layer, ``[T + tail_steps, N, width]``.
    """

    scores: Tensor
    potentials: Tensor
    spikes: list[Tensor]


class DelayBlock(nn.Module):
    """One hidden layer: delayed synapses, batch norm, LIF neurons, dropout.

    Args:
        synapses: ``[T, N, C_in] -> [T, N, C_out]``.
        neuron: from `neurons.lif`.
        dropout: probability to silence a neuron for a whole clip, in training.
    """

    def __init__(self, synapses: DelayLinear, neuron: nn.Module, dropout: float = 0.0) -> None:
        super().__init__()
        self.synapses = synapses
        self.norm = nn.BatchNorm1d(synapses.out_features)
        self.neuron = neuron
        self.dropout = dropout

    def forward(
        self, x: Tensor, steps: int | None = None, share: Share | None = None
    ) -> tuple[Tensor, Tensor]:
        """``[T, N, C_in]`` to spikes and what dropout leaves of them, ``[steps, N, C_out]``.

        Neurons start from rest.
        """
        current = unshortened(self.synapses(x, steps))
        keep = self._keep(current, share)
        known = fused.knows(self.norm, current, share)  # False on a GPU
        lif = neurons.fused_constants(self.neuron) if known else None
        if lif is not None:
            return fused.norm_lif_dropout(current, self.norm, lif, keep, share)
        spikes = neurons.run_from_rest(self.neuron, self._normalised(current, share))
        return spikes, spikes if keep is None else spikes * keep

    def _normalised(self, current: Tensor, share: Share | None) -> Tensor:
        if share is not None and self.training:
            return batch_norm(current, self.norm, share)
        normalised: Tensor = self.norm(current.flatten(0, 1)).view_as(current)
        return normalised

    def _keep(self, like: Tensor, share: Share | None) -> Tensor | None:
        """A dropout mask ``[N, C]``, the same at every step; None where nothing is dropped."""
        if not self.training or self.dropout == 0.0:
            return None
        if share is None:
            return F.dropout(torch.ones_like(like[0]), self.dropout)
        whole = like.new_ones(share.clips, like.shape[2])  # drawn alike in every process
        return F.dropout(whole, self.dropout)[share.own]


class DelaySNN(nn.Module):
    """A feed-forward spiking network with a delay on every synapse.

    Hidden blocks `DelayLinear` → batch norm → LIF → dropout, then a `DelayLinear` into a leaky
    integrator whose potentials are turned into class scores.

    Args:
        in_features: input channels ``C``.
        hidden: width of each hidden layer.
        classes: number of classes.
        max_delay: largest delay in steps, inclusive.
        tail_steps: zeros added after the input, so that late spikes still reach the readout.
        kernel_count: delayed contacts per pair of neurons; 1 without delays.
        delays: `learned`, `fixed` or `none` (see `DelayLinear`).
        granularity: `synaptic`, `axonal` or `dendritic` (see `DelayLinear`).
        bias: a learnable bias in every delay layer (batch norm has its own).
        tau, v_threshold, v_reset, decay_input, learn_tau, detach_reset: see `neurons.lif`; the
            readout shares `decay_input`.
        surrogate, surrogate_alpha: shape and steepness of the surrogate gradient.
        readout_tau: the readout's time constant in steps; `tau` when None.
        dropout: probability to silence a hidden neuron for a whole clip, in training.
        readout: `softmax_sum`, `max`, `mean` or `last` (see `class_scores`).
        sigma: initial width of the delay kernels, in steps.

    Shape:
        ``[T, N, C] -> [N, classes]``.
    Source:
        Hammouamri, Khalfaoui-Hassani, Masquelier, ICLR 2024 (arXiv:2306.17670).
    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int],
        classes: int,
        *,
        max_delay: int,
        tail_steps: int = 0,
        kernel_count: int = 1,
        delays: Delays = "learned",
        granularity: Granularity = "synaptic",
        bias: bool = False,
        tau: float = 1.005,
        v_threshold: float = 1.0,
        v_reset: float | None = 0.0,
        decay_input: bool = False,
        learn_tau: bool = False,
        surrogate: str = "atan",
        surrogate_alpha: float = 5.0,
        detach_reset: bool = True,
        readout_tau: float | None = None,
        dropout: float = 0.0,
        readout: Readout = "softmax_sum",
        sigma: float = 1.0,
    ) -> None:
        super().__init__()
        check_word("readout", readout, get_args(Readout))
        if not (is_number(dropout) and 0 <= dropout < 1):
            raise SnnDelaysError("`dropout`", "a share from 0, below 1", shown(dropout))
        tail_steps = check_whole("tail_steps", tail_steps, 0, MAX_STEPS)
        if not isinstance(hidden, Sequence) or not hidden:
            raise SnnDelaysError("`hidden`", "a list of at least one layer width", shown(hidden))
        widths = [check_whole(f"hidden[{i}]", n, 1, MAX_FEATURES) for i, n in enumerate(hidden)]
        in_features = check_whole("in_features", in_features, 1, MAX_FEATURES)
        classes = check_whole("classes", classes, 1, MAX_FEATURES)
        synapses = partial(
            DelayLinear,
            max_delay=max_delay,
            kernel_count=kernel_count,
            bias=bias,
            delays=delays,
            granularity=granularity,
            sigma=sigma,
        )
        neuron = partial(
            neurons.lif,
            tau=tau,
            v_threshold=v_threshold,
            v_reset=v_reset,
            decay_input=decay_input,
            learn_tau=learn_tau,
            surrogate_name=surrogate,
            surrogate_alpha=surrogate_alpha,
            detach_reset=detach_reset,
        )
        self.blocks = nn.ModuleList(
            DelayBlock(synapses(*pair), neuron(), dropout)
            for pair in zip([in_features, *widths], widths, strict=False)
        )
        self.readout = synapses(widths[-1], classes)
        self.integrator = neurons.LeakyIntegrator(
            tau if readout_tau is None else readout_tau, decay_input
        )
        self.in_features = in_features
        self.tail_steps = tail_steps
        self.score_kind: Readout = readout

    def hidden_blocks(self) -> list[DelayBlock]:
        """The hidden layers, from the input up.

        Raises:
            SnnDelaysError: one of them is something else, such as a wrapper of torch.compile.
        """
        blocks = []
        for i, block in enumerate(self.blocks):
            if not isinstance(block, DelayBlock):
                where = f"`blocks.{i}` of the network"
                raise SnnDelaysError(where, "a DelayBlock", type(block).__name__)
            blocks.append(block)
        return blocks

    def simulate(
        self, x: Tensor, mask: Tensor | None = None, share: Share | None = None
    ) -> Simulation:
        """Run a batch from rest.

        Args:
            x: ``[T, N, C]``, spike counts or analog frames.
            mask: ``[T + tail_steps]`` or ``[T + tail_steps, N]``, True at the steps that count for
                the scores; every step when None.
            share: which clips of a batch these are, where training is spread over processes.

        Raises:
            ShapeError: wrong shape, dtype or device.
            SnnDelaysError: on a CPU, NaN or infinity in `x`, which would silence neurons; on
                other devices values are not looked at.
        """
        expected = f"[T, N, C={self.in_features}] with at least one step and one clip"
        check_batch(x, self.in_features, self.readout.weight, expected)
        if 0 in x.shape:
            raise ShapeError("`x`", expected, list(x.shape))
        check_finite("x", x)
        steps = x.shape[0] + self.tail_steps
        normalising = any(
            isinstance(block.norm, nn.BatchNorm1d) and block.norm.training
            for block in self.hidden_blocks()
        )
        if normalising and steps * (x.shape[1] if share is None else share.clips) == 1:
            two = "[T, N, C] with more than one step or clip, for batch norm in training"
            raise ShapeError("`x`", two, list(x.shape))
        signal, spikes = x, []
        for block in self.hidden_blocks():
            block_spikes, signal = block(signal, steps, share)
            spikes.append(block_spikes)
        potentials = self.integrator(self.readout(signal))
        neurons.reset(self)  # a finished run keeps no state and no graph alive
        return Simulation(class_scores(potentials, self.score_kind, mask), potentials, spikes)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Class scores ``[N, classes]`` of a batch ``[T, N, C]``; refuses what `simulate` does."""
        return self.simulate(x, mask).scores


def class_scores(potentials: Tensor, kind: Readout, mask: Tensor | None = None) -> Tensor:
    """Scores of the classes from the readout's potentials over time.

    `softmax_sum`: the sum over time of the softmax over classes, as published; `max`: the largest
    potential; `mean`: the mean potential; `last`: the potential at the last step.

    Args:
        potentials: ``[T, N, classes]``.
        kind: see above.
        mask: ``[T]`` or ``[T, N]``, True at the steps that count; every clip needs at least one,
            which is looked at on a CPU only.
    Returns:
        ``[N, classes]``.
    """
    check_word("kind", kind, get_args(Readout))
    check_tensor("potentials", potentials, "[T, N, classes]")
    steps, batch, classes = potentials.shape
    if not (steps and classes):
        expected = "[T, N, classes] with at least one step and one class"
        raise ShapeError("`potentials`", expected, list(potentials.shape))
    if mask is None:
        mask = potentials.new_ones(steps, 1, dtype=torch.bool)
    elif not isinstance(mask, Tensor) or mask.device != potentials.device:
        got = mask.device if isinstance(mask, Tensor) else type(mask).__name__
        raise ShapeError("`mask`", f"a tensor on {potentials.device}", got)
    elif mask.shape not in ((steps,), (steps, batch)) or (
        sees_values(mask) and not mask.any(0).all()
    ):
        expected = f"[T={steps}] or [T={steps}, N={batch}] with a True step for every clip"
        raise ShapeError("`mask`", expected, list(mask.shape))
    keep = mask.bool().reshape(steps, -1, 1)
    if kind == "softmax_sum":
        return (potentials.softmax(-1) * keep).sum(0)
    if kind == "max":
        return potentials.masked_fill(~keep, float("-inf")).amax(0)
    if kind == "mean":
        return (potentials * keep).sum(0) / keep.sum(0)
    last = steps - 1 - keep.flip(0).int().argmax(0)  # [1 or N, 1]
    return potentials.gather(0, last.expand(batch, classes)[None])[0]
