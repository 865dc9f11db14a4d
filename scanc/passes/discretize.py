"""discretize: `d/dt h = A h + u` becomes one step, by the rule that the spec names (theory, section 4).

With z = step A, every rule is h' = decay h + gain u.  The forms are those that keep their digits:
`phi1(z) = expm1(z) / z` has no cancellation at small z and no division at 0, so A may be 0 or absent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from scanc.analysis.affine import Top, affine_forms
from scanc.analysis.elementwise import extract
from scanc.analysis.mixing import first_mixing
from scanc.diagnostics.diagnostic import CompileError, fault
from scanc.diagnostics.span import Span
from scanc.ir.build import Builder
from scanc.ir.nodes import Instr, Kind, Level, Ode, Program, State
from scanc.ir.rewrite import rewrite
from scanc.passes.base import Pass, Remark, Rewrite


def run(program: Program) -> Rewrite:
    rule = _Discretization(program)
    result = rewrite(program, rule)
    result = replace(
        result,
        level=Level.DISCRETE,
        states=(*result.states, *rule.states),
        next=(*result.next, *rule.next),
    )
    return result, tuple(rule.remarks)


class _Discretization:
    """The rewrite rule for `Ode`; hidden states and remarks are collected on the way."""

    def __init__(self, program: Program) -> None:
        self.declared = {state.name: state for state in program.states}
        self.states: list[State] = []
        self.next: list[tuple[str, str]] = []
        self.remarks: list[Remark] = []

    def __call__(self, instr: Instr, builder: Builder) -> str | None:
        if not isinstance(instr.op, Ode):
            return None
        current, rhs, *settings = instr.args
        matrix, term = _parts(builder, instr.op.state, current, rhs, instr.span)
        emit = _Emit(builder, instr.op.state, instr.span)
        system = _System(current, matrix, term, settings)
        if instr.op.rule == "exp_trapezoid":
            system = replace(system, previous=self._carry(builder, instr, term))
        decay, write, formula = RULES[instr.op.rule](emit, system)
        kept = current if decay is None else emit.map("kept", "mul", decay, current)
        result = kept
        if write is not None:
            result = emit.map("next", "add", kept, write)
        self.remarks.append(Remark("discretize", _remark(instr.op, matrix, term, formula), span=instr.span))
        return builder.broadcast(result, instr.type.axes)

    def _carry(self, builder: Builder, instr: Instr, term: str | None) -> str:
        """The hidden state `ode.<state>`, which holds the previous step's input term."""
        assert isinstance(instr.op, Ode)
        state = self.declared[instr.op.state]
        name = builder.fresh(f"ode.{state.name}")
        builder.types[name] = state.type
        value = builder.const(0.0) if term is None else term
        if state.type.kind is Kind.COMPLEX and builder.types[value].kind is not Kind.COMPLEX:
            value = builder.map("to_complex", value)
        self.states.append(State(name, state.dims, state.type, 0.0, span=instr.span))
        self.next.append((name, builder.broadcast(value, state.type.axes, hint=f"{name}.next")))
        return name


def _parts(builder: Builder, state: str, current: str, rhs: str, span: Span | None) -> tuple[str | None, str | None]:
    """The elementwise coefficient of the right side (None for 0) and its input term (None for 0)."""
    instrs = tuple(builder.instrs)
    form = affine_forms(instrs, [current], builder.types).get(rhs)
    if form is None:
        return None, rhs
    if isinstance(form, Top):
        raise _not_affine(state, form, span)
    taken = extract(instrs, current, rhs, builder, stem=state)
    if taken is None:
        place = first_mixing(instrs, [current], rhs, builder.types)
        raise _coupled(state, place.span if place else None, span)
    matrix = builder.const(1.0, hint=f"{state}.one") if taken.decay is None else taken.decay
    return matrix, taken.write


def _not_affine(state: str, form: Top, span: Span | None) -> CompileError:
    return fault(
        "E0706",
        f"the right side of `d/dt {state}` is not affine in `{state}`",
        form.span or span,
        form.reason,
        secondary=[(span, "discretised here")] if form.span != span else [],
        hint=f"write `d/dt {state} = A*{state} + …` with A and the rest free of `{state}`, or a discrete step",
    )


def _coupled(state: str, place: Span | None, span: Span | None) -> CompileError:
    return fault(
        "E0707",
        f"the right side of `d/dt {state}` couples elements of `{state}`",
        place or span,
        f"so far, only a right side that treats each element of `{state}` by itself can be discretised",
        secondary=[(span, "discretised here")] if place != span else [],
        hint=f"diagonalise A beforehand and write `A*{state}`, or write the discrete step `{state} = A @ {state} + …`",
    )


# --- the rules ---


@dataclass(frozen=True)
class _System:
    """d/dt h = matrix h + term at `current`; None stands for 0. `previous`: the input term one step ago."""

    current: str
    matrix: str | None
    term: str | None
    settings: list[str]
    previous: str | None = None

    @property
    def step(self) -> str:
        return self.settings[0]


_Step = tuple[str | None, str | None, str]  # decay (None: 1), write (None: 0), the formula to show


