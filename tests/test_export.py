"""The rounded PyTorch network and the exported file in the engine give the same spikes."""

import json

import numpy as np
import pytest
import torch
from spikingjelly.activation_based.neuron import KLIFNode
from tiny import tiny_recipe
from torch.nn.utils import prune

from snn_delays import network_format as nf
from snn_delays.engine import Engine
from snn_delays.errors import SnnDelaysError
from snn_delays.evaluation import answer, evaluate
from snn_delays.export import _fold, export_run, run_network, to_network
from snn_delays.networks import DelaySNN
from snn_delays.neurons import lif
from snn_delays.nn import DelayLinear, round_delays
from snn_delays.training.assembly import load_split, load_trained, network_from_recipe

VARIANTS = {
    "hard": {},
    "soft": {"reset": "soft"},
    "decay_input": {"decay_input": True, "v_threshold": 0.4},
    "two contacts, bias": {"kernel_count": 2, "bias": True},
    "deep": {"hidden": [12, 9, 7], "v_reset": -0.2},
    "no delays": {"delays": "none"},
    "fixed": {"delays": "fixed", "max_delay": 7, "tail_steps": 3},
    "axonal": {"granularity": "axonal", "kernel_count": 2},
    "dendritic": {"granularity": "dendritic"},
    "learned tau, last": {"learn_tau": True, "readout": "last", "readout_tau": 4.0},
    "max": {"readout": "max"},
    "mean": {"readout": "mean"},
}


def awake_network(recipe):
    """A network whose batch norms have seen data, so that folding has something to fold."""
    torch.manual_seed(3)
    net = network_from_recipe(recipe, 40, 10)
    x = torch.poisson(torch.full((recipe.steps, 16, 40), 0.2))
    with torch.no_grad():
        for _ in range(5):
            net.train()(x)
        for block in net.hidden_blocks():
            block.norm.weight.uniform_(0.5, 1.5)
            block.norm.bias.uniform_(-0.2, 0.8)
            if block.synapses.bias is not None:
                block.synapses.bias.uniform_(-0.5, 0.5)
    return net.eval()


@torch.no_grad()
@pytest.mark.parametrize("name", VARIANTS)
def test_engine_and_pytorch_agree_spike_for_spike(name):
    recipe = tiny_recipe(**VARIANTS[name])
    net = awake_network(recipe)
    x = torch.poisson(torch.full((recipe.steps, 20, 40), 0.2, dtype=torch.float64))
    x[:, 0] = 0  # an empty clip
    expected = round_delays(net).double().simulate(x)
    network = to_network(net, recipe, [f"class {i}" for i in range(10)])
    result = Engine(network).run(x.transpose(0, 1).numpy())
    assert sum(s.sum() for s in result.spikes) > 0
    for ours, theirs in zip(result.spikes, expected.spikes, strict=True):
        np.testing.assert_array_equal(ours, theirs.transpose(0, 1).numpy())
    np.testing.assert_allclose(result.scores, expected.scores.numpy(), atol=1e-9)
    assert result.margin > 0


@torch.no_grad()
def test_float32_is_about_as_good_on_the_test_split_and_its_margin_is_reported(trained):
    """`test_exactness` looks at every spike."""
    folder, summary = trained
    net, recipe, _ = load_trained(folder)
    data = load_split(recipe, "test", None)
    network = nf.load_network(folder.network_file)
    x, _ = data.batch(torch.arange(len(data)))
    engine32 = Engine(network, np.float32)
    low = engine32.run(x.transpose(0, 1).numpy())
    assert 0 < low.margin < 1e-2
    engine_answers, margin = answer(engine32, data)
    assert margin == low.margin
    rounded = evaluate(round_delays(net), data)
    assert abs(engine_answers.accuracy - rounded.accuracy) < 0.005
    assert summary["test_accuracy"] == rounded.accuracy


def test_the_file_says_where_it_comes_from_and_reads_back(trained, tmp_path):
    folder, summary = trained
    assert export_run(folder) == folder.network_file
    path = tmp_path / "copy.json.gz"
    nf.save_network(run_network(folder), path)
    network = nf.load_network(path)
    assert network.metadata["test_accuracy"] == summary["test_accuracy"]
    assert network.input.dataset == "synthetic"
    assert (network.input.steps, network.input.tail_steps) == (60, 24)
    assert network.readout.classes[3] == "melody 3"
    document = json.loads(folder.network_file.read_text())
    assert document["format"] == "snn-delays/network"
    assert document["layers"][0]["neuron"]["v_reset"] == 0.0
    delays = np.array(document["layers"][0]["delays"])
    assert delays.shape == (8, 40, 1)
    net, _, _ = load_trained(folder)
    np.testing.assert_array_equal(delays, net.hidden_blocks()[0].synapses.delay.round().detach())


