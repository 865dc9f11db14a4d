"""How close the published tests want results to be, and how far off a kernel may be beside a published one."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite

import torch
from gpu.measure import worst
from torch import Tensor

LEAST = 1e-6
"""Differences that fla's tests do not mind."""
WORSE = 1.5
"""How much further off than the peer a result may be."""
ULPS = {torch.float16: 0.5, torch.bfloat16: 0.5, torch.float32: 8.0}
"""Errors that no peer can forbid: twice those of rounding a result, in fp32 those of sums in another order."""
_SLICES, _ENOUGH = 16, 256


def ratio(found: Tensor, wanted: Tensor) -> float:
    """The RMS of the difference over that of what is right."""
    gap = (found.double() - wanted).square().mean().sqrt()
    return float(gap / (wanted.square().mean().sqrt() + 1e-8))


@dataclass(frozen=True)
class Ratio:
    """fla's measure, unless no element differs by more than `LEAST`."""

    most: float

    def share(self, found: Tensor, wanted: Tensor) -> float:
        """The share of the tolerance that is used up."""
        least = float((found.double() - wanted).abs().max()) <= LEAST
        return 0.0 if least else ratio(found, wanted) / self.most


@dataclass(frozen=True)
class Close:
    """mamba-ssm's measure, `torch.allclose`."""

    rtol: float
    atol: float

    def share(self, found: Tensor, wanted: Tensor) -> float:
        """The share of the tolerance that is used up, where most is."""
        return float(((found.double() - wanted).abs() / (self.atol + self.rtol * wanted.abs())).max())


Bound = Ratio | Close


def share_beside(found: Tensor, theirs: Tensor, wanted: Tensor, axis: int) -> float:
    """The share of `WORSE` that is used up in the worst slice along an axis, of heads or channels.

    Slices hold as many numbers as make two errors comparable. A peer's result that is no number allows any.
    """
    count = max(1, min(_SLICES, wanted.shape[axis], wanted.numel() // _ENOUGH))
    parts = (x.movedim(axis, 0).tensor_split(count) for x in (found, theirs, wanted))
    return worst(_share(*slices) for slices in zip(*parts, strict=True))


def _share(found: Tensor, theirs: Tensor, wanted: Tensor) -> float:
    off = ratio(theirs, wanted)
    rounding = ULPS[found.dtype] * torch.finfo(found.dtype).eps
    return ratio(found, wanted) / (max(WORSE * off, rounding) if isfinite(off) else inf)
