"""The elementwise functions of the kernels, where plain formulas lose digits or overflow."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import triton
import triton.language as tl
from codegen_triton.support import DEVICE
from scanc_runtime import triton_math as tlmath


@triton.jit
def one(x_ptr, y_ptr, function: tl.constexpr, block: tl.constexpr):
    at = tl.arange(0, block)
    x = tl.load(x_ptr + at)
    if function == "expm1":
        y = tlmath.expm1(x)
    if function == "log1p":
        y = tlmath.log1p(x)
    if function == "phi1":
        y = tlmath.phi1(x)
    if function == "dphi1":
        y = tlmath.dphi1(x)
    if function == "sigmoid":
        y = tlmath.sigmoid(x)
    if function == "logsigmoid":
        y = tlmath.logsigmoid(x)
    if function == "softplus":
        y = tlmath.softplus(x)
    if function == "gelu":
        y = tlmath.gelu(x)
    if function == "tanh":
        y = tlmath.tanh(x)
    tl.store(y_ptr + at, y)


def _dphi1(x: torch.Tensor) -> torch.Tensor:
    near = sum((n + 1) * x**n / float(torch.exp(torch.lgamma(torch.tensor(n + 3.0).double()))) for n in range(18))
    return torch.where(x.abs() < 0.5, near, (x.exp() - torch.expm1(x) / x) / x)


SMALL = [1e-8, -1e-8, 1e-3, -1e-3, 0.3, -0.49, 0.51, 0.9]
CASES: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], list[float]]] = {
    "expm1": (torch.expm1, [*SMALL, -40.0]),
    "log1p": (torch.log1p, SMALL),
    "phi1": (lambda x: torch.where(x == 0, torch.ones_like(x), torch.expm1(x) / x), [0.0, *SMALL, -40.0]),
    "dphi1": (_dphi1, [*SMALL, -20.0]),
    "sigmoid": (torch.sigmoid, [-80.0, 80.0, -1e4, 1e4, 0.0, 0.5]),
    "logsigmoid": (torch.nn.functional.logsigmoid, [-80.0, 20.0, -1e4, 0.0, 0.5]),
    "softplus": (lambda x: torch.logaddexp(x, torch.zeros_like(x)), [-20.0, 80.0, 1e4, 0.0, 0.5]),
    "gelu": (lambda x: 0.5 * x * torch.erfc(-x / 2**0.5), [-5.0, -3.0, 5.0, 0.0, 0.5]),
    "tanh": (torch.tanh, [1e-6, -1e-3, 0.4, 20.0]),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("function", CASES)
def test_relative_error(function: str, dtype: torch.dtype) -> None:
    reference, points = CASES[function]
    x = torch.tensor((points * 16)[:16], dtype=dtype, device=DEVICE)
    y = torch.empty_like(x)
    one[(1,)](x, y, function=function, block=16)
    wanted = reference(x.cpu().double())
    error = ((y.cpu().double() - wanted).abs() / wanted.abs().clamp_min(1e-300)).nan_to_num(0.0)
    error[wanted == y.cpu().double()] = 0.0
    assert float(error.max()) < 40 * torch.finfo(dtype).eps


@triton.jit
def two(a_ptr, b_ptr, sum_ptr, gap_ptr, block: tl.constexpr):
    at = tl.arange(0, block)
    a, b = tl.load(a_ptr + at), tl.load(b_ptr + at)
    tl.store(sum_ptr + at, tlmath.logaddexp(a, b))
    tl.store(gap_ptr + at, tlmath.expdiff(a, b))


def test_infinities() -> None:
    inf = float("inf")
    a = torch.tensor([-inf, -inf, 0.0, 1e30], device=DEVICE)
    b = torch.tensor([-inf, 1.0, -inf, 1e30], device=DEVICE)
    total, gap = torch.empty_like(a), torch.empty_like(a)
    two[(1,)](a, b, total, gap, block=4)
    assert total.tolist() == [-inf, 1.0, 0.0, pytest.approx(1e30)]
    assert gap[:2].tolist() == [0.0, 0.0]
    assert gap[3].item() == 1.0
