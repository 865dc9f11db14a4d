"""schedule: which axes of a step are spread over programs of a GPU, and which stay whole in a program's tile.

An axis can be spread if the step carries it elementwise, save for sums over it that reach nothing but
results that are linear in them: each program then leaves its share of the sum (a *partial*), and
the shares are added behind the kernel in a fixed order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto

from scanc.ir.nodes import (
    Broadcast,
    Contract,
    Extremum,
    Index,
    Instr,
    Kind,
    Level,
    Map,
    Program,
    Reduce,
    RegionKind,
    Rename,
    Stack,
)
from scanc.ir.rewrite import live, roots
from scanc.passes.base import Pass, Remark, Rewrite

Axes = tuple[str, ...]


class Share(Enum):
    """What a program holds of a value when an axis is spread over programs."""

    WHOLE = auto()  # the value does not depend on the axis: every program holds it
    BLOCK = auto()  # the value has the axis: the program's block of it
    PARTIAL = auto()  # the value is the sum of what the programs hold


@dataclass(frozen=True)
class Spread:
    """One axis spread over programs: the values that are partial, and where a whole value meets a partial one.

    `guarded` lists (instruction or "next", argument or state): that operand counts in the first program alone.
    """

    axis: str
    partial: frozenset[str]
    guarded: frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Schedule:
    """How a step is laid over programs.

    `grid` axes: one index a program.  `split` axes: a block a program, in the order in which to split them
    first.  `full` axes: whole in every program.  `spreads`: what spreading each grid or split axis means.
    `leaving`: the values that leave.
    """

    leaving: frozenset[str]
    grid: Axes
    split: Axes
    full: Axes
    spreads: tuple[Spread, ...]

    @property
    def free(self) -> Axes:
        """The split axes over which nothing that leaves is a partial sum."""
        return tuple(axis for axis in self.split if axis not in self.summed)

    @property
    def summed(self) -> Axes:
        """The split axes that leave partial sums: each block more is more to store and to add."""
        summed = {spread.axis for spread in self.spreads if spread.partial & self.leaving}
        return tuple(axis for axis in self.split if axis in summed)

    def partial_over(self, value: str) -> Axes:
        """The spread axes over which `value` is a partial sum."""
        return tuple(spread.axis for spread in self.spreads if value in spread.partial)

    def guards(self, user: str, operand: str) -> Axes:
        """The spread axes of which only the first program may count this operand."""
        return tuple(spread.axis for spread in self.spreads if (user, operand) in spread.guarded)

    @property
    def tile(self) -> frozenset[str]:
        """The axes that tiles have."""
        return frozenset(self.split + self.full)


class _Blocked(Exception):
    """An axis that must stay whole; the message says why."""


def recompute(program: Program, states: Iterable[str]) -> Program:
    """The part of a step that the given states' next values need: fewer instructions, states, no outputs."""
    next_of = program.next_of
    wanted = set(states)
    while True:
        kept = live(program.instrs, {next_of[state] for state in wanted})
        read = {arg for instr in kept for arg in instr.args} | {next_of[state] for state in wanted}
        more = {state.name for state in program.states if state.name in read} | wanted
        if more == wanted:
            break
        wanted = more
    names = {instr.name for instr in kept}
    return replace(
        program,
        states=tuple(state for state in program.states if state.name in wanted),
        regions=tuple(replace(r, instrs=tuple(i for i in r.instrs if i.name in names)) for r in program.regions),
        next=tuple((state, value) for state, value in program.next if state in wanted),
        outputs=(),
        totals=(),
    )


def schedule(program: Program, whole_states: bool = True, alongside: Program | None = None) -> Schedule:
    """The schedule of a fused step.

    `whole_states`: no state may be a partial sum.  `alongside` is a second step in the same kernel, whose
    states are whole in any case.
    """
    steps = [program] if alongside is None else [program, alongside]
    carried = {axis for step in steps for type_ in step.types.values() for axis in type_.axes}
    spreads: dict[str, Spread] = {}
    for axis in program.canonical(frozenset(carried)):
        try:
            spread = _spread(program, axis, whole_states)
            for step in steps[1:]:
                _spread(step, axis, True)
        except _Blocked:
            continue
        spreads[axis] = spread
    full = tuple(axis for axis in program.canonical(frozenset(carried)) if axis not in spreads)
    grid = _grid(program, spreads, full)
    split = sorted((axis for axis in spreads if axis not in grid), key=lambda axis: _cost(program, spreads[axis]))
    return Schedule(frozenset(roots(program)), grid, tuple(split), full, tuple(spreads.values()))


def spread(program: Program, axis: str) -> Spread | None:
    """What spreading one axis of a step over programs means; None where that is not possible."""
    try:
        return _spread(program, axis, True)
    except _Blocked:
        return None


def _grid(program: Program, spreads: Mapping[str, Spread], full: Axes) -> Axes:
    """The batch axes that can be spread, one index a program; a tile keeps one of them if it has no other axis."""
    batch = [axis for axis in spreads if program.axis(axis).batch]
    if batch and len(batch) == len(spreads) and not full:
        batch = batch[:-1]
    return tuple(batch)


