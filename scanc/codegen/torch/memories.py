"""Memories as calls: what a segment does in place of a matrix at each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

from scanc.codegen.expressions import Expr
from scanc.codegen.torch.values import Lead, Value, aligned
from scanc.ir.nodes import Meet, Memory, Recall, Side

Find = Callable[[str], Value]  # a value with all leading dimensions


class Memories:
    """The memories of one function, by name, and the calls that are made of them."""

    def __init__(self, start: Callable[[str], Expr]) -> None:
        self.start = start
        self.made: dict[str, Memory] = {}

    def memory(self, name: str, op: Memory, args: Sequence[str], find: Find) -> Expr:
        """The call that makes a memory."""
        self.made[name] = op
        count = len(op.decays)
        given = [self.start(op.state).text, f"{_names(op.rows)}, {_names(op.columns)}"]
        decays = [
            f"Decay({over.upper()}, {self._side(op, over, find(arg))}{', raw=True' if raw else ''})"
            for (over, raw), arg in zip(op.decays, args, strict=False)
        ]
        writes = []
        for decayed, x, y in zip(op.writes, args[count::2], args[count + 1 :: 2], strict=True):
            late = "" if decayed else ", decayed=False"
            writes.append(f"Write({self._side(op, 'rows', find(x))}, {self._side(op, 'columns', find(y))}{late})")
        given += [f"[{', '.join(decays)}]", f"[{', '.join(writes)}]"]
        given += [f"{flag}=True" for flag in ("dual", "against") if getattr(op, flag)]
        return Expr(f"call.memory({', '.join(given)})")

    def recall(self, op: Recall, memory: str, held: Expr, query: Value) -> Expr:
        """The call that recalls."""
        asked = self._side(self.made[memory], op.over, query)
        late = "" if op.decayed else ", decayed=False"
        return Expr(f"{held}.recall({asked}, {op.over.upper()}{late})")

    def meet(self, op: Meet, memory: str, held: Sequence[Expr], values: Sequence[Value]) -> Expr:
        """The call that gives a decay's gradient."""
        given = [*map(str, held), op.over.upper()]
        if op.over != "both":
            factors = [self._side(self.made[memory], op.side, value).text for value in values]
            pairs = [f"({x}, {g})" for x, g in zip(factors[::2], factors[1::2], strict=True)]
            cuts = (0, op.decayed, op.decayed + op.before, len(pairs))
            given += [f"[{', '.join(pairs[a:b])}]" for a, b in pairwise(cuts)]
        return Expr(f"meet({', '.join(given)})")

    def _side(self, op: Memory, over: Side, value: Value) -> Expr:
        """A value as [B, L, *batch axes, *axes of a side], with 1 for a batch axis that it lacks."""
        return aligned(replace(value, lead=Lead.FULL), op.along(over), Lead.FULL)


def _names(axes: Sequence[str]) -> str:
    return f"({', '.join(repr(axis) for axis in axes)},)".replace("'", '"')
