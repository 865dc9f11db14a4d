"""Taking `decay ⊗ state ⊕ write` apart: the coefficient and the remainder of an elementwise affine value, as IR.

Where `affine` finds the structure, this emits the instructions.  It follows the same rules, restricted to
values in which every element depends on its own element of the state alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from scanc.diagnostics.span import Span
from scanc.ir.build import Builder, widest
from scanc.ir.functions import SEMIRINGS
from scanc.ir.nodes import (
    Broadcast,
    Contract,
    Index,
    Instr,
    Kind,
    Map,
    Reduce,
    Rename,
    Stack,
)


@dataclass(frozen=True)
class Elementwise:
    """A value as decay ⊗ symbol ⊕ write: names of values; `decay` None is one, `write` None is zero."""

    decay: str | None
    write: str | None


def extract(
    instrs: Iterable[Instr], symbol: str, value: str, builder: Builder, semiring: str = "real", stem: str = ""
) -> Elementwise | None:
    """The decay and the write of `value` over `symbol`, built with `builder`; None if it is not elementwise affine.

    `instrs` are those between the symbol and the value, in order.  A value that does not depend on the symbol
    has no decay to give: None as well.  New values are named `<stem>.decay…` and `<stem>.write…`.
    """
    axes = builder.types[symbol].axes
    walk = _Extraction(builder, semiring, stem or symbol)
    walk.splits[symbol] = _Split(_ONE, None, {axis: axis for axis in axes}, {})
    for instr in instrs:
        if any(arg in walk.splits or arg in walk.lost for arg in instr.args):
            walk.visit(instr)
    whole = walk.splits.get(value)
    if whole is None or whole.decay is None or not whole.is_home(axes):
        return None
    kind = builder.types[symbol].kind
    decay = None if whole.decay == _ONE else walk.finish(whole.decay, "decay", kind)
    return Elementwise(decay, None if whole.write is None else walk.finish(whole.write, "write", kind))


@dataclass(frozen=True)
class _Part:
    """A value or, with None, the semiring's one; `negative` in the real semiring only."""

    value: str | None
    negative: bool = False


_ONE = _Part(None)


@dataclass(frozen=True)
class _Split:
    """decay ⊗ symbol ⊕ write; a part that is None is zero.

    `axes`: for each axis of the value that runs over an axis of the symbol, that axis.  `at`: axes of the symbol
    that are fixed to a position.
    """

    decay: _Part | None
    write: _Part | None
    axes: Mapping[str, str]
    at: Mapping[str, int]

    def is_home(self, axes: Iterable[str]) -> bool:
        return not self.at and dict(self.axes) == {axis: axis for axis in axes}


_Change = Callable[[_Part, str], _Part]  # the part and what it is: decay or write


class _NotElementwise(Exception):
    pass