def _cost(program: Program, spread: Spread) -> int:
    """What spreading an axis costs: the partial results that leave at every step, and those that leave once."""
    often = sum(output.value in spread.partial for output in program.outputs)
    once = sum(value in spread.partial for value in [o.value for o in program.totals])
    return 10 * often + once


def _spread(program: Program, axis: str, whole_states: bool) -> Spread:
    """The shares of all values with `axis` spread; raises _Blocked where that is not possible."""
    partial_states: set[str] = set()
    while True:
        flow = _Shares(program, axis, partial_states)
        for region in program.regions:
            for instr in region.instrs:
                flow.visit(instr, region.kind)
        new = {state for state, value in program.next if flow.share[value] is Share.PARTIAL} - partial_states
        if not new:
            break
        partial_states |= new
    if partial_states and whole_states:
        raise _Blocked(f"the state {min(partial_states)} would be a partial sum")
    for state, value in program.next:
        if state in partial_states and flow.share[value] is Share.WHOLE:
            flow.guarded.add(("next", state))
    partial = frozenset(name for name, share in flow.share.items() if share is Share.PARTIAL)
    return Spread(axis, partial, frozenset(flow.guarded))


class _Shares:
    """Abstract interpretation of a step: the share of each value, one axis spread."""

    def __init__(self, program: Program, axis: str, partial_states: set[str]) -> None:
        self.axis = axis
        self.guarded: set[tuple[str, str]] = set()
        self.share = {
            decl.name: Share.BLOCK if axis in decl.type.axes else Share.WHOLE for decl in program.declared
        } | dict.fromkeys(partial_states, Share.PARTIAL)

    def visit(self, instr: Instr, kind: RegionKind) -> None:
        shares = [self.share[arg] for arg in instr.args]
        share = self._of_partial(instr, shares) if Share.PARTIAL in shares else self._of_known(instr)
        if share is Share.PARTIAL and kind is RegionKind.PARAMS:
            raise _Blocked(f"{instr.name} sums parameters over {self.axis}")
        self.share[instr.name] = share

    def _of_known(self, instr: Instr) -> Share:
        """The share of a value whose arguments are all whole or blocks."""
        match instr.op:
            case Reduce(fn, axes) if self.axis in axes:
                self._need(fn == "sum" and instr.type.kind is Kind.REAL, instr)
                return Share.PARTIAL
            case Contract(semiring, axes) if self.axis in axes:
                self._need(semiring == "real" and instr.type.kind is Kind.REAL, instr)
                return Share.PARTIAL
            case Rename(pairs):
                self._need(all(self.axis not in pair for pair in pairs), instr)
            case Index(axis, _) | Stack(axis):
                self._need(axis != self.axis, instr)
            case Extremum(_, axes):
                self._need(self.axis not in axes, instr)
            case _:
                pass
        return Share.BLOCK if self.axis in instr.type.axes else Share.WHOLE

    def _of_partial(self, instr: Instr, shares: list[Share]) -> Share:
        """The share of a value with a partial argument: partial where the operation is linear, else blocked."""
        self._need(self.axis not in instr.type.axes and Share.BLOCK not in shares, instr)
        match instr.op:
            case Map("add" | "sub") | Stack():
                self._guard(instr, shares)
            case Map("where"):
                self._need(shares[0] is Share.WHOLE, instr)
                self._guard(instr, [Share.PARTIAL, *shares[1:]])
            case Map("neg" | "stop") | Reduce("sum", _) | Rename() | Broadcast() | Index():
                pass
            case Map("mul") | Contract("real", _):
                self._need(shares.count(Share.PARTIAL) == 1, instr)
            case Map("div"):
                self._need(shares[1] is Share.WHOLE, instr)
            case _:
                self._need(False, instr)
        return Share.PARTIAL

    def _guard(self, instr: Instr, shares: list[Share]) -> None:
        self.guarded |= {
            (instr.name, arg) for arg, share in zip(instr.args, shares, strict=True) if share is Share.WHOLE
        }

    def _need(self, holds: bool, instr: Instr) -> None:
        if not holds:
            raise _Blocked(f"{instr.name} needs all of {self.axis}")


def run(program: Program) -> Rewrite:
    plan = schedule(program)
    parts = []
    if plan.grid:
        parts.append(f"one program per {', '.join(plan.grid)}")
    if plan.split:
        parts.append(f"blocks of {', '.join(plan.split)}")
    if plan.full:
        parts.append(f"all of {', '.join(plan.full)} in a program")
    text = "; ".join(parts) or "no axis: one program per sequence"
    return program, (Remark("schedule", text),)


SCHEDULE = Pass(
    "schedule",
    Level.SCHEDULED,
    Level.SCHEDULED,
    "Finds the axes that programs can share out between them; changes nothing.",
    run,
)
