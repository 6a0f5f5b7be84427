"""The forms of the convolution against a slow oracle, and the cost model that chooses."""

from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_delays.functional import delayed_linear
from snn_delays.ops import convolution as sc
from snn_delays.ops.fourier import transforms


def rand(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


def form(fast):
    """Takes the compiled transforms, or the matrices that other devices take."""
    return patch.object(sc, "runs_compiled", lambda _: fast)


def oracle(x, kernel, steps):
    """Loops over time and taps."""
    y = torch.zeros(steps, x.shape[1], kernel.shape[1], dtype=x.dtype)
    for t in range(steps):
        for tau in range(min(kernel.shape[0], t + 1)):
            if t - tau < x.shape[0]:
                y[t] += x[t - tau] @ kernel[tau].T
    return y


@settings(deadline=None)
@given(
    inputs=st.integers(1, 20),
    tail=st.integers(0, 12),
    taps=st.integers(1, 15),
    batch=st.integers(1, 3),
    blocks=st.integers(1, 6),
    fast=st.booleans(),
)
def test_every_cut_gives_the_oracle(inputs, tail, taps, batch, blocks, fast):
    x, kernel, steps = rand(inputs, batch, 3), rand(taps, 2, 3, seed=1), inputs + tail
    expected = oracle(x, kernel, steps)
    with form(fast):
        y = sc.by_dft(x, kernel, steps, blocks)
    torch.testing.assert_close(y, expected, atol=1e-11, rtol=1e-9)
    y = sc.direct(x, kernel, steps)
    torch.testing.assert_close(y, expected, atol=1e-11, rtol=1e-9)


@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("tail", [0, 3, 9])
@pytest.mark.parametrize("fast", [True, False])
def test_gradcheck(blocks, tail, fast):
    x, kernel = rand(7, 2, 2).requires_grad_(), rand(4, 3, 2, seed=1).requires_grad_()
    steps = 7 + tail
    with form(fast):
        assert torch.autograd.gradcheck(lambda *a: sc.by_dft(*a, steps, blocks), (x, kernel))


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("largest", [1, 200])
def test_a_kernels_gradient_may_be_computed_some_outputs_at_a_time(monkeypatch, largest, fast):
    x, kernel = rand(10, 2, 3).requires_grad_(), rand(4, 5, 3, seed=1).requires_grad_()
    expected = torch.autograd.grad(sc.direct(x, kernel, 10).square().sum(), (x, kernel))
    monkeypatch.setattr(sc, "_LARGEST_PRODUCTS", largest)
    with form(fast):
        found = torch.autograd.grad(sc.by_dft(x, kernel, 10, 1).square().sum(), (x, kernel))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize(("steps", "taps"), [(124, 25), (300, 300)])
def test_float32_errors_are_those_of_float32(steps, taps, blocks, fast):
    x = (torch.rand(steps, 4, 64, generator=torch.Generator().manual_seed(0)) < 0.2).float()
    kernel = rand(taps, 32, 64, seed=1, dtype=torch.float32) / taps**0.5
    exact = sc.direct(x.double(), kernel.double(), steps)
    with form(fast):
        y = sc.by_dft(x, kernel, steps, blocks).double()
    assert (y - exact).abs().max() / exact.abs().max() < 2e-6


def test_short_floats_are_rounded_only_at_the_end():
    x, kernel = (rand(*s, dtype=torch.float32).bfloat16() for s in ((60, 4, 16), (20, 8, 16)))
    exact = sc.by_dft(x.float(), kernel.float(), 60, 1)
    assert torch.equal(sc.by_dft(x, kernel, 60, 1), exact.bfloat16())


def test_autocast_does_not_reach_the_spectra():
    x, kernel = (rand(*s, dtype=torch.float32).requires_grad_() for s in ((60, 4, 16), (20, 8, 16)))
    exact = sc.by_dft(x, kernel, 60, 1)
    with torch.autocast("cpu"):
        y = sc.by_dft(x, kernel, 60, 1)
        gradients = torch.autograd.grad(y.sum(), (x, kernel))
    assert torch.equal(y, exact)
    expected = torch.autograd.grad(exact.sum(), (x, kernel))
    assert all(map(torch.equal, gradients, expected))


def test_the_default_device_does_not_matter():
    x, kernel = rand(7, 2, 2, dtype=torch.float32), rand(4, 3, 2, dtype=torch.float32)
    transforms.cache_clear()
    with torch.device("meta"):
        y = sc.by_dft(x, kernel, 7, 1)
    torch.testing.assert_close(y, oracle(x, kernel, 7))


def test_only_what_a_gradient_needs_is_kept():
    x, kernel = rand(60, 4, 16), rand(20, 8, 16).requires_grad_()
    saved: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        sc.by_dft(x, kernel, 60, 1)
        (of_x,) = saved
        sc.by_dft(x.requires_grad_(), kernel.detach(), 60, 1)
    assert of_x.shape[1] == 4
    assert saved[1].shape[1] == 8


def test_the_input_needs_no_gradient_and_gets_none():
    x, kernel = rand(6, 1, 2), rand(3, 2, 2).requires_grad_()
    sc.by_dft(x, kernel, 6, 1).sum().backward()
    assert x.grad is None
    assert kernel.grad is not None


def test_the_cost_model_chooses_the_direct_form_for_small_problems_and_cuts_for_long_ones():
    shd = sc.Sizes(124, 25, 124, 256, 256, 256)
    assert sc.best_blocks(sc.Sizes(12, 4, 12, 8, 20, 20)) is None
    assert sc.best_blocks(shd._replace(inputs=2000, steps=2000)) > 1
    assert sc.dft_cost(shd, sc.best_blocks(shd)) < sc.direct_cost(shd) / 4


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("batch", [1, 64])
@pytest.mark.parametrize(("steps", "taps"), [(2000, 25), (124, 25), (20, 30), (1, 1)])
def test_the_cheapest_form_is_chosen(steps, taps, batch, fast):
    sizes = sc.Sizes(steps, taps, steps, batch, 128, 128, fast)
    costs = {blocks: sc.dft_cost(sizes, blocks) for blocks in range(1, 2 + steps // taps)}
    costs[None] = sc.direct_cost(sizes)
    assert min(costs.values()) == costs[sc.best_blocks(sizes)] > 0


def test_compiled_transforms_cost_less_than_matrices():
    shd = sc.Sizes(124, 25, 124, 256, 256, 256)
    assert sc.dft_cost(shd, 1) < sc.dft_cost(shd._replace(fast=False), 1)


def test_the_output_may_be_longer_than_the_input_but_not_shorter():
    x, kernel, bias = rand(4, 1, 2), rand(1, 3, 2), rand(3)
    y = delayed_linear(x, kernel, bias, steps=6)
    torch.testing.assert_close(y[:4], x @ kernel[0].T + bias)
    torch.testing.assert_close(y[4:], bias.expand(2, 1, 3))
    with pytest.raises(ValueError, match="`steps` must be at least the 4 steps of `x`"):
        delayed_linear(x, kernel, steps=3)
