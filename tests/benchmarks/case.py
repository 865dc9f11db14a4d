"""A spec at one size, and what benchmarks ask of its tensors.  Imports nothing of scanc, whose import is timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Shape = tuple[int, ...]
FIXED = ("slope", "g_gamma")
"""Decays that no peer differentiates, in our words and in theirs."""


@dataclass(frozen=True)
class Case:
    """One spec at one size: batch, time, widths. `dtype` is that of inputs; params are fp32."""

    spec: str
    shape: Shape
    dtype: torch.dtype

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @property
    def label(self) -> str:
        return f"{self.spec} {self.shape} {self.dtype_name}"


def chosen(
    shapes: Mapping[str, Sequence[Shape]],
    dtypes: Mapping[str, Sequence[torch.dtype]],
    only: str | None = None,
    *,
    index: int | None = None,
    quick: bool = False,
) -> list[Case]:
    """Every spec, dtype and shape, or those of one spec or of one place among its shapes.

    `quick`: the last dtype, and the first shape if no other is asked for.
    """
    place = 0 if quick and index is None else index
    found = []
    for spec, sizes in shapes.items():
        kept = [shape for i, shape in enumerate(sizes) if place in (None, i)]
        if only in (None, spec):
            found += [Case(spec, shape, dtype) for dtype in dtypes[spec][-1 if quick else 0 :] for shape in kept]
    return found


def leaves(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those that take gradients, from now on."""
    return {name: x.requires_grad_() for name, x in tensors.items() if name not in FIXED}


def bytes_moved(tensors: Mapping[str, Tensor]) -> tuple[int, int]:
    """Bytes that have to move, forward and backward: every tensor once. The output is as large as the first tensor.

    Of a gated scan 3 and 5 words per element.
    """
    read = sum(x.nbytes for x in tensors.values())
    written = sum(x.nbytes for name, x in tensors.items() if name not in FIXED)
    out = next(iter(tensors.values())).nbytes
    return read + out, read + out + written