def test_batch_norm_is_folded_with_its_eps():
    """Seen where the variance is no larger than `eps`."""
    net = awake_network(tiny_recipe()).double()
    block = net.hidden_blocks()[0]
    block.norm.running_var.fill_(block.norm.eps)
    gain, bias = _fold(block)
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None].expand(5, len(gain))
    torch.testing.assert_close(x * gain + bias, block.norm.eval()(x))


def test_export_does_not_change_the_network():
    recipe = tiny_recipe()
    net = awake_network(recipe)
    before = {n: t.clone() for n, t in net.state_dict().items()}
    to_network(net, recipe, [str(i) for i in range(10)])
    assert all(torch.equal(before[n], t) for n, t in net.state_dict().items())
    assert net.hidden_blocks()[0].synapses.delays == "learned"


def test_a_network_of_ones_own_loop_is_exported_as_it_is():
    recipe = tiny_recipe()
    torch.manual_seed(0)
    net = DelaySNN(40, [9], 10, max_delay=5, tail_steps=2, readout="last").eval()
    assert (recipe.tail_steps, recipe.readout) != (2, "last")
    x = torch.poisson(torch.full((recipe.steps, 6, 40), 0.2, dtype=torch.float64))
    with torch.no_grad():
        expected = round_delays(net).double().simulate(x).scores
    found = Engine(to_network(net, recipe, list("abcdefghij"))).run(x.transpose(0, 1).numpy())
    np.testing.assert_allclose(found.scores, expected.numpy(), atol=1e-9)
    with pytest.raises(
        SnnDelaysError, match="`classes` must be the names of the 10 outputs; got 3"
    ):
        to_network(net, recipe, list("abc"))
    with pytest.raises(SnnDelaysError, match="`net` must be a DelaySNN"):
        to_network(net.readout, recipe, list("abc"))
    with pytest.raises(SnnDelaysError, match=r"got DataParallel\. Of a wrapped one pass what"):
        to_network(torch.nn.DataParallel(net), recipe, list("abcdefghij"))


NAMES = tuple("abcdefghij")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"classes": "abcdefghij"}, "`classes` must be a list of names; got 'abcdefghij'"),
        ({"classes": None}, "`classes` must be a list of names; got None"),
        ({"classes": range(10)}, r"The network: `readout\.classes\[0\]` must be .*string; got 0"),
        (
            {"classes": ("a", "a", *"cdefghij")},
            r"`readout\.classes\[1\]` must be a name",
        ),
        ({"recipe": "synthetic"}, "`recipe` must be what `load_recipe` gives; got str"),
        ({"metadata": {"accuracy": torch.ones(1)}}, "The network: `metadata"),
    ],
    ids=str,
)
def test_what_cannot_be_exported_is_named(words, message):
    net = DelaySNN(40, [9], 10, max_delay=5)
    whole = {"recipe": tiny_recipe(), "classes": NAMES, "metadata": None}
    assert to_network(net, **whole).readout.classes == list(NAMES)
    with pytest.raises(SnnDelaysError, match=message) as refused:
        to_network(net, **whole | words)
    assert "\n" not in str(refused.value)


class Louder(DelayLinear):
    def forward(self, x, steps=None):
        return 2 * super().forward(x, steps)


def louder(net):
    torch.manual_seed(0)
    net.blocks[0].synapses = Louder(40, 9, max_delay=5)


def pruned(net):
    prune.l1_unstructured(net.blocks[0].synapses, "weight", 0.5)


