"""Types, functions with their gradients, `def`, `prev`, `conv` and `for`."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from language.support import agree, operator, refused

D = torch.float64


def both(op, *tensors, **options):
    """Result and gradients of the sum, per form, as (form, result, gradients)."""
    for form in op.forms:
        leaves = [t.clone().requires_grad_() if t.is_floating_point() or t.is_complex() else t for t in tensors]
        out = op(*leaves, form=form, **options)
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        grads = torch.autograd.grad(out.sum() if not out.is_complex() else out.real.sum(), wanted, allow_unused=True)
        yield form, out.detach(), grads


# --- types ---


def test_complex_params_inputs_and_states() -> None:
    agree(
        "axes d, n\ninput x[d], z[d]: complex\nparam A[d,n]: complex, C[n]: complex\nstate h[d,n]: complex\n"
        "h = A*h + x + z\ny = real(C · h)\nw = C · h\noutput y[d], w[d], h[d,n]",
        lambda v: (lambda h: {"h": h, "y": (h @ v.C).real, "w": h @ v.C})(v.A * v.h + (v.x + v.z)[..., None]),
        {"d": 2, "n": 3},
    )


def test_complex_functions() -> None:
    agree(
        "axes d\ninput x[d], t[d], z[d]: complex\nu = complex(x, t)\np = polar(x, t)\nr = real(z) + imag(u)\n"
        "c = conj(z) * u\nm = abs(z)\ne = exp(z) + sqrt(u) + log(z) + expm1(u)\nq = z / u - z^2\n"
        "output u[d], p[d], r[d], c[d], m[d], e[d], q[d]",
        lambda v: (
            lambda u: {
                "u": u,
                "p": torch.polar(v.x, v.t) if not v.x.requires_grad else v.x * torch.exp(1j * v.t),
                "r": v.z.real + v.t,
                "c": v.z.conj() * u,
                "m": v.z.abs(),
                "e": v.z.exp() + u.sqrt() + v.z.log() + u.exp() - 1,
                "q": v.z / u - v.z**2,
            }
        )(torch.complex(v.x, v.t)),
        {"d": 3},
    )


def test_polar_with_a_negative_radius_is_a_number_like_any_other() -> None:
    op = operator("input r, t\nz = polar(r, t)\noutput z")
    r, t = torch.tensor([[-2.0]], dtype=D), torch.tensor([[0.3]], dtype=D)
    for form in op.forms:
        torch.testing.assert_close(op(r, t, form=form), -2 * torch.exp(1j * t))


def test_complex_numbers_have_no_order() -> None:
    for expression in ("z > 0", "max(z, 1)", "sigmoid(z)", "relu(z)", "max[d](z)"):
        refused(f"axes d\ninput z[d]: complex\nparam p\ny = {expression}\noutput y")


def test_a_complex_value_does_not_fit_a_real_state() -> None:
    assert "E0403" in refused("input z: complex\nstate h\nh = z\noutput h")


def test_equality_of_complex_numbers() -> None:
    op = operator("input z: complex\nb = z == complex(1, 2)\nc = z != complex(1, 2)\noutput b, c")
    z = torch.tensor([[1 + 2j, 1 - 2j]], dtype=torch.complex128)
    for form in op.forms:
        b, c = op(z, form=form)
        assert b.tolist() == [[True, False]]
        assert c.tolist() == [[False, True]]


def test_bools_and_ints() -> None:
    agree(
        "axes d\ninput x[d], reset: bool, n: int, m[d]: int, b[d]: bool\nstate h[d], count: int, seen[d]: bool\n"
        "h = where(reset, 0, h) + x\ncount = where(reset, 0, count) + 1\nseen = seen * b + reset\n"
        "i = n*m - 2\nboth = b * reset\neither = b + reset\nr = b * x\nk = b - n\n"
        "output h[d], count, seen[d], i[d], both[d], either[d], r[d], k[d]",
        lambda v: {
            "h": torch.where(v.reset[:, None], 0, v.h) + v.x,
            "count": torch.where(v.reset, 0, v["count"]) + 1,
            "seen": v.seen & v.b | v.reset[:, None],
            "i": v.n[:, None] * v.m - 2,
            "both": v.b & v.reset[:, None],
            "either": v.b | v.reset[:, None],
            "r": v.b * v.x,
            "k": v.b.double() - v.n[:, None],
        },
        {"d": 3},
    )


def test_functions_of_ints_are_real_or_whole() -> None:
    agree(
        "input n: int, m: int\na = max(n, m)\nb = abs(n) + sign(m)\nc = exp(n)\nd = n / m\ne = n ^ 2\nf = -n\n"
        "g = relu(n)\n"
        "h = clamp(n, -1, 2)\ni = where(n > m, n, 0.5)\noutput a, b, c, d, e, f, g, h, i",
        lambda v: {
            "a": torch.maximum(v.n, v.m),
            "b": v.n.abs().double() + v.m.sign(),
            "c": v.n.double().exp(),
            "d": v.n / v.m,
            "e": (v.n**2).double(),
            "f": -v.n,
            "g": v.n.relu(),
            "h": v.n.clamp(-1, 2),
            "i": torch.where(v.n > v.m, v.n.double(), 0.5),
        },
        given={"n": torch.tensor([[3, -4, 0]]), "m": torch.tensor([[2, -1, 5]])},
    )


def test_large_ints_are_exact() -> None:
    op = operator("input n: int\nstate c: int\nc = c + n\noutput c")
    n = torch.tensor([[2**60, 1, 2**60 + 3]])
    for form in op.forms:
        assert op(n, form=form).tolist() == [[2**60, 2**60 + 1, 2**61 + 4]]


@pytest.mark.parametrize("init", ["1e300", "0.5", "inf", "2"])
def test_initial_values_that_a_bool_or_an_int_cannot_hold(init: str) -> None:
    if init != "2":
        assert "E0404" in refused(f"input x: int\nstate c: int = {init}\nc = c + x\noutput c")
    assert "E0404" in refused(f"input x: bool\nstate c: bool = {init}\nc = c + x\noutput c")


# --- functions ---

REAL = {
    "exp": torch.exp, "expm1": torch.expm1, "sigmoid": torch.sigmoid, "logsigmoid": F.logsigmoid, "tanh": torch.tanh,
    "silu": F.silu, "relu": torch.relu, "gelu": F.gelu, "softplus": F.softplus, "sin": torch.sin, "cos": torch.cos,
    "abs": torch.abs, "sign": torch.sign,
}  # fmt: skip
POSITIVE = {"log": torch.log, "log1p": torch.log1p, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt}


def test_elementwise_functions() -> None:
    lines = [f"y_{name} = {name}(x)" for name in REAL] + [f"y_{name} = {name}(p)" for name in POSITIVE]
    names = [line.split(" = ")[0] for line in lines]
    positive = torch.rand(2, 5, 3, dtype=D) + 0.1
    agree(
        "axes d\ninput x[d], p[d]\n" + "\n".join(lines) + "\noutput " + ", ".join(f"{n}[d]" for n in names),
        lambda v: {f"y_{n}": f(v.x) for n, f in REAL.items()} | {f"y_{n}": f(v.p) for n, f in POSITIVE.items()},
        {"d": 3},
        given={"p": positive},
    )


def test_elementwise_functions_of_a_state() -> None:
    """The same inside a nonlinear recurrence."""
    for name, function in REAL.items():
        agree(
            f"axes d\ninput x[d]\nstate h[d]\nh = 0.3*{name}(h + x) + 0.1*h\noutput h[d]",
            lambda v, f=function: {"h": 0.3 * f(v.h + v.x) + 0.1 * v.h},
            {"d": 2},
            time=3,
            batch=1,
        )


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("exp(1)", math.e), ("sigmoid(0)", 0.5), ("tanh(1)", math.tanh(1)), ("max(2, 3)", 3.0), ("min(2, 3)", 2.0),
        ("where(1 < 2, 5, 6)", 5.0), ("abs(-3)", 3.0), ("softplus(0)", math.log(2)), ("clamp(7, 0, 1)", 1.0),
        ("sqrt(2)", math.sqrt(2)), ("log(0)", -math.inf), ("exp(1000)", math.inf), ("sqrt(-1)", math.nan),
        ("1 / 0", math.inf), ("-1 / 0", -math.inf), ("0 / 0", math.nan), ("inf - inf", math.nan), ("0 * inf", math.nan),
        ("1e308 * 10", math.inf), ("2 ^ 10000", math.inf), ("(-1) ^ 0.5", math.nan), ("0 ^ -1", math.inf),
        ("(-2) ^ 3", -8.0), ("0 ^ 0", 1.0), ("real(complex(1, 2))", 1.0), ("abs(complex(3, -4))", 5.0),
        ("real(polar(2, 0))", 2.0), ("sign(-0.5)", -1.0), ("gelu(0)", 0.0), ("stop(3)", 3.0), ("1e-320", 1e-320),
        ("rsqrt(4)", 0.5), ("log1p(0)", 0.0), ("expm1(0)", 0.0), ("logsigmoid(-1000)", -1000.0), ("-(-(3))", 3.0),
        ("relu(-1)", 0.0), ("silu(0)", 0.0), ("cos(0) + sin(0)", 1.0), ("2 / 4", 0.5), ("7 - 0.5", 6.5),
        ("real(conj(complex(1, 2)))", 1.0), ("imag(exp(complex(0, 1)))", math.sin(1)),
        ("9007199254740991", 2.0**53 - 1), ("imag(2)", 0.0), ("real(3) + conj(4)", 7.0), ("abs(complex(0, 0))", 0.0),
    ],
)  # fmt: skip
def test_functions_of_numbers(expression: str, expected: float) -> None:
    """Alone, where every operand is a constant, and beside an input."""
    x = torch.zeros(2, 3, dtype=D)
    for text in (f"input x\ny = {expression}\noutput y", f"input x\nstate h\nh = x + ({expression})\ny = h\noutput y"):
        op = operator(text)
        for form in op.forms:
            y = op(x, form=form)
            assert y.shape == (2, 3)
            torch.testing.assert_close(y.to(D), torch.full_like(x, expected), equal_nan=True, rtol=1e-14, atol=0)


def test_reductions() -> None:
    agree(
        "axes i, j\ninput x[i,j]\na = sum[i](x)\nb = mean[i,j](x)\nc = max[j](x)\nd = min[i,j](x)\ne = norm[j](x)\n"
        "f = softmax[i](x)\ng = logsumexp[i,j](x)\nh = softmax[i,j](x)\n"
        "output a[j], b, c[i], d, e[i], f[i,j], g, h[i,j]",
        lambda v: {
            "a": v.x.sum(1),
            "b": v.x.mean((1, 2)),
            "c": v.x.amax(2),
            "d": v.x.amin((1, 2)),
            "e": v.x.norm(dim=2),
            "f": v.x.softmax(1),
            "g": v.x.logsumexp((1, 2)),
            "h": v.x.flatten(1).softmax(1).reshape(v.x.shape),
        },
        {"i": 3, "j": 2},
    )


def test_reductions_of_a_state() -> None:
    agree(
        "axes i\ninput x[i]\nstate h[i]\nh = 0.5*h / (1 + norm[i](h)) + x * max[i](h) + softmax[i](h)\noutput h[i]",
        lambda v: {"h": 0.5 * v.h / (1 + _safe_norm(v.h)) + v.x * v.h.amax(1, keepdim=True) + v.h.softmax(1)},
        {"i": 3},
    )


def _safe_norm(h: torch.Tensor) -> torch.Tensor:
    squared = (h * h).sum(1, keepdim=True)
    return torch.where(squared > 0, squared, 1.0).sqrt() * (squared > 0)


def test_mean_norm_and_sum_of_complex_numbers() -> None:
    agree(
        "axes i\ninput z[i]: complex\na = norm[i](z)\nb = mean[i](z)\nc = sum[i](z)\noutput a, b, c",
        lambda v: {"a": v.z.abs().square().sum(1).sqrt(), "b": v.z.mean(1), "c": v.z.sum(1)},
        {"i": 3},
    )


def test_reductions_of_bools_and_ints() -> None:
    agree(
        "axes i\ninput n[i]: int, b[i]: bool\na = sum[i](n)\nc = max[i](n)\nd = sum[i](b)\ne = mean[i](n)\n"
        "f = logsumexp[i](n)\n"
        "output a, c, d, e, f",
        lambda v: {
            "a": v.n.sum(1), "c": v.n.amax(1), "d": v.b.sum(1).double(), "e": v.n.double().mean(1),
            "f": v.n.double().logsumexp(1),
        },
        {"i": 4},
        tolerance=1e-6,  # without a floating tensor, arithmetic is fp32
    )  # fmt: skip


def test_min_max_and_clamp() -> None:
    agree(
        "axes d\ninput x[d], y[d]\na = min(x, y)\nb = max(x, 0)\nc = clamp(x, -0.2, y)\noutput a[d], b[d], c[d]",
        lambda v: {
            "a": torch.minimum(v.x, v.y),
            "b": torch.clamp_min(v.x, 0),
            "c": torch.minimum(torch.clamp_min(v.x, -0.2), v.y),
        },
        {"d": 3},
    )


# --- gradients that have to be chosen ---


@pytest.mark.parametrize("function", ["max", "min"])
def test_a_tie_of_two_splits_the_gradient(function: str) -> None:
    op = operator(f"axes d\ninput x[d], y[d]\nz = {function}(x, y)\noutput z[d]")
    x = torch.tensor([[[1.0, 2.0, 3.0]]], dtype=D)
    y = torch.tensor([[[1.0, 1.0, 4.0]]], dtype=D)
    first = torch.tensor([[[0.5, 1.0, 0.0]]], dtype=D)
    first = first if function == "max" else torch.tensor([[[0.5, 0.0, 1.0]]], dtype=D)
    for _, _, (gx, gy) in both(op, x, y):
        assert torch.equal(gx, first)
        assert torch.equal(gy, 1 - first)


def test_a_tie_splits_the_gradient_inside_a_recurrence_too() -> None:
    for text in ("h = max(h, x)", "m = max(h, x)\nh = tanh(m) + 0*h"):
        op = operator(f"input x\nstate h = 1\n{text}\noutput h")
        x = torch.tensor([[1.0]], dtype=D)
        for form in op.forms:
            leaf, s = x.clone().requires_grad_(), torch.ones(1, dtype=D, requires_grad=True)
            gx, gs = torch.autograd.grad(op(leaf, initial_state=s, form=form).sum(), (leaf, s))
            torch.testing.assert_close(gx.flatten(), gs)
    op = operator("scan s over maxplus\ninput x\nstate h\nh = h + x\noutput h")
    for form in op.forms:
        leaf, s = x.clone().requires_grad_(), torch.ones(1, dtype=D, requires_grad=True)
        gx, gs = torch.autograd.grad(op(leaf, initial_state=s, form=form).sum(), (leaf, s))
        assert (gx.item(), gs.item()) == (0.5, 0.5)


@pytest.mark.parametrize("function", ["max", "min"])
def test_at_a_tie_a_reduction_takes_the_lowest_index(function: str) -> None:
    op = operator(f"axes d\ninput x[d]\nz = {function}[d](x)\noutput z")
    x = torch.tensor([[[2.0, 1.0, 2.0, 1.0]]], dtype=D)
    expected = [1.0, 0, 0, 0] if function == "max" else [0, 1.0, 0, 0]
    for _, _, (grad,) in both(op, x):
        assert grad.flatten().tolist() == expected
    op = operator(f"axes d, e\ninput x[d,e]\nz = {function}[d,e](x)\noutput z")
    x = torch.ones(1, 1, 2, 2, dtype=D)
    for _, _, (grad,) in both(op, x):
        assert grad.flatten().tolist() == [1.0, 0, 0, 0]


def test_a_contraction_over_maxplus_gives_ties_to_the_lowest_index() -> None:
    op = operator("scan s over maxplus\naxes n\ninput x[n]\nparam A[n,n]\ny = x @ A\noutput y[n]")
    for _, _, (gx, ga) in both(op, torch.zeros(1, 1, 3, dtype=D), torch.zeros(3, 3, dtype=D)):
        assert gx.flatten().tolist() == [3.0, 0, 0]
        assert ga.tolist() == [[1.0] * 3, [0.0] * 3, [0.0] * 3]


def test_sqrt_at_zero_has_a_bounded_gradient() -> None:
    for text in ("y = sqrt(x)", "h = tanh(h)\ny = sqrt(x) + 0*h"):
        op = operator(f"input x\nstate h\n{text}\noutput y")
        for _, out, (grad,) in both(op, torch.tensor([[0.0, 4.0, 1e-12]], dtype=D)):
            torch.testing.assert_close(out, torch.tensor([[0.0, 2.0, 1e-6]], dtype=D))
            assert grad.isfinite().all()
            assert grad.abs().max() <= 1000.0 + 1e-6
            assert grad[0, 1] == pytest.approx(0.25)


def test_norm_at_zero_has_a_finite_gradient() -> None:
    op = operator("axes d\ninput x[d]\ny = norm[d](x)\noutput y")
    for _, out, (grad,) in both(op, torch.zeros(1, 2, 3, dtype=D)):
        assert not out.any()
        assert not grad.any()


def test_the_input_gate_of_rg_lru_at_a_gate_of_one() -> None:
    op = operator("axes d\ninput x[d], g[d]\nstate h[d]\na = exp(g)\nh = a*h + sqrt(1 - a^2)*x\noutput h[d]")
    for form, out, grads in both(op, torch.randn(1, 4, 2, dtype=D), torch.zeros(1, 4, 2, dtype=D)):
        assert out.isfinite().all(), form
        assert all(grad.isfinite().all() for grad in grads), form


def test_logaddexp_of_two_infinities_has_gradient_zero() -> None:
    op = operator("scan s over log\naxes d\ninput x[d], y[d]\nz = x + y\nw = sum[d](x)\nr = z * w\noutput z[d], w")
    x = torch.full((1, 2, 2), -math.inf, dtype=D)
    for form in op.forms:
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        z, w = op(a, b, form=form)
        assert torch.isneginf(z).all()
        assert torch.isneginf(w).all()
        for grad in torch.autograd.grad(z.sum() + w.sum(), (a, b), allow_unused=True):
            assert torch.equal(grad, torch.zeros_like(x))


def test_a_recurrence_over_log_from_its_zero_with_impossible_tokens() -> None:
    op = operator("scan s over log\naxes d\ninput x[d], g[d]\nstate h[d]\nh = g*h + x\noutput h[d]")
    x = torch.tensor([-math.inf, -math.inf, 0.5, -math.inf, 0.1], dtype=D).reshape(1, 5, 1)
    for form, out, grads in both(op, x, torch.full_like(x, -0.5)):
        expected = torch.tensor([-math.inf, -math.inf, 0.5, 0.0, math.log(math.exp(-0.5) + math.exp(0.1))], dtype=D)
        torch.testing.assert_close(out.flatten(), expected, msg=form)
        assert all(grad.isfinite().all() for grad in grads), (form, grads)
        assert grads[0][0, :2].tolist() == [[0.0], [0.0]]


def test_other_limits_of_gradients() -> None:
    op = operator("input x\na = abs(x)\nb = relu(x)\nc = sign(x)\ny = a + 10*b + 100*c\noutput y")
    for _, _, (grad,) in both(op, torch.zeros(1, 1, dtype=D)):
        assert grad.item() == 0.0
    op = operator("input x\ny = logsigmoid(x) + softplus(x) + silu(x) + gelu(x) + sigmoid(x) + tanh(x)\noutput y")
    x = torch.tensor([[-1e4, 1e4, -800.0, 800.0, 0.0]], dtype=D)
    for form, out, (grad,) in both(op, x):
        assert out.isfinite().all(), form
        assert grad.isfinite().all(), form
    op = operator("input z: complex\ny = abs(z)\noutput y")
    for _, _, (grad,) in both(op, torch.zeros(1, 1, dtype=torch.complex128)):
        assert grad.item() == 0


def test_softmax_of_large_numbers() -> None:
    op = operator("axes d\ninput x[d]\ny = softmax[d](x)\nz = logsumexp[d](x)\nr = y * z\noutput r[d]")
    x = torch.tensor([[[1e4, 1e4 - 1, -1e4]]], dtype=D)
    expected = x.softmax(-1) * x.logsumexp(-1, keepdim=True)
    for form, out, (grad,) in both(op, x):
        torch.testing.assert_close(out, expected, msg=form)
        assert grad.isfinite().all()


def test_softmax_with_masked_entries() -> None:
    op = operator("axes d\ninput x[d]\ny = softmax[d](x)\nr = y ^ 2\noutput r[d]")
    x = torch.tensor([[[0.3, -math.inf, 1.0]]], dtype=D)
    for form, out, (grad,) in both(op, x):
        torch.testing.assert_close(out, x.softmax(-1) ** 2, msg=form)
        assert grad.isfinite().all(), form


def test_where_selects_and_blocks_the_other_side() -> None:
    """No NaN comes out of the branch that is not taken, whose own gradient is finite."""
    op = operator("axes d\ninput x[d]\ny = where(x > 0, log(max(x, 1e-9)), 0)\noutput y[d]")
    for _, out, (grad,) in both(op, torch.tensor([[[0.0, -1.0, 2.0]]], dtype=D)):
        torch.testing.assert_close(out, torch.tensor([[[0.0, 0.0, math.log(2)]]], dtype=D))
        torch.testing.assert_close(grad, torch.tensor([[[0.0, 0.0, 0.5]]], dtype=D))


def test_powers() -> None:
    base = torch.tensor([[0.0, -2.0, 3.0, 0.5]], dtype=D)
    agree("input x\ny = x^2 + x^3 - x^0\noutput y", lambda v: {"y": v.x**2 + v.x**3 - 1}, given={"x": base})
    op = operator("input x, p\ny = x ^ p\noutput y")
    for form, out, (gx, gp) in both(
        op, torch.tensor([[2.0, 0.0, 0.0]], dtype=D), torch.tensor([[3.0, 2.0, 1.0]], dtype=D)
    ):
        assert out.tolist() == [[8.0, 0.0, 0.0]], form
        torch.testing.assert_close(gx, torch.tensor([[12.0, 0.0, 1.0]], dtype=D), msg=form)
        torch.testing.assert_close(gp, torch.tensor([[8 * math.log(2), 0.0, 0.0]], dtype=D), msg=form)


def test_stop_passes_no_gradient() -> None:
    agree(
        "axes d\ninput x[d]\nparam a[d]\nstate h[d]\nh = stop(a)*h + x*stop(x) + a\ny = stop(h)*x\noutput y[d]",
        lambda v: (lambda h: {"h": h, "y": h.detach() * v.x})(v.a.detach() * v.h + v.x * v.x.detach() + v.a),
        {"d": 2},
    )
    agree(
        "input x\nstate h\nh = 0.5*stop(h) + x\noutput h",
        lambda v: {"h": 0.5 * v.h.detach() + v.x},
    )


# --- def ---


def test_the_axes_of_a_function_are_formal() -> None:
    agree(
        "batch h\naxes i, j\ninput k[h,i], v[h,j]\ndef l2(x[i]) = x * rsqrt(sum[i](x*x) + 1e-6)\n"
        "a = l2(k)\nb = l2[j](v)\nc = l2[i](k) * l2[j](v)\noutput a[h,i], b[h,j], c[h,i,j]",
        lambda v: (lambda a, b: {"a": a, "b": b, "c": a[..., None] * b[:, :, None]})(
            *(t * ((t * t).sum(-1, keepdim=True) + 1e-6).rsqrt() for t in (v.k, v.v))
        ),
        {"h": 2, "i": 3, "j": 2},
    )


def test_all_other_axes_ride_along() -> None:
    agree(
        "axes i, j\ninput S[i,j]\ndef norm1(x[j]) = x / sum[j](abs(x))\na = norm1[i](S)\nb = norm1(S)\n"
        "output a[i,j], b[i,j]",
        lambda v: {"a": v.S / v.S.abs().sum(1, keepdim=True), "b": v.S / v.S.abs().sum(2, keepdim=True)},
        {"i": 2, "j": 3},
    )


def test_formal_axes_that_cross_over() -> None:
    """A function called with its own axis names swapped, and functions within functions."""
    agree(
        "axes i, j\ninput S[i,j]\ndef f(x[i,j]) = sum[i](x) * size(j)\ndef g(x[j,i]) = f[i,j](x) + f[j,i](x)\n"
        "a = f[j,i](S)\nb = f(S)\nc = g(S)\noutput a[i], b[j], c[i,j]",
        lambda v: {
            "a": v.S.sum(2) * 2,
            "b": v.S.sum(1) * 3,
            "c": v.S.sum(1)[:, None] * 3 + v.S.sum(2)[..., None] * 2,
        },
        {"i": 2, "j": 3},
    )


def test_functions_see_their_parameters_only() -> None:
    assert "E0802" in refused("input x, y\ndef f(a) = a + y\nz = f(x)\noutput z")
    assert "E0801" in refused("input x\ndef f(a) = f(a)\nz = f(x)\noutput z")


def test_a_parameter_may_share_its_name_with_anything() -> None:
    agree(
        "axes d\ninput x[d], y[d]\nstate h[d]\ndef x2(h, x) = h * 2 + x\nh = x2(x, y) + x2(h, x)*0.1\noutput h[d]",
        lambda v: {"h": v.x * 2 + v.y + (v.h * 2 + v.x) * 0.1},
        {"d": 2},
    )


# --- prev and conv ---


def test_prev_keeps_one_buffer_per_name_oldest_first() -> None:
    agree(
        "axes d\ninput x[d]\na = prev(x, 3)\nb = prev(x, 1)\nc = prev(x)\noutput a[d], b[d], c[d]",
        lambda v: {
            "a": v["prev.x"][:, 0],
            "b": v["prev.x"][:, 2],
            "c": v["prev.x"][:, 2],
            "prev.x": torch.cat([v["prev.x"][:, 1:], v.x[:, None]], 1),
        },
        {"d": 2},
    )


def test_prev_of_a_local_that_depends_on_a_state() -> None:
    agree(
        "axes d\ninput x[d]\nparam a[d]\nstate h[d]\nh = a*h + x\nu = h * x\ny = u - prev(u, 2)\noutput y[d]",
        lambda v: (
            lambda h: {
                "h": h,
                "y": h * v.x - v["prev.u"][:, 0],
                "prev.u": torch.stack([v["prev.u"][:, 1], h * v.x], 1),
            }
        )(v.a * v.h + v.x),
        {"d": 2},
    )


def test_a_past_value_that_enters_a_recurrence() -> None:
    agree(
        "axes d\ninput x[d], g[d]\nstate h[d]\nh = sigmoid(prev(g, 1))*h + prev(x, 2)\noutput h[d]",
        lambda v: {
            "h": torch.sigmoid(v["prev.g"][:, 0]) * v.h + v["prev.x"][:, 0],
            "prev.g": v.g[:, None],
            "prev.x": torch.stack([v["prev.x"][:, 1], v.x], 1),
        },
        {"d": 2},
    )


def test_the_last_tap_meets_the_current_token_as_in_conv1d() -> None:
    op = operator("axes d, w = 3\ninput x[d]\nparam kernel[d,w]\ny = conv[w](x, kernel)\noutput y[d]")
    x, kernel = torch.randn(2, 6, 4, dtype=D), torch.randn(4, 3, dtype=D)
    expected = F.conv1d(F.pad(x.transpose(1, 2), (2, 0)), kernel[:, None], groups=4).transpose(1, 2)
    for form, out, _ in both(op, x, kernel):
        torch.testing.assert_close(out, expected, msg=form)


def test_prev_and_conv_share_one_buffer() -> None:
    def step(v):
        past = torch.cat([v["prev.x"], v.x[:, None]], 1)
        return {
            "y": torch.einsum("bwd,dw->bd", past[:, -3:], v.kernel) + past[:, 0],
            "prev.x": past[:, 1:],
        }

    agree(
        "axes d, w = 3\ninput x[d]\nparam kernel[d,w]\ny = conv[w](x, kernel) + prev(x, 4)\noutput y[d]",
        step,
        {"d": 2},
        time=7,
    )


def test_conv_with_a_kernel_for_all_channels_and_one_that_changes() -> None:
    def step(v):
        past = torch.cat([v["prev.x"], v.x[:, None]], 1)
        return {
            "y": torch.einsum("bwd,w->bd", past, v.kernel) + torch.einsum("bwd,bw->bd", past, v.moving),
            "z": torch.einsum("bwd,we->bde", past, v.wide),
            "prev.x": past[:, 1:],
        }

    agree(
        "axes d, e, w = 2\ninput x[d], moving[w]\nparam kernel[w], wide[w,e]\n"
        "y = conv[w](x, kernel) + conv[w](x, moving)\nz = conv[w](x, wide)\noutput y[d], z[d,e]",
        step,
        {"d": 2, "e": 2},
    )


def test_conv_with_one_tap_and_a_complex_kernel() -> None:
    agree(
        "axes w = 1\ninput x\nparam kernel[w]\ny = conv[w](x, kernel)\noutput y",
        lambda v: {"y": v.x * v.kernel[0]},
    )
    agree(
        "axes w = 2\ninput x\nparam kernel[w]: complex\ny = conv[w](x, kernel)\noutput y",
        lambda v: {"y": v["prev.x"][:, 0] * v.kernel[0] + v.x * v.kernel[1], "prev.x": v.x[:, None]},
    )


def test_prev_of_a_complex_an_int_and_a_bool() -> None:
    agree(
        "input z: complex, n: int, b: bool\nu = z - prev(z)\nm = n - prev(n)\nc = b * prev(b)\noutput u, m, c",
        lambda v: {
            "u": v.z - v["prev.z"][:, 0], "m": v.n - v["prev.n"][:, 0], "c": v.b & v["prev.b"][:, 0],
            "prev.z": v.z[:, None], "prev.n": v.n[:, None], "prev.b": v.b[:, None],
        },
    )  # fmt: skip


def test_prev_takes_a_name() -> None:
    for text in (
        "y = prev(x + 1, 1)",
        "y = prev(a, 1)",
        "y = prev(h, 1)",
        "y = prev(x, 0)",
        "y = prev(x, 1.5)",
        "y = prev(x, a)",
    ):
        refused(f"input x\nparam a\nstate h\nh = x\n{text}\noutput y")


# --- for ---


def test_for_repeats_its_statements_once_per_index() -> None:
    def step(v):
        S = v.S
        for p in range(3):
            u = v.v[:, p] - torch.einsum("bi,bij->bj", v.k[:, p], S)
            S = S + v.beta[:, p, None, None] * v.k[:, p, :, None] * u[:, None]
        return {"S": S, "o": torch.einsum("bi,bij->bj", v.q, S)}

    agree(
        "axes i, j, p = 3\ninput q[i], k[p,i], v[p,j], beta[p]\nstate S[i,j]\n"
        "for p {\n    u = v - k · S\n    S = S + beta * k * u\n}\no = q · S\noutput o[j]",
        step,
        {"i": 2, "j": 2},
    )


def test_states_with_the_axis_are_slices() -> None:
    def step(v):
        P, carry = v.P.clone(), v.c
        for p in range(2):
            P = torch.stack([v.a[q] * P[:, q] + v.x + carry if q == p else P[:, q] for q in range(2)], 1)
            carry = 0.5 * carry + P[:, p]
        return {"P": P, "c": carry}

    agree(
        "axes p = 2\ninput x\nparam a[p]\nstate P[p], c\nfor p {\n P = a*P + x + c\n c = 0.5*c + P\n}\noutput P[p], c",
        step,
    )


def test_locals_are_scoped_to_the_block() -> None:
    agree(
        "axes p = 2, q = 2\ninput x[p], y[q]\nstate s\nfor p { t = x * 2; s = s + t }\nfor q { t = y * 3; s = s + t }\n"
        "t = s * 1\noutput t",
        lambda v: dict.fromkeys(("s", "t"), v.s + 2 * v.x.sum(1) + 3 * v.y.sum(1)),
    )
    assert "local to a `for` block" in refused(
        "axes p = 2\ninput x[p]\nstate s\nfor p { t = x; s = s + t }\ny = t\noutput y"
    )


def test_for_in_one_line_nested_and_over_one_index() -> None:
    agree(
        "axes p = 1, q = 2\ninput x[p,q]\nstate s\nfor p { for q { s = 2*s + x } }\noutput s",
        lambda v: {"s": 4 * v.s + 2 * v.x[:, 0, 0] + v.x[:, 0, 1]},
    )


def test_for_needs_a_fixed_size() -> None:
    assert "E0311" in refused("axes p\ninput x[p]\nstate s\nfor p { s = s + x }\noutput s")


def test_a_state_may_be_assigned_in_a_block_only_partly_read() -> None:
    """A state without the axis is carried from turn to turn; its slices of inputs differ."""
    agree(
        "axes p = 3, d\ninput x[p,d], g\nstate m[d] = -inf\nfor p { m = max(m + g, x) }\noutput m[d]",
        lambda v: {
            "m": torch.maximum(
                torch.maximum(torch.maximum(v.m + v.g[:, None], v.x[:, 0]) + v.g[:, None], v.x[:, 1]) + v.g[:, None],
                v.x[:, 2],
            )
        },
        {"d": 2},
        start={"m": -math.inf},
    )
