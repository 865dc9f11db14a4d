"""Matrix-valued states S_t = D_t S_{t-1} + Σ x_t ⊗ y_t that are only read by contractions with queries.

No state between two steps is ever written down.  Time is cut into chunks: inside one, what step t recalls of the write
at s is a product of a query with a key times what decays between the two, for all pairs at once as matrix products; of
the steps before, it recalls from the state at the chunk's start (theory, sections 2 and 8; Dao and Gu, 2024,
arXiv:2405.21060, section 6).  The dual memory collects the cotangents of S from the last step to the first.

What decays within a chunk is exponentiated, never its inverse over more than a chunk: scalar decays by their sums over
each stretch, so that gates down to -inf are exact; decays of a row or column relative to the middle of a chunk's range.
Where that range is too wide, decays grow too fast, a tensor is not finite, or the matrix is so small that it is no more
than its keys and values, the states are written down after all, a block of steps at a time.

Shapes: a state is [B, *N, *R, *C], its batch axes, rows and columns.  Factors are [B, L, *N, *R] or [B, L, *N, *C] with
any of N of size 1, logarithms of decays these or [B, L, *N].  Inside this module tensors are [B, *N, n, steps, F]: n
chunks in walking order, the axes of one side flattened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scanc_runtime.scans import PARALLEL, REAL, SEQUENTIAL, Solver

ROWS, COLUMNS, BOTH = "rows", "columns", "both"
_CHUNKS, _SQUARE = (64, 16), 256
"""Steps of a chunk, fewer where decays are strong; and of one in the quadratic form."""
_SMALL = 256  # numbers of a matrix that is written down in any case
_BLOCK = 1 << 22  # numbers that are written down at once
_LEAST = 0.1  # of a decay by whose value a gradient is divided
_SPAN = {torch.float32: 60.0, torch.float64: 600.0}
"""Nats that the decays of one chunk may range over, so that factors relative to their middle are ordinary numbers."""


@dataclass(frozen=True)
class Decay:
    """A decay of each row, of each column, or of all: its logarithm, or the decay itself if `raw`."""

    over: str
    value: Tensor
    raw: bool = False


@dataclass(frozen=True)
class Write:
    """x ⊗ y; in a dual memory, `decayed`: what was recalled there had the decay of its own step."""

    rows: Tensor
    columns: Tensor
    decayed: bool = True


@dataclass(frozen=True)
class Walk:
    """The steps of a memory: `length` of them, from the last to the first if `backward`.

    `dual`: decays come after the write, and belong to the step that was walked before.  `tame`: chunks are evaluated by
    products of pairs; else states are written down, by `solver`.
    """

    length: int
    chunk: int
    batch: int  # axes of N
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    backward: bool
    dual: bool
    tame: bool = True
    solver: Solver = SEQUENTIAL

    @property
    def count(self) -> int:
        """How many chunks there are."""
        return -(-self.length // self.chunk)

    def fold(self, value: Tensor, axes: int) -> Tensor:
        """[B, L, *N, *F], of `axes` axes F, as [B, *N, n, steps, F]."""
        flat = value.flatten(value.dim() - axes) if axes else value[..., None]
        flat = flat.movedim(1, -2)
        flat = flat.flip(-2) if self.backward else flat
        missing = -self.length % self.chunk
        if missing:  # behind the last step in the order of the primal memory
            flat = torch.nn.functional.pad(flat, (0, 0, missing, 0) if self.dual else (0, 0, 0, missing))
        return flat.reshape(*flat.shape[:-2], self.count, self.chunk, flat.shape[-1])

    def unfold(self, value: Tensor, sizes: Sequence[int]) -> Tensor:
        """[B, *N, n, steps, F] as [B, L, *N, *F]."""
        missing = -self.length % self.chunk
        flat = value.flatten(-3, -2)
        flat = flat.narrow(-2, missing if self.dual else 0, self.length)
        flat = flat.flip(-2) if self.backward else flat
        flat = flat.movedim(-2, 1)
        return flat.reshape(*flat.shape[:-1], *sizes)


class Memory:
    """A memory over all steps of a call; see the module's docstring."""

    def __init__(self, walk: Walk, decays: Sequence[Decay], writes: Sequence[Write], start: Tensor) -> None:
        self.walk = walk
        self.decays = {decay.over: decay for decay in decays}
        self.start = start.flatten(start.dim() - len(walk.columns)).flatten(walk.batch + 1, -2)
        axes = {ROWS: len(walk.rows), COLUMNS: len(walk.columns), BOTH: 0}
        self.gates = {decay.over: walk.fold(decay.value, axes[decay.over]) for decay in decays}
        raw = [over for over, decay in self.decays.items() if decay.raw]
        # What is missing behind the last step decays by nothing.
        self._whole(raw)
        self.writes = [
            replace(w, rows=walk.fold(w.rows, len(walk.rows)), columns=walk.fold(w.columns, len(walk.columns)))
            for w in writes
        ]
        self._only: Tensor | None = None
        self.exact = not walk.tame or not all(_finite(t) for w in self.writes for t in (w.rows, w.columns))
        self.logs = {} if self.exact else {o: g.log() if o in raw else g for o, g in self.gates.items()}
        self.starts = self._stepped_starts() if self.exact else self._chunk_starts()

    def _whole(self, raw: Sequence[str]) -> None:
        missing = -self.walk.length % self.walk.chunk
        for over in raw if missing else ():
            padded = self.gates[over].flatten(-3, -2)
            padded.narrow(-2, 0 if self.walk.dual else self.walk.length, missing).fill_(1.0)

    # --- decays between steps ---

    def _until(self, over: str, own: bool) -> Tensor | None:
        """Σ of logarithms from the chunk's start to each step, the step's own among them or not; [..., steps, F]."""
        log = self.logs.get(over)
        if log is None:
            return None
        return log.cumsum(-2) if own else _shifted(log).cumsum(-2)

    def _from(self, over: str, own: bool) -> Tensor | None:
        """The same from each step to the chunk's end."""
        log = self.logs.get(over)
        if log is None:
            return None
        log = log.flip(-2)
        return (log if own else _shifted(log)).cumsum(-2).flip(-2)

    def _between(self, reads: bool, writes: bool) -> Tensor | None:
        """exp Σ of what decays all, of the steps between each pair (t, s), s < t: [..., t, s].

        `reads`: that of t is among them; `writes`: that of s is.
        """
        log = self.logs.get(BOTH)
        if log is None:
            return None
        log = log if reads else _shifted(log)
        steps = torch.arange(self.walk.chunk, device=log.device)
        last = steps[:, None] if reads else steps[:, None] - 1
        counted = last >= steps if writes else last > steps
        sums = torch.where(counted, log, 0.0).cumsum(-2)
        return torch.where(steps[:, None] > steps, sums, -torch.inf).exp()

    def _middle(self, over: str) -> Tensor:
        total = self.logs[over].cumsum(-2)
        return (total.amax(-2, keepdim=True).clamp(min=0) + total.amin(-2, keepdim=True).clamp(max=0)) / 2

    def _owns(self, write: Write) -> bool:
        """Whether the decay of a write's own step works on it before the next step reads it."""
        return self.walk.dual and write.decayed

    # --- chunks ---

    def _chunk_starts(self) -> Tensor:
        """The states before each chunk and behind the last: [B, *N, n + 1, R, C]."""
        added: Tensor | None = None
        for write in self.writes:
            own = self._owns(write)
            rows = _times(write.rows, _exp(self._from(ROWS, own)))
            columns = _times(_times(write.columns, _exp(self._from(COLUMNS, own))), _exp(self._from(BOTH, own)))
            product = rows.mT @ columns
            added = _sum(added, product)
        kept = _both(_both(_exp(self._total(ROWS)), _exp(self._total(COLUMNS))), _exp(self._total(BOTH)))
        return self._walked(added, kept)

    def _total(self, over: str) -> Tensor | None:
        """What decays over a chunk, as [..., n, R, 1], [..., n, 1, C] or [..., n, 1, 1]."""
        log = self.logs.get(over)
        if log is None:
            return None
        total = log.sum(-2, keepdim=True)
        return total.mT if over == ROWS else total

    def _walked(self, added: Tensor | None, kept: Tensor | None) -> Tensor:
        count = self.walk.count
        starts = self.start.new_empty((*self.start.shape[:-2], count + 1, *self.start.shape[-2:]))
        state = self.start
        starts[..., 0, :, :] = state
        for i in range(count):
            if kept is not None:
                state = state * kept[..., i, :, :]
            if added is not None:
                state = state + added[..., i, :, :]
            starts[..., i + 1, :, :] = state
        return starts

    def recall(self, query: Tensor, over: str, decayed: bool = True) -> Tensor:
        """What each step recalls of the state before it, contracted with its query over rows or columns.

        `decayed`: of the state after its own step's decay (of a dual memory nothing decays at its own step).
        query [B, L, *N, *F] -> [B, L, *N, *G], with F the axes contracted over and G those of the other side.
        """
        walk = self.walk
        mine, other = (walk.rows, walk.columns) if over == ROWS else (walk.columns, walk.rows)
        asked = walk.fold(query, len(mine))
        own = decayed and not walk.dual
        found = self._stepped(asked, over, own) if self.exact or not _finite(asked) else self._paired(asked, over, own)
        return walk.unfold(found, other)

    def _paired(self, asked: Tensor, over: str, own: bool) -> Tensor:
        other = COLUMNS if over == ROWS else ROWS
        starts = self.starts[..., :-1, :, :]
        begun = _times(asked, _exp(self._until(over, own))) @ (starts if over == ROWS else starts.mT)
        begun = _times(_times(begun, _exp(self._until(other, own))), _exp(self._until(BOTH, own)))
        query = _times(asked, _exp(_less(self._until(over, own), self._anchor(over))))
        recalled: Tensor | None = None
        for write in self.writes:
            late = self._owns(write)
            keys, values = (write.rows, write.columns) if over == ROWS else (write.columns, write.rows)
            keys = _times(keys, _exp(_less(self._anchor(over), self._until(over, not late))))
            values = _times(values, _exp(_less(self._anchor(other), self._until(other, not late))))
            scores = query @ keys.mT
            between = self._between(own, late)
            scores = scores.tril(-1)  # first: what comes later may overflow
            scores = scores if between is None else scores * between
            product = scores @ values
            recalled = _sum(recalled, product)
        if recalled is None:
            return begun
        return begun + _times(recalled, _exp(_less(self._until(other, own), self._anchor(other))))

    def _anchor(self, over: str) -> Tensor | None:
        return self._middle(over) if over in self.logs else None

    def final(self) -> Tensor:
        """The state behind the last step, [B, *N, *R, *C]."""
        state = self.starts[..., -1, :, :]
        return state.reshape(*state.shape[:-2], *self.walk.rows, *self.walk.columns)

    # --- one step after the other ---

    def _decay(self, chunk: int, without: str = "") -> Tensor | None:
        """What each step of a chunk multiplies the state with, [..., steps, R or 1, C or 1]."""
        raw: Tensor | None = None
        logs: Tensor | None = None
        for over, gate in self.gates.items():
            if over != without:
                factor = gate[..., chunk, :, :]
                factor = factor[..., :, None] if over == ROWS else factor[..., None, :]
                if self.decays[over].raw:
                    raw = _both(raw, factor)
                else:  # together: one may overflow where their sum does not
                    logs = _sum(logs, factor)
        return _both(_exp(logs), raw)

    def _added(self, chunk: int, decayed: bool) -> Tensor | None:
        """What each step of a chunk writes, [..., steps, R, C], of the writes that are `decayed` or not."""
        found: Tensor | None = None
        for write in self.writes:
            if write.decayed is decayed:
                product = write.rows[..., chunk, :, :, None] * write.columns[..., chunk, :, None, :]
                found = _sum(found, product)
        return found

    def _path(self, chunk: int, state: Tensor) -> Tensor:
        """The states before each step of a chunk and behind the last, [B, *N, steps + 1, R, C]; an only one is kept."""
        if self._only is not None:
            return self._only
        decay, added = self._decay(chunk), self._added(chunk, True)
        if self.walk.dual:  # what it takes on decays with the state, but for queries of states before a step's decay
            late = self._added(chunk, False)
            added = added if decay is None or added is None else added * decay
            added = added if late is None else _sum(added, late)
        decay, added = (None if term is None else term.movedim(-3, 1) for term in (decay, added))
        path = self.walk.solver.path(REAL, decay, added, state, self.walk.chunk, False).movedim(1, -3)
        self._only = path if self.walk.count == 1 else None
        return path

    def _stepped_starts(self) -> Tensor:
        starts, state = [self.start], self.start
        for chunk in range(self.walk.count):
            state = self._path(chunk, state)[..., -1, :, :]
            starts.append(state)
        return torch.stack(starts, -3)

    def _stepped(self, asked: Tensor, over: str, own: bool) -> Tensor:
        found = []
        for chunk in range(self.walk.count):
            path = self._path(chunk, self.starts[..., chunk, :, :])[..., :-1, :, :]
            decay = self._decay(chunk) if own else None
            path = _times(path, decay)
            query = asked[..., chunk, :, :]
            product = query[..., None, :] @ path if over == ROWS else (path @ query[..., :, None]).mT
            found.append(product[..., 0, :])
        shape = (*self.start.shape[:-2], 0, self.walk.chunk, self.start.shape[-1 if over == ROWS else -2])
        return torch.stack(found, -3) if found else self.start.new_empty(shape)