CHANGES = {
    "subclass": (louder, r"`blocks\.0\.synapses` of the network must be a DelayLinear that"),
    "own forward": (
        lambda net: setattr(net, "forward", lambda x: net.simulate(x).scores),
        "The network has hooks",
    ),
    "pruning": (pruned, r"`blocks\.0\.synapses` of the network has hooks.*prune\.remove"),
    "hook": (
        lambda net: net.blocks[0].norm.register_forward_hook(lambda *_: _[-1] * 0.5),
        r"`blocks\.0\.norm` of the network has hooks",
    ),
    "neuron": (
        lambda net: setattr(net.blocks[0], "neuron", KLIFNode(tau=2.0, step_mode="m")),
        "A neuron must be a LIFNode or a ParametricLIFNode of SpikingJelly; got KLIFNode",
    ),
    "method of a neuron": (
        lambda net: setattr(net.blocks[0].neuron, "multi_step_forward", torch.zeros_like),
        r"`blocks\.0\.neuron` of the network has hooks",
    ),
    "thresholds of a neuron": (
        lambda net: setattr(net.blocks[0].neuron, "v_threshold", torch.ones(9)),
        "`v_threshold` of a neuron must be a number; got",
    ),
    "reset of a neuron": (
        lambda net: setattr(net.blocks[0].neuron, "v_reset", 0.5),
        r"The potential at which a neuron starts must be 0\.5, where it is reset to; got 0\.0",
    ),
    "a neuron that takes single steps": (
        lambda net: setattr(net.blocks[0].neuron, "step_mode", "s"),
        "`step_mode` of a neuron must be 'm', as `lif` sets it; got 's'",
    ),
    "a neuron without spikes": (
        lambda net: setattr(net.blocks[0].neuron.surrogate_function, "spiking", False),
        "`surrogate_function` of a neuron must be 0 below 0, and 1 from 0 on; got other values",
    ),
    "spikes for an answer": (
        lambda net: setattr(net, "integrator", lif(tau=2.0)),
        "`integrator` of the network must be a LeakyIntegrator; got LIFNode",
    ),
    "no readout": (
        lambda net: setattr(net, "readout", torch.nn.Identity()),
        "`readout` of the network must be a DelayLinear; got Identity",
    ),
    "plain synapses": (
        lambda net: setattr(net.blocks[0], "synapses", torch.nn.Linear(40, 9)),
        r"`blocks\.0\.synapses` of the network must be a DelayLinear; got Linear",
    ),
    "norm": (
        lambda net: setattr(net.blocks[0], "norm", torch.nn.Identity()),
        r"`norm` of each block must be .*; got Identity",
    ),
    "no statistics": (
        lambda net: setattr(
            net.blocks[0], "norm", torch.nn.BatchNorm1d(9, track_running_stats=False)
        ),
        r"`norm` of each block must be torch's BatchNorm1d, affine, with running statistics",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_part_that_computes_something_else_is_refused(change):
    net = DelaySNN(40, [9], 10, max_delay=5)
    alter, message = CHANGES[change]
    alter(net)
    with pytest.raises(SnnDelaysError, match=message):
        to_network(net, tiny_recipe(), list("abcdefghij"))


def test_a_compiled_network_is_exported_as_before():
    net = DelaySNN(40, [9], 10, max_delay=5)
    expected = to_network(net, tiny_recipe(), NAMES)
    net.compile()
    net.blocks[0].norm.compile()
    net.blocks[0].train = lambda mode=True: net  # computes nothing
    assert nf.dumps(to_network(net, tiny_recipe(), NAMES)) == nf.dumps(expected)


@torch.no_grad()
def test_what_was_pruned_or_parametrised_is_exported_once_it_is_permanent_or_always():
    recipe = tiny_recipe(tail_steps=0, readout="softmax_sum")
    net = awake_network(recipe)
    pruned(net)
    net(torch.zeros(3, 1, 40))
    prune.remove(net.blocks[0].synapses, "weight")
    torch.nn.utils.parametrizations.weight_norm(net.readout)
    net.readout.parametrizations.weight.original0.mul_(1.5)
    x = torch.poisson(torch.full((recipe.steps, 6, 40), 0.2, dtype=torch.float64))
    expected = round_delays(net).double().simulate(x)
    network = to_network(net, recipe, list("abcdefghij"))
    assert (network.layers[0].weights == 0).mean() >= 0.5
    result = Engine(network).run(x.transpose(0, 1).numpy())
    np.testing.assert_allclose(result.scores, expected.scores.numpy(), atol=1e-9)


def test_the_file_says_how_the_input_was_prepared():
    recipe = tiny_recipe(channel_bin=2, steps=31, dt_ms=5.0)
    net = network_from_recipe(recipe, 20, 10)
    found = to_network(net, recipe, [str(i) for i in range(10)])
    assert (found.dt_ms, found.input.steps, found.input.channel_bin) == (5.0, 31, 2)
