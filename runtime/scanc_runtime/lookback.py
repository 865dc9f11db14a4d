"""Scans in one pass over memory, the time shared out between programs: how they are laid out, and launched.

A program has one tile of time: `chunks` stretches of `steps` steps, of a block of channels, one stretch of few channels
to a thread.  What comes before a tile it learns by looking back (`triton_scan`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor

from scanc_runtime.errors import ArgumentError
from scanc_runtime.launch import Call
from scanc_runtime.tiling import Blocks, Sized, power_of_two, warps_of
from scanc_runtime.triton_scan import HEAD

_CHANNELS, _LANES = 2, 32
"""Channels of a thread: rows and words then lie over threads alike, so that nothing moves between these."""
_WARPS, _WARPS_ALONE, _ALONE = 4, 8, 4  # of a program; of one of so few to a sequence, which has many tiles in flight
_BLOCK, _BLOCK_WIDE = 64, 32  # channels of a program; of one that reads numbers of 4 bytes
_AT_ONCE, _LARGEST_GROUP = 512, 16
"""Programs that run at once, about; and the most tiles of a group."""
_BUSY = 256  # tiles in whose time one group hears of another, about
_ROWS, _FOR_MORE = 128, 64  # registers of a thread for the rows of a tile; and for those of twice the steps
_FEW, _REGISTERS = 96, 128  # registers for rows with which these are enough in all, for 16 warps a multiprocessor


@dataclass
class LookbackTiling:
    """What the compiler knows of a kernel's tiles.

    `axis` is shared out in blocks, `grid` axes one index a program.  Of each step a thread reads `rows` and keeps
    `past` states; it takes at most `most` steps, and a whole number of `segment`s if it starts from saved states.
    `states`: the states that are carried.  `light`: a step is little work.
    """

    name: str
    axis: str
    grid: tuple[str, ...]
    states: int
    rows: int
    past: int
    most: int
    light: bool
    segment: int
    _known: dict[Any, Blocks] = field(default_factory=dict)

    def blocks(self, call: Sized) -> Blocks:
        """How to lay the kernel over programs. Raises ArgumentError where states take more than 32 bits."""
        if call.real != torch.float32:
            raise ArgumentError(
                f"{self.name}: form parallel carries states in 32 bits",
                expected="a call that computes in float32",
                got=f"one that computes in {str(call.real).removeprefix('torch.')}",
                hint='form="recurrent" takes it',
            )
        key = (tuple(call.sizes[axis] for axis in (*self.grid, self.axis)), call.width, _forced)
        if key not in self._known:
            self._known[key] = self._choose(call)
        return self._known[key]

    def run(
        self,
        call: Call,
        blocks: Blocks,
        kernel: Any,
        tensors: Sequence[Tensor | None],
        ranks: Sequence[int],
        **flags: Any,
    ) -> None:
        """Launches `kernel`: a program per tile of time, row of the batch and block of channels."""
        count, cells = tiles(call, blocks), blocks.cells(self.axis)
        groups = -(-count // blocks.constants["group"])
        nest = blocks.constants["nest"]
        count_all = count + groups + (-(-groups // nest) if nest > 1 else 0)
        words = count_all * call.batch * blocks.per_sequence * cells
        scratch = call.new((HEAD.value + self.states * words,), torch.int64).fill_(-1)  # -1: not there yet
        call.run(kernel, blocks, tensors, ranks, [scratch], tiles=count, **flags)

    def _choose(self, call: Sized) -> Blocks:
        size = call.sizes[self.axis]
        grid = {axis: call.sizes[axis] for axis in self.grid}
        alone = self.light and prod(grid.values()) * -(-size // _BLOCK) <= _ALONE
        most = _BLOCK if alone or call.width < 4 else _BLOCK_WIDE
        block = _forced.block or min(most, max(8, power_of_two(size)))
        programs = grid | {self.axis: max(1, -(-size // block))}
        warps = _WARPS_ALONE if alone else _WARPS
        chunks = _forced.chunks or max(1, _CHANNELS * _LANES * warps // block)
        warps = _forced.num_warps or warps_of(warps, wide=torch.version.hip is not None)
        per_step = _CHANNELS * (self.rows * max(call.width, 2) / 4 + self.past)
        least = self.segment if self.past else 4
        steps = max(self.most, least)
        while steps > least and (steps * per_step > _ROWS or (self.past and not self.light)):
            steps //= 2
        if self.light and not self.past and 2 * steps * per_step <= _FOR_MORE:
            steps *= 2
        few = self.light and (steps * per_step <= _FEW or warps == _WARPS_ALONE) and torch.version.hip is None
        constants = {f"size_{axis}": call.sizes[axis] for axis in (*self.grid, self.axis)}
        if _forced.steps is not None:
            steps = max(_forced.steps, self.segment) if self.past else _forced.steps
        constants |= {f"block_{self.axis}": block, "chunks": chunks, "unroll": steps}
        constants["group"] = _forced.group or self._group(programs, chunks)
        constants["nest"] = _forced.nest or self._nest(programs, constants["group"])
        return Blocks(
            constants, programs, constants["unroll"], warps, _forced.registers or (_REGISTERS if few else None)
        )

    def _group(self, programs: Mapping[str, int], chunks: int) -> int:
        """Tiles of a group: about as many as groups that run at once, of one sequence alone.

        A tile reads the words of all before it in its group, and waits for one group after the other.
        """
        at_once = max(1, _AT_ONCE // max(1, prod(programs.values())))
        return max(chunks, min(_LARGEST_GROUP, 2 << (at_once.bit_length() // 2)))

    def _nest(self, programs: Mapping[str, int], group: int) -> int:
        """Groups of a nest: several if tiles of one group are done sooner than one group hears of another."""
        return _LARGEST_GROUP if group * prod(programs.values()) < _BUSY else 1


def tiles(call: Call, blocks: Blocks) -> int:
    """Tiles of time of a call."""
    return max(1, -(-call.time // (blocks.constants["chunks"] * blocks.unroll)))


# --- for tests and tuning: another layout than the chosen one ---


@dataclass(frozen=True)
class _Forced:
    block: int | None = None
    chunks: int | None = None
    steps: int | None = None
    group: int | None = None
    nest: int | None = None
    num_warps: int | None = None
    registers: int | None = None


_forced = _Forced()


@contextmanager
def forced_lookback(
    block: int | None = None,
    chunks: int | None = None,
    steps: int | None = None,
    group: int | None = None,
    nest: int | None = None,
    num_warps: int | None = None,
    registers: int | None = None,
) -> Iterator[None]:
    """Within, tiles have the given channels, chunks and steps of each; groups the given tiles; threads at most the
    given registers.

    All are powers of two; `group` is no less than `chunks`, and backward takes whole segments of steps.
    """
    global _forced
    before = _forced
    _forced = _Forced(block, chunks, steps, group, nest, num_warps, registers)
    try:
        yield
    finally:
        _forced = before
