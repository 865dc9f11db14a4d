"""The affine normal form: each value as a sum of products over given symbols, found by abstract interpretation.

For symbols (usually the states of one stage, as they were before the step) and a semiring, a value is
`⊕ L_s ⊗ s ⊕ r` with every `L_s` a sum of unmultiplied products of state-free values, or `Top` with
the instruction that makes it nonlinear.  Indices are *labels*: a factor that shares a label with the
result but not with the symbol acts on the output side, and a label of neither is summed over.
So the structure of an operator (diagonal, low rank, dense) can be read off without computing anything.

In the real semiring `conj`, `real` and `imag` of a complex symbol are only real-linear and count as
nonlinear.  `stop` is the identity here: the analysis is of values, not of gradients.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from scanc.diagnostics.span import Span
from scanc.ir.functions import SEMIRINGS
from scanc.ir.nodes import (
    Broadcast,
    Contract,
    Index,
    Instr,
    Kind,
    Map,
    Ode,
    Reduce,
    Rename,
    Stack,
    TensorType,
)

Role = Literal["value", "reciprocal", "if", "unless", "at", "count"]
Labels = tuple[tuple[str, int], ...]  # (axis, label), in no order that means anything

TERM_LIMIT = 256  # beyond it a form stays affine but its structure is not kept


@dataclass(frozen=True)
class Factor:
    """One state-free value in a product.

    `reciprocal`: its ⊗-inverse.  `if`, `unless`: the semiring's one where the value (a bool) is true, or
    false, and its zero elsewhere.  `at`: one where the single label has `position`, no value.  `count`: as many
    ones, added, as the label has positions: what a sum over a broadcast axis leaves.
    """

    value: str
    labels: Labels
    role: Role = "value"
    position: int = 0


@dataclass(frozen=True)
class Term:
    """A product: `factors` ⊗ symbol, minus signs in `negative`; `symbol` None for a state-free term."""

    symbol: str | None
    reads: Labels
    out: Labels
    factors: tuple[Factor, ...] = ()
    negative: bool = False

    def labels(self) -> dict[str, int]:
        """The label of each axis that the product has."""
        return dict(self.out)


@dataclass(frozen=True)
class Affine:
    """A sum of terms; `terms` is None where there were too many to keep."""

    terms: tuple[Term, ...] | None

    def reads(self, symbol: str) -> tuple[Term, ...]:
        """The terms that are linear in one symbol."""
        return tuple(term for term in self.terms or () if term.symbol == symbol)

    @property
    def rest(self) -> tuple[Term, ...]:
        """The terms that read no symbol."""
        return tuple(term for term in self.terms or () if term.symbol is None)


@dataclass(frozen=True)
class Top:
    """Not affine: the value that broke it and the reason, a sentence fragment about that value."""

    value: str
    reason: str
    span: Span | None = None


Form = Affine | Top


def affine_forms(
    instrs: Iterable[Instr],
    symbols: Iterable[str],
    types: Mapping[str, TensorType],
    semiring: str = "real",
    taken: Callable[[Instr, Form], bool] = lambda instr, form: False,
) -> dict[str, Form]:
    """The normal form of every value that depends on a symbol; a value that is absent is free of them.

    A value that is `taken` counts as free of them for whatever reads it, and is absent too.
    """
    analysis = _Analysis(types, semiring)
    for symbol in symbols:
        labels = analysis.labels(types[symbol].axes)
        analysis.forms[symbol] = Affine((Term(symbol, labels, labels),))
    for instr in instrs:
        if any(arg in analysis.forms for arg in instr.args) and instr.name not in analysis.forms:
            form = analysis.form(instr)
            if not taken(instr, form):
                analysis.forms[instr.name] = form
    return analysis.forms


_Change = Callable[[Term], Iterable[Term]]
_PLUS = {sr: rules.plus for sr, rules in SEMIRINGS.items()}
_TIMES = {sr: rules.times for sr, rules in SEMIRINGS.items()}
_INVERSE = {"real": "div", "log": "sub", "maxplus": "sub", "minplus": "sub"}
_PLUS_ONE = {"maxplus": "relu", "log": "softplus"}  # x ⊕ one: max(x, 0), log(exp x + 1)
_SAME = ("stop", "to_real", "to_complex")
_REAL_LINEAR = ("conj", "real", "imag")


class _Analysis:
    def __init__(self, types: Mapping[str, TensorType], semiring: str) -> None:
        self.types = types
        self.semiring = semiring
        self.forms: dict[str, Form] = {}
        self._label = itertools.count()

    def labels(self, axes: Iterable[str]) -> Labels:
        return tuple((axis, next(self._label)) for axis in axes)

    # --- one instruction ---

    def form(self, instr: Instr) -> Form:
        for arg in instr.args:
            if isinstance(blamed := self.forms.get(arg), Top):
                return blamed
        outcome = self._apply(instr)
        if isinstance(outcome, str):
            return Top(instr.name, outcome, instr.span)
        terms = None if outcome is None else tuple(outcome)
        return Affine(terms if terms is not None and len(terms) <= TERM_LIMIT else None)

    def _apply(self, instr: Instr) -> Iterable[Term] | str | None:
        """The terms of the result, None if they are not known one by one, or why it is not affine."""
        match instr.op:
            case Map(fn):
                return self._map(fn, instr)
            case Reduce(fn, axes):
                if fn != SEMIRINGS[self.semiring].reduce:
                    return f"`{fn}` of a value that depends on the state is not linear"
                return self._each(instr.args[0], lambda t: (_summed(t, axes),))
            case Contract(semiring, axes):
                if semiring != self.semiring:
                    return f"a contraction over `{semiring}` is not linear over `{self.semiring}`"
                return self._product(instr, axes)
            case Rename(pairs):
                moved = dict(pairs)
                return self._each(
                    instr.args[0], lambda t: (replace(t, out=tuple((moved.get(a, a), n) for a, n in t.out)),)
                )
            case Broadcast():
                return self._each(instr.args[0], lambda t: (self._widen(t, instr.type.axes),))
            case Index(axis, position):
                return self._each(instr.args[0], lambda t: _at(t, axis, position))
            case Stack(axis):
                return self._stack(instr, axis)
            case Ode():
                return "continuous time must be discretised first"
            case _:
                return "this operation on a value that depends on the state is not linear"

    def _map(self, fn: str, instr: Instr) -> Iterable[Term] | str | None:
        args, axes = instr.args, instr.type.axes
        held = [arg for arg in args if arg in self.forms]
        if fn == _PLUS[self.semiring]:
            return self._sum(instr, [(arg, False) for arg in args])
        if fn == _TIMES[self.semiring]:
            return self._product(instr, ())
        if fn == _INVERSE.get(self.semiring):
            if self.semiring == "real" and args[1] in self.forms:
                return "a division by a value that depends on the state"
            if args[1] in self.forms:
                return "the difference from a value that depends on the state"
            return self._product(instr, (), "reciprocal")
        if fn == "sub":  # real, bool
            return self._sum(instr, [(args[0], False), (args[1], True)]) if self.semiring == "real" else _nonlinear(fn)
        if fn == "neg" and self.semiring == "real":
            return self._sum(instr, [(args[0], True)])
        if fn == _PLUS_ONE.get(self.semiring):
            terms = self._each(args[0], lambda t: (t,))
            return None if terms is None else (*terms, Term(None, (), self.labels(axes)))
        if fn in _SAME or (fn in ("conj", "real") and self.types[args[0]].kind is not Kind.COMPLEX):
            return self._each(args[0], lambda t: (t,))
        if fn in _REAL_LINEAR:
            return f"`{fn}` of a complex value that depends on the state is linear only over the reals"
        if fn == "where":
            if args[0] in self.forms:
                return "the condition depends on the state"
            branches = [self._masked(args[1], args[0], "if", axes), self._masked(args[2], args[0], "unless", axes)]
            return None if None in branches else (term for branch in branches for term in branch or ())
        if len(held) > 1:
            return f"`{fn}` of two values that depend on the state"
        return _nonlinear(fn)

    # --- sums and products ---

    def _terms(self, value: str) -> tuple[Term, ...] | None:
        form = self.forms.get(value)
        if isinstance(form, Affine):
            return form.terms
        labels = self.labels(self.types[value].axes)
        return (Term(None, (), labels, (Factor(value, labels),)),)

    def _each(self, value: str, change: _Change) -> tuple[Term, ...] | None:
        terms = self._terms(value)
        return None if terms is None else tuple(new for term in terms for new in change(term))

    def _sum(self, instr: Instr, signed: list[tuple[str, bool]]) -> Iterable[Term] | None:
        parts: list[Term] = []
        for value, minus in signed:
            terms = self._terms(value)
            if terms is None:
                return None
            parts += [self._widen(replace(t, negative=t.negative ^ minus), instr.type.axes) for t in terms]
        return parts

    def _product(self, instr: Instr, contracted: tuple[str, ...], role: Role = "value") -> Iterable[Term] | str | None:
        a, b = instr.args
        if a in self.forms and b in self.forms:
            return (
                "the product of two values that depend on the state"
                if self.semiring == "real"
                else (f"over `{self.semiring}`, the sum of two values that depend on the state is a product")
            )
        bound, free = (a, b) if a in self.forms else (b, a)
        free_axes = self.types[free].axes
        axes = (*instr.type.axes, *contracted)
        return self._each(bound, lambda t: (_without(_times(self._widen(t, axes), free, free_axes, role), contracted),))

    def _masked(self, value: str, mask: str, role: Role, axes: tuple[str, ...]) -> tuple[Term, ...] | None:
        mask_axes = self.types[mask].axes
        return self._each(value, lambda t: (_times(self._widen(t, axes), mask, mask_axes, role),))

    def _widen(self, term: Term, axes: Iterable[str]) -> Term:
        """The term with at least the given axes: what it lacks is broadcast, a label without a factor."""
        there = {axis for axis, _ in term.out}
        return replace(term, out=term.out + self.labels(axis for axis in dict.fromkeys(axes) if axis not in there))

    def _stack(self, instr: Instr, axis: str) -> Iterable[Term] | None:
        parts: list[Term] = []
        for position, value in enumerate(instr.args):
            terms = self._terms(value)
            if terms is None:
                return None
            parts += [self._place(term, axis, position) for term in terms]
        return parts

    def _place(self, term: Term, axis: str, position: int) -> Term:
        """The term laid at `position` of a new axis.

        A slice put back where it was taken from lies on the diagonal: e_p(o) e_p(i) = δ(o, i) e_p(i).
        """
        for source, label in term.reads:
            on = [f for f in term.factors if any(n == label for _, n in f.labels)]
            if source == axis and [(f.role, f.position) for f in on] == [("at", position)]:
                return replace(term, out=(*term.out, (axis, label)))
        (placed,) = self.labels((axis,))
        at = Factor("", (placed,), "at", position)
        return replace(term, out=(*term.out, placed), factors=(*term.factors, at))


def _nonlinear(fn: str) -> str:
    return f"`{fn}` of a value that depends on the state is not linear"


def _times(term: Term, value: str, axes: Iterable[str], role: Role) -> Term:
    labels = term.labels()
    return replace(term, factors=(*term.factors, Factor(value, tuple((a, labels[a]) for a in axes), role)))


def _without(term: Term, axes: Iterable[str]) -> Term:
    gone = set(axes)
    return replace(term, out=tuple((a, n) for a, n in term.out if a not in gone))


def _summed(term: Term, axes: Iterable[str]) -> Term:
    labels = term.labels()
    held = {n for f in term.factors for _, n in f.labels} | {n for _, n in term.reads}
    counts = tuple(Factor("", ((a, labels[a]),), "count") for a in axes if labels[a] not in held)
    return _without(replace(term, factors=term.factors + counts), axes)


def _at(term: Term, axis: str, position: int) -> Iterator[Term]:
    """The slice at `position`; nothing of a term that lies at another one."""
    label = term.labels()[axis]
    here = [f.position for f in term.factors if f.role == "at" and f.labels[0][1] == label]
    if any(p != position for p in here):
        return
    sliced = _without(term, (axis,))
    if not here:
        sliced = replace(sliced, factors=(*sliced.factors, Factor("", ((axis, label),), "at", position)))
    yield sliced
