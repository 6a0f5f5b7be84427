"""Every function of `functional`, `networks` and `nn` against a table of bad arguments."""

import math

import numpy as np
import pytest
import torch

from snn_delays import DelaySNN, nn
from snn_delays import functional as sf
from snn_delays.checks import check_finite, check_range
from snn_delays.errors import ShapeError, SnnDelaysError
from snn_delays.networks import class_scores

NAN = float("nan")
WEIGHT, DELAY, SIGMA = torch.ones(2, 3, 1), torch.ones(2, 3, 1), torch.tensor(1.0)
X, KERNEL, POTENTIALS = torch.ones(7, 2, 3), torch.ones(4, 2, 3), torch.ones(7, 2, 3)


def full(value):
    return torch.full((2, 3, 1), value)


NO_WHOLE = [np.timedelta64(5), -1, 1.5, NAN, None, "a", True, 10**12, 10**5000]
NO_WEIGHT = [
    full(NAN),
    full(math.inf),
    full(1),
    full(True),
    WEIGHT.to(torch.complex64),
    WEIGHT[0],
    WEIGHT[:0],
    WEIGHT.to_sparse(),
    WEIGHT.numpy(),
    None,
]
NO_DELAY = [
    full(-0.1),
    full(5.1),
    full(NAN),
    full(math.inf),
    DELAY[0],
    DELAY.numpy(),
    DELAY.to_sparse(),
    DELAY.to(torch.complex64),
    DELAY.to("meta"),
    None,
]
NO_SIGMA = [torch.tensor(v) for v in (0.0, -1.0, NAN, math.inf, 1e-30, 1)]
NO_SIGMA += [1.0, None, np.ones(1), torch.ones(2), torch.ones(1, 2, 3, 1), SIGMA.double()]
NO_BITS = [0, 1, -1, 2.5, NAN, None, "4", True, 25, 10**5]
NO_INPUT = [X.int(), X.double(), X.bool(), X[:0], X[0], X[..., :2], X.to_sparse(), X.numpy(), None]
NO_KERNEL = [KERNEL.int(), KERNEL.double(), KERNEL[:0], KERNEL[0], KERNEL.numpy(), None]
NO_BIAS = [1.0, torch.ones(3), torch.ones(2, 1), torch.ones(2).double(), np.ones(2)]
NO_POTENTIALS = [POTENTIALS[0], POTENTIALS[:0], POTENTIALS[..., :0], POTENTIALS.int(), None]
NO_MASK = [
    [True] * 7,
    np.ones(7, bool),
    torch.zeros(7),
    torch.ones(6),
    torch.ones(7, device="meta"),
]
NO_WORD = ["z", None, ["direct"], 1]

TABLE = {
    "kernel weight": ("weight", NO_WEIGHT, lambda v: sf.delay_kernel(v, DELAY, SIGMA, 5)),
    "kernel delay": (
        "delay",
        [*NO_DELAY, full(1), DELAY.double()],
        lambda v: sf.delay_kernel(WEIGHT, v, SIGMA, 5),
    ),
    "kernel sigma": ("sigma", NO_SIGMA, lambda v: sf.delay_kernel(WEIGHT, DELAY, v, 5)),
    "kernel range": ("max_delay", NO_WHOLE, lambda v: sf.delay_kernel(WEIGHT, DELAY, SIGMA, v)),
    "one-hot weight": ("weight", NO_WEIGHT, lambda v: sf.one_hot_kernel(v, DELAY, 5)),
    "one-hot delay": (
        "delay",
        [*NO_DELAY, full(0.5), full(6), full(True)],
        lambda v: sf.one_hot_kernel(WEIGHT, v, 5),
    ),
    "one-hot range": ("max_delay", NO_WHOLE, lambda v: sf.one_hot_kernel(WEIGHT, DELAY, v)),
    "round delay": (
        "delay",
        [full(NAN), full(1), None, np.ones(3)],
        lambda v: sf.round_delay(v, 5),
    ),
    "round range": ("max_delay", NO_WHOLE, lambda v: sf.round_delay(DELAY, v)),
    "round step": ("step", [0, *NO_WHOLE], lambda v: sf.round_delay(DELAY, 5, v)),
    "integer weight": ("weight", NO_WEIGHT, lambda v: sf.integer_weight(v, 4)),
    "integer bits": ("bits", NO_BITS, lambda v: sf.integer_weight(WEIGHT, v)),
    "quantised bits": ("bits", NO_BITS, lambda v: sf.quantised_weight(WEIGHT, v)),
    "convolution x": ("x", NO_INPUT, lambda v: sf.delayed_linear(v, KERNEL)),
    "convolution kernel": ("(kernel|x)", NO_KERNEL, lambda v: sf.delayed_linear(X, v)),
    "convolution bias": ("bias", NO_BIAS, lambda v: sf.delayed_linear(X, KERNEL, v)),
    "convolution steps": (
        "steps",
        [0, 6, 7.5, "a", True],
        lambda v: sf.delayed_linear(X, KERNEL, steps=v),
    ),
    "method": ("method", NO_WORD, lambda v: sf.delayed_linear(X, KERNEL, method=v)),
    "scores": ("potentials", NO_POTENTIALS, lambda v: class_scores(v, "softmax_sum")),
    "scores kind": ("kind", NO_WORD, lambda v: class_scores(POTENTIALS, v)),
    "scores mask": ("mask", NO_MASK, lambda v: class_scores(POTENTIALS, "max", v)),
    "round no net": ("net", [None, 5], nn.round_delays),
    "statistics of no net": ("net", [None, 5], nn.delay_statistics),
    "clamp no net": ("net", [None, 5], nn.clamp_delays),
    "freeze no net": ("net", [None, 5], nn.freeze_weights),
    "quantise bits": ("weight_bits", [1, 2.5, "a"], lambda v: nn.quantise(small(), v)),
    "quantise range": ("max_delay", [-1, "a"], lambda v: nn.quantise(small(), max_delay=v)),
    "quantise step": ("delay_step", [0, None], lambda v: nn.quantise(small(), delay_step=v)),
}


