"""Gradients are once only: a second derivative is right or refused, never left out."""

import pytest
import torch
from torch import nn

from snn_delays import DelayLinear, DelaySNN, neurons
from snn_delays.errors import SnnDelaysError
from snn_delays.ops import fused
from snn_delays.ops.convolution import best_blocks, sizes_of

CONSTANTS = neurons.fused_constants(neurons.lif(tau=2.0))
REFUSED = "Delay layers give no gradient of a gradient"


def penalised(net, x):
    """The gradients of a loss with a penalty on the gradient of the input."""
    y = net(x)
    (slope,) = torch.autograd.grad(y[..., 0].sum(), x, create_graph=True)
    loss = y.square().mean() + slope.square().mean()
    return torch.autograd.grad(loss, net.weight)[0]


def test_a_penalty_on_gradients_is_right_where_the_dense_form_runs():
    torch.manual_seed(0)
    net, x = DelayLinear(3, 2, max_delay=4).double(), torch.rand(8, 2, 3, dtype=torch.float64)
    x.requires_grad_()
    assert best_blocks(sizes_of(x, net.kernel(), 8)) is None
    found, step = penalised(net, x)[0, 0, 0].item(), 1e-5
    losses = []
    for shift in (step, -2 * step):  # to both sides of the first weight
        with torch.no_grad():
            net.weight[0, 0, 0] += shift
        y = net(x)
        (slope,) = torch.autograd.grad(y[..., 0].sum(), x)
        losses.append((y.square().mean() + slope.square().mean()).item())
    assert found == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-6)


def test_a_penalty_on_gradients_is_refused_where_the_fourier_form_runs():
    torch.manual_seed(0)
    net, x = DelayLinear(6, 5, max_delay=60), torch.rand(100, 4, 6, requires_grad=True)
    assert best_blocks(sizes_of(x, net.kernel(), 100)) is not None
    with pytest.raises(SnnDelaysError, match=REFUSED):
        penalised(net, x)


@pytest.mark.parametrize("delays", ["learned", "none"])
def test_a_hessian_is_refused(delays):
    net, x = DelayLinear(3, 2, max_delay=4, delays=delays), torch.rand(8, 2, 3)

    def loss(weight):
        return torch.func.functional_call(net, {"weight": weight}, (x,)).square().sum()

    with pytest.raises(SnnDelaysError, match=REFUSED):
        torch.autograd.functional.hessian(loss, net.weight.detach())


@pytest.mark.parametrize("training", [False, True])
def test_a_network_refuses_too_and_can_still_be_differentiated_once(training):
    torch.manual_seed(0)
    net = DelaySNN(6, [12], 4, max_delay=6, tau=2.0).train(training)
    x = torch.poisson(torch.full((30, 4, 6), 0.5)).requires_grad_()
    with pytest.raises(SnnDelaysError, match=REFUSED):
        torch.autograd.grad(net(x)[:, 0].sum(), x, create_graph=True)
    (slope,) = torch.autograd.grad(net(x)[:, 0].sum(), x)
    assert slope.abs().sum() > 0


def test_tensors_whose_sign_torch_has_not_turned_yet_are_taken():
    """As the imaginary part of a conjugate is, or the gradient of one."""
    torch.manual_seed(0)
    net = DelaySNN(6, [12], 4, max_delay=60, tau=2.0).train()
    x, found = torch.randn(100, 4, 6), []
    for turned in (lambda t: -t, torch._neg_view):
        layer, own = net.blocks[0].synapses, x.clone().requires_grad_()
        y = layer(turned(own))
        kept = fused.norm_lif_dropout(turned(y), nn.BatchNorm1d(12), CONSTANTS, None)[0]
        found.append(torch.autograd.grad(turned(kept).sum(), [own, layer.weight, layer.delay]))
        found[-1] += torch.autograd.grad(turned(layer.kernel()).sum(), [layer.delay])
    assert all(map(torch.equal, *found))
