"""Layers with delays: `DelayLinear`, its rounded copy, and a report of what its delays did.

Delays are real numbers while they are learned and whole numbers in a rounded network.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

import torch
from torch import Tensor, nn

from snn_delays.checks import check_sigma, check_whole, check_word
from snn_delays.errors import SnnDelaysError
from snn_delays.functional import (
    MAX_WEIGHT_BITS,
    delay_kernel,
    delayed_linear,
    one_hot_kernel,
    quantised_weight,
    round_delay,
)
from snn_delays.network_format import MAX_DELAY, MAX_FEATURES, MAX_KERNELS
from snn_delays.words import Delays, Granularity

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class DelayLinear(nn.Module):
    r"""Linear map in which every synapse has its own delay.

    .. math:: y_o[t] = b_o
              + \sum_{i,k} w_{oik} \sum_{\tau=0}^{D} g(\tau - d_{oik}; \sigma)\, x_i[t-\tau]

    ``g`` is a Gaussian normalised to sum to one over ``tau = 0..D`` while delays are learned, and
    exactly one tap where they are fixed.

    Args:
        in_features: input channels, ``C_in``.
        out_features: output channels, ``C_out``.
        max_delay: largest delay ``D`` in time steps, inclusive.
        kernel_count: delayed contacts per input-output pair.
        granularity: ``synaptic`` (every contact has its own delay), ``axonal`` (one for each input,
            shared by all outputs) or ``dendritic`` (one for each output).
        bias: adds a learnable ``b_o``.
        delays: ``learned``; ``fixed`` (drawn at random, whole numbers, frozen); ``none`` (a plain
            linear layer: ``max_delay`` is taken as 0, ``kernel_count`` as 1, since contacts without
            delays would only add up).
        sigma: initial standard deviation of ``g`` in steps; the trainer shrinks it.

    Attributes:
        weight: ``[out, in, kernel_count]``, Kaiming-uniform.
        delay: ``[out, in, kernel_count]``, axonal ``[1, in, kernel_count]``, dendritic
            ``[out, 1, kernel_count]``; uniform in ``[0, max_delay]``.
        sigma: buffer, a scalar.
        start_delay: buffer, the delays as they were drawn.
        quantised, weight_bits, delay_limit, delay_step: set by `quantise`.

    Shape:
        ``[T, N, C_in] -> [T, N, C_out]``; ``x[t < 0]`` counts as zero.
    Raises:
        ShapeError: "`x` must be [T, N, C_in=140]; got [32, 140]. ..."
    Source:
        Hammouamri, Khalfaoui-Hassani, Masquelier, ICLR 2024 (arXiv:2306.17670). Differs: delays are
        not centred; T is kept; ``sigma`` is the true standard deviation.
    """

    weight: nn.Parameter
    delay: nn.Parameter
    sigma: Tensor
    start_delay: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        max_delay: int,
        kernel_count: int = 1,
        granularity: Granularity = "synaptic",
        bias: bool = False,
        delays: Delays = "learned",
        sigma: float = 1.0,
    ) -> None:
        super().__init__()
        in_features = check_whole("in_features", in_features, 1, MAX_FEATURES)
        out_features = check_whole("out_features", out_features, 1, MAX_FEATURES)
        max_delay = check_whole("max_delay", max_delay, 0, MAX_DELAY)
        kernel_count = check_whole("kernel_count", kernel_count, 1, MAX_KERNELS)
        check_word("delays", delays, get_args(Delays))
        check_word("granularity", granularity, get_args(Granularity))
        check_sigma(sigma)
        self.in_features = in_features
        self.out_features = out_features
        self.max_delay = 0 if delays == "none" else max_delay
        self.kernel_count = kernel_count = 1 if delays == "none" else kernel_count
        self.granularity: Granularity = granularity
        self.delays: Delays = delays
        self.quantised = False
        self.weight_bits: int | None = None
        self.delay_limit, self.delay_step = self.max_delay, 1
        shape = (out_features, in_features, kernel_count)
        self.weight = nn.Parameter(torch.empty(shape))
        shared = (
            1 if granularity == "axonal" else out_features,
            1 if granularity == "dendritic" else in_features,
            kernel_count,
        )
        self.delay = nn.Parameter(torch.empty(shared), requires_grad=delays == "learned")
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        self._first_sigma = float(sigma)
        self.register_buffer("sigma", torch.tensor(self._first_sigma))
        self.register_buffer("start_delay", torch.empty(shared))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw new weights and delays from torch's random state; `sigma` is as first given."""
        self.sigma.fill_(self._first_sigma)  # made on "meta", it holds nothing before
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")
        # As many numbers whatever the mode, so that arms of one seed start from the same weights.
        drawn = torch.empty_like(self.weight).uniform_(0.0, 1.0).mul_(self.delay_limit)
        self.delay.copy_(drawn[: self.delay.shape[0], : self.delay.shape[1]])
        if self.delays != "learned":
            self.delay.copy_(round_delay(self.delay, self.delay_limit))
        self.start_delay.copy_(self.delay)
        if self.bias is not None:
            self.bias.zero_()

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """As every module; also, delays beyond this layer's range are an error."""
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        delay = state_dict.get(f"{prefix}delay")
        if isinstance(delay, Tensor) and delay.numel() and not delay.is_meta:
            low, high = (float(end) for end in delay.detach().aminmax())
            if low < 0 or high > self.max_delay:
                error_msgs.append(
                    f"`{prefix}delay` must lie in 0 .. {self.max_delay}, the layer's max_delay; "
                    f"got {low:g} .. {high:g}"
                )

    @torch.no_grad()
    def clamp_delays(self) -> None:
        """Put every delay back into its range; call it after each optimiser step."""
        self.delay.clamp_(0.0, float(self.delay_limit))

    @torch.no_grad()
    def round_(self) -> None:
        """Round the delays in place and freeze them: from now on kernels are one-hot."""
        self.delay.copy_(round_delay(self.delay, self.delay_limit, self.delay_step))
        self.delay.requires_grad_(False)
        if self.delays == "learned":
            self.delays = "fixed"

    def rounded_delay(self) -> Tensor:
        """The whole-number delays ``[out, in, kernel_count]`` of the rounded network."""
        rounded = round_delay(self.delay, self.delay_limit, self.delay_step)
        return rounded.expand_as(self.weight)

    def kernel(self) -> Tensor:
        """The temporal kernel ``[D + 1, out, in]``.

        A quantised layer has the kernel of its rounded copy; the gradient of its weights is that
        kernel's, and the gradient of its delays is the Gaussian's.
        """
        weight: Tensor = self.weight
        if self.weight_bits is not None:
            weight = quantised_weight(weight, self.weight_bits)
        if self.delays != "learned":
            return one_hot_kernel(weight, self.rounded_delay(), self.max_delay)
        delay = self.delay.expand_as(weight)
        if not self.quantised:
            return delay_kernel(weight, delay, self.sigma, self.max_delay)
        sigma = self.sigma.clamp(min=self.delay_step / 2)  # reaches the neighbouring delays
        soft = delay_kernel(weight.detach(), delay, sigma, self.max_delay)
        hard = one_hot_kernel(weight, self.rounded_delay(), self.max_delay)
        return hard + (soft - soft.detach())  # adds exactly 0

    def forward(self, x: Tensor, steps: int | None = None) -> Tensor:
        """``[T, N, C_in] -> [steps, N, C_out]``; ``T`` steps when None, zeros after ``x`` ends."""
        return delayed_linear(x, self.kernel(), self.bias, steps=steps)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"max_delay={self.max_delay}, kernel_count={self.kernel_count}, "
            f"granularity={self.granularity!r}, "
            f"bias={self.bias is not None}, delays={self.delays!r}"
        )


