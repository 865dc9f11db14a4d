"""The flux that gradients of decays are sums of, and sums of what is recalled with what its own step writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import reduce

from scanc.ir.build import Builder
from scanc.ir.nodes import Contract, Instr, Kind, Map, Meet, Memory, Program, Recall, Reduce, Side
from scanc.ir.rewrite import live, one_region, ordered, roots


def fluxes(program: Program) -> Program:
    """Meets with the flux of each step as an argument, a value like any other.

    Gradients count with what the step itself writes where that is added anyway: in all pairs of a meet or in none,
    for it cancels.
    """
    made = {instr.name: instr for instr in program.instrs}
    builder = Builder.extending(program)
    given = {decl.name for decl in program.declared}
    instrs: list[Instr] = []
    for instr in program.instrs:
        if isinstance(instr.op, Meet):
            memory = made[instr.args[0]].op
            assert isinstance(memory, Memory)
            pairs = list(zip(instr.args[2::2], instr.args[3::2], strict=True))
            wholes = [sum_with_own(program, made.get(g), made, {instr.name}) for _, g in pairs]
            if all(wholes):
                pairs = [(value, whole) for (value, _), whole in zip(pairs, wholes, strict=True) if whole]
            side = memory.side(instr.op.side) if instr.op.over == "both" else ()
            terms = [_dot(builder, value, gradient, side, given) for value, gradient in pairs]
            reads = instr.op.decayed + instr.op.before
            flux = terms[0] if reads else builder.map("neg", terms[0], hint="flux")
            for position, term in enumerate(terms[1:], 1):
                flux = builder.map("add" if position < reads else "sub", flux, term, hint="flux")
            before = terms[instr.op.decayed : reads]
            own = [reduce(lambda a, b: builder.map("add", a, b, hint="flux"), before)] if before else []
            instrs += builder.take()
            instr = replace(instr, args=(*instr.args[:2], flux, *own))
        instrs.append(instr)
    return one_region(program, live(ordered(instrs, given), roots(program)))


def _dot(builder: Builder, value: str, gradient: str, side: tuple[str, ...], given: set[str]) -> str:
    """A factor times its gradient, summed over a side.

    Flux cancels as far as kernels multiply the same numbers: a factor is taken as rounded as products have it.
    """
    if not side:
        return builder.map("mul", value, gradient, hint="flux")
    rounded = value if value in given else builder.map("stop", value, hint="rounded")
    return builder.contract(rounded, gradient, side, hint="flux")


def divided_last(program: Program) -> Program:
    """The program with what is divided by fewer numbers multiplied by their reciprocals: factors of each step."""
    builder = Builder.extending(program)
    instrs: list[Instr] = []
    for instr in program.instrs:
        if instr.op == Map("div") and instr.type.kind is Kind.REAL:
            above, below = instr.args
            if len(builder.types[below].axes) < len(builder.types[above].axes):
                one = builder.const(1.0)
                instr = replace(instr, op=Map("mul"), args=(above, builder.map("div", one, below, hint="reciprocal")))
                instrs += builder.take()
        instrs.append(instr)
    return one_region(program, instrs)


def summed_last(program: Program) -> Program:
    """The program with a sum of sums over the same axes taken as one, of what is recalled and what its step writes."""
    made = {instr.name: instr for instr in program.instrs}
    builder = Builder.extending(program)
    instrs: list[Instr] = []
    for instr in program.instrs:
        if instr.op == Map("add"):
            sums = [made[arg] for arg in instr.args if arg in made]
            reduced = [i for i in sums if isinstance(i.op, Reduce) and i.op.fn == "sum"]
            products = [i for i in sums if isinstance(i.op, Contract) and i.op.semiring == "real"]
            if len(reduced) == len(products) == 1 and reduced[0].op.axes == products[0].op.axes:  # type: ignore[union-attr]
                of = made.get(reduced[0].args[0])
                if of is not None and isinstance(of.op, Recall):
                    own = builder.map("mul", *products[0].args, hint="own")
                    whole = builder.map("add", own, of.name, hint="whole")
                    instrs += builder.take()
                    instr = replace(instr, op=reduced[0].op, args=(whole,))
        instrs.append(instr)
    return one_region(program, live(instrs, roots(program)))


def written(memory: Instr, over: Side) -> tuple[str, str]:
    """Key and value of a memory that takes on one product, as what is recalled over a side has them."""
    assert isinstance(memory.op, Memory)
    x, y = memory.args[len(memory.op.decays) :]
    return (x, y) if over == "rows" else (y, x)


def sum_with_own(
    program: Program,
    recall: Instr | None,
    made: Mapping[str, Instr],
    apart: set[str] = frozenset(),  # type: ignore[assignment]
) -> str | None:
    """The sum of what is recalled and of what its step writes, (query · key) value, if that alone reads it.

    Readers `apart` do not count.
    """
    if recall is None or not isinstance(recall.op, Recall):
        return None
    memory = made[recall.args[0]]
    op, of = recall.op, memory.op
    assert isinstance(of, Memory)
    if not op.decayed or not all(of.writes):
        return None
    key, value = written(memory, op.over)
    readers = [i for i in program.instrs if recall.name in i.args and i.name not in apart]
    if len(readers) != 1 or recall.name in roots(program) or readers[0].op != Map("add"):
        return None
    (other,) = [arg for arg in readers[0].args if arg != recall.name] or (recall.name,)
    product = made.get(other)
    if product is None or product.op != Map("mul") or value not in product.args:
        return None
    (score,) = [arg for arg in product.args if arg != value] or (value,)
    found = made.get(score)
    if found is None or found.op != Contract("real", op.axes) or {*found.args} != {recall.args[1], key}:
        return None
    return readers[0].name
