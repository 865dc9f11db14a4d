"""Sums over batch and time: the gradients of params.

The sum of a product of two time-varying values is one contraction, so that the gradient of a weight is a single
matrix product over all steps and never one matrix a step.  Sums are taken apart, from the total down, as far as
instructions are linear and read by nobody else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from scanc.codegen.expressions import Expr, Level, spell
from scanc.codegen.torch.liveness import Live
from scanc.codegen.torch.scope import Scope
from scanc.codegen.torch.spelling import VALUES, identity
from scanc.codegen.torch.values import Lead, Value, aligned, dims_of, einsum, renamed
from scanc.ir.nodes import Broadcast, Contract, Instr, Map, Program, Reduce, RegionKind, Rename

_LINEAR = frozenset({"add", "sub", "neg", "real", "imag", "conj"})


def folded(program: Program, part: Live) -> frozenset[str]:
    """The instructions of map regions that totals alone read, and that a total takes apart."""
    made = {i.name: i for region in part.regions if region.kind is RegionKind.MAP for i in region.instrs}
    uses = Counter(arg for region in part.regions for instr in region.instrs for arg in instr.args)
    uses.update(value for _, value in program.next)
    uses.update(output.value for output in (*program.outputs, *program.totals))
    for region in part.regions:
        if region.scan is not None:
            uses.update(value for value in (region.scan.decay, region.scan.write) if value is not None)
    fixed = _fixed(program)
    found: set[str] = set()
    pending = [output.value for output in program.totals]
    while pending:
        name = pending.pop()
        if name in made and uses[name] == 1 and name not in fixed:
            parts = _parts(made[name], fixed)
            if parts is not None:
                found.add(name)
                pending.extend(parts)
    return frozenset(found)


def _parts(instr: Instr, fixed: Collection[str]) -> list[str] | None:
    """The arguments in which a linear instruction's total is a sum of totals; None if it is not taken apart."""
    match instr.op:
        case Map(fn) if fn in _LINEAR:
            return list(instr.args)
        case Map("mul"):
            varying = [arg for arg in instr.args if arg not in fixed]
            return varying if len(varying) == 1 else []
        case Contract("real", _):
            return []
        case Reduce("sum", _) | Rename() | Broadcast():
            return list(instr.args)
        case _:
            return None


def _fixed(program: Program) -> set[str]:
    """The values that params and constants alone decide."""
    fixed = {param.name for param in program.params}
    for instr in program.instrs:
        if all(arg in fixed for arg in instr.args):
            fixed.add(instr.name)
    return fixed


class Totals:
    """Writes totals as expressions over the values of a segment's scope."""

    def __init__(self, program: Program, scope: Scope, taken: Collection[str]) -> None:
        self._made = {instr.name: instr for instr in program.instrs}
        self._types = program.types
        self._fixed = _fixed(program)
        self._scope = scope
        self._folded = taken

    def total(self, name: str) -> Value:
        """The sum of a value over batch and time, [*axes]."""
        type_ = self._types[name]
        if name in self._folded:
            return Value(self._apart(self._made[name]), type_.axes, type_.kind, Lead.FIXED)
        value = self._scope.tensor(name)
        if value.lead is Lead.FULL:
            expr = value.suffixed(".sum((0, 1))")
        else:
            expr = Expr(f"{value.expr.at(Level.PRODUCT)} * (call.batch * call.length)", Level.PRODUCT)
        return Value(expr, type_.axes, type_.kind, Lead.FIXED)

    def _apart(self, instr: Instr) -> Expr:
        axes = instr.type.axes
        match instr.op:
            case Map("mul"):
                return self._product(instr)
            case Map(fn):
                parts = [self.total(arg) for arg in instr.args]
                if identity(fn, parts[0].kind, instr.type.kind):
                    return parts[0].expr
                return spell(VALUES[fn], [aligned(part, axes, Lead.FIXED) for part in parts])
            case Contract():
                a, b = self._scope.alike(*(self._scope.tensor(arg) for arg in instr.args))
                return einsum(a, b, axes, self._scope.lead, "")
            case Reduce(_, summed):
                part = self.total(instr.args[0])
                dims = ", ".join(str(dim) for dim in dims_of(part, summed))
                return part.suffixed(f".sum(({dims}))" if len(summed) > 1 else f".sum({dims})")
            case Rename(pairs):
                return renamed(self.total(instr.args[0]), dict(pairs), axes, 0).expr
            case Broadcast():
                part = self.total(instr.args[0])
                sizes = ", ".join("-1" if axis in part.axes else f'call.sizes["{axis}"]' for axis in axes)
                spread = Value(aligned(part, axes, Lead.FULL), axes, part.kind, Lead.FIXED)
                return spread.suffixed(f".expand({sizes})")
        raise AssertionError(f"{instr.op} is not linear")

    def _product(self, instr: Instr) -> Expr:
        axes = instr.type.axes
        constant = [arg for arg in instr.args if arg in self._fixed]
        if constant:
            (varying,) = (arg for arg in instr.args if arg not in self._fixed)
            terms = [self.total(varying), self._scope.value(constant[0])]
            return spell(VALUES["mul"], [aligned(term, axes, Lead.FIXED) for term in terms])
        a, b = self._scope.alike(*(self._scope.tensor(arg) for arg in instr.args))
        return einsum(a, b, axes, self._scope.lead, "")
