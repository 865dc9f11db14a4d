"""Which elements of a state each element of a value reads: its own, or others along some axes.

This holds for any body, linear or not, and is what a nonlinear stage's Jacobian is judged by: a state
axis that is never mixed is a diagonal block, and its slices can run apart from one another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from scanc.ir.nodes import Contract, Conv, Extremum, Index, Instr, Matrix, Reduce, Rename, Stack, TensorType
from scanc.ir.rewrite import live


@dataclass(frozen=True)
class _Reading:
    """How a value reads one state: `own` takes its axes to the state axes that it runs along, `at` holds
    state axes read at one position, `mixed` those read all over."""

    own: Mapping[str, str]
    at: Mapping[str, int]
    mixed: frozenset[str]


def mixed_axes(
    instrs: Iterable[Instr], states: Iterable[str], value: str, types: Mapping[str, TensorType]
) -> frozenset[str]:
    """The axes along which an element of `value` reads other elements of `states` than its own."""
    found: set[str] = set()
    for state, reading in _readings(instrs, states, types).get(value, {}).items():
        home = {source for axis, source in reading.own.items() if axis == source}
        found |= set(types[state].axes) - home
    return frozenset(found)


def first_mixing(
    instrs: Iterable[Instr], states: Iterable[str], value: str, types: Mapping[str, TensorType]
) -> Instr | None:
    """The first instruction on the way from `states` to `value` that brings elements of one state together."""
    body = live(instrs, [value])
    known = _readings(body, states, types)
    return next((i for i in body if any(reading.mixed for reading in known.get(i.name, {}).values())), None)


def _readings(
    instrs: Iterable[Instr], states: Iterable[str], types: Mapping[str, TensorType]
) -> dict[str, dict[str, _Reading]]:
    """How each value reads each state that it depends on."""
    known: dict[str, dict[str, _Reading]] = {
        state: {state: _Reading({axis: axis for axis in types[state].axes}, {}, frozenset())} for state in states
    }
    for instr in instrs:
        if any(arg in known for arg in instr.args):
            known[instr.name] = _apply(instr, [known.get(arg, {}) for arg in instr.args])
    return known


def _apply(instr: Instr, args: list[dict[str, _Reading]]) -> dict[str, _Reading]:
    match instr.op:
        case Stack(axis):
            args = [{s: _placed(r, axis, i) for s, r in arg.items()} for i, arg in enumerate(args)]
        case Rename(pairs):
            moved = dict(pairs)
            args = [
                {s: replace(r, own={moved.get(a, a): n for a, n in r.own.items()}) for s, r in arg.items()}
                for arg in args
            ]
        case Index(axis, position):
            args = [{s: _sliced(r, axis, position) for s, r in arg.items()} for arg in args]
        case Reduce(_, axes) | Extremum(_, axes) | Contract(_, axes):
            args = [{s: _spread(r, set(axes)) for s, r in arg.items()} for arg in args]
        case Matrix(_, rows, columns):
            args = [{s: _spread(r, {rows, columns}) for s, r in arg.items()} for arg in args]
        case Conv(axis):
            args = [{s: _spread(r, {axis}) for s, r in arg.items()} for arg in args]
        case _:
            pass
    joined: dict[str, _Reading] = {}
    for arg in args:
        for state, reading in arg.items():
            joined[state] = _join(joined[state], reading) if state in joined else reading
    return joined


def _spread(reading: _Reading, axes: set[str]) -> _Reading:
    gone = {source for axis, source in reading.own.items() if axis in axes}
    own = {axis: source for axis, source in reading.own.items() if axis not in axes}
    return replace(reading, own=own, mixed=reading.mixed | gone)


def _sliced(reading: _Reading, axis: str, position: int) -> _Reading:
    if axis not in reading.own:
        return reading
    own = {a: source for a, source in reading.own.items() if a != axis}
    return replace(reading, own=own, at={**reading.at, reading.own[axis]: position})


def _placed(reading: _Reading, axis: str, position: int) -> _Reading:
    """A slice laid back at its own position runs along its axis again."""
    if reading.at.get(axis) != position:
        return reading
    at = {a: p for a, p in reading.at.items() if a != axis}
    return replace(reading, own={**reading.own, axis: axis}, at=at)


def _join(a: _Reading, b: _Reading) -> _Reading:
    """What both agree on; every axis that one has and the other lacks is mixed."""
    own = {axis: source for axis, source in a.own.items() if b.own.get(axis) == source}
    at = {axis: position for axis, position in a.at.items() if b.at.get(axis) == position}
    seen = {*a.own.values(), *b.own.values(), *a.at, *b.at}
    return _Reading(own, at, (a.mixed | b.mixed | seen) - set(own.values()) - set(at))
