"""`scan … over S`: the operations of S, its constants, `value(…)`; continuous time."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from language.support import Values, agree, operator, refused

D = torch.float64


def logmatmul(v: torch.Tensor, A: torch.Tensor) -> torch.Tensor:
    return torch.logsumexp(v[..., :, None] + A, -2)


# --- semirings ---


def test_log_plus_is_logaddexp_and_times_is_plus() -> None:
    agree(
        "scan s over log\naxes d\ninput x[d], g[d]\nstate h[d]\nh = g*h + x\noutput h[d]",
        lambda v: {"h": torch.logaddexp(v.g + v.h, v.x)},
        {"d": 2},
        start={"h": -math.inf},
    )


@pytest.mark.parametrize(
    ("semiring", "plus", "zero"), [("maxplus", torch.maximum, -math.inf), ("minplus", torch.minimum, math.inf)]
)
def test_tropical_semirings(semiring: str, plus, zero: float) -> None:
    agree(
        f"scan s over {semiring}\naxes d\ninput x[d], g[d]\nstate h[d]\nh = g*h + x\noutput h[d]",
        lambda v: {"h": plus(v.g + v.h, v.x)},
        {"d": 2},
        start={"h": zero},
    )


def test_bool_is_or_and_and() -> None:
    agree(
        "scan s over bool\naxes d\ninput x[d], g[d]\nstate h[d]\nh = g*h + x\noutput h[d]",
        lambda v: {"h": v.g & v.h | v.x},
        {"d": 3},
    )
    agree(
        "scan s over bool\naxes n\ninput x[n]\nparam E[n,n]\nstate h[n] = one\nh = h @ E + x\nany = sum[n](h)\n"
        "both = x · h\n"
        "output h[n], any, both",
        lambda v: (lambda h: {"h": h, "any": h.any(-1), "both": (v.x & h).any(-1)})(
            (v.h[..., :, None] & v.E).any(-2) | v.x
        ),
        {"n": 3},
        start={"h": True},
    )


def test_contractions_and_sums_are_those_of_the_semiring() -> None:
    agree(
        "scan s over log\naxes n, m\ninput x[n], y[n,m]\nparam A[n,n]\na = x @ A\nb = A @ x\nc = x · y\n"
        "d = sum[n,m](y)\n"
        "e = A @ A @ x\noutput a[n], b[n], c[m], d, e[n]",
        lambda v: {
            "a": logmatmul(v.x, v.A),
            "b": logmatmul(v.x, v.A.T),
            "c": torch.logsumexp(v.x[..., None] + v.y, 1),
            "d": torch.logsumexp(v.y, (1, 2)),
            "e": logmatmul(logmatmul(v.x, v.A.T), v.A.T),
        },
        {"n": 3, "m": 2},
    )
    agree(
        "scan s over minplus\naxes n, m\ninput x[n], y[n,m]\nparam A[n,n]\na = x @ A\nc = x · y\nd = sum[m](y)\n"
        "output a[n], c[m], d[n]",
        lambda v: {
            "a": (v.x[..., :, None] + v.A).amin(-2),
            "c": (v.x[..., None] + v.y).amin(1),
            "d": v.y.amin(2),
        },
        {"n": 3, "m": 2},
    )


def test_hmm_forward_against_all_paths() -> None:
    op = operator(
        "scan hmm_forward over log\naxes s\ninput emission[s]\nparam transition[s,s], start[s]\n"
        "state alpha[s] = start\n"
        "alpha = (alpha @ transition) * emission\nlikelihood = sum[s](alpha)\noutput likelihood"
    )
    e, A, p = torch.randn(1, 3, 2, dtype=D), torch.randn(2, 2, dtype=D), torch.randn(2, dtype=D)
    total = 0.0
    for path in itertools.product(range(2), repeat=4):
        logp = p[path[0]] + sum(A[path[t], path[t + 1]] + e[0, t, path[t + 1]] for t in range(3))
        total += math.exp(logp)
    for form in op.forms:
        assert op(e, A, p, form=form)[0, -1].item() == pytest.approx(math.log(total), rel=1e-12)


def test_literals_are_carrier_values() -> None:
    agree(
        "scan s over log\ninput x\nstate h = -1\nh = h * 0.5 + 2 * x + 3\noutput h",
        lambda v: {"h": torch.logaddexp(torch.logaddexp(v.h + 0.5, 2 + v.x), torch.tensor(3.0, dtype=D))},
        start={"h": -1.0},
    )
    agree(
        "scan s over maxplus\ninput x\nstate h\nh = h * -0.5 + x\noutput h",
        lambda v: {"h": torch.maximum(v.h - 0.5, v.x)},
        start={"h": -math.inf},
    )


def test_zero_and_one_are_constants() -> None:
    agree(
        "scan s over log\ninput x\nstate h = one\nh = one * h * x + zero\ny = x * zero\n"
        "z = where(value(x > 0), one, zero)\noutput h, y, z",
        lambda v: {
            "h": v.h + v.x,
            "y": torch.full_like(v.x, -math.inf),
            "z": torch.where(v.x > 0, 0.0, -math.inf).to(D),
        },
        start={"h": 0.0},
    )
    agree(
        "scan s over minplus\ninput x\nstate h = zero\nh = h + x * one\ny = zero + x\noutput h, y",
        lambda v: {"h": torch.minimum(v.h, v.x), "y": v.x},
        start={"h": math.inf},
    )


def test_value_is_ordinary_arithmetic() -> None:
    agree(
        "scan s over log\naxes d\ninput x[d], r[d]\nstate h[d]\nh = value(logsigmoid(x) - 2*x) * h + value(-r^2 / 3)\n"
        "y = value(exp(h) + x*r)\noutput h[d], y[d]",
        lambda v: (lambda h: {"h": h, "y": h.exp() + v.x * v.r})(
            torch.logaddexp(torch.nn.functional.logsigmoid(v.x) - 2 * v.x + v.h, -(v.r**2) / 3)
        ),
        {"d": 2},
        start={"h": -math.inf},
    )


def test_value_within_a_function_and_a_function_within_value() -> None:
    agree(
        "scan s over log\ninput x, r\ndef both(a, b) = a + b\ny = both(x, r) * value(both(x, r))\noutput y",
        lambda v: {"y": torch.logaddexp(v.x, v.r) + v.x + v.r},
    )


@pytest.mark.parametrize(
    "expression",
    ["x - r", "x / r", "-x", "exp(x)", "x ^ 2", "max(x, r)", "x > r", "mean[d](x)", "softmax[d](x)", "logsumexp[d](x)",
     "norm[d](x)", "abs(x)", "clamp(x, 0, 1)"],
)  # fmt: skip
def test_other_arithmetic_appears_only_inside_value(expression: str) -> None:
    axes = "" if "[d]" in expression and "softmax" not in expression else "[d]"
    assert "E0502" in refused(f"scan s over log\naxes d\ninput x[d], r[d]\ny = {expression}\noutput y{axes}")
    operator(f"scan s over log\naxes d\ninput x[d], r[d]\ny = value({expression})\noutput y{axes}")


def test_where_stop_rename_and_prev_stand_anywhere() -> None:
    agree(
        "scan s over maxplus\naxes i, m = i\ninput x[i], b: bool\n"
        "y = where(b, x, prev(x)) + stop(x) * rename[i=m](x)\noutput y[i,m]",
        lambda v: {
            "y": torch.maximum(
                torch.where(v.b[:, None], v.x, v["prev.x"][:, 0])[..., None],
                v.x.detach()[..., None] + v.x[:, None],
            ),
            "prev.x": v.x[:, None],
        },
        {"i": 2},
        start={"prev.x": -math.inf},
    )


def test_an_unknown_semiring_is_an_error() -> None:
    assert "E0501" in refused("scan s over tropical\ninput x\ny = x\noutput y")


def test_over_real_is_the_default() -> None:
    agree("scan s over real\ninput x\nstate h\nh = 0.5*h + x\noutput h", lambda v: {"h": 0.5 * v.h + v.x})


# --- continuous time ---

phi = lambda z: torch.expm1(z) / z  # noqa: E731
RULES = {
    "zoh(step)": lambda z, s, u: (z.exp(), s * phi(z) * u),
    "bilinear(step)": lambda z, s, u: ((1 + z / 2) / (1 - z / 2), s / (1 - z / 2) * u),
    "gbt(step, 0.3)": lambda z, s, u: ((1 + 0.7 * z) / (1 - 0.3 * z), s / (1 - 0.3 * z) * u),
    "euler(step)": lambda z, s, u: (1 + z, s * u),
    "backward_euler(step)": lambda z, s, u: (1 / (1 - z), s / (1 - z) * u),
    "mamba(step)": lambda z, s, u: (z.exp(), s * u),
    "dirac(step)": lambda z, s, u: (z.exp(), u),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ["", ": complex"])
def test_discretisation_rules(rule: str, kind: str) -> None:
    def step(v: Values):
        dt = torch.nn.functional.softplus(v.delta)[..., None]
        decay, term = RULES[rule](dt * v.A, dt, v.Bm[:, None] * v.x[..., None])
        h = decay * v.h + term
        return {"h": h, "y": (h @ v.C).real if kind else h @ v.C}

    read = "real(C · h)" if kind else "C · h"
    agree(
        f"axes d, n\ninput x[d], delta[d], Bm[n]\nparam A[d,n]{kind}, C[n]{kind}\nstate h[d,n]{kind}\n"
        f"step = softplus(delta)\nd/dt h = A*h + Bm*x      discretize {rule}\ny = {read}\noutput y[d]",
        step,
        {"d": 2, "n": 2},
        tolerance=1e-8,
    )


def test_asynchronous_discretisation() -> None:
    def step(v: Values):
        h = (v.A * (v.s * v.dt)[:, None]).exp() * v.h + torch.expm1(v.A * v.s[:, None]) / v.A * v.x[:, None]
        return {"h": h}

    agree(
        "axes n\ninput x, s, dt\nparam A[n]\nstate h[n]\nd/dt h = A*h + x  discretize async(s, dt)\noutput h[n]",
        step,
        {"n": 2},
        tolerance=1e-8,
    )


def test_exp_trapezoid_carries_the_previous_input_term() -> None:
    def step(v: Values):
        u = v.Bm[:, None] * v.x[..., None]
        dt, lam = v.dt[..., None], v.lam[:, None, None]
        h = (dt * v.A).exp() * v.h + lam * dt * u + (1 - lam) * dt * (dt * v.A).exp() * v["ode.h"]
        return {"h": h, "ode.h": u}

    agree(
        "axes d, n\ninput x[d], dt[d], Bm[n], lam\nparam A[d,n]\nstate h[d,n]\n"
        "d/dt h = A*h + Bm*x    discretize exp_trapezoid(dt, lam)\noutput h[d,n]",
        step,
        {"d": 2, "n": 2},
    )


def test_the_parts_of_an_affine_right_side_are_found_however_it_is_written() -> None:
    for written in ("a*h + x", "x + h*a", "-(-a*h) + x", "h*(a - 1) + h + x", "(h*a*2 + 2*x) / 2", "x - h*(-a)"):
        agree(
            f"axes d\ninput x[d]\nparam a[d]\nstate h[d]\nd/dt h = {written}  discretize bilinear(0.1)\noutput h[d]",
            lambda v: {"h": ((1 + 0.05 * v.a) * v.h + 0.1 * v.x) / (1 - 0.05 * v.a)},
            {"d": 2},
        )


def test_continuous_time_without_a_rate_and_without_an_input() -> None:
    agree(
        "input x\nstate h\nd/dt h = x  discretize zoh(0.5)\noutput h",
        lambda v: {"h": v.h + 0.5 * v.x},
    )
    agree(
        "input x\nparam a\nstate h = 1\nd/dt h = a*h  discretize zoh(0.5)\ny = h*x\noutput y",
        lambda v: (lambda h: {"h": h, "y": h * v.x})((0.5 * v.a).exp() * v.h),
        start={"h": 1.0},
    )


def test_zoh_where_the_rate_is_zero() -> None:
    op = operator("input x, s\nparam a\nstate h\nd/dt h = a*h + x  discretize zoh(s)\noutput h")
    x, s, a = torch.randn(1, 4, dtype=D), torch.rand(1, 4, dtype=D), torch.zeros((), dtype=D)
    for form in op.forms:
        leaves = [t.clone().requires_grad_() for t in (x, s, a)]
        out = op(*leaves, form=form)
        torch.testing.assert_close(out, (x * s).cumsum(1))
        assert all(grad.isfinite().all() for grad in torch.autograd.grad(out.sum(), leaves))


def test_a_nonlinear_right_side_is_an_error() -> None:
    for written in ("h*h + x", "tanh(h)", "x / h", "exp(x + h)"):
        text = f"input x\nstate h\nd/dt h = {written}  discretize zoh(0.1)\noutput h"
        assert "error[E07" in refused(text)


def _zoh_dense(A: torch.Tensor, s: float, u: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    n = A.shape[-1]
    block = torch.cat([torch.cat([A * s, torch.eye(n, dtype=D) * s], 1), torch.zeros(n, 2 * n, dtype=D)])
    whole = torch.linalg.matrix_exp(block)
    return h @ whole[:n, :n].T + u @ whole[:n, n:].T


@pytest.mark.parametrize(
    ("rule", "step"),
    [
        ("zoh(0.3)", lambda A, u, h: _zoh_dense(A, 0.3, u, h)),
        (
            "bilinear(0.3)",
            lambda A, u, h: (
                torch.linalg.solve(
                    torch.eye(2, dtype=D) - 0.15 * A, (h @ (torch.eye(2, dtype=D) + 0.15 * A).T + 0.3 * u).T
                ).T
            ),
        ),
        ("euler(0.3)", lambda A, u, h: h + 0.3 * (h @ A.T + u)),
    ],
)
def test_dense_rates(rule: str, step) -> None:
    text = f"axes n\ninput x\nparam A[n,n], Bm[n]\nstate h[n]\nd/dt h = A @ h + Bm*x  discretize {rule}\noutput h[n]"
    agree(text, lambda v: {"h": step(v.A, v.Bm * v.x[:, None], v.h)}, {"n": 2})


def test_diagonal_minus_low_rank() -> None:
    """S4's form."""

    def step(v: Values):
        A = torch.diag(v.L) - v.P[:, None] * v.Q
        return {"h": v.h + 0.1 * (v.h @ A.T + v.Bm * v.x[:, None])}

    agree(
        "axes n\ninput x\nparam L[n], P[n], Q[n], Bm[n]\nstate h[n]\n"
        "d/dt h = L*h - P*(Q·h) + Bm*x  discretize euler(0.1)\noutput h[n]",
        step,
        {"n": 3},
    )
