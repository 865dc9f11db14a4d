"""The operators whose published tests are run here: their specs, random tensors, and how close results have to be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from gpu.measure import EXAMPLES
from gpu.published_cases import Case
from gpu.published_tolerances import Bound, Close, Ratio
from torch import Tensor
from torch.nn.functional import logsigmoid

Tensors = dict[str, Tensor]
LAYER, LAYERS = 1, 4
"""Of lightning attention, whose decays depend on depth."""


@dataclass
class Source:
    """Random tensors of a case on a device."""

    case: Case
    device: str
    generator: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.generator = torch.Generator(self.device).manual_seed(42)

    def normal(self, *dims: int) -> Tensor:
        return torch.randn(*dims, generator=self.generator, device=self.device)

    def uniform(self, *dims: int) -> Tensor:
        return torch.rand(*dims, generator=self.generator, device=self.device)

    def each(self, *dims: int) -> Tensor:
        """Normal, of each token."""
        return self.normal(self.case.batch, self.case.time, *dims)

    def gate(self, logits: Tensor) -> Tensor:
        """Log gates, by the case's normalizer and mask."""
        return logsigmoid(logits) / self.case.normalizer * (self.uniform(*logits.shape) >= self.case.masked)

    def rounded(self, **tensors: Tensor) -> Tensors:
        return {name: x.to(self.case.dtype) for name, x in tensors.items()}

    def attention(self, query: str = "q", draw: Callable[..., Tensor] | None = None) -> Tensors:
        """Queries, keys and values, normal if nothing else is said."""
        case, draw = self.case, draw or self.normal
        scale = case.keys**-0.5 if case.scale is None else case.scale
        lead = case.batch, case.time, case.heads
        found = {query: scale * draw(*lead, case.keys), "k": draw(*lead, case.keys), "v": draw(*lead, case.values)}
        return self.rounded(**found)

    def memory(self) -> Tensors:
        case = self.case
        return {"S": self.normal(case.batch, case.heads, case.keys, case.values)}


Drawn = tuple[Tensors, Tensors]
"""Inputs and params, and initial states."""


@dataclass(frozen=True)
class Suite:
    """The tests of one operator.

    `bounds` are by result (`output`, `final S`, `d q`), "" for all others; what has none is held against the peer only.
    `fixed` take no gradient. `final`: gradients flow in through final states. `coarse` are results that are known to be
    off by more in 16 bits: gradients of decays are differences of sums there (docs/decisions/0007).
    """

    spec: str
    draw: Callable[[Source], Drawn]
    bounds: Mapping[str, Bound]
    fixed: tuple[str, ...] = ()
    final: bool = True
    coarse: tuple[str, ...] = ()

    def bound(self, result: str) -> Bound | None:
        return self.bounds.get(result, self.bounds.get(""))


def _linear(source: Source) -> Drawn:
    return source.attention(), source.memory()


def _retention(source: Source) -> Drawn:
    heads = torch.arange(source.case.heads, device=source.device)
    return source.attention() | {"log_gamma": torch.log1p(-torch.exp2(-5.0 - heads))}, source.memory()


def _lightning(source: Source) -> Drawn:
    heads = torch.arange(source.case.heads, device=source.device)
    slope = 8 / source.case.heads * (1 - LAYER / LAYERS) * heads
    return source.attention() | {"slope": slope}, source.memory()


def _simple_gla(source: Source) -> Drawn:
    return source.attention() | {"g": source.gate(source.each(source.case.heads))}, source.memory()


def _gla(source: Source) -> Drawn:
    case = source.case
    gates = source.gate(source.uniform(case.batch, case.time, case.heads, case.keys))
    states = {"S": source.uniform(case.batch, case.heads, case.keys, case.values)}
    return source.attention(draw=source.uniform) | source.rounded(g=gates), states


def _rwkv6(source: Source) -> Drawn:
    keys = source.case.heads, source.case.keys
    gates = source.rounded(w=source.gate(source.each(*keys)), u=source.normal(*keys))
    return source.attention("r") | gates, source.memory()


def _gsa(source: Source) -> Drawn:
    case = source.case
    slots = case.heads, case.groups
    written = source.rounded(s=source.each(*slots), g=source.gate(source.each(*slots)))
    K = source.normal(case.batch, case.heads, case.keys, case.groups)
    return source.attention() | written, {"K": K, "V": source.normal(case.batch, *slots, case.values)}


def _based(source: Source) -> Drawn:
    return source.attention(), {}


def _hgrn(source: Source) -> Drawn:
    channels = source.case.values
    logits = source.each(channels)
    found = source.rounded(x=torch.sigmoid(-logits) * source.each(channels), g=source.gate(logits))
    return found, {"h": source.normal(source.case.batch, channels)}


