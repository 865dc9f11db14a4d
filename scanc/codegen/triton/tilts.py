"""Decays of one side of a memory, taken out of its chunks.

Inside a chunk whose keys and values are tilted, nothing decays: with c the sum of a side's logarithms since the chunk
began and m half of it at the chunk's end, keys and values times exp(m - c) are recalled by queries times exp(c - m)
from a state that is multiplied by exp(m) at either end of the chunk (theory, section 2).  What is recalled of a side
that decays is tilted as queries are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Literal

from scanc.codegen.triton.flux import peeled
from scanc.ir.build import Builder
from scanc.ir.nodes import Instr, Map, Memory, Program, Tensor
from scanc.ir.rewrite import live, one_region, roots

if TYPE_CHECKING:
    from scanc.codegen.triton.recall_plan import Part

Kind = Literal["after", "before", "write"]


@dataclass(frozen=True)
class Tilt:
    """A factor of a side: of queries `after` or `before` their step's decay, or of what is written."""

    log: str
    kind: Kind


def tilt(program: Program, parts: Sequence[Part]) -> tuple[Program, dict[str, Tilt], dict[str, str]]:
    """The program with tilted operands, what tilts, and what was recalled of a tilted side → the same brought back.

    Each part is told what stands for its operands.
    """
    found = _Tilts(program)
    for part in parts:
        read, write = _kinds(part)
        for where, log in part.sides:
            places = {0: read, 1: write} if where == "keys" else {2: write}
            for place, kind in places.items():
                part.tilted[place] = found.tilted(part.peeled[place], Tilt(log, kind), part)
            if where == "values":
                found.bring_back(part.result, Tilt(log, read))
                found.along[part.result] = part.clock, part.values
    return found.program(), found.names, found.backs


def _kinds(part: Part) -> tuple[Kind, Kind]:
    """How a part's queries and what it writes are tilted, in the direction that its primal memory walks."""
    seen: Kind = "after" if (part.made.writes[0] if part.made.dual else part.op.decayed) else "before"
    return ("write", seen) if part.made.dual else (seen, "write")


class _Tilts:
    def __init__(self, program: Program) -> None:
        self.whole = program
        self.builder = Builder.extending(program)
        self.names: dict[str, Tilt] = {}
        self.backs: dict[str, str] = {}
        self.along: dict[str, tuple[str, str]] = {}
        self.before: dict[str, list[Instr]] = {}
        self.behind: dict[str, list[Instr]] = {}
        self.made = {instr.name: instr for instr in program.instrs}
        self._known: dict[tuple[str, Tilt], str] = {}

    def tilted(self, value: str, by: Tilt, part: Part) -> str:
        """A value, tilted, for a part to read."""
        if (value, by) not in self._known:
            self._known[value, by] = self.builder.map("mul", value, self._name(by), hint=f"{value}_tilted")
            self.before.setdefault(part.recall.name, []).extend(self.builder.take())
        return self._known[value, by]

    def bring_back(self, result: str, by: Tilt) -> None:
        """Has what was recalled of a tilted side brought back for all that read it."""
        self.backs[result] = self.builder.map("mul", result, self._name(by), hint=f"{result}_back")
        self.behind[result] = list(self.builder.take())

    def _name(self, by: Tilt) -> str:
        names = {each: name for name, each in self.names.items()}
        if by not in names:
            names[by] = self.builder.fresh(f"{by.log}_{by.kind}")
            self.builder.types[names[by]] = self.whole.types[by.log]
            self.names[names[by]] = by
        return names[by]

    def _now(self, instr: Instr) -> list[Instr]:
        """An instruction that reads what was brought back.

        Flux is a factor, tilted and rounded as products have it, times what was recalled: so it cancels as they do.
        """
        value = self.made.get(instr.args[0]) if instr.args else None
        if instr.op == Map("mul") and value is not None and value.op == Map("stop") and instr.args[1] in self.backs:
            back = next(each for each in self.behind[instr.args[1]] if each.name == self.backs[instr.args[1]])
            clock, side = self.along[instr.args[1]]
            factor, factors = peeled(self.whole.types, self.made, value.args[0], side, {clock, side})
            tilted = self.builder.map("mul", factor, back.args[1], hint="flux_tilted")
            rounded = self.builder.map("stop", tilted, hint="rounded")
            scaled = reduce(lambda a, b: self.builder.map("mul", a, b, hint="flux"), factors, instr.args[1])
            return [*self.builder.take(), replace(instr, args=(rounded, scaled))]
        if isinstance(instr.op, Memory):
            return [instr]
        return [replace(instr, args=tuple(self.backs.get(arg, arg) for arg in instr.args))]

    def program(self) -> Program:
        """The program, the factors as inputs."""
        whole, instrs = self.whole, list[Instr]()
        for instr in whole.instrs:
            own = self.before.get(instr.name, []), self.behind.get(instr.name, [])
            instrs += [*own[0], *self._now(instr), *own[1]]
        types = self.builder.types
        factors = tuple(Tensor(n, tuple((axis,) for axis in types[n].axes), types[n]) for n in self.names)
        outputs = tuple(replace(o, value=self.backs.get(o.value, o.value)) for o in whole.outputs)
        totals = tuple(replace(o, value=self.backs.get(o.value, o.value)) for o in whole.totals)
        result = replace(whole, inputs=(*whole.inputs, *factors), outputs=outputs, totals=totals)
        return one_region(result, live(instrs, [*roots(result), *self._known.values()]))
