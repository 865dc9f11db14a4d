"""`d/dt h = rhs`: the matrix and the input term read off the right side, then the rules of discretisation.

The right side is affine in `current`.  With `current` at 0 it gives the input term; its linear part is
evaluated exactly, term by term, in the direction of ones where the system is elementwise, and of
each basis vector over the axes that it couples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from scanc.interpreter.arithmetic import Arithmetic, Array, moved_last
from scanc.interpreter.layout import align
from scanc.interpreter.matrices import matrix_function
from scanc.ir.nodes import Broadcast, Contract, Index, Instr, Map, Ode, Reduce, Rename, Stack

if TYPE_CHECKING:
    from scanc.interpreter.step import Evaluator

Values = Mapping[str, Array]

_SUMS = ("add", "sub", "where", "complex")
_LINEAR = ("neg", "to_real", "to_complex", "stop")


class NotAffine(ValueError):
    """The right side of an ODE is not affine in its state."""


def carried(state: str) -> str:
    """The hidden state of `exp_trapezoid`: the input term of the previous step."""
    return f"ode.{state}"


def next_state(evaluator: Evaluator, instr: Instr, values: Values) -> Array:
    """The value of the state after one step of the instruction's rule."""
    system = System(evaluator, instr, values)
    op = instr.op
    assert isinstance(op, Ode)
    settings = [align(values[name], evaluator.types[name].axes, instr.type.axes) for name in instr.args[2:]]
    state = align(values[instr.args[0]], evaluator.types[instr.args[0]].axes, instr.type.axes)
    previous = values.get(carried(op.state))
    algebra: Algebra = Coupled(evaluator.arith, system) if system.coupled else Elementwise(evaluator.arith)
    matrix = algebra.matrix(system)
    return algebra.leave(_step(op.rule, algebra, matrix, state, system.constant, settings, previous))


def input_term(evaluator: Evaluator, instr: Instr, values: Values) -> Array:
    """The right side with the state at 0, which `exp_trapezoid` carries to the next step."""
    return System(evaluator, instr, values).constant


def _step(
    rule: str,
    algebra: Algebra,
    matrix: Array,
    state: Array,
    term: Array,
    settings: Sequence[Array],
    previous: Array | None,
) -> Array:
    step, *more = [algebra.enter(s) for s in settings]
    h, u = algebra.enter(state), algebra.enter(term)
    z, w = algebra.scale(step, matrix), step * u
    match rule:
        case "zoh":
            return algebra.apply(algebra.exp(z), h) + algebra.phi1(z, w)
        case "mamba":
            return algebra.apply(algebra.exp(z), h) + w
        case "dirac":
            return algebra.apply(algebra.exp(z), h) + u
        case "async":
            return algebra.apply(algebra.exp(algebra.scale(step * more[0], matrix)), h) + algebra.phi1(z, w)
        case "exp_trapezoid":
            assert previous is not None
            blend = more[0]
            return algebra.apply(algebra.exp(z), h + (1 - blend) * step * algebra.enter(previous)) + blend * w
        case "euler":
            return h + algebra.apply(z, h) + w
        case "backward_euler":
            return algebra.solve(z, h + w)
        case "bilinear":
            return algebra.solve(0.5 * z, h + 0.5 * algebra.apply(z, h) + w)
        case "gbt":
            alpha = more[0]
            return algebra.solve(algebra.scale(alpha, z), h + (1 - alpha) * algebra.apply(z, h) + w)
    raise ValueError(f"no rule of discretisation {rule}")


class System:
    """The affine right side of an ODE in one time step: `constant`, `coupled` axes and the linear part."""

    def __init__(self, evaluator: Evaluator, instr: Instr, values: Values) -> None:
        self.evaluator = evaluator
        self.values = values
        self.current, self.rhs = instr.args[:2]
        self.axes = evaluator.types[self.current].axes
        self.shape = tuple(evaluator.sizes[axis] for axis in self.axes)
        self.kind = instr.type.kind
        self.chain = self._chain()
        self.coupled = tuple(axis for axis in self.axes if axis in self._touched())
        self.constant = self._constant()

    def _chain(self) -> list[Instr]:
        """The instructions between the current state and the right side, in order."""
        dependent, below = {self.current}, []
        for instr in self.evaluator.program.instrs:
            if dependent.intersection(instr.args) and instr.name in self.values and instr.name != self.current:
                dependent.add(instr.name)
                below.append(instr)
        wanted, chain = {self.rhs}, []
        for instr in reversed(below):
            if instr.name in wanted:
                wanted.update(instr.args)
                chain.append(instr)
        return chain[::-1]

    def _touched(self) -> set[str]:
        touched: set[str] = set()
        for instr in self.chain:
            match instr.op:
                case Reduce(_, axes) | Contract(_, axes):
                    touched.update(axes)
                case Rename(pairs):
                    touched.update(axis for pair in pairs for axis in pair)
                case Index(axis, _) | Stack(axis):
                    touched.add(axis)
                case _:
                    pass
        return touched

    def _constant(self) -> Array:
        arith = self.evaluator.arith
        values = dict(self.values)
        values[self.current] = arith.full((1, *self.shape), 0, self.evaluator.types[self.current].kind)
        for instr in self.chain:
            values[instr.name] = self.evaluator.instr(instr, values)
        return values[self.rhs]

    def linear(self, direction: Array) -> Array:
        """The linear part of the right side applied to `direction` [1, *axes]."""
        tangents = {self.current: direction}
        for instr in self.chain:
            tangents[instr.name] = self._tangent(instr, tangents)
        if self.rhs in tangents:
            return tangents[self.rhs]
        return self.evaluator.arith.full((1, *self.shape), 0, self.kind)

    def _tangent(self, instr: Instr, tangents: Values) -> Array:
        moving = [name in tangents for name in instr.args]
        values = {**self.values, **tangents}
        match instr.op:
            case Map(fn) if fn in _SUMS and not (fn == "where" and moving[0]):
                still = [name for name in instr.args[1 if fn == "where" else 0 :] if name not in tangents]
                values.update(self._zeros(still))
            case Stack():
                values.update(self._zeros([name for name in instr.args if name not in tangents]))
            case Map("mul") | Contract("real", _) if sum(moving) == 1:
                pass
            case Map("div") if not moving[1]:
                pass
            case Map(fn) if fn in _LINEAR:
                pass
            case Reduce("sum", _) | Rename() | Broadcast() | Index():
                pass
            case _:
                raise NotAffine(f"{instr.name} is not affine in {self.current}")
        return self.evaluator.instr(instr, values)

    def _zeros(self, names: Sequence[str]) -> Values:
        full, types = self.evaluator.arith.full, self.evaluator.types
        return {name: full(self.values[name].shape, 0, types[name].kind) for name in names}


