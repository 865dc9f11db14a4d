"""One time step in plain torch operations, which torch differentiates to any order."""

from __future__ import annotations

from collections.abc import Sequence

from scanc.codegen.expressions import Expr
from scanc.codegen.names import Names
from scanc.codegen.torch.scope import Dialect, Scope, write
from scanc.codegen.torch.segment import RESERVED
from scanc.codegen.torch.spelling import SMOOTH, SMOOTH_REDUCTIONS
from scanc.codegen.torch.values import Lead, Value
from scanc.codegen.writer import Writer
from scanc.ir.nodes import Kind, Program, State, Tensor


def write_step(writer: Writer, program: Program) -> None:
    """Writes `step(inputs…, params…, states…) -> (outputs, next states)` for a discrete program."""
    names = Names(RESERVED)
    arguments = [names.of(decl.name) for decl in program.declared]
    types = program.types
    params = {param.name for param in program.params}
    leads = [1] * len(program.inputs) + [0] * len(program.params) + [1] * len(program.states)
    places = Places(program, names, list(zip(program.declared, leads, strict=True)))

    def find(name: str) -> Value:
        lead = Lead.FIXED if name in params else Lead.FULL
        return Value(Expr(names.of(name)), types[name].axes, types[name].kind, lead)

    dialect = Dialect(SMOOTH, SMOOTH_REDUCTIONS, places.number, places.dtype, places.size, places.device)
    scope = Scope(dialect, names, types, "B", find, lambda axes: program.canonical(axes))
    results = [output.value for output in program.outputs] + [value for _, value in program.next]
    for region in program.regions:
        scope.run(region.instrs, results)
    values = [places.full(scope, name) for name in results]
    outputs, states = values[: len(program.outputs)], values[len(program.outputs) :]
    with writer.block(f"def step({', '.join(arguments)}):"):
        writer.docstring("One time step: the outputs and the next states, [B, *axes].")
        write(writer, scope.statements)
        writer.line(f"return {_tuple(outputs)}, {_tuple(states)}")


class Places:
    """Where a function finds sizes, dtype and device: on its arguments, each with so many leading dimensions."""

    def __init__(self, program: Program, names: Names, declared: Sequence[tuple[Tensor | State, int]]) -> None:
        self._program = program
        self._names = names
        self._declared = declared

    def size(self, axis: str) -> Expr:
        node = self._program.axis(axis)
        if node.size is not None:
            return Expr(str(node.size))
        for decl, lead in self._declared:
            if axis in decl.type.axes:
                return Expr(f"{self._names.of(decl.name)}.shape[{lead + decl.type.axes.index(axis)}]")
        assert node.like is not None, f"no argument has axis {axis}"
        return self.size(node.like)

    def dtype(self, kind: Kind) -> Expr:
        if kind in (Kind.INT, Kind.BOOL):
            return Expr("torch.int64" if kind is Kind.INT else "torch.bool")
        for decl, _ in self._declared:
            if decl.type.kind is kind:
                return Expr(f"{self._names.of(decl.name)}.dtype")
        for decl, _ in self._declared:
            if decl.type.kind is Kind.COMPLEX:
                return Expr(f"{self._names.of(decl.name)}.dtype.to_real()")
            if decl.type.kind is Kind.REAL:
                return Expr(f"{self._names.of(decl.name)}.dtype.to_complex()")
        return Expr("torch.complex64" if kind is Kind.COMPLEX else "torch.float32")

    def number(self, expr: Expr, kind: Kind) -> Expr:
        return Expr(f"torch.full((), {expr}, dtype={self.dtype(kind)}, device={self.device})")

    @property
    def device(self) -> Expr:
        return Expr(f"{self._names.of(self._declared[0][0].name)}.device")

    def full(self, scope: Scope, name: str) -> str:
        """A result with its batch dimension."""
        value = scope.tensor(name)
        if value.lead is Lead.FULL:
            return value.expr.text
        batch = next(f"{self._names.of(decl.name)}.shape[0]" for decl, lead in self._declared if lead)
        return value.suffixed(f".expand({', '.join([batch, *['-1'] * len(value.axes)])})").text


def _tuple(items: list[str]) -> str:
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"
