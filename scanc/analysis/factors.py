"""Values of a step taken apart into factors on rows, on columns and on neither, as IR.

`products` tells what a value is made of; this emits the factors themselves: `k[i] * v[j]` as a key and a value, the
decay `exp(g[i]) * sigmoid(f)` as logarithms of decays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log

from scanc.diagnostics.span import Span
from scanc.ir.build import Builder
from scanc.ir.nodes import Broadcast, Const, Instr, Map, Rename, Side


class Apart(Exception):
    """Why a value cannot be taken apart, a sentence fragment; `span` is the place in the spec."""

    def __init__(self, reason: str, span: Span | None = None) -> None:
        super().__init__(reason)
        self.span = span


@dataclass(frozen=True)
class Factors:
    """A product, as its factors: those that vary with rows, with columns, with neither."""

    rows: Sequence[str]
    columns: Sequence[str]
    both: Sequence[str]

    def times(self, other: Factors) -> Factors:
        """The product of two products."""
        return Factors([*self.rows, *other.rows], [*self.columns, *other.columns], [*self.both, *other.both])


Parts = list[Factors]
_LIMIT = 16  # products beyond which a value is not taken apart


@dataclass(frozen=True)
class Log:
    """The logarithm of a decay, or the decay itself if `raw`."""

    value: str
    raw: bool = False


class Splitter:
    """Takes values apart, building what it needs with a builder; raises Apart where it cannot."""

    def __init__(
        self, builder: Builder, made: Mapping[str, Instr], rows: Sequence[str], columns: Sequence[str]
    ) -> None:
        self.builder = builder
        self.made = made
        self.rows = frozenset(rows)
        self.columns = frozenset(columns)

    def side(self, value: str) -> Side | None:
        """What a value varies with; None if with rows and columns."""
        axes = self.builder.types[value].axes
        on_rows, on_columns = not self.rows.isdisjoint(axes), not self.columns.isdisjoint(axes)
        return None if on_rows and on_columns else "rows" if on_rows else "columns" if on_columns else "both"

    def leaf(self, value: str) -> Factors:
        """A value as one factor."""
        match self.side(value):
            case "rows":
                return Factors([value], [], [])
            case "columns":
                return Factors([], [value], [])
            case "both":
                return Factors([], [], [value])
        instr = self.made.get(value)
        raise Apart("a factor varies with both sides of the state at once", instr.span if instr else None)

    def split(self, value: str) -> Parts:
        """A value as a sum of products."""
        if self.side(value) is not None:
            return [self.leaf(value)]
        instr = self.made.get(value)
        found: Parts | None = None
        if instr is not None:
            args = instr.args
            match instr.op:
                case Map("mul"):
                    found = [a.times(b) for a in self.split(args[0]) for b in self.split(args[1])]
                case Map("div"):
                    inverse = self.leaf(self.builder.map("div", self.builder.const(1.0), args[1]))
                    found = [part.times(inverse) for part in self.split(args[0])]
                case Map("add"):
                    found = [*self.split(args[0]), *self.split(args[1])]
                case Map("sub"):
                    found = [*self.split(args[0]), *self._negative(args[1])]
                case Map("neg"):
                    found = self._negative(args[0])
                case Broadcast():
                    found = self.split(args[0])
        if found is None or len(found) > _LIMIT:
            return [self.leaf(value)]
        return found

    def _negative(self, value: str) -> Parts:
        minus = Factors([], [], [self.builder.const(-1.0)])
        return [part.times(minus) for part in self.split(value)]

    def logs(self, value: str) -> list[tuple[Side, Log]]:
        """The logarithms of the factors of a decay, each with what it decays."""
        instr = self.made.get(value)
        side = self.side(value)
        if instr is not None:
            args = instr.args
            match instr.op:
                case Map("exp"):
                    return self._terms(args[0], negative=False)
                case Map("sigmoid") if side is not None:
                    return [(side, Log(self.builder.map("logsigmoid", args[0])))]
                case Const(constant) if isinstance(constant, int | float) and constant > 0:
                    return [("both", Log(self.builder.const(log(constant))))]
                case Map("mul"):
                    return [*self.logs(args[0]), *self.logs(args[1])]
                case Broadcast():
                    return self.logs(args[0])
                case Rename() if self.made.get(args[0]) is not None:
                    inner = self.made[args[0]]
                    if inner.op == Map("exp") and side is not None:
                        return [(side, Log(self.builder.add(instr.op, inner.args[0])))]
        if side is None:
            raise Apart("a decay varies with both sides of the state at once", instr.span if instr else None)
        return [(side, Log(value, raw=True))]

    def _terms(self, exponent: str, *, negative: bool) -> list[tuple[Side, Log]]:
        """The terms of an exponent."""
        side = self.side(exponent)
        if side is not None:
            return [(side, Log(self.builder.map("neg", exponent) if negative else exponent))]
        instr = self.made.get(exponent)
        if instr is not None:
            args = instr.args
            match instr.op:
                case Map("add"):
                    return [*self._terms(args[0], negative=negative), *self._terms(args[1], negative=negative)]
                case Map("sub"):
                    return [*self._terms(args[0], negative=negative), *self._terms(args[1], negative=not negative)]
                case Map("neg"):
                    return self._terms(args[0], negative=not negative)
                case Broadcast():
                    return self._terms(args[0], negative=negative)
        raise Apart("a decay varies with both sides of the state at once", instr.span if instr else None)