class _Emit:
    """Builds instructions named after the state and what they hold: `h.z`, `h.decay`, `h.write`, …"""

    def __init__(self, builder: Builder, state: str, span: Span | None) -> None:
        self.builder = builder
        self.state = state
        self.span = span

    def map(self, what: str, fn: str, *args: str) -> str:
        return self.builder.map(fn, *args, hint=f"{self.state}.{what}", span=self.span)

    def const(self, value: float) -> str:
        return self.builder.const(value, hint=f"{self.state}.constant", span=self.span)

    def scaled(self, system: _System) -> str | None:
        """z = step A."""
        return None if system.matrix is None else self.map("z", "mul", system.step, system.matrix)

    def driven(self, system: _System) -> str | None:
        """step u."""
        return None if system.term is None else self.map("write", "mul", system.step, system.term)

    def exp(self, z: str | None) -> str | None:
        return None if z is None else self.map("decay", "exp", z)


def _zoh(emit: _Emit, system: _System) -> _Step:
    z = emit.scaled(system)
    return emit.exp(z), _held(emit, z, system), "exp(z)·{h} + step·phi1(z)·u"


def _held(emit: _Emit, z: str | None, system: _System) -> str | None:
    """step φ₁(z) u: the input held for one step."""
    write = emit.driven(system)
    return write if write is None or z is None else emit.map("write", "mul", emit.map("phi1", "phi1", z), write)


def _async(emit: _Emit, system: _System) -> _Step:
    z = emit.scaled(system)
    elapsed = None if z is None else emit.map("elapsed", "mul", system.settings[1], z)
    return emit.exp(elapsed), _held(emit, z, system), "exp(z·dt)·{h} + step·phi1(z)·u"


def _mamba(emit: _Emit, system: _System) -> _Step:
    return emit.exp(emit.scaled(system)), emit.driven(system), "exp(z)·{h} + step·u"


def _dirac(emit: _Emit, system: _System) -> _Step:
    return emit.exp(emit.scaled(system)), system.term, "exp(z)·{h} + u"


def _exp_trapezoid(emit: _Emit, system: _System) -> _Step:
    assert system.previous is not None
    decay, blend = emit.exp(emit.scaled(system)), system.settings[1]
    share = emit.map("late", "mul", emit.map("late", "sub", emit.const(1.0), blend), system.step)
    late = emit.map("late", "mul", share, system.previous)
    late = late if decay is None else emit.map("late", "mul", decay, late)
    now = emit.driven(system)
    write = late if now is None else emit.map("write", "add", emit.map("now", "mul", blend, now), late)
    return decay, write, "exp(z)·({h} + (1 - lambda)·step·u_before) + lambda·step·u"


def _gbt(emit: _Emit, system: _System, alpha: str) -> _Step:
    z, write = emit.scaled(system), emit.driven(system)
    formula = "((1 + (1 - alpha)·z)·{h} + step·u) / (1 - alpha·z)"
    if z is None:
        return None, write, formula
    one = emit.const(1.0)
    implicit = emit.map("implicit", "sub", one, emit.map("implicit", "mul", alpha, z))
    share = emit.map("explicit", "mul", emit.map("explicit", "sub", one, alpha), z)
    explicit = emit.map("explicit", "add", one, share)
    write = None if write is None else emit.map("write", "div", write, implicit)
    return emit.map("decay", "div", explicit, implicit), write, formula


def _bilinear(emit: _Emit, system: _System) -> _Step:
    decay, write, _ = _gbt(emit, system, emit.const(0.5))
    return decay, write, "((1 + z/2)·{h} + step·u) / (1 - z/2)"


def _euler(emit: _Emit, system: _System) -> _Step:
    z = emit.scaled(system)
    decay = None if z is None else emit.map("decay", "add", emit.const(1.0), z)
    return decay, emit.driven(system), "(1 + z)·{h} + step·u"


def _backward_euler(emit: _Emit, system: _System) -> _Step:
    z, write, formula = emit.scaled(system), emit.driven(system), "({h} + step·u) / (1 - z)"
    if z is None:
        return None, write, formula
    one = emit.const(1.0)
    implicit = emit.map("implicit", "sub", one, z)
    write = None if write is None else emit.map("write", "div", write, implicit)
    return emit.map("decay", "div", one, implicit), write, formula


RULES: dict[str, Callable[[_Emit, _System], _Step]] = {
    "zoh": _zoh,
    "bilinear": _bilinear,
    "gbt": lambda emit, system: _gbt(emit, system, system.settings[1]),
    "euler": _euler,
    "backward_euler": _backward_euler,
    "exp_trapezoid": _exp_trapezoid,
    "mamba": _mamba,
    "dirac": _dirac,
    "async": _async,
}


def _remark(op: Ode, matrix: str | None, term: str | None, formula: str) -> str:
    z = f"z = step·A, A what multiplies {op.state}" if matrix else f"z = 0, since nothing multiplies {op.state}"
    u = "u the rest" if term else "u = 0"
    return f"{op.state} by {op.rule}: {formula.format(h=op.state)}, with {z}, and {u}"


DISCRETIZE = Pass(
    "discretize",
    Level.CORE,
    Level.DISCRETE,
    "Replaces each `d/dt` by one step of its rule, in forms that keep their digits near step·A = 0.",
    run,
)
