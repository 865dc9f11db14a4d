"""Gates from growing to closed: every form's values and gradients, against the interpreter in fp64."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from codegen_triton.support import Emitted, compare, emit
from scanc_runtime.tiling import forced

from scanc.interpreter import random_arguments
from scanc.semantics.lower import lower

INF = float("inf")
GATES = torch.tensor([0.05, 0.0, -1e-6, -0.3, -3.0, -20.0, -90.0, -1e4, -INF])
"""Logs: growing, kept, decaying, below what fp32 holds, closed."""

BODIES = {
    "gated": "axes d\ninput g[d], x[d]\nstate h[d]\nh = exp(g)*h + x\noutput h[d]\n",
    "read out": "axes d\ninput g[d], x[d]\nstate h[d]\ny = tanh(h)\nh = exp(g)*h + (1 - exp(g))*x\noutput y[d]\n",
    "complex": (
        "axes d\ninput g[d], x[d]: complex\nparam w[d]\nstate h[d]: complex\n"
        "h = polar(exp(g), w)*h + x\ny = real(h)\noutput y[d]\n"
    ),
    "max-plus": "axes d\ninput g[d], x[d]\nstate h[d]\nh = max(h + g, x)\noutput h[d]\n",
    "log": "axes d\ninput g[d], x[d]\nstate h[d]\nh = g*h + x\noutput h[d]\n",
    "selective": (
        "axes d, n\ninput g[d], u[d], B[n], C[n]\nparam A[d,n]\nstate h[d,n]\n"
        "h = exp(g*A)*h + u*B\ny = C · h\noutput y[d]\n"
    ),
    "per key": ("axes d, n\ninput g[n], u[d], B[n], C[n]\nstate h[d,n]\nh = exp(g)*h + u*B\ny = C · h\noutput y[d]\n"),
}
SIZES = {"d": 36, "n": 6}


@cache
def emitted(body: str) -> Emitted:
    over = " over log" if body == "log" else ""
    return emit(lower(f"scan extreme{over}\n{BODIES[body]}"), segment=None)


def arguments(spec: Emitted, time: int, *, closed: bool) -> tuple[dict[str, torch.Tensor], ...]:
    """Random ones, with every step of a gate drawn from `GATES`; without `closed`, from those above -inf."""
    inputs, params, initial = random_arguments(spec.program, batch=2, time=time, sizes=SIZES, seed=3)
    generator = torch.Generator().manual_seed(4)
    gates = GATES if closed else GATES[:-1]
    picked = gates[torch.randint(len(gates), inputs["g"].shape, generator=generator)]
    if "A" in params:  # the gate is g·A, with both signs as models have them
        picked, params["A"] = -picked, -params["A"].abs() - 0.5
    inputs["g"] = picked.to(inputs["g"])
    return inputs, params, initial


@pytest.mark.parametrize(("reverse", "dtype"), [(False, torch.float32), (True, torch.bfloat16)], ids=["fp32", "bf16"])
@pytest.mark.parametrize("body", BODIES)
def test_every_form(body: str, reverse: bool, dtype: torch.dtype) -> None:
    spec = emitted(body)
    given = arguments(spec, time=13, closed=body != "selective")  # there a closed gate makes the plain loop's dA NaN
    for form in spec.functions.forms:
        with forced(chunks=3 if form == "chunked" else None):
            found = compare(spec, given, form=form, reverse=reverse, dtype=dtype)
        limit = 2e-5 if dtype == torch.float32 else 2e-2
        assert all(error < limit for error in found.values()), (form, found)
