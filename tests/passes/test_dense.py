"""Right sides that couple a state's elements: every rule against the interpreter's own, and functions of matrices."""

from __future__ import annotations

import pytest
import torch
from interpreter.specs import small_arguments
from passes.adjoint_support import gradients_by_adjoint, gradients_by_autograd
from passes.test_discretize import results_and_gradients

from scanc.interpreter import interpret
from scanc.ir.build import Builder
from scanc.ir.functions import MATRICES
from scanc.ir.levels import verify
from scanc.ir.nodes import Axis, Identity, Kind, Level, Matrix, Output, Program, Tensor, TensorType
from scanc.ir.printer import print_program
from scanc.ir.rewrite import one_region
from scanc.passes.differentiate import differentiate
from scanc.passes.discretize import RULES
from scanc.passes.pipeline import TO_DISCRETE, Trace, run
from scanc.passes.prepare import host_only, prepare
from scanc.semantics.lower import lower

SETTINGS = {"gbt": "(step, 0.3*blend)", "exp_trapezoid": "(step, blend)", "async": "(step, blend)"}
RIGHT = {
    "matrix": "A @ h",
    "transposed": "B*x - h @ A",
    "low rank": "L*h - P*(Q ·[n] h)",
    "products": "A @ (G @ h - L*h) / (1 + x*x) - L*h",
    "of its own for each": "H @ h + B*x",
    "where": "where(x > 0, A @ h, -L*h) + x",
    "sums": "sum[n](h)*P + B - sum[n](L*h)",
    "complex": "W @ h - L*h",
}
SPEC = """scan dense
axes d, n
input x[d], delta[d], alpha
param A[n,n], G[n,n], H[d,n,n], W[n,n]: complex, L[n], P[n], Q[n], B[n]
state h[d,n]KIND
step = softplus(delta)
blend = sigmoid(alpha)
d/dt h = RIGHT   discretize RULE
y = h
output y[d,n]
"""
FIXED = SPEC.replace("input x[d], delta[d], alpha", "input x[d]").replace("param ", "param delta[d], alpha, ")


def spec(right: str, rule: str, text: str = SPEC) -> Program:
    text = text.replace("RIGHT", RIGHT[right]).replace("RULE", rule + SETTINGS.get(rule, "(step)"))
    return lower(text.replace("KIND", ": complex" if right == "complex" else ""))


def discretised(program: Program) -> Program:
    trace = Trace()
    return run(TO_DISCRETE, program, trace)


@pytest.mark.parametrize("right", RIGHT)
@pytest.mark.parametrize("rule", sorted(RULES))
def test_rules(rule: str, right: str) -> None:
    """Values and gradients are those of the interpreter, which solves for the matrix by basis vectors."""
    program = spec(right, rule)
    given = small_arguments(program, time=3)
    expected, got = (results_and_gradients(each, *given) for each in (program, discretised(program)))
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-9, atol=1e-10, msg=name)


@pytest.mark.parametrize(("rule", "right"), [("zoh", "matrix"), ("gbt", "products"), ("exp_trapezoid", "complex")])
def test_adjoint(rule: str, right: str) -> None:
    program = discretised(spec(right, rule))
    inputs, params, initial = small_arguments(program, time=4)
    outputs, last = interpret(program, inputs, params, initial)
    torch.manual_seed(1)
    given, final = ({n: torch.randn_like(x) for n, x in group.items()} for group in (outputs, last))
    adjoint = differentiate(program)
    verify(adjoint)
    got = gradients_by_adjoint(program, adjoint, inputs, params, initial, given, final)
    expected = gradients_by_autograd(program, inputs, params, initial, given, final)
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-9, atol=1e-10, msg=name)


def function(fn: str, directions: int, kind: Kind = Kind.REAL) -> Program:
    """y = the derivative of fn at z in so many directions, one of which has an axis more, another one less."""
    axes = (Axis("d"), Axis("n"), Axis("m", like="n"))
    shapes = [("d", "n", "m"), ("n", "m"), ("d", "n", "m")][: 1 + directions]
    inputs = tuple(
        Tensor(name, tuple((axis,) for axis in own), TensorType(own, kind))
        for name, own in zip(("z", "e", "f"), shapes, strict=False)
    )
    builder = Builder(axes, {tensor.name: tensor.type for tensor in inputs})
    unit = builder.add(Identity("n", "m"), hint="unit")
    near = builder.map("add", "z", unit, hint="near")  # far from where the inverse has a pole
    value = builder.add(Matrix(fn, "n", "m"), near, *(t.name for t in inputs[1:]), hint="y")
    outputs = (Output("y", value, (("n",), ("d",), ("m",))),)
    empty = Program("function", Level.DISCRETE, "real", axes, inputs, (), (), (), (), outputs)
    return one_region(empty, builder.take())


def arguments(program: Program) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    sizes = {"d": 2, "n": 3, "m": 3}
    shapes = {t.name: (1, 2, *(sizes[a] for (a,) in t.dims)) for t in program.inputs}
    complex_ = program.inputs[0].type.kind is Kind.COMPLEX
    dtype = torch.complex128 if complex_ else torch.float64
    return {name: 0.4 * torch.randn(shape, dtype=dtype) for name, shape in shapes.items()}


