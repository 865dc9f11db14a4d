"""Diagonal recurrences h_t = a_t ⊗ h_{t-1} ⊕ b_t over time, vectorised, in three orders of evaluation.

`SEQUENTIAL` takes one step after the other.  `CHUNKED` cuts time into n chunks of C steps and takes step j of
all chunks at once: once from a zero state, for what each chunk adds and multiplies by; then, from the carries,
once more for the states.  The carries are a recurrence over chunks, which is solved in the same way.
`PARALLEL` halves the sequence by combining neighbours, recursively, in log T rounds.

Decays may grow or vanish.  Where the product of the decays over a chunk is not finite though the states may be
(growth past the largest number, from a state of 0), the carry is computed step by step instead, so that a state is
finite wherever the sequential loop's is.  A product that underflows to 0 is taken as 0.

Shapes: states [B, *axes]; decay and write either [B, L, *axes] with 1 for an axis they lack, or without [B, L] if they
do not change over time; None stands for the semiring's one (decay) or zero (write).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import repeat
from math import isfinite
from typing import cast

import torch
from torch import Tensor

Term = Tensor | None
_WIDE = 16384  # states per step from which one step is work enough for a call
_SPREAD = 32768  # states up to which torch takes one thread for a call
_CALL, _STATE = 1.5, 2e-4  # microseconds of a call, and of a state in it
_BARRIER, _LEVEL = 8.0, 40.0  # microseconds of spreading a call over threads (more where they are busy), and of chunks


@dataclass(frozen=True)
class Algebra:
    """A semiring on tensors.

    `advance(decay, state, write, out)` writes decay ⊗ state ⊕ write; `times(a, b)` is a ⊗ b and `product(a, dim)`
    that of all slices along `dim`.  `may_overflow`: a product of finite decays need not be finite.
    """

    name: str
    advance: Callable[[Term, Tensor, Term, Tensor], object]
    times: Callable[[Tensor, Tensor], Tensor]
    product: Callable[[Tensor, int], Tensor]
    may_overflow: bool = False


def _advance_real(decay: Term, state: Tensor, write: Term, out: Tensor) -> object:
    if decay is None:
        return out.copy_(state) if write is None else torch.add(state, write, out=out)
    if write is None:
        return torch.mul(decay, state, out=out)
    return torch.addcmul(write, decay, state, out=out)


def _advance_by(plus: Callable[..., Tensor], times: Callable[..., Tensor]) -> Callable[..., object]:
    def advance(decay: Term, state: Tensor, write: Term, out: Tensor) -> object:
        kept = state if decay is None else times(decay, state)
        return out.copy_(kept) if write is None else plus(kept, write, out=out)

    return advance


REAL = Algebra("real", _advance_real, torch.mul, torch.prod, may_overflow=True)
LOG = Algebra("log", _advance_by(torch.logaddexp, torch.add), torch.add, torch.sum)
MAXPLUS = Algebra("maxplus", _advance_by(torch.maximum, torch.add), torch.add, torch.sum)
MINPLUS = Algebra("minplus", _advance_by(torch.minimum, torch.add), torch.add, torch.sum)
BOOL = Algebra("bool", _advance_by(torch.logical_or, torch.logical_and), torch.logical_and, torch.all)


@dataclass(frozen=True)
class Solver:
    """One order of evaluation.  `fill(algebra, decay, write, initial, out, reverse)` writes the states to `out`."""

    name: str
    fill: Callable[[Algebra, Term, Term, Tensor, Tensor, bool], None]

    def after(self, algebra: Algebra, decay: Term, write: Term, initial: Tensor, length: int, reverse: bool) -> Tensor:
        """The states behind each step, [B, L, *axes]."""
        out = initial.new_empty((initial.shape[0], length, *initial.shape[1:]))
        self._run(algebra, decay, write, initial, out, reverse)
        return out

    def path(self, algebra: Algebra, decay: Term, write: Term, initial: Tensor, length: int, reverse: bool) -> Tensor:
        """The initial state and those behind each step, [B, L + 1, *axes]; `reverse` has the initial state last."""
        out = initial.new_empty((initial.shape[0], length + 1, *initial.shape[1:]))
        out[:, length if reverse else 0] = initial
        self._run(algebra, decay, write, initial, afters(out, reverse), reverse)
        return out

    def sums(self, algebra: Algebra, decay: Term, added: Term, initial: Tensor, length: int, reverse: bool) -> Tensor:
        """h_{t-1} ⊕ w_t of a recurrence that writes before it decays, h_t = a_t ⊗ (h_{t-1} ⊕ w_t): [B, L, *axes].

        The sums are a recurrence of their own: each is the one before, decayed, and what is added now.
        """
        out = initial.new_empty((initial.shape[0], length, *initial.shape[1:]))
        span, lead = _Span(length, reverse), initial.dim() + 1
        first, rest = slice(0, 1), slice(1, length)
        begin = span.of(out, first)
        _, now = span.cut((None, added), first, lead)
        algebra.advance(None, initial[:, None], None if now is None else now.to(initial.dtype), begin)
        if length > 1:
            earlier, _ = span.cut((decay, None), slice(0, length - 1), lead)
            _, later = span.cut((None, added), rest, lead)
            self._run(algebra, earlier, later, begin[:, 0], span.of(out, rest), reverse)
        return out

    def _run(self, algebra: Algebra, decay: Term, write: Term, initial: Tensor, out: Tensor, reverse: bool) -> None:
        decay, write = (term if term is None else term.to(initial.dtype) for term in (decay, write))
        if out.numel():
            self.fill(algebra, decay, write, initial, out, reverse)


def befores(path: Tensor, reverse: bool) -> Tensor:
    """The states before each step, from a path."""
    return path[:, 1:] if reverse else path[:, :-1]


def afters(path: Tensor, reverse: bool) -> Tensor:
    """The states behind each step, from a path."""
    return path[:, :-1] if reverse else path[:, 1:]


# --- one step after the other -----------------------------------------------------------------------------


def _sequential(algebra: Algebra, decay: Term, write: Term, initial: Tensor, out: Tensor, reverse: bool) -> None:
    lead = initial.dim() + 1
    _steps(algebra, _slices(decay, lead, reverse), _slices(write, lead, reverse), initial, _order(out, 1, reverse))


def _steps(
    algebra: Algebra, decays: Iterable[Term], writes: Iterable[Term], state: Tensor, outs: Sequence[Tensor]
) -> None:
    advance = algebra.advance
    for decay, write, out in zip(decays, writes, outs, strict=False):
        advance(decay, state, write, out)
        state = out


def _order(x: Tensor, dim: int, reverse: bool) -> Sequence[Tensor]:
    """The slices along `dim` in the order in which time runs."""
    slices = x.unbind(dim)
    return slices[::-1] if reverse else slices


def _slices(term: Term, lead: int, reverse: bool, dim: int = 1) -> Iterable[Term]:
    """A term step by step; one that does not change (fewer than `lead` dimensions) again and again."""
    return repeat(term) if term is None or term.dim() < lead else _order(term, dim, reverse)


# --- chunked ------------------------------------------------------------------------------------------------


def chunk_length(length: int, width: int) -> int:
    """Steps per chunk for `width` states a step; all steps where taking them one by one is cheapest."""
    return _plan(length, width)[1]


@lru_cache(4096)
def _plan(length: int, width: int) -> tuple[float, int]:
    """What a scan costs, and its chunk length.  Chunks take every step twice; their carries are a scan of their own."""
    best = (length * _call(width), length)
    size = 4
    while width < _WIDE and 2 * size <= length:
        count, rest = divmod(length, size)
        cost = _LEVEL + 2 * (size + 2) * _call(count * width) + rest * _call(width) + _plan(count - 1, width)[0]
        best = min(best, (cost, size))
        size *= 2
    return best


def _call(states: int) -> float:
    """Microseconds of a step of so many states."""
    return _CALL + _STATE * states if states <= _SPREAD else _CALL + _BARRIER + _STATE * states / 2


def _chunked(
    algebra: Algebra, decay: Term, write: Term, initial: Tensor, out: Tensor, reverse: bool, steps: int | None = None
) -> None:
    length = out.shape[1]
    size = steps or chunk_length(length, initial.numel())
    count = length // size
    if count < 2:
        _sequential(algebra, decay, write, initial, out, reverse)
        return
    span, lead = _Span(length, reverse), initial.dim() + 1
    chunks = _Chunks(algebra, span, lead, size, count)
    carries = chunks.carries(decay, write, initial)
    chunks.apply(decay, write, carries, out)
    if count * size < length:
        rest = slice(count * size, length)
        decay, write = span.cut((decay, write), rest, lead)
        last = span.take(out, count * size - 1)
        _sequential(algebra, decay, write, last, span.of(out, rest), reverse)


@dataclass(frozen=True)
class _Span:
    """Time steps counted in the order in which they are taken."""

    length: int
    reverse: bool

    def take(self, x: Tensor, step: int) -> Tensor:
        return x[:, self.length - 1 - step if self.reverse else step]

    def of(self, x: Tensor, steps: slice) -> Tensor:
        """The steps start, start + step, … < stop; they lie in memory in memory's order."""
        start, stop, step = steps.start, steps.stop, steps.step or 1
        if not self.reverse:
            return x[:, start:stop:step]
        last = start + (stop - 1 - start) // step * step
        return x[:, self.length - 1 - last : self.length - start : step]

    def cut(self, terms: tuple[Term, Term], steps: slice, lead: int) -> tuple[Term, Term]:
        """Decay and write at these steps."""
        a, b = (term if term is None or term.dim() < lead else self.of(term, steps) for term in terms)
        return a, b


