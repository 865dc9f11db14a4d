"""`prepare` and `pull_back` of a generated module: what torch does with params around the recurrence."""

from __future__ import annotations

from scanc.codegen.expressions import Expr
from scanc.codegen.names import Names
from scanc.codegen.torch.scope import Dialect, Scope, write
from scanc.codegen.torch.segment import RESERVED
from scanc.codegen.torch.spelling import REDUCTIONS, VALUES
from scanc.codegen.torch.step import Places
from scanc.codegen.torch.values import Lead, Value
from scanc.codegen.writer import Writer
from scanc.ir.nodes import Kind, Program
from scanc.passes.prepare import Prepared

_SMOOTH = (Kind.REAL, Kind.COMPLEX)


def prepared_source(prepared: Prepared) -> str:
    """The source of both functions."""
    writer = Writer()
    _write(writer, "prepare", prepared.ahead, "What the recurrence takes in place of params, once per call.")
    writer.blank(2)
    _write(writer, "pull_back", prepared.adjoint, "The gradients of params, from those of what `prepare` made of them.")
    return writer.text()


def _write(writer: Writer, function: str, program: Program, doc: str) -> None:
    """A program without states and time as a function of its inputs, those without a gradient's left out."""
    names = Names(RESERVED)
    taken = [tensor for tensor in program.inputs if not tensor.name.startswith("dy.") or tensor.type.kind in _SMOOTH]
    arguments = [names.of(tensor.name) for tensor in taken]
    types = program.types
    places = Places(program, names, [(tensor, 0) for tensor in taken])

    def find(name: str) -> Value:
        return Value(Expr(names.of(name)), types[name].axes, types[name].kind, Lead.FIXED)

    dialect = Dialect(VALUES, REDUCTIONS, places.number, places.dtype, places.size, places.device)
    scope = Scope(dialect, names, types, "", find, lambda axes: program.canonical(axes))
    results = [output.value for output in program.outputs]
    for region in program.regions:
        scope.run(region.instrs, results)
    values = [scope.tensor(name).expr.text for name in results]
    with writer.block(f"def {function}({', '.join(arguments)}):"):
        writer.docstring(doc)
        write(writer, scope.statements)
        writer.line(f"return ({', '.join(values)}{',' if len(values) == 1 else ''})")
