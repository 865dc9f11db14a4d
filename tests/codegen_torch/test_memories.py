"""Matrices that are only read by contractions: what becomes a memory, what does not and why, values and gradients."""

from __future__ import annotations

import pytest
import torch
from codegen_torch.modules import compiled, generated, oracle
from codegen_torch.test_examples import agree

from scanc.driver import compile_text

HEAD = "batch h\naxes i, j, n = j, m = i\n"
HEAD += "input q[h,i], k[h,i], v[h,j], g[h,i], f[h], r[h,j]\nparam a[h], w[h,i], c[h,j]\nstate S[h,i,j]\n"
MEMORIES = {
    "no decay": "S = S + k*v\no = q · S",
    "decay of rows": "S = exp(g)*S + k*v\no = q · S",
    "decay of columns": "S = exp(-r*r)*S + k*v\no = q · S",
    "decay of rows and columns": "S = exp(g)*exp(-r*r)*S + k*v\no = q · S",
    "decay in one exponent": "S = exp(g - r*r + f)*S + k*v\no = q · S",
    "decay of all": "S = sigmoid(f)*S + k*v\no = q · S",
    "decay by a number": "S = 0.9*S + k*v\no = q · S",
    "decay by a param of any sign": "S = a*S + k*v\no = q · S",
    "decay by an input of any sign": "S = f*S + k*v\no = q · S",
    "decay by a param of each row": "S = sigmoid(w)*S + k*v\no = q · S",
    "decay divided": "S = exp(f)/(1 + exp(f))*S + k*v\no = q · S",
    "read before": "o = q · S\nS = exp(g)*S + k*v",
    "read before and behind": "p = q · S\nS = exp(g)*S + k*v\no = q · S + 2*p",
    "read with a bonus": "o = q · (S + w*k*v)\nS = exp(-exp(g))*S + k*v",
    "read between": "S = exp(g)*S\no = q · S\nS = S + k*v",
    "read over columns": "S = exp(g)*S + k*v\np = S · v\no = sum[i](p*q)*v",
    "read on both sides": "S = exp(g)*S + k*v\no = q · S\np = S · r\nz = o + sum[i](p)*v",
    "read of a sum": "S = exp(g)*S + k*v\no = sum[i](S)*r",
    "read with signs": "S = exp(g)*S - k*v\no = v - q · S",
    "read where": "S = exp(g)*S + k*v\no = where(f > 0, q · S, 0)",
    "read by two queries": "S = exp(g)*S + k*v\no = q · S - (w*k) · S",
    "read of a multiple": "S = exp(g)*S + k*v\no = (q · (3*S))/(1 + f*f)",
    "two writes": "S = exp(g)*S + k*v + q*r\no = q · S",
    "a difference written": "S = exp(f)*S + k*(v - r)\no = q · S",
    "a gated write": "S = exp(f)*S + (1 - sigmoid(f))*k*v\no = q · S",
    "a normaliser": "state z[h,i]\nS = exp(f)*S + k*v\nz = exp(f)*z + k\no = q · S / max(abs(q · z), 1)",
    "one through the other": "state P[h,i,j]\nS = exp(g)*S + k*v\np = q · S\nP = exp(f)*P + k*p\no = q · P",
    "written by what is read": "state P[h,i,j]\np = k · P\nP = exp(f)*P + k*v\nS = exp(g)*S + k*(v - p)\no = q · S",
    "behind a scan": "state m[h]\nm = 0.5*m + f\nS = exp(-m*m)*S + k*v\no = q · S",
    "kept back": "S = exp(g)*S + prev(k)*v\no = q · S",
}
MEMORIES |= {
    "a small matrix": "S = exp(g)*S + k*v\no = q · S",
    "renamed behind the contraction": "S = exp(f)*S + k*v\no = rename[n=j](rename[j=n](q · S))",
    "params alone": "S = 0.9*S + w*c\no = q · S",
    "params and what is asked": "S = S + w*c\no = w · S + v",
    "one exponent of both sides": "S = exp(g*g - r*r - 1)*S + k*v\no = q · S",
}
REFUSED = {
    "S = exp(f)*S + k*v\no = rename[n=j](q · rename[j=n](S))": "moves an axis",
    "S = exp(f)*S + k*v\no = rename[i=m](k)·rename[i=m](S)": "moves an axis",
    "S = exp(f)*S + k*v\no = q · where(f > 0, S/f, 0)": "a choice",
    "S = exp(f)*S + k*v\nt = q · (f*S)\no = real(complex(q, k) · S)": "complex",
    "S = exp(g*r)*S + k*v\no = q · S": None,  # no outer product at all
    "S = exp(g)*S + k*v\no = q · tanh(S)": "not linear",
    "S = exp(g)*S + k*v\no = q · stop(S)": "stop",
    "S = exp(g)*S + k*v\no = q · S\nz = sum[i](S*S)": "product of two values",
    "S = exp(g)*S + k*v\no = sum[i](q*S*max(k, v))": "both sides",
}
SIZES = {"h": 2, "i": 16, "j": 17}


