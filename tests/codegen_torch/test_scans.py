"""Vectorised scans against the naive loop."""

import math

import pytest
import torch
from scanc_runtime import scans
from torch import Tensor

SOLVERS = (scans.SEQUENTIAL, scans.CHUNKED, scans.PARALLEL)
LENGTHS = (1, 2, 3, 11, 12, 13, 31, 64, 77)
AXES = (3, 2)


def naive(
    algebra: scans.Algebra, decay: Tensor | None, write: Tensor | None, state: Tensor, length: int, reverse: bool
):
    out = [state] * length
    for t in reversed(range(length)) if reverse else range(length):
        a, b = (x[:, t] if x is not None and x.dim() > state.dim() else x for x in (decay, write))
        kept = (
            state
            if a is None
            else {"real": torch.mul, "bool": torch.logical_and}.get(algebra.name, torch.add)(a, state)
        )
        plus = {
            "real": torch.add,
            "log": torch.logaddexp,
            "maxplus": torch.maximum,
            "minplus": torch.minimum,
            "bool": torch.logical_or,
        }[algebra.name]
        state = out[t] = kept if b is None else plus(kept, b)
    return torch.stack(out, 1)


def sample(algebra: scans.Algebra, shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Tensor:
    if algebra is scans.BOOL:
        return torch.rand(shape) < 0.6
    return torch.randn(shape, dtype=dtype)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: s.name)
