"""Functions with limits: values, gradients of two orders, and what happens at the edges."""

import cmath
import math
from collections.abc import Callable

import pytest
import torch
from scanc_runtime import functions as f
from torch import Tensor

from scanc.interpreter.matrices import matrix_function
from scanc.interpreter.numpy_arithmetic import NumpyArithmetic

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


MATRICES = {"exp": f.matrix_exp, "phi1": f.matrix_phi1, "inverse": f.matrix_inverse}


def matrices(*shape: int, kind: str = "real", scale: float = 0.5) -> Tensor:
    torch.manual_seed(len(shape) + shape[0])
    z = scale * torch.randn(shape, dtype=torch.float64)
    return torch.complex(z, scale * torch.randn(shape, dtype=torch.float64)) if kind == "complex" else z


@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("name", MATRICES)
def test_functions_of_matrices_against_power_series(name: str, kind: str) -> None:
    """In fp32 as well, from large matrices down to zero."""
    for scale in (0.0, 1e-8, 1e-4, 0.1, 1.0, 4.0):
        z = matrices(2, 4, 4, kind=kind, scale=0.3 * scale) - scale * torch.eye(4, dtype=torch.float64)
        z = z - torch.eye(4, dtype=torch.float64) if name == "inverse" else z
        narrow = z.to(torch.complex64 if kind == "complex" else torch.float32)
        for given, tolerance in ((z, 1e-13), (narrow, 1e-6 if scale <= 1 else 2e-5)):
            exact = torch.from_numpy(matrix_function(NumpyArithmetic(), name, given.to(z.dtype).numpy(), []))
            error = (MATRICES[name](given) - exact).abs().amax((-2, -1)) / exact.abs().amax((-2, -1))
            assert error.max() < tolerance, (scale, given.dtype)


@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("name", MATRICES)
def test_derivatives_of_functions_of_matrices(name: str, kind: str) -> None:
    """In one direction and in two, against forward differentiation; what is broadcast too."""
    function = MATRICES[name]
    z = matrices(3, 4, 4, kind=kind) + torch.eye(4, dtype=torch.float64)
    a, b = matrices(3, 4, 4, kind=kind), matrices(4, 4, kind=kind)

    def by(z: Tensor, direction: Tensor) -> Tensor:
        return torch.func.jvp(function, (z,), (direction.expand_as(z),))[1]

    torch.testing.assert_close(function(z, a), by(z, a))
    torch.testing.assert_close(function(z, b), by(z, b))
    second = torch.func.jvp(lambda z: by(z, a), (z,), (b.expand_as(z),))[1]
    torch.testing.assert_close(function(z, a, b), second)
    torch.testing.assert_close(function(z, b, a), second)
    torch.testing.assert_close(function(z, 1e30 * a), 1e30 * function(z, a), rtol=1e-12, atol=0.0)
    assert not function(z, 0 * a).any()
    assert torch.autograd.gradcheck(function, (z.requires_grad_(), a.requires_grad_()))


def test_functions_of_matrices_at_the_edges() -> None:
    """Of nothing, of a singular matrix, and of one whose inverse does not exist."""
    for function in MATRICES.values():
        assert function(torch.zeros(0, 3, 3)).shape == (0, 3, 3)
        assert function(torch.zeros(2, 0, 0)).shape == (2, 0, 0)
        assert function(torch.zeros(0, 3, 3), torch.zeros(0, 3, 3)).shape == (0, 3, 3)
    nilpotent = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    torch.testing.assert_close(f.matrix_phi1(nilpotent), torch.tensor([[1.0, 0.5], [0.0, 1.0]]))
    assert not torch.isfinite(f.matrix_inverse(nilpotent)).all()
