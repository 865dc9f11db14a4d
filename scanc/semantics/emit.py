"""Emitting instructions for checked operands: kinds are made to meet, the semiring in force is applied."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from scanc.diagnostics.diagnostic import fault
from scanc.diagnostics.span import Span
from scanc.ir.build import Builder
from scanc.ir.functions import SEMIRINGS, TABLE
from scanc.ir.nodes import Const, Contract, Instr, Kind, Op, Reduce, TensorType
from scanc.semantics.axes import AxisTable
from scanc.semantics.values import KIND_WORDS, Role, Value

_LOW = (Kind.BOOL, Kind.INT)
_NUMERIC = ("add", "sub", "mul", "neg", "sign", "relu", "maximum", "minimum")  # a bool counts as 0 or 1
_LOGICAL = {"mul": "and", "add": "or"}  # of two bools, as in torch


class Emitter:
    """The builder of a spec, in terms of Values."""

    def __init__(self, builder: Builder, table: AxisTable) -> None:
        self.builder = builder
        self.table = table
        self._constants: dict[tuple[type, float], Value] = {}

    def add(self, op: Op, args: Sequence[Value], span: Span | None, hint: str = "t") -> Value:
        """The value of `op` over operands whose kinds fit it."""
        names = [self.place(arg, span).name for arg in args]
        name = self.builder.add(op, *names, hint=hint, span=span)
        return Value(name, self.builder.types[name], span=span)

    def place(self, value: Value, span: Span | None) -> Value:
        """The value with an instruction behind it: a literal becomes a Const."""
        if value.literal is None or value.name:
            return value
        key = (type(value.literal), value.literal)
        if key not in self._constants:
            name = self.builder.const(value.literal, span=span)
            self._constants[key] = replace(value, name=name)
        return self._constants[key]

    def named(self, value: Value, name: str, span: Span, role: Role) -> Value:
        """`value` as `name`: a literal or a fresh result takes the name, any other value is known by both."""
        instrs = self.builder.instrs
        if value.literal is not None and not value.name:
            self.builder.append(Instr(name, Const(value.literal), (), value.type, span))
            return Value(name, value.type, role, name, span)
        if value.role is Role.RESULT and instrs and instrs[-1].name == value.name:
            self.builder.append(replace(instrs.pop(), name=name))
            return Value(name, value.type, role, name, span)
        return replace(value, role=role, text=name, span=span)

    # --- kinds ---

    def widen(self, value: Value, kind: Kind, span: Span | None) -> Value:
        """The value as one of a wider kind (int or bool to real, anything to complex)."""
        if value.kind is kind:
            return value
        if value.literal is not None and kind is Kind.REAL:
            return Value("", TensorType((), Kind.REAL), literal=float(value.literal))
        if value.kind in _LOW:
            value = self._map("to_real", [value], span)
        return self._map("to_complex", [value], span) if kind is Kind.COMPLEX else value

    def _meet(self, args: Sequence[Value], span: Span | None) -> list[Value]:
        """Ints and bools become real beside a real or complex operand."""
        if all(arg.kind in _LOW for arg in args):
            return list(args)
        return [self.widen(arg, Kind.REAL, span) if arg.kind in _LOW else arg for arg in args]

    # --- operations ---

    def map(self, fn: str, args: Sequence[Value], span: Span, shown: str | None = None) -> Value:
        """An elementwise function; `shown` is what the user calls it."""
        function = TABLE[fn]
        for arg in args:
            if arg.kind is Kind.COMPLEX and not function.complex_ok:
                raise fault(
                    "E0401",
                    f"`{shown or fn}` is not defined on complex numbers",
                    span,
                    "its argument is complex",
                    hint="`real`, `imag` and `abs` give real numbers",
                )
        if fn == "where":
            return self._map(fn, [args[0], *self._meet(args[1:], span)], span)
        if fn in _LOGICAL and all(arg.kind is Kind.BOOL for arg in args):
            return self._map(_LOGICAL[fn], args, span)
        if function.result in (Kind.REAL, Kind.COMPLEX) or fn in ("div", "pow"):
            args = [self.widen(arg, Kind.REAL, span) if arg.kind in _LOW else arg for arg in args]
        elif fn in _NUMERIC:
            args = [self.widen(arg, Kind.REAL, span) if arg.kind is Kind.BOOL else arg for arg in args]
        return self._map(fn, self._meet(args, span), span)

    def _map(self, fn: str, args: Sequence[Value], span: Span | None) -> Value:
        names = [self.place(arg, span).name for arg in args]
        hint = f"{fn}_{names[0]}" if len(args) == 1 and args[0].role is not Role.RESULT and args[0].name else "t"
        name = self.builder.map(fn, *names, hint=hint, span=span)
        return Value(name, self.builder.types[name], span=span)

    def carrier(self, value: Value, algebra: str, span: Span) -> Value:
        """The value as an element of a semiring's carrier."""
        wanted = SEMIRINGS[algebra].kind
        if value.kind is wanted:
            return value
        if wanted is Kind.BOOL and value.literal in (0, 1):
            return Value("", TensorType((), Kind.BOOL), literal=bool(value.literal))
        if wanted is Kind.REAL and value.kind is Kind.INT:
            return self.widen(value, Kind.REAL, span)
        raise fault(
            "E0503",
            f"a value of the semiring `{algebra}` is {KIND_WORDS[wanted]}",
            span,
            f"this is {KIND_WORDS[value.kind]}",
            hint="`value(…)` holds ordinary arithmetic: `value(x > 0)`"
            if wanted is Kind.BOOL
            else "`value(…)` holds ordinary arithmetic that makes a real number of it",
        )

    def plus(self, a: Value, b: Value, algebra: str, span: Span) -> Value:
        """a ⊕ b in a semiring."""
        return self.map(SEMIRINGS[algebra].plus, [a, b], span, "+")

    def times(self, a: Value, b: Value, algebra: str, span: Span) -> Value:
        """a ⊗ b in a semiring."""
        return self.map(SEMIRINGS[algebra].times, [a, b], span, "*")

    def contract(self, a: Value, b: Value, axes: Iterable[str], algebra: str, span: Span) -> Value:
        """Σ a b over `axes` in the semiring in force."""
        pair = [a, b]
        if algebra == "real":
            pair = [self.widen(v, Kind.REAL, span) if v.kind is Kind.BOOL else v for v in pair]
            pair = self._meet(pair, span)
        return self.add(Contract(algebra, self.builder.canonical(axes)), pair, span)

    def reduce(self, fn: str, arg: Value, axes: Iterable[str], span: Span) -> Value:
        """A reduction over axes that the argument has."""
        axes = self.builder.canonical(axes)
        if not axes:
            return arg
        if arg.kind is Kind.BOOL and fn not in ("any", "all"):
            arg = self.widen(arg, Kind.REAL, span)
        if arg.kind is Kind.INT and fn == "logsumexp":
            arg = self.widen(arg, Kind.REAL, span)
        return self.add(Reduce(fn, axes), [arg], span)
