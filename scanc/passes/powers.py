"""powers: a decay of a GPU is a power of two.

The chip computes 2^x.  In exp(x·p) with a parameter p the factor log2(e) goes to the parameter, once per call, where
it would be a multiplication at every step: 2^(x·q) with q = p·log2(e).  In float32 a |p| above 2.3e38, where q
overflows, is read as infinite.
"""

from __future__ import annotations

from dataclasses import replace
from math import e, log2

from scanc.ir.build import Builder
from scanc.ir.nodes import Instr, Kind, Level, Map, Program, Region, RegionKind
from scanc.ir.rewrite import live, roots
from scanc.passes.base import Pass, Remark, Rewrite


def run(program: Program) -> Rewrite:
    fixed = {param.name for param in program.params}
    fixed.update(i.name for r in program.regions if r.kind is RegionKind.PARAMS for i in r.instrs)
    made = {instr.name: instr for instr in program.instrs}
    builder = Builder(program.axes, program.types, reserved=[*made, *(decl.name for decl in program.declared)])
    scaled: dict[str, str] = {}
    params: list[Instr] = []
    regions: list[Region] = []
    powers: list[Instr] = []
    for region in program.regions:
        instrs: list[Instr] = []
        for instr in region.instrs:
            factors = _factors(instr, made, fixed) if region.kind is not RegionKind.PARAMS else None
            if factors is None:
                instrs.append(instr)
                continue
            rate, x = factors
            if rate not in scaled:
                scaled[rate] = builder.map("mul", rate, builder.const(log2(e)), hint=f"{rate}.log2")
                params += builder.take()
            exponent = builder.map("mul", x, scaled[rate], hint=f"{instr.name}.log2")
            instrs += [*builder.take(), replace(instr, op=Map("exp2"), args=(exponent,))]
            powers.append(instr)
        regions.append(replace(region, instrs=tuple(instrs)))
    if not powers:
        return program, ()
    old = [i for r in regions if r.kind is RegionKind.PARAMS for i in r.instrs]
    rest = [r for r in regions if r.kind is not RegionKind.PARAMS]
    result = replace(program, regions=(Region(RegionKind.PARAMS, (*old, *params)), *rest))
    needed = {instr.name for instr in live(result.instrs, roots(result))}
    kept = (replace(r, instrs=tuple(i for i in r.instrs if i.name in needed)) for r in result.regions)
    result = replace(result, regions=tuple(kept))
    names = ", ".join(instr.name for instr in powers)
    return result, (Remark("powers", f"computed as powers of two: {names}", span=powers[0].span),)


def _factors(instr: Instr, made: dict[str, Instr], fixed: set[str]) -> tuple[str, str] | None:
    """(parameter, other factor) if the instruction is exp of their product."""
    if instr.op != Map("exp") or instr.args[0] not in made:
        return None
    product = made[instr.args[0]]
    if product.op != Map("mul") or product.type.kind is not Kind.REAL:
        return None
    known = [arg in fixed for arg in product.args]
    if sum(known) != 1:
        return None
    first, second = product.args
    return (first, second) if known[0] else (second, first)


POWERS = Pass(
    "powers",
    Level.STAGED,
    Level.STAGED,
    "Turns exp of a parameter times a value into a power of two, with the factor in the parameter.",
    run,
)
