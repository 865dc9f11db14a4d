"""Time as an axis: a program whose values have the steps of a chunk as their first dimension.

What a memory is read by needs all steps of a chunk at once: a kernel's tiles are [steps, …].  Inputs and all that
depends on them get the axis, params do not; instructions stay as they are, for values meet by axis name.
"""

from __future__ import annotations

from dataclasses import replace

from scanc.ir.build import Builder
from scanc.ir.nodes import Axis, Instr, Meet, Memory, Program, Recall, State, Tensor, TensorType
from scanc.ir.rewrite import one_region

CLOCK = "clock"


def timed(program: Program) -> tuple[Program, str]:
    """The program over an axis of time besides its own, and that axis' name."""
    taken = {axis.name for axis in program.axes}
    clock = next(name for name in (CLOCK, *(f"{CLOCK}_{i}" for i in range(2, 99))) if name not in taken)
    axes = (Axis(clock), *program.axes)
    inputs = tuple(_timed(tensor, clock) for tensor in program.inputs)
    declared: tuple[Tensor | State, ...] = (*inputs, *program.params, *program.states)
    builder = Builder(axes, {decl.name: decl.type for decl in declared}, reserved=[i.name for i in program.instrs])
    operands = {arg for instr in program.instrs for arg in _operands(instr)}
    spread: dict[str, str] = {}
    for tensor in program.params:
        _spread(tensor.name, operands, builder, clock, spread)
    for instr in program.instrs:
        instr = replace(instr, args=tuple(spread.get(arg, arg) for arg in instr.args))
        builder.append(replace(instr, type=_type(instr, builder, clock)))
        _spread(instr.name, operands, builder, clock, spread)
    # What leaves is of each step, though it be the same at all; of what is added up, the sum over a chunk.
    outputs = tuple(
        replace(output, value=builder.broadcast(output.value, (clock,)), dims=((clock,), *output.dims))
        for output in program.outputs
    )
    totals = tuple(
        replace(total, value=builder.reduce("sum", builder.broadcast(total.value, (clock,)), (clock,)))
        for total in program.totals
    )
    result = replace(program, axes=axes, inputs=inputs, outputs=outputs, totals=totals)
    return one_region(result, builder.take()), clock


def _operands(instr: Instr) -> tuple[str, ...]:
    """The queries, keys and values among what an instruction reads."""
    if isinstance(instr.op, Memory):
        return instr.args[len(instr.op.decays) :]
    return instr.args[1:] if isinstance(instr.op, Recall) else ()


def _spread(value: str, operands: set[str], builder: Builder, clock: str, spread: dict[str, str]) -> None:
    """An operand that is the same at all steps is one of each step for all that reads it."""
    if value in operands and clock not in builder.types[value].axes:
        spread[value] = builder.broadcast(value, (clock,), hint=f"{value}_each")


def _timed(tensor: Tensor, clock: str) -> Tensor:
    type_ = TensorType((clock, *tensor.type.axes), tensor.type.kind)
    return replace(tensor, dims=((clock,), *tensor.dims), type=type_)


def _type(instr: Instr, builder: Builder, clock: str) -> TensorType:
    """What was recalled is of each step; a memory is of none."""
    if isinstance(instr.op, Memory):
        return instr.type
    if isinstance(instr.op, Recall | Meet):
        return TensorType((clock, *instr.type.axes), instr.type.kind)
    return builder.infer(instr.op, instr.args)
