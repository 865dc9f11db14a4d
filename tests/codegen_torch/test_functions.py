"""Functions with limits: values, gradients of two orders, and what happens at the edges."""

import cmath
import math
from collections.abc import Callable

import pytest
import torch
from scanc_runtime import functions as f
from torch import Tensor

Unary = Callable[[Tensor], Tensor]


@pytest.mark.parametrize("function", [f.phi1, f.dphi1, f.expm1], ids=lambda g: g.__name__)
@pytest.mark.parametrize("kind", ["real", "complex"])
def test_exponential_relatives_against_long_series(function: Unary, kind: str) -> None:
    moduli = torch.tensor([0.0, 1e-12, 1e-8, 1e-3, 0.3, 0.999, 1.001, 2.0, 20.0], dtype=torch.float64)
    phase = (
        torch.tensor([1.0, -1.0]) if kind == "real" else torch.exp(1j * torch.linspace(0, 6, 7, dtype=torch.float64))
    )
    for z in (moduli[:, None] * phase).flatten().tolist():
        exact = _exact(function.__name__, complex(z))
        for dtype, tolerance in ((torch.float64, 5e-15), (torch.float32, 6e-7)):
            wide = dtype.to_complex() if kind == "complex" else dtype
            got = complex(function(torch.tensor(z, dtype=wide)))
            near = _exact(function.__name__, complex(torch.tensor(z, dtype=wide)))
            assert abs(got - near) <= tolerance * abs(exact) * (1 + abs(z)), (z, got, exact)


def _exact(name: str, z: complex) -> complex:
    """By a long series where |z| is small, as written where nothing cancels."""
    if abs(z) > 1.5:
        e = cmath.exp(z)
        return {"expm1": e - 1, "phi1": (e - 1) / z, "dphi1": (e - (e - 1) / z) / z}[name]
    shift = {"expm1": 1, "phi1": 1, "dphi1": 2}[name]
    terms, power = [], 1 + 0j
    for n in range(40):
        terms.append(power / math.factorial(n + shift) * (n + 1 if name == "dphi1" else 1))
        power *= z
    total = complex(math.fsum(t.real for t in terms), math.fsum(t.imag for t in terms))
    return total * z if name == "expm1" else total


@pytest.mark.parametrize("function", [f.sqrt, f.softplus, f.expm1, f.phi1, f.dphi1], ids=lambda g: g.__name__)
def test_two_orders_of_derivatives(function: Unary) -> None:
    x = torch.tensor([0.3, 0.8, 1.7, 30.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, x)
    assert torch.autograd.gradgradcheck(function, x)


@pytest.mark.parametrize("function", [f.phi1, f.dphi1, f.expm1], ids=lambda g: g.__name__)
def test_two_orders_of_complex_derivatives(function: Unary) -> None:
    z = torch.tensor([0.3 + 0.2j, -1.5 + 2j, 0.01j], dtype=torch.complex128, requires_grad=True)
    assert torch.autograd.gradcheck(function, z)
    assert torch.autograd.gradgradcheck(function, z)


def test_the_root_has_a_bounded_gradient() -> None:
    x = torch.tensor([0.0, 1e-12, 2e-7, 3e-7, 1.0], dtype=torch.float64, requires_grad=True)
    y = f.sqrt(x)
    torch.testing.assert_close(y, torch.sqrt(x))
    (grad,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    torch.testing.assert_close(grad, torch.rsqrt(torch.clamp_min(4 * x, 1e-6)))
    (second,) = torch.autograd.grad(grad.sum(), x)
    assert bool(torch.isfinite(second).all())


INF = math.inf


@pytest.mark.parametrize(
    ("a", "b", "value", "grads"),
    [
        (0.0, 0.0, math.log(2), (0.5, 0.5)),
        (-INF, -INF, -INF, (0.0, 0.0)),
        (-INF, 1.0, 1.0, (0.0, 1.0)),
        (900.0, 0.0, 900.0, (1.0, 0.0)),
    ],
)
def test_logaddexp(a: float, b: float, value: float, grads: tuple[float, float]) -> None:
    x, y = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (a, b))
    result = f.logaddexp(x, y)
    assert result.item() == pytest.approx(value)
    assert [float(g) for g in torch.autograd.grad(result, (x, y))] == pytest.approx(grads)


@pytest.mark.parametrize(("a", "m", "value"), [(-INF, -INF, 0.0), (-INF, 3.0, 0.0), (2.0, 2.0, 1.0), (0.0, INF, 0.0)])
def test_expdiff(a: float, m: float, value: float) -> None:
    x, y = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (a, m))
    result = f.expdiff(x, y)
    assert result.item() == value
    assert [float(g) for g in torch.autograd.grad(result, (x, y))] == [value, -value]


@pytest.mark.parametrize("dims", [(-1,), (-2,), (-2, -1), (-3, -1)])
def test_reductions_give_ties_to_the_lowest_index(dims: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randint(0, 3, (2, 3, 4)).double().requires_grad_()
    for function, mask, expected in (
        (f.largest, f.is_first_max, x.amax(dims)),
        (f.smallest, f.is_first_min, x.amin(dims)),
    ):
        value = function(x, dims)
        assert torch.equal(value, expected)
        (grad,) = torch.autograd.grad(value.sum(), x)
        assert torch.equal(grad, mask(x, dims).double())
        assert bool((grad.sum(dims) == 1).all())
        order = [d for d in range(3) if d - 3 not in dims] + [d + 3 for d in dims]
        rows = x.detach().permute(order).flatten(3 - len(dims))
        first = grad.permute(order).flatten(3 - len(dims)).argmax(-1)
        best = rows.amax(-1) if function is f.largest else rows.amin(-1)
        assert torch.equal(first, (rows == best[..., None]).int().argmax(-1))


def test_logsumexp_of_nothing_but_zeros_of_the_semiring() -> None:
    x = torch.tensor([[-INF, -INF], [0.0, -INF], [1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    value = f.logsumexp(x, (-1,))
    torch.testing.assert_close(value, torch.logsumexp(x, -1))
    (grad,) = torch.autograd.grad(value.sum(), x)
    torch.testing.assert_close(grad[:2], torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64))


@pytest.mark.parametrize("dims", [(-1,), (-2, -1)])
def test_reductions_of_nothing_are_the_identity(dims: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, 0, dtype=torch.float64, requires_grad=True)
    cases = [(f.largest, -INF), (f.highest, -INF), (f.smallest, INF), (f.lowest, INF), (f.logsumexp, -INF)]
    for function, identity in cases:
        assert torch.equal(function(x, dims), torch.full((2, 3)[: 3 - len(dims)], identity, dtype=torch.float64))
    for mask in (f.is_first_max, f.is_first_min):
        assert mask(x, dims).shape == x.shape
        assert mask(x, dims).dtype == torch.bool


def test_numbers_may_stand_beside_tensors() -> None:
    x = torch.tensor([-1.0, 2.0], dtype=torch.float64)
    assert f.maximum(x, 0.5).tolist() == [0.5, 2.0]
    assert f.minimum(0.5, x).tolist() == [-1.0, 0.5]
    assert f.power(2.0, x).tolist() == [0.5, 4.0]
    assert f.join(0.0, x).tolist() == [-1j, 2j]
    assert f.join(0.0, x).dtype == torch.complex128
