"""desugar: `prev` and `conv` become shift registers of hidden states.

Each name that is looked at in the past gets one buffer of `depth` states, `prev.x.0` the oldest; every
step hands each slot's content to the slot before it and writes the present value into the last.
"""

from __future__ import annotations

from dataclasses import replace

from scanc.ir.build import Builder
from scanc.ir.functions import SEMIRINGS
from scanc.ir.nodes import Conv, Delay, Index, Instr, Level, Program, State
from scanc.ir.rewrite import one_region, substitute
from scanc.passes.base import Pass, Remark, Rewrite


def run(program: Program) -> Rewrite:
    depths = _depths(program)
    core = replace(program, level=Level.CORE)
    if not depths:
        return core, ()
    states = tuple(state for name, depth in depths.items() for state in _register(program, name, depth))
    types = {d.name: d.type for d in program.declared} | {s.name: s.type for s in states}
    builder = Builder(program.axes, types, reserved=[i.name for i in program.instrs])
    renamed: dict[str, str] = {}
    for instr in program.instrs:
        current = replace(instr, args=tuple(renamed.get(arg, arg) for arg in instr.args))
        if isinstance(current.op, Delay | Conv):
            source = instr.args[0]
            past = [slot_name(source, slot) for slot in range(depths[source])]
            renamed[instr.name] = _expand(builder, current, past)
        else:
            builder.append(current)
    core = substitute(one_region(core, builder.take()), renamed)
    shifts = tuple(
        (slot_name(name, slot), slot_name(name, slot + 1) if slot + 1 < depth else renamed.get(name, name))
        for name, depth in depths.items()
        for slot in range(depth)
    )
    core = replace(core, states=(*program.states, *states), next=(*core.next, *shifts))
    buffers = ", ".join(f"{name} ({depth} step{'s' * (depth > 1)})" for name, depth in depths.items())
    return core, (Remark("desugar", f"hidden state keeps the past of {buffers}"),)


def slot_name(name: str, slot: int) -> str:
    """The hidden state that holds `name` in one slot of its buffer, 0 the oldest."""
    return f"prev.{name}.{slot}"


def _depths(program: Program) -> dict[str, int]:
    """How many steps back each name is looked at."""
    depths: dict[str, int] = {}
    for instr in program.instrs:
        match instr.op:
            case Delay(steps):
                depth = steps
            case Conv(axis):
                depth = _taps(program, axis) - 1
            case _:
                continue
        depths[instr.args[0]] = max(depth, depths.get(instr.args[0], 0))
    return depths


def _taps(program: Program, axis: str) -> int:
    size = program.axis(axis).size
    assert size is not None, "semantics admits only axes of fixed size in conv"
    return size


def _register(program: Program, name: str, depth: int) -> list[State]:
    type_ = program.types[name]
    declared = next((d.dims for d in program.declared if d.name == name), tuple((axis,) for axis in type_.axes))
    zero = SEMIRINGS[program.semiring].zero
    return [State(slot_name(name, slot), declared, type_, zero, (f"prev.{name}", slot, depth)) for slot in range(depth)]


def _expand(builder: Builder, instr: Instr, past: list[str]) -> str:
    """The value of a Delay or Conv instruction, read from the slots of its buffer."""
    if isinstance(instr.op, Delay):
        return past[-instr.op.steps]
    assert isinstance(instr.op, Conv)
    present, taps = instr.args
    count = len(past) + 1
    width = next(axis.size for axis in builder.axes if axis.name == instr.op.axis) or 0
    total: str | None = None
    for tap, value in enumerate([*past, present][count - width :]):
        kernel = builder.add(Index(instr.op.axis, tap), taps, hint=f"{taps}_{tap}", span=instr.span)
        term = builder.map("mul", kernel, value, hint="tap", span=instr.span)
        total = term if total is None else builder.map("add", total, term, hint="conv", span=instr.span)
    assert total is not None, "semantics admits no empty axis"
    return total


DESUGAR = Pass(
    "desugar",
    Level.TYPED,
    Level.CORE,
    "Replaces `prev` and `conv` by hidden states, so that only the present and the states are read.",
    run,
)