def _ssd(source: Source) -> Drawn:
    case = source.case
    heads, shared = case.heads, (case.groups, case.keys)
    found = source.rounded(x=source.each(heads, case.values), B=source.each(*shared) / 5, C=source.each(*shared) / 5)
    params = {"log_A": torch.log(0.1 * source.uniform(heads)), "D": source.normal(heads)}
    params["bias"] = 0.1 * source.normal(heads) - 4
    states = {"h": source.normal(case.batch, heads, case.keys, case.values)}
    return found | {"delta": source.each(heads)} | params, states


def _selective(source: Source) -> Drawn:
    case = source.case
    channels, shared = case.values, (case.groups, case.keys)
    steps = source.uniform(case.batch, case.time, channels) / 2
    found = source.rounded(
        u=source.each(channels), delta=steps, B=source.each(*shared), C=source.each(*shared), z=source.each(channels)
    )
    params = {"A": -source.uniform(channels, case.keys) / 2, "D": source.normal(channels)}
    return found | params | {"bias": source.uniform(channels) / 2}, {}


def _example(name: str, old: str = "", new: str = "") -> str:
    text = (EXAMPLES / f"{name}.scan").read_text(encoding="utf-8")
    assert old in text, f"{name}.scan has no {old}"
    return text.replace(old, new)


_LINEAR = """scan linear
batch h
axes i, j
input q[h,i], k[h,i], v[h,j]
state S[h,i,j]
S = S + k*v
o = q · S
output o[h,j]
"""
_SIMPLE_GLA = _LINEAR.replace("v[h,j]", "v[h,j], g[h]: fp32").replace("S = S", "S = exp(g)*S")
_GSA = """scan slots
batch h
axes i, j, m
input q[h,i], k[h,i], v[h,j], s[h,m], g[h,m]
state K[h,i,m], V[h,m,j]
K = exp(g)*K + k*s
V = exp(g)*V + s*v
o = softmax[m](q · K) · V
output o[h,j]
"""
_HGRN = """scan gated
axes d
input x[d], g[d]
state h[d]
h = exp(g)*h + x
output h[d]
"""
_SELECTIVE = """scan selective
batch g
axes r, n
input u[g*r], delta(u)[g*r], B(u)[g,n], C(u)[g,n], z(u)[g*r]
param A[g*r,n], D[g*r], bias[g*r]
state h[g*r,n]
step = softplus(delta + bias)
h = exp(step*A)*h + (step*u)*B
y = (C · h + D*u) * silu(z)
output y[g*r]
"""
_OF_ALL = {"": Ratio(0.005)}
_AND_OUTPUT = _OF_ALL | {"output": Ratio(0.004)}
_OF_BASED = dict.fromkeys(("output", "d q", "d k", "d v"), Close(0, 1e-4))
_OF_SELECTIVE = {
    **dict.fromkeys(("output", "final h", "d B", "d C"), Close(6e-4, 2e-3)),
    **dict.fromkeys(("d z", "d D", "d bias"), Close(1e-3, 2e-3)),
    "d u": Close(1.2e-3, 4e-3),
    "d delta": Close(3e-3, 2e-2),
    "d A": Close(1e-3, 1e-2),
}
SUITES = {
    "linear_attn": Suite(_LINEAR, _linear, {"": Ratio(0.001)}),
    "retention": Suite(_example("retnet"), _retention, _OF_ALL, fixed=("log_gamma",)),
    "lightning_attn": Suite(_example("lightning"), _lightning, _OF_ALL, fixed=("slope",)),
    "simple_gla": Suite(_SIMPLE_GLA, _simple_gla, _AND_OUTPUT, coarse=("d g",)),
    "gla": Suite(_example("gla"), _gla, _AND_OUTPUT, coarse=("d g",)),
    "rwkv6": Suite(_example("rwkv6", "exp(-exp(w))", "exp(w)"), _rwkv6, _AND_OUTPUT, final=False, coarse=("d w",)),
    "gsa": Suite(_GSA, _gsa, _OF_ALL | {"d s": Ratio(0.008), "d g": Ratio(0.008)}, coarse=("d g",)),
    "based": Suite(_example("based"), _based, _OF_BASED, final=False),
    "hgrn": Suite(_HGRN, _hgrn, _OF_ALL),
    "ssd": Suite(
        _example("mamba2", "delta(x)[g*r]", "delta(x)[g*r]: fp32"),
        _ssd,
        {"final h": Close(1e-2, 3e-3)},
        coarse=("d delta", "d log_A", "d bias"),
    ),
    "selective_scan": Suite(_SELECTIVE, _selective, _OF_SELECTIVE, final=False),
}
"""Of mamba-ssm's SSD no published test bounds gradients: they are held against the peer only."""
