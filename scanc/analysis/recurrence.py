"""The class of a stage: its place in the lattice of recurrences (theory, section 1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from scanc.analysis.affine import Affine, Form, Term, Top, affine_forms
from scanc.analysis.dependence import Varies, varies
from scanc.analysis.elementwise import extract
from scanc.analysis.mixing import mixed_axes
from scanc.analysis.products import Expansion, algebra, rank
from scanc.analysis.sign import UNIT, Bounds, Interval, bounds
from scanc.analysis.structure import Rank, Transition, diagonal_axes, is_elementwise, structure
from scanc.diagnostics.span import Span
from scanc.ir.build import Builder
from scanc.ir.nodes import Contract, Instr, Kind, Map, Program, Reduce
from scanc.ir.rewrite import live

WriteKind = Literal["none", "elementwise", "outer product"]
Growth = Literal["none", "bounded", "possible"]

_SEMIRING_WORDS = {"log": "logaddexp", "maxplus": "max-plus", "minplus": "min-plus", "bool": "boolean"}


@dataclass(frozen=True)
class Write:
    """What is added to the state: an outer product of `rank` has a factor per axis of `axes`."""

    kind: WriteKind
    axes: tuple[str, ...] = ()
    rank: Rank | None = None


@dataclass(frozen=True)
class Blame:
    """What makes a body nonlinear: the value, where it stands in the spec, and why, in a sentence fragment."""

    value: str
    reason: str
    span: Span | None


@dataclass(frozen=True)
class RecurrenceClass:
    """The class of one stage.

    `acts`: the non-batch state axes that the transition varies on or mixes.  `separable`: each factor of a
    diagonal transition varies on one state axis at most, so that a matrix product can be made of it.
    `growth`: whether |decay| may exceed one.  `reads`: the state axes over which every read-out contracts, None
    if the state itself escapes.  `mixes`: of a nonlinear body, the axes along which its Jacobian is not diagonal.
    """

    states: tuple[str, ...]
    semiring: str
    transition: Transition
    acts: tuple[str, ...] = ()
    rank: Rank | None = None
    separable: bool = False
    write: Write = Write("none")
    varies: Varies = Varies.CONST
    growth: Growth = "possible"
    reads: tuple[str, ...] | None = None
    mixes: tuple[str, ...] = ()
    blame: Blame | None = None

    @property
    def time_invariant(self) -> bool:
        """Whether the transition is the same at every time step."""
        return self.transition != "nonlinear" and self.varies <= Varies.PARAM

    @property
    def elementwise(self) -> bool:
        """Whether it is a scan: every element of one state goes its own affine way."""
        return len(self.states) == 1 and self.transition in ("identity", "scalar", "diagonal")

    @property
    def label(self) -> str:
        """The class in a word or two."""
        if self.transition in ("nonlinear", "delay"):
            return self.transition
        if self.elementwise and self.separable and self.write.kind == "outer product":
            return "outer product"
        if self.time_invariant and self.transition in ("scalar", "diagonal", "dplr", "dense"):
            return "time-invariant"
        return {"dplr": "DPLR", "shift": "delay"}.get(self.transition, self.transition)

    def summary(self) -> str:
        """Label and description, the label once."""
        described = self.describe()
        return described if described.startswith(self.label) else f"{self.label}: {described}"

    def describe(self) -> str:
        """The class in one line."""
        if self.transition == "delay":
            return "delay: the next value does not read the state"
        parts = [self._transition()]
        if self.semiring in _SEMIRING_WORDS:
            parts[0] += f" over {_SEMIRING_WORDS[self.semiring]}"
        if self.transition not in ("nonlinear", "shift", "identity"):
            parts.append("the same at every step" if self.time_invariant else "input-dependent")
        if self.elementwise and self.semiring == "real" and self.transition != "identity":
            parts.append(
                {"bounded": "|decay| ≤ 1", "possible": "growth possible", "none": "decay in [0, 1]"}[self.growth]
            )
        clauses = [", ".join(parts)]
        if self.transition != "nonlinear":
            clauses.append(self._write())
        if self.reads:
            clauses.append(f"read-out contracts {', '.join(self.reads)}")
        return "; ".join(clauses)

    def _transition(self) -> str:
        over = f" over {', '.join(self.acts)}" if self.acts else ""
        match self.transition:
            case "nonlinear":
                inner = f"its Jacobian mixes {', '.join(self.mixes)}" if self.mixes else "its Jacobian is diagonal"
                return f"nonlinear, {inner}"
            case "diagonal":
                return f"diagonal{over}" + ("" if self.separable else " (not separable)")
            case "dplr":
                return f"diagonal plus rank {self.rank}{over}"
            case "dense":
                return f"dense{over}" if len(self.states) == 1 else f"dense between {', '.join(self.states)}"
            case _:
                return f"{self.transition}{over}"

    def _write(self) -> str:
        match self.write.kind:
            case "none":
                return "writes nothing"
            case "elementwise":
                return "writes elementwise"
            case _:
                times = (
                    "an outer product" if str(self.write.rank) == "1" else f"outer products of rank {self.write.rank}"
                )
                return f"writes {times} over ({'; '.join(self.write.axes)})"


@dataclass(frozen=True)
class Facts:
    """What several stages of one program share: computed once by `facts`."""

    program: Program
    defs: Mapping[str, Instr]
    varies: Mapping[str, Varies]
    bounds: Mapping[str, Bounds]
    batch: frozenset[str]


def facts(program: Program) -> Facts:
    """What the analyses of a program need to know of it, found once."""
    return Facts(
        program,
        {instr.name: instr for instr in program.instrs},
        varies(program),
        bounds(program.instrs, program.types),
        frozenset(axis.name for axis in program.axes if axis.batch),
    )


def recurrence(known: Facts, states: tuple[str, ...]) -> RecurrenceClass:
    """The class of the stage of `states`: a strongly connected component of the state graph."""
    program = known.program
    next_of = program.next_of
    following = [next_of[state] for state in states]
    body = live(program.instrs, following)
    reads = _read_axes(known, states)
    first: Top | None = None
    for semiring in _candidates(program, states):
        forms = affine_forms(body, states, program.types, semiring)
        heads = [forms.get(value) for value in following]
        broken = next((head for head in heads if isinstance(head, Top)), None)
        if broken is None:
            return _affine_class(known, states, semiring, heads, reads)
        first = first or broken
    assert first is not None
    mixes = frozenset[str]().union(*(mixed_axes(body, states, value, program.types) for value in following))
    return RecurrenceClass(
        states, program.semiring, "nonlinear", varies=Varies.STATE, reads=reads, mixes=program.canonical(mixes),
        blame=Blame(first.value, first.reason, first.span),
    )  # fmt: skip


def _candidates(program: Program, states: tuple[str, ...]) -> tuple[str, ...]:
    """The semirings to try: the program's own first."""
    kinds = {program.types[state].kind for state in states}
    if kinds == {Kind.BOOL}:
        return ("bool",)
    if Kind.COMPLEX in kinds:
        return ("real",)
    return tuple(dict.fromkeys((program.semiring, "real", "maxplus", "minplus", "log")))


