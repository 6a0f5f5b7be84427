"""DelaySNN: shapes, batches of one, independence of clips, masks and scores."""

import pytest
import torch

from snn_delays.config import load_recipe
from snn_delays.errors import ShapeError, SnnDelaysError
from snn_delays.networks import DelaySNN, class_scores
from snn_delays.neurons import LeakyIntegrator
from snn_delays.nn import delay_layers, round_delays
from snn_delays.training.assembly import network_from_recipe


def network(**changes):
    settings = {"max_delay": 5, "tail_steps": 5, "tau": 2.0, "dropout": 0.3}
    return DelaySNN(6, [8, 7], 4, **{**settings, **changes})


def clips(steps=12, batch=5):
    return torch.poisson(torch.full((steps, batch, 6), 0.6))


@pytest.mark.parametrize("readout", ["softmax_sum", "max", "mean", "last"])
@pytest.mark.parametrize("delays", ["learned", "fixed", "none"])
def test_scores_and_gradients_for_every_readout_and_arm(readout, delays):
    net = network(readout=readout, delays=delays)
    result = net.simulate(clips())
    assert result.scores.shape == (5, 4)
    assert result.potentials.shape == (17, 5, 4)
    assert [s.shape for s in result.spikes] == [(17, 5, 8), (17, 5, 7)]
    torch.nn.functional.cross_entropy(result.scores, torch.tensor([0, 1, 2, 3, 0])).backward()
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_a_batch_of_one_works_in_training_and_evaluation():
    net = network()
    assert net(clips(batch=1)).shape == (1, 4)
    assert net.eval()(clips(batch=1)).shape == (1, 4)


@pytest.mark.parametrize("rounded", [False, True])
def test_an_answer_does_not_depend_on_who_shares_the_batch(rounded):
    net = network().double().eval()
    net = round_delays(net) if rounded else net
    x = clips().double()
    together = net(x)
    alone = torch.cat([net(x[:, [n]]) for n in range(x.shape[1])])
    torch.testing.assert_close(together, alone)
    assert torch.equal(together.argmax(1), alone.argmax(1))


def test_runs_do_not_leak_state_into_each_other():
    net = network().eval()
    x = clips()
    first = net(x)
    net(torch.ones_like(x))
    assert torch.equal(net(x), first)


def test_a_mask_hides_padding():
    """Clips padded to a longer length answer as if they were alone, once padding is masked."""
    net = network(readout="softmax_sum").double().eval()
    short = clips(steps=9).double()
    padded = torch.nn.functional.pad(short, (0, 0, 0, 0, 0, 4))
    mask = torch.arange(13 + 5) < 9 + 5
    torch.testing.assert_close(net(padded, mask), net(short))
    per_clip = mask[:, None].expand(-1, 5)
    torch.testing.assert_close(net(padded, per_clip), net(short))


def test_dropout_silences_a_neuron_for_the_whole_clip():
    block = network(dropout=0.5).blocks[0]
    block.norm.weight.data.zero_()
    block.norm.bias.data.fill_(3.0)  # every neuron fires at every step
    spikes, kept = block(clips(steps=10, batch=40))
    assert set(spikes.unique().tolist()) == {1.0}
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(kept.amin(0), kept.amax(0))
    spikes, kept = block.eval()(clips())
    assert torch.equal(spikes, kept)


@pytest.mark.parametrize("learn_tau", [False, True])
def test_a_block_alone_starts_from_rest_each_time(learn_tau):
    block, x = network(learn_tau=learn_tau).blocks[0].eval(), clips()
    first, _ = block(x)
    second, _ = block(x)
    assert first.any()
    assert torch.equal(first, second)


