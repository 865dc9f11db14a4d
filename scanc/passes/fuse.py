"""fuse: all work around the recurrence goes into one step, done while its values are in registers."""

from __future__ import annotations

from dataclasses import replace

from scanc.ir.nodes import Level, Program, Region, RegionKind
from scanc.passes.base import Pass, Remark, Rewrite


def run(program: Program) -> Rewrite:
    params = tuple(i for r in program.regions if r.kind is RegionKind.PARAMS for i in r.instrs)
    step = tuple(i for r in program.regions if r.kind is not RegionKind.PARAMS for i in r.instrs)
    regions = [Region(RegionKind.PARAMS, params)] if params else []
    regions.append(Region(RegionKind.STEP, step))
    fused = replace(program, level=Level.SCHEDULED, regions=tuple(regions))
    return fused, (Remark("fuse", f"one step of {len(step)} instructions, no value between them leaves the chip"),)


FUSE = Pass(
    "fuse",
    Level.STAGED,
    Level.SCHEDULED,
    "Puts every region back into one step, in the order in which stages are solved, behind parameter-only work.",
    run,
)
