"""products: a product of three values that holds a product of two that is there anyway is made from it.

A derivative d·h·a of a decay a stands beside d·a, which the adjoint state takes on: (d·a)·h is one multiplication less
at every step than (d·h)·a.  Where a is 0 it is also finite for any finite h.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from scanc.ir.nodes import Instr, Kind, Level, Map, Program, RegionKind
from scanc.ir.rewrite import roots
from scanc.passes.base import Pass, Remark, Rewrite

Factors = frozenset[str]


def run(program: Program) -> Rewrite:
    uses = Counter(arg for instr in program.instrs for arg in instr.args)
    uses.update(roots(program))
    step = (instr for region in program.regions if region.kind is RegionKind.STEP for instr in region.instrs)
    made = {instr.name: instr for instr in step if _is_product(instr)}
    pairs: dict[Factors, Instr] = {}
    for instr in made.values():
        if len({*instr.args}) == 2:
            pairs.setdefault(frozenset(instr.args), instr)
    shared: dict[str, tuple[Instr, str]] = {}
    gone: set[str] = set()
    stay: set[str] = set()
    for instr in made.values():
        found = _shared(instr, made, pairs, {*gone, *shared}) if instr.name not in stay else None
        if found is not None and uses[found[0]] == 1 and found[0] not in stay:
            shared[instr.name] = found[1:]
            gone.add(found[0])
            stay.add(found[1].name)
    if not shared:
        return program, ()
    regions = tuple(
        replace(region, instrs=_ordered(region.instrs, shared, gone)) if region.kind is RegionKind.STEP else region
        for region in program.regions
    )
    first = made[next(iter(shared))]
    return replace(program, regions=regions), (
        Remark("products", f"made from a product that is there anyway: {', '.join(shared)}", span=first.span),
    )


def _is_product(instr: Instr) -> bool:
    return instr.op == Map("mul") and instr.type.kind is Kind.REAL


def _shared(
    instr: Instr, made: dict[str, Instr], pairs: dict[Factors, Instr], changed: set[str]
) -> tuple[str, Instr, str] | None:
    """Of (a·b)·c: a·b, which it need not read, the product of c and a that is there, and b."""
    for own, third in (instr.args, instr.args[::-1]):
        inner = made.get(own)
        if inner is None or own in changed or inner.type != instr.type:
            continue
        for kept, other in (inner.args, inner.args[::-1]):
            found = pairs.get(frozenset((kept, third)))
            if found is not None and found.name not in {own, instr.name, *changed} and found.type == instr.type:
                return own, found, other
    return None


def _ordered(instrs: tuple[Instr, ...], shared: dict[str, tuple[Instr, str]], gone: set[str]) -> tuple[Instr, ...]:
    """The instructions with what is shared before what is made from it."""
    placed: dict[str, Instr] = {}
    for instr in instrs:
        if instr.name in gone or instr.name in placed:
            continue
        if instr.name in shared:
            product, other = shared[instr.name]
            placed[product.name] = product  # its factors stand before this instruction
            instr = replace(instr, args=(product.name, other))
        placed[instr.name] = instr
    return tuple(placed.values())


PRODUCTS = Pass(
    "products",
    Level.SCHEDULED,
    Level.SCHEDULED,
    "Makes a product of three values from a product of two of them that the step has anyway.",
    run,
)
