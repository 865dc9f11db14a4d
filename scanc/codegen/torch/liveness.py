"""What must be computed for some values to be known: instructions, and the regions of the states they read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from scanc.ir.nodes import Const, Instr, Program, Region, RegionKind, Size


@dataclass(frozen=True)
class Live:
    """The part of a program that `roots` need.

    `regions` hold only needed instructions; `states` are those whose regions run; `read` counts how often a value
    is read outside of the region that makes it.
    """

    regions: tuple[Region, ...]
    states: tuple[str, ...]
    read: Counter[str]


def live(program: Program, roots: Iterable[str], states: Iterable[str] = ()) -> Live:
    """The least part of a classified program that computes `roots` for every time step, and `states` at the end."""
    roots = tuple(roots)
    made = {instr.name: instr for instr in program.instrs}
    owner = {state: region for region in program.regions for state in region.states}
    owner |= {
        region.scan.result: region for region in program.regions if region.kind is RegionKind.SCAN and region.scan
    }
    needed: set[str] = set()
    pending = [*roots, *states]
    while pending:
        name = pending.pop()
        if name in needed:
            continue
        needed.add(name)
        if name in made:
            pending.extend(made[name].args)
        if name in owner:
            pending.extend((*owner[name].states, *_sources(program, owner[name])))
    regions = [
        replace(region, instrs=tuple(instr for instr in region.instrs if instr.name in needed))
        for region in program.regions
        if not region.states or needed.intersection(region.states)
    ]
    kept = tuple(region for region in regions if region.instrs or region.states)
    return Live(kept, tuple(s.name for s in program.states if s.name in needed), _outside(program, kept, roots))


def _sources(program: Program, region: Region) -> list[str]:
    """What a region's states become, as the values it is computed from."""
    if region.kind is RegionKind.LOOP:
        return [program.next_of[state] for state in region.states]
    assert region.scan is not None
    return [value for value in (region.scan.decay, region.scan.write) if value is not None]


def _outside(program: Program, regions: tuple[Region, ...], roots: tuple[str, ...]) -> Counter[str]:
    home: dict[str, int] = {}
    for i, region in enumerate(regions):
        home.update((instr.name, i) for instr in region.instrs)
        home.update((state, i) for state in region.states)
    read = Counter(roots)
    for i, region in enumerate(regions):
        names = [arg for instr in region.instrs for arg in instr.args]
        if region.kind is RegionKind.LOOP:
            names += [program.next_of[state] for state in region.states]
        elif region.states:
            names += _sources(program, region)
        read.update(name for name in names if home.get(name) != i or region.kind in (RegionKind.SCAN, RegionKind.DELAY))
    return read


def constants(program: Program, part: Live) -> tuple[str, ...]:
    """The values of the `params` region that other regions read, numbers aside."""
    return tuple(
        instr.name
        for region in part.regions
        if region.kind is RegionKind.PARAMS
        for instr in region.instrs
        if part.read[instr.name] and not _number(instr)
    )


def _number(instr: Instr) -> bool:
    return isinstance(instr.op, Const | Size)
