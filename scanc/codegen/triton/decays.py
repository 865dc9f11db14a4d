"""The decay of each state: what a step multiplies it with, as a value of its own.

Where every state is a scan of its own, h = a·h + w with a and w free of states, a stretch of time maps the state before
it to P·h + E.  P is the product of the decays, E what the stretch ends with when it begins with nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from scanc.ir.build import Builder
from scanc.ir.nodes import Instr, Kind, Map, Output, Program, Region, RegionKind, State
from scanc.ir.rewrite import dependent, live


@dataclass(frozen=True)
class Decays:
    """The part of a step that makes the next states and their decays; `of` names each decay, None if it is one."""

    program: Program
    of: tuple[tuple[str, str | None], ...]


def decays(program: Program) -> Decays | None:
    """The decays of a fused step; None if it has a state that is no real scan of its own."""
    if program.semiring != "real" or not program.states or any(s.type.kind is not Kind.REAL for s in program.states):
        return None
    made = {instr.name: instr for instr in program.instrs}
    depends = dependent(program.instrs, [state.name for state in program.states])
    builder = Builder(program.axes, program.types, reserved=[*made, *(decl.name for decl in program.declared)])
    following = program.next_of
    try:
        found = tuple((s.name, _Decay(builder, made, depends, s).of(following[s.name])) for s in program.states)
    except _NotAffine:
        return None
    return Decays(_pruned(program, found, list(builder.take())), found)


class _NotAffine(Exception):
    """A next state is not, element by element, its decay times the state plus what depends on no state."""


class _Decay:
    """What a value that is linear in one state multiplies it with; None is one."""

    def __init__(self, builder: Builder, made: dict[str, Instr], depends: Collection[str], state: State) -> None:
        self.builder = builder
        self.made = made
        self.depends = depends
        self.state = state

    def of(self, value: str) -> str | None:
        if value == self.state.name:
            return None
        instr = self.made.get(value)
        if instr is None or not isinstance(instr.op, Map) or instr.type != self.state.type:
            raise _NotAffine
        args, fn = instr.args, instr.op.fn
        sloped = [arg in self.depends for arg in args]
        match fn, sloped:
            case ("add" | "sub", [True, False]) | ("add", [False, True]):
                return self.of(args[sloped.index(True)])
            case "mul", [True, False] | [False, True]:
                factor, rest = args[sloped.index(False)], self.of(args[sloped.index(True)])
                return factor if rest is None else self.builder.map("mul", factor, rest)
            case ("sub", [False, True]):
                return self.builder.map("neg", self._whole(args[1]))
            case ("div", [True, False]):
                return self.builder.map("div", self._whole(args[0]), args[1])
            case ("neg", [True]):
                return self.builder.map("neg", self._whole(args[0]))
            case ("add" | "sub", [True, True]):
                return self.builder.map(fn, self._whole(args[0]), self._whole(args[1]))
            case ("where", [False, a, b]) if a or b:
                first, second = (self._whole(args[i]) if sloped[i] else self.builder.const(0.0) for i in (1, 2))
                return self.builder.map("where", args[0], first, second)
        raise _NotAffine

    def _whole(self, value: str) -> str:
        found = self.of(value)
        return self.builder.const(1.0) if found is None else found


def _pruned(program: Program, found: tuple[tuple[str, str | None], ...], more: list[Instr]) -> Program:
    """The instructions that next states and decays need; the decays stand among the outputs."""
    leaving = [decay for _, decay in found if decay is not None]
    kept = live([*program.instrs, *more], [*leaving, *(value for _, value in program.next)])
    names = {instr.name for instr in kept}
    read = {arg for instr in kept for arg in instr.args} | set(leaving) | {value for _, value in program.next}
    regions = [replace(r, instrs=tuple(i for i in r.instrs if i.name in names)) for r in program.regions]
    regions.append(Region(RegionKind.STEP, tuple(instr for instr in more if instr.name in names)))
    return replace(
        program,
        inputs=tuple(tensor for tensor in program.inputs if tensor.name in read),
        params=tuple(tensor for tensor in program.params if tensor.name in read),
        regions=tuple(regions),
        outputs=tuple(Output(f"{state}.decay", decay, ()) for state, decay in found if decay is not None),
        totals=(),
    )
