"""One time step, executed top to bottom: order of lines, states, statements, names."""

from __future__ import annotations

import math

import pytest
import torch
from language.support import agree, operator, refused


def test_the_state_name_holds_the_previous_value_until_it_is_assigned() -> None:
    agree(
        "axes d\ninput x[d]\nparam a[d]\nstate h[d]\nbefore = h\nh = a*h + x\nafter = h\noutput before[d], after[d]",
        lambda v: {"before": v.h, "h": v.a * v.h + v.x, "after": v.a * v.h + v.x},
        {"d": 3},
    )


def test_what_a_state_holds_at_the_end_goes_to_the_next_step() -> None:
    agree(
        "axes d\ninput x[d]\nstate h[d]\nh = 0.5*h\nh = h + x\nh = h * 0.9 + 0.1*x\ny = h\noutput y[d]",
        lambda v: dict.fromkeys(("h", "y"), (0.5 * v.h + v.x) * 0.9 + 0.1 * v.x),
        {"d": 2},
    )


def test_a_decay_followed_by_a_delta_write() -> None:
    def step(v):
        S = v.g.exp()[:, :, None, None] * v.S
        S = S + (v.beta[:, :, None] * v.k)[..., None] * (v.v - torch.einsum("bhi,bhij->bhj", v.k, S))[:, :, None]
        return {"S": S, "o": torch.einsum("bhi,bhij->bhj", v.q, S)}

    agree(
        "batch h\naxes i, j\ninput q[h,i], k[h,i], v[h,j], g[h], beta[h]\nstate S[h,i,j]\n"
        "S = exp(g) * S\nS = S + beta * k * (v - k · S)\no = q · S\noutput o[h,j]",
        step,
        {"h": 2, "i": 3, "j": 2},
    )


def test_a_read_before_a_write() -> None:
    def step(v):
        kv = v.k[..., None] * v.v[:, :, None]
        o = torch.einsum("bhi,bhij->bhj", v.r, v.S + v.u[..., None] * kv)
        return {"o": o, "S": v.w.exp()[..., None] * v.S + kv}

    agree(
        "batch h\naxes i, j\ninput r[h,i], k[h,i], v[h,j], w[h,i]\nparam u[h,i]\nstate S[h,i,j]\n"
        "o = r · (S + u * k * v)\nS = exp(w) * S + k * v\noutput o[h,j]",
        step,
        {"h": 2, "i": 3, "j": 2},
    )


def test_two_states_in_order_of_their_lines() -> None:
    """The second line sees the first one's new value."""
    agree(
        "axes d\ninput x[d]\nparam a[d], b[d]\nstate u[d], w[d]\nu = a*u + x + w\nw = b*w + u\noutput w[d]",
        lambda v: {"u": v.a * v.u + v.x + v.w, "w": v.b * v.w + v.a * v.u + v.x + v.w},
        {"d": 3},
    )


def test_states_that_change_places() -> None:
    agree(
        "axes d\ninput x[d]\nstate u[d], w[d]\nt = u\nu = w + x\nw = t\noutput u[d], w[d]",
        lambda v: {"u": v.w + v.x, "w": v.u},
        {"d": 2},
    )


def test_a_state_that_is_never_assigned_keeps_its_value() -> None:
    agree(
        "axes d\ninput x[d]\nstate h[d] = 2\ny = h*x\noutput y[d]",
        lambda v: {"y": v.h * v.x},
        {"d": 2},
        start={"h": 2.0},
    )


def test_a_spec_without_states() -> None:
    agree("axes d\ninput x[d], g[d]\nparam w[d]\ny = silu(g) * x * w\noutput y[d]",
          lambda v: {"y": torch.nn.functional.silu(v.g) * v.x * v.w}, {"d": 3})  # fmt: skip


def test_a_spec_without_axes() -> None:
    agree("input x, a\nstate h\nh = a*h + x\noutput h", lambda v: {"h": v.a * v.h + v.x})
    agree("input x[], a[]\nstate h[]\nh = a*h + x\noutput h[]", lambda v: {"h": v.a * v.h + v.x})


