"""The rules of discretisation, written once over an algebra: diagonal and held as a vector, or dense.

With z = step A, every rule is h' = decay h + gain u (`docs/discretisation.md` has the table, with sources).  The forms
are those that keep their digits: `phi1(z) = expm1(z) / z` has no cancellation at small z and no division at 0, so A may
be 0, singular or absent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from scanc.diagnostics.span import Span
from scanc.ir.build import Builder
from scanc.ir.nodes import Contract, Identity, Map, Matrix, Rename


@dataclass(frozen=True)
class System:
    """d/dt h = matrix h + term = rhs at `current`; None stands for 0. `previous`: the input term one step ago."""

    current: str
    rhs: str
    matrix: str | None
    term: str | None
    settings: list[str]
    previous: str | None = None

    @property
    def step(self) -> str:
        return self.settings[0]


Step = tuple[str | None, str | None, str]  # decay (None: 1), write (None: 0), the formula to show


class Algebra(ABC):
    """What the rules do with a matrix; builds instructions named after the state: `h.z`, `h.decay`, `h.write`, …"""

    dense = False

    def __init__(self, builder: Builder, state: str, span: Span | None) -> None:
        self.builder = builder
        self.state = state
        self.span = span

    def map(self, what: str, fn: str, *args: str) -> str:
        return self.builder.map(fn, *args, hint=f"{self.state}.{what}", span=self.span)

    def const(self, value: float) -> str:
        return self.builder.const(value, hint=f"{self.state}.constant", span=self.span)

    def scaled(self, system: System) -> str | None:
        """z = step A."""
        return None if system.matrix is None else self.map("z", "mul", system.step, system.matrix)

    def driven(self, system: System) -> str | None:
        """step u."""
        return None if system.term is None else self.map("write", "mul", system.step, system.term)

    @abstractmethod
    def one(self) -> str:
        """The unit matrix."""

    @abstractmethod
    def exp(self, z: str) -> str:
        """The exponential of a matrix."""

    @abstractmethod
    def act(self, what: str, matrix: str, vector: str) -> str:
        """A matrix times a vector."""

    @abstractmethod
    def held(self, z: str, system: System) -> str:
        """step φ₁(z) u: the input held for one step."""

    @abstractmethod
    def implicit(self, explicit: str, implicit: str, system: System) -> tuple[str, str | None]:
        """implicit⁻¹ explicit, and implicit⁻¹ step u."""


class Diagonal(Algebra):
    """A diagonal matrix, held as a vector."""

    def one(self) -> str:
        return self.const(1.0)

    def exp(self, z: str) -> str:
        return self.map("decay", "exp", z)

    def act(self, what: str, matrix: str, vector: str) -> str:
        return self.map(what, "mul", matrix, vector)

    def held(self, z: str, system: System) -> str:
        write = self.driven(system)
        assert write is not None
        return self.map("write", "mul", self.map("phi1", "phi1", z), write)

    def implicit(self, explicit: str, implicit: str, system: System) -> tuple[str, str | None]:
        write = self.driven(system)
        write = None if write is None else self.map("write", "div", write, implicit)
        return self.map("decay", "div", explicit, implicit), write


class Dense(Algebra):
    """A matrix with rows along an axis of the state, and columns along one of the same size.

    The rules of `PRODUCTS` need a third.  A gain acts on the factor of the input term that varies along the rows, ahead
    of the others: of `B*x` on B, so that it is one vector where B and the step are params.
    """

    dense = True

    def __init__(
        self, builder: Builder, state: str, span: Span | None, axes: tuple[str, ...], fixed: frozenset[str]
    ) -> None:
        super().__init__(builder, state, span)
        self.rows, self.columns, *self._inner = axes
        self._fixed = set(fixed)

    def one(self) -> str:
        return self.builder.add(Identity(self.rows, self.columns), hint=f"{self.state}.one", span=self.span)

    def _function(self, what: str, fn: str, z: str) -> str:
        z = self.builder.broadcast(z, (self.rows, self.columns), hint=f"{self.state}.z")
        op = Matrix(fn, self.rows, self.columns)
        return self.builder.add(op, z, hint=f"{self.state}.{what}", span=self.span)

    def exp(self, z: str) -> str:
        return self._function("decay", "exp", z)

    def act(self, what: str, matrix: str, vector: str) -> str:
        vector = self.builder.broadcast(vector, (self.rows,), hint=f"{self.state}.{what}")
        across = self.builder.add(Rename(((self.rows, self.columns),)), vector, hint=f"{self.state}.across")
        return self.builder.contract(matrix, across, (self.columns,), hint=f"{self.state}.{what}", span=self.span)

    def held(self, z: str, system: System) -> str:
        assert system.term is not None
        return self._gained(self._function("phi1", "phi1", z), system.step, system.term)

    def implicit(self, explicit: str, implicit: str, system: System) -> tuple[str, str | None]:
        inverse = self._function("inverse", "inverse", implicit)
        write = None if system.term is None else self._gained(inverse, system.step, system.term)
        if any(instr.name == explicit and isinstance(instr.op, Identity) for instr in self.builder.instrs):
            return inverse, write
        (inner,) = self._inner
        turned = Rename(((self.rows, self.columns), (self.columns, inner)))
        explicit = self.builder.add(turned, explicit, hint=f"{self.state}.turned")
        product = self.builder.contract(
            inverse, explicit, (self.columns,), hint=f"{self.state}.product", span=self.span
        )
        decay = self.builder.add(Rename(((inner, self.columns),)), product, hint=f"{self.state}.decay")
        return decay, write

    def _gained(self, gain: str, step: str, term: str) -> str:
        """gain @ (step · term)."""
        made = next((instr for instr in self.builder.instrs if instr.name == term), None)
        match made.op if made else None, made.args if made else ():
            case Map("add" | "sub" as fn), (a, b):
                return self.map("write", fn, *(self._gained(gain, step, part) for part in (a, b)))
            case Map("neg"), (a,):
                return self.map("write", "neg", self._gained(gain, step, a))
            case Map("mul"), args if len(varying := [arg for arg in args if self._along(arg)]) == 1:
                (other,) = (arg for arg in args if arg not in varying)
                return self.map("write", "mul", self._gained(gain, step, varying[0]), other)
            case Contract("real", axes), args if len(varying := [arg for arg in args if self._along(arg)]) == 1:
                (other,) = (arg for arg in args if arg not in varying)
                if self.rows not in axes and self._param(varying[0]):
                    gained = self._gained(gain, step, varying[0])
                    return self.builder.contract(gained, other, axes, hint=f"{self.state}.write", span=self.span)
        return self.act("gain", gain, self.map("driven", "mul", step, term))

    def _along(self, value: str) -> bool:
        return self.rows in self.builder.types[value].axes

    def _param(self, value: str) -> bool:
        """Whether params alone decide a value."""
        for instr in self.builder.instrs:
            if self._fixed.issuperset(instr.args):
                self._fixed.add(instr.name)
        return value in self._fixed


# --- the rules ---


def _zoh(algebra: Algebra, system: System) -> Step:
    z = algebra.scaled(system)
    return _exp(algebra, z), _held(algebra, z, system), "exp(z)·{h} + step·phi1(z)·u"


def _exp(algebra: Algebra, z: str | None) -> str | None:
    return None if z is None else algebra.exp(z)


def _held(algebra: Algebra, z: str | None, system: System) -> str | None:
    return algebra.driven(system) if system.term is None or z is None else algebra.held(z, system)


def _async(algebra: Algebra, system: System) -> Step:
    z = algebra.scaled(system)
    elapsed = None if z is None else algebra.map("elapsed", "mul", system.settings[1], z)
    return _exp(algebra, elapsed), _held(algebra, z, system), "exp(z·dt)·{h} + step·phi1(z)·u"


def _mamba(algebra: Algebra, system: System) -> Step:
    return _exp(algebra, algebra.scaled(system)), algebra.driven(system), "exp(z)·{h} + step·u"


def _dirac(algebra: Algebra, system: System) -> Step:
    return _exp(algebra, algebra.scaled(system)), system.term, "exp(z)·{h} + u"


def _exp_trapezoid(algebra: Algebra, system: System) -> Step:
    assert system.previous is not None
    decay, blend = _exp(algebra, algebra.scaled(system)), system.settings[1]
    share = algebra.map("late", "mul", algebra.map("late", "sub", algebra.const(1.0), blend), system.step)
    late = algebra.map("late", "mul", share, system.previous)
    late = late if decay is None else algebra.act("late", decay, late)
    now = algebra.driven(system)
    write = late if now is None else algebra.map("write", "add", algebra.map("now", "mul", blend, now), late)
    return decay, write, "exp(z)·({h} + (1 - lambda)·step·u_before) + lambda·step·u"


def _gbt(algebra: Algebra, system: System, alpha: str) -> Step:
    z = algebra.scaled(system)
    above, below = "(1 + (1 - alpha)·z)·{h} + step·u", "1 - alpha·z"
    if z is None:
        return None, algebra.driven(system), _quotient(algebra, above, below)
    one = algebra.one()
    implicit = algebra.map("implicit", "sub", one, algebra.map("implicit", "mul", alpha, z))
    share = algebra.map("explicit", "mul", algebra.map("explicit", "sub", algebra.const(1.0), alpha), z)
    explicit = algebra.map("explicit", "add", one, share)
    return *algebra.implicit(explicit, implicit, system), _quotient(algebra, above, below)


def _quotient(algebra: Algebra, above: str, below: str) -> str:
    return f"({below})⁻¹·({above})" if algebra.dense else f"({above}) / ({below})"


def _bilinear(algebra: Algebra, system: System) -> Step:
    decay, write, _ = _gbt(algebra, system, algebra.const(0.5))
    return decay, write, _quotient(algebra, "(1 + z/2)·{h} + step·u", "1 - z/2")


def _euler(algebra: Algebra, system: System) -> Step:
    """Of a dense system it is {h} + step · (the right side): no matrix of the product step A is made."""
    formula = "(1 + z)·{h} + step·u"
    if algebra.dense:
        return None, algebra.map("write", "mul", system.step, system.rhs), formula
    z = algebra.scaled(system)
    decay = None if z is None else algebra.map("decay", "add", algebra.one(), z)
    return decay, algebra.driven(system), formula


def _backward_euler(algebra: Algebra, system: System) -> Step:
    z, formula = algebra.scaled(system), _quotient(algebra, "{h} + step·u", "1 - z")
    if z is None:
        return None, algebra.driven(system), formula
    one = algebra.one()
    implicit = algebra.map("implicit", "sub", one, z)
    return *algebra.implicit(one, implicit, system), formula


RULES: dict[str, Callable[[Algebra, System], Step]] = {
    "zoh": _zoh,
    "bilinear": _bilinear,
    "gbt": lambda algebra, system: _gbt(algebra, system, system.settings[1]),
    "euler": _euler,
    "backward_euler": _backward_euler,
    "exp_trapezoid": _exp_trapezoid,
    "mamba": _mamba,
    "dirac": _dirac,
    "async": _async,
}

PRODUCTS = ("bilinear", "gbt")
"""The rules whose decay is the product of two matrices, where A is one."""
