"""Building typed instructions: names made unique, types inferred, operands checked.

The builder is the only way that passes make instructions, so an ill-typed one cannot come to be.
It folds nothing; that is `passes/simplify.py`'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from scanc.diagnostics.span import Span
from scanc.ir.functions import MATRICES, REDUCTIONS, SEMIRINGS, TABLE
from scanc.ir.nodes import (
    Axis,
    Broadcast,
    Const,
    Contract,
    Conv,
    Delay,
    Extremum,
    Identity,
    Index,
    Instr,
    Kind,
    Map,
    Matrix,
    Meet,
    Memory,
    Ode,
    Op,
    Program,
    Recall,
    Reduce,
    Rename,
    Size,
    Stack,
    TensorType,
)

Canonical = Callable[[Iterable[str]], tuple[str, ...]]
_ORDER = (Kind.BOOL, Kind.INT, Kind.REAL, Kind.COMPLEX)


class IllTyped(Exception):
    """An instruction that the IR's rules forbid: a fault of the compiler, not of the user's spec."""


def widest(kinds: Iterable[Kind]) -> Kind:
    """The widest of some kinds, in the order bool, int, real, complex."""
    return max(kinds, key=_ORDER.index)


class Builder:
    """Collects instructions over a fixed list of axes and a table of value types.

    ``add`` appends any op; the short methods name the usual ones.  ``hint`` is the wished name: it is
    kept if free and gets a number if not.
    """

    def __init__(self, axes: Sequence[Axis], types: Mapping[str, TensorType], reserved: Iterable[str] = ()) -> None:
        self.axes = tuple(axes)
        self.types: dict[str, TensorType] = dict(types)
        self.instrs: list[Instr] = []
        self._rank = {axis.name: i for i, axis in enumerate(axes)}
        self._taken = set(self.types) | set(reserved)
        self._counts: dict[str, int] = {}

    @classmethod
    def extending(cls, program: Program) -> Builder:
        """A builder that knows every value of `program` and starts with no instruction."""
        return cls(program.axes, program.types, reserved=[o.name for o in program.outputs])

    # --- names and types ---

    def fresh(self, hint: str) -> str:
        """A name not yet taken: `hint`, else `hint_2`, `hint_3`, …"""
        if hint and hint not in self._taken:
            self._taken.add(hint)
            return hint
        stem = re.sub(r"_\d+$", "", hint) or "t"
        while True:
            self._counts[stem] = self._counts.get(stem, 1) + 1
            name = f"{stem}_{self._counts[stem]}"
            if name not in self._taken:
                self._taken.add(name)
                return name

    def canonical(self, axes: Iterable[str]) -> tuple[str, ...]:
        """Axes in canonical order, each once."""
        return tuple(sorted(set(axes), key=self._rank.__getitem__))

    def infer(self, op: Op, args: Sequence[str]) -> TensorType:
        """The type of `op` applied to `args`; raises IllTyped where the grammar forbids it."""
        return infer(op, [self.types[a] for a in args], self.canonical)

    # --- instructions ---

    def add(self, op: Op, *args: str, hint: str = "t", span: Span | None = None) -> str:
        """Appends `op(*args)` and returns the name of its value."""
        type_ = self.infer(op, args)
        name = self.fresh(hint)
        self.types[name] = type_
        self.instrs.append(Instr(name, op, tuple(args), type_, span))
        return name

    def append(self, instr: Instr) -> str:
        """Appends a finished instruction under its own name, which must be free or already reserved."""
        self._taken.add(instr.name)
        self.types[instr.name] = instr.type
        self.instrs.append(instr)
        return instr.name

    def const(self, value: bool | int | float | complex, hint: str = "c", span: Span | None = None) -> str:
        """Appends a number; returns the name of its value."""
        return self.add(Const(value), hint=hint, span=span)

    def map(self, fn: str, *args: str, hint: str = "t", span: Span | None = None) -> str:
        """Appends an elementwise function of `functions.TABLE`; returns the name of its value."""
        return self.add(Map(fn), *args, hint=hint, span=span)

    def reduce(self, fn: str, arg: str, axes: Iterable[str], hint: str = "t", span: Span | None = None) -> str:
        """Appends a reduction over `axes`; over none it is the argument itself."""
        axes = self.canonical(axes)
        return self.add(Reduce(fn, axes), arg, hint=hint, span=span) if axes else arg

    def contract(
        self, a: str, b: str, axes: Iterable[str], semiring: str = "real", hint: str = "t", span: Span | None = None
    ) -> str:
        """Appends a contraction over `axes` in a semiring; returns the name of its value."""
        return self.add(Contract(semiring, self.canonical(axes)), a, b, hint=hint, span=span)

    def broadcast(self, arg: str, axes: Iterable[str], hint: str = "t") -> str:
        """`arg` with at least the given axes."""
        missing = self.canonical(set(axes) - set(self.types[arg].axes))
        return self.add(Broadcast(missing), arg, hint=hint) if missing else arg

    def take(self) -> tuple[Instr, ...]:
        """The instructions so far; the builder starts a new run and keeps its names."""
        done = tuple(self.instrs)
        self.instrs = []
        return done


def infer(op: Op, args: Sequence[TensorType], canonical: Canonical) -> TensorType:
    """The type of an operation from those of its arguments."""
    match op:
        case Const(value):
            kind = {bool: Kind.BOOL, int: Kind.INT, float: Kind.REAL, complex: Kind.COMPLEX}[type(value)]
            return TensorType((), kind)
        case Size():
            return TensorType((), Kind.INT)
        case Map(fn):
            return _map(fn, args, canonical)
        case Reduce(fn, axes):
            _need(fn in REDUCTIONS, f"no reduction {fn}")
            (arg,) = args
            _subset(axes, arg, fn)
            return TensorType(_without(arg.axes, axes), arg.kind)
        case Extremum(fn, axes):
            (arg,) = args
            _subset(axes, arg, fn)
            return TensorType(arg.axes, Kind.BOOL)
        case Contract(semiring, axes):
            a, b = args
            _need(semiring in SEMIRINGS, f"no semiring {semiring}")
            _subset(axes, a, "contract")
            _subset(axes, b, "contract")
            return TensorType(_without(canonical({*a.axes, *b.axes}), axes), widest([a.kind, b.kind]))
        case Rename(pairs):
            (arg,) = args
            moved = dict(pairs)
            _subset(tuple(moved), arg, "rename")
            axes = tuple(moved.get(axis, axis) for axis in arg.axes)
            _need(len(set(axes)) == len(axes), f"rename makes an axis twice: {axes}")
            return TensorType(canonical(axes), arg.kind)
        case Broadcast(axes):
            (arg,) = args
            _need(not set(axes) & set(arg.axes), f"broadcast over an axis that is there: {axes} of {arg.axes}")
            return TensorType(canonical({*arg.axes, *axes}), arg.kind)
        case Index(axis, _):
            (arg,) = args
            _subset((axis,), arg, "index")
            return TensorType(_without(arg.axes, (axis,)), arg.kind)
        case Stack(axis):
            _need(len({(a.axes, a.kind) for a in args}) == 1, "stack of values of different types")
            _need(axis not in args[0].axes, f"stack along {axis}, which the values have")
            return TensorType(canonical({*args[0].axes, axis}), args[0].kind)
        case Identity(rows, columns):
            _need(rows != columns, f"an identity of one axis, {rows}")
            return TensorType(canonical((rows, columns)))
        case Matrix(fn, rows, columns):
            _need(fn in MATRICES, f"no function of matrices {fn}")
            _need(bool(args) and rows != columns, "a function of a matrix needs one, with rows and columns")
            for arg in args:
                _subset((rows, columns), arg, f"the {fn} of a matrix")
            kind = widest([Kind.REAL, *(arg.kind for arg in args)])
            return TensorType(canonical(axis for arg in args for axis in arg.axes), kind)
        case Memory():
            return _memory(op, args)
        case Recall(_, axes):
            memory, query = args
            _need(query.kind is not Kind.COMPLEX, "a query is complex")
            _need(set(axes) <= set(query.axes), f"a query over {axes} with axes {query.axes}")
            return TensorType(_without(memory.axes, axes), memory.kind)
        case Meet(axes=axes):
            _subset(axes, args[0], "meet")
            return TensorType(axes, args[0].kind)
        case Delay():
            return args[0]
        case Conv(axis):
            x, taps = args
            _subset((axis,), taps, "conv")
            return TensorType(_without(canonical({*x.axes, *taps.axes}), (axis,)), widest([x.kind, taps.kind]))
        case Ode():
            current, rhs, *_ = args
            _need(set(current.axes) == set(rhs.axes), "the right side of an ODE has the axes of its state")
            return TensorType(current.axes, widest([current.kind, rhs.kind]))


def _memory(op: Memory, args: Sequence[TensorType]) -> TensorType:
    _need(len(args) == len(op.decays) + 2 * len(op.writes), "a memory has a value for each decay, two for each write")
    _need(all(arg.kind is not Kind.COMPLEX for arg in args), "a factor of a memory is complex")
    for (over, _), decay in zip(op.decays, args, strict=False):
        _need(set(decay.axes) <= set(op.along(over)), f"a decay over {over} with axes {decay.axes}")
    for i, factor in enumerate(args[len(op.decays) :]):
        over = "columns" if i % 2 else "rows"
        whole = set(op.side(over)) <= set(factor.axes) <= set(op.along(over))
        _need(whole, f"a factor over {over} with axes {factor.axes}")
    return TensorType(op.axes)


def _map(fn: str, args: Sequence[TensorType], canonical: Canonical) -> TensorType:
    _need(fn in TABLE, f"no function {fn}")
    function = TABLE[fn]
    _need(len(args) == function.arity, f"{fn} takes {function.arity} arguments, got {len(args)}")
    kinds = [arg.kind for arg in args]
    _need(function.complex_ok or Kind.COMPLEX not in kinds, f"{fn} is not defined on complex values")
    axes = canonical({axis for arg in args for axis in arg.axes})
    if fn == "where":
        _need(kinds[0] is Kind.BOOL, f"where needs a bool condition, got {kinds[0]}")
        return TensorType(axes, widest(kinds[1:]))
    if function.result is not None:
        keeps_complex = function.complex_ok and fn not in ("abs", "real", "imag", "eq", "ne")
        return TensorType(axes, Kind.COMPLEX if keeps_complex and Kind.COMPLEX in kinds else function.result)
    kind = widest(kinds)
    if fn in ("div", "pow") or (kind is Kind.BOOL and fn in ("add", "sub", "mul", "neg", "maximum", "minimum")):
        kind = widest([kind, Kind.REAL if fn in ("div", "pow") else Kind.INT])
    return TensorType(axes, kind)


def _without(axes: tuple[str, ...], gone: Iterable[str]) -> tuple[str, ...]:
    gone = set(gone)
    return tuple(axis for axis in axes if axis not in gone)


def _subset(axes: tuple[str, ...], arg: TensorType, what: str) -> None:
    _need(set(axes) <= set(arg.axes), f"{what} over {axes} of a value with axes {arg.axes}")


def _need(holds: bool, message: str) -> None:
    if not holds:
        raise IllTyped(message)