def test_the_mission_in_unicode_and_in_ascii() -> None:
    head = "axes d, n\ninput x[d], A(x)[d,n], B(x)[n], C(x)[n]\nstate h[d,n]\nh = A(x)*h + B(x)*x\n"

    def step(v):
        h = v.A * v.h + v.B[:, None] * v.x[..., None]
        return {"h": h, "y": torch.einsum("bn,bdn->bd", v.C, h)}

    for line in ("y = C(x)·h", "y = C(x) dot h", "y = C · h", "y = C⋅h"):
        agree(f"{head}{line}\noutput y[d]", step, {"d": 2, "n": 3})


# --- statements ---


@pytest.mark.parametrize(
    "body",
    [
        "u = x + a; h = u*h; y = h",
        "u = x +\n a".replace("+\n", "+ "),
        "u = (x\n   + a)   # a comment in the middle\nh = u*h; y = h",
        "u = (x # one\n\n\n + a)\nh = u*h\n\n;;\ny = h;",
        "\tu = x + a\r\nh = u*h\r\ny = h\r\n",
        "u = sum[\nd\n](x) * 0 + x + a\nh = u*h\ny = h",
    ],
)
def test_statements_end_at_a_newline_outside_brackets_or_at_a_semicolon(body: str) -> None:
    if "h =" not in body:
        body += "\nh = u*h\ny = h"
    agree(
        f"axes d\ninput x[d]\nparam a[d]\nstate h[d] = 1\n{body}\noutput y[d]",
        lambda v: dict.fromkeys(("h", "y"), (v.x + v.a) * v.h),
        {"d": 2},
        start={"h": 1.0},
        random_start=False,
    )


def test_a_newline_ends_a_statement_even_before_an_operator() -> None:
    assert "E01" in refused("input x\ny = x\n+ 1\noutput y")


def test_declarations_stand_anywhere() -> None:
    agree(
        "h = a*h + x\noutput h[d]\nstate h[d]\nparam a[d]\ninput x[d]\naxes d",
        lambda v: {"h": v.a * v.h + v.x},
        {"d": 2},
    )


def test_a_local_is_assigned_once() -> None:
    assert "assigned twice" in refused("input x\nu = x\nu = u + 1\noutput u")


@pytest.mark.parametrize("value", ["x", "x*y*z"])
def test_an_assignment_to_a_state_has_the_axes_of_the_state(value: str) -> None:
    text = f"axes i, j, m\ninput x[i], y[j], z[m]\nstate S[i,j]\nS = {value}\noutput S[i,j]"
    assert "E0302" in refused(text)


def test_the_axes_of_an_assignment_come_in_any_order() -> None:
    agree(
        "axes i, j\ninput x[i], y[j]\nstate S[j,i]\nS = x*y + 0.5*S\noutput S[j,i]",
        lambda v: {"S": v.y[:, :, None] * v.x[:, None] + 0.5 * v.S},
        {"i": 2, "j": 3},
    )
    agree(
        "axes i, j\ninput x[i], y[j], M[j,i]\nstate S[j,i]\nS = x*y + 0.5*S\nT = S * M\noutput T[i,j], S[j,i]",
        lambda v: (lambda S: {"S": S, "T": (S * v.M).transpose(1, 2)})(v.y[:, :, None] * v.x[:, None] + 0.5 * v.S),
        {"i": 2, "j": 3},
    )


# --- states ---


