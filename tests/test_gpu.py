"""On a GPU: the same spikes and gradients as on the CPU, no waiting, and the same run again."""

import pytest
import torch
from data_helpers import random_store
from tiny import tiny_recipe

from snn_delays.convolution import by_dft, direct
from snn_delays.data.augment import augmented_batch
from snn_delays.data.dataset import SpikeDataset
from snn_delays.networks import DelaySNN
from snn_delays.neurons import lif
from snn_delays.nn import clamp_delays, round_delays
from snn_delays.optimisation import Optimisation
from snn_delays.runs import RunFolder
from snn_delays.training import train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


def sample():
    torch.manual_seed(0)
    net = DelaySNN(10, [16, 16], 3, max_delay=6, tail_steps=3)
    return net, torch.poisson(torch.full((20, 8, 10), 0.3))


def test_the_spikes_are_those_of_the_cpu():
    net, x = sample()
    rounded = round_delays(net).double().eval()
    expected = rounded.simulate(x.double())
    found = rounded.cuda().simulate(x.double().cuda())
    assert any(spikes.any() for spikes in expected.spikes)
    for a, b in zip(expected.spikes, found.spikes, strict=True):
        assert torch.equal(a, b.cpu())
    torch.testing.assert_close(found.scores.cpu(), expected.scores)


@pytest.mark.parametrize("blocks", [1, 3])
def test_both_forms_of_the_convolution_and_their_gradients(blocks):
    x = torch.randn(40, 3, 5, dtype=torch.float64)
    kernel = torch.randn(9, 4, 5, dtype=torch.float64)
    outcomes = []
    for device, form in (("cpu", direct), ("cuda", direct), ("cuda", by_dft)):
        leaves = [t.to(device).requires_grad_() for t in (x, kernel)]
        y = form(*leaves, 44, *([blocks] if form is by_dft else []))
        gradients = torch.autograd.grad(y.square().sum(), leaves)
        outcomes.append([t.cpu() for t in (y, *gradients)])
    for found in outcomes[1:]:
        torch.testing.assert_close(found, outcomes[0])


def test_spikingjelly_runs_its_own_kernels_over_a_whole_sequence():
    """One kernel, not one a step: as many operations for 10 steps as for 40."""
    node = lif(tau=2.0).cuda()

    def kernels(steps):
        x = torch.rand(steps, 4, 8, device="cuda", requires_grad=True)
        with torch.profiler.profile() as profile:
            node(x).sum().backward()
            torch.cuda.synchronize()
        node.reset()
        events = profile.events()
        return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in events)

    kernels(10)  # compiled at the first call
    assert 0 < kernels(40) == kernels(10)


def test_a_step_of_training_does_not_wait_for_the_gpu():
    recipe = tiny_recipe(hidden=[16, 16])
    net = sample()[0].cuda().train()
    optimisation = Optimisation(net, recipe)
    store = random_store(24)
    data = SpikeDataset(store, range(24), dt_ms=10, steps=20, channel_bin=1).to("cuda")
    moved = {"channel_shift": 2, "channel_jitter": 1.0, "cut_mix_share": 0.5}

    def step():
        x, targets = augmented_batch(data, torch.arange(24), 1, **moved)
        loss = torch.nn.functional.cross_entropy(net(x), targets)
        optimisation.zero_grad()
        loss.backward()
        optimisation.step()
        clamp_delays(net)

    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_same_seed_gives_the_same_run(tmp_path):
    summaries = []
    for name in ("first", "second"):
        train(tiny_recipe(), RunFolder(tmp_path / name), device="cuda")
        history = RunFolder(tmp_path / name).read_metrics()
        summaries.append([(r["train_loss"], r["valid_accuracy"]) for r in history])
    assert summaries[0] == summaries[1]