Pairs = Sequence[tuple[Tensor, Tensor]]


def meet(
    memory: Memory, dual: Memory, over: str, decayed: Pairs = (), before: Pairs = (), written: Pairs = ()
) -> Tensor:
    """The gradient of a decay, or of its logarithm, over rows, columns or all, at each step: [B, L, *N, *F].

    The pairs are factors of rows or columns and their gradients: queries of states with their step's decay, and without
    it (`before`), and what was written.  Of a decay of all they are not needed.
    """
    walk = memory.walk
    sizes = {ROWS: walk.rows, COLUMNS: walk.columns, BOTH: ()}[over]
    if memory.exact or dual.exact:
        return walk.unfold(_met(memory, dual, over), sizes)
    found = _pairs(memory, dual) if over == BOTH else _flux(memory, dual, over, decayed, before, written)
    return walk.unfold(found / memory.gates[over] if memory.decays[over].raw else found, sizes)


def _flux(memory: Memory, dual: Memory, over: str, decayed: Pairs, before: Pairs, written: Pairs) -> Tensor:
    """The gradient of what decays rows or columns, by the flux identity (theory, section 2), restarted at chunks' ends.

    It is what is recalled later, times its own gradient, less what is written later, times its own, and the product of
    state and cotangent at the end.
    """
    walk = memory.walk
    axes = len(walk.rows if over == ROWS else walk.columns)

    def flux(pairs: Pairs) -> Tensor | None:
        found: Tensor | None = None
        for value, gradient in pairs:
            found = _sum(found, walk.fold(value * gradient, axes))
        return found

    ends = memory.starts[..., 1:, :, :] * dual.starts.flip(-3)[..., 1:, :, :]
    found = ends.sum(-1 if over == ROWS else -2)[..., None, :]
    later, own = flux(before), _less(flux(decayed), flux(written))
    if own is not None:
        found = found + own.flip(-2).cumsum(-2).flip(-2)
    if later is not None:
        found = found + _shifted(later.flip(-2)).cumsum(-2).flip(-2)
    return found.expand(*found.shape[:-2], walk.chunk, found.shape[-1])


