"""Turns: work along the outer axis of folded tiles alone, done for several steps at once.

A value that lacks the inner axis is the same in all lanes of it.  What comes from inputs alone is therefore computed
for `share` steps at once, a step to a lane, before the first of them; what only leaves, behind the last.  In between,
each step takes its values from the lane that has them, and gives its results to that lane.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from scanc.codegen.triton.expressions import Tile
from scanc.codegen.triton.step import Read, Step
from scanc.codegen.triton.tiles import Frame
from scanc.ir.nodes import Broadcast, Contract, Instr, Program, Reduce, RegionKind


@dataclass(frozen=True)
class Turns:
    """A step in parts: `before`, from the rows `reads` alone; `during`, step by step; `behind`, to what leaves alone.

    `taken`: values of the first part, or rows, that the second reads; `given`: values of the second that the third
    reads or that leave; `summed`: those of them that are sums over the inner axis and
    that no step reads; `alone`: what leaves along the outer axis alone.
    """

    reads: tuple[Read, ...]
    before: tuple[Instr, ...]
    during: tuple[Instr, ...]
    behind: tuple[Instr, ...]
    taken: tuple[str, ...]
    given: tuple[str, ...]
    summed: frozenset[str]
    alone: frozenset[str]


def turns(program: Program, found: Sequence[Read], frame: Frame, outer: str) -> Turns | None:
    """The parts of a step whose tiles are folded; None if no row lies along the outer axis alone."""
    reads = tuple(read for read in found if frame.tile(read.axes) == (outer,))
    if not reads:
        return None
    along = {name for name, type_ in program.types.items() if frame.tile(type_.axes) == (outer,)}
    step = [i for region in program.regions if region.kind is RegionKind.STEP for i in region.instrs]
    rows = {read.value for read in reads}
    fixed = {param.name for param in program.params}
    fixed.update(i.name for r in program.regions if r.kind is RegionKind.PARAMS for i in r.instrs)
    step = [instr for instr in step if instr.name not in rows]

    known = set(rows)
    before = []
    for instr in step:
        if (
            _elementwise(instr)
            and instr.name in along
            and known.intersection(instr.args)
            and known | fixed >= {*instr.args}
        ):
            known.add(instr.name)
            before.append(instr)
    rest = [instr for instr in step if instr.name not in known]
    following = {value for _, value in program.next}
    behind = _behind(rest, along, known | fixed, following)
    late = {instr.name for instr in behind}
    during = tuple(instr for instr in rest if instr.name not in late)
    early_users = {arg for instr in during for arg in instr.args} | following
    wanted = [arg for instr in behind for arg in instr.args] + [o.value for o in (*program.outputs, *program.totals)]
    given = [name for name in wanted if name in along and name not in known | fixed | late]
    taken = [name for name in (*(r.value for r in reads), *(i.name for i in before)) if name in early_users]
    alone = frozenset(o.value for o in (*program.outputs, *program.totals)) & along
    sums = {instr.name for instr in during if instr.name not in early_users and _is_sum(instr, frame, outer)}
    given = list(dict.fromkeys(given))
    return Turns(
        reads, tuple(before), during, behind, tuple(taken), tuple(given), frozenset(sums.intersection(given)), alone
    )


def _is_sum(instr: Instr, frame: Frame, outer: str) -> bool:
    """Whether an instruction is a sum over the inner axis alone."""
    match instr.op:
        case Reduce("sum", axes) | Contract("real", axes):
            gone = frame.tile(axes)
            return len(gone) == 1 and gone != (outer,)
        case _:
            return False


def _behind(rest: Sequence[Instr], along: set[str], known: set[str], following: Collection[str]) -> tuple[Instr, ...]:
    """The instructions along the outer axis alone that no state, and no other instruction, needs at once."""
    late = {instr.name for instr in rest if _elementwise(instr) and instr.name in along} - {*following}
    while True:
        early = {arg for instr in rest if instr.name not in late for arg in instr.args}
        stuck = {i.name for i in rest if i.name in late and not all(a in known or a in along for a in i.args)}
        if not late & (early | stuck):
            return tuple(instr for instr in rest if instr.name in late)
        late -= early | stuck


def _elementwise(instr: Instr) -> bool:
    return not isinstance(instr.op, Broadcast | Contract | Reduce)


class TurnWriter:
    """Writes a step in turns; `first` and `last`: the places of a turn's steps that are walked first and last."""

    def __init__(self, step: Step, parts: Turns, inner: str, first: str, last: str) -> None:
        self.step = step
        self._inner = inner
        self.parts = parts
        self._first = first
        self._last = last
        self._held: dict[str, Tile] = {}
        self.alone = parts.alone
        step.scattered |= parts.summed

    def write_before(self, load: Callable[[Step, Sequence[Read]], None]) -> None:
        """The first part; `load` writes the rows of a turn."""
        with self.step.out.block(f"if u % share == {self._first}:"):
            load(self.step, self.parts.reads)
            self.step.write(self.parts.before)
        self._held = self.step.take(self.parts.taken, f"lanes_{self._inner}")

    @contextmanager
    def behind(self, steps: str) -> Iterator[None]:
        """Within, what leaves by turns is written; `steps`: how many there are."""
        out = self.step.out
        inner = f"lanes_{self._inner}"
        now = dict(self.step.tiles)  # of the step `u`: what states take next
        self.step.give([value for value in self.parts.given if value not in self.parts.summed], self._first)
        sums = [value for value in self.parts.given if value in self.parts.summed]
        for value in sums:
            before, one = self.step.parts(value), self.step.tensor(value)
            more = f"{before} + ({one},)" if self._first == "0" else f"({one},) + {before}"
            out.line(f"{before} = ({one},) if u % share == {self._first} else {more}")
        with out.block(f"if u % share == {self._last}:"):
            self.step.tiles.update(self._held)
            for value in sums:
                parts = self.step.parts(value)
                text = f"tlmath.scattered({parts}, share, place_{self._inner}, {inner}, 1)[0]"
                out.line(f"{self.step.define(value)} = {text}", self.step.frame.comment(self.step.axes(value)))
            out.line(f"turn_alive = in_turn & (first + u // share * share + turn < {steps}) if tail else in_turn")
            self.step.write(self.parts.behind)
            yield
        self.step.tiles = now
