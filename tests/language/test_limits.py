"""Gates and tokens at the ends of their range, and causality, in every form."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from language.support import agree, operator, refused

import scanc

D = torch.float64
INF = math.inf


def loop(a: torch.Tensor, x: torch.Tensor, combine) -> torch.Tensor:
    h, out = None, []
    for t in range(x.shape[1]):
        h = combine(a[:, t], h, x[:, t])
        out.append(h)
    return torch.stack(out, 1)


def compare(text: str, a: torch.Tensor, x: torch.Tensor, expected: torch.Tensor, loss_of=torch.sum) -> None:
    """Values, and gradients that are finite wherever those of the interpreter are."""
    op = operator(text)
    wanted = None
    for form in ("interpret", *op.forms):
        leaves = [a.clone().requires_grad_(), x.clone().requires_grad_()]
        out = op(*leaves, form=form)
        torch.testing.assert_close(out, expected, msg=lambda text, form=form: f"{form}: {text}", equal_nan=True)
        grads = torch.autograd.grad(torch.where(out.isfinite(), out, 0.0).abs().sum(), leaves)
        wanted = wanted or grads
        for name, grad, want in zip("ax", grads, wanted, strict=True):
            finite = want.isfinite()
            torch.testing.assert_close(
                grad[finite], want[finite], msg=lambda text, name=name, form=form: f"{form}, d{name}: {text}"
            )


GATES = [0.0, -0.0, 1.0, -1.0, 1e-300, 1e60, -0.5, 0.999, 2.0]


@pytest.mark.parametrize("seed", range(4))
def test_linear_gates_of_any_size(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    a = torch.tensor(GATES, dtype=D)[torch.randint(len(GATES), (2, 40, 3), generator=rng)]
    a[:, torch.arange(0, 40, 5)] = 0.0  # so that nothing overflows
    x = torch.randn(2, 40, 3, dtype=D, generator=rng)
    text = "axes d\ninput a[d], x[d]\nstate h[d]\nh = a*h + x\noutput h[d]"
    compare(text, a, x, loop(a, x, lambda a, h, x: x if h is None else a * h + x))


@pytest.mark.parametrize("seed", range(3))
def test_log_gates_of_any_size(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    gates = torch.tensor([0.0, -1e-6, -20.0, -1e4, -INF, 3.0], dtype=D)
    g = gates[torch.randint(6, (2, 50, 2), generator=rng)]
    x = torch.randn(2, 50, 2, dtype=D, generator=rng)
    text = "axes d\ninput g[d], x[d]\nstate h[d]\nh = exp(g)*h + x\noutput h[d]"
    compare(text, g, x, loop(g, x, lambda g, h, x: x if h is None else g.exp() * h + x))


@pytest.mark.parametrize(
    ("semiring", "plus"), [("log", torch.logaddexp), ("maxplus", torch.maximum), ("minplus", torch.minimum)]
)
def test_semiring_gates_of_any_size(semiring: str, plus) -> None:
    rng = torch.Generator().manual_seed(0)
    low = INF if semiring == "minplus" else -INF
    gates = torch.tensor([0.0, -1e-6, -20.0, -1e4, low, 30.0], dtype=D)
    g = gates[torch.randint(6, (2, 50, 2), generator=rng)]
    x = torch.randn(2, 50, 2, dtype=D, generator=rng) * 10
    x[:, 10:20, 0] = low
    text = f"scan s over {semiring}\naxes d\ninput g[d], x[d]\nstate h[d]\nh = g*h + x\noutput h[d]"
    compare(text, g, x, loop(g, x, lambda g, h, x: x if h is None else plus(g + h, x)))


def test_complex_gates_of_any_size() -> None:
    rng = torch.Generator().manual_seed(0)
    gates = torch.tensor([0, 1, -1, 1j, -1j, 0.5 + 0.5j, 2j, 1e-200], dtype=torch.complex128)
    a = gates[torch.randint(8, (2, 40, 2), generator=rng)]
    x = torch.randn(2, 40, 2, dtype=torch.complex128, generator=rng)
    expected = loop(a, x, lambda a, h, x: x if h is None else a * h + x)
    op = operator("axes d\ninput a[d]: complex, x[d]: complex\nstate h[d]: complex\nh = a*h + x\noutput h[d]")
    for form in op.forms:
        torch.testing.assert_close(op(a, x, form=form), expected)


CAUSAL = {
    "gla": "axes i, j\ninput q[i], k[i], v[j], g[i]\nstate S[i,j]\nS = exp(g)*S + k*v\no = q · S\noutput o[j]",
    "delta": "axes i, j\ninput q[i], k[i], v[j]\nstate S[i,j]\nS = S + 0.1*k*(v - k · S)\no = q · S\noutput o[j]",
    "log": "scan s over log\naxes d\ninput g[d], x[d]\nstate h[d]\nh = g*h + x\noutput h[d]",
    "past": "axes d, w = 3\ninput x[d]\nparam k[w]\nstate h[d]\nh = 0.5*h + conv[w](x, k)\ny = h + prev(x)\n"
    "output y[d]",
    "norm": "axes d\ninput x[d]\nstate h[d], n\nn = 0.9*n + norm[d](x)\nh = 0.9*h + x / (1 + n)\noutput h[d]",
}


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("bad", [math.nan, INF, 1e300])
def test_later_tokens_never_reach_earlier_outputs(name: str, bad: float) -> None:
    op = operator(CAUSAL[name])
    spec = op.spec
    tensors = [torch.randn(2, 40, *[3 for _ in decl.axes], dtype=D) for decl in spec.inputs]
    params = [torch.randn(3, dtype=D) for _ in spec.params]
    for form, reverse, at in itertools.product(op.forms, (False, True), (1, 17, 39)):
        spoilt = [t.clone() for t in tensors]
        for t in spoilt:
            t[:, at] = bad
        before = slice(at + 1, None) if reverse else slice(None, at)
        clean = op(*tensors, *params, form=form, reverse=reverse)[:, before]
        found = op(*spoilt, *params, form=form, reverse=reverse)[:, before]
        # May choose another order of sums for the whole sequence, or for the chunk that the token is in.
        if form == "parallel" or (form == "chunked" and name == "gla"):
            torch.testing.assert_close(found, clean, rtol=1e-12, atol=1e-12)
        else:
            assert torch.equal(found, clean), (form, reverse, at)


def test_two_runs_are_bitwise_equal() -> None:
    for text in CAUSAL.values():
        op = operator(text)
        tensors = [torch.randn(2, 40, *[3 for _ in decl.axes], dtype=D) for decl in op.spec.inputs]
        params = [torch.randn(3, dtype=D) for _ in op.spec.params]
        for form in op.forms:
            assert torch.equal(op(*tensors, *params, form=form), op(*tensors, *params, form=form))


# --- imports that work ---


def test_imported_functions(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "base.scan").write_text("# squares\ndef square(x) = x * x\n")
    (tmp_path / "lib" / "norms.scan").write_text(
        'import "base.scan" as b\ndef l2(x[i]) = x * rsqrt(sum[i](b.square(x)) + 1e-6)\ndef local(x[i]) = l2(x) * 2\n'
    )
    (tmp_path / "main.scan").write_text(
        'scan main\nimport "lib/norms.scan" as norms\naxes d\ninput x[d]\nstate h[d]\n'
        "h = 0.5*h + norms.l2[d](x)\ny = norms.local[d](h)\noutput y[d]"
    )
    op = scanc.load(tmp_path / "main.scan", target="torch")
    x = torch.randn(2, 4, 3, dtype=D)

    def l2(x: torch.Tensor) -> torch.Tensor:
        return x * ((x * x).sum(-1, keepdim=True) + 1e-6).rsqrt()

    h, expected = torch.zeros(2, 3, dtype=D), []
    for t in range(4):
        h = 0.5 * h + l2(x[:, t])
        expected.append(2 * l2(h))
    for form in op.forms:
        torch.testing.assert_close(op(x, form=form), torch.stack(expected, 1))
    again = scanc.load(str(tmp_path / "main.scan"), target="torch")
    (tmp_path / "lib" / "base.scan").write_text("def square(x) = x * x * 4\n")
    changed = scanc.load(tmp_path / "main.scan", target="torch")
    assert torch.equal(again(x), op(x))
    assert not torch.allclose(changed(x), op(x))


def test_what_is_imported_keeps_its_own_names_to_itself(tmp_path: Path) -> None:
    (tmp_path / "a.scan").write_text("def helper(x) = x + 1\ndef f(x) = helper(x)\n")
    (tmp_path / "main.scan").write_text(
        'scan main\nimport "a.scan" as a\ninput x\ndef helper(x) = x * 100\ny = a.f(x) + helper(x)\noutput y'
    )
    op = scanc.load(tmp_path / "main.scan", target="torch")
    assert op(torch.ones(1, 1, dtype=D)).item() == 102
    (tmp_path / "main.scan").write_text('scan main\nimport "a.scan" as a\ninput x\ny = f(x)\noutput y')
    with pytest.raises(Exception, match="E0202"):
        scanc.load(tmp_path / "main.scan", target="torch")


# --- odds and ends ---


def test_for_over_a_batch_axis_and_over_an_axis_of_a_matrix() -> None:
    agree(
        "batch p = 2\naxes d\ninput x[p,d]\nstate s[d], P[p,d]\nfor p { s = 0.5*s + x; P = P + s }\n"
        "output s[d], P[p,d]",
        lambda v: (lambda a, b: {"s": b, "P": torch.stack([v.P[:, 0] + a, v.P[:, 1] + b], 1)})(
            0.5 * v.s + v.x[:, 0], 0.5 * (0.5 * v.s + v.x[:, 0]) + v.x[:, 1]
        ),
        {"d": 2},
    )
    assert "E0808" in refused(
        "axes n = 2\ninput x[n]\nparam A[n,n]\nstate s\nfor n { s = s + x * sum[n](A) }\noutput s"
    )


def test_a_local_that_is_an_alias_of_a_state_keeps_the_old_value() -> None:
    agree(
        "axes d\ninput x[d]\nstate h[d]\nold = h\nalso = old\nh = h + x\ny = also * h - old\noutput y[d], old[d]",
        lambda v: {"h": v.h + v.x, "y": v.h * (v.h + v.x) - v.h, "old": v.h},
        {"d": 2},
    )


def test_states_that_feed_each_other_linearly_and_nonlinearly() -> None:
    agree(
        "axes d\ninput x[d]\nparam a, b\nstate u[d], w[d], z[d]\nu = a*u + b*w + x\nw = w*0.5 - u\n"
        "z = z * sigmoid(u) + tanh(w)\n"
        "output z[d]",
        lambda v: (lambda u: (lambda w: {"u": u, "w": w, "z": v.z * torch.sigmoid(u) + torch.tanh(w)})(v.w * 0.5 - u))(
            v.a * v.u + v.b * v.w + v.x
        ),
        {"d": 2},
    )


def test_int_and_bool_states_steer_a_linear_recurrence() -> None:
    agree(
        "axes d\ninput x[d], reset: bool\nstate n: int, h[d], open: bool\nn = where(reset, 0, n + 1)\nopen = n > 2\n"
        "h = where(open, 0.5, 0.9) * h + x / (1 + n)\noutput h[d], n, open",
        lambda v: (
            lambda n: {
                "n": n,
                "open": n > 2,
                "h": torch.where(n > 2, 0.5, torch.tensor(0.9, dtype=D))[:, None] * v.h + v.x / (1 + n[:, None]),
            }
        )(torch.where(v.reset, 0, v.n + 1)),
        {"d": 2},
        time=9,
        random_start=False,
    )


def test_an_output_may_have_batch_axes_only_or_all_axes_in_any_order() -> None:
    agree(
        "batch g, h\naxes i, j\ninput x[g,i], y[h,j]\nz = x*y\ns = sum[i,j](z)\noutput z[j,h,i,g], s[h*g]",
        lambda v: (lambda z: {"z": z.permute(0, 4, 3, 2, 1), "s": z.sum((2, 4)).transpose(1, 2).flatten(1)})(
            v.x[:, :, :, None, None] * v.y[:, None, None]
        ),
        {"g": 2, "h": 3, "i": 2, "j": 2},
    )