def _pairs(memory: Memory, dual: Memory) -> Tensor:
    """The gradient of what decays all: all that goes through a step, from an earlier one to a later one.

    Sums of terms as they are, no differences: so that it is as exact for gates that let little through.
    """
    starts, ends = memory.starts[..., :-1, :, :], dual.starts.flip(-3)[..., 1:, :, :]
    kept = _both(_both(_exp(memory._total(ROWS)), _exp(memory._total(COLUMNS))), _exp(memory._total(BOTH)))
    found = _times(starts * ends, kept).sum((-1, -2))[..., None, None]
    for write in memory.writes:
        rows, columns = (
            _times(x, _exp(memory._from(o, False))) for x, o in ((write.rows, ROWS), (write.columns, COLUMNS))
        )
        left = _times(((rows @ ends) * columns).sum(-1, keepdim=True), _exp(memory._from(BOTH, False)))
        found = found + _shifted(left).cumsum(-2)
    for asked in dual.writes:
        own, (above, across) = asked.decayed, (x.flip(-3, -2) for x in (asked.rows, asked.columns))
        rows, columns = (_times(x, _exp(memory._until(o, own))) for x, o in ((above, ROWS), (across, COLUMNS)))
        read = _times(((rows @ starts) * columns).sum(-1, keepdim=True), _exp(memory._until(BOTH, own)))
        found = found + _later(read, own).flip(-2).cumsum(-2).flip(-2)
        above, across = (
            _times(x, _exp(_less(memory._until(o, own), memory._anchor(o))))
            for x, o in ((above, ROWS), (across, COLUMNS))
        )
        for write in memory.writes:
            x, y = (
                _times(x, _exp(_less(memory._anchor(o), memory._until(o, True))))
                for x, o in ((write.rows, ROWS), (write.columns, COLUMNS))
            )
            products = (above @ x.mT).tril(-1) * (across @ y.mT).tril(-1)  # [later, earlier]
            products = _times(products, memory._between(own, False))
            through = _shifted(products.mT).cumsum(-2).mT  # of all before the step, [later, step]
            found = found + through.tril(0 if own else -1).sum(-2)[..., None]
    return found


