"""The linear recurrent unit: eigenvalues spread over a ring of the unit disk."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from scanc.init.arguments import ascending, real_dtype, uniform, whole, within


class LRU(NamedTuple):
    """Lambda = exp(-exp(nu_log) + i exp(theta_log)) and the input's scale exp(gamma_log), each real [N]."""

    nu_log: Tensor
    theta_log: Tensor
    gamma_log: Tensor


def lru(
    N: int,
    *,
    r_min: float = 0.0,
    r_max: float = 1.0,
    max_phase: float = 2 * math.pi,
    dtype: torch.dtype | None = None,
    generator: torch.Generator | None = None,
) -> LRU:
    """The ring of the linear recurrent unit: (nu_log, theta_log, gamma_log), each real [N], N complex eigenvalues.

    Resurrecting Recurrent Neural Networks (Orvieto et al., 2023, arXiv:2303.06349), lemma 3.2 and sections 3.3 and 3.4:
    eigenvalues lambda = exp(-exp(nu_log) + i exp(theta_log)) are uniform in area on the ring between radii r_min and
    r_max, up to the angle max_phase: |lambda|² is uniform in [r_min², r_max²] and the angle in [0, max_phase]. And
    exp(gamma_log) = √(1 - |lambda|²) keeps the state's variance at that of white input.

    Args:
        N: number of complex states.
        r_min, r_max: radii, 0 <= r_min <= r_max <= 1, r_min below 1 and r_max above 0.
        max_phase: the largest angle, in (0, 2π].
        dtype: of the result; None is torch's default.
        generator: a CPU generator of the random numbers.

    Raises:
        ArgumentError: N is no positive integer, or a radius or the angle is out of range.
    """
    dtype = real_dtype(dtype)
    whole("N", N)
    within("r_min", r_min, 0, 1, "[)")
    within("r_max", r_max, 0, 1, "(]")
    ascending("r_min", r_min, "r_max", r_max)
    within("max_phase", max_phase, 0, 2 * math.pi, "(]")
    depth, angle = uniform((2, N), generator)
    gap = (1 - r_max) * (1 + r_max) + depth * (r_max - r_min) * (r_max + r_min)  # 1 - |lambda|²
    nu = -torch.log1p(-gap) / 2
    return LRU(nu.log().to(dtype), (max_phase * angle).log().to(dtype), (gap.log() / 2).to(dtype))
