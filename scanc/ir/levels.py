"""What is legal at each level of the IR, and the check that every pass is held to."""

from __future__ import annotations

from scanc.ir.build import Builder, IllTyped
from scanc.ir.nodes import Conv, Delay, Identity, Instr, Level, Matrix, Ode, Program, Region, RegionKind
from scanc.ir.printer import print_instr

_TIMED = (Delay, Conv)
_STAGED = {RegionKind.PARAMS, RegionKind.MAP, RegionKind.LOOP}
_HANDED = (RegionKind.DELAY, RegionKind.MEMORY)

# level → (operations that must be gone, kinds of region that may appear)
SPECS: dict[Level, tuple[tuple[type, ...], frozenset[RegionKind]]] = {
    Level.TYPED: ((), frozenset({RegionKind.STEP})),
    Level.CORE: (_TIMED, frozenset({RegionKind.STEP})),
    Level.DISCRETE: ((*_TIMED, Ode), frozenset({RegionKind.STEP})),
    Level.STAGED: ((*_TIMED, Ode), frozenset(_STAGED)),
    Level.CLASSIFIED: ((*_TIMED, Ode), frozenset({*_STAGED, RegionKind.SCAN, *_HANDED})),
    Level.SCHEDULED: ((*_TIMED, Ode), frozenset({RegionKind.PARAMS, RegionKind.STEP})),
}


class IllFormed(Exception):
    """A program that breaks its level's spec: a fault of the compiler. The message says where."""


def verify(program: Program) -> None:
    """Raises IllFormed unless `program` obeys the grammar and the spec of its level.

    Checked: names are unique and defined before use, types are what the operations give, states get a next
    value of their own type, outputs have the axes they declare, regions are of the level's kinds.
    """
    gone, kinds = SPECS[program.level]
    builder = Builder(program.axes, {})
    for decl in program.declared:
        _define(builder, decl.name)
        axes = tuple(axis for group in decl.dims for axis in group)
        _need(len(set(axes)) == len(axes), f"{decl.name} has an axis twice: {decl.dims}")
        _need(builder.canonical(axes) == decl.type.axes, f"{decl.name}: dims {decl.dims} against axes {decl.type.axes}")
        builder.types[decl.name] = decl.type
    for region in program.regions:
        _need(region.kind in kinds, f"no {region.kind.value} region at level {program.level.value}")
        _verify_region(program, region, builder, gone)
    _verify_ends(program, builder)


def _verify_region(program: Program, region: Region, builder: Builder, gone: tuple[type, ...]) -> None:
    for instr in region.instrs:
        where = print_instr(instr)
        _need(not isinstance(instr.op, gone), f"{type(instr.op).__name__} at level {program.level.value}: {where}")
        _verify_instr(instr, builder, where)
    if region.kind in (RegionKind.SCAN, *_HANDED):
        _verify_scan(region, builder)


def _verify_scan(region: Region, builder: Builder) -> None:
    _need(len(region.states) == 1 and not region.instrs, f"a {region.kind.value} region has one state, no instruction")
    (state,), scan = region.states, region.scan
    if scan is None:
        raise IllFormed(f"the {region.kind.value} region of {state} lacks its scan")
    for value in (scan.decay, scan.write):
        if value is not None:
            _need(value in builder.types, f"scan of {state} reads {value} before it is defined")
            axes = builder.types[value].axes
            _need(set(axes) <= set(builder.types[state].axes), f"scan of {state}: {value} has axes {axes}")
    if region.kind in _HANDED:
        _need(scan.decay is None and scan.write == scan.result, f"a {region.kind.value} hands on one value: {scan}")
    else:
        _define(builder, scan.result)
        builder.types[scan.result] = builder.types[state]


def _verify_instr(instr: Instr, builder: Builder, where: str) -> None:
    for arg in instr.args:
        _need(arg in builder.types, f"{arg} is used before it is defined: {where}")
    try:
        inferred = builder.infer(instr.op, instr.args)
    except (IllTyped, ValueError) as error:
        raise IllFormed(f"{error}: {where}") from error
    if isinstance(instr.op, Identity | Matrix):
        sizes = [_size(builder, axis) for axis in (instr.op.rows, instr.op.columns)]
        _need(sizes[0] == sizes[1], f"a matrix of {sizes[0]} rows and {sizes[1]} columns: {where}")
    _need(inferred == instr.type, f"type {instr.type} where the operation gives {inferred}: {where}")
    _define(builder, instr.name)
    builder.types[instr.name] = instr.type


def _size(builder: Builder, name: str) -> int | str:
    """The size of an axis: a number, or the axis that shares it."""
    axis = next(axis for axis in builder.axes if axis.name == name)
    return axis.like or axis.name if axis.size is None else axis.size


def _verify_ends(program: Program, builder: Builder) -> None:
    next_of = program.next_of
    _need(list(next_of) == [state.name for state in program.states], "next lists every state once, in order")
    for state in program.states:
        value = next_of[state.name]
        _need(value in builder.types, f"next of {state.name} is {value}, which is not defined")
        given = builder.types[value]
        _need(given.axes == state.type.axes, f"next of {state.name} has axes {given.axes}, not {state.type.axes}")
        if isinstance(state.init, str):
            _need(any(state.init == p.name for p in program.params), f"{state.name} begins at {state.init}, no param")
    for output in (*program.outputs, *program.totals):
        _need(output.value in builder.types, f"output {output.name} is {output.value}, which is not defined")
        axes = builder.canonical(axis for group in output.dims for axis in group)
        given = builder.types[output.value]
        _need(given.axes == axes, f"output {output.name} has axes {given.axes}, declared {axes}")


def _define(builder: Builder, name: str) -> None:
    _need(name not in builder.types, f"{name} is defined twice")


def _need(holds: bool, message: str) -> None:
    if not holds:
        raise IllFormed(message)
