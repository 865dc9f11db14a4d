"""The textual form of a program; `reader.py` reads it back to an equal one.

One declaration or instruction a line: `name = op{attributes}(arguments) : kind[axes]`.  What follows
`#` is a comment: the line of the spec an instruction comes from.
"""

from __future__ import annotations

from scanc.ir.nodes import (
    Axis,
    Broadcast,
    Const,
    Contract,
    Conv,
    Delay,
    Dims,
    Extremum,
    Identity,
    Index,
    Instr,
    Map,
    Matrix,
    Meet,
    Memory,
    Ode,
    Op,
    Output,
    Program,
    Recall,
    Reduce,
    Region,
    Rename,
    Size,
    Stack,
    State,
    Tensor,
    TensorType,
)


def print_program(program: Program) -> str:
    """The whole program as text, ending in a newline."""
    lines = [f"program {program.name} level {program.level.value} over {program.semiring}"]
    lines += [_axis(axis) for axis in program.axes]
    lines += [f"input {_tensor(tensor)}" for tensor in program.inputs]
    lines += [f"param {_tensor(tensor)}" for tensor in program.params]
    lines += [_state(state) for state in program.states]
    for region in program.regions:
        lines += _region(region)
    lines += [f"next {state} = {value}" for state, value in program.next]
    lines += [f"output {_output(output)}" for output in program.outputs]
    lines += [f"total {_output(output)}" for output in program.totals]
    return "\n".join(lines) + "\n"


def print_instr(instr: Instr) -> str:
    """One instruction, without its provenance."""
    return f"{instr.name} = {print_op(instr.op)}({', '.join(instr.args)}) : {print_type(instr.type)}"


def print_type(type_: TensorType) -> str:
    """`kind[axes]`."""
    return f"{type_.kind.value}[{', '.join(type_.axes)}]"


def print_op(op: Op) -> str:
    """The operation's head: its name and, in braces, its attributes."""
    match op:
        case Const(value):
            return f"const{{{number(value)}}}"
        case Size(axis):
            return f"size{{{axis}}}"
        case Map(fn):
            return fn
        case Reduce(fn, axes):
            return f"reduce.{fn}{{{', '.join(axes)}}}"
        case Extremum(fn, axes):
            return f"extremum.{fn}{{{', '.join(axes)}}}"
        case Contract(semiring, axes):
            return f"contract.{semiring}{{{', '.join(axes)}}}"
        case Rename(pairs):
            return f"rename{{{', '.join(f'{old}->{new}' for old, new in pairs)}}}"
        case Broadcast(axes):
            return f"broadcast{{{', '.join(axes)}}}"
        case Index(axis, position):
            return f"index{{{axis}, {position}}}"
        case Stack(axis):
            return f"stack{{{axis}}}"
        case Identity(rows, columns):
            return f"identity{{{rows}, {columns}}}"
        case Matrix(fn, rows, columns):
            return f"matrix.{fn}{{{rows}, {columns}}}"
        case Memory():
            return f"memory{{{_memory(op)}}}"
        case Recall(over, axes, decayed):
            return f"recall.{over}{{{', '.join(axes)}{'; before' * (not decayed)}}}"
        case Meet(over, side, decayed, before, axes):
            return f"meet.{over}{{{', '.join(axes)}; {side}; {decayed}; {before}}}"
        case Delay(steps):
            return f"delay{{{steps}}}"
        case Conv(axis):
            return f"conv{{{axis}}}"
        case Ode(state, rule):
            return f"ode.{rule}{{{state}}}"


def _memory(op: Memory) -> str:
    decays = (over + " raw" * raw for over, raw in op.decays)
    writes = ("decayed" if decayed else "before" for decayed in op.writes)
    kind = " ".join(word for word, holds in (("dual", op.dual), ("against", op.against)) if holds)
    return "; ".join([op.state, *(", ".join(part) for part in (op.axes, op.rows, op.columns, decays, writes)), kind])


def number(value: bool | int | float | complex | str) -> str:
    """A constant as text: `repr`, with booleans in lower case."""
    return str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, str) else repr(value)


def _axis(axis: Axis) -> str:
    parts = [f"axis {axis.name}"]
    if axis.size is not None:
        parts.append(f"= {axis.size}")
    if axis.like is not None:
        parts.append(f"like {axis.like}")
    if axis.batch:
        parts.append("batch")
    return " ".join(parts)


def _dims(dims: Dims) -> str:
    return f"[{', '.join('*'.join(group) for group in dims)}]"


def _tensor(tensor: Tensor) -> str:
    pin = f" pin {tensor.pin}" if tensor.pin else ""
    return f"{tensor.name}{_dims(tensor.dims)} : {print_type(tensor.type)}{pin}"


def _state(state: State) -> str:
    text = f"state {state.name}{_dims(state.dims)} : {print_type(state.type)} = {number(state.init)}"
    if state.public:
        name, slot, count = state.public
        text += f" as {name} {slot} of {count}"
    return text


def _output(output: Output) -> str:
    return f"{output.name}{_dims(output.dims)} = {output.value}"


def _region(region: Region) -> list[str]:
    head = f"region {region.kind.value}"
    if region.states:
        head += f" of {', '.join(region.states)}"
    if region.scan:
        scan = region.scan
        head += f" : {scan.result} = {scan.decay or '-'} {scan.semiring} {scan.write or '-'}"
    if region.recurrence:
        head += f' "{region.recurrence}"'
    lines = [head]
    for instr in region.instrs:
        provenance = f"  # line {instr.span.line}" if instr.span else ""
        lines.append(f"  {print_instr(instr)}{provenance}")
    return lines
