"""Which kernel computes what, of a program whose states are memories.

A kernel recalls once; what leaves the program leaves from the first kernel that has all it needs, recomputing what is
made of inputs alone.  What a later kernel needs of an earlier recall is handed on through memory.  Gradients of decays
come last: a small kernel sums the flux that the others left.

Decays of a side are dealt with before and after: in kernels of rows, which have one axis of a side.  First ones tilt
keys, values and queries (`tilts`), so that the chunk that is recalled from decays nowhere inside; last ones bring back
what was recalled of a tilted side.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from scanc.codegen.triton.flux import divided_last, fluxes, sum_with_own, summed_last, written
from scanc.codegen.triton.tilts import Tilt, tilt
from scanc.codegen.triton.timed import timed
from scanc.ir.nodes import (
    Contract,
    Instr,
    Kind,
    Map,
    Meet,
    Memory,
    Output,
    Program,
    Recall,
    Tensor,
    TensorType,
)
from scanc.ir.rewrite import live, one_region

Factors = tuple[str, ...]


class NoRecall(Exception):
    """Why a program has no such kernels, a sentence fragment."""


@dataclass
class Part:
    """One kernel: what is recalled in it, and what leaves it.

    `whole`: the sum of what is recalled and of what its step writes, if that is all that is wanted.  `peeled`: query,
    key and value without their `factors` of each step alone, those of queries and those of what is written.
    `marks`: the state is written down now and then; `ends`: it is at the end.  `tilted`: what stands for query, key
    and value (0, 1, 2).
    """

    recall: Instr
    memory: Instr
    whole: str | None
    clock: str
    peeled: tuple[str, str, str]
    factors: tuple[Factors, Factors]
    leaves: list[Output] = field(default_factory=list)
    marks: bool = False
    ends: bool = False
    tilted: dict[int, str] = field(default_factory=dict)

    @property
    def op(self) -> Recall:
        assert isinstance(self.recall.op, Recall)
        return self.recall.op

    @property
    def made(self) -> Memory:
        assert isinstance(self.memory.op, Memory)
        return self.memory.op

    @property
    def result(self) -> str:
        """What the products of a chunk amount to."""
        return self.whole or self.recall.name

    @property
    def keys(self) -> str:
        """The axis that queries and keys have."""
        (axis,) = self.op.axes
        return axis

    @property
    def values(self) -> str:
        """The axis of what is recalled."""
        (axis,) = self.made.columns if self.op.over == "rows" else self.made.rows
        return axis

    @property
    def batch(self) -> tuple[str, ...]:
        """The axes of which a program has one index."""
        return tuple(axis for axis in self.made.axes if axis not in (self.keys, self.values))

    def log(self, where: str) -> str | None:
        """The logarithm of what decays keys, values or all."""
        over = {"keys": self.op.over, "values": "columns" if self.op.over == "rows" else "rows", "all": "both"}[where]
        found = [value for (side, _), value in zip(self.made.decays, self.memory.args, strict=False) if side == over]
        return found[0] if found else None

    @property
    def sides(self) -> list[tuple[str, str]]:
        """The sides that decay by themselves, and the logarithms."""
        return [(where, log) for where in ("keys", "values") if (log := self.log(where)) is not None]

    @property
    def needed(self) -> list[str]:
        """What must be known of a chunk: the operands of its products, and what decays all."""
        log = self.log("all")
        factors = (factor for factors in self.factors for factor in factors)
        return [*self.operands, *factors, *([log] if log is not None else [])]

    @property
    def raw(self) -> tuple[str, str, str]:
        """Query, key and value."""
        return self.recall.args[1], *written(self.memory, self.op.over)

    @property
    def operands(self) -> tuple[str, str, str]:
        """Query, key and value of the products, without factors and tilted."""
        query, key, value = (self.tilted.get(place, name) for place, name in enumerate(self.peeled))
        return query, key, value


@dataclass
class First:
    """The kernel of what a side's decays do to a chunk, and of what they tilt."""

    log: str
    axis: str
    leaves: list[Output] = field(default_factory=list)