@pytest.mark.parametrize(
    "algebra", [scans.REAL, scans.LOG, scans.MAXPLUS, scans.MINPLUS, scans.BOOL], ids=lambda a: a.name
)
@pytest.mark.parametrize("reverse", [False, True])
def test_agrees_with_the_naive_loop(solver: scans.Solver, algebra: scans.Algebra, reverse: bool) -> None:
    for length in LENGTHS:
        state = sample(algebra, (2, *AXES))
        full = (2, length, *AXES)
        shapes = [(full, full), ((2, length, 1, 2), full), (AXES, full), ((2,), (3, 1)), (None, full), (full, None)]
        shapes += [(None, None), (AXES, None), (full, AXES), (full, (2, length, 3, 1))]
        for decay_shape, write_shape in shapes:
            decay = None if decay_shape is None else sample(algebra, decay_shape)
            write = None if write_shape is None else sample(algebra, write_shape)
            expected = naive(algebra, decay, write, state, length, reverse)
            after = solver.after(algebra, decay, write, state, length, reverse)
            torch.testing.assert_close(after, expected)
            path = solver.path(algebra, decay, write, state, length, reverse)
            assert torch.equal(scans.afters(path, reverse), after)
            first = scans.befores(path, reverse)[:, -1 if reverse else 0]
            assert torch.equal(first, state)


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: s.name)
@pytest.mark.parametrize("reverse", [False, True])
def test_sums_of_what_is_written_before_the_decay(solver: scans.Solver, reverse: bool) -> None:
    for length in LENGTHS:
        state = sample(scans.REAL, (2, *AXES))
        full = (2, length, *AXES)
        for decay_shape, added_shape in (
            (full, full),
            ((2, length, 1, 2), full),
            (AXES, full),
            (full, (2, length, 3, 1)),
        ):
            decay, added = sample(scans.REAL, decay_shape), sample(scans.REAL, added_shape)
            after = naive(scans.REAL, decay, decay * added, state, length, reverse)
            before = torch.cat([after[:, 1:], state[:, None]] if reverse else [state[:, None], after[:, :-1]], 1)
            result = solver.sums(scans.REAL, decay, added, state, length, reverse)
            torch.testing.assert_close(result, before + added)


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: s.name)
@pytest.mark.parametrize("reverse", [False, True])
def test_complex(solver: scans.Solver, reverse: bool) -> None:
    decay, write = (torch.randn(2, 50, 4, dtype=torch.complex128) for _ in range(2))
    state = torch.randn(2, 4, dtype=torch.complex128)
    expected = naive(scans.REAL, decay, write, state, 50, reverse)
    torch.testing.assert_close(solver.after(scans.REAL, decay, write, state, 50, reverse), expected)
    real = solver.after(scans.REAL, decay.real, write, state, 50, reverse)
    torch.testing.assert_close(real, naive(scans.REAL, decay.real, write, state, 50, reverse))


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: s.name)
@pytest.mark.parametrize("reverse", [False, True])
def test_strided_arguments(solver: scans.Solver, reverse: bool) -> None:
    decay = torch.rand(4, 3, 40, dtype=torch.float64).permute(1, 2, 0)
    write = torch.randn(3, 80, 8, dtype=torch.float64)[:, ::2, ::2]
    state = torch.randn(4, 3, dtype=torch.float64).T
    expected = naive(scans.REAL, decay, write, state, 40, reverse)
    torch.testing.assert_close(solver.after(scans.REAL, decay, write, state, 40, reverse), expected)


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: s.name)
@pytest.mark.parametrize("reverse", [False, True])
def test_growth_past_the_largest_number_from_a_zero_state(solver: scans.Solver, reverse: bool) -> None:
    """The product of decays overflows; the states do not, for they are 0 while it grows."""
    length = 60
    decay = torch.full((1, length, 3), 1e20)
    decay[:, 20:40] = 0.5
    decay[..., 1] = 0.9
    decay[:, 10, 2] = 0.0
    write = torch.zeros(1, length, 3)
    write[:, 20:40] = torch.rand(1, 20, 3)
    write[..., 2] = 1e-30
    if reverse:
        decay, write = decay.flip(1), write.flip(1)
    state = torch.zeros(1, 3)
    expected = naive(scans.REAL, decay, write, state, length, reverse)
    result = solver.after(scans.REAL, decay, write, state, length, reverse)
    torch.testing.assert_close(result, expected, equal_nan=True)
    assert bool(torch.isfinite(result[:, 40 if not reverse else 19]).any())


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: s.name)
def test_extreme_gates_stay_finite(solver: scans.Solver) -> None:
    gates = torch.tensor([0.0, -1e-6, -20.0, -1e4, -math.inf, 0.05])
    decay = gates[torch.randint(0, 6, (2, 200, 16))].exp()
    write, state = torch.randn(2, 200, 16), torch.randn(2, 16)
    result = solver.after(scans.REAL, decay, write, state, 200, False)
    assert bool(torch.isfinite(result).all())
    torch.testing.assert_close(result, naive(scans.REAL, decay, write, state, 200, False), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: s.name)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_bad_later_token_leaves_earlier_states_alone(solver: scans.Solver, value: float) -> None:
    decay, write, state = torch.rand(2, 90, 4), torch.randn(2, 90, 4), torch.randn(2, 4)
    clean = solver.after(scans.REAL, decay, write, state, 90, False)
    decay[:, 50], write[:, 55] = value, value
    dirty = solver.after(scans.REAL, decay, write, state, 90, False)
    torch.testing.assert_close(dirty[:, :50], clean[:, :50])


@pytest.mark.parametrize("algebra", [scans.LOG, scans.MAXPLUS], ids=lambda a: a.name)
@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: s.name)
def test_semiring_zeros(solver: scans.Solver, algebra: scans.Algebra) -> None:
    decay, write = torch.randn(2, 40, 3), torch.randn(2, 40, 3)
    decay[:, ::3], write[:, 1::2] = -math.inf, -math.inf
    state = torch.full((2, 3), -math.inf)
    expected = naive(algebra, decay, write, state, 40, False)
    torch.testing.assert_close(solver.after(algebra, decay, write, state, 40, False), expected)


