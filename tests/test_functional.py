"""Delay kernels and delayed convolution against slow oracles, the peer, and their properties."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_delays import functional as sf
from snn_delays.errors import ShapeError, SnnDelaysError


def rand(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def synapses(out=3, inp=2, k=2, max_delay=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out, inp, k, generator=generator, dtype=torch.float64)
    delay = torch.rand(out, inp, k, generator=generator, dtype=torch.float64) * max_delay
    return weight, delay


def oracle_kernel(weight, delay, sigma, max_delay):
    """Triple loop over synapses, straight from the equation."""
    out, inp, count = weight.shape
    kernel = torch.zeros(max_delay + 1, out, inp, dtype=torch.float64)
    for o in range(out):
        for i in range(inp):
            for k in range(count):
                d = float(delay[o, i, k])
                bump = [math.exp(-((t - d) ** 2) / (2 * sigma**2)) for t in range(max_delay + 1)]
                for t in range(max_delay + 1):
                    kernel[t, o, i] += float(weight[o, i, k]) * bump[t] / sum(bump)
    return kernel


def oracle_convolution(x, kernel, bias=None):
    """Triple loop over time, taps and inputs."""
    steps, batch, inp = x.shape
    y = torch.zeros(steps, batch, kernel.shape[1], dtype=x.dtype)
    for t in range(steps):
        for tau in range(min(kernel.shape[0], t + 1)):
            for i in range(inp):
                y[t] += x[t - tau, :, i, None] * kernel[tau, :, i]
    return y if bias is None else y + bias


@pytest.fixture(params=[True, False], ids=["compiled", "tensors"])
def form(request, monkeypatch):
    """By the compiled loops of the CPU, and by the operations of other devices."""
    monkeypatch.setattr(sf, "runs_compiled", lambda _: request.param)


@pytest.mark.parametrize("sigma", [1e-3, 0.5, 12.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_the_kernel_and_its_gradients_only(dtype, sigma):
    torch.manual_seed(1)
    weight, delay = torch.randn(3, 2, 1, dtype=dtype), torch.full((3, 2, 1), 4.0, dtype=dtype)
    outcomes = []
    for own in (dtype, torch.float32):
        width = torch.tensor(sigma).to(dtype)
        leaves = [part.to(own).requires_grad_() for part in (weight, delay, width)]
        kernel = sf.delay_kernel(*leaves, 24)
        gradients = torch.autograd.grad(kernel.square().sum(), leaves)
        assert {part.dtype for part in (kernel, *gradients)} == {own}
        outcomes.append([part.float() for part in (kernel, *gradients)])
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(*outcomes, rtol=8 * step, atol=8 * step)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("sigma", [0.3, 1.0, 7.0])
@pytest.mark.parametrize("k", [1, 3])
def test_kernel_equals_oracle(sigma, k):
    weight, delay = synapses(k=k)
    kernel = sf.delay_kernel(weight, delay, torch.tensor(sigma, dtype=torch.float64), 6)
    torch.testing.assert_close(kernel, oracle_kernel(weight, delay, sigma, 6))


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("sigma_shape", [(), (1, 2, 1), (3, 2, 2)])
def test_kernel_gradcheck(sigma_shape):
    weight, delay = synapses()
    sigma = 0.5 + torch.rand(sigma_shape, dtype=torch.float64)
    arguments = [a.requires_grad_() for a in (weight, delay, sigma)]
    assert torch.autograd.gradcheck(lambda *a: sf.delay_kernel(*a, 6), arguments)


@pytest.mark.parametrize("fast", [True, False], ids=["compiled", "tensors"])
@pytest.mark.parametrize("sigma", [1e-3, 0.5, 12.0, 1e6])
@pytest.mark.parametrize(("inputs", "max_delay"), [(300, 24), (1, 0), (129, 300)])
def test_kernels_are_exact_to_float32(monkeypatch, inputs, max_delay, sigma, fast):
    """Of more than a tile of synapses, two contacts each, against float64."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, inputs, 2, generator=generator)
    delay = torch.rand(3, inputs, 2, generator=generator) * max_delay
    probe = torch.randn(max_delay + 1, 3, inputs, generator=generator)
    outcomes = []
    for dtype in (torch.float64, torch.float32):
        compiled = fast and dtype == torch.float32
        monkeypatch.setattr(sf, "runs_compiled", lambda _, compiled=compiled: compiled)
        leaves = [weight.to(dtype), delay.to(dtype), torch.tensor(sigma, dtype=dtype)]
        leaves = [leaf.requires_grad_() for leaf in leaves]
        kernel = sf.delay_kernel(*leaves, max_delay)
        gradients = torch.autograd.grad((kernel * probe.to(dtype)).sum(), leaves)
        outcomes.append([kernel, *gradients])
    for exact, found in zip(*outcomes, strict=True):
        assert found.dtype == torch.float32
        scale = float(exact.detach().abs().max())
        torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-5 * scale + 1e-12)


