"""stage: the states condensed to strongly connected components, solved one after the other.

A state whose next value reads another's depends on it; states that depend on each other form one
stage.  What lies on a path from a stage's states back to them must run step by step (a `loop`
region); everything else can run for all time steps at once (`map` regions), before the stage that
reads it or behind the stage that it reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from scanc.analysis.dependence import Component, state_components
from scanc.ir.nodes import Instr, Level, Memory, Program, Region, RegionKind
from scanc.ir.rewrite import dependent, live, roots
from scanc.passes.base import Pass, Remark, Rewrite


def run(program: Program) -> Rewrite:
    components = state_components(program)
    instrs = live(program.instrs, roots(program))
    loops = [_loop(program, component) if component.cyclic else frozenset() for component in components]
    when = {decl.name: 0 for decl in program.inputs + program.params}
    when |= {state: stage + 1 for stage, component in enumerate(components) for state in component.states}
    maps: list[list[Instr]] = [[] for _ in range(len(components) + 1)]
    bodies: list[list[Instr]] = [[] for _ in components]
    for instr in instrs:
        stage = next((i for i, inside in enumerate(loops) if instr.name in inside), None)
        if stage is None:
            earliest = max((when[arg] for arg in instr.args), default=0)
            when[instr.name] = earliest
            maps[earliest].append(instr)
        else:
            when[instr.name] = stage + 1
            bodies[stage].append(instr)
    regions = []
    for free, body, component in zip(maps, bodies, components, strict=False):
        regions.append(Region(RegionKind.MAP, tuple(free)))
        regions.append(Region(RegionKind.LOOP, tuple(body), component.states))
    regions.append(Region(RegionKind.MAP, tuple(maps[-1])))
    kept = tuple(region for region in regions if region.instrs or region.states)
    staged = replace(program, level=Level.STAGED, regions=kept)
    return staged, (_remark(components, [i.op.state for i in instrs if isinstance(i.op, Memory)]),)


def _loop(program: Program, component: Component) -> frozenset[str]:
    """The instructions between the component's states and their next values."""
    reached = dependent(program.instrs, component.states)
    next_of = program.next_of
    before = live(program.instrs, [next_of[state] for state in component.states])
    return frozenset(instr.name for instr in before if instr.name in reached)


def _remark(components: tuple[Component, ...], memories: Sequence[str]) -> Remark:
    if not components:
        return Remark("stage", "no state: every step stands by itself")
    parts = [
        f"{{{', '.join(component.states)}}}"
        if component.cyclic
        else f"{component.states[0]} ({'a memory' if component.states[0] in memories else 'a delay'})"
        for component in components
    ]
    return Remark("stage", f"{len(parts)} stage{'s' * (len(parts) > 1)}, solved in this order: {'; '.join(parts)}")


STAGE = Pass(
    "stage",
    Level.DISCRETE,
    Level.STAGED,
    "Splits the step into what must run step by step, one loop per group of mutually dependent states, and the rest.",
    run,
)
