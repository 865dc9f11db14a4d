"""Layouts of kernels: as the model says, as forced, or as tuned; a tuned choice is only taken if it is legal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from scanc_runtime import cache, tuned
from scanc_runtime.tiling import Tiling, forced, watched

LINE, CPU = ("d",), torch.device("cpu")


def tiling(past: bool = False, work: int = 13) -> Tiling:
    return Tiling(
        "ema", grid=(), split=LINE, summed=(), full=(), tiles=(LINE,), resident=(LINE, LINE), rows=(LINE,),
        past=(LINE,) if past else (), folds=(), work=work, segment=16,
    )  # fmt: skip


@dataclass
class Sized:
    sizes: Mapping[str, int] = field(default_factory=lambda: {"d": 512})
    batch: int = 2
    real: torch.dtype = torch.float32
    width: int = 4
    digest: str = "abc123"
    device: torch.device = CPU


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache."""
    monkeypatch.setenv(cache.DIRECTORY, str(tmp_path / "cache"))
    tuned.forget()


def test_the_digest_is_of_what_the_compiler_knows() -> None:
    assert tiling().digest == tiling().digest
    assert len({tiling().digest, tiling(past=True).digest, tiling(work=14).digest}) == 3


def store(of: Tiling, choice: tuned.Choice) -> None:
    with watched() as seen:
        of.blocks(Sized())
    tuned.store(seen[of.digest].key, choice)


def test_a_tuned_choice_is_taken_where_it_fits() -> None:
    of = tiling()
    before = of.blocks(Sized())
    store(of, {"blocks": {"d": 256}, "num_warps": 4, "unroll": 2, "prefetch": 3})
    found = of.blocks(Sized())
    assert (found.constants["block_d"], found.num_warps, found.unroll, found.constants["prefetch"]) == (256, 4, 2, 3)
    assert tiling().blocks(Sized()) == found
    for other in (Sized({"d": 513}), Sized(real=torch.float64), Sized(width=2), Sized(digest="def456")):
        assert tiling().blocks(other).constants["block_d"] != 256
    with forced():
        assert of.blocks(Sized()) == before


@pytest.mark.parametrize(
    "choice",
    [
        {"blocks": {"d": 3}},
        {"blocks": {"e": 4}},
        {"blocks": {"d": 1 << 20}},
        {"blocks": [64]},
        {"num_warps": 3},
        {"num_warps": 64},
        {"unroll": 32},
        {"unroll": 0},
        {"unroll": "8"},
        {"prefetch": -1},
        {"prefetch": 2.5},
    ],
)
def test_an_illegal_choice_is_not(choice: tuned.Choice) -> None:
    of = tiling(past=True)
    before = of.blocks(Sized())
    store(of, choice)
    assert of.blocks(Sized()) == before
