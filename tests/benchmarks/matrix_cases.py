"""What `matrix.py` measures: specs, sizes, random tensors.  Imports nothing of scanc, whose import is timed."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from case import Case, Shape, chosen
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

EXAMPLES = Path(__file__).parents[2] / "examples"
_PLAIN = """scan {name}
batch  h
axes   i, j
input  q[h,i], k[h,i], v[h,j]{gate}
state  S[h,i,j]
S = {decay}S + k*v
o = q · S
output o[h,j]
"""
_NORMALISED = """scan normalised
batch  h
axes   i, j
input  q[h,i], k[h,i], v[h,j]
state  S[h,i,j], z[h,i]
S = S + k*v
z = z + k
o = q · S / q · z
output o[h,j]
"""
_SLOTS = """scan slots
batch  h
axes   i, j, m
input  q[h,i], k[h,i], v[h,j], s[h,m], g[h,m]
state  K[h,m,i], V[h,m,j]
K = exp(g)*K + s*k
V = exp(g)*V + s*v
o = softmax[m](q · K) · V
output o[h,j]
"""
SLOTS = 64
SPECS = {
    "linear": _PLAIN.format(name="linear", gate="", decay=""),
    "lightning": (EXAMPLES / "lightning.scan").read_text(encoding="utf-8"),
    "gate": _PLAIN.format(name="scalar_gate", gate=", g[h]: fp32", decay="exp(g)*"),
    "gla": (EXAMPLES / "gla.scan").read_text(encoding="utf-8"),
    "rwkv6": (EXAMPLES / "rwkv6.scan").read_text(encoding="utf-8"),
    "mamba2": (EXAMPLES / "mamba2.scan").read_text(encoding="utf-8"),
    "normalised": _NORMALISED,
    "mlstm": (EXAMPLES / "mlstm.scan").read_text(encoding="utf-8"),
    "slots": _SLOTS,
}

ATTENTION: tuple[Shape, ...] = (
    (8, 4096, 16, 128, 128), (1, 32768, 16, 128, 128), (1, 65536, 8, 128, 128),
    (8, 2048, 32, 64, 64), (8, 1024, 8, 64, 64), (8, 2048, 8, 256, 256),
)  # fmt: skip
MAMBA: tuple[Shape, ...] = ((8, 4096, 32, 128, 64), (8, 4096, 16, 128, 128))
SHAPES = {spec: MAMBA if spec == "mamba2" else ATTENTION for spec in SPECS}
"""Batch, time, heads, K, V; of Mamba-2, whose B and C have one group, N is K and P is V."""

DTYPES = dict.fromkeys(SPECS, (torch.bfloat16,))

cases = partial(chosen, SHAPES, DTYPES)
"""Every spec and shape, or some of them."""


def arguments(case: Case, shape: Shape, device: str, seed: int = 0) -> dict[str, Tensor]:
    """Random tensors as models have them, queries scaled by K**-0.5. The first is as large as the output."""
    generator = torch.Generator(device).manual_seed(seed)
    batch, length, heads, keys, values = shape

    def draw(*dims: int) -> Tensor:
        return torch.randn(*dims, generator=generator, device=device)

    def each(*dims: int) -> Tensor:
        return draw(batch, length, *dims)

    if case.spec == "mamba2":
        found = {"x": each(heads, values), "delta": each(heads)}
        found |= {"B": each(1, keys), "C": each(1, keys) * keys**-0.5}
        fixed = {"log_A": torch.sigmoid(draw(heads)), "D": draw(heads), "bias": draw(heads) - 3}
        return {name: x.to(case.dtype) for name, x in found.items()} | fixed
    query = "r" if case.spec == "rwkv6" else "q"
    found = {"v": each(heads, values), "k": each(heads, keys), query: each(heads, keys) * keys**-0.5}
    if case.spec == "gla":
        found["g"] = logsigmoid(each(heads, keys)) / 16
    if case.spec == "rwkv6":
        found["w"] = each(heads, keys) - 3
    if case.spec == "normalised":
        found["k"], found[query] = softplus(found["k"]), softplus(found[query])
    if case.spec == "mlstm":
        found |= {"k": each(heads, keys), "ig": each(heads), "fg": each(heads) + 3, "q": each(heads, keys)}
    if case.spec == "slots":
        forget = logsigmoid(each(heads, SLOTS)) / 8
        found |= {"s": -torch.expm1(forget), "g": forget}
    found = {name: x.to(case.dtype) for name, x in found.items()}
    if case.spec == "lightning":  # the decays of retention: 1 - 2**-5, 1 - 2**-6, …
        found["slope"] = -torch.log1p(-torch.exp2(-5 - torch.arange(heads, device=device, dtype=torch.float32)))
    if case.spec == "gate":
        found["g"] = logsigmoid(each(heads) + 3)
    if case.spec == "rwkv6":
        found["u"] = 0.1 * draw(heads, keys)
    return found
