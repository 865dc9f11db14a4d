"""Discretisation against the interpreter's own, and against matrix exponentials in fp64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace as Names

import pytest
import torch
from analysis.bodies import Value, arguments, program

from scanc.diagnostics.diagnostic import CompileError
from scanc.interpreter import interpret
from scanc.ir.levels import verify
from scanc.ir.nodes import Level, Map, Ode, Program
from scanc.passes.discretize import RULES, run
from scanc.passes.pipeline import TO_DISCRETE, Trace
from scanc.passes.pipeline import run as to_discrete
from scanc.semantics.lower import lower

SETTINGS = {"gbt": ["alpha"], "exp_trapezoid": ["blend"], "async": ["dt"]}
RULE_NAMES = sorted(RULES)


def ode(rule: str, kind: str = "real", sign: str = "plus") -> Program:
    """d/dt h = A*h + B*x in several spellings, h over i and n."""

    def body(n: Names) -> Mapping[str, Value]:
        right = {
            "plus": lambda: n.A * n.h + n.B * n.x,
            "minus": lambda: n.B * n.x - n.h * n.A,
            "nested": lambda: n.A * (n.h - n.B * n.x),
            "bare": lambda: n.B * n.x - n.h,
            "no input": lambda: n.A * n.h,
            "no state": lambda: n.B * n.x * n.A,
        }[sign]()
        step = n.delta.map("softplus")
        settings = [getattr(n, name).map("sigmoid").name for name in SETTINGS.get(rule, [])]
        following = n.h.builder.add(Ode("h", rule), n.h.name, right.name, step.name, *settings)
        return {"h": Value(n.h.builder, following)}

    return program(
        body,
        states={"h": f"i n:{kind}"},
        inputs={"x": "i", "delta": "i", "B": "n", "alpha": "i", "blend": "i", "dt": "i"},
        params={"A": f"i n:{kind}"},
        level=Level.CORE,
    )


def discrete(core: Program) -> Program:
    result, remarks = run(core)
    verify(result)
    assert len(remarks) == 1
    return result


Tensors = dict[str, torch.Tensor]


def results_and_gradients(made: Program, inputs: Tensors, params: Tensors, initial: Tensors) -> Tensors:
    leaves = {n: x.detach().clone().requires_grad_() for n, x in {**inputs, **params, **initial}.items()}
    outputs, final = interpret(
        made,
        {n: leaves[n] for n in inputs},
        {n: leaves[n] for n in params},
        {n: leaves[n] for n in initial},
    )
    loss = sum(
        (x * torch.linspace(0.5, 1.5, x.numel()).reshape(x.shape)).abs().square().sum() for x in outputs.values()
    )
    loss = loss + sum(x.abs().square().sum() for x in final.values())
    grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    found = {f"d.{n}": g for n, g in zip(leaves, grads, strict=True) if g is not None}
    return {**outputs, **{f"final {n}": x for n, x in final.items()}, **found}


@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("rule", RULE_NAMES)
def test_agrees_with_the_interpreter(rule: str, kind: str) -> None:
    core = ode(rule, kind)
    given = arguments(core, time=4)
    expected, got = results_and_gradients(core, *given), results_and_gradients(discrete(core), *given)
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-9, atol=1e-10, msg=f"{name}")


@pytest.mark.parametrize("sign", ["minus", "nested", "bare", "no input", "no state"])
@pytest.mark.parametrize("rule", ["zoh", "bilinear", "exp_trapezoid", "dirac"])
def test_any_affine_spelling(rule: str, sign: str) -> None:
    core = ode(rule, sign=sign)
    inputs, params, initial = arguments(core, time=3)
    expected, got = (interpret(p, inputs, params, initial) for p in (core, discrete(core)))
    for before, after in zip(expected, got, strict=True):
        assert before.keys() == after.keys()
        for name, value in before.items():
            torch.testing.assert_close(after[name], value, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e-8, 0.0])
@pytest.mark.parametrize("kind", ["real", "complex"])
def test_zoh_is_the_matrix_exponential(kind: str, scale: float) -> None:
    """exp [[A, u], [0, 0]] step, entry by entry, holds for A = 0 too; so do its gradients."""
    core = discrete(ode("zoh", kind))
    inputs, params, initial = arguments(core, time=1)
    params = {"A": params["A"] * scale}
    got = results_and_gradients(core, inputs, params, initial)

    leaves = {n: x.detach().clone().requires_grad_() for n, x in {**inputs, **params, **initial}.items()}
    step = torch.nn.functional.softplus(leaves["delta"][:, 0])[..., None]
    u = leaves["B"][:, 0, None, :] * leaves["x"][:, 0, :, None]
    a = leaves["A"].expand(u.shape)
    zero = torch.zeros_like(a)
    block = torch.stack([torch.stack([a, u.to(a.dtype)], -1), torch.stack([zero, zero], -1)], -2)
    exponential = torch.linalg.matrix_exp(block * step[..., None, None])
    h = exponential[..., 0, 0] * leaves["h"] + exponential[..., 0, 1]
    weights = torch.linspace(0.5, 1.5, h.numel()).reshape(h.shape)
    loss = (h * weights).abs().square().sum() + h.abs().square().sum()
    grads = torch.autograd.grad(loss, [leaves[n] for n in ("A", "h", "x", "delta", "B")])
    torch.testing.assert_close(got["final h"], h, rtol=1e-12, atol=1e-13)
    for name, grad in zip(("A", "h", "x", "delta", "B"), grads, strict=True):
        torch.testing.assert_close(got[f"d.{name}"], grad, rtol=1e-8, atol=1e-9, msg=name)


def test_zoh_keeps_its_digits_in_single_precision() -> None:
    core = discrete(ode("zoh"))
    inputs, params, initial = arguments(core, time=1, seed=3)
    params = {"A": params["A"] * 1e-8}
    single, _ = interpret(core, *({n: x.float() for n, x in part.items()} for part in (inputs, params, initial)))
    double, _ = interpret(core, inputs, params, initial)
    torch.testing.assert_close(single["h.out"].double(), double["h.out"], rtol=1e-6, atol=1e-6)


def test_async_gain_does_not_see_the_elapsed_time() -> None:
    """The decay follows the time between events; what an event writes does not."""
    made = discrete(ode("async"))
    inputs, params, initial = arguments(made, time=1)
    initial = {"h": torch.zeros_like(initial["h"])}
    near, _ = interpret(made, inputs, params, initial)
    far, _ = interpret(made, {**inputs, "dt": inputs["dt"] + 3}, params, initial)
    torch.testing.assert_close(near["h.out"], far["h.out"])


def test_nothing_is_discretised_without_an_ode() -> None:
    core = program(lambda n: {"h": n.h + n.x}, states={"h": "i"}, inputs={"x": "i"}, level=Level.CORE)
    result, remarks = run(core)
    assert result == replace(core, level=Level.DISCRETE)
    assert remarks == ()


def fails(right: str) -> CompileError:
    def body(n: Names) -> Mapping[str, Value]:
        value = {
            "square": lambda: n.h * n.h + n.x,
            "tanh": lambda: n.h.map("tanh") - n.x,
            "two axes": lambda: n.W.dot(n.h.rename("n", "n_col"), "n_col") + n.V.dot(n.h.rename("i", "m"), "m"),
            "sum over both": lambda: n.x * n.h - n.x * n.h.sum("i n"),
        }[right]()
        return {"h": Value(n.h.builder, n.h.builder.add(Ode("h", "zoh"), n.h.name, value.name, n.step.name))}

    core = program(
        body,
        states={"h": "i n"},
        inputs={"x": "i n", "step": ""},
        params={"W": "n n_col", "V": "i m"},
        level=Level.CORE,
    )
    with pytest.raises(CompileError) as caught:
        run(core)
    return caught.value


@pytest.mark.parametrize(
    ("right", "code", "label"),
    [
        ("square", "E0706", "the product of two values that depend on the state"),
        ("tanh", "E0706", "`tanh` of a value that depends on the state is not linear"),
        ("two axes", "E0707", "A is a matrix over one axis"),
        ("sum over both", "E0707", "A is a matrix over one axis"),
    ],
)
def test_what_cannot_be_discretised_is_refused(right: str, code: str, label: str) -> None:
    (diagnostic,) = fails(right).diagnostics
    assert diagnostic.code == code
    assert diagnostic.label.startswith(label)
    assert diagnostic.hint


def test_no_naive_exponential_difference_is_left() -> None:
    """The gain is built on phi1, never on (exp(z) - 1) / z."""
    fns = {instr.op.fn for instr in discrete(ode("zoh")).instrs if isinstance(instr.op, Map)}
    assert "phi1" in fns
    assert "div" not in fns


SPEC = """scan bad
axes n, m
input x[n], dt[n]
param A[n,n], L[n], G[m,m]
state h[n,m]
d/dt h = {} discretize zoh(dt)
output h[n,m]
"""


def message(right: str) -> str:
    text = SPEC.format(right)
    with pytest.raises(CompileError) as caught:
        to_discrete(TO_DISCRETE, lower(text, source="bad.scan"), Trace())
    return str(caught.value.with_sources({"bad.scan": text}))


def test_messages() -> None:
    """The smallest stretch that must change is underlined."""
    assert (
        message("L*h + x/(1 + h)")
        == """\
error[E0706]: the right side of `d/dt h` is not affine in `h`
  --> bad.scan:6:16
  |
6 | d/dt h = L*h + x/(1 + h) discretize zoh(dt)
  |                ^^^^^^^^^ a division by a value that depends on the state
  | ------------------------------------------- discretised here
  = hint: write `d/dt h = A*h + …` with A and the rest free of `h`, or a discrete step"""
    )
    assert (
        message("A @ h + h @ G + x")
        == """\
error[E0707]: the right side of `d/dt h` couples elements of `h` along `n` and `m`
  --> bad.scan:6:10
  |
6 | d/dt h = A @ h + h @ G + x discretize zoh(dt)
  |          ^^^^^ A is a matrix over one axis of a state, and all other axes stand beside it
  | --------------------------------------------- discretised here
  = hint: couple `h` along one axis, or write the discrete step `h = …`"""
    )