@dataclass
class Last:
    """The kernel of a decay's gradient, and of what is made of it and of what was recalled of a tilted side.

    `axis` is the one that the decay has of a side; without a `meet`, there is no such gradient.
    """

    meet: Instr | None
    axis: str | None
    leaves: list[Output] = field(default_factory=list)

    @property
    def memories(self) -> tuple[str, ...]:
        """The memory and its dual whose product is known now and then."""
        return self.meet.args[:2] if self.meet is not None else ()


@dataclass
class Plan:
    """The kernels of a program over time: `first` ones, `parts` in order, `last` ones.

    `handed`: what kernels hand on.  `tilts`: what tilts, and by which logarithm.  `rounded`: values that are others as
    products of matrices have them.
    """

    program: Program
    clock: str
    first: list[First]
    parts: list[Part]
    last: list[Last]
    handed: list[str]
    tilts: dict[str, Tilt]
    rounded: set[str]

    def memory(self, name: str) -> Memory:
        """A memory of the program."""
        op = next(instr.op for instr in self.program.instrs if instr.name == name)
        assert isinstance(op, Memory)
        return op


def plan(program: Program, marked: Collection[str] = ()) -> Plan:
    """The kernels of a program whose states are memories; `marked`: those that are written down for others.

    Raises NoRecall.
    """
    _check(program)
    before = summed_last(divided_last(program))
    program, clock = timed(fluxes(before))
    made = {instr.name: instr for instr in program.instrs}
    parts = [_part(program, instr, made, clock) for instr in made.values() if isinstance(instr.op, Recall)]
    if not parts:
        raise NoRecall("nothing is recalled")
    program, tilts, backs = tilt(program, parts)
    last = [Last(instr, _axis(instr, made)) for instr in program.instrs if isinstance(instr.op, Meet)]
    first = [First(log, axis) for log, axis in dict.fromkeys((log, _along(p, w)) for p in parts for w, log in p.sides)]
    for axis in dict.fromkeys(_along(part, "values") for part in parts if part.result in backs):
        if all(each.axis != axis for each in last):
            last.append(Last(None, axis))
    stops = {i.name for i in program.instrs if i.op == Map("stop")} - {i.name for i in before.instrs}
    found = Plan(program, clock, first, parts, last, [], tilts, stops)
    _Assignment(found, backs, marked).run()
    return found


def _along(part: Part, where: str) -> str:
    return part.keys if where == "keys" else part.values


def _part(program: Program, recall: Instr, made: Mapping[str, Instr], clock: str) -> Part:
    memory, op = made[recall.args[0]], recall.op
    assert isinstance(memory.op, Memory)
    assert isinstance(op, Recall)
    key, value = written(memory, op.over)
    (axis,) = op.axes
    query, of_query = peeled(program.types, made, recall.args[1], axis, {clock, axis})
    key, of_key = peeled(program.types, made, key, axis, {clock, axis})
    (other,) = memory.op.side("columns" if op.over == "rows" else "rows")
    value, of_value = peeled(program.types, made, value, other, {clock, other})
    whole = sum_with_own(program, recall, made)
    return Part(recall, memory, whole, clock, (query, key, value), (of_query, of_key + of_value))


def peeled(
    types: Mapping[str, TensorType], made: Mapping[str, Instr], name: str, side: str, kept: set[str]
) -> tuple[str, Factors]:
    """A product without its factors that lack the axis `side`, as long as what is left has those `kept`; and those."""
    factors: list[str] = []
    while (instr := made.get(name)) is not None and instr.op == Map("mul"):
        order = sorted(instr.args, key=lambda arg: side in types[arg].axes)
        factor, rest = order
        if side in types[factor].axes or not kept <= {*types[rest].axes}:
            break
        factors.append(factor)
        name = rest
    return name, tuple(factors)


