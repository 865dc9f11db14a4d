"""The time of a memory shared out between programs, where sequences are few: the states that its segments begin with.

A first kernel, a generated one, walks each segment from nothing: what it writes into the state, and what is left behind
it of what was there.  `carry_kernel` turns these into the states that segments begin with, and the kernels of all parts
then walk the segments side by side.  The first walk multiplies no queries, so that it takes about half the time of one
of them.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,misc"

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from math import prod
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from scanc_runtime.auto import multiprocessors
from scanc_runtime.launch import Call, Split

_LONG = 4096  # steps from which segments gain more than two more launches cost
_CARRIED, _GROUP = 256, 8  # numbers of a state that a program carries, and segments that it reads ahead


class Segments(Split):
    """The time of a call in `chunks` segments of `span` steps, the last of them shorter, whichever way it is walked."""

    @cached_property
    def times(self) -> dict[str, int]:
        """The arguments of kernels."""
        return {"T": self.time, "segments": self.chunks, "span": self.span}

    def states(self, call: Call, sizes: Sequence[int]) -> Any:
        """Memory for the states that segments end, and then begin, with: [segments, B, *sizes]."""
        return call.new((self.chunks, call.batch, *sizes), torch.float32)

    def kept(self, call: Call, grid: Sequence[int], along: Sequence[int] = ()) -> Any:
        """Memory for what is left of a state behind each segment: [B, *grid, segments, *along]."""
        return call.new((call.batch, *grid, self.chunks, *along), torch.float32)

    def carry(
        self,
        call: Call,
        start: Tensor | None,
        states: Tensor,
        kept: Tensor | None,
        kept_rows: Tensor | None,
        kept_columns: Tensor | None,
        *,
        reverse: bool,
    ) -> None:
        """Puts the states that segments begin with, from `start` or nothing on, where those are that they end with.

        `kept`: what is left of a state behind each segment, of its rows and of its columns; all where there is none.
        `reverse`: the last is walked first.
        """
        if states.numel() == 0:
            return
        height, width = states.shape[-2:]
        rows, size = prod(states.shape[1:-2]), height * width
        flat = None if start is None else start.reshape(rows, size).contiguous()
        constants = {"reverse": reverse, "block": _CARRIED, "group": _GROUP}
        tensors = flat, states, kept, kept_rows, kept_columns
        grid = rows, -(-size // _CARRIED)
        call.launch(carry_kernel, grid, *tensors, rows, height, width, self.chunks, **constants, num_warps=2)


def segments(call: Call, programs: int, stretch: int, forced: int | None = None) -> Segments:
    """The time in segments of whole stretches of steps: as many as there is room for on the chip beside `programs`.

    One where the time is short, or the chip is busy without.
    """
    room = multiprocessors(call.device) // max(1, programs) if call.time >= _LONG else 1
    span = -(-max(1, call.time) // (max(1, forced or room) * stretch)) * stretch
    return Segments(call.batch, max(1, -(-call.time // span)), span, call.time)


@triton.jit(do_not_specialize=["segments"])
def carry_kernel(
    start_ptr,  # [rows, height, width]
    states_ptr,  # [segments, rows, height, width]
    kept_ptr,  # [rows, segments]
    kept_rows_ptr,  # [rows, segments, height]
    kept_columns_ptr,  # [rows, segments, width]
    rows,
    height,
    width,
    segments,
    reverse: tl.constexpr,
    block: tl.constexpr,
    group: tl.constexpr,
):
    """The states that segments begin with, in place of those that they end with from nothing, always in one order.

    Each program: a block of the numbers of one row's state, segment by segment as the time is walked.
    """
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * block + tl.arange(0, block)
    size = height * width
    inside = at < size
    if start_ptr is None:
        state = tl.zeros([block], tl.float32)
    else:
        state = tl.load(start_ptr + row * size + at, mask=inside, other=0.0).to(tl.float32)
    for early in range(0, segments, group):
        ends = ()
        left = ()
        for i in tl.static_range(group):
            segment = segments - 1 - early - i if reverse else early + i
            alive = early + i < segments
            place = (tl.cast(segment, tl.int64) * rows + row) * size + at
            ends += (tl.load(states_ptr + place, mask=inside & alive, other=0.0),)  # type: ignore[assignment]
            behind = row * segments + segment
            kept = tl.full([block], 1.0, tl.float32)
            if kept_ptr is not None:
                kept *= tl.load(kept_ptr + behind, mask=alive, other=0.0)
            if kept_rows_ptr is not None:
                kept *= tl.load(kept_rows_ptr + behind * height + at // width, mask=inside & alive, other=0.0)
            if kept_columns_ptr is not None:
                kept *= tl.load(kept_columns_ptr + behind * width + at % width, mask=inside & alive, other=0.0)
            left += (kept,)  # type: ignore[assignment]
        for i in tl.static_range(group):
            segment = segments - 1 - early - i if reverse else early + i
            alive = early + i < segments
            place = (tl.cast(segment, tl.int64) * rows + row) * size + at
            tl.store(states_ptr + place, state, mask=inside & alive)
            # What is left may have overflowed where nothing is.
            state = tl.where(state == 0, 0.0, state * left[i]) + ends[i]
