"""discretize: `d/dt h = A h + u` becomes one step, by the rule that the spec names (theory, section 4).

A acts on each element by itself, or along one axis of the state: then its exponential, φ₁ and inverse are those of
matrices, as instructions of the IR.
"""

from __future__ import annotations

from dataclasses import replace

from scanc.analysis.affine import Top, affine_forms
from scanc.analysis.elementwise import extract
from scanc.analysis.mixing import first_mixing, mixed_axes
from scanc.diagnostics.diagnostic import CompileError, fault
from scanc.diagnostics.span import Span
from scanc.ir.build import Builder
from scanc.ir.nodes import Instr, Kind, Level, Ode, Program, State
from scanc.ir.rewrite import rewrite
from scanc.passes.base import Pass, Remark, Rewrite
from scanc.passes.coupled import extract_matrix
from scanc.passes.rules import PRODUCTS, RULES, Algebra, Dense, Diagonal, System


def run(program: Program) -> Rewrite:
    program, coupled = _with_columns(program)
    rule = _Discretization(program, coupled)
    result = rewrite(program, rule)
    result = replace(
        result,
        level=Level.DISCRETE,
        states=(*result.states, *rule.states),
        next=(*result.next, *rule.next),
    )
    return result, tuple(rule.remarks)


def _with_columns(program: Program) -> tuple[Program, dict[str, tuple[str, ...]]]:
    """The program with axes for the columns of the matrices, and by ODE the axes of its matrix: rows, columns, …"""
    instrs, types = tuple(program.instrs), program.types
    coupled: dict[str, tuple[str, ...]] = {}
    for instr in instrs:
        if isinstance(instr.op, Ode):
            current, rhs, *_ = instr.args
            mixed = mixed_axes(instrs, [current], rhs, types)
            if len(mixed) == 1:
                (row,) = mixed
                program, columns = _columns(program, row, 2 if instr.op.rule in PRODUCTS else 1)
                coupled[instr.name] = (row, *columns)
    return program, coupled


def _columns(program: Program, row: str, count: int) -> tuple[Program, list[str]]:
    """The program with so many more axes of the size of `row`, and their names."""
    axis, taken = program.axis(row), {axis.name for axis in program.axes}
    like = axis.like or row
    wishes = (f"{like}_col", *(f"{like}_col_{n}" for n in range(2, len(taken) + count + 2)))
    names = [wish for wish in wishes if wish not in taken][:count]
    added = (replace(axis, name=name, like=like) for name in names)
    return replace(program, axes=(*program.axes, *added)), names


class _Discretization:
    """The rewrite rule for `Ode`; hidden states and remarks are collected on the way."""

    def __init__(self, program: Program, coupled: dict[str, tuple[str, ...]]) -> None:
        self.coupled = coupled
        self.params = frozenset(param.name for param in program.params)
        self.declared = {state.name: state for state in program.states}
        self.states: list[State] = []
        self.next: list[tuple[str, str]] = []
        self.remarks: list[Remark] = []

    def __call__(self, instr: Instr, builder: Builder) -> str | None:
        if not isinstance(instr.op, Ode):
            return None
        current, rhs, *settings = instr.args
        matrix, term, algebra = self._parts(builder, instr, current, rhs)
        system = System(current, rhs, matrix, term, settings)
        if instr.op.rule == "exp_trapezoid":
            system = replace(system, previous=self._carry(builder, instr, term))
        decay, write, formula = RULES[instr.op.rule](algebra, system)
        kept = current if decay is None else algebra.act("kept", decay, current)
        result = kept
        if write is not None:
            result = algebra.map("next", "add", kept, write)
        self.remarks.append(Remark("discretize", _remark(instr.op, system, algebra, formula), span=instr.span))
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

    def _parts(self, builder: Builder, instr: Instr, current: str, rhs: str) -> tuple[str | None, str | None, Algebra]:
        """What multiplies the state in the right side and its input term (None for 0), and what A is held as."""
        assert isinstance(instr.op, Ode)
        state, span, instrs = instr.op.state, instr.span, tuple(builder.instrs)
        diagonal = Diagonal(builder, state, span)
        form = affine_forms(instrs, [current], builder.types).get(rhs)
        if form is None:
            return None, rhs, diagonal
        if isinstance(form, Top):
            raise _not_affine(state, form, span)
        taken = extract(instrs, current, rhs, builder, stem=state)
        if taken is not None:
            matrix = builder.const(1.0, hint=f"{state}.one") if taken.decay is None else taken.decay
            return matrix, taken.write, diagonal
        if instr.name in self.coupled:
            axes = self.coupled[instr.name]
            found = extract_matrix(instrs, current, rhs, axes, builder, state)
            if found is not None:
                return found.matrix, found.write, Dense(builder, state, span, axes, self.params)
        place = first_mixing(instrs, [current], rhs, builder.types)
        mixed = mixed_axes(instrs, [current], rhs, builder.types)
        raise _coupled(state, builder.canonical(mixed), place.span if place else None, span)


def _not_affine(state: str, form: Top, span: Span | None) -> CompileError:
    return fault(
        "E0706",
        f"the right side of `d/dt {state}` is not affine in `{state}`",
        form.span or span,
        form.reason,
        secondary=[(span, "discretised here")] if form.span != span else [],
        hint=f"write `d/dt {state} = A*{state} + …` with A and the rest free of `{state}`, or a discrete step",
    )


def _coupled(state: str, axes: tuple[str, ...], place: Span | None, span: Span | None) -> CompileError:
    return fault(
        "E0707",
        f"the right side of `d/dt {state}` couples elements of `{state}` along {' and '.join(f'`{a}`' for a in axes)}",
        place or span,
        "A is a matrix over one axis of a state, and all other axes stand beside it",
        secondary=[(span, "discretised here")] if place != span else [],
        hint=f"couple `{state}` along one axis, or write the discrete step `{state} = …`",
    )


def _remark(op: Ode, system: System, algebra: Algebra, formula: str) -> str:
    what = f"the matrix along {algebra.rows} that multiplies" if isinstance(algebra, Dense) else "what multiplies"
    z = f"z = step·A, A {what} {op.state}" if system.matrix else f"z = 0, since nothing multiplies {op.state}"
    u = "u the rest" if system.term else "u = 0"
    return f"{op.state} by {op.rule}: {formula.format(h=op.state)}, with {z}, and {u}"


DISCRETIZE = Pass(
    "discretize",
    Level.CORE,
    Level.DISCRETE,
    "Replaces each `d/dt` by one step of its rule, in forms that keep their digits near step·A = 0.",
    run,
)
