"""The rules of discretisation, elementwise and dense, against matrix functions written out."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from interpreter.specs import small_arguments

from scanc.interpreter import interpret
from scanc.interpreter.ode import NotAffine
from scanc.ir.nodes import Program
from scanc.semantics.lower import lower

DENSE = """
scan dense
axes d, n
input x[d], delta[d], alpha
param A[n,n], B[n]
state h[d,n]
step = softplus(delta)
blend = sigmoid(alpha)
d/dt h = A @ h + B*x   discretize RULE
output h[d,n]
"""
LOW_RANK = DENSE.replace("A[n,n], B[n]", "L[n], P[n], Q[n], B[n]").replace("A @ h", "L*h - P*(Q ·[n] h)")
ELEMENTWISE = DENSE.replace("A[n,n], B[n]", "A[d,n], B[n]").replace("A @ h", "A*h")

RULES = {
    "zoh": "zoh(step)",
    "bilinear": "bilinear(step)",
    "gbt": "gbt(step, blend)",
    "euler": "euler(step)",
    "backward_euler": "backward_euler(step)",
    "exp_trapezoid": "exp_trapezoid(step, blend)",
    "mamba": "mamba(step)",
    "dirac": "dirac(step)",
    "async": "async(step, blend)",
}


def program(text: str, rule: str) -> Program:
    return lower(text.replace("RULE", RULES[rule]))


def expm(a: np.ndarray) -> np.ndarray:
    """Scaling and squaring of the Taylor series."""
    x, total, term = a / 2.0**12, np.eye(len(a)), np.eye(len(a))
    for n in range(1, 12):
        term = term @ x / n
        total = total + term
    for _ in range(12):
        total = total @ total
    return total


def phi1(a: np.ndarray) -> np.ndarray:
    """∫₀¹ exp(s a) ds by Gauss and Legendre."""
    nodes, weights = np.polynomial.legendre.leggauss(20)
    return sum(w / 2 * expm((s + 1) / 2 * a) for s, w in zip(nodes, weights, strict=True))


def by_hand(
    rule: str, a: np.ndarray, h: np.ndarray, u: np.ndarray, before: np.ndarray, step: float, blend: float
) -> np.ndarray:
    """One step of h' = a h + u for a vector h."""
    eye, z = np.eye(len(a)), step * a
    match rule:
        case "zoh":
            return expm(z) @ h + step * phi1(z) @ u
        case "mamba":
            return expm(z) @ h + step * u
        case "dirac":
            return expm(z) @ h + u
        case "async":
            return expm(z * blend) @ h + step * phi1(z) @ u
        case "exp_trapezoid":
            return expm(z) @ h + blend * step * u + (1 - blend) * step * expm(z) @ before
    alpha = {"bilinear": 0.5, "euler": 0.0, "backward_euler": 1.0, "gbt": blend}[rule]
    return np.linalg.solve(eye - alpha * z, (eye + (1 - alpha) * z) @ h + step * u)


@pytest.mark.parametrize("text", [ELEMENTWISE, DENSE, LOW_RANK], ids=["elementwise", "dense", "low rank"])
@pytest.mark.parametrize("rule", RULES)
def test_rules(text: str, rule: str) -> None:
    spec = program(text, rule)
    inputs, params, state = small_arguments(spec, time=4)
    outputs, _ = interpret(spec, inputs, params, state)
    x, delta, alpha = (inputs[name].numpy() for name in ("x", "delta", "alpha"))
    h, before = state["h"].numpy(), state["ode.h"].numpy() if "ode.h" in state else np.zeros(state["h"].shape)
    p = {name: value.numpy() for name, value in params.items()}
    for b, d in np.ndindex(h.shape[:2]):
        if "A" in p:
            a = p["A"] if text is DENSE else np.diag(p["A"][d])
        else:
            a = np.diag(p["L"]) - np.outer(p["P"], p["Q"])
        now, last = h[b, d], before[b, d]
        for t in range(x.shape[1]):
            u = p["B"] * x[b, t, d]
            step, blend = math.log1p(math.exp(delta[b, t, d])), 1 / (1 + math.exp(-alpha[b, t]))
            now, last = by_hand(rule, a, now, u, last, step, blend), u
            np.testing.assert_allclose(outputs["h"][b, t, d].numpy(), now, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("text", [ELEMENTWISE, DENSE], ids=["elementwise", "dense"])
@pytest.mark.parametrize("rule", RULES)
def test_gradients(text: str, rule: str) -> None:
    spec = program(text, rule)
    groups = small_arguments(spec, time=2)
    leaves = [x.requires_grad_() for group in groups for x in group.values()]
    names = [list(group) for group in groups]

    def run(*xs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        rest = iter(xs)
        rebuilt = [{name: next(rest) for name in group} for group in names]
        outputs, final = interpret(spec, *rebuilt)
        return (*outputs.values(), *final.values())

    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)


@pytest.mark.parametrize("text", [ELEMENTWISE, DENSE], ids=["elementwise", "dense"])
def test_zero_order_hold_of_a_singular_system_integrates(text: str) -> None:
    spec = program(text, "zoh")
    inputs, params, state = small_arguments(spec, time=1)
    params["A"] = torch.zeros_like(params["A"])
    outputs, _ = interpret(spec, inputs, params, state)
    step = torch.nn.functional.softplus(inputs["delta"])[:, 0, :, None]
    expected = state["h"] + step * params["B"] * inputs["x"][:, 0, :, None]
    torch.testing.assert_close(outputs["h"][:, 0], expected)


def test_the_matrix_may_depend_on_time_and_on_a_scaled_state() -> None:
    text = """
scan varied
axes d
input a[d], x[d], s
state h[d]
h = 2*h
d/dt h = -(a*h - x)/(1 + s*s) + h    discretize euler(1)
output h[d]
"""
    spec = lower(text)
    inputs, params, state = small_arguments(spec, time=1)
    outputs, _ = interpret(spec, inputs, params, state)
    a, x, s, h = inputs["a"][:, 0], inputs["x"][:, 0], inputs["s"][:, 0, None], 2 * state["h"]
    torch.testing.assert_close(outputs["h"][:, 0], h - (a * h - x) / (1 + s * s) + h)


def test_a_complex_system() -> None:
    text = """
scan oscillator
axes d
input x[d]
param A[d]: complex
state h[d]: complex
d/dt h = A*h + x    discretize zoh(0.1)
output h[d]
"""
    spec = lower(text)
    inputs, params, state = small_arguments(spec, time=1)
    outputs, _ = interpret(spec, inputs, params, state)
    z = 0.1 * params["A"]
    expected = torch.exp(z) * state["h"] + (torch.exp(z) - 1) / params["A"] * inputs["x"][:, 0]
    torch.testing.assert_close(outputs["h"][:, 0], expected)


def test_a_right_side_that_is_not_affine_is_refused() -> None:
    spec = program(ELEMENTWISE, "euler")
    region = spec.regions[0]
    squared = tuple(replace(i, args=("h", "h")) if i.args == ("A", "h") else i for i in region.instrs)
    assert squared != region.instrs
    broken = replace(spec, regions=(replace(region, instrs=squared),))
    with pytest.raises(NotAffine):
        interpret(broken, *small_arguments(spec, time=1))
