"""The distributions of the linear recurrent unit's ring and of steps."""

from __future__ import annotations

import math

import pytest
import torch
from init.systems import F64
from torch import Tensor
from torch.nn.functional import softplus

from scanc.init import log_step, lru, step_bias

MANY = 20_000


def far_from_uniform(values: Tensor, low: float, high: float) -> float:
    """The largest distance between the distribution of the values and the uniform one, times √n (Kolmogorov)."""
    assert values.min() >= low
    assert values.max() <= high
    ranks = torch.arange(1, len(values) + 1, dtype=F64) / len(values)
    return ((values.sort().values - low) / (high - low) - ranks).abs().max().item() * len(values) ** 0.5


LIKELY = 1.95
"""Exceeded by one sample in a thousand."""


def ring(**options: float) -> tuple[Tensor, Tensor, Tensor]:
    """Modulus, angle and scale of many eigenvalues."""
    nu_log, theta_log, gamma_log = lru(MANY, **options, dtype=F64, generator=torch.Generator().manual_seed(1))
    return (-nu_log.exp()).exp(), theta_log.exp(), gamma_log.exp()


@pytest.mark.parametrize(
    ("low", "high", "phase"), [(0.0, 1.0, 2 * math.pi), (0.9, 0.999, math.pi / 10), (0.0, 0.5, 1.0), (0.9999, 1.0, 3.0)]
)
def test_the_ring(low: float, high: float, phase: float) -> None:
    radius, angle, scale = ring(r_min=low, r_max=high, max_phase=phase)
    assert far_from_uniform(radius**2, low**2 - 1e-15, high**2 + 1e-15) < LIKELY
    assert far_from_uniform(angle, 0, phase + 1e-15) < LIKELY
    assert abs(torch.corrcoef(torch.stack([radius, angle]))[0, 1]) < 4 / MANY**0.5
    torch.testing.assert_close(scale**2, 1 - radius**2, rtol=0, atol=1e-15)
    assert (radius < 1).all()


def test_a_circle() -> None:
    radius, _, _ = ring(r_min=0.8, r_max=0.8)
    torch.testing.assert_close(radius, torch.full_like(radius, 0.8))


def test_the_scale_keeps_the_variance() -> None:
    nu_log, theta_log, gamma_log = lru(400, r_min=0.3, r_max=0.9, dtype=F64, generator=torch.Generator().manual_seed(3))
    Lambda, scale = torch.polar((-nu_log.exp()).exp(), theta_log.exp()), gamma_log.exp()
    x, squares = torch.zeros(400, dtype=torch.complex128), []
    for u in torch.randn(3000, 400, dtype=torch.complex128, generator=torch.Generator().manual_seed(4)):
        x = Lambda * x + scale * u
        squares.append(x.abs().square())
    assert abs(torch.stack(squares[100:]).mean().item() - 1) < 0.02


@pytest.mark.parametrize(("low", "high"), [(0.001, 0.1), (1e-6, 1.0), (0.01, 0.01)])
def test_steps(low: float, high: float) -> None:
    logs = log_step(MANY, dt_min=low, dt_max=high, dtype=F64, generator=torch.Generator().manual_seed(2))
    biases = step_bias((MANY,), dt_min=low, dt_max=high, dtype=F64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(softplus(biases), logs.exp(), rtol=1e-9, atol=0)
    if low < high:
        assert far_from_uniform(logs, math.log(low), math.log(high)) < LIKELY
    else:
        assert (logs == math.log(low)).all()


def test_steps_in_single_precision() -> None:
    steps = softplus(step_bias((50, 40), dt_min=1e-4, dt_max=10.0, generator=torch.Generator().manual_seed(5)))
    assert steps.shape == (50, 40)
    assert steps.min() > 1e-4 * (1 - 1e-5)
    assert steps.max() < 10 * (1 + 1e-5)
