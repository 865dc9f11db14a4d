"""Reads the text that `printer.py` writes: read(print(program)) == program."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

from scanc.ir.functions import TABLE
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
    Kind,
    Level,
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
    RegionKind,
    Rename,
    Scan,
    Side,
    Size,
    Stack,
    State,
    Tensor,
    TensorType,
)

_NAME = r"[A-Za-z_][\w.]*"
_DIMS = rf"({_NAME})\[([^\]]*)\]"
_TYPE = r"(\w+)\[([^\]]*)\]"

_PROGRAM = re.compile(rf"program ({_NAME}) level (\w+) over (\w+)")
_AXIS = re.compile(rf"axis ({_NAME})(?: = (\d+))?(?: like ({_NAME}))?( batch)?")
_TENSOR = re.compile(rf"(?:input|param) {_DIMS} : {_TYPE}(?: pin (\w+))?")
_STATE = re.compile(rf"state {_DIMS} : {_TYPE} = (\S+)(?: as ({_NAME}) (\d+) of (\d+))?")
_OUTPUT = re.compile(rf"(?:output|total) {_DIMS} = ({_NAME})")
_NEXT = re.compile(rf"next ({_NAME}) = ({_NAME})")
_REGION = re.compile(
    rf'region (\w+)(?: of ({_NAME}(?:, {_NAME})*))?(?: : ({_NAME}) = ({_NAME}|-) (\w+) ({_NAME}|-))?(?: "([^"]*)")?'
)
_INSTR = re.compile(rf"({_NAME}) = ([\w.]+)(?:\{{([^}}]*)\}})?\(([^)]*)\) : {_TYPE}")


class Unreadable(ValueError):
    """A line that is not the text of any program; the message names it."""


def read_program(text: str) -> Program:
    """The program that `text` spells. Raises Unreadable with the line that is wrong."""
    header: tuple[str, Level, str] | None = None
    axes: list[Axis] = []
    inputs: list[Tensor] = []
    params: list[Tensor] = []
    states: list[State] = []
    regions: list[tuple[Region, list[Instr]]] = []
    next_: list[tuple[str, str]] = []
    outputs: list[Output] = []
    totals: list[Output] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.split("  #")[0].strip()
        if not line or line.startswith("#"):
            continue
        word = line.split(" ", 1)[0]
        try:
            if raw.startswith("  "):
                regions[-1][1].append(_read_instr(line))
            elif word == "program":
                name, level, semiring = _match(_PROGRAM, line)
                header = (name, Level(level), semiring)
            elif word == "axis":
                name, size, like, batch = _match(_AXIS, line)
                axes.append(Axis(name, int(size) if size else None, bool(batch), like))
            elif word in ("input", "param"):
                (inputs if word == "input" else params).append(_read_tensor(line))
            elif word == "state":
                states.append(_read_state(line))
            elif word == "region":
                regions.append((_read_region(line), []))
            elif word == "next":
                state, value = _match(_NEXT, line)
                next_.append((state, value))
            elif word in ("output", "total"):
                name, dims, value = _match(_OUTPUT, line)
                (outputs if word == "output" else totals).append(Output(name, value, _read_dims(dims)))
            else:
                raise Unreadable(f"no declaration starts with {word!r}")
        except (ValueError, IndexError, KeyError) as error:
            raise Unreadable(f"line {number}: {raw!r}: {error}") from error
    if header is None:
        raise Unreadable("no `program` line")
    return Program(
        *header,
        tuple(axes),
        tuple(inputs),
        tuple(params),
        tuple(states),
        tuple(Region(r.kind, tuple(instrs), r.states, r.scan, r.recurrence) for r, instrs in regions),
        tuple(next_),
        tuple(outputs),
        tuple(totals),
    )


def _match(pattern: re.Pattern[str], line: str) -> tuple[str, ...]:
    found = pattern.fullmatch(line)
    if found is None:
        raise Unreadable(f"expected {pattern.pattern}")
    return found.groups()


def _list(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",")) if text and text.strip() else ()


def _read_dims(text: str) -> Dims:
    return tuple(tuple(group.split("*")) for group in _list(text))


def _read_type(kind: str, axes: str) -> TensorType:
    return TensorType(_list(axes), Kind(kind))


def _read_number(text: str) -> bool | int | float | complex:
    if text in ("true", "false"):
        return text == "true"
    if re.fullmatch(r"-?(inf|nan)", text):
        return float(text)
    if "j" in text:
        return complex(text)
    value = ast.literal_eval(text)
    if not isinstance(value, int | float):
        raise Unreadable(f"{text!r} is no number")
    return value


def _read_tensor(line: str) -> Tensor:
    name, dims, kind, axes, pin = _match(_TENSOR, line)
    return Tensor(name, _read_dims(dims), _read_type(kind, axes), pin)


def _read_state(line: str) -> State:
    name, dims, kind, axes, init, public, slot, count = _match(_STATE, line)
    named = re.fullmatch(_NAME, init) and init not in ("inf", "nan", "true", "false")
    value = init if named else _read_number(init)
    return State(
        name, _read_dims(dims), _read_type(kind, axes), value, (public, int(slot), int(count)) if public else None
    )


def _read_region(line: str) -> Region:
    kind, states, result, decay, semiring, write, recurrence = _match(_REGION, line)
    scan = None
    if result:
        scan = Scan(semiring, result, None if decay == "-" else decay, None if write == "-" else write)
    return Region(RegionKind(kind), (), _list(states), scan, recurrence)


def _read_instr(line: str) -> Instr:
    name, head, attributes, args, kind, axes = _match(_INSTR, line)
    return Instr(name, _read_op(head, attributes or ""), _list(args), _read_type(kind, axes))


def _read_op(head: str, attributes: str) -> Op:
    if head in TABLE:
        return Map(head)
    family, _, which = head.partition(".")
    if family in ("memory", "recall", "meet"):
        return _read_remembering(family, which, attributes.split(";"))
    readers: dict[str, Callable[[tuple[str, ...]], Op]] = {
        "const": lambda a: Const(_read_number(a[0])),
        "size": lambda a: Size(a[0]),
        "reduce": lambda a: Reduce(which, a),
        "extremum": lambda a: Extremum(which, a),
        "contract": lambda a: Contract(which, a),
        "rename": lambda a: Rename(tuple((old, new) for old, new in (pair.split("->") for pair in a))),
        "broadcast": lambda a: Broadcast(a),
        "index": lambda a: Index(a[0], int(a[1])),
        "stack": lambda a: Stack(a[0]),
        "identity": lambda a: Identity(a[0], a[1]),
        "matrix": lambda a: Matrix(which, a[0], a[1]),
        "delay": lambda a: Delay(int(a[0])),
        "conv": lambda a: Conv(a[0]),
        "ode": lambda a: Ode(a[0], which),
    }
    return readers[family](_list(attributes))


def _read_remembering(family: str, which: str, parts: list[str]) -> Op:
    sides: dict[str, Side] = {"rows": "rows", "columns": "columns", "both": "both"}
    if family == "recall":
        return Recall(sides[which], _list(parts[0]), len(parts) == 1)
    if family == "meet":
        axes, side, decayed, before = parts
        return Meet(sides[which], sides[side.strip()], int(decayed), int(before), _list(axes))
    state, axes, rows, columns, decays, writes, kind = parts
    acting = tuple((sides[word.split()[0]], word.endswith(" raw")) for word in _list(decays))
    written = tuple(word == "decayed" for word in _list(writes))
    return Memory(state, _list(axes), _list(rows), _list(columns), acting, written, "dual" in kind, "against" in kind)