def small():
    return DelaySNN(3, [4], 2, max_delay=5)


@pytest.mark.parametrize(("name", "values", "call"), TABLE.values(), ids=TABLE)
def test_bad_arguments_are_named_in_one_sentence(name, values, call):
    for value in values:
        with pytest.raises(SnnDelaysError, match=f"^`{name}` must be") as refused:
            call(value)
        assert "\n" not in str(refused.value)
        assert len(str(refused.value)) < 200


def test_bounds_are_legal():
    kernel = sf.delay_kernel(WEIGHT, full(5.0), torch.tensor(1e-9), 5)
    torch.testing.assert_close(kernel, sf.one_hot_kernel(WEIGHT, full(5), 5))
    wide = sf.delay_kernel(WEIGHT, full(0.0), torch.tensor(1e9), 5)
    torch.testing.assert_close(wide, torch.full((6, 2, 3), 1 / 6))
    integers, scale = sf.integer_weight(full(1e-45), 24)  # the smallest float32
    assert (integers * scale[:, None, None]).isfinite().all()
    assert sf.integer_weight(WEIGHT, 24)[0].unique().tolist() == [2**23 - 1]
    assert sf.delayed_linear(X[:, :0], KERNEL).shape == (7, 0, 2)


def test_values_are_not_looked_at_where_that_would_wait():
    elsewhere = torch.empty(2, device="meta")
    check_finite("x", elsewhere)
    check_range("x", elsewhere, 0, 1)
    check_range("x", torch.empty(0), 0, 1)


def test_a_layer_given_no_steps():
    with pytest.raises(ShapeError, match="at least one step"):
        nn.DelayLinear(3, 4, max_delay=5)(X[:0])


def test_numpy_integers_are_integers():
    labels = np.arange(4)
    sizes = {"in_features": np.int16(3), "classes": labels.max() + 1, "max_delay": np.uint8(5)}
    net = DelaySNN(hidden=list(np.array([6])), tail_steps=np.int64(2), **sizes)
    assert net(torch.ones(7, 2, 3)).shape == (2, 4)
    kept = (net.in_features, net.tail_steps, net.readout.out_features, net.readout.max_delay)
    assert [type(value) for value in kept] == [int] * 4
    assert type(net.blocks[0].synapses.out_features) is int
    assert torch.equal(sf.round_delay(torch.tensor([2.6]), np.int64(2)), torch.tensor([2.0]))
    assert sf.one_hot_kernel(WEIGHT, DELAY, np.uint8(255)).shape == (256, 2, 3)
    assert sf.delay_kernel(WEIGHT, DELAY, SIGMA, np.int8(127)).shape == (128, 2, 3)
    with pytest.raises(SnnDelaysError, match=r"`tail_steps` must be an integer of at least 0"):
        DelaySNN(hidden=[6], tail_steps=np.int64(-1), **sizes)
