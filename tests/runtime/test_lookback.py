"""How look-back kernels are laid out, whatever the sizes."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from scanc_runtime.errors import ArgumentError
from scanc_runtime.lookback import LookbackTiling


@dataclass
class Call:
    sizes: dict[str, int]
    real: torch.dtype = torch.float32
    width: int = 4


def tiling(rows: int, past: int, *, light: bool) -> LookbackTiling:
    return LookbackTiling(
        "it", axis="d", grid=("h",), states=1, rows=rows, past=past, most=16, light=light, segment=16 if light else 8
    )


@pytest.mark.parametrize("size", [0, 1, 5, 48, 64, 96, 2048])
@pytest.mark.parametrize("width", [2, 4])
@pytest.mark.parametrize(("rows", "past"), [(1, 0), (3, 1), (8, 2)])
@pytest.mark.parametrize("light", [False, True])
def test_rows_and_words_lie_alike(size: int, width: int, rows: int, past: int, light: bool) -> None:
    chosen = tiling(rows, past, light=light)
    blocks = chosen.blocks(Call({"d": size, "h": 3}, width=width))
    constants = blocks.constants
    assert constants["chunks"] * constants["block_d"] == 64 * blocks.num_warps
    assert constants["group"] >= constants["chunks"]
    assert blocks.programs["d"] * constants["block_d"] >= size
    assert blocks.programs["h"] == 3
    assert not past or blocks.unroll % chosen.segment == 0


@pytest.mark.parametrize(
    ("size", "width", "layout"),
    [(2048, 4, (32, 8, 4)), (2048, 2, (64, 4, 4)), (64, 4, (64, 8, 8)), (64, 2, (64, 8, 8)), (5, 4, (8, 64, 8))],
)
def test_blocks_are_narrow_where_numbers_are_wide_and_channels_many(
    size: int, width: int, layout: tuple[int, int, int]
) -> None:
    blocks = tiling(2, 0, light=True).blocks(Call({"d": size, "h": 1}, width=width))
    assert (blocks.constants["block_d"], blocks.constants["chunks"], blocks.num_warps) == layout


def test_few_channels_have_nests_of_large_groups() -> None:
    few, many = (tiling(2, 0, light=True).blocks(Call({"d": size, "h": 1})).constants for size in (64, 2048))
    assert (few["group"], few["nest"]) == (16, 16)
    assert (many["group"], many["nest"]) == (8, 1)


def test_the_layout_is_chosen_once() -> None:
    chosen = tiling(2, 0, light=True)
    assert chosen.blocks(Call({"d": 7, "h": 1})) is chosen.blocks(Call({"d": 7, "h": 1}))


def test_states_of_64_bits_are_refused() -> None:
    with pytest.raises(ArgumentError, match='form="recurrent" takes it'):
        tiling(2, 0, light=True).blocks(Call({"d": 7, "h": 1}, torch.float64))