def _affine_class(
    known: Facts, states: tuple[str, ...], semiring: str, heads: list[Form | None], reads: tuple[str, ...] | None
) -> RecurrenceClass:
    program = known.program
    affine = [head for head in heads if isinstance(head, Affine)]
    everything = [term for head in affine for term in head.terms or ()]
    linear = [term for term in everything if term.symbol is not None]
    whole = all(head.terms is not None for head in affine)
    axes = program.types[states[0]].axes
    varying = max((known.varies.get(f.value, Varies.CONST) for t in linear for f in t.factors), default=Varies.CONST)
    if not whole:
        varying = Varies.INPUT
    if len(states) > 1:
        acts = tuple(a for a in axes if a not in known.batch and any(_acts(term, a) for term in linear))
        return RecurrenceClass(states, semiring, "dense", acts, varies=varying, write=Write("elementwise"), reads=reads)
    if not affine:
        return RecurrenceClass(states, semiring, "delay", write=Write("elementwise"), growth="none", reads=reads)
    shape = structure(tuple(linear) if whole else None, axes, known.batch)
    return RecurrenceClass(
        states, semiring, shape.transition, shape.acts, shape.rank,
        separable=_separable(known, tuple(linear), semiring, axes) if whole else False,
        write=_write(known, affine[0].rest, semiring, axes) if whole else Write("elementwise"),
        varies=varying,
        growth=_growth(known, states[0], semiring, shape.transition),
        reads=reads,
    )  # fmt: skip


