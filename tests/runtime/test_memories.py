"""Memories against a naive loop in fp64, differentiated by torch: values, every gradient, every way to evaluate."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from scanc_runtime.memories import BOTH, COLUMNS, ROWS, Decay, Memory, Walk, Write, cut, meet
from scanc_runtime.scans import CHUNKED
from torch import Tensor
from torch.testing import assert_close

B, H, K, V = 2, 3, 4, 5
SHAPES = {ROWS: (H, K), COLUMNS: (H, V), BOTH: (H,)}


@dataclass
class Case:
    """A memory, what is asked of it, and its tensors."""

    length: int
    decays: tuple[str, ...]
    strength: float = 0.3
    raw: bool = False
    writes: int = 1
    queries: tuple[tuple[str, bool], ...] = ((ROWS, True),)
    backward: bool = False
    dtype: torch.dtype = torch.float64
    seed: int = 0
    leaves: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(self.seed)

        def random(*shape: int) -> Tensor:
            found = torch.randn(B, *shape, generator=generator, dtype=torch.float64)
            self.leaves.append(found)
            return found

        self.start = random(H, K, V)
        self.gates = [random(self.length, *SHAPES[over]).mul_(self.strength) for over in self.decays]
        for gate in self.gates:
            gate.copy_(gate.abs().neg().exp() if self.raw else -gate.abs())
        self.factors = [(random(self.length, H, K), random(self.length, 1, V)) for _ in range(self.writes)]
        self.asked = [random(self.length, *SHAPES[over]) for over, _ in self.queries]
        self.weights = [
            torch.randn(B, self.length, *SHAPES[COLUMNS if over == ROWS else ROWS], generator=generator).double()
            for over, _ in self.queries
        ]
        self.end = torch.randn(B, H, K, V, generator=generator).double()

    def naive(self) -> tuple[list[Tensor], Tensor]:
        state, found = self.start, [[] for _ in self.queries]
        steps = range(self.length)
        for t in reversed(steps) if self.backward else steps:
            decay = torch.ones((), dtype=torch.float64)
            for over, gate in zip(self.decays, self.gates, strict=True):
                factor = gate[:, t] if self.raw else gate[:, t].exp()
                decay = decay * {ROWS: factor[..., None], COLUMNS: factor[..., None, :]}.get(
                    over, factor[..., None, None]
                )
            for i, (over, decayed) in enumerate(self.queries):
                read = decay * state if decayed else state
                query = self.asked[i][:, t]
                found[i].append(torch.einsum("bhk,bhkv->bhv" if over == ROWS else "bhv,bhkv->bhk", query, read))
            state = decay * state
            for rows, columns in self.factors:
                state = state + rows[:, t, ..., None] * columns[:, t, :, None, :]
        return [torch.stack(column[::-1] if self.backward else column, 1) for column in found], state

    def gated(self, chunk: int) -> tuple[list[Decay], bool]:
        """The decays, and whether a chunk of so many steps allows for pairs."""
        pairs = zip(self.decays, self.gates, strict=True)
        decays = [Decay(over, gate.to(self.dtype), self.raw) for over, gate in pairs]
        steps, tame = cut(self.length, CHUNKED, decays, self.backward, 0, 1 << 20)
        return decays, tame and chunk <= max(steps, 16)

    def memory(self, chunk: int) -> Memory:
        decays, tame = self.gated(chunk)
        walk = Walk(self.length, chunk, 1, (K,), (V,), self.backward, False, tame)
        writes = [Write(x.to(self.dtype), y.to(self.dtype)) for x, y in self.factors]
        return Memory(walk, decays, writes, self.start.to(self.dtype))

    def dual(self, chunk: int) -> Memory:
        """Of the cotangents: each query writes itself and the cotangent of what it recalled."""
        decays, tame = self.gated(chunk)
        walk = Walk(self.length, chunk, 1, (K,), (V,), not self.backward, True, tame)
        pairs = [
            (asked, given, decayed) if over == ROWS else (given, asked, decayed)
            for (over, decayed), asked, given in zip(self.queries, self.asked, self.weights, strict=True)
        ]
        writes = [Write(x.to(self.dtype), y.to(self.dtype), decayed) for x, y, decayed in pairs]
        return Memory(walk, decays, writes, self.end.to(self.dtype))

    def ours(self, chunk: int) -> tuple[list[Tensor], list[Tensor]]:
        """What is recalled and the final state; the gradients of all leaves."""
        memory, dual = self.memory(chunk), self.dual(chunk)
        recalled = [
            memory.recall(asked.to(self.dtype), over, decayed)
            for (over, decayed), asked in zip(self.queries, self.asked, strict=True)
        ]
        other = {ROWS: COLUMNS, COLUMNS: ROWS}
        d_asked = [
            memory.recall(given.to(self.dtype), other[over], decayed)
            for (over, decayed), given in zip(self.queries, self.weights, strict=True)
        ]
        d_factors = [(dual.recall(y, COLUMNS), dual.recall(x, ROWS)) for x, y in self.typed(self.factors)]
        d_gates = []
        for over in self.decays:
            side = ROWS if over == BOTH else over
            pairs: dict[bool, list[tuple[Tensor, Tensor]]] = {True: [], False: []}
            for i, (way, decayed) in enumerate(self.queries):
                mine = (self.asked[i], d_asked[i]) if way == side else (self.weights[i], recalled[i])
                pairs[decayed].append((mine[0].to(self.dtype), mine[1]))
            index = 0 if side == ROWS else 1
            written = [(xy[index], d[index]) for xy, d in zip(self.typed(self.factors), d_factors, strict=True)]
            d_gates.append(meet(memory, dual, over, pairs[True], pairs[False], written))
        reduced = [grad for rows, columns in d_factors for grad in (rows, columns.sum(2, keepdim=True))]
        return [*recalled, memory.final()], [dual.final(), *d_gates, *reduced, *d_asked]

    def typed(self, pairs: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        return [(x.to(self.dtype), y.to(self.dtype)) for x, y in pairs]

    def oracle(self) -> tuple[list[Tensor], list[Tensor]]:
        leaves = [self.start, *self.gates, *(f for pair in self.factors for f in pair), *self.asked]
        for leaf in leaves:
            leaf.requires_grad_()
        recalled, state = self.naive()
        given = [*self.weights, self.end]
        grads = torch.autograd.grad([*recalled, state], leaves, given, allow_unused=True)
        for leaf in leaves:
            leaf.requires_grad_(False)
        pairs = zip(leaves, grads, strict=True)
        return [*recalled, state], [torch.zeros_like(leaf) if grad is None else grad for leaf, grad in pairs]


def check(case: Case, chunk: int, **tolerance: float) -> None:
    values, gradients = case.oracle()
    found = case.ours(chunk)
    for ours, expected in zip((*found[0], *found[1]), (*values, *gradients), strict=True):
        assert ours.shape == expected.shape
        assert_close(ours.double(), expected.detach(), **tolerance)


@pytest.mark.parametrize("length", [1, 4, 11])
@pytest.mark.parametrize("decays", [(), (BOTH,), (ROWS,), (COLUMNS,), (ROWS, COLUMNS), (ROWS, COLUMNS, BOTH)])
def test_values_and_gradients(decays, length):
    queries = ((ROWS, True), (ROWS, False))
    check(Case(length, decays, queries=queries, writes=2), 4)
    check(Case(length, decays, queries=queries, backward=True, seed=1), 16)


@pytest.mark.parametrize("decays", [(BOTH,), (ROWS, COLUMNS)])
@pytest.mark.parametrize("over", [ROWS, COLUMNS])
def test_what_is_read_and_what_is_not(over, decays):
    check(Case(9, decays, queries=((over, False),)), 4)
    check(Case(9, decays, queries=((over, True),), writes=0), 4)
    check(Case(9, decays, queries=(), raw=True), 4)


@pytest.mark.parametrize("strength", [30.0, 300.0])
@pytest.mark.parametrize("decays", [(BOTH,), (ROWS,)])
def test_strong_decays(decays, strength):
    check(Case(9, decays, strength), 4)
    check(Case(9, decays, strength, dtype=torch.float32), 4, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("decays", [(BOTH,), (ROWS,), (ROWS, COLUMNS)])
def test_raw_decays(decays):
    check(Case(9, decays, raw=True), 4)
    case = Case(9, decays, raw=True, seed=3)
    case.gates[0][:, 4] = 0.0
    case.gates[0][:, 6] *= -1
    check(case, 4)


def test_gates_that_close_and_that_grow():
    case = Case(9, (BOTH,))
    case.gates[0][:, 3] = -torch.inf
    case.gates[0][:, 5] = 2.0
    values, _ = case.oracle()
    for ours, expected in zip(case.ours(4)[0], values, strict=True):
        assert_close(ours, expected.detach())
    assert not case.memory(4).exact
    growing = Case(9, (ROWS,))
    growing.gates[0].abs_().mul_(40)
    check(growing, 4)
