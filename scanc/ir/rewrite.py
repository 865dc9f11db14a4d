"""Rebuilding a program: rules that map an instruction to a value, substitution, removal of what nobody reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from scanc.ir.build import Builder
from scanc.ir.nodes import Instr, Program, Region, RegionKind

Rule = Callable[[Instr, Builder], str | None]


def rewrite(program: Program, rule: Rule) -> Program:
    """Applies `rule` to each instruction of a one-region program, arguments first.

    The rule returns the name of a value to use instead (built with the builder as needed), or None
    for "no change".  The same object comes back if every answer was None.
    """
    (region,) = program.regions
    declared = {decl.name: decl.type for decl in program.declared}
    builder = Builder(program.axes, declared, reserved=[instr.name for instr in region.instrs])
    renamed: dict[str, str] = {}
    changed = False
    for instr in region.instrs:
        args = tuple(renamed.get(arg, arg) for arg in instr.args)
        current = instr if args == instr.args else replace(instr, args=args, type=builder.infer(instr.op, args))
        value = rule(current, builder)
        if value is None:
            builder.append(current)
        else:
            renamed[instr.name] = value
            changed = True
    if not changed:
        return program
    return substitute(replace(program, regions=(replace(region, instrs=builder.take()),)), renamed)


def substitute(program: Program, names: Mapping[str, str]) -> Program:
    """Next values and outputs that point to a replaced value point to its replacement."""
    return replace(
        program,
        next=tuple((state, names.get(value, value)) for state, value in program.next),
        outputs=tuple(replace(o, value=names.get(o.value, o.value)) for o in program.outputs),
        totals=tuple(replace(o, value=names.get(o.value, o.value)) for o in program.totals),
    )


def live(instrs: Iterable[Instr], wanted: Iterable[str]) -> tuple[Instr, ...]:
    """The instructions that `wanted` values depend on, in order."""
    needed = set(wanted)
    kept: list[Instr] = []
    for instr in reversed(tuple(instrs)):
        if instr.name in needed:
            kept.append(instr)
            needed.update(instr.args)
    return tuple(reversed(kept))


def dependent(instrs: Iterable[Instr], sources: Iterable[str]) -> set[str]:
    """`sources`, and the values of the instructions that depend on any of them."""
    found = set(sources)
    for instr in instrs:
        if found.intersection(instr.args):
            found.add(instr.name)
    return found


def roots(program: Program) -> set[str]:
    """The values that leave the step: next states, outputs, totals."""
    return {value for _, value in program.next} | {o.value for o in (*program.outputs, *program.totals)}


def one_region(program: Program, instrs: Iterable[Instr]) -> Program:
    """`program` with a single `step` region of `instrs`."""
    return replace(program, regions=(Region(RegionKind.STEP, tuple(instrs)),))


def ordered(instrs: Sequence[Instr], given: Iterable[str]) -> list[Instr]:
    """The instructions so that each comes behind what it reads, else as they are."""
    made: Mapping[str, Instr] = {instr.name: instr for instr in instrs}
    done = set(given)
    found: list[Instr] = []

    def visit(instr: Instr) -> None:
        if instr.name in done:
            return
        done.add(instr.name)
        for arg in instr.args:
            if arg in made:
                visit(made[arg])
        found.append(instr)

    for instr in instrs:
        visit(instr)
    return found
