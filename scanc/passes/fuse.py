"""fuse: all work around the recurrence goes into one step, done while its values are in registers."""

from __future__ import annotations

from dataclasses import replace

from scanc.ir.build import Builder
from scanc.ir.functions import SEMIRINGS
from scanc.ir.nodes import Instr, Level, Program, Region, RegionKind
from scanc.ir.rewrite import substitute
from scanc.passes.base import Pass, Remark, Rewrite


def run(program: Program) -> Rewrite:
    declared = {decl.name: decl.type for decl in program.declared}
    builder = Builder(program.axes, declared, reserved=[instr.name for instr in program.instrs])
    params: list[Instr] = []
    step: list[Instr] = []
    same: dict[str, str] = {}
    for region in program.regions:
        for instr in region.instrs:
            builder.append(replace(instr, args=tuple(same.get(arg, arg) for arg in instr.args)))
        if region.kind is RegionKind.SCAN:
            same.update(_expand(region, builder, same))
        (params if region.kind is RegionKind.PARAMS else step).extend(builder.take())
    regions = [Region(RegionKind.PARAMS, tuple(params))] if params else []
    regions.append(Region(RegionKind.STEP, tuple(step)))
    fused = replace(substitute(program, same), level=Level.SCHEDULED, regions=tuple(regions))
    return fused, (Remark("fuse", f"one step of {len(step)} instructions, no value between them leaves the chip"),)


def _expand(region: Region, builder: Builder, same: dict[str, str]) -> dict[str, str]:
    """The scan written out, decay ⊗ state ⊕ write; returns what its result is called instead where it is a copy."""
    (state,), scan = region.states, region.scan
    assert scan is not None
    semiring = SEMIRINGS[scan.semiring]
    decay, write = (same.get(name, name) if name else None for name in (scan.decay, scan.write))
    value = state
    if decay is not None:
        value = builder.map(semiring.times, decay, state, hint=scan.result if write is None else "t")
    if write is not None:
        value = builder.map(semiring.plus, value, write, hint=scan.result)
    return {} if value == scan.result else {scan.result: value}


FUSE = Pass(
    "fuse",
    Level.CLASSIFIED,
    Level.SCHEDULED,
    "Puts every region back into one step, scans written out, behind one region of parameter-only work.",
    run,
)