def text(body: str) -> str:
    states = [line for line in body.split("\n") if line.startswith("state")]
    rest = [line for line in body.split("\n") if not line.startswith("state")]
    out = "z" if any(line.startswith("z = o") for line in rest) else "o"
    return f"scan s\n{HEAD}" + "\n".join([*states, *rest, f"output {out}[h,j]"])


@pytest.mark.parametrize("body", MEMORIES.values(), ids=MEMORIES.keys())
def test_values_and_gradients(body: str) -> None:
    module = compiled(text(body))
    assert ".memory(" in module.source
    for form in module.operator.forms:
        agree(module, form, time=37, batch=1, sizes=SIZES)
        agree(module, form, time=21, reverse=True, seed=3, sizes=SIZES)
    agree(module, "chunked", time=9, batch=1)  # of so small a matrix the states are written down


@pytest.mark.parametrize("time", [0, 1, 64, 65, 130])
def test_chunks(time: int) -> None:
    for name in ("decay of rows and columns", "read before and behind", "decay by a param of any sign"):
        module = compiled(text(MEMORIES[name]))
        for form in module.operator.forms:
            agree(module, form, time=time, batch=1, rtol=1e-6, sizes={"h": 1, "i": 17, "j": 16})


@pytest.mark.parametrize(("body", "why"), REFUSED.items())
def test_what_is_no_memory(body: str, why: str | None) -> None:
    compiled_spec = compile_text(text(body.replace("\nz = ", "\nt = ") + ("\nz = o + t" if "\nz = " in body else "")))
    assert ".memory(" not in compiled_spec.module_source("torch")
    remarks = [remark for remark in compiled_spec.trace.remarks if remark.source == "memorize"]
    assert (why is None and not remarks) or (not remarks[0].applied and why is not None and why in remarks[0].text)


@pytest.mark.parametrize("gate", [0.0, -1e-6, -2.0, -20.0, -1e4, -torch.inf, 1.5])
@pytest.mark.parametrize("name", ["decay of rows", "decay of rows and columns", "decay in one exponent"])
def test_gates(name: str, gate: float) -> None:
    """From growing to closed: finite, and right, wherever the loop is."""
    module = compiled(text(MEMORIES[name]))
    inputs, params, states = module.arguments(time=40, batch=1, sizes=SIZES)
    inputs["g"][:, 3::5] = gate
    if gate > -1e3:
        inputs["r"][:, 2::7] = abs(gate) ** 0.5
    expected, expected_grads = oracle(module, inputs, params, states, False)
    for form in module.operator.forms:
        results, grads = generated(module, inputs, params, states, False, form)
        torch.testing.assert_close(results, expected, rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(grads, expected_grads, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("form", ["chunked", "parallel"])
@pytest.mark.parametrize("strength", [-4.0, -8.0, -16.0])
def test_gradients_of_strong_gates_are_exact(strength: float, form: str) -> None:
    """Relative to themselves, small as they are."""
    spec = text("S = sigmoid(f)*S + k*v\no = q · S")
    module = compiled(spec)
    inputs, params, states = module.arguments(time=96, batch=1, sizes=SIZES)
    inputs["f"][:] = strength
    inputs = {name: tensor.float() for name, tensor in inputs.items()}
    _, expected = oracle(module, {n: t.double() for n, t in inputs.items()}, params, states, False)
    _, grads = generated(
        module,
        inputs,
        {n: t.float() for n, t in params.items()},
        {n: t.float() for n, t in states.items()},
        False,
        form,
    )
    error = (grads["f"].double() - expected["f"]).norm() / expected["f"].norm()
    assert error < 1e-5


@pytest.mark.parametrize("body", ["S = exp(f)*S + k*v\no = q · S", "S = exp(g)*S + k*v\no = q · S"])
def test_large_numbers_late_reach_nothing_before(body: str) -> None:
    module = compiled(text(body))
    inputs, params, states = module.arguments(time=64, batch=1, sizes=SIZES)
    inputs = {name: tensor.float() for name, tensor in inputs.items()}
    inputs["f"], inputs["g"] = -inputs["f"].abs(), -inputs["g"].abs() / 8
    inputs["q"][:, 10] = 1e10
    calls = []
    for late in (1.0, 1e30):
        inputs["k"][:, 60] = late
        given = {n: t.float() for n, t in {**inputs, **params}.items()}
        calls.append(module.operator(**given, initial_state={n: t.float() for n, t in states.items()}, form="chunked"))
    torch.testing.assert_close(calls[1][:, :60], calls[0][:, :60], rtol=1e-3, atol=1e-3)