def test_a_norm_and_neurons_that_are_watched_are_called():
    calls = []
    block, x = network().double().blocks[0].eval(), clips().double()
    expected, _ = block(x)
    for module in (block.norm, block.neuron):
        module.register_forward_hook(lambda module, *_: calls.append(type(module).__name__))
    actual, _ = block(x)
    assert calls == ["BatchNorm1d", "LIFNode"]
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("max_delay", [0, 5, 30])
def test_networks_train_under_autocast(max_delay):
    net = network(max_delay=max_delay).train()
    with torch.autocast("cpu"):
        scores = net(clips(steps=40, batch=32))
        torch.nn.functional.cross_entropy(scores, torch.arange(32) % 4).backward()  # inside too
    assert scores.shape == (32, 4)
    gradients = [p.grad for p in net.parameters() if p.requires_grad]
    assert all(g.isfinite().all() for g in gradients)
    assert net.readout.weight.grad.any()


@pytest.mark.parametrize("max_delay", [0, 5])
def test_membranes_are_float32_under_autocast(max_delay):
    """They add up over time: bfloat16 has 8 bits, and SpikingJelly's kernels want float32."""
    net = network(max_delay=max_delay).train()
    entering = []
    for module in net.modules():
        if isinstance(module, (torch.nn.BatchNorm1d, LeakyIntegrator)):
            module.register_forward_hook(lambda module, x, y: entering.append((x[0], y)))
    x = clips(steps=40, batch=32)
    with torch.autocast("cpu"):
        mixed = net.simulate(x)
    assert {y.dtype for _, y in entering} == {torch.float32}
    assert mixed.potentials.dtype == torch.float32
    readout = entering[-1][0].float()
    assert torch.equal(mixed.potentials, net.integrator(readout))


def test_scores_follow_their_definitions():
    v = torch.randn(6, 2, 3)
    mask = torch.tensor([[1, 1], [1, 1], [0, 1], [1, 1], [0, 0], [0, 0]]).bool()
    assert torch.allclose(class_scores(v, "softmax_sum"), v.softmax(-1).sum(0))
    assert torch.equal(class_scores(v, "max"), v.amax(0))
    assert torch.allclose(class_scores(v, "mean"), v.mean(0))
    assert torch.equal(class_scores(v, "last"), v[-1])
    masked = class_scores(v, "mean", mask)
    torch.testing.assert_close(masked[0], v[[0, 1, 3], 0].mean(0))
    assert torch.equal(class_scores(v, "max", mask)[1], v[:4, 1].amax(0))
    assert torch.equal(class_scores(v, "last", mask), v[3])
    torch.testing.assert_close(
        class_scores(v, "softmax_sum", mask)[0], v[[0, 1, 3], 0].softmax(-1).sum(0)
    )


def test_bad_input_is_refused():
    net = network()
    with pytest.raises(ShapeError, match=r"\[T, N, C=6\].*got \[12, 6\]. Add a batch axis"):
        net(torch.zeros(12, 6))
    with pytest.raises(ShapeError, match="one step and one clip"):
        net(torch.zeros(12, 0, 6))
    with pytest.raises(ShapeError, match="`mask` must be"):
        net(clips(), torch.ones(3, dtype=torch.bool))
    with pytest.raises(ShapeError, match="True step for every clip"):
        net(clips(), torch.zeros(17, dtype=torch.bool))
    for mask, got in (([True], "list"), (torch.ones(17, device="meta"), "meta")):
        with pytest.raises(ShapeError, match=f"`mask` must be a tensor on cpu; got {got}"):
            net(clips(), mask)
    for shape in ((0, 5, 4), (12, 5, 0)):
        with pytest.raises(ShapeError, match="at least one step and one class"):
            class_scores(torch.zeros(shape), "mean")
    with pytest.raises(SnnDelaysError, match="`readout` must be one of"):
        network(readout="first")
    with pytest.raises(SnnDelaysError, match="`hidden` must be"):
        DelaySNN(6, [], 4, max_delay=5)
    with pytest.raises(SnnDelaysError, match="`classes` must be"):
        DelaySNN(6, [3], 0, max_delay=5)


