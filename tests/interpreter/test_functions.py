"""Every elementwise function: numpy against torch, torch's gradients against finite differences, and the limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from scanc.interpreter.numpy_arithmetic import NumpyArithmetic
from scanc.interpreter.torch_arithmetic import TorchArithmetic
from scanc.ir.functions import TABLE
from scanc.ir.nodes import Kind

NUMPY = NumpyArithmetic()
TORCH = TorchArithmetic(torch.float64, torch.device("cpu"))
INF = math.inf

POSITIVE = {"log", "log1p", "sqrt", "rsqrt", "pow"}
LOGICAL = {"and", "or", "not"}
COMPARISONS = {"lt", "le", "gt", "ge", "eq", "ne"}
NO_GRADIENT = LOGICAL | COMPARISONS | {"sign", "stop"}
REAL_FUNCTIONS = sorted(TABLE)
COMPLEX_FUNCTIONS = sorted(name for name, f in TABLE.items() if f.complex_ok)


def arguments(fn: str, kind: Kind, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw() -> torch.Tensor:
        if fn in LOGICAL:
            return torch.rand(40, generator=generator) < 0.5
        x = 2 * torch.randn(40, generator=generator, dtype=torch.float64)
        x = x.abs() + 0.1 if fn in POSITIVE else x
        if kind is Kind.COMPLEX and fn not in ("complex",):
            return torch.complex(x, torch.randn(40, generator=generator, dtype=torch.float64))
        return x

    args = [draw() for _ in range(TABLE[fn].arity)]
    if fn == "where":
        args[0] = args[0].real > 0
    return args


@pytest.mark.parametrize("fn", REAL_FUNCTIONS)
def test_numpy_and_torch_agree(fn: str) -> None:
    args = arguments(fn, Kind.REAL)
    expected = NUMPY.map(fn, *(a.numpy() for a in args))
    np.testing.assert_allclose(TORCH.map(fn, *args).numpy(), expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("fn", COMPLEX_FUNCTIONS)
def test_numpy_and_torch_agree_on_complex_values(fn: str) -> None:
    args = arguments(fn, Kind.COMPLEX)
    expected = NUMPY.map(fn, *(a.numpy() for a in args))
    np.testing.assert_allclose(TORCH.map(fn, *args).numpy(), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("fn", "kind"),
    [(fn, Kind.REAL) for fn in REAL_FUNCTIONS if fn not in NO_GRADIENT | {"imag"}]
    + [(fn, Kind.COMPLEX) for fn in COMPLEX_FUNCTIONS if fn not in NO_GRADIENT],
)
def test_gradients_by_finite_differences(fn: str, kind: Kind) -> None:
    args = [a.requires_grad_(a.is_floating_point() or a.is_complex()) for a in arguments(fn, kind)]
    assert torch.autograd.gradcheck(lambda *xs: TORCH.map(fn, *xs), args, eps=1e-6, atol=1e-6)
    assert torch.autograd.gradgradcheck(lambda *xs: TORCH.map(fn, *xs), args, eps=1e-6, atol=1e-5)


def near_zero(fn: str, exact: object) -> None:
    values = [s * 10.0**e for e in range(-9, 1) for s in (-1, 1)]
    got = TORCH.map(fn, torch.tensor(values, dtype=torch.float64))
    expected = [exact(v) for v in values]  # type: ignore[operator]
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-14)


def test_phi1_and_its_derivative_near_zero() -> None:
    near_zero("phi1", lambda z: math.fsum(z**n / math.factorial(n + 1) for n in range(30)))
    near_zero("dphi1", lambda z: math.fsum((n + 1) * z**n / math.factorial(n + 2) for n in range(30)))


@pytest.mark.parametrize("arith", [NUMPY, TORCH], ids=["numpy", "torch"])
@pytest.mark.parametrize(
    ("fn", "args", "expected"),
    [
        ("expdiff", (-INF, -INF), 0.0),
        ("expdiff", (-INF, 3.0), 0.0),
        ("expdiff", (1.0, 3.0), math.exp(-2.0)),
        ("logaddexp", (-INF, -INF), -INF),
        ("logaddexp", (-INF, 2.0), 2.0),
        ("phi1", (0.0,), 1.0),
        ("phi1", (-INF,), 0.0),
        ("dphi1", (0.0,), 0.5),
        ("softplus", (1000.0,), 1000.0),
        ("softplus", (-1000.0,), 0.0),
        ("softplus", (-INF,), 0.0),
        ("logsigmoid", (-1000.0,), -1000.0),
        ("logsigmoid", (1000.0,), 0.0),
        ("sigmoid", (-1000.0,), 0.0),
        ("sqrt", (0.0,), 0.0),
        ("relu", (-2.0,), 0.0),
        ("abs", (-2.0,), 2.0),
        ("pow", (0.0, 0.0), 1.0),
        ("hypot", (0.0, 0.0), 0.0),
    ],
)
def test_limits(arith: NumpyArithmetic | TorchArithmetic, fn: str, args: tuple[float, ...], expected: float) -> None:
    got = arith.map(fn, *(arith.array(a, Kind.REAL) for a in args))
    assert float(got) == pytest.approx(expected, abs=1e-300)


@pytest.mark.parametrize(
    ("fn", "args", "expected"),
    [
        ("logaddexp", (-INF, -INF), (0.0, 0.0)),
        ("logaddexp", (-INF, 2.0), (0.0, 1.0)),
        ("expdiff", (-INF, -INF), (0.0, 0.0)),
        ("expdiff", (-INF, 1.0), (0.0, 0.0)),
        ("sqrt", (0.0,), (1000.0,)),
        ("abs", (0.0,), (0.0,)),
        ("relu", (0.0,), (0.0,)),
        ("maximum", (2.0, 2.0), (0.5, 0.5)),
        ("minimum", (-1.0, -1.0), (0.5, 0.5)),
        ("maximum", (-INF, -INF), (0.5, 0.5)),
        ("phi1", (0.0,), (0.5,)),
        ("phi1", (-INF,), (0.0,)),
        ("dphi1", (0.0,), (1 / 3,)),
        ("softplus", (0.0,), (0.5,)),
        ("softplus", (-INF,), (0.0,)),
        ("exp", (-INF,), (0.0,)),
        ("stop", (2.0,), (0.0,)),
        ("hypot", (0.0, 0.0), (0.0, 0.0)),
        ("atan2", (0.0, 0.0), (0.0, 0.0)),
    ],
)
def test_gradients_at_the_limits(fn: str, args: tuple[float, ...], expected: tuple[float, ...]) -> None:
    leaves = [torch.tensor([a], dtype=torch.float64, requires_grad=True) for a in args]
    result = TORCH.map(fn, *leaves)
    grads = torch.autograd.grad(result.sum() + sum(0 * leaf.nan_to_num(0, 0, 0).sum() for leaf in leaves), leaves)
    np.testing.assert_allclose([float(g) for g in grads], expected, rtol=1e-12)


@pytest.mark.parametrize("arith", [NUMPY, TORCH], ids=["numpy", "torch"])
@pytest.mark.parametrize("fn", ["sum", "max", "min", "logsumexp", "any", "all"])
def test_reductions_over_several_dimensions(arith: NumpyArithmetic | TorchArithmetic, fn: str) -> None:
    x = np.random.default_rng(1).normal(size=(2, 3, 4, 5))
    if fn in ("any", "all"):
        x = x > 0.5
    by_hand = {
        "sum": np.sum,
        "max": np.max,
        "min": np.min,
        "any": np.any,
        "all": np.all,
        "logsumexp": lambda v, axis: np.log(np.sum(np.exp(v), axis=axis)),
    }
    got = arith.reduce(fn, arith.array(x, Kind.BOOL if x.dtype == bool else Kind.REAL), (1, 3))
    np.testing.assert_allclose(np.asarray(got), by_hand[fn](x, axis=(1, 3)), rtol=1e-13)


@pytest.mark.parametrize("arith", [NUMPY, TORCH], ids=["numpy", "torch"])
@pytest.mark.parametrize(("fn", "zero"), [("sum", 0.0), ("max", -INF), ("min", INF), ("logsumexp", -INF)])
def test_reductions_over_nothing_give_the_unit(arith: NumpyArithmetic | TorchArithmetic, fn: str, zero: float) -> None:
    got = arith.reduce(fn, arith.full((2, 0), 0.0, Kind.REAL), (1,))
    np.testing.assert_array_equal(np.asarray(got), [zero, zero])


def test_a_logsumexp_of_nothing_possible_passes_no_gradient() -> None:
    x = torch.tensor([[-INF, -INF], [-INF, 1.0]], dtype=torch.float64, requires_grad=True)
    y = TORCH.reduce("logsumexp", x, (1,))
    (grad,) = torch.autograd.grad(y[1] + torch.where(y[0] == -INF, torch.zeros_like(y[0]), y[0]), x)
    np.testing.assert_array_equal(y.detach().numpy(), [-INF, 1.0])
    np.testing.assert_array_equal(grad.numpy(), [[0.0, 0.0], [0.0, 1.0]])


@pytest.mark.parametrize("fn", ["max", "min"])
def test_a_reduction_takes_the_lowest_index_at_a_tie(fn: str) -> None:
    x = torch.tensor([[2.0, 2.0, 2.0], [2.0, 2.0, 2.0]], dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(TORCH.reduce(fn, x, (0, 1)), x)
    first = [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    np.testing.assert_array_equal(grad.numpy(), first)
    np.testing.assert_array_equal(TORCH.extremum(fn, x, (0, 1)).numpy(), np.array(first, bool))
    np.testing.assert_array_equal(NUMPY.extremum(fn, x.detach().numpy(), (0, 1)), np.array(first, bool))
