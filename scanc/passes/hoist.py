"""hoist: work that depends on parameters alone leaves the step and is done once per call."""

from __future__ import annotations

from dataclasses import replace

from scanc.ir.nodes import Const, Instr, Level, Memory, Program, Region, RegionKind, Size
from scanc.passes.base import Pass, Remark, Rewrite


def run(program: Program) -> Rewrite:
    fixed = {param.name for param in program.params}
    hoisted: list[Instr] = []
    for instr in program.instrs:
        if all(arg in fixed for arg in instr.args) and not isinstance(instr.op, Memory):  # a memory is of all steps
            fixed.add(instr.name)
            hoisted.append(instr)
    if not hoisted:
        return program, ()
    gone = {instr.name for instr in hoisted}
    rest = (
        replace(region, instrs=tuple(instr for instr in region.instrs if instr.name not in gone))
        for region in program.regions
    )
    kept = tuple(region for region in rest if region.instrs or region.states)
    result = replace(program, regions=(Region(RegionKind.PARAMS, tuple(hoisted)), *kept))
    work = [instr for instr in hoisted if not isinstance(instr.op, Const | Size)]
    if not work:
        return result, ()
    names = ", ".join(instr.name for instr in work[:6]) + (", …" if len(work) > 6 else "")
    return result, (Remark("hoist", f"done once per call, from parameters alone: {names}", span=work[0].span),)


HOIST = Pass(
    "hoist",
    Level.STAGED,
    Level.STAGED,
    "Moves instructions that read only parameters and constants into one region that runs once per call.",
    run,
)
