"""Whole networks of random sizes at the edges: delays, widths, inputs, precision, devices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_delays import network_format as nf
from snn_delays.config import load_recipe
from snn_delays.engine import Engine
from snn_delays.export import to_network
from snn_delays.networks import DelaySNN
from snn_delays.nn import DelayLinear, clamp_delays, delay_layers, quantise, round_delays, set_sigma
from snn_delays.ops.convolution import best_blocks, sizes_of


@st.composite
def networks(draw):
    """A random network, and a batch of counts for it; delays may be longer than the clip."""
    torch.manual_seed(draw(st.integers(0, 99)))
    channels, classes = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    hidden = draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    max_delay = draw(st.integers(0, 9))
    net = DelaySNN(
        channels,
        hidden,
        classes,
        max_delay=max_delay,
        tail_steps=draw(st.integers(0, 4)),
        kernel_count=draw(st.integers(1, 3)),
        delays=draw(st.sampled_from(["learned", "fixed", "none"])),
        v_reset=draw(st.sampled_from([0.0, -0.5, None])),
        tau=draw(st.sampled_from([1.005, 2.0, 50.0])),
        readout=draw(st.sampled_from(["softmax_sum", "max", "mean", "last"])),
        dropout=draw(st.sampled_from([0.0, 0.5])),
    )
    set_sigma(net, draw(st.sampled_from([1e-3, 0.5, 3.0, 1e6])))
    with torch.no_grad():
        for layer in delay_layers(net).values():
            where = draw(st.sampled_from(["drawn", "lowest", "highest", "outside"]))
            if where != "drawn" and layer.delays == "learned":
                value = {"lowest": 0.0, "highest": float(layer.max_delay), "outside": 1e9}[where]
                layer.delay.fill_(value)
    clamp_delays(net)
    steps, clips = draw(st.integers(1, 8)), draw(st.integers(2, 4))
    level = draw(st.sampled_from([0.0, 0.3, 100.0, 1e6]))
    x = torch.poisson(torch.full((steps, clips, channels), level))
    return net, x


def finite(*tensors):
    return all(bool(t.isfinite().all()) for t in tensors)


@given(networks())
@settings(max_examples=80)
def test_training_stays_finite_at_every_edge(case):
    net, x = case
    result = net.train().simulate(x)
    assert finite(result.scores, result.potentials)
    for spikes in result.spikes:
        assert ((spikes == 0) | (spikes == 1)).all()
    torch.nn.functional.cross_entropy(
        result.scores, torch.zeros(x.shape[1], dtype=torch.long)
    ).backward()
    assert finite(*(p.grad for p in net.parameters() if p.grad is not None))
    with torch.no_grad():
        for layer in delay_layers(net).values():
            assert ((layer.delay >= 0) & (layer.delay <= layer.delay_limit)).all()


@given(networks())
@settings(max_examples=60)
def test_the_rounded_network_is_the_exported_one(case):
    """In float64, spike for spike, where no voltage lies within rounding of its threshold."""
    net, x = case
    rounded = round_delays(net).double()
    with torch.no_grad():
        expected = rounded.simulate(x.double())
    engine = Engine(exported(net, x))
    result = engine.run(x.transpose(0, 1).numpy())
    if result.margin < 1e-6 * (1 + float(x.max())):
        return
    for ours, theirs in zip(result.spikes, expected.spikes, strict=True):
        np.testing.assert_array_equal(ours, theirs.transpose(0, 1).numpy())
    scale = 1 + expected.potentials.abs().max().item()
    np.testing.assert_allclose(result.scores, expected.scores, atol=1e-9 * scale, rtol=0)


@given(networks())
@settings(max_examples=60)
def test_float32_gives_the_spikes_of_float64_but_near_thresholds(case):
    net, x = case
    network = exported(net, x)
    clips = x.transpose(0, 1).numpy()
    double, single = Engine(network).run(clips), Engine(network, np.float32).run(clips)
    if double.margin < 1e-3 * (1 + float(x.max())):
        return
    for a, b in zip(double.spikes, single.spikes, strict=True):
        np.testing.assert_array_equal(a, b)


@given(networks())
@settings(max_examples=30)
def test_silence_in_gives_silence(case):
    """Without input, and with batch norm at rest, no neuron spikes and all classes are equal."""
    net, x = case
    result = net.eval().simulate(torch.zeros_like(x))
    assert all(not spikes.any() for spikes in result.spikes)
    assert (result.potentials == 0).all()


def exported(net: DelaySNN, x: torch.Tensor) -> nf.Network:
    """The network as network.json has it."""
    classes = [str(i) for i in range(net.readout.out_features)]
    recipe = load_recipe("synthetic", {"steps": 10}).model_copy(
        update={"steps": x.shape[0], "tail_steps": net.tail_steps, "readout": net.score_kind}
    )
    return to_network(net, recipe, classes)


def sample(**options) -> tuple[DelaySNN, torch.Tensor]:
    torch.manual_seed(0)
    net = DelaySNN(10, [16], 4, max_delay=6, tail_steps=3, **options)
    return net, torch.poisson(torch.full((20, 8, 10), 0.3))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])  # others need a C++ compiler
@pytest.mark.parametrize("change", ["one delay a pair", "two delays a pair", "quantised"])
@pytest.mark.filterwarnings("ignore::UserWarning", "error:Dynamo:UserWarning")  # cannot trace it
def test_a_compiled_model_gives_the_same_scores_and_gradients(backend, change):
    net, x = sample(kernel_count=1 + (change == "two delays a pair"))
    if change == "quantised":
        quantise(net, weight_bits=4)
    net.eval()

    def scores_and_gradients(model):
        net.zero_grad()
        scores = model(x)
        scores.square().mean().backward()
        return scores, {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}

    scores, gradients = scores_and_gradients(net)
    assert all(gradient.abs().max() > 1e-3 for gradient in gradients.values())
    found, again = scores_and_gradients(torch.compile(net, backend=backend))
    torch.testing.assert_close(found, scores)
    torch.testing.assert_close(again, gradients)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "error:Dynamo:UserWarning")
def test_a_compiled_layer_in_the_fourier_form_has_the_same_gradients():
    layer = DelayLinear(64, 48, max_delay=24, sigma=3.0)
    x = torch.randn(124, 16, 64, requires_grad=True)
    assert best_blocks(sizes_of(x, layer.kernel(), 124)._replace(fast=False)) is not None
    compiled = torch.compile(layer, backend="aot_eager")
    wanted = (x, layer.weight, layer.delay)
    found, expected = (
        torch.autograd.grad(model(x)[..., ::3].square().mean(), wanted)
        for model in (compiled, layer)
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