def _acts(term: Term, axis: str) -> bool:
    return axis in diagonal_axes(term) or term.labels().get(axis) != dict(term.reads).get(axis)


def _separable(known: Facts, linear: tuple[Term, ...], semiring: str, axes: tuple[str, ...]) -> bool:
    """Whether the diagonal part is a product of factors on one axis each, or a sum on one axis in all."""
    free = frozenset(axes) - known.batch
    expansion = Expansion(known.defs, known.program.types)
    kept = [term for term in linear if is_elementwise(term)]
    products = [product for term in kept for product in expansion.term(term, free, algebra(semiring))]
    if len(products) <= 1:
        return all(product.separable for product in products)
    return len({axis for product in products for leaf in product.leaves for axis in leaf.axes}) <= 1


def _write(known: Facts, rest: tuple[Term, ...], semiring: str, axes: tuple[str, ...]) -> Write:
    if not rest:
        return Write("none")
    free = tuple(axis for axis in axes if axis not in known.batch)
    expansion = Expansion(known.defs, known.program.types)
    products = tuple(p for term in rest for p in expansion.term(term, frozenset(free), algebra(semiring)))
    sliced = any(factor.role == "at" for term in rest for factor in term.factors)
    if len(free) < 2 or sliced or not all(product.separable for product in products):
        return Write("elementwise")
    return Write("outer product", free, rank(products, free))


def _growth(known: Facts, state: str, semiring: str, transition: Transition) -> Growth:
    """Whether the decay, where it is elementwise, may exceed one in absolute value."""
    if transition == "identity":
        return "none"
    if transition not in ("scalar", "diagonal"):
        return "possible"
    program = known.program
    value = program.next_of[state]
    builder = Builder.extending(program)
    taken = extract(live(program.instrs, [value]), state, value, builder, semiring)
    if taken is None or taken.decay is None:
        return "possible"
    decay = bounds(builder.take(), builder.types, known.bounds).get(taken.decay, Bounds())
    if semiring != "real":
        return "none" if decay.real.high <= 0 else "possible"
    real = builder.types[taken.decay].kind is not Kind.COMPLEX
    if real and decay.real in UNIT:
        return "none"
    return "bounded" if decay.size in Interval(0.0, 1.0) else "possible"


def _read_axes(known: Facts, states: tuple[str, ...]) -> tuple[str, ...] | None:
    """The state axes that everything behind the stage contracts before it uses the state; None if some does not."""
    program = known.program
    following = {program.next_of[state] for state in states}
    inside = {instr.name for instr in live(program.instrs, following)}
    leaving = {o.value for o in (*program.outputs, *program.totals)}
    carried = set(states) | following
    contracted: list[frozenset[str]] = []
    if carried & leaving:
        return None
    axes = set(program.types[states[0]].axes)
    for instr in program.instrs:
        if instr.name in inside or not carried.intersection(instr.args):
            continue
        match instr.op:
            case Contract(_, over) | Reduce(_, over) if axes & set(over):
                contracted.append(frozenset(axes & set(over)))
            case Map() if instr.name not in leaving:
                carried.add(instr.name)
            case _:
                return None
    others = {value for state, value in program.next if state not in states}
    if carried & others or not contracted:
        return None
    return program.canonical(frozenset[str]().union(*contracted))