def test_states_begin_at_zero() -> None:
    op = operator("axes d\ninput x[d]\nstate h[d]\nbefore = h\nh = x\noutput before[d]")
    x = torch.randn(2, 1, 3, dtype=torch.float64)
    for form in op.forms:
        assert torch.equal(op(x, form=form), torch.zeros(2, 1, 3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("semiring", "zero"), [("log", -math.inf), ("maxplus", -math.inf), ("minplus", math.inf), ("real", 0.0)]
)
def test_states_begin_at_the_zero_of_the_semiring(semiring: str, zero: float) -> None:
    op = operator(
        f"scan s over {semiring}\naxes d\ninput x[d]\nstate h[d]\nbefore = h\nh = h + x\noutput before[d], h[d]"
    )
    x = torch.randn(2, 1, 3, dtype=torch.float64)
    for form in op.forms:
        before, after = op(x, form=form)
        assert torch.equal(before, torch.full_like(x, zero))
        torch.testing.assert_close(after, x)


@pytest.mark.parametrize("written", ["-inf", "inf", "-1.5", "3", "1e-30", "-0.0"])
def test_a_number_as_initial_value(written: str) -> None:
    op = operator(f"axes d\ninput x[d]\nstate m[d] = {written}\nbefore = m\nm = x\noutput before[d]")
    x = torch.randn(2, 1, 3, dtype=torch.float64)
    for form in op.forms:
        assert torch.equal(op(x, form=form), torch.full_like(x, float(written)))


def test_a_param_as_initial_value_is_learned() -> None:
    agree(
        "axes d\ninput x[d]\nparam c0[d], a[d]\nstate c[d] = c0\nc = a*c + x\noutput c[d]",
        lambda v: {"c": v.a * v.c + v.x},
        {"d": 3},
        start={"c": "c0"},
    )


def test_a_param_as_initial_value_with_its_axes_in_another_order() -> None:
    op = operator("axes i, j\ninput x[i]\nparam c0[j,i]\nstate c[i,j] = c0\nc = c * x\noutput c[i,j]")
    x = torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True)
    c0 = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    expected = c0.T[None, None] * x.cumprod(1)[..., None]
    weight = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * weight).sum(), (x, c0))
    for form in op.forms:
        found = op(x, c0, form=form)
        torch.testing.assert_close(found, expected)
        for grad, want in zip(torch.autograd.grad((found * weight).sum(), (x, c0)), wanted, strict=True):
            torch.testing.assert_close(grad, want)


def test_a_param_as_initial_value_of_a_nonlinear_state_read_in_the_body_too() -> None:
    agree(
        "axes d\ninput x[d]\nparam c0[d]\nstate c[d] = c0\nc = tanh(c + c0*x)\noutput c[d]",
        lambda v: {"c": torch.tanh(v.c + v.c0 * v.x)},
        {"d": 3},
        start={"c": "c0"},
    )


def test_a_given_state_comes_before_the_declared_one_and_the_param_then_has_no_gradient() -> None:
    op = operator("axes d\ninput x[d]\nparam c0[d], a[d]\nstate c[d] = c0\nc = a*c + x\noutput c[d]")
    x, c0, a = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((2, 3, 2), (2,), (2,)))
    s = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    for form in op.forms:
        grads = torch.autograd.grad(op(x, c0, a, initial_state=s, form=form).sum(), (c0, s), allow_unused=True)
        assert grads[0] is None or not grads[0].any()
        torch.testing.assert_close(grads[1], (a + a**2 + a**3).detach().expand(2, 2))


# --- names ---


def test_greek_is_spelled_out() -> None:
    op = operator("axes d\ninput x[d], Δ[d]\nparam λ_max[d]\nstate h[d]\nα = exp(-λ_max*Δ)\nh = α*h + x\noutput h[d]")
    assert [decl.name for decl in op.spec.inputs] == ["x", "Delta"]
    assert [decl.name for decl in op.spec.params] == ["lambda_max"]
    x, d, m = torch.randn(2, 4, 3), torch.rand(2, 4, 3), torch.rand(3)
    torch.testing.assert_close(op(x, d, m), op(x, Delta=d, lambda_max=m))
    assert "Delta" in op.code("torch")
    code = "\n".join(line for line in op.code("torch").splitlines() if not line.lstrip().startswith("#"))
    assert "Δ" not in code


def test_greek_and_its_spelling_are_one_name() -> None:
    agree("input Δ\ny = 2*Delta\noutput y", lambda v: {"y": 2 * v.Delta})
    assert "declared twice" in refused("input Δ, Delta\ny = Δ\noutput y")


@pytest.mark.parametrize("letter", ["а", "Α", "ο", "é", "ä", "ℓ", "𝑥", "ａ", "ı", "ß", "x́", "ς", "ϵ", "²", "名"])
def test_other_letters_are_errors_with_a_hint(letter: str) -> None:
    message = refused(f"input {letter}, x\ny = x\noutput y")
    assert "E010" in message
    assert "help" in message or "hint" in message


def test_every_greek_letter_is_a_name() -> None:
    letters = "αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩ"
    text = "input " + ", ".join(letters) + "\ny = " + " + ".join(letters) + "\noutput y"
    op = operator(text)
    tensors = [torch.randn(1, 2, dtype=torch.float64) for _ in letters]
    for form in op.forms:
        torch.testing.assert_close(op(*tensors, form=form), sum(tensors))