def test_one_clip_of_one_step_is_no_batch_to_train_on():
    net = DelaySNN(4, [5], 3, max_delay=4)
    with pytest.raises(ShapeError, match="more than one step or clip, for batch norm"):
        net(torch.zeros(1, 1, 4))
    net.blocks[0].norm.eval()  # frozen: nothing is taken from the batch
    assert net(torch.zeros(1, 1, 4)).shape == (1, 3)
    assert net.eval()(torch.zeros(1, 1, 4)).shape == (1, 3)
    net.train().blocks[0].norm = torch.nn.Identity()
    assert net(torch.zeros(1, 1, 4)).shape == (1, 3)


@pytest.mark.parametrize("value", [True, False])
def test_settings_reach_every_neuron(value):
    net = DelaySNN(4, [5, 5], 3, max_delay=4, decay_input=value, detach_reset=value)
    assert net.integrator.decay_input is value
    for block in net.hidden_blocks():
        assert (block.neuron.decay_input, block.neuron.detach_reset) == (value, value)


def test_delays_are_drawn_uniformly_over_their_range():
    torch.manual_seed(0)
    for layer in delay_layers(DelaySNN(40, [50], 3, max_delay=20)).values():
        delay = layer.delay.detach()
        assert abs(float(delay.mean()) - 10) < 1.5
        assert delay.min() < 1
        assert delay.max() > 19


def test_every_setting_of_a_recipe_reaches_the_network():
    recipe = load_recipe(
        "synthetic",
        {
            **{"hidden": [5, 4], "max_delay": 7, "tail_steps": 3, "kernel_count": 2, "bias": True},
            **{"granularity": "axonal", "tau": 3.0, "v_threshold": 1.5, "v_reset": -0.5},
            **{"decay_input": True, "surrogate": "sigmoid", "surrogate_alpha": 2.5},
            **{"detach_reset": False, "readout_tau": 8.0, "dropout": 0.3, "readout": "max"},
            **{"sigma_start": 4.0},
        },
    )
    net = network_from_recipe(recipe, 6, 3)
    layers = list(delay_layers(net).values())
    assert [tuple(d.weight.shape) for d in layers] == [(5, 6, 2), (4, 5, 2), (3, 4, 2)]
    assert [tuple(d.delay.shape) for d in layers] == [(1, 6, 2), (1, 5, 2), (1, 4, 2)]
    for layer in layers:
        assert (layer.max_delay, float(layer.sigma)) == (7, 4.0)
        assert layer.bias is not None
    for block in net.hidden_blocks():
        node, shape = block.neuron, block.neuron.surrogate_function
        assert (node.tau, node.v_threshold, node.v_reset) == (3.0, 1.5, -0.5)
        assert (node.decay_input, node.detach_reset) == (True, False)
        assert (type(shape).__name__, shape.alpha, block.dropout) == ("Sigmoid", 2.5, 0.3)
    assert (net.integrator.tau, net.integrator.decay_input) == (8.0, True)
    assert (net.score_kind, net.tail_steps) == ("max", 3)
    soft = network_from_recipe(load_recipe("synthetic", {"reset": "soft"}), 6, 3)
    assert {block.neuron.v_reset for block in soft.hidden_blocks()} == {None}
    learned = network_from_recipe(load_recipe("synthetic", {"learn_tau": True}), 6, 3)
    assert all(hasattr(block.neuron, "w") for block in learned.hidden_blocks())


def test_the_largest_potential_may_be_negative():
    v = -1 - torch.rand(6, 2, 3)
    mask = torch.tensor([1, 1, 0, 1, 0, 0]).bool()
    assert torch.equal(class_scores(v, "max", mask), v[[0, 1, 3]].amax(0))


def test_a_wrapped_hidden_layer_is_not_passed_over():
    """torch.compile of one layer gives another module; without it, answers came from the others."""
    net = network()
    net.blocks[0] = torch.compile(net.blocks[0])
    for use in (net.hidden_blocks, lambda: net(clips())):
        with pytest.raises(SnnDelaysError, match=r"`blocks\.0` .* must be a DelayBlock"):
            use()
