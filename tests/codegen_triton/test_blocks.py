"""Blocks of steps: every number of steps that can be picked, around every length, both ways."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from codegen_triton.support import Emitted, compare, emit
from interpreter.specs import example, small_arguments
from scanc_runtime.tiling import forced

TOLERANCE = {torch.float32: 5e-6, torch.float64: 1e-12}


@cache
def emitted(name: str, segment: int) -> Emitted:
    return emit(example(name), segment=segment)


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANC_POISON", "1")


def check(name: str, segment: int, unroll: int, time: int, *, reverse: bool, dtype: torch.dtype) -> None:
    spec = emitted(name, segment)
    with forced(unroll=unroll):
        found = compare(spec, small_arguments(spec.program, time=time), dtype=dtype, reverse=reverse)
    assert all(error < TOLERANCE[dtype] for error in found.values()), found


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("time", [0, 1, 3, 4, 5, 8, 11])
@pytest.mark.parametrize("name", ["hgrn", "selective_ssm"])
def test_lengths_around_a_block(name: str, time: int, reverse: bool) -> None:
    check(name, 4, 4, time, reverse=reverse, dtype=torch.float32)


@pytest.mark.parametrize("unroll", [1, 2, 4, 8])
@pytest.mark.parametrize("name", ["ema", "lru", "mlstm", "viterbi"])
def test_segments_of_several_blocks(name: str, unroll: int) -> None:
    check(name, 8, unroll, 19, reverse=unroll == 2, dtype=torch.float64)


@pytest.mark.parametrize("unroll", [16, 32])
def test_the_longest_blocks(unroll: int) -> None:
    check("hgrn", 32, unroll, 2 * unroll + 3, reverse=False, dtype=torch.float64)


def test_forward_blocks_longer_than_segments() -> None:
    """The block sizes that are picked for one axis: 32 steps forward, checkpoints every 16."""
    spec = emit(example("hgrn"), segment=16)
    found = compare(spec, small_arguments(spec.program, time=50), dtype=torch.float64)
    assert all(error < 1e-12 for error in found.values()), found
