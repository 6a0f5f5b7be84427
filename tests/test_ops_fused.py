"""The fused batch norm, LIF and dropout against `nn.BatchNorm1d` and SpikingJelly's LIF."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snn_delays import neurons
from snn_delays.ops import fused


def currents(steps=12, batch=5, channels=4, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(steps, batch, channels, dtype=dtype, generator=generator) + 1


def norm_like(x, seed=1):
    generator = torch.Generator().manual_seed(seed)
    norm = nn.BatchNorm1d(x.shape[2]).to(x.dtype)
    norm.weight.data.copy_(1 + torch.rand(x.shape[2], generator=generator))
    norm.bias.data.copy_(torch.randn(x.shape[2], generator=generator))
    norm.running_mean.copy_(torch.randn(x.shape[2], generator=generator))
    return norm


def unfused(x, norm, node, keep):
    neurons.reset(node)
    spikes = node(norm(x.flatten(0, 1)).view_as(x))
    return spikes, spikes if keep is None else spikes * keep


lif_nodes = st.builds(
    neurons.lif,
    tau=st.floats(1.001, 50),
    v_threshold=st.floats(0.2, 2),
    v_reset=st.sampled_from([None, 0.0, -0.4]),
    decay_input=st.booleans(),
    detach_reset=st.booleans(),
    surrogate_alpha=st.floats(0.5, 10),
)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("clips", "channels"), [(7, 300), (2, 1024), (3, 1500), (2, 1), (1, 40)])
def test_clips_are_independent_however_many_are_simulated_at_once(threads, clips, channels):
    torch.manual_seed(0)
    node, x = neurons.lif(tau=2.0), torch.randn(35, clips, channels, dtype=torch.float64)
    x.requires_grad_()
    keep, probes = torch.rand(clips, channels).double(), torch.randn_like(x)
    norm, before, results = norm_like(x), torch.get_num_threads(), []
    torch.set_num_threads(threads)
    try:
        for compute in (
            lambda n: unfused(x, n, node, keep),
            lambda n: fused.norm_lif_dropout(x, n, neurons.fused_constants(node), keep),
        ):
            own = copy.deepcopy(norm)
            spikes, kept = compute(own)
            gradients = torch.autograd.grad((kept * probes).sum(), [x, own.weight, own.bias])
            results.append([spikes, kept, *gradients])
    finally:
        torch.set_num_threads(before)
    assert results[0][0].any()
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(
    ("dtype", "mean", "atol"), [("float32", 1e3, 1e-3), ("float64", 1e8, 1e-6)]
)
def test_statistics_are_exact_where_the_mean_is_far_above_the_spread(dtype, mean, atol):
    x, dtype = currents(), getattr(torch, dtype)
    norm, x = nn.BatchNorm1d(4).to(dtype), (x + mean).to(dtype)
    fused.norm_lif_dropout(x, norm, neurons.fused_constants(neurons.lif(tau=2.0)), None)
    exact = nn.BatchNorm1d(4).double()
    exact((x.double() - mean).flatten(0, 1))
    torch.testing.assert_close(norm.running_var.double(), exact.running_var, atol=atol, rtol=0)


def test_gradients_of_long_clips_in_float32_are_summed_exactly_enough():
    torch.manual_seed(0)
    exact = torch.randn(10_000, 4, 8).double() + 50
    lif, found = neurons.fused_constants(neurons.lif(tau=2.0)), []
    for dtype in (torch.float32, torch.float64):
        norm, x = nn.BatchNorm1d(8).to(dtype), exact.float().to(dtype)
        spikes, _ = fused.norm_lif_dropout(x, norm, lif, None)
        (spikes * torch.linspace(0, 1, 8, dtype=dtype)).sum().backward()
        found.append(norm.weight.grad.double())
    assert (found[0] - found[1]).abs().max() < 3e-5 * found[1].abs().max()


@given(node=lif_nodes, training=st.booleans(), dropped=st.booleans(), seed=st.integers(0, 999))
def test_spikes_statistics_and_gradients_equal_the_unfused_ones(node, training, dropped, seed):
    x = currents(seed=seed).requires_grad_()
    generator = torch.Generator().manual_seed(seed)
    keep = 2.0 * torch.randint(2, x.shape[1:], generator=generator).double() if dropped else None
    probes = torch.randn(2, *x.shape, generator=generator, dtype=x.dtype)
    results = []
    norm = norm_like(x).train(training)
    constants = neurons.fused_constants(node)
    for compute in (
        lambda n: unfused(x, n, node, keep),
        lambda n: fused.norm_lif_dropout(x, n, constants, keep),
    ):
        own = copy.deepcopy(norm)
        spikes, kept = compute(own)
        loss = (spikes * probes[0]).sum() + (kept * probes[1]).sum()
        gradients = torch.autograd.grad(loss, [x, own.weight, own.bias])
        results.append([spikes, kept, *gradients, *own.buffers()])
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-9, rtol=1e-9)


@given(soft=st.booleans(), detach=st.booleans(), decay=st.booleans(), seed=st.integers(0, 99))
def test_a_potential_of_exactly_the_threshold_fires(soft, detach, decay, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-2, 5, (12, 5, 4), generator=generator).double() / 2  # exact, so ties happen
    node = neurons.lif(
        tau=2.0, v_reset=None if soft else 0.0, decay_input=decay, detach_reset=detach
    )
    norm = nn.BatchNorm1d(4, eps=0.25).double().eval()  # with this variance it changes nothing
    norm.running_var.fill_(0.75)
    probe = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    found = []
    for compute in (unfused, fused.norm_lif_dropout):
        own = x.clone().requires_grad_()
        lif = node if compute is unfused else neurons.fused_constants(node)
        args = (own, norm, lif, None)
        spikes, _ = compute(*args)
        (spikes * probe).sum().backward()
        found.append((spikes.detach(), own.grad))
    potential = node.v_threshold - x[0] / (2 if decay else 1)
    assert (potential == 0).any()
    for expected, actual in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-12, rtol=1e-12)


@given(node=lif_nodes, seed=st.integers(0, 999))
def test_float32_spikes_are_bit_equal_on_the_same_normalised_input(node, seed):
    x = currents(steps=40, channels=16, dtype=torch.float32, seed=seed)
    norm = norm_like(x).eval()
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    normalised = x * scale + (norm.bias - norm.running_mean * scale)
    neurons.reset(node)
    spikes, _ = fused.norm_lif_dropout(x, norm, neurons.fused_constants(node), None)
    assert torch.equal(spikes, node(normalised))


@pytest.mark.parametrize("threads", [2, 3])
def test_the_number_of_threads_changes_nothing(threads):
    x = currents(batch=7).requires_grad_()
    constants = neurons.fused_constants(neurons.lif(tau=2.0))
    before = torch.get_num_threads()
    outcomes = []
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            spikes, _ = fused.norm_lif_dropout(x, norm_like(x), constants, None)
            outcomes.append((spikes, *torch.autograd.grad(spikes.sum(), x)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(outcomes[0][0], outcomes[1][0])
    # The sums over clips are added up in another order: equal but for rounding.
    torch.testing.assert_close(outcomes[0][1], outcomes[1][1], rtol=1e-12, atol=1e-13)


def test_a_batch_of_one_and_strided_currents_are_accepted():
    constants = neurons.fused_constants(neurons.lif(tau=2.0))
    x = currents(batch=1).transpose(0, 2).contiguous().transpose(0, 2)
    spikes, kept = fused.norm_lif_dropout(x, norm_like(x), constants, None)
    assert spikes is kept
    expected, _ = fused.norm_lif_dropout(x.contiguous(), norm_like(x), constants, None)
    assert torch.equal(spikes, expected)


def test_it_takes_the_neurons_that_it_knows():
    assert neurons.fused_constants(neurons.lif(tau=2.0)) is not None
    assert neurons.fused_constants(neurons.lif(tau=2.0, learn_tau=True)) is None
    assert neurons.fused_constants(neurons.lif(tau=2.0, surrogate_name="sigmoid")) is None


def watched(module):
    module.register_forward_hook(lambda *_: None)
    return module


def with_potentials(node):
    node.store_v_seq = True
    return node


def replaced(module):
    module.forward = lambda x: x
    return module


def without_tracking(norm):
    norm.track_running_stats = False
    return norm


def not_spiking(node):
    node.surrogate_function.set_spiking_mode(False)
    return node


def with_a_method_of_its_own(node):
    node.multi_step_forward = torch.zeros_like
    return node


def with_another_reset(node):
    node.v_reset = 0.5  # SpikingJelly still starts it at 0
    return node


def with_a_threshold_each(node):
    node.v_threshold = torch.ones(4)
    return node


CHANGES = [
    *(watched, replaced, with_potentials, not_spiking),
    *(with_a_method_of_its_own, with_another_reset, with_a_threshold_each),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_neuron_that_was_changed_is_left_to_spikingjelly(change):
    assert neurons.fused_constants(change(neurons.lif(tau=2.0))) is None


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm1d(4, affine=False),
        nn.BatchNorm1d(4, track_running_stats=False),
        nn.BatchNorm1d(4).double(),
        watched(nn.BatchNorm1d(4)),
        replaced(nn.BatchNorm1d(4)),
        without_tracking(nn.BatchNorm1d(4)),
        nn.LayerNorm(4),
        nn.Identity(),
    ],
    ids=["plain", "untracked", "float64", "watched", "replaced", "no longer", "layer", "none"],
)
def test_a_norm_that_it_does_not_know_is_left_to_torch(norm):
    x = currents(dtype=torch.float32)
    assert fused.knows(nn.BatchNorm1d(4), x)
    assert not fused.knows(norm, x)


def test_whoever_watches_all_modules_sees_norm_and_neurons():
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert not fused.knows(nn.BatchNorm1d(4), currents(dtype=torch.float32))
        assert neurons.fused_constants(neurons.lif(tau=2.0)) is None
    finally:
        handle.remove()


def test_one_value_to_a_channel_is_left_to_torch_which_refuses_it():
    x = currents(steps=1, batch=1)
    assert not fused.knows(norm_like(x), x)
    assert fused.knows(norm_like(x).eval(), x)


def test_statistics_without_momentum_are_means_over_all_batches():
    x = currents()
    own, expected = norm_like(x), norm_like(x)
    own.momentum = expected.momentum = None
    for seed in range(3):
        batch = currents(seed=seed)
        fused.norm_lif_dropout(batch, own, neurons.fused_constants(neurons.lif(tau=2.0)), None)
        expected(batch.flatten(0, 1))
    torch.testing.assert_close(own.running_mean, expected.running_mean)
    torch.testing.assert_close(own.running_var, expected.running_var)


def test_only_the_currents_are_kept_for_backward():
    x = currents().requires_grad_()
    saved = []
    constants = neurons.fused_constants(neurons.lif(tau=2.0))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, id):
        fused.norm_lif_dropout(x, norm_like(x), constants, None)
    assert sum(n == x.numel() for n in saved) == 1


@pytest.mark.parametrize("keep", [None, torch.full((5, 4), 2.0).double()], ids=["all", "dropout"])
def test_what_is_kept_may_come_back_in_another_order_of_memory(keep):
    """As from hooks that store it elsewhere."""
    x, found = currents().requires_grad_(), []
    constants, probe = neurons.fused_constants(neurons.lif(tau=2.0)), currents(seed=1)
    for unpack in (lambda t: t, lambda t: t.mT.contiguous().mT if t.dim() > 2 else t):
        norm = norm_like(x)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t, unpack):
            _, kept = fused.norm_lif_dropout(x, norm, constants, keep)
            found.append(torch.autograd.grad((kept * probe).sum(), [x, norm.weight, norm.bias]))
    for expected, actual in zip(*found, strict=True):
        assert torch.equal(actual, expected)
