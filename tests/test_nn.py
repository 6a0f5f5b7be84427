"""DelayLinear: modes, rounding into a copy, clamping, and the delay report."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snn_delays import neurons
from snn_delays.errors import ShapeError, SnnDelaysError
from snn_delays.nn import (
    DelayLinear,
    clamp_delays,
    delay_statistics,
    freeze_weights,
    quantise,
    round_delays,
    set_sigma,
)


def layer(**changes):
    return DelayLinear(**{"in_features": 3, "out_features": 4, "max_delay": 6, **changes})


@pytest.mark.parametrize("delays", ["learned", "fixed", "none"])
@pytest.mark.parametrize("granularity", ["synaptic", "axonal", "dendritic"])
@pytest.mark.parametrize("bias", [False, True])
def test_shapes_and_gradients_of_every_mode(delays, granularity, bias):
    net = layer(delays=delays, granularity=granularity, bias=bias, kernel_count=2)
    y = net(torch.randn(9, 2, 3))
    assert y.shape == (9, 2, 4)
    y.sum().backward()
    assert net.weight.grad.abs().sum() > 0
    assert (net.delay.grad is not None) == (delays == "learned")
    assert (net.bias is not None) == bias


def test_no_delays_is_a_plain_linear_layer():
    net = layer(delays="none")
    x = torch.randn(9, 2, 3)
    assert net.max_delay == 0
    torch.testing.assert_close(net(x), x @ net.weight[..., 0].T)


def test_fixed_delays_are_whole_numbers_and_one_hot():
    net = layer(delays="fixed")
    assert torch.equal(net.delay, net.delay.round())
    assert (net.kernel() != 0).sum() == net.weight.numel()


def test_arms_of_one_seed_start_from_the_same_weights():
    weights = []
    for delays in ("learned", "fixed", "none"):
        torch.manual_seed(5)
        weights.append(nn.Sequential(layer(delays=delays), layer(in_features=4, delays=delays)))
    for net in weights[1:]:
        for ours, first in zip(net, weights[0], strict=True):
            assert torch.equal(ours.weight, first.weight)


def test_a_layer_drawn_anew_has_no_bias():
    net = layer(bias=True)
    with torch.no_grad():
        net.bias.fill_(1.0)
    net.reset_parameters()
    assert not net.bias.any()


def test_every_granularity_starts_from_the_same_weights_and_shares_its_delays():
    nets = {}
    for granularity in ("synaptic", "axonal", "dendritic"):
        torch.manual_seed(5)
        first = layer(granularity=granularity, kernel_count=2)
        nets[granularity] = nn.Sequential(first, layer(in_features=4, granularity=granularity))
    synaptic = nets["synaptic"]
    for granularity, net in nets.items():
        assert all(torch.equal(a.weight, b.weight) for a, b in zip(net, synaptic, strict=True))
        rounded = net[0].rounded_delay()
        assert rounded.shape == (4, 3, 2)
        shared = {"axonal": rounded[:1], "dendritic": rounded[:, :1]}.get(granularity, rounded)
        assert torch.equal(rounded, shared.expand_as(rounded))
        assert round_delays(net)[0].delay.shape == net[0].delay.shape
    assert nets["axonal"][0].delay.shape == (1, 3, 2)
    assert nets["dendritic"][0].delay.shape == (4, 1, 2)


@pytest.mark.parametrize("granularity", ["axonal", "dendritic"])
@pytest.mark.parametrize("quantised", [False, True])
def test_a_shared_delay_is_the_synaptic_layer_with_equal_delays(granularity, quantised):
    """Output equal; the gradient of a shared delay is the sum over its synapses."""
    shared = layer(granularity=granularity, kernel_count=2, sigma=1.5).double()
    own = layer(kernel_count=2, sigma=1.5).double()
    with torch.no_grad():
        own.weight.copy_(shared.weight)
        own.delay.copy_(shared.delay.expand_as(own.delay))
    if quantised:
        quantise(shared, weight_bits=4)
        quantise(own, weight_bits=4)
    x = torch.randn(12, 2, 3, dtype=torch.float64)
    answers = [net(x) for net in (shared, own)]
    torch.testing.assert_close(*answers)
    for y in answers:
        (y * torch.arange(y.numel()).view_as(y)).sum().backward()
    axis = 0 if granularity == "axonal" else 1
    torch.testing.assert_close(shared.delay.grad, own.delay.grad.sum(axis, keepdim=True))
    torch.testing.assert_close(shared.weight.grad, own.weight.grad)


@pytest.mark.parametrize("granularity", ["axonal", "dendritic"])
def test_the_gradient_of_shared_delays_is_the_numerical_one(granularity):
    net = layer(granularity=granularity, kernel_count=2, sigma=1.2).double()
    x = torch.randn(8, 2, 3, dtype=torch.float64)

    def answer(weight, delay):
        return torch.func.functional_call(net, {"weight": weight, "delay": delay}, (x,))

    assert torch.autograd.gradcheck(answer, (net.weight, net.delay))


def test_frozen_weights_leave_only_delays_to_learn():
    net = nn.Sequential(layer(bias=True), nn.BatchNorm1d(4))
    freeze_weights(net)
    assert [n for n, p in net.named_parameters() if p.requires_grad] == ["0.delay"]


def test_rounding_makes_a_copy_and_leaves_the_model_alone():
    net = nn.Sequential(layer(), layer(in_features=4)).train()
    before = {n: t.clone() for n, t in net.state_dict().items()}
    rounded = round_delays(net)
    assert not rounded.training
    assert net.training
    assert net[0].delays == "learned"
    assert all(torch.equal(before[n], t) for n, t in net.state_dict().items())
    assert torch.equal(rounded[0].delay, net[0].delay.round())
    assert (rounded[0].kernel() != 0).sum() == net[0].weight.numel()


def test_learned_network_approaches_its_rounded_copy_as_sigma_shrinks():
    net = layer()
    with torch.no_grad():
        net.delay.copy_(net.delay.round())
    x = torch.randn(20, 2, 3)
    set_sigma(net, 0.05)
    torch.testing.assert_close(net(x), round_delays(net)(x))


@given(shift=st.floats(-50, 50))
def test_clamping_keeps_delays_in_range(shift):
    net = nn.Sequential(layer())
    with torch.no_grad():
        net[0].delay.add_(shift)
    clamp_delays(net)
    assert 0 <= net[0].delay.min() <= net[0].delay.max() <= 6


def test_delay_statistics_count_every_synapse():
    net = layer(max_delay=4)
    with torch.no_grad():
        net.start_delay.zero_()
        net.delay.copy_(torch.tensor([0.0, 4.0, 2.2]).repeat(4).view(4, 3, 1))
    report = delay_statistics(net)[""]
    assert report.histogram == [4, 0, 4, 0, 4]
    assert report.share_at_zero == pytest.approx(1 / 3)
    assert report.share_at_max == pytest.approx(1 / 3)
    assert report.mean_move == pytest.approx(6.2 / 3, rel=1e-6)
    assert report.mean == pytest.approx(6.2 / 3, rel=1e-6)


def test_errors_name_the_argument():
    net = layer()
    with pytest.raises(ShapeError, match=r"`x` must be \[T, N, C_in=3\]; got \[5, 3\]\. Add a bat"):
        net(torch.zeros(5, 3))
    with pytest.raises(ShapeError, match=r"got \[5, 1, 2\]"):
        net(torch.zeros(5, 1, 2))
    for bad, name in (
        ({"in_features": 0}, "in_features"),
        ({"max_delay": -1}, "max_delay"),
        ({"max_delay": 2.5}, "max_delay"),
        ({"kernel_count": 0}, "kernel_count"),
        ({"delays": "random"}, "delays"),
        ({"granularity": "somatic"}, "granularity"),
        ({"sigma": 0.0}, "sigma"),
        ({"sigma": float("nan")}, "sigma"),
    ):
        with pytest.raises(SnnDelaysError, match=f"`{name}` must be"):
            layer(**bad)


def test_repr_names_the_settings():
    settings = "max_delay=6, kernel_count=1, granularity='synaptic', bias=False, delays='learned'"
    assert settings in repr(layer())


def test_a_network_that_keeps_its_spikes_can_be_rounded():
    net = layer()
    y = net(torch.ones(6, 2, 3))
    net.spikes = {"hidden": [y, (y * 2, None)], "again": y}
    net.spikes["itself"] = net.spikes
    rounded = round_delays(net)
    assert torch.equal(rounded.spikes["hidden"][1][0], y * 2)
    assert rounded.spikes["hidden"][0] is rounded.spikes["again"]
    assert y.grad_fn is not None


def test_a_network_whose_neurons_hold_a_state_can_be_rounded():
    """Neurons keep the potential of the last batch, with its history, until they are reset."""
    net = nn.Sequential(DelayLinear(3, 4, max_delay=5), neurons.lif(tau=2.0))
    before = net(torch.ones(6, 2, 3))
    assert not net[1].v.is_leaf
    rounded = round_delays(net)
    assert torch.equal(rounded[1].v, net[1].v)
    assert rounded[1].v.is_leaf
    before.sum().backward()  # the history of the original is still there
    assert net[0].weight.grad is not None


def test_a_state_with_delays_beyond_the_range_is_not_loaded():
    far, near = (DelayLinear(20, 20, max_delay=longest) for longest in (15, 7))
    with pytest.raises(RuntimeError, match=r"`delay` must lie in 0 \.\. 7, the layer's max_delay"):
        near.load_state_dict(far.state_dict())
    with pytest.raises(RuntimeError, match=r"`0\.delay` must lie in 0 \.\. 0"):
        torch.nn.Sequential(DelayLinear(20, 20, max_delay=7, delays="none")).load_state_dict(
            torch.nn.Sequential(far).state_dict()
        )
    far.load_state_dict(near.state_dict())
    assert torch.equal(far.delay, near.delay)


def test_a_layer_made_on_the_meta_device_is_whole_after_reset():
    with torch.device("meta"):
        layer = DelayLinear(3, 2, max_delay=4, bias=True, sigma=2.5)
    layer = layer.to_empty(device="cpu")
    for tensor in (*layer.parameters(), *layer.buffers()):
        tensor.data.fill_(torch.nan)  # what memory held before
    layer.reset_parameters()
    assert layer.sigma.item() == 2.5
    assert layer(torch.ones(6, 1, 3)).isfinite().all()
