"""Diagonal recurrences h_t = a_t ⊗ h_{t-1} ⊕ b_t over time, vectorised, in three orders of evaluation.

`SEQUENTIAL` takes one step after the other.  `CHUNKED` cuts time into n chunks of C steps and takes step j of
all chunks at once: once from a zero state, for what each chunk adds and multiplies by; then, from the carries that
a short loop over chunks gives, once more for the states.  `PARALLEL` halves the sequence by combining
neighbours, recursively, in log T rounds.

Decays may grow or vanish.  Where the product of the decays over a chunk is not finite though the states may be
(growth past the largest number, from a state of 0), the carry is computed step by step instead, so that a state is
finite wherever the sequential loop's is.  A product that underflows to 0 is taken as 0.

Shapes: states [B, *axes]; decay and write either [B, L, *axes] with 1 for an axis they lack, or without [B, L] if they
do not change over time; None stands for the semiring's one (decay) or zero (write).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from math import isqrt

import torch
from torch import Tensor

Term = Tensor | None
_WIDE = 16384  # states per step from which one step is work enough for a call
_CACHED = 1 << 16  # states of a call, of which a core's cache holds four tensors


@dataclass(frozen=True)
class Algebra:
    """A semiring on tensors.

    `advance(decay, state, write, out)` writes decay ⊗ state ⊕ write; `times(a, b, out=…)` is a ⊗ b.  `may_overflow`: a
    product of finite decays need not be finite.
    """

    name: str
    advance: Callable[[Term, Tensor, Term, Tensor], object]
    times: Callable[..., Tensor]
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


REAL = Algebra("real", _advance_real, torch.mul, may_overflow=True)
LOG = Algebra("log", _advance_by(torch.logaddexp, torch.add), torch.add)
MAXPLUS = Algebra("maxplus", _advance_by(torch.maximum, torch.add), torch.add)
MINPLUS = Algebra("minplus", _advance_by(torch.minimum, torch.add), torch.add)
BOOL = Algebra("bool", _advance_by(torch.logical_or, torch.logical_and), torch.logical_and)


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
    """Steps per chunk for `width` states a step; all steps where one step is work enough.

    Of the lengths whose calls stay in a core's cache, the one that takes the fewest calls.
    """
    if width >= _WIDE or length < 12:
        return length
    least = max(2, -(-length * width // _CACHED))
    return min(range(least, max(least, isqrt(length)) + 2), key=lambda c: (3 * c + length // c + length % c, c))


def _chunked(
    algebra: Algebra, decay: Term, write: Term, initial: Tensor, out: Tensor, reverse: bool, steps: int | None = None
) -> None:
    length = out.shape[1]
    size = steps or chunk_length(length, initial.numel())
    count = length // size
    if count < 2:
        _sequential(algebra, decay, write, initial, out, reverse)
        return
    lead = initial.dim() + 1
    span = _Span(length, reverse)
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

    def steps(self, term: Term, chunks: int | None = None) -> Iterator[Term]:
        """Step by step the values of the first `chunks` chunks, [B, chunks, *axes]."""
        if term is None or term.dim() < self.lead:
            return iter(repeat(term, self.size))
        folded = self.span.of(term, slice(0, (chunks or self.count) * self.size)).unflatten(1, (-1, self.size))  # type: ignore[no-untyped-call]
        return iter(_order(folded, 2, self.span.reverse))

    def carries(self, decay: Term, write: Term, initial: Tensor) -> Tensor:
        """The state before each chunk, [B, n, *axes] in memory's order."""
        decays, adds = self._whole(decay, write, initial)
        carries = initial.new_empty((initial.shape[0], self.count, *initial.shape[1:]))
        ordered = _order(carries, 1, self.span.reverse)
        ordered[0].copy_(initial)
        safe = self._safe(decays)
        products = _slices(decays, self.lead, self.span.reverse)
        terms = _slices(adds, self.lead, self.span.reverse)
        for chunk, (product, add, before, after) in enumerate(zip(products, terms, ordered, ordered[1:], strict=False)):
            self.algebra.advance(product, before, add, after)
            if not safe[chunk]:
                assert product is not None
                exact = self._last(decay, write, before, chunk)
                after.copy_(torch.where(torch.isfinite(product), after, exact))
        return carries

    def _whole(self, decay: Term, write: Term, initial: Tensor) -> tuple[Term, Term]:
        """What each chunk but the last multiplies its carry by, and what it adds: its last state from a zero state.

        Both in one walk over the steps, so that a step's decays are read from memory once.
        """
        decays, writes = self.steps(decay, self.count - 1), self.steps(write, self.count - 1)
        a, b = next(decays), next(writes)
        product = None if a is None else a.clone(memory_format=torch.contiguous_format)
        state = None
        if b is not None:
            shape = (initial.shape[0], self.count - 1, *initial.shape[1:])
            state = b.expand(shape).clone(memory_format=torch.contiguous_format)
        for a, b in zip(decays, writes, strict=True):
            if state is not None:
                self.algebra.advance(a, state, b, state)
            if product is not None:
                self.algebra.times(product, a, out=product)
        return product, state

    def _safe(self, product: Term) -> Sequence[bool]:
        """Whether each chunk's product may be used for all of its states."""
        if product is None or not self.algebra.may_overflow:
            return [True] * self.count
        finite = torch.isfinite(product)
        if bool(finite.all()):
            return [True] * self.count
        if product.dim() < self.lead:
            return [False] * self.count
        by_chunk: list[bool] = finite.transpose(0, 1).flatten(1).all(1).tolist()
        return by_chunk[::-1] if self.span.reverse else by_chunk

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
