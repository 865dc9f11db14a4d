"""What a generated module says of itself, as plain data: enough to check a call and lay out its tensors.

A module spells these out in its own source (`SPEC = Spec(...)`), so that it can be read, and used,
without the compiler.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Dims = tuple[tuple[str, ...], ...]
TensorKind = Literal["real", "complex", "int", "bool"]


@dataclass(frozen=True)
class AxisSpec:
    """An axis: its fixed size if any, and the axis `like` whose size it shares."""

    name: str
    size: int | None = None
    like: str | None = None


@dataclass(frozen=True)
class TensorSpec:
    """A tensor as callers lay it out.

    `dims`: one entry per dimension behind the leading ones ([B, T] for inputs and outputs, [B] for
    states, none for params), each the axes merged in it, slow first; a repeated axis `A[n,n]` stands as
    `n` and `n_col`.  `axes`: the same axes in the order in which kernels want them.  `pin`: the name
    of a fixed torch dtype.  `declared`: the text of the declaration, with `line` in the spec.
    """

    name: str
    dims: Dims
    axes: tuple[str, ...]
    kind: TensorKind = "real"
    pin: str | None = None
    declared: str = ""
    line: int = 0


@dataclass(frozen=True)
class StateSpec(TensorSpec):
    """A state; `init` is a number or the name of a param.

    `public` = (name, slot, count): callers see it as slot `slot` of the `count` in the buffer `name`
    ([B, count, *dims]).
    """

    init: float | complex | str = 0.0
    public: tuple[str, int, int] | None = None


@dataclass(frozen=True)
class Spec:
    """One scan: everything that a caller can see of it.

    `order`: the names of inputs and params as they were declared, which is the order of positional
    arguments; empty means inputs, then params.
    """

    name: str
    digest: str
    axes: tuple[AxisSpec, ...]
    inputs: tuple[TensorSpec, ...]
    params: tuple[TensorSpec, ...]
    states: tuple[StateSpec, ...]
    outputs: tuple[TensorSpec, ...]
    forms: tuple[str, ...]
    refused: tuple[tuple[str, str], ...] = ()  # (form, reason) of each form that is not admitted
    order: tuple[str, ...] = ()
