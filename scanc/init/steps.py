"""Initial steps of continuous-time models, uniform in their logarithm: time scales from 1/dt_max to 1/dt_min steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scanc.init.arguments import ascending, real_dtype, uniform, within


def log_step(
    shape: int | Sequence[int],
    *,
    dt_min: float = 0.001,
    dt_max: float = 0.1,
    dtype: torch.dtype | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Logarithms of steps, uniform between log dt_min and log dt_max: what S4, S4D and S5 learn. Real, of `shape`.

    How to Train Your HiPPO (Gu et al., 2022, arXiv:2206.12037), on timescales: a system of time scale 1 remembers about
    1/dt time steps, so dt_min is the inverse of the longest dependence.

    Args:
        shape: of the result, for instance the number of channels.
        dt_min, dt_max: the range of steps, 0 < dt_min <= dt_max.
        dtype: of the result; None is torch's default.
        generator: a CPU generator of the random numbers.

    Raises:
        ArgumentError: the range is not one of positive numbers.
    """
    dtype = real_dtype(dtype)
    return _log_uniform(shape, dt_min, dt_max, generator).to(dtype)


def step_bias(
    shape: int | Sequence[int],
    *,
    dt_min: float = 0.001,
    dt_max: float = 0.1,
    dtype: torch.dtype | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Biases under the softplus of Mamba's steps: softplus(bias) has the distribution of `log_step`. Real, of `shape`.

    Mamba (Gu and Dao, 2023, arXiv:2312.00752), section 3.6: the inverse of softplus, dt + log(1 - e^-dt), at random
    steps dt. They are uniform in their logarithm, as in the paper's code.

    Arguments and errors are those of `log_step`.
    """
    dtype = real_dtype(dtype)
    step = _log_uniform(shape, dt_min, dt_max, generator).exp()
    return (step + torch.log(-torch.expm1(-step))).to(dtype)


def _log_uniform(shape: int | Sequence[int], dt_min: float, dt_max: float, generator: torch.Generator | None) -> Tensor:
    within("dt_min", dt_min, 0, math.inf)
    within("dt_max", dt_max, 0, math.inf)
    ascending("dt_min", dt_min, "dt_max", dt_max)
    low, high = math.log(dt_min), math.log(dt_max)
    return low + (high - low) * uniform(shape, generator)
