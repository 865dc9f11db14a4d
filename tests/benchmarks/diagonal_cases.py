"""What `diagonal.py` measures: specs, sizes, random tensors.  Imports nothing of scanc, whose import is timed."""

from __future__ import annotations

import math
from functools import partial

import torch
from case import Case, Shape, chosen
from torch import Tensor

STATES = 16
STATES_FIXED = 32
_SELECTIVE = """scan selective{gated}
axes   d, n
input  u[d], delta(u)[d], B(u)[n], C(u)[n]{z}
param  A[d,n], D[d], bias[d]
state  h[d,n]
step = softplus(delta + bias)
h = exp(step*A)*h + (step*u)*B
y = {y}
output y[d]
"""
_FIXED = """scan {name}
axes   d, n
input  u[d]
param  a[d,n]{kind}, C[d,n]{kind}, D[d]
state  h[d,n]{kind}
h = a*h + u
y = {y} + D*u
output y[d]
"""
SPECS = {
    "gated": """scan gated
axes   d
input  a[d], x[d]
state  h[d]
h = a*h + x
output h[d]
""",
    "complex": """scan complex_gated
axes   d
input  a[d]: complex, x[d]: complex
state  h[d]: complex
h = a*h + x
output h[d]
""",
    "fixed": _FIXED.format(name="fixed", kind="", y="C ·[n] h"),
    "s4d": _FIXED.format(name="s4d", kind=": complex", y="2*real(C ·[n] h)"),
    "selective": _SELECTIVE.format(gated="", z="", y="C · h + D*u"),
    "selective_z": _SELECTIVE.format(gated="_z", z=", z(u)[d]", y="(C · h + D*u) * silu(z)"),
}

GATED: tuple[Shape, ...] = ((8, 4096, 2048), (1, 65536, 2048), (64, 512, 2048), (1, 1048576, 64))
SELECTIVE: tuple[Shape, ...] = ((8, 4096, 2048), (1, 65536, 2048), (8, 2048, 4096))
SHAPES = {
    "gated": GATED,
    "complex": GATED[:1],
    "fixed": SELECTIVE[:1],
    "s4d": SELECTIVE[:1],
    "selective": SELECTIVE,
    "selective_z": SELECTIVE,
}
"""Batch, time, channels; a complex tensor has as many complex numbers."""

REAL, FP32 = (torch.float32, torch.bfloat16), (torch.float32,)
DTYPES = {spec: FP32 if spec in ("complex", "fixed", "s4d") else REAL for spec in SPECS}

cases = partial(chosen, SHAPES, DTYPES)
"""Every spec, shape and dtype, or some of them."""


def arguments(case: Case, shape: Shape, device: str, seed: int = 0) -> dict[str, Tensor]:
    """Random inputs and params as models have them: gates in (0, 1) or within the unit circle, A below 0."""
    generator = torch.Generator(device).manual_seed(seed)
    batch, length, channels = shape

    def draw(*dims: int) -> Tensor:
        return torch.randn(*dims, generator=generator, device=device)

    if case.spec == "gated":
        found = {"a": torch.sigmoid(2 + draw(*shape)), "x": draw(*shape)}
        return {name: x.to(case.dtype) for name, x in found.items()}
    if case.spec == "complex":
        gate = torch.polar(torch.sigmoid(2 + draw(*shape)), math.pi * draw(*shape))
        return {"a": gate, "x": torch.complex(draw(*shape), draw(*shape))}
    if case.spec in ("fixed", "s4d"):
        dims = (channels, STATES_FIXED)
        decay, C = torch.exp(-0.1 * torch.exp(draw(*dims))), draw(*dims)
        if case.spec == "s4d":
            decay, C = torch.polar(decay, math.pi * draw(*dims)), torch.complex(C, draw(*dims))
        return {"u": draw(*shape), "a": decay, "C": C, "D": draw(channels)}
    found = {"u": draw(*shape), "delta": draw(*shape) - 2}
    found |= {"B": draw(batch, length, STATES), "C": draw(batch, length, STATES)}
    if case.spec == "selective_z":
        found["z"] = draw(*shape)
    found = {name: x.to(case.dtype) for name, x in found.items()}
    A = -torch.exp(0.5 * draw(channels, STATES))
    return found | {"A": A, "D": draw(channels), "bias": 0.1 * draw(channels)}
