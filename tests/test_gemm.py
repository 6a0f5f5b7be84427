"""Fast matrix products are exact to float32, and leave torch's precision as they found it."""

import pytest
import torch

from snn_delays.gemm import fast_matmul, matmul


def test_precision_is_restored_even_after_an_error():
    before = torch.get_float32_matmul_precision()
    with pytest.raises(KeyError), fast_matmul(torch.zeros(1)):
        raise KeyError
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_keep_the_accuracy_of_their_dtype(dtype):
    a, b = torch.randn(3, 50, 200, dtype=dtype), torch.randn(200, 40, dtype=dtype)
    exact = a.double() @ b.double()
    error = (matmul(a, b).double() - exact).abs().max() / exact.abs().max()
    assert error < {torch.float32: 3e-6, torch.float64: 1e-14}[dtype]


def test_gradients():
    a = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    b = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(matmul, (a, b))
