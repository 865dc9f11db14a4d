"""One instruction as a Triton expression over the tiles of its arguments."""

from __future__ import annotations

from dataclasses import dataclass, replace

from scanc.codegen.expressions import ARITHMETIC, Expr, Infix, Level, number, spell
from scanc.codegen.triton.tiles import Frame
from scanc.ir.functions import SEMIRINGS
from scanc.ir.nodes import (
    Broadcast,
    Const,
    Contract,
    Extremum,
    Index,
    Instr,
    Kind,
    Map,
    Reduce,
    Rename,
    Size,
    Stack,
)
from scanc.passes.schedule import Axes

CALLS = {
    "sqrt": "tl.sqrt",
    "rsqrt": "tl.rsqrt",
    "abs": "tl.abs",
    "maximum": "tl.maximum",
    "minimum": "tl.minimum",
    "where": "tl.where",
}
"""Functions of `triton.language`; all others are in `scanc_runtime.triton_math`."""
_TAKE_NUMBERS = frozenset({"tl.maximum", "tl.minimum", "tl.where"})
_SAME = frozenset({"stop", "real", "conj"})


@dataclass(frozen=True)
class Tile:
    """A Triton expression: the axes of its tile, its kind; `number` if it is a bare literal."""

    expr: Expr
    axes: Axes
    kind: Kind
    number: bool = False

    @property
    def text(self) -> str:
        """The expression as source text."""
        return self.expr.text


