"""Fast matrix products are exact to float32, and leave torch's precision as they found it."""

import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from threading import Barrier, Thread

import pytest
import torch

from snn_delays.ops.gemm import (
    _shortened_is_float32,
    fast_matmul,
    gpu_precision,
    matmul,
    unmixed_matmul,
)

SETTINGS = torch.backends.mkldnn.matmul


@pytest.fixture
def precision():
    """Lets a test change torch's precision."""
    yield
    torch.backends.fp32_precision = torch.backends.mkldnn.fp32_precision = "none"
    SETTINGS.fp32_precision = "none"


def test_precision_is_restored_even_after_an_error():
    before = torch.get_float32_matmul_precision()
    with pytest.raises(KeyError), fast_matmul(torch.zeros(1)):
        raise KeyError
    assert torch.get_float32_matmul_precision() == before
    assert SETTINGS.fp32_precision == "none"


@pytest.mark.parametrize("user", ["ieee", "bf16", "tf32"])
def test_the_precision_a_user_set_stays(precision, user):
    SETTINGS.fp32_precision = user
    matmul(torch.ones(2, 3, 4), torch.ones(4, 5))
    assert SETTINGS.fp32_precision == user


def test_an_inherited_precision_is_still_inherited_afterwards(precision):
    torch.backends.fp32_precision = "tf32"
    matmul(torch.ones(2, 3, 4), torch.ones(4, 5))
    assert SETTINGS.fp32_precision == "tf32"
    torch.backends.fp32_precision = "ieee"
    assert SETTINGS.fp32_precision == "ieee"


def test_threads_share_the_setting_and_the_last_restores_it():
    entered, left = Barrier(2), Barrier(2)
    seen = []

    def first():
        with fast_matmul(torch.zeros(1)):
            entered.wait()
            left.wait()
        seen.append(SETTINGS.fp32_precision)

    thread = Thread(target=first)
    thread.start()
    entered.wait()
    inside = SETTINGS.fp32_precision
    with fast_matmul(torch.zeros(1)):
        pass
    assert inside == SETTINGS.fp32_precision  # the other thread is not done
    left.wait()
    thread.join()
    assert seen == ["none"]


def test_a_precision_that_is_set_meanwhile_stays(precision):
    with fast_matmul(torch.zeros(1)):
        SETTINGS.fp32_precision = "ieee"
    assert SETTINGS.fp32_precision == "ieee"


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork")
def test_a_process_forked_meanwhile_has_the_precision_of_before():
    with fast_matmul(torch.zeros(1)), ProcessPoolExecutor(1, get_context("fork")) as pool:
        assert pool.submit(precision_now).result(timeout=60) == "none"


def precision_now():
    with fast_matmul(torch.zeros(1)):
        pass
    return SETTINGS.fp32_precision


def test_the_default_device_does_not_matter():
    _shortened_is_float32.cache_clear()
    with torch.device("meta"):
        assert (
            matmul(torch.ones(2, 3, 4, device="cpu"), torch.ones(4, 5, device="cpu")).sum() == 120
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_keep_the_accuracy_of_their_dtype(dtype):
    a, b = torch.randn(3, 50, 200, dtype=dtype), torch.randn(200, 40, dtype=dtype)
    exact = a.double() @ b.double()
    error = (matmul(a, b).double() - exact).abs().max() / exact.abs().max()
    assert error < {torch.float32: 3e-6, torch.float64: 1e-14}[dtype]


def test_autocast_shortens_products_where_it_is_asked_to_and_not_inside():
    a, b = torch.randn(3, 50, 200), torch.randn(200, 40)
    matmul_outside = matmul(a, b)
    with torch.autocast("cpu"):
        assert matmul(a, b).dtype == torch.bfloat16
        assert torch.equal(unmixed_matmul(a, b), matmul_outside)
        with fast_matmul(a):
            assert (a @ b).dtype == torch.float32


def test_gradients():
    a = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    b = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(matmul, (a, b))


def test_what_a_gpu_inherits_is_still_inherited_afterwards(precision):
    products = torch.backends.cuda.matmul
    torch.backends.fp32_precision = "tf32"
    with gpu_precision(torch.device("cuda")):
        assert products.fp32_precision == "ieee"
    assert products.fp32_precision == "tf32"
    torch.backends.fp32_precision = "ieee"
    assert products.fp32_precision == "ieee"


@pytest.mark.parametrize(("tf32", "inside"), [(False, "ieee"), (True, "tf32")])
def test_a_gpu_shortens_float32_only_where_it_is_asked_to(tf32, inside):
    settings = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = [s.fp32_precision for s in settings]
    assert before[1] == "tf32"  # what torch does by itself
    with gpu_precision(torch.device("cuda"), tf32):
        assert [s.fp32_precision for s in settings] == [inside] * 2
    assert [s.fp32_precision for s in settings] == before
    with gpu_precision(torch.device("cpu"), tf32):
        assert [s.fp32_precision for s in settings] == before
    assert [s.fp32_precision for s in settings] == before
