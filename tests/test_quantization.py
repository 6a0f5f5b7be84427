"""Quantised training: the forward pass is the exported network, the gradients pass through."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import FLAGS, tiny_recipe

from snn_delays.chips import CHIPS, violations
from snn_delays.config import load_recipe, make_recipe, parse_overrides
from snn_delays.engine import Engine
from snn_delays.errors import RecipeError, SnnDelaysError
from snn_delays.export import run_network, to_network
from snn_delays.functional import (
    delay_kernel,
    integer_weight,
    one_hot_kernel,
    quantised_weight,
    round_delay,
)
from snn_delays.nn import DelayLinear, delay_statistics, quantise, round_delays
from snn_delays.runs import RunFolder
from snn_delays.training.assembly import load_split, load_trained, network_from_recipe

TABLE = {"weight_bits": 3, "max_delay": 13, "delay_step": 2}


@given(bits=st.integers(2, 16), seed=st.integers(0, 99))
def test_integers_and_scale_are_nearest(bits, seed):
    torch.manual_seed(seed)
    weight = torch.randn(4, 5, 2, dtype=torch.float64)
    weight[1] = 0
    integers, scale = integer_weight(weight, bits)
    largest = 2 ** (bits - 1) - 1
    for o in range(4):  # by hand, one weight after the other
        size = max(abs(w) for w in weight[o].flatten().tolist()) or 1.0
        assert scale[o].item() == size / largest
        for w, q in zip(weight[o].flatten().tolist(), integers[o].flatten().tolist(), strict=True):
            assert abs(q) <= largest
            assert q == int(q)
            assert abs(q * size / largest - w) <= size / largest / 2 * (1 + 1e-12)


def test_the_scale_of_weights_next_to_nothing_is_still_a_number():
    integers, scale = integer_weight(torch.full((1, 2, 1), 1e-44), bits=8)
    assert scale.item() >= torch.finfo(torch.float32).tiny
    assert not integers.any()  # nearer to 0 than to one step of that scale


@given(bits=st.integers(2, 24), seed=st.integers(0, 99))
def test_integers_do_not_depend_on_the_dtype(bits, seed):
    torch.manual_seed(seed)
    weight = torch.randn(4, 64, 4)
    integers, scale = integer_weight(weight, bits)
    exact, exact_scale = integer_weight(weight.double(), bits)
    assert integers.dtype == scale.dtype == torch.float32
    assert torch.equal(integers.double(), exact)
    assert torch.equal(scale, exact_scale.float())
    half = weight.bfloat16()
    assert torch.equal(integer_weight(half, bits)[0], integer_weight(half.float(), bits)[0])
    assert quantised_weight(half, bits).dtype == torch.bfloat16


@given(step=st.integers(1, 9), limit=st.integers(0, 30), delay=st.floats(0, 30))
def test_delays_go_to_the_nearest_multiple(step, limit, delay):
    rounded = round_delay(torch.tensor(delay, dtype=torch.float64), limit, step).item()
    legal = range(0, limit + 1, step)
    assert rounded in legal
    assert abs(rounded - delay) == min(abs(m - delay) for m in legal)


def test_gradient_of_a_weight_passes_straight_through():
    weight = torch.randn(3, 4, 1, requires_grad=True)
    factor = torch.randn(3, 4, 1)
    (quantised_weight(weight, 2) * factor).sum().backward()
    torch.testing.assert_close(weight.grad, factor, rtol=0, atol=0)


def test_kernel_is_the_rounded_one_and_its_gradients_are_as_stated():
    layer = DelayLinear(5, 4, max_delay=9, kernel_count=2, sigma=0.2).double()
    quantise(layer, **TABLE | {"max_delay": 7})
    expected = one_hot_kernel(
        quantised_weight(layer.weight, 3), round_delay(layer.delay, 7, 2), 9
    ).detach()
    kernel = layer.kernel()
    assert torch.equal(kernel, expected)
    assert torch.equal(round_delays(layer).kernel(), expected)
    grad = torch.randn_like(kernel)
    kernel.backward(grad)
    weight = quantised_weight(layer.weight, 3).detach().requires_grad_()
    delay = layer.delay.detach().requires_grad_()
    sigma = torch.tensor(1.0, dtype=torch.float64)  # half a delay step, wider than the layer's
    delay_kernel(weight, delay, sigma, 9).backward(grad)
    torch.testing.assert_close(layer.delay.grad, delay.grad)
    hard = torch.autograd.grad(one_hot_kernel(weight, round_delay(delay, 7, 2), 9), weight, grad)[0]
    torch.testing.assert_close(layer.weight.grad, hard)


@torch.no_grad()
@pytest.mark.parametrize("delays", ["learned", "fixed", "none"])
def test_export_of_a_quantised_network_is_exact_integers(delays):
    recipe = tiny_recipe(
        quantization=TABLE, kernel_count=2, bias=True, hidden=[12, 9], delays=delays
    )
    torch.manual_seed(1)
    net = network_from_recipe(recipe, 40, 10)
    x = torch.poisson(torch.full((60, 12, 40), 0.2))
    for _ in range(3):
        net.train()(x)
    for block in net.hidden_blocks():
        block.norm.weight.uniform_(-1.5, 1.5)  # negative gains turn the integers' signs
        block.norm.bias.uniform_(-0.2, 0.8)
    net.eval()
    network = to_network(net, recipe, [str(i) for i in range(10)])
    for layer in network.layers:
        assert np.abs(layer.weights).max() == 3
        assert (layer.weight_scale >= 0).all()
        assert not (layer.delays % 2).any()
        assert layer.delays.max() <= 12
    assert violations(network, CHIPS["generic"], delay_step=2) == []
    expected = net.double().simulate(x.double())  # not rounded: its forward pass is
    result = Engine(network).run(x.transpose(0, 1).numpy())
    assert result.spikes[0].sum() > 100
    for ours, theirs in zip(result.spikes, expected.spikes, strict=True):
        np.testing.assert_array_equal(ours, theirs.transpose(0, 1).numpy())
    np.testing.assert_allclose(result.scores, expected.scores.numpy(), atol=1e-9)


def test_fine_tuning_from_a_run(call, trained, tmp_path):
    run = tmp_path / "tuned"
    words = ["--init", trained[0].path, "--epochs", "1", "--out", run, "--quiet"]
    settings = ["--set", "quantization.weight_bits=3", "--set", "quantization.max_delay=13"]
    step = ["--set", "quantization.delay_step=2", "--device", "cpu"]
    code, _, err = call("train", *words, *settings, *step)
    assert (code, err) == (0, "")
    recipe = RunFolder(run).recipe()
    assert recipe.hidden == (8,)
    assert recipe.quantization.model_dump() == TABLE
    assert recipe.sigma_start == recipe.sigma_floor
    assert RunFolder(run).summary()["init"] == str(trained[0].path)
    assert violations(run_network(RunFolder(run)), CHIPS["spinnaker1"], delay_step=2) == []
    document = json.loads((run / "network.json").read_text())
    assert all(isinstance(w, int) for w in np.ravel(document["layers"][0]["weights"]).tolist())
    net, recipe, _ = load_trained(RunFolder(run))
    start, _, _ = load_trained(trained[0])
    moved = (net.readout.weight - start.readout.weight).abs().mean()
    assert 0 < moved < start.readout.weight.abs().mean()  # it went on from there
    x, _ = load_split(recipe, "test", None).batch(torch.arange(8))
    with torch.no_grad():
        assert torch.equal(net(x), round_delays(net)(x))


def test_tables_of_a_recipe_are_set_by_dotted_keys(tmp_path):
    words = ["quantization.weight_bits=4", "quantization.max_delay=none", "augment.drop=0.1"]
    recipe = load_recipe("shd", parse_overrides(words))
    assert recipe.quantization.model_dump() == {
        "weight_bits": 4,
        "max_delay": None,
        "delay_step": 1,
    }
    path = tmp_path / "recipe.toml"
    path.write_text(recipe.to_toml())
    assert load_recipe(path) == recipe
    again = load_recipe(path, parse_overrides(["quantization.delay_step=3"]))
    assert (again.quantization.weight_bits, again.quantization.delay_step) == (4, 3)


def test_mistakes_are_named(tmp_path):
    with pytest.raises(RecipeError, match=r"`quantization\.weight_bits`: .*greater than or equal"):
        load_recipe("shd", parse_overrides(["quantization.weight_bits=1"]))
    message = r"`quantization\.bits` is not a field.*Did you mean `quantization\.weight_bits`"
    with pytest.raises(RecipeError, match=message):
        make_recipe({"quantization": {"bits": 3}})
    with pytest.raises(RecipeError, match=message):
        parse_overrides(["quantization.bits=3"])
    with pytest.raises(RecipeError, match=r"`epochs\.x` is not a field"):
        parse_overrides(["epochs.x=3"])
    with pytest.raises(SnnDelaysError, match="`delay_step` must be an integer of at least 1"):
        quantise(DelayLinear(2, 2, max_delay=3), delay_step=0)


def test_another_shape_cannot_be_started_from(call, trained, tmp_path):
    words = ["train", *FLAGS, "--init", trained[0].path, "--set", "hidden=9"]
    code, _, err = call(*words, "--out", tmp_path / "run")
    assert code == 2
    assert (
        "is not of the sizes that this recipe asks for. --init needs data of the same channels"
        in err
    )
    code, _, err = call("train", "--init", tmp_path / "none", "--out", tmp_path / "run2")
    assert code == 2
    assert "is not a run folder" in err


def test_delays_that_were_not_trained_have_not_moved_whatever_their_limit():
    torch.manual_seed(0)
    layer = DelayLinear(20, 30, max_delay=24)
    quantise(layer, max_delay=6)
    found = delay_statistics(layer)
    (statistics,) = found.values()
    assert statistics.mean_move == 0
    assert statistics.share_at_max == pytest.approx(0.77, abs=0.06)  # 18.5 of 24 steps


def test_quantising_again_and_drawing_anew_keep_to_the_limit():
    layer = DelayLinear(40, 30, max_delay=10)
    quantise(layer, max_delay=3)
    layer.reset_parameters()
    (found,) = delay_statistics(layer).values()
    assert len([n for n in found.histogram if n > 100]) == 4  # no heap at the limit
    assert found.mean < 2
    quantise(layer)
    assert layer.delay_limit == 10