def delay_layers(net: nn.Module) -> dict[str, DelayLinear]:
    """The delay layers of a network by their module names, in order."""
    if not isinstance(net, nn.Module):
        raise SnnDelaysError("`net`", "a torch module", type(net).__name__)
    return {name: m for name, m in net.named_modules() if isinstance(m, DelayLinear)}


def clamp_delays(net: nn.Module) -> None:
    """Clamp the delays of every layer to its range."""
    for layer in delay_layers(net).values():
        layer.clamp_delays()


def freeze_weights(net: nn.Module) -> None:
    """From now on only delays are learned: weights, biases, norms and time constants stay.

    Batch norm's running statistics still follow the data; they are measured, not learned.
    """
    delays = {id(layer.delay) for layer in delay_layers(net).values()}
    for parameter in net.parameters():
        if id(parameter) not in delays:
            parameter.requires_grad_(False)


@torch.no_grad()
def set_sigma(net: nn.Module, sigma: float) -> None:
    """Set the Gaussian's standard deviation, in steps, in every delay layer."""
    check_sigma(sigma)
    for layer in delay_layers(net).values():
        layer.sigma.fill_(sigma)


def quantise(
    net: nn.Module,
    weight_bits: int | None = None,
    max_delay: int | None = None,
    delay_step: int = 1,
) -> None:
    """Round weights and delays in every forward pass from now on; gradients pass straight through.

    Args:
        net: changed in place; its parameters stay real numbers, for training.
        weight_bits: of signed integer weights, with one scale for each output; None for real ones.
        max_delay: the largest delay, if less than a layer's own.
        delay_step: delays are multiples of it.
    """
    if weight_bits is not None:
        weight_bits = check_whole("weight_bits", weight_bits, 2, MAX_WEIGHT_BITS)
    if max_delay is not None:
        max_delay = check_whole("max_delay", max_delay, 0)
    delay_step = check_whole("delay_step", delay_step, 1)
    for layer in delay_layers(net).values():
        layer.quantised, layer.weight_bits, layer.delay_step = True, weight_bits, delay_step
        most = layer.max_delay if max_delay is None else max_delay
        layer.delay_limit = min(most, layer.max_delay)
        layer.start_delay.clamp_(0, layer.delay_limit)
        layer.clamp_delays()


