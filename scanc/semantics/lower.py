"""From text to typed IR: parse, read imports, check declarations, lower statements, check outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scanc_runtime.errors import did_you_mean

from scanc.diagnostics.diagnostic import CompileError, Diagnostic, fault
from scanc.ir.build import Builder
from scanc.ir.nodes import Axis, Dims, Level, Output, Program, Region, RegionKind, Size, State, Tensor, TensorType
from scanc.semantics.axes import AxisTable, declare_axes
from scanc.semantics.declarations import Declarations, declare
from scanc.semantics.emit import Emitter
from scanc.semantics.expressions import Expressions
from scanc.semantics.imports import Library
from scanc.semantics.report import Report
from scanc.semantics.scope import Scope, Space
from scanc.semantics.statements import Statements
from scanc.semantics.values import Role, Value
from scanc.syntax import ast
from scanc.syntax.parser import parse


@dataclass(frozen=True)
class Lowered:
    """A typed program, the texts it was made from (by source name, the spec's own first), and warnings."""

    program: Program
    sources: Mapping[str, str]
    warnings: tuple[Diagnostic, ...]

    @contextmanager
    def showing_sources(self) -> Iterator[None]:
        """Errors that later passes raise inside show the lines of the spec, as those of the front end do."""
        try:
            yield
        except CompileError as error:
            raise error.with_sources(self.sources) from None


def lower(text: str, *, source: str = "<spec>", root: Path | None = None) -> Program:
    """The typed program of a spec; `root` is the directory that imports are read from.

    Raises CompileError with every independent error that was found.
    """
    return analyse(text, source=source, root=root).program


def analyse(text: str, *, source: str = "<spec>", root: Path | None = None) -> Lowered:
    """As `lower`, with the source texts and the warnings."""
    report = Report()
    library = Library(report, {source: text})
    try:
        program = _program(parse(text, source), root, library)
    except CompileError as error:
        raise error.with_sources(library.sources) from None
    return Lowered(program, library.sources, tuple(report.warnings))


def _program(module: ast.Module, root: Path | None, library: Library) -> Program:
    report = library.report
    header = _header(module, report)
    space = Space()
    library.fill(space, module.items, root, _shown(module.source), _chain(module.source, root))
    table = declare_axes(module.items, report)
    decls = declare(module.items, header, table, report)
    emitter, expressions = _tools(decls, module)
    statements = Statements(decls, expressions, report)
    body = [item for item in module.items if isinstance(item, ast.Assign | ast.Ode | ast.For)]
    statements.run(body, Scope(decls.semiring, space))
    outputs = _outputs(decls, expressions, report)
    report.check()
    _warn(decls, expressions, statements, report)
    return _assemble(decls, emitter, expressions.values, outputs)


def _header(module: ast.Module, report: Report) -> ast.Scan:
    """The `scan` line, which comes first and once."""
    headers = [item for item in module.items if isinstance(item, ast.Scan)]
    if not headers or module.items[0] is not headers[0]:
        span = module.items[0].span if module.items else None
        with report.catching():
            raise fault("E0108", "a spec begins with its name", span, hint="write `scan my_layer` on the first line")
    if not headers:
        return ast.Scan(ast.Name("nameless", ""), None)
    for again in headers[1:]:
        with report.catching():
            raise fault("E0108", "a file holds one scan", again.span, secondary=[(headers[0].span, "the first")])
    return headers[0]


def _shown(source: str) -> str:
    """The directory of a source as messages name it."""
    head, slash, _ = source.rpartition("/")
    return head + slash


def _chain(source: str, root: Path | None) -> tuple[Path, ...]:
    return () if root is None else ((root / Path(source).name).resolve(),)


def _tools(decls: Declarations, module: ast.Module) -> tuple[Emitter, Expressions]:
    """The builder, and a table of values with everything that is declared."""
    values: dict[str, Value | None] = {}
    types: dict[str, TensorType] = {}
    groups: tuple[tuple[Role, Mapping[str, Tensor | State]], ...] = (
        (Role.INPUT, decls.inputs),
        (Role.PARAM, decls.params),
        (Role.STATE, decls.states),
    )
    for kind, group in groups:
        for name, decl in group.items():
            types[name] = decl.type
            values[name] = Value(name, decl.type, kind, name, decl.span)
    for role, tensor in ast.declared(module.items):
        if role != "output":
            values.setdefault(tensor.name.id, None)
    locals_ = {item.target.id for item in module.items if isinstance(item, ast.Assign)}
    builder = Builder(decls.table.axes, types, reserved=locals_ | set(values))
    emitter = Emitter(builder, decls.table)
    return emitter, Expressions(decls, emitter, values)


def _outputs(decls: Declarations, expressions: Expressions, report: Report) -> list[Output]:
    """The outputs, each the last value of a local or a state with the declared axes."""
    made: list[Output] = []
    if not decls.outputs and not report.errors:
        report.note(
            fault("E0602", "a spec needs an output", None, hint="declare what it returns: `output y[d]`").diagnostics
        )
    if not decls.inputs and not report.errors:
        report.note(fault("E0602", "a spec needs an input", None, hint="declare one: `input x[d]`").diagnostics)
    for decl in decls.outputs.values():
        with report.catching():
            dims = decls.table.dims(decl)
            value = _output_value(decl, decls, expressions)
            if value is not None:
                _check_output(decl, dims, value, decls.table)
                made.append(Output(decl.name.id, value.name, dims, decl.span))
    return made


def _output_value(decl: ast.TensorDecl, decls: Declarations, expressions: Expressions) -> Value | None:
    name = decl.name
    if name.id in decls.inputs or name.id in decls.params:
        raise fault(
            "E0601",
            f"output `{name.text}` is {'an input' if name.id in decls.inputs else 'a param'}",
            name.span,
            secondary=[(decls.spans[name.id], "declared here")],
            hint="an output is a local or a state",
        )
    if name.id not in expressions.values:
        if name.id in expressions.hidden:
            raise fault(
                "E0601",
                f"output `{name.text}` is local to a `for` block",
                name.span,
                secondary=[(expressions.hidden[name.id], "assigned here")],
                hint="a state carries a value out of the block",
            )
        known = [key for key, value in expressions.values.items() if value and value.role in (Role.LOCAL, Role.STATE)]
        hint = did_you_mean(name.id, known) or f"assign it: `{name.text} = …`"
        raise fault("E0601", f"output `{name.text}` is never assigned", name.span, hint=hint)
    expressions.used.add(name.id)
    return expressions.values[name.id]


def _check_output(decl: ast.TensorDecl, dims: Dims, value: Value, table: AxisTable) -> None:
    declared = {axis for dim in dims for axis in dim}
    if declared == set(value.axes):
        return
    name = decl.name.text
    written = ",".join(_plain(axis, table) for axis in value.axes)
    raise fault(
        "E0303",
        f"output `{name}` is declared with other axes than its value has",
        decl.span,
        f"declared with {table.shown(declared)}",
        secondary=[(value.span, f"has {table.shown(value.axes)}")],
        hint=f"declare `output {name}[{written}]`" if written else f"declare `output {name}`",
    )


def _plain(axis: str, table: AxisTable) -> str:
    return next((first for first, column in table.column.items() if column == axis), axis)


def _warn(decls: Declarations, expressions: Expressions, statements: Statements, report: Report) -> None:
    """What is declared or assigned and never read."""
    used = expressions.used | {state.init for state in decls.states.values() if isinstance(state.init, str)}
    for role, group in (("input", decls.inputs), ("param", decls.params)):
        for name, tensor in group.items():
            if name not in used and tensor.span is not None:
                report.warn("W0101", f"{role} `{name}` is never used", tensor.span)
    for name, span in statements.assigned.items():
        if name not in used and name not in decls.states:
            report.warn("W0101", f"local `{name}` is never used", span)
    for name, state in decls.states.items():
        if name not in statements.assigned and state.span is not None:
            report.warn("W0102", f"state `{name}` is never assigned", state.span)


def _assemble(decls: Declarations, emitter: Emitter, values: dict[str, Value | None], outputs: list[Output]) -> Program:
    instrs = emitter.builder.take()
    following = []
    for name in decls.states:
        value = values[name]
        assert value is not None
        following.append((name, emitter.place(value, None).name))
    instrs += emitter.builder.take()
    used: set[str] = {axis for instr in instrs for axis in instr.type.axes}
    used |= {instr.op.axis for instr in instrs if isinstance(instr.op, Size)}
    for group in (decls.inputs, decls.params, decls.states):
        used |= {axis for decl in group.values() for axis in decl.type.axes}
    return Program(
        name=decls.name,
        level=Level.TYPED,
        semiring=decls.semiring,
        axes=_kept(decls.table.axes, used),
        inputs=tuple(decls.inputs.values()),
        params=tuple(decls.params.values()),
        states=tuple(decls.states.values()),
        regions=(Region(RegionKind.STEP, instrs),),
        next=tuple(following),
        outputs=tuple(outputs),
    )


def _kept(axes: tuple[Axis, ...], used: set[str]) -> tuple[Axis, ...]:
    """The axes in use, and those whose size they share."""
    likes = {axis.like for axis in axes if axis.name in used and axis.like is not None}
    return tuple(axis for axis in axes if axis.name in used | likes)