@pytest.mark.parametrize("kind", [Kind.REAL, Kind.COMPLEX])
@pytest.mark.parametrize("directions", [0, 1, 2])
@pytest.mark.parametrize("fn", MATRICES)
def test_derivatives_are_of_the_same_kind(fn: str, directions: int, kind: Kind) -> None:
    """The cotangents of the function and of its derivatives, against autograd through the power series."""
    program = function(fn, directions, kind)
    verify(program)
    given = arguments(program)
    adjoint = differentiate(program)
    leaves = {name: x.clone().requires_grad_() for name, x in given.items()}
    y = interpret(program, leaves, {})[0]["y"]
    dy = torch.randn_like(y)
    expected = torch.autograd.grad(y, list(leaves.values()), dy)
    got, _ = interpret(adjoint, {**given, "dy.y": dy}, {})
    for name, value in zip(leaves, expected, strict=True):
        torch.testing.assert_close(got[f"d.{name}"], value, rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.parametrize("fn", MATRICES)
def test_functions(fn: str) -> None:
    """By their defining equations; φ₁ at a singular matrix too."""
    program = function(fn, 0)
    z = arguments(program)["z"]
    z[..., 0, :] = -z[..., 1, :]
    near = z + torch.eye(3, dtype=z.dtype)
    y = interpret(program, {"z": z}, {})[0]["y"].transpose(2, 3)
    numpy = torch.from_numpy(interpret(program, {"z": z.numpy()}, {})[0]["y"]).transpose(2, 3)
    torch.testing.assert_close(numpy, y, rtol=1e-12, atol=1e-12)
    expected = {
        "exp": lambda: torch.linalg.matrix_exp(near),
        "inverse": lambda: torch.linalg.inv(near),
        "phi1": lambda: torch.linalg.solve(near, torch.linalg.matrix_exp(near) - torch.eye(3, dtype=z.dtype)),
    }[fn]()
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("scale", [0.0, 1e-8, 1e-3])
def test_zoh_of_a_singular_matrix(scale: float) -> None:
    """exp [[A, u], [0, 0]] step needs no inverse of A, and so does the discretisation."""
    program = discretised(spec("low rank", "zoh"))
    inputs, params, initial = small_arguments(program, time=1)
    params = {**params, "L": params["L"] * 0, "P": params["P"] * scale}
    got = interpret(program, inputs, params, initial)[1]["h"]
    step = torch.nn.functional.softplus(inputs["delta"][:, 0])
    a = -torch.outer(params["P"], params["Q"])
    # A² = (-Q·P) A: its exponential in closed form
    rate = -(params["P"] @ params["Q"]) * step
    rise = torch.where(rate == 0, step, step * torch.expm1(rate) / torch.where(rate == 0, 1.0, rate))
    expected = initial["h"] + rise[..., None] * (initial["h"] @ a.T)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_what_params_decide_is_made_ahead(rule: str) -> None:
    """No matrix is left in the recurrence, and both programs together are the whole one."""
    program = discretised(spec("matrix", rule, FIXED))
    prepared = prepare(program)
    if rule == "euler":  # h + step·(A @ h + u) has no matrix but A
        assert prepared is None
        assert host_only(program) is None
        return
    assert prepared is not None
    assert host_only(prepared.core) is None
    assert prepared.remark.applied
    inputs, params, initial = small_arguments(program, time=3)
    ahead = {name: x[None, None] for name, x in params.items()}
    made = {name: x[0, 0] for name, x in interpret(prepared.ahead, ahead, {})[0].items()}
    assert list(made) == [param.name for param in prepared.core.params]
    expected = interpret(program, inputs, params, initial)
    got = interpret(prepared.core, inputs, made, initial)
    for before, after in zip(expected, got, strict=True):
        for name, value in before.items():
            torch.testing.assert_close(after[name], value, rtol=1e-12, atol=1e-13)


def test_the_gain_of_params_is_a_vector() -> None:
    """Of `B*x`, φ₁ acts on step·B once, not on B*x at every step."""
    prepared = prepare(discretised(spec("of its own for each", "zoh", FIXED)))
    assert prepared is not None
    shapes = {param.name: param.type.axes for param in prepared.core.params}
    assert shapes == {"h.decay": ("d", "n", "n_col_2"), "h.gain": ("d", "n")}


def test_a_step_of_the_input_is_left_to_the_recurrence() -> None:
    program = discretised(spec("matrix", "zoh"))
    assert prepare(program) is None
    found = host_only(program)
    assert found is not None
    assert found.span is not None
    assert found.span.line == 8


def test_the_remark_says_what_became_of_it() -> None:
    trace = Trace()
    run(TO_DISCRETE, spec("matrix", "bilinear"), trace)
    (remark,) = (remark for remark in trace.remarks if remark.source == "discretize")
    assert remark.text == (
        "h by bilinear: (1 - z/2)⁻¹·((1 + z/2)·h + step·u), with z = step·A, "
        "A the matrix along n that multiplies h, and u = 0"
    )


def test_no_axis_is_added_without_need() -> None:
    program = discretised(lower(SPEC.replace("RIGHT", "-L*h + x").replace("RULE", "zoh(step)").replace("KIND", "")))
    assert "n_col_2" not in print_program(program)
