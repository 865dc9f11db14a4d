"""From the classified programs of a spec to the functions of its torch module."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from scanc.codegen.expressions import Expr
from scanc.codegen.names import Names
from scanc.codegen.torch.liveness import Live, constants, live
from scanc.codegen.torch.scope import Scope, write
from scanc.codegen.torch.segment import RESERVED, Group, SegmentCode, dialect
from scanc.codegen.torch.step import write_step
from scanc.codegen.torch.totals import Totals, folded
from scanc.codegen.torch.values import Lead, Value
from scanc.codegen.writer import Writer
from scanc.ir.nodes import Kind, Memory, Program, RegionKind

_SMOOTH = (Kind.REAL, Kind.COMPLEX)
_HELPERS = {
    "scanc_runtime.scans": (
        "BOOL",
        "CHUNKED",
        "LOG",
        "MAXPLUS",
        "MINPLUS",
        "PARALLEL",
        "REAL",
        "SEQUENTIAL",
        "afters",
        "befores",
    ),
    "scanc_runtime.memories": ("BOTH", "COLUMNS", "Decay", "ROWS", "Write", "meet"),
    "scanc_runtime.segments": ("Segments", "delayed", "gather", "last", "steps"),
}
_SOLVERS = {"recurrent": "SEQUENTIAL", "chunked": "CHUNKED", "parallel": "PARALLEL"}


@dataclass(frozen=True)
class TorchFunctions:
    """Source that defines `step`, `FORWARD`, `BACKWARD` and `saved`, given `SPEC` and these imports."""

    source: str
    imports: tuple[str, ...]
    forms: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]
    long: None = None
    short: None = None
    narrow: tuple[str, ...] = ()


def emit_functions(forward: Program, adjoint: Program, discrete: Program) -> TorchFunctions:
    """The functions of a module: `forward` and `adjoint` are classified, `discrete` is one step."""
    forms, refused = admitted(forward, adjoint)
    module = _Module(forward, adjoint)
    writer = Writer()
    write_step(writer, discrete)
    module.write(writer)
    writer.blank(2)
    parts = ", ".join(["SPEC", *module.arguments])
    writer.line(f"SEGMENTS = Segments({parts})")
    for table, method in (("FORWARD", "forward"), ("BACKWARD", "backward")):
        entries = ", ".join(f'"{form}": SEGMENTS.{method}({_SOLVERS[form]})' for form in forms)
        writer.line(f"{table} = {{{entries}}}")
    writer.line("saved = SEGMENTS.saved")
    source = writer.text()
    return TorchFunctions(source, _imports(source), forms, refused)


def admitted(forward: Program, adjoint: Program) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """The forms of a spec, and why others are none."""
    loops = [r for program in (forward, adjoint) for r in program.regions if r.kind is RegionKind.LOOP]
    if not loops:
        return tuple(_SOLVERS), ()
    states = ", ".join(loops[0].states)
    reason = f"{states}: {loops[0].recurrence or 'no diagonal recurrence'}; only diagonal ones are scanned so far"
    return ("recurrent",), tuple((form, reason) for form in _SOLVERS if form != "recurrent")


def _imports(source: str) -> tuple[str, ...]:
    """The import lines that the source needs, torch aside."""
    words = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    lines = ["from scanc_runtime import functions"] if "functions" in words else []
    for module, names in _HELPERS.items():
        found = [name for name in names if name in words]
        lines += [f"from {module} import {', '.join(found)}"] if found else []
    return tuple(lines)


class _Module:
    """The segment functions of a forward and an adjoint program."""

    def __init__(self, forward: Program, adjoint: Program) -> None:
        self._forward = forward
        self._adjoint = adjoint
        states = [state.name for state in forward.states]
        pairs = zip(forward.states, adjoint.states, strict=True)
        self._adjoint_states = tuple(after.name for before, after in pairs if before.type.kind in _SMOOTH)
        outputs = [output.value for output in (*adjoint.outputs, *adjoint.totals)]
        self._backward = live(adjoint, outputs, self._adjoint_states)
        memories = [i.op for r in self._backward.regions for i in r.instrs if isinstance(i.op, Memory)]
        self._remembered = {op.state for op in memories if op.against}
        self._primals = tuple(name for name in states if self._backward.read[name] or name in self._remembered)
        self._segment = live(forward, [output.value for output in forward.outputs], states)
        self._trace = live(forward, [name for name in self._primals if name not in self._remembered])
        self._traced = tuple(name for name in states if name in {*self._trace.states, *self._remembered})
        self._kept: Counter[tuple[str, ...]] = Counter()
        self.arguments: list[str] = []

    def write(self, writer: Writer) -> None:
        """All functions; `arguments` are then those of `Segments`."""
        fixed = constants(self._forward, self._segment)
        adjoint_fixed = constants(self._adjoint, self._backward)
        named = {"constants": (self._forward, self._segment, fixed)}
        named["adjoint_constants"] = (self._adjoint, self._backward, adjoint_fixed)
        for name, (program, part, values) in named.items():
            if values:
                self._write_constants(writer, name, program, part, values)
        ahead = self._write_segment(writer, fixed)
        back = self._write_trace(writer, fixed) if self._primals else Counter()
        back += self._write_adjoint(writer, adjoint_fixed)
        self._write_elements(writer, {axes: max(ahead[axes], back[axes]) for axes in (*ahead, *back)})
        self.arguments += ["segment=segment", "adjoint=adjoint", "elements=elements"]
        if self._primals:
            traced = ", ".join(f'"{state}"' for state in self._traced)
            self.arguments += ["trace=trace", f"traced=({traced},)"]
            scanned = {r.states[0] for r in self._forward.regions if r.kind is RegionKind.SCAN}
            if scanned.issuperset(self._primals):
                kept = ", ".join(f'"{state}"' for state in self._primals)
                self.arguments.append(f"kept=({kept},)")
        self.arguments += [f"{name}={name}" for name, (_, _, values) in named.items() if values]

    def _groups(self, program: Program, fixed: Sequence[str]) -> list[Group]:
        inputs = Group("inputs", tuple(t.name for t in self._forward.inputs), Lead.FULL)
        params = Group("params", tuple(t.name for t in program.params), Lead.FIXED)
        return [inputs, params, Group("constants", tuple(fixed), Lead.FIXED)]

    def _write_constants(
        self, writer: Writer, function: str, program: Program, part: Live, values: Sequence[str]
    ) -> None:
        names = Names(RESERVED)
        used: set[str] = set()
        params = [param.name for param in program.params]
        for param in params:
            names.of(param)

        def find(name: str) -> Value:
            used.add(name)
            type_ = program.types[name]
            return Value(Expr(names.of(name)), type_.axes, type_.kind, Lead.FIXED)

        scope = Scope(dialect(), names, program.types, "", find, lambda axes: program.canonical(axes))
        scope.know(program.instrs)
        for region in part.regions:
            if region.kind is RegionKind.PARAMS:
                scope.run(region.instrs, list(part.read.elements()))
        results = [scope.tensor(value).expr.text for value in values]
        unpacked = ", ".join(names.of(param) if param in used else "_" for param in params)
        writer.blank(2)
        with writer.block(f"def {function}(params, call):"):
            what = "of the adjoint " if function != "constants" else ""
            writer.docstring(f"What {what}depends on params alone, computed once per call.")
            if used:
                writer.line(f"({unpacked},) = params" if len(params) == 1 else f"{unpacked} = params")
            write(writer, scope.statements)
            writer.line(f"return {_tuple(results)}")

    def _write_segment(self, writer: Writer, fixed: Sequence[str]) -> Counter[tuple[str, ...]]:
        program = self._forward
        code = SegmentCode(program, self._segment, self._groups(program, fixed), [s.name for s in program.states])
        code.regions()
        outputs = [code.scope.full(output.value).text for output in program.outputs]
        final = [code.final(state.name).text for state in program.states]
        head = "def segment(inputs, params, constants, states, call):"
        doc = "The outputs of L steps, [B, L, *axes], and the states behind the last."
        _function(writer, head, doc, code, f"return {_tuple(outputs)}, {_tuple(final)}")
        return Counter(code.scope.kept)

    def _write_trace(self, writer: Writer, fixed: Sequence[str]) -> Counter[tuple[str, ...]]:
        program = self._forward
        code = SegmentCode(program, self._trace, self._groups(program, fixed), self._traced)
        code.regions()
        values = [
            code.start(state) if state in self._remembered else code.scope.full(state).text for state in self._primals
        ]
        head = "def trace(inputs, params, constants, states, call):"
        what = " (of a memory, what it begins with)" if self._remembered else ""
        doc = f"What backward reads of the states before each of L steps{what}: {', '.join(self._primals)}."
        _function(writer, head, doc, code, f"return {_tuple(values)}")
        return Counter(code.scope.kept)

    def _write_adjoint(self, writer: Writer, fixed: Sequence[str]) -> Counter[tuple[str, ...]]:
        program, forward = self._adjoint, self._forward
        given = program.inputs[len(forward.inputs) + len(forward.states) :]
        cotangents = tuple(tensor.name for tensor in given if tensor.type.kind in _SMOOTH)
        inputs, params, constant = self._groups(program, fixed)
        groups = [inputs, Group("primals", self._primals, Lead.FULL), Group("cotangents", cotangents, Lead.FULL)]
        taken = folded(program, self._backward)
        code = SegmentCode(program, self._backward, [*groups, params, constant], self._adjoint_states, taken)
        code.regions()
        totals = Totals(program, code.scope, code.folded)
        gradients = [code.scope.full(output.value).text for output in program.outputs]
        shares = [totals.total(output.value).expr.text for output in program.totals]
        final = [code.final(state).text for state in self._adjoint_states]
        head = "def adjoint(inputs, primals, cotangents, params, constants, states, call):"
        doc = "Gradients of the inputs, shares in those of the params, gradients of the states before the first step."
        _function(writer, head, doc, code, f"return {_tuple(gradients)}, {_tuple(shares)}, {_tuple(final)}")
        return Counter(code.scope.kept)

    def _write_elements(self, writer: Writer, kept: dict[tuple[str, ...], int]) -> None:
        terms = []
        for axes, count in sorted(kept.items(), key=lambda item: (-len(item[0]), item[0])):
            factors = [f'sizes["{axis}"]' for axis in axes]
            terms.append(" * ".join([str(count), *factors] if count > 1 or not axes else factors))
        writer.blank(2)
        with writer.block("def elements(sizes):"):
            writer.docstring("How many numbers one time step of one sequence keeps in a segment.")
            writer.line(f"return {' + '.join(terms) or '1'}")


def _function(writer: Writer, head: str, doc: str, code: SegmentCode, result: str) -> None:
    writer.blank(2)
    with writer.block(head):
        writer.docstring(doc)
        write(writer, code.unpacking())
        write(writer, code.scope.statements)
        writer.line(result)


def _tuple(items: Sequence[str]) -> str:
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"
