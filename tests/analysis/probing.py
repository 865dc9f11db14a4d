"""The class of a stage held against the Jacobian of one step, as the interpreter computes it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from scanc.analysis.recurrence import RecurrenceClass
from scanc.interpreter import interpret
from scanc.ir.functions import SEMIRINGS
from scanc.ir.nodes import Kind, Program, TensorType

Tensors = dict[str, torch.Tensor]
TOL = 1e-9


def laid_out(program: Program) -> Program:
    """The program with every state in canonical layout under its own name."""
    states = tuple(replace(s, dims=tuple((a,) for a in s.type.axes), public=None) for s in program.states)
    return replace(program, states=states)


@dataclass(frozen=True)
class Probe:
    """One step of `program` as a function of `states`; everything else is fixed."""

    program: Program
    states: tuple[str, ...]
    sizes: Mapping[str, int]
    inputs: Tensors
    params: Tensors
    others: Tensors

    def types(self) -> list[TensorType]:
        return [self.program.types[state] for state in self.states]

    def shape(self, type_: TensorType) -> tuple[int, ...]:
        return tuple(self.sizes[axis] for axis in type_.axes)

    def draw(self, seed: int) -> torch.Tensor:
        """Random states as one real vector, complex numbers as pairs."""
        g = torch.Generator().manual_seed(seed)
        width = sum(math.prod(self.shape(t)) * (1 + (t.kind is Kind.COMPLEX)) for t in self.types())
        return torch.randn(width, generator=g, dtype=torch.float64)

    def __call__(self, vector: torch.Tensor) -> torch.Tensor:
        held, start = dict(self.others), 0
        for state, type_ in zip(self.states, self.types(), strict=True):
            shape = (1, *self.shape(type_), *((2,) if type_.kind is Kind.COMPLEX else ()))
            part = vector[start : start + math.prod(shape)].reshape(shape)
            start += math.prod(shape)
            held[state] = torch.complex(part[..., 0], part[..., 1]) if type_.kind is Kind.COMPLEX else part
        _, final = interpret(self.program, self.inputs, self.params, held)
        parts = [final[state] for state in self.states]
        return torch.cat([(torch.view_as_real(p) if p.is_complex() else p).reshape(-1) for p in parts])

    def jacobian(self, at: torch.Tensor) -> torch.Tensor:
        return torch.autograd.functional.jacobian(self, at)

    def with_other_inputs(self, inputs: Tensors, others: Tensors) -> Probe:
        return replace(self, inputs=inputs, others=others)


def check(found: RecurrenceClass, probe: Probe, elsewhere: Probe) -> None:
    """Every claim of the class holds. `elsewhere` is the same step on other inputs."""
    if found.transition == "nonlinear":
        _check_mixing(found, probe, probe.jacobian(probe.draw(1)))
        return
    first, second = probe.jacobian(probe.draw(1)), probe.jacobian(probe.draw(2))
    if found.semiring != "real":
        _check_semiring(found, probe)
        if found.elementwise:
            _check_mixing(found, probe, first)
        return
    assert torch.allclose(first, second, atol=TOL), "an affine step has the same Jacobian everywhere"
    if found.time_invariant:
        assert torch.allclose(first, elsewhere.jacobian(probe.draw(1)), atol=TOL), "time-invariant"
    if len(found.states) > 1:
        return
    (type_,) = probe.types()
    matrix = _complex_matrix(first) if type_.kind is Kind.COMPLEX else first
    _check_structure(found, probe, matrix)
    _check_write(found, probe)


def is_nonlinear(probe: Probe) -> bool:
    """Whether the Jacobian really depends on the state, or is linear over the reals only."""
    first, second = probe.jacobian(probe.draw(1)), probe.jacobian(probe.draw(2))
    moved = not torch.allclose(first, second, atol=TOL)
    return moved or (probe.types()[0].kind is Kind.COMPLEX and not _is_complex_linear(first))


def is_time_varying(probe: Probe, elsewhere: Probe) -> bool:
    return not torch.allclose(probe.jacobian(probe.draw(1)), elsewhere.jacobian(probe.draw(1)), atol=TOL)


def off_diagonal_rank(probe: Probe, axis: str) -> int:
    """The rank of the transition's off-diagonal blocks along `axis`: what "diagonal plus rank r" leaves of r."""
    (type_,) = probe.types()
    shape, n = probe.shape(type_), probe.sizes[axis]
    matrix = probe.jacobian(probe.draw(1))
    full = (_complex_matrix(matrix) if type_.kind is Kind.COMPLEX else matrix).reshape(*shape, *shape)
    where = type_.axes.index(axis)
    for other in reversed([d for d in range(len(shape)) if d != where]):
        full = full.select(other + full.ndim // 2, 0).select(other, 0)
    half = n // 2
    blocks = (full[:half, half:], full[half:, :half])
    return max(int(torch.linalg.matrix_rank(block, tol=1e-7)) for block in blocks)


# --- the claims one by one ---


def _is_complex_linear(matrix: torch.Tensor) -> bool:
    n = matrix.shape[0] // 2
    pairs = matrix.reshape(n, 2, n, 2)
    same = torch.allclose(pairs[:, 0, :, 0], pairs[:, 1, :, 1], atol=TOL)
    return same and torch.allclose(pairs[:, 0, :, 1], -pairs[:, 1, :, 0], atol=TOL)


def _complex_matrix(matrix: torch.Tensor) -> torch.Tensor:
    assert _is_complex_linear(matrix), "an affine step is linear over the complex numbers"
    n = matrix.shape[0] // 2
    pairs = matrix.reshape(n, 2, n, 2)
    return torch.complex(pairs[:, 0, :, 0], pairs[:, 1, :, 0])


def _check_mixing(found: RecurrenceClass, probe: Probe, matrix: torch.Tensor) -> None:
    """Off the axes that a step mixes, an element reads its own element alone."""
    (type_, *more), count = probe.types(), len(probe.types())
    if any(other != type_ for other in more):
        return
    shape, pair = probe.shape(type_), 2 if type_.kind is Kind.COMPLEX else 1
    blocks = matrix.reshape(count, *shape, pair, count, *shape, pair).abs()
    blocks = blocks.sum((0, len(shape) + 1, len(shape) + 2, -1))
    for d, axis in enumerate(type_.axes):
        if axis not in found.mixes:
            _assert_kept(blocks, d, len(shape), axis)


def _assert_kept(full: torch.Tensor, d: int, rank: int, axis: str) -> None:
    """J[o, i] is 0 wherever o and i differ along one axis."""
    moved = full.movedim((d, d + rank), (0, 1))
    off = ~torch.eye(moved.shape[0], dtype=torch.bool)
    assert moved[off].abs().max() < TOL if off.any() and moved.numel() else True, f"{axis} is not mixed"


def _check_structure(found: RecurrenceClass, probe: Probe, matrix: torch.Tensor) -> None:
    (type_,) = probe.types()
    shape, n = probe.shape(type_), matrix.shape[0]
    diagonal = torch.diagonal(matrix)
    if found.transition == "delay":
        assert matrix.abs().max() < TOL
    if found.transition == "identity":
        assert torch.allclose(matrix, torch.eye(n, dtype=matrix.dtype), atol=TOL)
    if found.elementwise:
        assert torch.allclose(matrix, torch.diag(diagonal), atol=TOL), "an elementwise step has a diagonal Jacobian"
        batch = {axis.name for axis in probe.program.axes if axis.batch}
        spread = diagonal.reshape(shape)
        for d, axis in enumerate(type_.axes):
            if axis not in found.acts and axis not in batch:
                first = spread.narrow(d, 0, 1).expand_as(spread)
                assert torch.allclose(spread, first, atol=TOL), f"the decay does not vary on {axis}"
        if found.growth != "possible":
            assert diagonal.abs().max() <= 1 + 1e-12
        if found.growth == "none":
            assert diagonal.real.min() >= 0
        if found.separable:
            _check_separable(spread)
    if found.transition == "dplr":
        _check_rank(found, probe, matrix)


def _check_separable(decay: torch.Tensor) -> None:
    """Each slice is a multiple of any other: every unfolding has rank one."""
    for d in range(decay.ndim):
        unfolded = decay.movedim(d, 0).reshape(decay.shape[d], -1)
        assert int(torch.linalg.matrix_rank(unfolded, rtol=1e-8)) <= max(1, _batch_rank(decay, d))


def _batch_rank(decay: torch.Tensor, d: int) -> int:
    """Batch axes stand first and may go along freely."""
    return math.prod(decay.shape[:1]) if d > 0 or decay.ndim < 2 else decay.shape[0]


def _check_rank(found: RecurrenceClass, probe: Probe, matrix: torch.Tensor) -> None:
    (type_,) = probe.types()
    shape, rank = probe.shape(type_), len(type_.axes)
    assert found.rank is not None
    full = matrix.reshape(*shape, *shape)
    for d, axis in enumerate(type_.axes):
        if axis not in found.acts:
            _assert_kept(full, d, rank, axis)
    if len(found.acts) == 1:
        (axis,) = found.acts
        assert off_diagonal_rank(probe, axis) <= found.rank.of(probe.sizes)


def _check_write(found: RecurrenceClass, probe: Probe) -> None:
    rest = probe(torch.zeros_like(probe.draw(1)))
    if found.write.kind == "none":
        assert rest.abs().max() < TOL
    if found.write.kind != "outer product":
        return
    (type_,) = probe.types()
    assert found.write.rank is not None
    if type_.kind is Kind.COMPLEX:
        rest = torch.view_as_complex(rest.reshape(-1, 2))
    bound = found.write.rank.of(probe.sizes)
    batch = tuple(i for i, axis in enumerate(type_.axes) if axis not in found.write.axes)
    whole = rest.reshape(probe.shape(type_)).movedim(batch, tuple(range(len(batch))))
    for matrix in whole.reshape(-1, *whole.shape[len(batch) :]):
        for d in range(matrix.ndim):
            unfolded = matrix.movedim(d, 0).reshape(matrix.shape[d], -1)
            assert int(torch.linalg.matrix_rank(unfolded, tol=1e-8)) <= bound


def _check_semiring(found: RecurrenceClass, probe: Probe) -> None:
    """f(a ⊕ b) ⊕ r = f(a) ⊕ f(b), with r the remainder; f(c ⊗ a) ⊕ … moves with c far above the remainder."""
    rules = SEMIRINGS[found.semiring]
    plus = {"maximum": torch.maximum, "minimum": torch.minimum, "logaddexp": torch.logaddexp}[rules.plus]
    a, b = probe.draw(1), probe.draw(2)
    rest = probe(torch.full_like(a, float(rules.zero)))
    left, right = plus(probe(plus(a, b)), rest), plus(probe(a), probe(b))
    assert torch.allclose(left, right, atol=TOL), f"affine over {found.semiring}"
    far = -1e4 if found.semiring == "minplus" else 1e4
    assert torch.allclose(probe(a + far), plus(probe(a + 2 * far) - far, rest), atol=1e-7)