def round_delays(net: ModuleT) -> ModuleT:
    """A copy of the network with whole-number delays and one-hot kernels, in evaluation mode.

    This is the network that is deployed and exported. `net` itself is not changed.

    Raises:
        SnnDelaysError: naming a weight or delay that is not finite.
    """
    _check_layers(net)
    rounded = copy.deepcopy(net, _detached_states(net))
    for layer in delay_layers(rounded).values():
        layer.round_()
    return rounded.eval()


def _check_layers(net: nn.Module) -> None:
    """Refuse weights and delays that are not finite; waits for a GPU."""
    for name, layer in delay_layers(net).items():
        for part in ("weight", "delay"):
            if not getattr(layer, part).isfinite().all():
                where = f"`{name}.{part}`".replace("`.", "`")
                raise SnnDelaysError(where, "finite everywhere", "NaN or infinity")


def _detached_states(net: nn.Module) -> dict[int, Tensor]:
    """For `copy.deepcopy`, which refuses tensors with a history; neurons that ran hold some."""
    kept: list[object] = [vars(module) for module in net.modules()]
    tensors, seen = [], set()
    while kept:
        value = kept.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, dict):
            kept += value.values()
        elif isinstance(value, (list, tuple)):
            kept += value
    return {id(t): t.detach().clone() for t in tensors if not t.is_leaf}


@dataclass(frozen=True)
class DelayStatistics:
    """What the delays of one layer look like.

    Attributes:
        histogram: synapses at each rounded delay ``0..max_delay``.
        share_at_zero: share of synapses whose rounded delay is 0.
        share_at_max: share at the largest that there can be: ``max_delay``, or the quantisation's.
        mean: mean delay in steps, not rounded.
        mean_move: mean absolute change since initialisation, in steps, not rounded.
    """

    histogram: list[int]
    share_at_zero: float
    share_at_max: float
    mean: float
    mean_move: float


@torch.no_grad()
def delay_statistics(net: nn.Module) -> dict[str, DelayStatistics]:
    """Delay statistics of every delay layer, by the layer's name.

    Raises:
        SnnDelaysError: naming a weight or delay that is not finite.
    """
    _check_layers(net)
    report = {}
    for name, layer in delay_layers(net).items():
        delay = layer.delay.detach().float().cpu()
        rounded = layer.rounded_delay().cpu().long().flatten()
        histogram = torch.bincount(rounded, minlength=layer.max_delay + 1)
        largest = layer.delay_limit // layer.delay_step * layer.delay_step
        report[name] = DelayStatistics(
            histogram=histogram.tolist(),
            share_at_zero=float(histogram[0] / len(rounded)),
            share_at_max=float(histogram[largest] / len(rounded)),
            mean=float(delay.mean()),
            mean_move=float((delay - layer.start_delay.cpu()).abs().mean()),
        )
    return report