class _Extraction:
    def __init__(self, builder: Builder, semiring: str, stem: str) -> None:
        self.builder = builder
        self.semiring = semiring
        self.rules = SEMIRINGS[semiring]
        self.stem = stem
        self.splits: dict[str, _Split] = {}
        self.lost: set[str] = set()
        self.span: Span | None = None

    def visit(self, instr: Instr) -> None:
        self.span = instr.span
        try:
            self.splits[instr.name] = self._apply(instr)
        except _NotElementwise:
            self.lost.add(instr.name)

    def _of(self, value: str) -> _Split:
        """The split of an argument; a value free of the symbol is all write."""
        if value in self.lost:
            raise _NotElementwise
        return self.splits.get(value) or _Split(None, _Part(value), {}, {})

    def _apply(self, instr: Instr) -> _Split:
        parts = [self._of(arg) for arg in instr.args]
        match instr.op:
            case Map(fn):
                return self._map(fn, instr, parts)
            case Reduce(fn, axes) if fn == self.rules.reduce:
                _need(not set(axes) & set(parts[0].axes))
                return self._both(parts[0], lambda p, what: self._reduce(p, axes, what))
            case Contract(semiring, axes) if semiring == self.semiring:
                product = self._product(parts)
                _need(not set(axes) & set(product.axes))
                return self._both(product, lambda p, what: self._reduce(p, axes, what))
            case Rename(pairs):
                moved = dict(pairs)
                home = {moved.get(axis, axis): source for axis, source in parts[0].axes.items()}
                return replace(self._both(parts[0], lambda p, what: self._rename(p, moved, what)), axes=home)
            case Broadcast():
                return parts[0]
            case Index(axis, position):
                inner = self._both(parts[0], lambda p, what: self._index(p, axis, position, what))
                if axis not in inner.axes:
                    return inner
                home = {a: source for a, source in inner.axes.items() if a != axis}
                return replace(inner, axes=home, at={**inner.at, inner.axes[axis]: position})
            case Stack(axis):
                return self._stack(axis, parts)
            case _:
                raise _NotElementwise

    def _map(self, fn: str, instr: Instr, parts: list[_Split]) -> _Split:
        real = self.semiring == "real"
        if fn == self.rules.plus:
            return self._sum(*parts)
        if fn == self.rules.times:
            return self._product(parts)
        if fn == "sub" and real:
            return self._sum(parts[0], self._both(parts[1], _negate))
        if fn == "neg" and real:
            return self._both(parts[0], _negate)
        if (fn == "div" and real) or (fn == "sub" and self.semiring != "bool"):
            _need(parts[1].decay is None)
            return self._both(parts[0], lambda p, what: self._divide(fn, p, instr.args[1], what))
        if (fn, self.semiring) in (("relu", "maxplus"), ("softplus", "log")):
            return self._sum(parts[0], _Split(None, _ONE, {}, {}))
        if fn in ("stop", "to_real", "to_complex"):
            return self._both(parts[0], lambda p, what: self._convert(fn, p, what))
        if fn == "where":
            _need(instr.args[0] not in self.splits)
            return self._choose(instr.args[0], parts[1], parts[2])
        raise _NotElementwise

    # --- splits ---

    def _both(self, split: _Split, change: _Change) -> _Split:
        decay = None if split.decay is None else change(split.decay, "decay")
        return replace(split, decay=decay, write=None if split.write is None else change(split.write, "write"))

    def _sum(self, a: _Split, b: _Split) -> _Split:
        home = self._common(a, b)
        return replace(home, decay=self._add(a.decay, b.decay, "decay"), write=self._add(a.write, b.write, "write"))

    def _common(self, *splits: _Split) -> _Split:
        """The one among the splits that says where the symbol's axes are; they must agree."""
        bound = [split for split in splits if split.decay is not None]
        if not bound:
            return splits[0]
        _need(all(split.axes == bound[0].axes and split.at == bound[0].at for split in bound))
        return bound[0]

    def _product(self, parts: list[_Split]) -> _Split:
        a, b = parts if parts[1].decay is None else parts[::-1]
        _need(b.decay is None)
        factor = b.write
        assert factor is not None
        decay, write = (
            None if p is None else self._multiply(p, factor, w) for p, w in ((a.decay, "decay"), (a.write, "write"))
        )
        return replace(a, decay=decay, write=write)

    def _choose(self, condition: str, a: _Split, b: _Split) -> _Split:
        home = self._common(a, b)
        return replace(
            home,
            decay=self._where(condition, a.decay, b.decay, "decay"),
            write=self._where(condition, a.write, b.write, "write"),
        )

    def _stack(self, axis: str, parts: list[_Split]) -> _Split:
        """Slices of the symbol put back where they were taken from."""
        bound = [split for split in parts if split.decay is not None]
        others = [{a: p for a, p in split.at.items() if a != axis} for split in bound]
        _need(all(split.axes == bound[0].axes and at == others[0] for split, at in zip(bound, others, strict=True)))
        _need(all(s.at.get(axis) == position for position, s in enumerate(parts) if s.decay is not None))
        decay = self._pile(axis, [split.decay for split in parts], "decay")
        write = self._pile(axis, [split.write for split in parts], "write")
        return _Split(decay, write, {**bound[0].axes, axis: axis}, others[0])

    # --- parts ---

    def _name(self, fn: str, *args: str, what: str) -> str:
        return self.builder.map(fn, *args, hint=f"{self.stem}.{what}", span=self.span)

    def _constant(self, value: float | bool) -> str:
        return self.builder.const(value, hint=f"{self.stem}.constant", span=self.span)

    def _value(self, part: _Part | None, what: str) -> str:
        """The part as a value, its sign included."""
        if part is None:
            return self._constant(self.rules.zero)
        if part.value is None:
            return self._constant(-1.0 if part.negative else self.rules.one)
        return self._name("neg", part.value, what=what) if part.negative else part.value

    def finish(self, part: _Part, what: str, kind: Kind) -> str:
        """The part as a value that a scan over a state of `kind` takes."""
        value = self._value(part, what)
        if kind in (Kind.REAL, Kind.COMPLEX) and self.builder.types[value].kind in (Kind.INT, Kind.BOOL):
            return self._name("to_real", value, what=what)
        return value

    def _add(self, a: _Part | None, b: _Part | None, what: str) -> _Part | None:
        if a is None or b is None:
            return b if a is None else a
        if a.negative and not b.negative:
            a, b = b, a
        left = self._value(replace(a, negative=False), what)
        right = self._value(replace(b, negative=False), what)
        fn = self.rules.plus if a.negative == b.negative else "sub"
        return _Part(self._name(fn, left, right, what=what), a.negative and b.negative)

    def _multiply(self, part: _Part, factor: _Part, what: str) -> _Part:
        negative = part.negative ^ factor.negative
        if part.value is None or factor.value is None:
            return _Part(part.value if factor.value is None else factor.value, negative)
        return _Part(self._name(self.rules.times, part.value, factor.value, what=what), negative)

    def _divide(self, fn: str, part: _Part, divisor: str, what: str) -> _Part:
        if part.value is None and fn == "sub":  # one is 0 where ⊗ is +
            return _Part(self._name("neg", divisor, what=what))
        value = self._value(replace(part, negative=False), what)
        return _Part(self._name(fn, value, divisor, what=what), part.negative)

    def _convert(self, fn: str, part: _Part, what: str) -> _Part:
        return part if part.value is None else replace(part, value=self._name(fn, part.value, what=what))

    def _where(self, condition: str, a: _Part | None, b: _Part | None, what: str) -> _Part | None:
        if a == b:
            return a
        return _Part(self._name("where", condition, self._value(a, what), self._value(b, what), what=what))

    def _reduce(self, part: _Part, axes: tuple[str, ...], what: str) -> _Part:
        value = self._value(replace(part, negative=False), what)
        wide = self.builder.broadcast(value, axes, hint=f"{self.stem}.{what}")
        return _Part(self._op(Reduce(self.rules.reduce, axes), wide, what=what), part.negative)

    def _rename(self, part: _Part, moved: Mapping[str, str], what: str) -> _Part:
        if part.value is None:
            return part
        pairs = tuple((a, b) for a, b in moved.items() if a in self.builder.types[part.value].axes)
        return replace(part, value=self._op(Rename(pairs), part.value, what=what)) if pairs else part

    def _index(self, part: _Part, axis: str, position: int, what: str) -> _Part:
        if part.value is None or axis not in self.builder.types[part.value].axes:
            return part
        return replace(part, value=self._op(Index(axis, position), part.value, what=what))

    def _pile(self, axis: str, parts: list[_Part | None], what: str) -> _Part | None:
        if all(part == parts[0] for part in parts):
            return parts[0]
        values = [self._value(part, what) for part in parts]
        types = self.builder.types
        kind = widest(types[value].kind for value in values)
        if kind in (Kind.REAL, Kind.COMPLEX):
            values = [v if types[v].kind is kind else self._name(f"to_{kind}", v, what=what) for v in values]
        axes = {a for value in values for a in types[value].axes}
        wide = [self.builder.broadcast(v, axes, hint=f"{self.stem}.{what}") for v in values]
        return _Part(self._op(Stack(axis), *wide, what=what))

    def _op(self, op: Reduce | Rename | Index | Stack, *args: str, what: str) -> str:
        return self.builder.add(op, *args, hint=f"{self.stem}.{what}", span=self.span)


def _negate(part: _Part, what: str) -> _Part:
    return replace(part, negative=not part.negative)


def _need(holds: bool) -> None:
    if not holds:
        raise _NotElementwise
