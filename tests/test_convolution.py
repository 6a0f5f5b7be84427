"""The forms of the convolution against a slow oracle, and the cost model that chooses."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_delays import convolution as sc
from snn_delays.functional import delayed_linear


def rand(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


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
    inner=st.sampled_from([1, 2, 4, 16]),
)
def test_every_cut_gives_the_oracle(inputs, tail, taps, batch, blocks, inner):
    x, kernel, steps = rand(inputs, batch, 3), rand(taps, 2, 3, seed=1), inputs + tail
    expected = oracle(x, kernel, steps)
    y = sc.by_dft(x, kernel, steps, sc.Cut(blocks, inner))
    torch.testing.assert_close(y, expected, atol=1e-11, rtol=1e-9)
    y = sc.direct(x, kernel, steps)
    torch.testing.assert_close(y, expected, atol=1e-11, rtol=1e-9)


@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("tail", [0, 3])
@pytest.mark.parametrize("inner", [1, 4])
def test_gradcheck(blocks, tail, inner):
    x, kernel = rand(7, 2, 2).requires_grad_(), rand(4, 3, 2, seed=1).requires_grad_()
    steps = 7 + tail
    cut = sc.Cut(blocks, inner)
    assert torch.autograd.gradcheck(lambda *a: sc.by_dft(*a, steps, cut), (x, kernel))


@pytest.mark.parametrize("cut", [sc.Cut(1, 1), sc.Cut(2, 1), sc.Cut(1, 4), sc.Cut(2, 16)])
@pytest.mark.parametrize(("steps", "taps"), [(124, 25), (300, 300)])
def test_float32_errors_are_those_of_float32(steps, taps, cut):
    x = (torch.rand(steps, 4, 64, generator=torch.Generator().manual_seed(0)) < 0.2).float()
    kernel = rand(taps, 32, 64, seed=1, dtype=torch.float32) / taps**0.5
    exact = sc.direct(x.double(), kernel.double(), steps)
    y = sc.by_dft(x, kernel, steps, cut).double()
    assert (y - exact).abs().max() / exact.abs().max() < 2e-6


def test_the_input_needs_no_gradient_and_gets_none():
    x, kernel = rand(6, 1, 2), rand(3, 2, 2).requires_grad_()
    sc.by_dft(x, kernel, 6, sc.Cut(1, 1)).sum().backward()
    assert x.grad is None
    assert kernel.grad is not None


def test_the_cost_model_chooses_the_direct_form_for_small_problems_and_cuts_for_long_ones():
    shd = sc.Sizes(124, 25, 124, 256, 256, 256)
    assert sc.best_cut(shd._replace(inputs=10, steps=10, taps=2, batch=2)) is None
    assert sc.best_cut(shd._replace(inputs=2000, steps=2000)).blocks > 8
    assert sc.best_cut(shd._replace(inputs=512, steps=512, taps=513)).inner > 4
    assert sc.dft_cost(shd, sc.best_cut(shd)) < sc.direct_cost(shd) / 4


def test_the_output_may_be_longer_than_the_input_but_not_shorter():
    x, kernel, bias = rand(4, 1, 2), rand(1, 3, 2), rand(3)
    y = delayed_linear(x, kernel, bias, steps=6)
    torch.testing.assert_close(y[:4], x @ kernel[0].T + bias)
    torch.testing.assert_close(y[4:], bias.expand(2, 1, 3))
    with pytest.raises(ValueError, match="`steps` must be at least the 4 steps of `x`"):
        delayed_linear(x, kernel, steps=3)
