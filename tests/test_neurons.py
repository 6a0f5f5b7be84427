"""Neurons against their equations, step by step."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from snn_delays import neurons
from snn_delays.errors import SnnDelaysError
from snn_delays.networks import DelaySNN


def oracle(x, tau, v_threshold, v_reset, decay_input):
    """The LIF equations of the format page, one step at a time."""
    rest = 0.0 if v_reset is None else v_reset
    v = torch.full_like(x[0], rest)
    spikes = []
    for current in x:
        h = v + (current - (v - rest)) / tau if decay_input else v - (v - rest) / tau + current
        s = (h >= v_threshold).to(x.dtype)
        v = h - v_threshold * s if v_reset is None else torch.where(s > 0, rest, h)
        spikes.append(s)
    return torch.stack(spikes)


@given(
    tau=st.floats(1.001, 50),
    v_reset=st.sampled_from([None, 0.0, -0.3]),
    decay_input=st.booleans(),
    learn_tau=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_lif_follows_its_equation(tau, v_reset, decay_input, learn_tau, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(25, 2, 3, dtype=torch.float64, generator=generator) + 0.4
    node = neurons.lif(
        tau=tau, v_reset=v_reset, decay_input=decay_input, learn_tau=learn_tau
    ).double()
    settings = neurons.lif_settings(node)
    assert settings["tau"] == pytest.approx(tau, rel=1e-5)
    assert settings["v_reset"] == v_reset
    assert settings["decay_input"] == decay_input
    expected = oracle(x, settings["tau"], 1.0, v_reset, decay_input)
    assert torch.equal(node(x), expected)


def test_gradients_pass_through_spikes_and_a_learnable_tau():
    node = neurons.lif(tau=2.0, learn_tau=True)
    x = torch.full((5, 1, 2), 0.7, requires_grad=True)
    node(x).sum().backward()
    assert x.grad.abs().sum() > 0
    assert node.w.grad.abs() > 0


def test_reset_forgets_the_past():
    node = neurons.lif(tau=5.0)
    x = torch.full((3, 1, 1), 0.3)
    first = node(x)
    assert not torch.equal(node(x), first)  # charge carried over reaches the threshold
    neurons.reset(node)
    assert torch.equal(node(x), first)


@given(
    tau=st.floats(1.001, 100),
    decay_input=st.booleans(),
    steps=st.integers(1, 40),
)
def test_leaky_integrator_follows_its_equation(tau, decay_input, steps):
    x = torch.randn(steps, 2, 3, dtype=torch.float64)
    v, expected = torch.zeros(2, 3, dtype=torch.float64), []
    for current in x:
        v = v + (current - v) / tau if decay_input else v - v / tau + current
        expected.append(v)
    actual = neurons.LeakyIntegrator(tau, decay_input)(x)
    torch.testing.assert_close(actual, torch.stack(expected), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("name", neurons.SURROGATES)
def test_every_surrogate_gives_spikes_and_finite_gradients(name):
    node = neurons.lif(tau=2.0, surrogate_name=name, surrogate_alpha=2.0)
    x = torch.linspace(-1, 2, 12).view(12, 1, 1).requires_grad_()
    spikes = node(x)
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    spikes.sum().backward()
    assert x.grad.isfinite().all()
    assert x.grad.abs().sum() > 0


def test_bad_settings_are_refused():
    with pytest.raises(SnnDelaysError, match="`tau` must be a number of steps above 1; got 1"):
        neurons.lif(tau=1.0)
    with pytest.raises(SnnDelaysError, match="`tau`"):
        neurons.LeakyIntegrator(0.5)
    with pytest.raises(SnnDelaysError, match="`surrogate` must be one of atan"):
        neurons.surrogate("step", 1.0)


def test_the_integrator_keeps_one_response_and_none_of_a_stand_in():
    integrator = neurons.LeakyIntegrator(3.0)
    with FakeTensorMode():
        integrator(torch.zeros(4, 2, 1))
    x = torch.ones(4, 2, 1, requires_grad=True)
    with torch.inference_mode():
        expected = integrator(x.detach())
    assert torch.equal(integrator(x), expected)  # and may be trained with
    assert integrator(torch.ones(6, 2, 1)).shape == (6, 2, 1)
    assert integrator(x.double()).dtype == torch.float64


@pytest.mark.parametrize("value", ["", "no-such-compiler", "gcc -pthread"])
def test_a_compiler_that_cannot_be_started_is_none(monkeypatch, value):
    """Triton starts the program that `CC` names, and no other."""
    monkeypatch.setenv("CC", sys.executable)
    headers = neurons.kernels_can_be_compiled()
    monkeypatch.setenv("CC", value)
    assert not neurons.kernels_can_be_compiled()
    monkeypatch.delenv("CC")
    monkeypatch.setattr("shutil.which", {"clang": "/usr/bin/clang"}.get)
    assert neurons.kernels_can_be_compiled() == headers


@pytest.mark.parametrize("compiler", ["", sys.executable])
def test_without_a_c_compiler_spikingjelly_needs_none_on_a_gpu(tmp_path, compiler):
    """Triton would look for one at the first kernel, long after the network was made."""
    code = (
        "import contextlib, torch\n"
        "from snn_delays import neurons\n"
        "from spikingjelly._ops import lif, plif\n"
        "torch.cuda.get_device_capability = lambda index: (9, 0)\n"
        "torch.cuda.get_device_name = str\n"
        "torch.cuda.device = contextlib.nullcontext\n"
        "print(neurons.kernels_can_be_compiled(), lif._selection._select(0).name, "
        "plif._selection._select(0).name, lif._selection._requested)"
    )
    known = {k: v for k, v in os.environ.items() if k != "CC" and not k.startswith("SJ_")}
    environment = {**known, "PATH": str(tmp_path), "CC": compiler}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    found = done.stdout.split()
    assert found[1:] == ["triton" if found[0] == "True" else "torch"] * 2 + ["auto"]
    assert found[0] == "False" or compiler


def test_an_integrator_serves_clips_of_two_lengths_in_two_threads():
    integrator, errors, before = neurons.LeakyIntegrator(3.0), [], sys.getswitchinterval()

    def integrate(steps):
        x = torch.ones(steps, 1, 1)
        try:
            for _ in range(3000):
                assert integrator(x).shape == x.shape
        except RuntimeError as error:
            errors.append(error)

    threads = [Thread(target=integrate, args=(steps,)) for steps in (3, 5)]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert not errors


@pytest.mark.parametrize("words", [{"learn_tau": True}, {"surrogate": "sigmoid"}, {}], ids=str)
def test_threads_that_share_a_network_do_not_share_potentials(words):
    torch.manual_seed(0)
    net = DelaySNN(5, [32], 3, max_delay=3, tau=20.0, **words).eval()
    clips = [torch.poisson(torch.full((20, 8, 5), rate)) for rate in (0.5, 3.0)]
    with torch.no_grad():
        expected = [net(x) for x in clips]
        waits = iter((0.05, 0.2))  # the first runs between the second's reset and its run,
        net.blocks[0].neuron.register_forward_pre_hook(lambda *_: time.sleep(next(waits)))
        net.readout.register_forward_pre_hook(lambda *_: time.sleep(0.4))  # and ends later
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(torch.no_grad()(net), clips))
    assert all(map(torch.equal, found, expected))


def test_to_reset_waits_until_neurons_have_run():
    neuron, held, go = neurons.lif(tau=2.0), Event(), Event()

    def run():
        with neurons.alone():
            held.set()
            go.wait(20)

    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(run)
        held.wait(20)
        reset = pool.submit(neurons.reset, neuron)
        time.sleep(0.1)
        early = reset.done()
        go.set()
        reset.result(20)
        running.result(20)
    assert not early


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # that threads may hold locks
def test_a_forked_process_waits_for_no_thread_of_its_parent():
    held, go = Event(), Event()

    def run():
        with neurons.alone():
            held.set()
            go.wait(20)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(run)
        held.wait(20)
        child = os.fork()
        if child == 0:
            os._exit(not neurons.alone().acquire(timeout=5))
        _, status = os.waitpid(child, 0)
        go.set()
    assert os.waitstatus_to_exitcode(status) == 0