def _axis(meet: Instr, made: Mapping[str, Instr]) -> str | None:
    op, memory = meet.op, made[meet.args[0]].op
    assert isinstance(op, Meet)
    assert isinstance(memory, Memory)
    side = memory.side(op.over)
    return side[0] if side else None


def _check(program: Program) -> None:
    """Raises NoRecall for what no kernel of these can do."""
    memories = [instr.op for instr in program.instrs if isinstance(instr.op, Memory)]
    states = {op.state for op in memories}
    if not memories or any(state.name not in states for state in program.states):
        raise NoRecall("it has other states than memories")
    if any(instr.type.kind not in (Kind.REAL, Kind.BOOL, Kind.INT) for instr in program.instrs):
        raise NoRecall("it has complex values")
    for op in memories:
        if len(op.rows) != 1 or len(op.columns) != 1:
            raise NoRecall(f"{op.state} has several axes on one side")
        if any(raw for _, raw in op.decays):
            raise NoRecall(f"{op.state} decays by what is no exponential")
        if len(op.writes) != 1:
            raise NoRecall(f"{op.state} takes on other than one product")
        sides = [side for side, _ in op.decays]
        if "both" in sides and len(sides) > 1:
            raise NoRecall(f"{op.state} decays as a whole and along a side")


class _Assignment:
    """Gives each value that leaves to a kernel; stages are the first kernels, the parts, and the last ones.

    `backs`: what was recalled of a tilted side → the same brought back.
    """

    def __init__(self, found: Plan, backs: Mapping[str, str], marked: Collection[str]) -> None:
        self.found, self.marked = found, marked
        self.made = {instr.name: instr for instr in found.program.instrs}
        self.types = found.program.types
        self.stages: list[First | Part | Last] = [*found.first, *found.parts, *found.last]
        self.begin, self.end = len(found.first), len(found.first) + len(found.parts)
        self.home: dict[str, int] = {}
        for i, stage in enumerate(self.stages):
            if isinstance(stage, Last):
                if stage.meet is not None:
                    self.home[stage.meet.name] = i
                returned = [part for part in found.parts if part.values == stage.axis and part.result in backs]
                for part in returned:
                    self.home.setdefault(backs[part.result], i)
            elif isinstance(stage, Part):
                self.home |= dict.fromkeys((stage.recall.name, stage.result), i)
                logs = dict(stage.sides)
                for place, name in stage.tilted.items():
                    log = logs["values" if place == 2 else "keys"]
                    self.home[name] = next(k for k, first in enumerate(found.first) if first.log == log)
        self.level: dict[str, int] = {}
        for instr in self.made.values():
            if not isinstance(instr.op, Memory):
                own = [self.home[instr.name]] if instr.name in self.home else []
                self.level[instr.name] = max([*own, *(self.level.get(arg, -1) for arg in instr.args)], default=-1)

    def run(self) -> None:
        found = self.found
        totals = (replace(o, name=f"total.{o.name}") for o in found.program.totals)
        for output in (*found.program.outputs, *totals):
            self.stages[self._stage(output.value)].leaves.append(output)
        for i in range(len(self.stages) - 1, -1, -1):
            stage = self.stages[i]
            own: Sequence[str] = ()
            if isinstance(stage, Part):
                own = stage.needed
                late = (name for name in own if self.level.get(name, -1) > self.home.get(name, i - 1))
                if any(late):
                    raise NoRecall("what is recalled is needed to recall again")
            elif isinstance(stage, Last) and stage.meet is not None:
                own = stage.meet.args[2:]
            self._hand(i, [*own, *(output.value for output in stage.leaves)])
        seen: set[str] = set()
        states = {state.name for state in found.program.states}
        met = {*self.marked, *(name for last in found.last for name in last.memories)}
        for part in found.parts:
            name = part.memory.name
            part.ends = name not in seen and part.made.state in states
            part.marks = name not in seen and name in met
            seen.add(name)

    def _stage(self, value: str) -> int:
        """Where an output leaves: where it is known, or if that is a part, in the last kernel of one of its sides."""
        known, axes = max(self.level.get(value, -1), self.begin), self.types[value].axes
        part = self.stages[known]
        if isinstance(part, Part) and part.keys not in axes and part.values in axes and self.found.first:
            later = enumerate(self.found.last, self.end)
            return next((i for i, last in later if last.axis == part.values), known)
        return known

    def _hand(self, stage: int, wanted: Iterable[str]) -> None:
        """What a stage needs of earlier ones, or cannot compute itself, is left by those."""
        rows = self.stages[stage]
        allowed = {self.found.clock, *self.found.parts[0].batch}
        if not isinstance(rows, Part):
            allowed |= {rows.axis} if rows.axis is not None else set()
        last = stage >= self.end
        pending, done = list(wanted), set[str]()
        while pending:
            name = pending.pop()
            instr = self.made.get(name)
            if name in done or instr is None or isinstance(instr.op, Memory):
                continue
            done.add(name)
            home = self.home.get(name)
            if home == stage:
                if last and not (isinstance(rows, Last) and rows.meet is not None and rows.meet.name == name):
                    pending += instr.args
                continue
            level, small = self.level[name], {*instr.type.axes} <= allowed
            first = self._summed_first(instr) if isinstance(rows, Part) else None
            if first is not None:
                self._leave(name, first)
                continue
            if home is not None and home < stage and not isinstance(self.stages[home], Last):
                self._leave(name, home)
            elif isinstance(rows, Last) and level < self.end and self._alike(name, rows):
                pending += instr.args
            elif small and 0 <= level < stage:
                self._leave(name, level)
            elif small and last and any({*self.types[arg].axes} - allowed for arg in instr.args):
                self._leave(name, self.begin)
            elif last and not small:
                raise NoRecall("a decay's gradient goes on to values of other axes")
            else:
                pending += instr.args

    def _alike(self, name: str, last: Last) -> bool:
        """Whether a value of each step is made elementwise of such values, and is not handed on yet."""
        instr, allowed = self.made[name], {self.found.clock, *self.found.parts[0].batch}
        if last.axis is not None or name in self.found.handed or not isinstance(instr.op, Map):
            return False
        return all({*self.types[arg].axes} <= allowed for arg in instr.args)

    def _summed_first(self, instr: Instr) -> int | None:
        """The first kernel that sums a value of inputs over all of its axis."""
        if not isinstance(instr.op, Contract) or self.level[instr.name] >= 0:
            return None
        axes = {axis for arg in instr.args for axis in self.types[arg].axes}
        rows = {self.found.clock, *self.found.parts[0].batch}
        return next((i for i, f in enumerate(self.found.first) if axes <= {*rows, f.axis} and f.axis in axes), None)

    def _leave(self, value: str, stage: int) -> None:
        if value in self.found.handed:
            return
        self.found.handed.append(value)
        axes = self.types[value].axes
        self.stages[stage].leaves.append(Output(f"handed.{value}", value, tuple((a,) for a in axes)))
        self._hand(stage, [value])


def own_program(found: Plan, wanted: Sequence[str], given: Collection[str], leaves: Sequence[Output]) -> Program:
    """What a kernel computes itself for what is `wanted` of it; what is `given` comes from memory, or from products."""
    whole = found.program
    maps = [i for i in whole.instrs if not isinstance(i.op, Recall | Memory | Meet) and i.name not in given]
    instrs = live(maps, wanted)
    used = {arg for instr in instrs for arg in instr.args} | {*wanted}
    inputs = tuple(_tensor(whole, name) for name in given if name in used)
    own = replace(whole, inputs=(*whole.inputs, *inputs), states=(), next=(), outputs=tuple(leaves), totals=())
    return one_region(own, instrs)


def _tensor(program: Program, value: str) -> Tensor:
    """A value as an input of a kernel."""
    type_ = program.types[value]
    return Tensor(value, tuple((axis,) for axis in type_.axes), type_)
