"""Each construct and the instructions that it becomes; what it computes is the interpreter's to say."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from scanc.interpreter import interpret
from scanc.ir.levels import verify
from scanc.ir.nodes import Axis, Kind, Level, Program
from scanc.ir.printer import print_op
from scanc.semantics.lower import analyse, lower

HEAD = """scan test
batch h
axes i, j, m = i, w = 3, p = 2
input x[i], y[j], k[h,i], b: bool, n: int, z[i]: complex, s
param a[i], A[i,i], B[i,i], kernel[i,w], c
"""


def program(body: str, *, over: str = "") -> Program:
    text = HEAD.replace("scan test", f"scan test {over}") + body
    made = lower(text)
    verify(made)
    return made


def steps(body: str, *, over: str = "") -> list[str]:
    """The instructions of a body, one line each: `name = op(args)`."""
    return [
        f"{instr.name} = {print_op(instr.op)}({', '.join(instr.args)})" for instr in program(body, over=over).instrs
    ]


def value(expression: str, axes: str, over: str = "") -> list[str]:
    return steps(f"r = {expression}\noutput r{axes}", over=over)


@pytest.mark.parametrize(
    ("expression", "axes", "expected"),
    [
        ("x + a", "[i]", ["r = add(x, a)"]),
        ("x * y", "[i,j]", ["r = mul(x, y)"]),
        ("-x", "[i]", ["r = neg(x)"]),
        ("-2 * x", "[i]", ["c_2 = const{-2.0}()", "r = mul(c_2, x)"]),
        ("x ^ 2", "[i]", ["c_2 = const{2.0}()", "r = pow(x, c_2)"]),
        ("x / size(i)", "[i]", ["size_i = size{i}()", "t = to_real(size_i)", "r = div(x, t)"]),
        ("n + 1", "", ["c_2 = const{1}()", "r = add(n, c_2)"]),
        ("n / 2", "", ["to_real_n = to_real(n)", "c_2 = const{2.0}()", "r = div(to_real_n, c_2)"]),
        ("b * (s > 0)", "", ["c_2 = const{0.0}()", "t = gt(s, c_2)", "r = and(b, t)"]),
        ("b * s", "", ["to_real_b = to_real(b)", "r = mul(to_real_b, s)"]),
        ("z * x", "[i]", ["r = mul(z, x)"]),
        ("x · a", "", ["r = contract.real{i}(x, a)"]),
        ("k · a", "[h]", ["r = contract.real{i}(k, a)"]),
        ("(k * y) · k", "[h,j]", ["t = mul(k, y)", "r = contract.real{i}(t, k)"]),
        ("(x * y) ·[j] (a * y)", "[i]", ["t = mul(x, y)", "t_2 = mul(a, y)", "r = contract.real{j}(t, t_2)"]),
        ("A @ x", "[i]", ["t = rename{i->i_col}(x)", "r = contract.real{i_col}(A, t)"]),
        ("x @ A", "[i]", ["t = contract.real{i}(x, A)", "r = rename{i_col->i}(t)"]),
        (
            "A @ B",
            "[i,i]",
            ["t = rename{i_col->i_mid}(A)", "t_2 = rename{i->i_mid}(B)", "r = contract.real{i_mid}(t, t_2)"],
        ),
        ("rename[i=m](x)", "[m]", ["r = rename{i->m}(x)"]),
        ("sum[i](x)", "", ["r = reduce.sum{i}(x)"]),
        ("max[i](x)", "", ["r = reduce.max{i}(x)"]),
        ("max(x, 0)", "[i]", ["c_2 = const{0.0}()", "r = maximum(x, c_2)"]),
        ("logsumexp[i](x)", "", ["r = reduce.logsumexp{i}(x)"]),
        ("mean[i](x)", "", ["size_i = size{i}()", "t = reduce.sum{i}(x)", "t_2 = to_real(size_i)", "r = div(t, t_2)"]),
        ("norm[i](x)", "", ["t = mul(x, x)", "t_2 = reduce.sum{i}(t)", "r = sqrt(t_2)"]),
        (
            "softmax[i](x)",
            "[i]",
            [
                "t = reduce.max{i}(x)",
                "t_2 = stop(t)",
                "t_3 = expdiff(x, t_2)",
                "t_4 = reduce.sum{i}(t_3)",
                "r = div(t_3, t_4)",
            ],
        ),
        (
            "clamp(x, -1, 1)",
            "[i]",
            ["c_2 = const{-1.0}()", "t = maximum(x, c_2)", "c_3 = const{1.0}()", "r = minimum(t, c_3)"],
        ),
        ("where(b, x, 0)", "[i]", ["c_2 = const{0.0}()", "r = where(b, x, c_2)"]),
        ("where(b, 1, 0)", "", ["c_2 = const{1}()", "c_3 = const{0}()", "r = where(b, c_2, c_3)"]),
        ("stop(x)", "[i]", ["r = stop(x)"]),
        ("complex(x, a)", "[i]", ["r = complex(x, a)"]),
        (
            "polar(x, a)",
            "[i]",
            ["cos_a = cos(a)", "t = mul(x, cos_a)", "sin_a = sin(a)", "t_2 = mul(x, sin_a)", "r = complex(t, t_2)"],
        ),
        (
            "abs(z) + real(z) + imag(conj(z))",
            "[i]",
            [
                "abs_z = abs(z)",
                "real_z = real(z)",
                "t = add(abs_z, real_z)",
                "conj_z = conj(z)",
                "t_2 = imag(conj_z)",
                "r = add(t, t_2)",
            ],
        ),
        ("prev(x, 2)", "[i]", ["r = delay{2}(x)"]),
        ("prev(x)", "[i]", ["r = delay{1}(x)"]),
        ("conv[w](x, kernel)", "[i]", ["r = conv{w}(x, kernel)"]),
        ("value(x)", "[i]", []),
        ("inf", "", ["r = const{inf}()"]),
    ],
)
def test_expression(expression: str, axes: str, expected: list[str]) -> None:
    assert value(expression, axes) == expected


@pytest.mark.parametrize(
    ("over", "plus", "times"),
    [("log", "logaddexp", "add"), ("maxplus", "maximum", "add"), ("minplus", "minimum", "add")],
)
def test_semirings(over: str, plus: str, times: str) -> None:
    reduce = {"log": "logsumexp", "maxplus": "max", "minplus": "min"}[over]
    assert value("x + a * 2", "[i]", f"over {over}") == [
        "c_2 = const{2.0}()",
        f"t = {times}(a, c_2)",
        f"r = {plus}(x, t)",
    ]
    assert value("sum[i](x)", "", f"over {over}") == [f"r = reduce.{reduce}{{i}}(x)"]
    assert value("x · a", "", f"over {over}") == [f"r = contract.{over}{{i}}(x, a)"]
    assert value("value(x + a)", "[i]", f"over {over}") == ["r = add(x, a)"]
    assert value("x * -0.5 + zero", "[i]", f"over {over}")[-1].startswith(f"r = {plus}(")


def test_bool_semiring() -> None:
    text = "scan s over bool\naxes i\ninput x[i], e[i,i], w[i]: real\nstate h[i] = one\n"
    made = lower(text + "h = h @ e + x * value(w > 0) + zero\noutput h[i]")
    verify(made)
    assert [instr.type.kind for instr in made.instrs if instr.name.startswith("h")] == [Kind.BOOL]
    assert made.states[0].init == 1.0
    assert {print_op(instr.op) for instr in made.instrs} >= {"contract.bool{i}", "or", "and"}


def test_states_become_values() -> None:
    body = "state S[h,i]\nbefore = S\nS = 2 * S\nS = S + k\nafter = S * 1\noutput before[h,i], after[h,i], S[i,h]"
    made = program(body)
    assert made.next == (("S", "S_3"),)
    assert [(o.name, o.value) for o in made.outputs] == [("before", "S"), ("after", "after"), ("S", "S_3")]
    assert made.outputs[2].dims == (("i",), ("h",))


def test_a_state_that_is_never_assigned_stays() -> None:
    lowered = analyse(HEAD + "state S[h,i]\nr = S * k\noutput r[h,i]")
    assert lowered.program.next == (("S", "S"),)
    assert "W0102" in {warning.code for warning in lowered.warnings}


def test_an_alias_costs_nothing_until_its_past_is_wanted() -> None:
    assert steps("u = x\nr = u + 1\noutput r[i]") == ["c_2 = const{1.0}()", "r = add(x, c_2)"]
    assert steps("u = x\nr = prev(u, 1)\noutput r[i]") == ["u = rename{}(x)", "r = delay{1}(u)"]


def test_names_of_instructions_follow_the_user() -> None:
    assert steps("t = x + 1\nu = sigmoid(t)\nt_2 = exp(u) + t\noutput t_2[i]")[-2:] == [
        "exp_u = exp(u)",
        "t_2 = add(exp_u, t)",
    ]


def test_continuous_time() -> None:
    body = "state g[i]\nd/dt g = a*g + x  discretize gbt(softplus(s), 0.5)\noutput g[i]"
    assert steps(body) == [
        "softplus_s = softplus(s)",
        "t = mul(a, g)",
        "t_2 = add(t, x)",
        "c_2 = const{0.5}()",
        "g_2 = ode.gbt{g}(g, t_2, softplus_s, c_2)",
    ]


def test_initial_values() -> None:
    made = program("state u[i] = -inf, v[i] = a, q: int = 3\nu = u + x\nv = v + x\nq = q + 1\noutput u[i], v[i], q")
    assert [state.init for state in made.states] == [-math.inf, "a", 3.0]
    assert (
        lower("scan s over minplus\naxes i\ninput x[i]\nstate u[i]\nu = u + x\noutput u[i]").states[0].init == math.inf
    )


def test_widening_into_a_state() -> None:
    made = program("state u[i]: complex, v\nu = u + z\nu = real(u)\nv = n\noutput u[i], v")
    assert [print_op(instr.op) for instr in made.instrs] == ["add", "real", "to_complex", "to_real"]


def test_axes_and_dims() -> None:
    made = lower(
        "scan s\naxes i, j\nbatch g, r = 4\naxes m = i\n"
        "input q[g*r, i], v[j, g], u[g], e[m]\nparam A[j,j]: fp32\nA2 = v @ A\noutput A2[j,g]"
    )
    verify(made)
    assert [axis.name for axis in made.axes] == ["g", "r", "i", "j", "j_col", "m"]
    assert made.axis("j_col") == Axis("j_col", like="j")
    assert made.axis("m") == Axis("m", like="i")
    assert made.axis("r") == Axis("r", 4, batch=True)
    assert made.inputs[0].dims == (("g", "r"), ("i",))
    assert made.inputs[1].type.axes == ("g", "j")
    assert made.params[0].dims == (("j",), ("j_col",))
    assert made.params[0].pin == "float32"


def test_an_axis_that_nothing_uses_is_left_out() -> None:
    assert [axis.name for axis in lower("scan s\naxes i, j\ninput x[i]\ny = 2*x\noutput y[i]").axes] == ["i"]


def test_declared_text_and_spans() -> None:
    text = HEAD + "r = x + a\noutput r[i]"
    lowered = analyse(text, source="t.scan")
    spans = [tensor.span for tensor in (*lowered.program.inputs, *lowered.program.params)]
    assert [lowered.sources["t.scan"][span.start : span.end] for span in spans if span is not None][:6] == [
        "x[i]",
        "y[j]",
        "k[h,i]",
        "b: bool",
        "n: int",
        "z[i]: complex",
    ]
    assert all(instr.span is not None for instr in lowered.program.instrs)
    assert lowered.program.level is Level.TYPED


def test_an_input_that_depends_on_another() -> None:
    text = "scan s\naxes d\ninput x[d], A(x)[d], B(u)[d]\nstate h[d]\nh = A(x)*h + B(u)*x + A\noutput h[d]"
    assert next(lower(text).instrs).args == ("A", "h")


def test_functions_are_written_out() -> None:
    body = "def l2(x[i]) = x * rsqrt(sum[i](x*x))\ndef twice(u[j], q) = l2[j](u) * q\nr = twice(y, s)\noutput r[j]"
    assert steps(body) == [
        "t = mul(y, y)",
        "t_2 = reduce.sum{j}(t)",
        "t_3 = rsqrt(t_2)",
        "t_4 = mul(y, t_3)",
        "r = mul(t_4, s)",
    ]


def test_a_function_may_look_back() -> None:
    assert steps("def shift(x) = x - prev(x, 1)\nu = 2 * x\nr = shift(u)\noutput r[i]")[-2:] == [
        "u_1_ago = delay{1}(u)",
        "r = sub(u, u_1_ago)",
    ]


def test_functions_work_in_the_algebra_of_the_call() -> None:
    body = "def both(x, q) = x + q\nr = both(x, a) * value(both(x, a))\noutput r[i]"
    assert steps(body, over="over log") == ["t = logaddexp(x, a)", "t_2 = add(x, a)", "r = add(t, t_2)"]


def test_for_blocks() -> None:
    head = "scan s\naxes i, p = 2\ninput k[p,i]\nstate P[p,i], S[i]\n"
    made = lower(head + "for p {\n  u = k * S\n  S = S + u\n  P = P * u + prev(k, 1)\n}\noutput S[i], P[p,i]")
    verify(made)
    assert [f"{i.name} = {print_op(i.op)}({', '.join(i.args)})" for i in made.instrs] == [
        "P_p0 = index{p, 0}(P)",
        "k_p0 = index{p, 0}(k)",
        "u = mul(k_p0, S)",
        "S_2 = add(S, u)",
        "t_3 = mul(P_p0, u)",
        "k_1_ago = delay{1}(k)",
        "k_1_ago_p0 = index{p, 0}(k_1_ago)",
        "P_2 = add(t_3, k_1_ago_p0)",
        "P_p1 = index{p, 1}(P)",
        "k_p1 = index{p, 1}(k)",
        "u_2 = mul(k_p1, S_2)",
        "S_3 = add(S_2, u_2)",
        "t_7 = mul(P_p1, u_2)",
        "k_1_ago_p1 = index{p, 1}(k_1_ago)",
        "P_3 = add(t_7, k_1_ago_p1)",
        "P_4 = stack{p}(P_2, P_3)",
    ]
    assert made.next == (("P", "P_4"), ("S", "S_3"))


def test_what_a_for_block_keeps_is_not_renamed() -> None:
    head = "scan s\naxes i, p = 2\ninput k[p,i], x[i]\nparam c[i]\nstate S[i]\n"
    body = "  u = prev(k, 1)\n  v = prev(k, 1) + u\n  w = prev(x, 1)\n  y = prev(x, 1) + w + k\n  S = S + v + y\n"
    made = lower(head + "for p {\n" + body + "}\noutput S[i]")
    verify(made)
    assert [i.name for i in made.instrs if print_op(i.op).startswith("delay")] == ["k_1_ago", "x_1_ago"]


def test_nested_for_blocks_visit_every_pair() -> None:
    text = "scan s\naxes p = 2, q = 3\ninput x[p,q]\nstate S, P[p,q]\n"
    made = lower(text + "for p { for q { S = 2*S + x; P = S } }\noutput S, P[p,q]")
    x = np.random.default_rng(0).standard_normal((1, 1, 2, 3))
    outputs, _ = interpret(made, {"x": x}, {})
    expected, partial = 0.0, []
    for row, column in itertools.product(range(2), range(3)):
        expected = 2 * expected + x[0, 0, row, column]
        partial.append(expected)
    np.testing.assert_allclose(outputs["S"], [[expected]], rtol=1e-12)
    np.testing.assert_allclose(outputs["P"][0, 0].ravel(), partial, rtol=1e-12)


def test_matrix_products_mean_what_torch_means() -> None:
    text = "scan s\naxes n\ninput x[n]\nparam A[n,n], B[n,n]\n"
    made = lower(text + "u = A @ B @ x\nv = x @ A\nC = B @ A\noutput u[n], v[n], C[n,n]")
    verify(made)
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(1, 1, 3, generator=rng, dtype=torch.float64)
    a, b = (torch.randn(3, 3, generator=rng, dtype=torch.float64) for _ in range(2))
    outputs, _ = interpret(made, {"x": x}, {"A": a, "B": b})
    torch.testing.assert_close(outputs["u"][0, 0], a @ b @ x[0, 0])
    torch.testing.assert_close(outputs["v"][0, 0], x[0, 0] @ a)
    torch.testing.assert_close(outputs["C"][0, 0], b @ a)


def test_the_two_lines_of_the_mission() -> None:
    for dot in ("·", "dot", " · "):
        head = "scan m\naxes d\ninput x[d], A(x)[d], B(x)[d], C(x)[d]\nstate h[d]\n"
        verify(lower(head + f"h = A(x)*h + B(x)*x\ny = C(x) {dot} h\noutput y"))