@dataclass(frozen=True)
class _Chunks:
    """`count` chunks of `size` steps, all taking their steps together."""

    algebra: Algebra
    span: _Span
    lead: int
    size: int
    count: int

    def folded(self, term: Tensor, chunks: int) -> Tensor:
        """The first `chunks` chunks of a term, [B, chunks, size, *axes]."""
        return self.span.of(term, slice(0, chunks * self.size)).unflatten(1, (-1, self.size))  # type: ignore[no-untyped-call, no-any-return]

    def steps(self, term: Term, chunks: int | None = None) -> Iterator[Term]:
        """Step by step the values of the first `chunks` chunks, [B, chunks, *axes]."""
        if term is None or term.dim() < self.lead:
            return iter(repeat(term, self.size))
        return iter(_order(self.folded(term, chunks or self.count), 2, self.span.reverse))

    def carries(self, decay: Term, write: Term, initial: Tensor) -> Tensor:
        """The state before each chunk, [B, n, *axes] in memory's order: a recurrence over chunks."""
        product, added = self._product(decay), self._added(decay, write, initial)
        carries = initial.new_empty((initial.shape[0], self.count, *initial.shape[1:]))
        over = _Span(self.count, self.span.reverse)
        over.take(carries, 0).copy_(initial)
        if self._finite(product):
            _chunked(self.algebra, product, added, initial, over.of(carries, slice(1, self.count)), over.reverse)
        else:
            assert product is not None
            self._exact(product, added, decay, write, _order(carries, 1, over.reverse))
        return carries

    def _product(self, decay: Term) -> Term:
        """What each chunk but the last multiplies its carry by."""
        if decay is None:
            return None
        if decay.dim() < self.lead:
            return self.algebra.product(decay.expand(self.size, *decay.shape), 0)
        return self.algebra.product(self.folded(decay, self.count - 1), 2)

    def _added(self, decay: Term, write: Term, initial: Tensor) -> Term:
        """What each chunk but the last adds: its last state from a zero state."""
        if write is None:
            return None
        decays, writes = self.steps(decay, self.count - 1), self.steps(write, self.count - 1)
        next(decays)
        first = cast(Tensor, next(writes))
        state = first.expand(initial.shape[0], self.count - 1, *initial.shape[1:])
        out = (
            state.clone(memory_format=torch.contiguous_format)
            if self.size == 1
            else torch.empty_like(state, memory_format=torch.contiguous_format)
        )
        for a, b in zip(decays, writes, strict=True):
            self.algebra.advance(a, state, b, out)
            state = out
        return out

    def _finite(self, product: Term) -> bool:
        if product is None or not self.algebra.may_overflow:
            return True
        parts = torch.view_as_real(product) if product.is_complex() else product
        return all(isfinite(end) for end in map(float, torch.aminmax(parts)))

    def _exact(self, product: Tensor, added: Term, decay: Term, write: Term, carries: Sequence[Tensor]) -> None:
        """Carries from the first; where a chunk's product is not finite, its steps are taken one by one."""
        products = _slices(product, self.lead, self.span.reverse)
        terms = _slices(added, self.lead, self.span.reverse)
        for chunk, (a, b, before, after) in enumerate(zip(products, terms, carries, carries[1:], strict=False)):
            self.algebra.advance(a, before, b, after)
            finite = torch.isfinite(cast(Tensor, a))
            if not bool(finite.all()):
                after.copy_(torch.where(finite, after, self._last(decay, write, before, chunk)))

    def _last(self, decay: Term, write: Term, before: Tensor, chunk: int) -> Tensor:
        """The state behind one chunk, step by step."""
        steps = slice(chunk * self.size, (chunk + 1) * self.size)
        out = before.new_empty((before.shape[0], self.size, *before.shape[1:]))
        decay, write = self.span.cut((decay, write), steps, self.lead)
        _sequential(self.algebra, decay, write, before, out, self.span.reverse)
        return out[:, 0 if self.span.reverse else -1]

    def apply(self, decay: Term, write: Term, carries: Tensor, out: Tensor) -> None:
        """All states, from the carries."""
        outs = [step for step in self.steps(out) if step is not None]
        _steps(self.algebra, self.steps(decay), self.steps(write), carries, outs)