def _later(value: Tensor, own: bool) -> Tensor:
    """What each step has of a value of its own or, without it, of the one behind."""
    return value if own else torch.nn.functional.pad(value, (0, 0, 0, 1))[..., 1:, :]


def _met(memory: Memory, dual: Memory, over: str) -> Tensor:
    """The same from the states and cotangents themselves."""
    walk, found = memory.walk, []
    for chunk in range(walk.count):
        path = memory._path(chunk, memory.starts[..., chunk, :, :])[..., :-1, :, :]
        back = walk.count - 1 - chunk
        cotangent = dual._path(back, dual.starts[..., back, :, :])[..., :-1, :, :]
        added = dual._added(back, True)
        cotangent = (cotangent if added is None else cotangent + added).flip(-3)
        product = path * cotangent
        product = _times(product, memory._decay(chunk, over if memory.decays[over].raw else ""))
        if over == BOTH:
            found.append(product.sum((-1, -2))[..., None])
        else:
            found.append(product.sum(-1 if over == ROWS else -2))
    width = {ROWS: memory.start.shape[-2], COLUMNS: memory.start.shape[-1], BOTH: 1}[over]
    return torch.stack(found, -3) if found else memory.start.new_empty((*memory.start.shape[:-2], 0, 1, width))


def cut(
    length: int, solver: Solver, decays: Sequence[Decay], backward: bool, states: int, matrix: int
) -> tuple[int, bool]:
    """The steps of a chunk in the form of a solver, and whether chunks are evaluated by products of pairs.

    They are if factors relative to the middle of a chunk are ordinary numbers, and a `matrix` is larger than its sides;
    `states`: the numbers of all states at a step.  `backward`: as the primal memory walks.
    """
    block = max(1, min(length, _BLOCK // max(1, states)))
    raw = any(not bool((decay.value >= _LEAST).all()) for decay in decays if decay.raw)
    if solver is SEQUENTIAL or not length or raw or matrix <= _SMALL:
        return block, False
    logs = [(d.over, d.value.log() if d.raw else d.value) for d in decays]
    logs = [(over, log.flip(1) if backward else log) for over, log in logs]
    for steps in (_SQUARE, *_CHUNKS) if solver is PARALLEL else _CHUNKS:
        chunk = min(steps, -(-length // 16) * 16)
        if all(_range(over, log, chunk) < _SPAN[log.dtype] for over, log in logs):
            return chunk, True
    return block, False


def _range(over: str, log: Tensor, chunk: int) -> float:
    """The nats that a decay grows by in any chunk; of rows or columns, those that it ranges over."""
    if not log.numel():
        return 0.0
    log = torch.nn.functional.pad(log, (*[0, 0] * (log.dim() - 2), 0, -log.shape[1] % chunk))
    log = log.reshape(log.shape[0], -1, chunk, *log.shape[2:])
    if over == BOTH:
        return float(log.clamp(min=0).sum(2).max())
    total = log.cumsum(2)
    return float((total.amax(2).clamp(min=0) - total.amin(2).clamp(max=0)).max())


def _shifted(value: Tensor) -> Tensor:
    """Each step's predecessor, nothing before the first: along the steps."""
    return torch.nn.functional.pad(value, (0, 0, 1, 0))[..., :-1, :]


def _exp(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.exp()


def _times(a: Tensor, b: Tensor | None) -> Tensor:
    return a if b is None else a * b


def _both(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """The product of what there is."""
    return b if a is None else _times(a, b)


def _sum(a: Tensor | None, b: Tensor) -> Tensor:
    return b if a is None else a + b


def _less(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if b is None:
        return a
    return -b if a is None else a - b


def _finite(value: Tensor) -> bool:
    return bool(torch.isfinite(value).all())
