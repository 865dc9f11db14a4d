"""The matrix of an affine value that couples the elements of a symbol along one axis, as IR.

Where `analysis.elementwise` gives a coefficient for each element, this gives `matrix @ symbol + write`: `A @ h`,
`L*h - P*(Q·h)`, sums and products of these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from scanc.diagnostics.span import Span
from scanc.ir.build import Builder, widest
from scanc.ir.nodes import Broadcast, Contract, Identity, Index, Instr, Kind, Map, Reduce, Rename, Stack


@dataclass(frozen=True)
class Coupled:
    """A value as matrix @ symbol + write; `write` None is zero. The matrix has the axis as rows, and the columns."""

    matrix: str
    write: str | None


def extract_matrix(
    instrs: Iterable[Instr], symbol: str, value: str, axes: Sequence[str], builder: Builder, stem: str
) -> Coupled | None:
    """The matrix and the write of `value` over `symbol`, built with `builder`; None if it is not of this form.

    `axes`: that of the symbol, for rows, and one of the same size that no value has yet, for columns.  New values are
    named `<stem>.matrix…` and `<stem>.write…`.
    """
    axis, column, *_ = axes
    walk = _Walk(builder, column, stem)
    walk.splits[symbol] = _Split(walk.one, axis, None, None)
    for instr in instrs:
        if any(arg in walk.splits for arg in instr.args):
            split = walk.split(instr)
            if split is None:
                return None
            walk.splits[instr.name] = split
    found = walk.splits.get(value)
    if found is None:
        return None
    found = walk.dense(found)
    if found.matrix is None:
        return None
    return Coupled(builder.broadcast(walk.wide(found.matrix), (axis, column), hint=f"{stem}.matrix"), found.write)


@dataclass(frozen=True)
class _Split:
    """diagonal · δ(home, column) + matrix, applied to the symbol, + write; None is zero, the matrix has the column."""

    diagonal: str | None
    home: str
    matrix: str | None
    write: str | None


class _Walk:
    def __init__(self, builder: Builder, column: str, stem: str) -> None:
        self.builder = builder
        self.column = column
        self.stem = stem
        self.span: Span | None = None
        self.splits: dict[str, _Split] = {}
        self.one = builder.const(1.0, hint=f"{stem}.one")

    def split(self, instr: Instr) -> _Split | None:
        """How the value of an instruction depends on the symbol; None if it is not linear in a way that is known."""
        self.span = instr.span
        parts = [self.splits.get(arg) or _Split(None, "", None, arg) for arg in instr.args]
        bound = [part for arg, part in zip(instr.args, parts, strict=True) if arg in self.splits]
        match instr.op:
            case Map("add"):
                return self._sum(*parts)
            case Map("sub"):
                return self._sum(parts[0], self._each(parts[1], self._negative))
            case Map("neg"):
                return self._each(parts[0], self._negative)
            case Map("mul") if len(bound) == 1:
                factor = next(arg for arg in instr.args if arg not in self.splits)
                return self._each(bound[0], lambda v, what: self._times(v, factor, what))
            case Map("div") if instr.args[1] not in self.splits:
                return self._each(parts[0], lambda v, what: self._map("div", v, instr.args[1], what=what))
            case Map("stop" | "to_real" | "to_complex" as fn):
                return self._each(parts[0], lambda v, what: self._map(fn, v, what=what))
            case Map("where") if instr.args[0] not in self.splits:
                return self._choice(instr.args[0], parts[1], parts[2])
            case Contract("real", axes) if len(bound) == 1:
                factor = next(arg for arg in instr.args if arg not in self.splits)
                return self._contract(bound[0], factor, axes)
            case Reduce("sum", axes):
                return self._reduce(parts[0], axes)
            case Rename(pairs):
                return self._rename(parts[0], dict(pairs))
            case Broadcast():
                return parts[0]
            case Index(axis, position):
                part = self.dense(parts[0]) if axis == parts[0].home else parts[0]
                return self._each(part, lambda v, what: self._index(v, axis, position, what))
            case Stack(axis):
                return self._stack(axis, parts)
            case _:
                return None

    def dense(self, split: _Split) -> _Split:
        """The split with its diagonal as part of its matrix."""
        if split.diagonal is None:
            return split
        diagonal = self.builder.add(Identity(split.home, self.column), hint=f"{self.stem}.identity", span=self.span)
        if split.diagonal != self.one:
            diagonal = self._map("mul", self.wide(split.diagonal), diagonal, what="matrix")
        return replace(split, diagonal=None, matrix=self._add(diagonal, split.matrix, "matrix"))

    def wide(self, value: str) -> str:
        """A value that arithmetic of real numbers takes."""
        narrow = self.builder.types[value].kind in (Kind.INT, Kind.BOOL)
        return self._map("to_real", value, what="matrix") if narrow else value

    # --- sums and products ---

    def _each(self, split: _Split, change: Callable[[str, str], str]) -> _Split:
        parts = (("diagonal", split.diagonal), ("matrix", split.matrix), ("write", split.write))
        diagonal, matrix, write = (None if value is None else change(value, what) for what, value in parts)
        return replace(split, diagonal=diagonal, matrix=matrix, write=write)

    def _sum(self, a: _Split, b: _Split) -> _Split:
        if None not in (a.diagonal, b.diagonal) and a.home != b.home:
            a, b = self.dense(a), self.dense(b)
        home = a.home if b.diagonal is None else b.home
        return _Split(
            self._add(a.diagonal, b.diagonal, "matrix"),
            home,
            self._add(a.matrix, b.matrix, "matrix"),
            self._add(a.write, b.write, "write"),
        )

    def _choice(self, condition: str, a: _Split, b: _Split) -> _Split:
        a, b = self.dense(a), self.dense(b)

        def choose(yes: str | None, no: str | None, what: str) -> str | None:
            if yes is None and no is None:
                return None
            zero = self.builder.const(0.0, hint=f"{self.stem}.zero")
            return self._map("where", condition, yes or zero, no or zero, what=what)

        return replace(a, matrix=choose(a.matrix, b.matrix, "matrix"), write=choose(a.write, b.write, "write"))

    def _contract(self, split: _Split, factor: str, axes: tuple[str, ...]) -> _Split:
        def over(value: str, axes: tuple[str, ...], what: str) -> str:
            value = self.builder.broadcast(value, axes, hint=f"{self.stem}.{what}")
            return self.builder.contract(value, factor, axes, hint=f"{self.stem}.{what}", span=self.span)

        diagonal, matrix = split.diagonal, None if split.matrix is None else over(split.matrix, axes, "matrix")
        if diagonal is not None and split.home in axes:
            rest = tuple(axis for axis in axes if axis != split.home)
            if diagonal == self.one:
                row = self.builder.reduce("sum", factor, rest, hint=f"{self.stem}.matrix", span=self.span)
            else:
                row = over(diagonal, rest, "matrix") if rest else self._times(diagonal, factor, "matrix")
            diagonal, matrix = None, self._add(self._as_columns(row, split.home), matrix, "matrix")
        elif diagonal is not None:
            diagonal = over(diagonal, axes, "matrix")
        write = None if split.write is None else over(split.write, axes, "write")
        return _Split(diagonal, split.home, matrix, write)

    def _reduce(self, split: _Split, axes: tuple[str, ...]) -> _Split:
        def over(value: str, axes: tuple[str, ...], what: str) -> str:
            value = self.builder.broadcast(value, axes, hint=f"{self.stem}.{what}")
            return self.builder.reduce("sum", value, axes, hint=f"{self.stem}.{what}", span=self.span)

        diagonal, matrix = split.diagonal, None if split.matrix is None else over(split.matrix, axes, "matrix")
        if diagonal is not None and split.home in axes:
            row = self.builder.broadcast(diagonal, (split.home,), hint=f"{self.stem}.matrix")
            row = over(row, tuple(axis for axis in axes if axis != split.home), "matrix")
            diagonal, matrix = None, self._add(self._as_columns(row, split.home), matrix, "matrix")
        elif diagonal is not None:
            diagonal = over(diagonal, axes, "matrix")
        write = None if split.write is None else over(split.write, axes, "write")
        return _Split(diagonal, split.home, matrix, write)

    # --- structure ---

    def _rename(self, split: _Split, moved: dict[str, str]) -> _Split:
        def rename(value: str, what: str) -> str:
            pairs = tuple((a, b) for a, b in moved.items() if a in self.builder.types[value].axes)
            return self._op(Rename(pairs), value, what=what) if pairs else value

        return replace(self._each(split, rename), home=moved.get(split.home, split.home))

    def _index(self, value: str, axis: str, position: int, what: str) -> str:
        there = axis in self.builder.types[value].axes
        return self._op(Index(axis, position), value, what=what) if there else value

    def _stack(self, axis: str, parts: list[_Split]) -> _Split:
        parts = [self.dense(part) for part in parts]

        def pile(values: list[str | None], what: str) -> str | None:
            if all(value is None for value in values):
                return None
            there = [v or self.builder.const(0.0, hint=f"{self.stem}.zero") for v in values]
            types = self.builder.types
            kind = widest([Kind.REAL, *(types[v].kind for v in there)])
            there = [v if types[v].kind is kind else self._map(f"to_{kind}", v, what=what) for v in there]
            axes = {a for v in there for a in types[v].axes}
            return self._op(Stack(axis), *(self.builder.broadcast(v, axes) for v in there), what=what)

        matrix, write = pile([p.matrix for p in parts], "matrix"), pile([p.write for p in parts], "write")
        return _Split(None, "", matrix, write)

    # --- values ---

    def _as_columns(self, row: str, home: str) -> str:
        return self._op(Rename(((home, self.column),)), row, what="matrix")

    def _add(self, a: str | None, b: str | None, what: str) -> str | None:
        return (a or b) if a is None or b is None else self._map("add", a, b, what=what)

    def _times(self, value: str, factor: str, what: str) -> str:
        return self.wide(factor) if value == self.one else self._map("mul", value, factor, what=what)

    def _negative(self, value: str, what: str) -> str:
        if value == self.one:
            return self.builder.const(-1.0, hint=f"{self.stem}.constant")
        return self._map("neg", value, what=what)

    def _map(self, fn: str, *args: str, what: str) -> str:
        what = "write" if what == "write" else "matrix"
        return self.builder.map(fn, *args, hint=f"{self.stem}.{what}", span=self.span)

    def _op(self, op: Rename | Index | Stack, *args: str, what: str) -> str:
        what = "write" if what == "write" else "matrix"
        return self.builder.add(op, *args, hint=f"{self.stem}.{what}", span=self.span)
