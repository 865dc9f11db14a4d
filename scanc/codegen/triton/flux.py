"""The flux that gradients of decays are sums of, and sums of what is recalled with what its own step writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import reduce

from scanc.ir.build import Builder
from scanc.ir.nodes import Contract, Instr, Kind, Map, Meet, Memory, Program, Recall, Reduce, Side, TensorType
from scanc.ir.rewrite import live, one_region, ordered, roots

Factors = tuple[str, ...]


def fluxes(program: Program) -> Program:
    """Meets over a side with the flux of each step as an argument, a value like any other.

    Gradients count with what the step itself writes where that is added anyway: in all pairs of a meet or in none,
    for it cancels.
    """
    made = {instr.name: instr for instr in program.instrs}
    builder = Builder.extending(program)
    given = {decl.name for decl in program.declared}
    instrs: list[Instr] = []
    for instr in program.instrs:
        if isinstance(instr.op, Meet) and instr.op.over != "both":
            memory = made[instr.args[0]].op
            assert isinstance(memory, Memory)
            pairs = list(zip(instr.args[2::2], instr.args[3::2], strict=True))
            wholes = [sum_with_own(program, made.get(g), made, {instr.name}) for _, g in pairs]
            if all(wholes):
                pairs = [(value, whole) for (value, _), whole in zip(pairs, wholes, strict=True) if whole]
            terms = [_product(builder, value, gradient) for value, gradient in pairs]
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


def _product(builder: Builder, value: str, gradient: str) -> str:
    """A factor, as rounded as products have it, times its gradient: flux cancels as far as the same is multiplied."""
    return builder.map("mul", builder.map("stop", value, hint="rounded"), gradient, hint="flux")


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


def peeled(
    types: Mapping[str, TensorType], made: Mapping[str, Instr], name: str, side: str, kept: set[str]
) -> tuple[str, Factors]:
    """A product without its factors that lack the axis `side`, as long as what is left has those `kept`; and those."""
    factors: list[str] = []
    while (instr := made.get(name)) is not None and instr.op == Map("mul"):
        order = sorted(instr.args, key=lambda arg: side in types[arg].axes)
        factor, rest = order
        if side in types[factor].axes or not kept <= {*types[rest].axes}:
            break
        factors.append(factor)
        name = rest
    return name, tuple(factors)