NESTED = scans.chunk_length(1500, 12), scans.chunk_length(1500 // scans.chunk_length(1500, 12) - 1, 12)


@pytest.mark.parametrize(
    "algebra", [scans.REAL, scans.LOG, scans.MAXPLUS, scans.MINPLUS, scans.BOOL], ids=lambda a: a.name
)
@pytest.mark.parametrize("reverse", [False, True])
def test_carries_are_a_chunked_scan_of_their_own(algebra: scans.Algebra, reverse: bool) -> None:
    length, state = 1500, sample(algebra, (2, *AXES))
    assert NESTED[0] < length
    assert NESTED[1] < length // NESTED[0] - 1
    full = (2, length, *AXES)
    for decay_shape, write_shape in (
        (full, full),
        ((2, length, 1, 2), (3, 1)),
        (AXES, full),
        (full, None),
        (None, full),
    ):
        decay = None if decay_shape is None else sample(algebra, decay_shape)
        if algebra is scans.REAL and decay is not None:
            decay = decay.tanh()
        write = None if write_shape is None else sample(algebra, write_shape)
        expected = naive(algebra, decay, write, state, length, reverse)
        result = scans.CHUNKED.after(algebra, decay, write, state, length, reverse)
        torch.testing.assert_close(result, expected)
        assert torch.equal(result, scans.CHUNKED.after(algebra, decay, write, state, length, reverse))


@pytest.mark.parametrize("reverse", [False, True])
def test_long_complex(reverse: bool) -> None:
    decay = torch.polar(torch.rand(1500, dtype=torch.float64), 3 * torch.randn(1500, dtype=torch.float64))[
        None, :, None
    ]
    write, state = torch.randn(2, 1500, 6, dtype=torch.complex128), torch.randn(2, 6, dtype=torch.complex128)
    expected = naive(scans.REAL, decay, write, state, 1500, reverse)
    torch.testing.assert_close(scans.CHUNKED.after(scans.REAL, decay, write, state, 1500, reverse), expected)


@pytest.mark.parametrize("kind", [torch.float32, torch.complex64])
@pytest.mark.parametrize("grown", [40, 8 * NESTED[0]])
def test_products_of_one_chunk_or_of_many_overflow(kind: torch.dtype, grown: int) -> None:
    """Growth to 1e60 over so many steps, from a state of 0; the product of a chunk alone may be finite."""
    decay = torch.full((1, 1500, 6), 0.5)
    decay[:, 300 : 300 + grown] = 10.0 ** (60 / grown)
    write = torch.randn(1, 1500, 6)
    write[:, :301] = 0
    write[:, 301 : 300 + grown] *= 1e-30
    decay, write, state = decay.to(kind), write.to(kind), torch.zeros(1, 6, dtype=kind)
    expected = naive(scans.REAL, decay, write, state, 1500, False)
    result = scans.CHUNKED.after(scans.REAL, decay, write, state, 1500, False)
    assert bool(torch.isfinite(expected[:, :300]).all())
    torch.testing.assert_close(torch.isfinite(result), torch.isfinite(expected))
    torch.testing.assert_close(result[:, :300], expected[:, :300])


@pytest.mark.parametrize("steps", [1, 2, 7, 100])
@pytest.mark.parametrize("reverse", [False, True])
def test_chunks_of_a_given_length(steps: int, reverse: bool) -> None:
    for length in LENGTHS:
        decay, write = sample(scans.REAL, (2, length, 1, 2)), sample(scans.REAL, AXES)
        state = sample(scans.REAL, (2, *AXES))
        result = scans.chunks_of(steps).after(scans.REAL, decay, write, state, length, reverse)
        torch.testing.assert_close(result, naive(scans.REAL, decay, write, state, length, reverse))


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: s.name)
def test_later_steps_change_earlier_states_by_rounding_only(solver: scans.Solver) -> None:
    decay, write, state = torch.rand(1, 1500, 6), torch.randn(1, 1500, 6), torch.randn(1, 6)
    whole = solver.after(scans.REAL, decay, write, state, 1500, False)
    for length in (1, 2, 63, 700, 1499):
        part = solver.after(scans.REAL, decay[:, :length], write[:, :length], state, length, False)
        torch.testing.assert_close(part, whole[:, :length], rtol=1e-5, atol=1e-6)


def test_wide_steps_are_taken_one_by_one() -> None:
    assert scans.chunk_length(1024, 1 << 20) == 1024
    assert 8 < scans.chunk_length(1024, 2048) < 64
    assert scans.chunk_length(5, 10) == 5
