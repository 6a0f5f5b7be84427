"""On a GPU: the same spikes and gradients as on the CPU, no waiting, and the same run again."""

import subprocess
import sys

import pytest
import torch
from test_system_devices_fake import AUGMENT
from test_training_loop import StopAfter
from tiny import FLAGS, tiny_recipe

from snn_delays import data
from snn_delays.networks import DelaySNN
from snn_delays.neurons import kernels_can_be_compiled, lif
from snn_delays.nn import round_delays
from snn_delays.ops.convolution import by_dft, direct
from snn_delays.runs import RunFolder
from snn_delays.training import epoch as one_epoch
from snn_delays.training import loop as training
from snn_delays.training.finite import FiniteCheck

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


def test_the_batches_are_those_of_the_cpu():
    clips, indices = data.load("synthetic", "valid"), torch.tensor([3, 0, 3, 17])
    for a, b in zip(clips.batch(indices), clips.to("cuda").batch(indices), strict=True):
        assert torch.equal(a, b.cpu())


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


@pytest.mark.parametrize("words", [{}, {"v_reset": None, "tau": 2.0}, {"learn_tau": True}], ids=str)
def test_the_kernels_that_train_spike_as_the_cpu_does(words):
    """In float32: float64, as above, SpikingJelly runs step by step."""
    torch.manual_seed(0)
    x = torch.randn(40, 8, 16)
    found = []
    for device in ("cpu", "cuda"):
        node = lif(**{"tau": 1.05, **words}).to(device)
        leaf = x.to(device, copy=True).requires_grad_()
        spikes = node(leaf)
        gradients = torch.autograd.grad(spikes.sum(), [leaf, *node.parameters()])
        found.append((spikes.cpu(), [g.cpu() for g in gradients]))
    (expected, expected_gradients), (spikes, gradients) = found
    assert torch.equal(spikes, expected)
    assert expected.any()
    torch.testing.assert_close(gradients, expected_gradients)


@pytest.mark.skipif(not kernels_can_be_compiled(), reason="no C compiler for Triton here")
def test_spikingjelly_runs_its_own_kernels_over_a_whole_sequence():
    """One kernel, not one a step: as many operations for 10 steps as for 40."""
    node = lif(tau=2.0).cuda()

    def kernels(steps):
        x = torch.rand(steps, 4, 8, device="cuda", requires_grad=True)
        torch.cuda.synchronize()
        with torch.profiler.profile() as profile:
            node(x).sum().backward()
            torch.cuda.synchronize()
        node.reset()
        events = profile.events()
        return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in events)

    kernels(10)  # compiled at the first call
    assert 0 < kernels(40) == kernels(10)


@pytest.mark.parametrize("changes", [{}, {"amp": True}, {"clip_norm": 1.0}], ids=str)
def test_an_epoch_does_not_wait_for_the_gpu(tmp_path, monkeypatch, changes):
    """Not from the second batch (the first compiles) until the epoch's end asks if all was well."""
    batches, asked = [], []
    make, ask = one_epoch.training_batch, FiniteCheck.ask

    def batch(*words):
        if batches:
            torch.cuda.set_sync_debug_mode("error")
        batches.append(1)
        return make(*words)

    def at_the_end(check):
        torch.cuda.set_sync_debug_mode("default")
        asked.append(len(batches))
        ask(check)

    monkeypatch.setattr(one_epoch, "training_batch", batch)
    monkeypatch.setattr(FiniteCheck, "ask", at_the_end)
    augment = {**AUGMENT, "noise": 2.0}
    recipe = tiny_recipe(hidden=[16, 16], epochs=1, augment=augment, **changes)
    try:
        training.train(recipe, RunFolder(tmp_path / "run"), device="cuda")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert asked[0] == len(batches) > 2


def test_the_same_seed_gives_the_same_run_on_request(tmp_path):
    """In processes of their own: cuBLAS reads its settings once."""
    histories = []
    for name in ("first", "second"):
        words = ["train", *FLAGS, "--device", "cuda", "--deterministic", "--quiet"]
        command = [sys.executable, "-m", "snn_delays", *words, "--out", str(tmp_path / name)]
        subprocess.run(command, check=True)
        history = RunFolder(tmp_path / name).read_metrics()
        histories.append([(r["train_loss"], r["valid_accuracy"]) for r in history])
    assert histories[0] == histories[1]


def test_a_stopped_run_goes_on_with_the_random_numbers_of_the_gpu(tmp_path):
    """Nearly the same loss: sums may come in another order."""
    recipe = tiny_recipe(dropout=0.5, batch_size=64)
    whole, stopped = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "stopped")
    training.train(recipe, whole, device="cuda")
    with pytest.raises(KeyboardInterrupt):
        training.train(recipe, stopped, device="cuda", reporter=StopAfter(1, 3))
    training.train(recipe, stopped, device="cuda", resume=True)
    first, second = (folder.read_metrics() for folder in (whole, stopped))
    assert len(second) == 2
    assert second[0]["train_loss"] == pytest.approx(first[0]["train_loss"], rel=2e-3)
