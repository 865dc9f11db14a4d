"""Partial sums of several results in one memory, so that adding them up is one launch."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from torch import Tensor

_ALIGNED = 16  # elements, so that a kernel is compiled for no less of pointers and strides than alone


class _View(NamedTuple):
    """Where a result lies: in which memory, and the sizes, strides and offset there, of its parts and of the sum."""

    memory: int
    parts: tuple[tuple[int, ...], tuple[int, ...], int]
    total: tuple[tuple[int, ...], tuple[int, ...], int]


class Laid(NamedTuple):
    """The memory for some results: results of as many partial sums lie side by side."""

    memory: list[tuple[int, int]]
    views: list[_View]


def lay_sums(results: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> Laid:
    counts = list(dict.fromkeys(prod(lead) for lead, _ in results))
    widths = [0] * len(counts)
    offsets = []
    for lead, shape in results:
        which = counts.index(prod(lead))
        offsets.append(widths[which])
        widths[which] += -(-prod(shape) // _ALIGNED) * _ALIGNED
    views = []
    for (lead, shape), offset in zip(results, offsets, strict=True):
        which = counts.index(prod(lead))
        inner, outer = _strides(shape), tuple(stride * widths[which] for stride in _strides(lead))
        views.append(_View(which, ((*lead, *shape), (*outer, *inner), offset), (shape, inner, offset)))
    return Laid(list(zip(counts, widths, strict=True)), views)


def _strides(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of a contiguous tensor."""
    return tuple(prod(shape[i + 1 :]) for i in range(len(shape)))


class Sums:
    """The partial sums of several results, in `parts`, and their totals."""

    def __init__(self, memory: list[Tensor], laid: Laid) -> None:
        self._memory = memory
        self._views = laid.views
        self.parts = [_view(memory[view.memory], *view.parts) for view in laid.views]

    def totals(self) -> list[Tensor]:
        """The sums, always in the same order; they are parts of one memory."""
        rows = [memory.sum(0) if memory.shape[0] != 1 else memory for memory in self._memory]
        return [_view(rows[view.memory], *view.total) for view in self._views]


def _view(memory: Tensor, shape: Sequence[int], strides: Sequence[int], offset: int) -> Tensor:
    """A part of some memory; `offset`: from where that begins."""
    return memory.as_strided(shape, strides, memory.storage_offset() + offset)
