"""classify: every stage gets its class, and one that goes its own elementwise affine way becomes a scan.

A scan needs its decay and its write for all time steps at once, so what computes them moves in front
of it; what the loop computed on the way and others still read is computed behind it, from the state
and its next value.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from scanc.analysis.elementwise import extract
from scanc.analysis.recurrence import Facts, RecurrenceClass, facts, recurrence
from scanc.ir.build import Builder
from scanc.ir.nodes import Instr, Level, Memory, Program, Region, RegionKind, Scan
from scanc.ir.rewrite import live, roots
from scanc.passes.base import Pass, Remark, Rewrite

Classes = tuple[tuple[tuple[str, ...], RecurrenceClass], ...]


def run(program: Program) -> Rewrite:
    known = facts(program)
    pieces = _Pieces(program)
    remarks: list[Remark] = []
    remembered = {memory.state for memory in pieces.memories.values()}
    for region in program.regions:
        if region.kind is not RegionKind.LOOP:
            pieces.add(region)
            continue
        found = recurrence(known, region.states)
        pieces.stage(region, found)
        if region.states[0] not in remembered:
            remarks.append(_remark(found))
    return pieces.program(), tuple(remarks)


def classes(program: Program) -> Classes:
    """The class of each stage of a staged program, in order."""
    known: Facts = facts(program)
    loops = (region for region in program.regions if region.kind is RegionKind.LOOP)
    return tuple((region.states, recurrence(known, region.states)) for region in loops)


def _remark(found: RecurrenceClass) -> Remark:
    stage = ", ".join(found.states)
    text = f"{stage}: {found.summary()}"
    if found.blame is None:
        return Remark("classify", text)
    return Remark("classify", f"{text}; {found.blame.reason}", span=found.blame.span)


@dataclass
class _Pieces:
    """The regions of the classified program as they come to be."""

    source: Program
    regions: list[Region] = field(default_factory=list)
    next_of: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.builder = Builder.extending(self.source)
        self.next_of = self.source.next_of
        self.fixed = {param.name for param in self.source.params}
        self.behind: list[Instr] = []
        self.memories = {i.name: i.op for i in self.source.instrs if isinstance(i.op, Memory)}

    def add(self, region: Region) -> None:
        """A region that stays, with what the scan before it left to be computed first."""
        if region.kind is RegionKind.PARAMS:
            self.fixed |= {instr.name for instr in region.instrs}
        self.regions.append(replace(region, instrs=(*self._left(), *region.instrs)))

    def stage(self, region: Region, found: RecurrenceClass) -> None:
        """The loop region, or the scan or delay that it amounts to."""
        described = found.summary()
        if found.transition == "delay" and not region.instrs:
            value = self.next_of[region.states[0]]
            handed = Scan(found.semiring, value, None, value)
            memory = self.memories.get(value)
            kind = RegionKind.DELAY if memory is None else RegionKind.MEMORY
            self._put(Region(kind, (), region.states, handed, described if memory is None else memory.about))
        elif not (found.elementwise and self._scan(region, found, described)):
            self._put(replace(region, recurrence=described))

    def _scan(self, region: Region, found: RecurrenceClass, described: str) -> bool:
        (state,) = region.states
        value = self.next_of[state]
        taken = extract(region.instrs, state, value, self.builder, found.semiring)
        emitted = self.builder.take()
        if taken is None:
            return False
        if value == state:
            value = self.next_of[state] = self.builder.fresh(f"{state}.next")
        read = tuple(name for name in (taken.decay, taken.write) if name is not None)
        self._before(live(emitted, read))
        scan = Scan(found.semiring, value, taken.decay, taken.write)
        self._put(Region(RegionKind.SCAN, (), region.states, scan, described))
        self.behind = [instr for instr in region.instrs if instr.name != value]
        return True

    def _before(self, instrs: Iterable[Instr]) -> None:
        """Puts what params alone decide into the params region, the rest into a map region."""
        once: list[Instr] = []
        each: list[Instr] = []
        for instr in instrs:
            if all(arg in self.fixed for arg in instr.args):
                self.fixed.add(instr.name)
                once.append(instr)
            else:
                each.append(instr)
        if once:
            if not self.regions or self.regions[0].kind is not RegionKind.PARAMS:
                self.regions.insert(0, Region(RegionKind.PARAMS, ()))
            self.regions[0] = replace(self.regions[0], instrs=(*self.regions[0].instrs, *once))
        pending = [*self._left(), *each]
        if pending:
            self._map(pending)

    def _put(self, region: Region) -> None:
        left = self._left()
        if left:
            self._map(left)
        self.regions.append(region)

    def _map(self, instrs: Iterable[Instr]) -> None:
        if self.regions and self.regions[-1].kind is RegionKind.MAP:
            self.regions[-1] = replace(self.regions[-1], instrs=(*self.regions[-1].instrs, *instrs))
        else:
            self.regions.append(Region(RegionKind.MAP, tuple(instrs)))

    def _left(self) -> list[Instr]:
        left, self.behind = self.behind, []
        return left

    def program(self) -> Program:
        """The classified program, without what nobody reads."""
        left = self._left()
        if left:
            self._map(left)
        following = tuple((state, self.next_of[state]) for state, _ in self.source.next)
        result = replace(self.source, level=Level.CLASSIFIED, next=following, regions=tuple(self.regions))
        wanted = roots(result)
        for region in self.regions:
            if region.scan is not None:
                wanted |= {name for name in (region.scan.decay, region.scan.write) if name is not None}
        kept = {instr.name for instr in live(result.instrs, wanted)}
        regions = (replace(r, instrs=tuple(i for i in r.instrs if i.name in kept)) for r in self.regions)
        return replace(result, regions=tuple(r for r in regions if r.instrs or r.states))


CLASSIFY = Pass(
    "classify",
    Level.STAGED,
    Level.CLASSIFIED,
    "Names the class of every stage, and turns a stage that is affine element by element into a scan.",
    run,
)
