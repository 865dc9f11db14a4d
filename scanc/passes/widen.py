"""widen: a vector beside a matrix, such as its normaliser, becomes a memory whose other side is an axis of size one.

It is read and written as the matrix is, so that its steps need not be walked one by one either.  For the Triton target.
"""

from __future__ import annotations

from dataclasses import replace

from scanc.analysis.factors import Apart
from scanc.ir.build import Builder
from scanc.ir.nodes import Axis, Kind, Level, Map, Memory, Program, State, Tensor, TensorType
from scanc.ir.rewrite import dependent, live, one_region
from scanc.passes.base import Pass, Remark, Rewrite
from scanc.passes.memorize import memorized


def run(program: Program) -> Rewrite:
    memories = {instr.op.state for instr in program.instrs if isinstance(instr.op, Memory)}
    taken = {axis.name for axis in program.axes}
    axis = Axis(next(name for name in ("one", *(f"one_{i}" for i in range(2, 99))) if name not in taken), size=1)
    remarks: list[Remark] = []
    for state in program.states:
        if not memories or state.name in memories or not _is_vector(program, state):
            continue
        try:
            wide = _widened(program, state, axis)
            found = next(each for each in wide.states if each.name == state.name)
            program, _ = memorized(wide, found, "a vector")
        except Apart as reason:
            remarks.append(Remark("widen", f"{state.name}: {reason}", applied=False, span=reason.span or state.span))
            continue
        remarks.append(Remark("widen", f"{state.name}: a memory with an axis {axis.name} of size 1", span=state.span))
    return program, tuple(remarks)


def _is_vector(program: Program, state: State) -> bool:
    own = [axis for axis in state.type.axes if not program.axis(axis).batch]
    return state.type.kind is Kind.REAL and len(own) == 1 and state.public is None


def _widened(program: Program, state: State, axis: Axis) -> Program:
    """The program with an axis more of a state; whoever reads the state reads the sum over that axis, which is it."""
    following = program.next_of[state.name]
    before = live(program.instrs, [following])
    path = {i.name for i in before} & dependent(program.instrs, [state.name]) - {state.name}
    axes = program.axes if axis in program.axes else (*program.axes, axis)
    type_ = TensorType((*state.type.axes, axis.name), state.type.kind)
    wide = replace(state, dims=(*state.dims, (axis.name,)), type=type_)
    states = tuple(wide if each is state else each for each in program.states)
    declared: tuple[Tensor | State, ...] = (*program.inputs, *program.params, *states)
    types = {decl.name: decl.type for decl in declared}
    builder = Builder(axes, types, reserved=[instr.name for instr in program.instrs])
    narrow: dict[str, str] = {}

    def whole(value: str) -> str:
        """The value as it was, without the axis."""
        if value not in (state.name, *path):
            return value
        if value not in narrow:
            narrow[value] = builder.reduce("sum", value, (axis.name,), hint=f"{value}.sum")
        return narrow[value]

    for instr in program.instrs:
        if instr.name not in path:
            builder.append(replace(instr, args=tuple(whole(arg) for arg in instr.args)))
        elif isinstance(instr.op, Map):
            builder.append(replace(instr, type=builder.infer(instr.op, instr.args)))
        else:
            raise Apart("its next value is not elementwise in it", instr.span)
    outputs = tuple(replace(output, value=whole(output.value)) for output in program.outputs)
    axes_of = {state.name: type_.axes}
    following_of = tuple((name, builder.broadcast(value, axes_of.get(name, ()))) for name, value in program.next)
    return one_region(replace(program, axes=axes, states=states, outputs=outputs, next=following_of), builder.take())


WIDEN = Pass(
    "widen",
    Level.DISCRETE,
    Level.DISCRETE,
    "Gives a vector beside a matrix a second axis of size one, so that both are memories.",
    run,
)
