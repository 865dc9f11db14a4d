"""Values of the IR as torch expressions: which leading dimensions they have, and how they are aligned.

A value's tensor is [*lead, *axes].  `lead` is [B, L] where a segment's steps are taken at once, [B] inside a loop
over time, nothing for what depends on params alone; a constant is a Python number.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from scanc.codegen.expressions import Expr, Level
from scanc.ir.nodes import Kind

_LEADING = "BL"  # the letters of the leading dimensions


class Lead(IntEnum):
    """Which leading dimensions a value has: a number none at all, a fixed one no batch or time, a full one all."""

    NUMBER = 0
    FIXED = 1
    FULL = 2


@dataclass(frozen=True)
class Value:
    """An expression of the generated code: its axes, its kind, and which leading dimensions it has."""

    expr: Expr
    axes: tuple[str, ...]
    kind: Kind
    lead: Lead

    @property
    def named(self) -> bool:
        """Whether the expression is a name, free to be repeated."""
        return self.expr.text.isidentifier()

    def suffixed(self, suffix: str) -> Expr:
        """The expression with an index or a method call behind it."""
        return Expr(f"{self.expr.at(Level.ATOM)}{suffix}")


def aligned(value: Value, axes: Sequence[str], lead: Lead) -> Expr:
    """`value` so that it broadcasts against [*lead, *axes]: a None index for each axis that it lacks."""
    if value.lead is Lead.NUMBER or value.axes == tuple(axes):
        return value.expr
    marks = [":" if axis in value.axes else "None" for axis in axes]
    if value.lead is Lead.FIXED:
        while marks and marks[0] == "None":
            marks.pop(0)
    while marks and marks[0] == ":":
        marks.pop(0)
    return value.suffixed(f"[..., {', '.join(marks)}]") if marks else value.expr


def reordered(value: Value, axes: tuple[str, ...], leading: int) -> Expr:
    """`value`, whose axes are a permutation of `axes`, with its dimensions in that order."""
    if value.axes == axes:
        return value.expr
    order = [value.axes.index(axis) for axis in axes]
    rest = list(range(len(axes) - 2))
    if order[:-2] == rest and len(axes) >= 2:
        return value.suffixed(".mT")
    dims = [*range(leading), *(leading + i for i in order)]
    return value.suffixed(f".permute({', '.join(map(str, dims))})")


def dims_of(value: Value, axes: Sequence[str]) -> list[int]:
    """The dimensions of `axes`, counted from the last."""
    return [value.axes.index(axis) - len(value.axes) for axis in axes]


def contraction(a: Value, b: Value, summed: Sequence[str], axes: tuple[str, ...], lead: str) -> Expr:
    """Σ over `summed` of a * b with the given axes: a matrix product with a weight where it is one, else an einsum.

    `lead` spells the leading dimensions of full values (`BL`, `B`), all of which stay.
    """
    for x, weight in ((a, b), (b, a)):
        product = _by_weight(x, weight, summed, axes)
        if product is not None:
            return product
    return einsum(a, b, axes, lead, lead if Lead.FULL in (a.lead, b.lead) else "")


def _by_weight(x: Value, weight: Value, summed: Sequence[str], axes: tuple[str, ...]) -> Expr | None:
    """x @ W for a fixed matrix W whose one axis is the last of x and whose other is the last of the result."""
    if len(summed) != 1 or weight.lead is not Lead.FIXED or x.lead is not Lead.FULL or len(weight.axes) != 2:
        return None
    inner = summed[0]
    (outer,) = (axis for axis in weight.axes if axis != inner)
    if not x.axes or x.axes[-1] != inner or outer in x.axes or axes != (*x.axes[:-1], outer):
        return None
    matrix = weight.expr if weight.axes == (inner, outer) else weight.suffixed(".mT")
    return Expr(f"{x.expr.at(Level.PRODUCT)} @ {matrix.at(Level.UNARY)}", Level.PRODUCT)


def einsum(a: Value, b: Value, axes: Sequence[str], lead: str, result_lead: str) -> Expr:
    """An einsum over two values, result axes in the given order; full values have the dimensions `lead`."""
    letters = _letters([*a.axes, *b.axes, *axes])
    terms = [(lead if v.lead is Lead.FULL else "") + "".join(letters[axis] for axis in v.axes) for v in (a, b)]
    result = result_lead + "".join(letters[axis] for axis in axes)
    return Expr(f'torch.einsum("{",".join(terms)}->{result}", {a.expr}, {b.expr})')


def _letters(axes: Sequence[str]) -> dict[str, str]:
    """A letter an axis, lower-case while there is one: its first where that is free."""
    letters: dict[str, str] = {}
    free = [*string.ascii_lowercase, *(letter for letter in string.ascii_uppercase if letter not in _LEADING)]
    for axis in dict.fromkeys(axes):
        wish = axis[0].lower()
        others = {other[0].lower() for other in axes}
        letter = wish if wish in free else next((c for c in free if c not in others), free[0])
        free.remove(letter)
        letters[axis] = letter
    return letters


def renamed(value: Value, moved: dict[str, str], axes: tuple[str, ...], leading: int) -> Value:
    """`value` with its axes called otherwise and brought into canonical order."""
    called = replace(value, axes=tuple(moved.get(axis, axis) for axis in value.axes))
    return Value(reordered(called, axes, leading), axes, value.kind, value.lead)