@pytest.mark.usefixtures("form")
def test_a_bump_of_one_tap_alone_gives_no_slope():
    """Not even the smallest, which would be multiplied with 1 / sigma^3."""
    weight, delay = synapses()
    leaves = [weight, delay.round(), torch.tensor(1e-9, dtype=torch.float64)]
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    kernel = sf.delay_kernel(*leaves, 6)
    _, of_delay, of_sigma = torch.autograd.grad(kernel.square().sum(), leaves)
    assert not of_delay.any()
    assert of_sigma == 0


def test_delays_that_synapses_share_are_read_and_summed():
    """Axonal delays are one row, seen by every output."""
    weight, _ = synapses()
    shared = torch.tensor([[[0.4, 3.2], [1.7, 5.9]]], dtype=torch.float64, requires_grad=True)
    sigma = torch.tensor(0.8, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda d: sf.delay_kernel(weight, d.expand_as(weight), sigma, 6), shared
    )


@pytest.mark.parametrize("threads", [2, 5])
def test_kernels_do_not_depend_on_the_number_of_threads(threads):
    weight, delay = synapses(out=4, inp=140)
    sigma, before = torch.tensor(0.8, dtype=torch.float64), torch.get_num_threads()
    outcomes = []
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            leaves = [weight.clone().requires_grad_(), delay.clone().requires_grad_()]
            kernel = sf.delay_kernel(*leaves, sigma, 6)
            outcomes.append([kernel, *torch.autograd.grad(kernel.square().sum(), leaves)])
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *outcomes))


def test_kernel_keeps_only_its_arguments_for_backward():
    saved = []
    weight, delay = synapses()
    sigma = torch.tensor(1.0, dtype=torch.float64)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, id):
        sf.delay_kernel(weight.requires_grad_(), delay.requires_grad_(), sigma, 6)
    assert sorted(saved) == [1, 12, 12]


@given(
    max_delay=st.integers(0, 40),
    sigma=st.floats(1e-3, 200),
    fraction=st.floats(0, 1),
    weight=st.floats(-5, 5),
)
def test_kernel_sums_to_its_weight(max_delay, sigma, fraction, weight):
    delay = torch.full((1, 1, 1), fraction * max_delay, dtype=torch.float64)
    w = torch.full((1, 1, 1), weight, dtype=torch.float64)
    kernel = sf.delay_kernel(w, delay, torch.tensor(sigma, dtype=torch.float64), max_delay)
    assert kernel.isfinite().all()
    assert kernel.sum().item() == pytest.approx(weight, abs=1e-9)


@given(delay=st.integers(0, 12), sigma=st.floats(1e-3, 0.1))
def test_narrow_kernel_is_one_hot(delay, sigma):
    w, d = torch.ones(1, 1, 1).double(), torch.full((1, 1, 1), float(delay)).double()
    kernel = sf.delay_kernel(w, d, torch.tensor(sigma).double(), 12)
    torch.testing.assert_close(kernel, sf.one_hot_kernel(w, d, 12), atol=1e-12, rtol=0)
    assert kernel[:, 0, 0].argmax() == delay


def test_one_hot_kernel_adds_contacts_at_the_same_delay_and_passes_gradients():
    weight = torch.tensor([[[1.0, 2.0]]], requires_grad=True)
    kernel = sf.one_hot_kernel(weight, torch.tensor([[[3.0, 3.0]]]), 4)
    assert kernel[:, 0, 0].tolist() == [0, 0, 0, 3, 0]
    kernel[3].sum().backward()
    assert weight.grad.tolist() == [[[1.0, 1.0]]]


def test_round_delay_stays_in_range():
    delay = torch.tensor([-0.2, 0.4, 1.5, 2.5, 4.4, 9.0])
    assert sf.round_delay(delay, 4).tolist() == [0, 0, 2, 2, 4, 4]