class Speller:
    """Spells instructions over the tiles of one frame."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame

    def spell(self, instr: Instr, args: list[Tile], within: bool = False) -> Tile:
        """`instr` over the tiles of its arguments; `within`: a sum inside each thread alone."""
        axes = self.frame.tile(instr.type.axes)
        kind = instr.type.kind
        match instr.op:
            case Const(value):
                return self._const(value, kind)
            case Size(axis):
                return Tile(Expr(f"size_{axis}"), (), kind, number=True)
            case Map(fn):
                return self._map(fn, args, axes, kind)
            case Reduce(fn, gone):
                return self._reduce(fn, args[0], gone, kind, within)
            case Contract(semiring, gone):
                ring = SEMIRINGS[semiring]
                both = self.frame.program.canonical(frozenset({*args[0].axes, *args[1].axes}))
                return self._reduce(ring.reduce, self._map(ring.times, args, both, kind), gone, kind, within)
            case Rename(pairs):
                return self._rename(args[0], dict(pairs), axes)
            case Broadcast():
                return self._broadcast(args[0], axes)
            case Index(axis, position):
                return self._index(args[0], axis, position)
            case Stack(axis):
                return self._stack(args, axis, axes)
            case Extremum(fn, over):
                return self._extremum(fn, args[0], over)
            case op:
                raise AssertionError(f"{op} is gone at this level")

    # --- leaves ---

    def _const(self, value: bool | int | float | complex, kind: Kind) -> Tile:
        assert not isinstance(value, complex), "complex numbers are pairs by now"
        if kind is Kind.BOOL:
            return Tile(Expr(f"tl.full((), {int(value)}, tl.int1)"), (), kind)
        return Tile(number(value), (), kind, number=True)

    def tensor(self, tile: Tile) -> Tile:
        """`tile` as a tensor, where a bare number will not do."""
        if not tile.number:
            return tile
        return Tile(Expr(f"tl.full((), {tile.text}, {self.frame.dtype(tile.kind)})"), (), tile.kind)

    def lift(self, tile: Tile, axes: Axes) -> Expr:
        """`tile` with dimensions of one where `axes` are more than its own."""
        if not tile.axes or tile.axes == axes:
            return tile.expr
        return Expr(self.frame.lifted(tile.expr.at(Level.ATOM), tile.axes, axes))

    # --- elementwise ---

    def _map(self, fn: str, args: list[Tile], axes: Axes, kind: Kind) -> Tile:
        args = self._one_kind(fn, args, kind)
        if all(arg.number for arg in args):
            args = [self.tensor(args[0]), *args[1:]]
        if fn in _SAME:
            return args[0]
        if fn == "to_real":
            return self._cast(args[0], Kind.REAL)
        if fn == "relu":
            return Tile(Expr(f"tl.maximum({self.lift(args[0], axes)}, 0.0)"), axes, kind)
        if fn == "imag":
            return Tile(_TIMES(self.lift(args[0], axes), Expr("0.0")), axes, kind)
        if fn in ARITHMETIC:
            return Tile(spell(ARITHMETIC[fn], [self.lift(arg, axes) for arg in args]), axes, kind)
        call = CALLS.get(fn, f"tlmath.{fn}")
        if call not in _TAKE_NUMBERS:
            args = [self.tensor(arg) for arg in args]
        return Tile(Expr(f"{call}({', '.join(self.lift(arg, axes).text for arg in args)})"), axes, kind)

    def _one_kind(self, fn: str, args: list[Tile], kind: Kind) -> list[Tile]:
        """Arguments of one kind: Triton's own promotion would make fp32 of an integer, whatever `acc` is."""
        if fn in ("and", "or", "not", "to_real", *_SAME):
            return args
        values = args[1:] if fn == "where" else args
        if kind is Kind.REAL or any(arg.kind is Kind.REAL for arg in values):
            wanted = Kind.REAL
        else:
            wanted = Kind.INT if kind is Kind.INT or any(arg.kind is Kind.INT for arg in values) else Kind.BOOL
        return [*args[: len(args) - len(values)], *(self._cast(arg, wanted) for arg in values)]

    def _cast(self, tile: Tile, kind: Kind) -> Tile:
        if tile.kind is kind or tile.number:
            return replace(tile, kind=kind)
        return Tile(Expr(f"{tile.expr.at(Level.ATOM)}.to({self.frame.dtype(kind)})"), tile.axes, kind)

    # --- across an axis ---

    def _reduce(self, fn: str, arg: Tile, axes: Axes, kind: Kind, within: bool = False) -> Tile:
        """Axes that a program has one index of are left to the partial sum; padding holds the neutral element."""
        gone = [axis for axis in arg.axes if axis in axes]
        if not gone:
            return arg
        inside = self.frame.inside(gone, arg.axes)
        left = _without(arg.axes, gone)
        if fn in ("any", "all"):
            truth = arg.expr if fn == "any" else spell(ARITHMETIC["not"], [arg.expr])
            found = f"tl.where({_both(inside, truth)}, 1, 0)"
            text = self.frame.reduced("max", found, arg.axes, gone)
            return Tile(Expr(f"{text} {'>' if fn == 'any' else '=='} 0", Level.COMPARE), left, kind)
        neutral = {"sum": "0.0" if kind is Kind.REAL else "0", "min": 'float("inf")'}.get(fn, 'float("-inf")')
        masked = f"tl.where({inside}, {arg.text}, {neutral})"
        return Tile(Expr(self.frame.reduced(fn, masked, arg.axes, gone, within)), left, kind)

    def _rename(self, arg: Tile, moved: dict[str, str], axes: Axes) -> Tile:
        arg = self.tensor(arg)
        now = tuple(moved.get(axis, axis) for axis in arg.axes)
        if now == axes:
            return replace(arg, axes=axes)
        order = ", ".join(str(now.index(axis)) for axis in axes)
        return Tile(Expr(f"tl.permute({arg.text}, ({order}))"), axes, arg.kind)

    def _broadcast(self, arg: Tile, axes: Axes) -> Tile:
        if arg.axes == axes:
            return self.tensor(arg)
        shape = self.frame.shape(axes)
        if not arg.axes:
            return Tile(Expr(f"tl.full({shape}, {arg.text}, {self.frame.dtype(arg.kind)})"), axes, arg.kind)
        return Tile(Expr(f"tl.broadcast_to({self.lift(arg, axes)}, {shape})"), axes, arg.kind)

    def _index(self, arg: Tile, axis: str, position: int) -> Tile:
        here = f"{self.frame.at(axis, arg.axes)} == {position}"
        along = arg.axes.index(axis)
        left = _without(arg.axes, [axis])
        if arg.kind is Kind.BOOL:
            chosen = f"tl.where({_both(f'({here})', arg.expr)}, 1, 0)"
            return Tile(Expr(f"tl.max({chosen}, axis={along}) > 0", Level.COMPARE), left, arg.kind)
        nothing = "0.0" if arg.kind is Kind.REAL else "0"
        return Tile(Expr(f"tl.sum(tl.where({here}, {arg.text}, {nothing}), axis={along})"), left, arg.kind)

    def _stack(self, args: list[Tile], axis: str, axes: Axes) -> Tile:
        kind = args[0].kind
        if len(args) == 1:
            return self._broadcast(args[0], axes)
        args = [*args[:-1], self.tensor(args[-1])]
        text = self.lift(args[-1], axes).text
        for position in range(len(args) - 2, -1, -1):
            text = f"tl.where({self.frame.at(axis, axes)} == {position}, {self.lift(args[position], axes)}, {text})"
        return Tile(Expr(text), axes, kind)

    def _extremum(self, fn: str, arg: Tile, axes: Axes) -> Tile:
        gone = [axis for axis in arg.axes if axis in axes]
        place = ""
        for axis in gone:
            at = self.frame.at(axis, arg.axes)
            place = f"({place}) * size_{axis} + {at}" if place else at
        along = ", ".join(str(arg.axes.index(axis)) for axis in gone)
        text = f"tlmath.first_{fn}({arg.text}, {place}, {self.frame.inside(gone, arg.axes)}, axes=({along},))"
        return Tile(Expr(text), arg.axes, Kind.BOOL)


_TIMES = Infix("*", Level.PRODUCT)


def _without(axes: Axes, gone: list[str]) -> Axes:
    return tuple(axis for axis in axes if axis not in gone)


def _both(mask: str, condition: Expr) -> str:
    return f"{mask} & {condition.at(Level.UNARY)}"