class Algebra(Protocol):
    """The operations of the rules on a matrix: diagonal and held as a vector, or dense."""

    def matrix(self, system: System) -> Array:
        """What multiplies the state."""

    def enter(self, x: Array) -> Array:
        """A vector, from an array [B, *axes]."""

    def leave(self, x: Array) -> Array:
        """The array [B, *axes] of a vector."""

    def scale(self, step: Array, z: Array) -> Array:
        """step · z."""

    def apply(self, z: Array, v: Array) -> Array:
        """z v."""

    def exp(self, z: Array) -> Array:
        """The exponential of a matrix."""

    def phi1(self, z: Array, v: Array) -> Array:
        """φ₁(z) v."""

    def solve(self, z: Array, v: Array) -> Array:
        """(1 - z)⁻¹ v."""


class Elementwise:
    """Diagonal matrices, held as the vectors [B, *axes] of their diagonals."""

    def __init__(self, arith: Arithmetic) -> None:
        self.arith = arith

    def matrix(self, system: System) -> Array:
        return system.linear(self.arith.full((1, *system.shape), 1, system.kind))

    def enter(self, x: Array) -> Array:
        return x

    def leave(self, x: Array) -> Array:
        return x

    def scale(self, step: Array, z: Array) -> Array:
        return step * z

    def apply(self, z: Array, v: Array) -> Array:
        return z * v

    def exp(self, z: Array) -> Array:
        return self.arith.map("exp", z)

    def phi1(self, z: Array, v: Array) -> Array:
        return self.arith.map("phi1", z) * v

    def solve(self, z: Array, v: Array) -> Array:
        return v / (1 - z)


class Coupled:
    """Vectors [b, *free, n] and matrices [b, *free, n, n], n running over all coupled axes together."""

    def __init__(self, arith: Arithmetic, system: System) -> None:
        self.arith = arith
        self.sizes = system.shape
        dims = [1 + system.axes.index(axis) for axis in system.coupled]
        self.order, self.inverse = moved_last(1 + len(self.sizes), dims)
        self.count = len(dims)
        self.n = math.prod(self.sizes[d - 1] for d in dims)
        rows = [arith.array([float(i == j) for i in range(self.n)], system.kind) for j in range(self.n)]
        self.identity = arith.stack(rows, 0)

    def matrix(self, system: System) -> Array:
        columns = []
        for j in range(self.n):
            free = [(1, *self.sizes)[d] for d in self.order[: -self.count]]
            unit = self.leave(self.arith.expand(self.identity[j], (*free, self.n)))
            columns.append(self.enter(system.linear(unit)))
        return self.arith.stack(columns, columns[0].ndim)

    def enter(self, x: Array) -> Array:
        x = self.arith.transpose(self.arith.expand(x, (x.shape[0], *self.sizes)), self.order)
        return x.reshape((*x.shape[: x.ndim - self.count], self.n))

    def leave(self, x: Array) -> Array:
        x = x.reshape((*x.shape[:-1], *((1, *self.sizes)[d] for d in self.order[-self.count :])))
        return self.arith.transpose(x, self.inverse)

    def scale(self, step: Array, z: Array) -> Array:
        return step[..., None] * z

    def apply(self, z: Array, v: Array) -> Array:
        return (z * v[..., None, :]).sum(-1)

    def exp(self, z: Array) -> Array:
        return matrix_function(self.arith, "exp", z, [])

    def phi1(self, z: Array, v: Array) -> Array:
        """The last column of exp [[z, v], [0, 0]], which also holds for a singular z."""
        columns = [*(z[..., j] for j in range(self.n)), v]
        block = self.arith.stack(columns, columns[0].ndim)
        rows = [*(block[..., i, :] for i in range(self.n)), block[..., 0, :] * 0]
        whole = matrix_function(self.arith, "exp", self.arith.stack(rows, block.ndim - 2), [])
        return whole[..., : self.n, self.n]

    def solve(self, z: Array, v: Array) -> Array:
        return self.arith.solve(self.identity - z, v)