@pytest.mark.parametrize("method", ["direct", "dft"])
@pytest.mark.parametrize(("steps", "taps"), [(1, 1), (1, 5), (7, 3), (8, 8), (5, 12), (20, 6)])
def test_convolution_equals_oracle(method, steps, taps):
    x, kernel, bias = rand(steps, 2, 3), rand(taps, 4, 3, seed=1), rand(4, seed=2)
    y = sf.delayed_linear(x, kernel, bias, method=method)
    torch.testing.assert_close(y, oracle_convolution(x, kernel, bias), atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("method", ["direct", "dft"])
def test_convolution_gradcheck(method):
    x, kernel = rand(6, 2, 3).requires_grad_(), rand(4, 2, 3, seed=1).requires_grad_()
    bias = rand(2, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *a: sf.delayed_linear(*a, method=method), (x, kernel, bias)
    )


@settings(deadline=None)
@given(
    steps=st.integers(1, 30),
    batch=st.integers(1, 4),
    channels=st.integers(1, 4),
    taps=st.integers(1, 35),
    method=st.sampled_from(["direct", "dft"]),
    seed=st.integers(0, 99),
)
def test_convolution_is_causal_and_shift_equivariant(steps, batch, channels, taps, method, seed):
    x, kernel = rand(steps, batch, channels, seed=seed), rand(taps, 2, channels, seed=seed + 1)
    y = sf.delayed_linear(x, kernel, method=method)
    assert y.shape == (steps, batch, 2)
    cut = steps // 2
    future = x.clone()
    future[cut:] = 7.0
    torch.testing.assert_close(
        sf.delayed_linear(future, kernel, method=method)[:cut], y[:cut], atol=1e-9, rtol=0
    )
    shifted = torch.cat([torch.zeros(3, batch, channels).double(), x])
    torch.testing.assert_close(
        sf.delayed_linear(shifted, kernel, method=method)[3:], y, atol=1e-9, rtol=0
    )


@settings(deadline=None)
@given(
    max_delay=st.integers(0, 20),
    delay=st.integers(0, 20),
    start=st.integers(0, 10),
    method=st.sampled_from(["auto", "direct", "dft"]),
)
def test_an_impulse_arrives_exactly_at_its_delay(max_delay, delay, start, method):
    delay = min(delay, max_delay)
    kernel = sf.one_hot_kernel(
        torch.full((1, 1, 1), 2.0), torch.full((1, 1, 1), float(delay)), max_delay
    )
    x = torch.zeros(31, 1, 1)
    x[start] = 1.0
    expected = torch.zeros(31, 1, 1)
    expected[start + delay] = 2.0
    torch.testing.assert_close(
        sf.delayed_linear(x, kernel, method=method), expected, atol=2e-6, rtol=0
    )


def test_methods_agree_in_float32_at_a_real_size():
    x = (torch.rand(124, 8, 140, generator=torch.Generator().manual_seed(0)) < 0.1).float()
    kernel = rand(25, 64, 140, scale=0.1).float()
    dft, direct = (sf.delayed_linear(x, kernel, method=m) for m in ("dft", "direct"))
    torch.testing.assert_close(dft, direct, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kernel_count", [1, 2])
@pytest.mark.parametrize("sigma", [0.5, 3.0])
def test_agrees_with_the_dcls_package(kernel_count, sigma):
    """Theirs: centred, mirrored positions and sigma = |SIG| + 0.27 (facts in `delay_kernel`)."""
    dcls = pytest.importorskip("DCLS.construct.modules", reason="needs the `test` extra (dcls)")
    out, inp, max_delay = 5, 4, 8
    taps = max_delay + 1
    weight, delay = synapses(out, inp, kernel_count, max_delay)
    weight.requires_grad_()
    delay.requires_grad_()
    peer = dcls.Dcls1d(
        inp, out, kernel_count, dilated_kernel_size=taps, bias=False, version="gauss"
    ).double()
    with torch.no_grad():
        peer.weight.copy_(weight)
        peer.P.copy_((max_delay / 2 - delay)[None])
        peer.SIG.fill_(sigma - 0.27)
    x = rand(12, 3, inp, seed=5)
    theirs = peer(torch.nn.functional.pad(x.permute(1, 2, 0), (max_delay, 0))).permute(2, 0, 1)
    sigma_tensor = torch.tensor(sigma, dtype=torch.float64, requires_grad=True)
    ours = sf.delayed_linear(x, sf.delay_kernel(weight, delay, sigma_tensor, max_delay))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    probe = rand(*ours.shape, seed=9)
    (ours * probe).sum().backward()
    (theirs * probe).sum().backward()
    torch.testing.assert_close(weight.grad, peer.weight.grad, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(delay.grad, -peer.P.grad[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sigma_tensor.grad, peer.SIG.grad.sum(), atol=1e-5, rtol=1e-5)


def test_wrong_arguments_are_refused_with_their_names():
    weight, delay = synapses()
    with pytest.raises(ShapeError, match=r"`delay` must be shaped like `weight` \[3, 2, 2\]"):
        sf.delay_kernel(weight, delay[..., 0], torch.tensor(1.0), 6)
    with pytest.raises(ShapeError, match="`weight` must be"):
        sf.one_hot_kernel(weight[0], delay[0], 6)
    with pytest.raises(ShapeError, match=r"`x` must be \[T, N, C_in=2\]; got \[5, 2\]"):
        sf.delayed_linear(rand(5, 2), rand(3, 4, 2))
    with pytest.raises(SnnDelaysError, match="`method` must be one of"):
        sf.delayed_linear(rand(5, 1, 2), rand(3, 4, 2), method="fft")


@pytest.mark.parametrize(
    ("dtype", "longest"), [(torch.bfloat16, 256), (torch.float16, 2048)], ids=["bf16", "f16"]
)
def test_half_precision_takes_the_delays_that_it_can_tell_apart(dtype, longest):
    weight, delay = torch.ones(1, 1, 1, dtype=dtype), torch.full((1, 1, 1), longest, dtype=dtype)
    assert sf.one_hot_kernel(weight, delay, longest)[longest].item() == 1
    for kernel in (sf.one_hot_kernel, lambda *_: sf.delay_kernel(_[0], _[1], weight, _[2])):
        with pytest.raises(SnnDelaysError, match=f"`max_delay` must be at most {longest}, the"):
            kernel(weight, delay, longest + 1)
