"""One instruction and one time step. A value is an array [b, *axes] in canonical order, b the batch size or 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scanc.interpreter.arithmetic import Arithmetic, Array, moved_last
from scanc.interpreter.layout import align
from scanc.interpreter.matrices import matrix_function
from scanc.interpreter.ode import next_state
from scanc.ir.functions import SEMIRINGS
from scanc.ir.nodes import (
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
    Ode,
    Program,
    Reduce,
    Region,
    RegionKind,
    Rename,
    Scan,
    Size,
    Stack,
    TensorType,
)

Values = Mapping[str, Array]


def delayed(name: str, slot: int) -> str:
    """The name of one slot of the shift register behind `prev` and `conv`; slot 0 is the oldest."""
    return f"prev.{name}.{slot}"


@dataclass(frozen=True)
class Evaluator:
    """Evaluates instructions of `program`; `depths` gives the depth of the shift register of each delayed name."""

    program: Program
    arith: Arithmetic
    types: Mapping[str, TensorType]
    sizes: Mapping[str, int]
    depths: Mapping[str, int]

    def region(self, region: Region, values: dict[str, Array]) -> None:
        """Adds the region's values to `values`, which holds everything before it."""
        for instr in region.instrs:
            values[instr.name] = self.instr(instr, values)
        if region.kind is RegionKind.SCAN and region.scan is not None:
            values[region.scan.result] = self.scan(region.scan, region.states[0], values)

    def instr(self, instr: Instr, values: Values) -> Array:
        """The value of one instruction, [B, *axes] with B = 1 where it does not vary with the sequence."""
        arith, axes = self.arith, instr.type.axes
        args = [(values[a], self.types[a]) for a in instr.args if a in values]
        match instr.op:
            case Const(value):
                return arith.full((1,), value, instr.type.kind)
            case Size(axis):
                return arith.full((1,), self.sizes[axis], Kind.INT)
            case Map(fn):
                return self.map(fn, instr, values)
            case Reduce(fn, over):
                (x, type_) = args[0]
                return arith.reduce(fn, x, [1 + type_.axes.index(a) for a in over])
            case Extremum(fn, over):
                (x, type_) = args[0]
                return arith.extremum(fn, x, [1 + type_.axes.index(a) for a in over])
            case Contract(semiring, over):
                return self.contract(semiring, over, instr, values)
            case Rename(pairs):
                (x, type_) = args[0]
                moved = [dict(pairs).get(a, a) for a in type_.axes]
                return arith.transpose(x, [0, *(1 + moved.index(a) for a in axes)])
            case Broadcast():
                (x, type_) = args[0]
                return arith.expand(align(x, type_.axes, axes), (x.shape[0], *(self.sizes[a] for a in axes)))
            case Index(axis, position):
                (x, type_) = args[0]
                return x[(slice(None),) * (1 + type_.axes.index(axis)) + (position,)]
            case Stack(axis):
                return arith.stack([x for x, _ in args], 1 + axes.index(axis))
            case Identity(rows, _):
                return arith.identity(self.sizes[rows])[None]
            case Matrix(fn, rows, columns):
                return self.matrix_function(fn, (rows, columns), instr, values)
            case Delay(steps):
                return self.past(instr.args[0], steps, values)
            case Conv(axis):
                return self.conv(axis, instr, values)
            case Ode():
                return next_state(self, instr, values)

    def map(self, fn: str, instr: Instr, values: Values) -> Array:
        """Arguments aligned by axis name; bool and int ones raised to the result's kind where that is wider.

        Of the two values of `where`, a real one too: torch has no gradient for one real and one complex.
        """
        args = []
        for position, name in enumerate(instr.args):
            type_, x = self.types[name], align(values[name], self.types[name].axes, instr.type.axes)
            narrow = (type_.kind in (Kind.BOOL, Kind.INT) or fn == "where") and instr.type.kind is not Kind.BOOL
            if narrow and type_.kind is not instr.type.kind and not (fn == "where" and position == 0):
                x = self.arith.array(x, instr.type.kind)
            args.append(self.arith.array(x, Kind.COMPLEX) if fn == "to_complex" else x)
        return self.arith.map(fn, *args)

    def contract(self, semiring: str, over: tuple[str, ...], instr: Instr, values: Values) -> Array:
        """⊕ over some axes of the ⊗-product of the instruction's two arguments."""
        ring = SEMIRINGS[semiring]
        joint = self.program.canonical({a for name in instr.args for a in self.types[name].axes})
        a, b = (align(values[name], self.types[name].axes, joint) for name in instr.args)
        product = self.arith.map(ring.times, a, b)
        return self.arith.reduce(ring.reduce, product, [1 + joint.index(axis) for axis in over]) if over else product

    def matrix_function(self, fn: str, matrix: tuple[str, str], instr: Instr, values: Values) -> Array:
        """A function of a matrix over two axes, for each element of all others."""
        axes, kind = instr.type.axes, instr.type.kind
        order, inverse = moved_last(1 + len(axes), [1 + axes.index(axis) for axis in matrix])
        z, *directions = (
            self.arith.transpose(self.arith.array(align(values[a], self.types[a].axes, axes), kind), order)
            for a in instr.args
        )
        return self.arith.transpose(matrix_function(self.arith, fn, z, directions), inverse)

    def past(self, name: str, steps: int, values: Values) -> Array:
        """A delayed name as it was some steps ago."""
        return values[name] if steps == 0 else values[delayed(name, self.depths[name] - steps)]

    def conv(self, axis: str, instr: Instr, values: Values) -> Array:
        """Σ over taps of the kernel times the past of the signal; the last tap meets the present."""
        signal, kernel = instr.args
        kernel_type = self.types[kernel]
        place = 1 + kernel_type.axes.index(axis)
        rest = tuple(a for a in kernel_type.axes if a != axis)
        width = self.sizes[axis]
        batch = values[kernel].shape[0]
        total = self.arith.full((batch, *(self.sizes[a] for a in instr.type.axes)), 0, instr.type.kind)
        for tap in range(width):
            weight = align(values[kernel][(slice(None),) * place + (tap,)], rest, instr.type.axes)
            past = self.past(signal, width - 1 - tap, values)
            total = total + weight * align(past, self.types[signal].axes, instr.type.axes)
        return total

    def scan(self, scan: Scan, state: str, values: Values) -> Array:
        """decay ⊗ state ⊕ write; a missing decay is one, a missing write zero."""
        ring, type_ = SEMIRINGS[scan.semiring], self.types[state]
        total = values[state]
        if scan.decay is not None:
            total = self.arith.map(
                ring.times, align(values[scan.decay], self.types[scan.decay].axes, type_.axes), total
            )
        if scan.write is not None:
            total = self.arith.map(ring.plus, total, align(values[scan.write], self.types[scan.write].axes, type_.axes))
        return total