# --- parallel -----------------------------------------------------------------------------------------------


def _parallel(algebra: Algebra, decay: Term, write: Term, initial: Tensor, out: Tensor, reverse: bool) -> None:
    unsafe: list[Tensor] = []
    _halve(algebra, decay, write, initial, out, reverse, unsafe)
    bad = [mask for mask in unsafe if bool(mask.any())]
    if bad:
        exact = torch.empty_like(out)
        _sequential(algebra, decay, write, initial, exact, reverse)
        for mask in bad:
            out.copy_(torch.where(mask, exact, out))


def _halve(
    algebra: Algebra, decay: Term, write: Term, initial: Tensor, out: Tensor, reverse: bool, unsafe: list[Tensor]
) -> None:
    """Solves for every second step over pairs of steps, then fills in the others.

    Adds to `unsafe` where (broadcast against [B, L, *axes]) a product of decays is not finite.
    """
    length = out.shape[1]
    span, lead = _Span(length, reverse), initial.dim() + 1
    if length == 1:
        _sequential(algebra, decay, write, initial, out, reverse)
        return
    firsts, seconds = slice(0, length // 2 * 2, 2), slice(1, length, 2)
    a1, b1 = span.cut((decay, write), firsts, lead)
    a2, b2 = span.cut((decay, write), seconds, lead)
    both = None if a1 is None or a2 is None else algebra.times(a1, a2)
    if both is not None and algebra.may_overflow:
        lost = ~torch.isfinite(both)
        unsafe.append(lost.any(1, keepdim=True) if both.dim() >= lead else lost)
    pair = None
    if b1 is not None and b2 is not None:
        shape = (initial.shape[0], length // 2, *initial.shape[1:])
        pair = initial.new_empty(shape)
        algebra.advance(a2, b1.expand(shape), b2, pair)
    _halve(algebra, both, pair, initial, span.of(out, seconds), reverse, unsafe)

    first, rest = slice(0, 1), slice(2, length, 2)
    _sequential(algebra, *span.cut((decay, write), first, lead), initial, span.of(out, first), reverse)
    if length > 2:
        decay, write = span.cut((decay, write), rest, lead)
        algebra.advance(decay, span.of(out, slice(1, length - 1, 2)), write, span.of(out, rest))


SEQUENTIAL = Solver("recurrent", _sequential)
CHUNKED = Solver("chunked", _chunked)
PARALLEL = Solver("parallel", _parallel)


def chunks_of(steps: int) -> Solver:
    """`CHUNKED` with chunks of so many steps."""
    return Solver("chunked", partial(_chunked, steps=steps))
