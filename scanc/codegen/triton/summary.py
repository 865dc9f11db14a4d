"""Summaries: what a chunk of time does to the states, so that chunks can be walked at once.

Where every state is a scan of its own, affine in what it was, h = a·h + w with a and w free of states, a chunk maps
the state before it to P·h + E: its decays multiplied, and what it ends with when it begins with nothing.  The summary
of a step is the step that computes just these; chunk after chunk they give the state before each.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from scanc.ir.build import Builder
from scanc.ir.nodes import Instr, Kind, Map, Program, Region, RegionKind, State
from scanc.ir.rewrite import dependent, live


@dataclass(frozen=True)
class Summary:
    """The step that summarises; `products` names the state that holds P, per state."""

    program: Program
    products: tuple[tuple[str, str], ...]


class NoSummary(Exception):
    """The step has no state, or `state` is no such scan; `reads` are the other states in its next value."""

    def __init__(self, state: State | None, reads: Collection[str] = ()) -> None:
        self.state = state
        self.reads = tuple(reads)
        super().__init__(state.name if state is not None else "no state")


def summary(program: Program, past: Collection[str] = ()) -> Summary:
    """The summary of a fused step.  Raises `NoSummary` if not every state is such a scan, or there is none.

    `past`: inputs that are not known when it runs.
    """
    made = {instr.name: instr for instr in program.instrs}
    depends = dependent(program.instrs, [*(state.name for state in program.states), *past])
    builder = Builder(program.axes, program.types, reserved=[*made, *(decl.name for decl in program.declared)])
    states: list[State] = []
    products: list[tuple[str, str]] = []
    following = dict(program.next)
    for state in program.states:
        if program.semiring != "real" or state.type.kind is not Kind.REAL:
            raise NoSummary(state)
        product = replace(state, name=f"{state.name}.product", init=1.0)
        builder.types[product.name] = product.type
        try:
            following[product.name] = _Slope(builder, made, depends, state, product.name).of(following[state.name])
        except _NotAffine:
            others = {other.name for other in program.states if other is not state} | set(past)
            end = following[state.name]
            read = {end}.union(*(instr.args for instr in live(program.instrs, [end])))
            raise NoSummary(state, read & others) from None
        states += [replace(state, init=0.0), product]
        products.append((state.name, product.name))
    if not states:
        raise NoSummary(None)
    return Summary(_pruned(program, states, following, list(builder.take())), tuple(products))


class _NotAffine(Exception):
    """A state's next value is not, element by element, its decay times the state plus what depends on no state."""


class _Slope:
    """The part of a value that is linear in one state, with another value in its place."""

    def __init__(self, builder: Builder, made: dict[str, Instr], depends: set[str], state: State, instead: str) -> None:
        self.builder = builder
        self.made = made
        self.depends = depends
        self.state = state
        self.instead = instead

    def of(self, value: str) -> str:
        if value == self.state.name:
            return self.instead
        instr = self.made.get(value)
        if instr is None or not isinstance(instr.op, Map) or instr.type != self.state.type:
            raise _NotAffine
        sloped = [arg in self.depends for arg in instr.args]
        match instr.op.fn, sloped:
            case ("add" | "sub", [True, False]) | ("add", [False, True]):
                return self.of(instr.args[sloped.index(True)])
            case ("mul", [True, False] | [False, True]) | ("div", [True, False]) | ("neg", [True]):
                parts = [self.of(arg) if arg in self.depends else arg for arg in instr.args]
                return self.builder.map(instr.op.fn, *parts)
            case ("add" | "sub", [True, True]):
                return self.builder.map(instr.op.fn, *map(self.of, instr.args))
        raise _NotAffine


def _pruned(program: Program, states: list[State], following: dict[str, str], more: list[Instr]) -> Program:
    wanted = [following[state.name] for state in states]
    kept = live([*program.instrs, *more], wanted)
    names = {instr.name for instr in kept}
    read = {arg for instr in kept for arg in instr.args}
    regions = []
    for region in program.regions:
        instrs = [instr for instr in region.instrs if instr.name in names]
        regions.append(replace(region, instrs=tuple(instrs)))
    regions.append(Region(RegionKind.STEP, tuple(more)))
    return replace(
        program,
        inputs=tuple(tensor for tensor in program.inputs if tensor.name in read),
        params=tuple(tensor for tensor in program.params if tensor.name in read),
        states=tuple(states),
        regions=tuple(regions),
        next=tuple((state.name, following[state.name]) for state in states),
        outputs=(),
        totals=(),
    )
