"""HiPPO by what defines it: the state is the projection of the input's history onto the basis of the measure."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from init.systems import (
    F64,
    Polynomial,
    Sinusoids,
    fourier_basis,
    legendre_basis,
    quadrature,
    response,
    run,
    run_scaled,
)
from torch import Tensor

from scanc.init import hippo


def legendre_window(f: Callable[[Tensor], Tensor], N: int, t: float, window: float) -> Tensor:
    """The coefficients [N] of f on [t - window, t] in orthonormal Legendre polynomials."""
    x, w = quadrature(t - window, t)
    return legendre_basis(N, 2 * (x - t) / window + 1) @ (w * f(x)) / window


def fourier_window(f: Callable[[Tensor], Tensor], N: int, t: float, window: float) -> Tensor:
    x, w = quadrature(t - window, t)
    return fourier_basis(N, (t - x) / window) @ (w * f(x)) / window


# LegS: all of the history


@pytest.mark.parametrize("seed", [0, 1])
def test_legs_projects_all_of_the_history(seed: int) -> None:
    N, begin, end = 16, 0.05, 2.0
    f = Sinusoids(seed, [2.0, 4.0, 7.0])
    A, B = hippo("legs", N, dtype=F64)
    x = run_scaled(A, B, f, legendre_window(f, N, begin, begin), begin, end)
    torch.testing.assert_close(x, legendre_window(f, N, end, end), rtol=0, atol=1e-8)
    times = torch.linspace(0, end, 101, dtype=F64)
    rebuilt = x @ legendre_basis(N, 2 * times / end - 1)
    assert (rebuilt - f(times)).abs().max() < 1e-3 * f(times).abs().max()


def test_legs_follows_any_time_scale() -> None:
    A, B = hippo("legs", 8, dtype=F64)
    slow, fast = Sinusoids(2, [3.0, 4.0]), Sinusoids(2, [3000.0, 4000.0])
    start = torch.randn(8, dtype=F64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(run_scaled(A, B, slow, start, 0.1, 1), run_scaled(A, B, fast, start, 1e-4, 1e-3))


def test_legs_without_the_division_warps_time_exponentially() -> None:
    N, times = 10, torch.linspace(0, 5, 51, dtype=F64)
    A, B = hippo("legs", N, dtype=F64)
    warped = (-times).exp()
    torch.testing.assert_close(response(A, B, times), warped * legendre_basis(N, 2 * warped - 1), rtol=0, atol=1e-9)


# LegT: a sliding window


@pytest.mark.parametrize("window", [1.0, 2.5])
def test_legt_is_exact_for_polynomials(window: float) -> None:
    N, begin, end = 8, 0.3, 0.3 + 3 * window
    f = Polynomial(0, N - 1)
    A, B = hippo("legt", N, window=window, dtype=F64)
    x = run(A, B, f, legendre_window(f, N, begin, window), begin, end)
    torch.testing.assert_close(x, legendre_window(f, N, end, window), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("window", [1.0, 40.0])
def test_legt_remembers_the_window(window: float) -> None:
    N, end = 16, 6 * window
    f = Sinusoids(3, [2 / window, 5 / window, 11 / window])
    A, B = hippo("legt", N, window=window, dtype=F64)
    x = run(A, B, f, torch.zeros(N, dtype=F64), 0, end)
    times = torch.linspace(end - window, end, 101, dtype=F64)
    rebuilt = x @ legendre_basis(N, 2 * (times - end) / window + 1)
    assert (rebuilt - f(times)).abs().max() < 1e-3 * f(times).abs().max()


def test_legt_is_the_legendre_memory_unit_in_another_scaling() -> None:
    n = torch.arange(9, dtype=F64)
    A, B = hippo("legt", 9, window=3.0, dtype=F64)
    scale = (2 * n + 1).sqrt() * (-1) ** n
    row, column = n[:, None], n
    unit = (2 * row + 1) * torch.where(row < column, -1.0, (-1) ** (row - column + 1)) / 3  # Voelker et al., 2019
    torch.testing.assert_close(scale[:, None] * A / scale, unit)
    torch.testing.assert_close(scale * B, (2 * n + 1) * (-1) ** n / 3)


# LagT: exponential forgetting


def laguerre(N: int, alpha: float, s: Tensor) -> Tensor:
    """Laguerre polynomials of order alpha, [N, *s], by their recurrence, divided by their norms under s^alpha e^-s."""
    values = [torch.ones_like(s), 1 + alpha - s]
    for n in range(1, N - 1):
        values.append(((2 * n + 1 + alpha - s) * values[n] - (n + alpha) * values[n - 1]) / (n + 1))
    norms = [math.sqrt(math.gamma(n + alpha + 1) / math.factorial(n)) for n in range(N)]
    return torch.stack([value / norm for value, norm in zip(values, norms, strict=False)])


@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 1.0), (0.0, 0.2), (0.4, 1.0), (-0.5, 0.7)])
def test_lagt_projects_under_its_measure(alpha: float, beta: float) -> None:
    N, end = 8, 30.0
    f = Sinusoids(4, [0.3, 1.1])
    A, B = hippo("lagt", N, alpha=alpha, beta=beta, dtype=F64)
    x = run(A, B, f, torch.zeros(N, dtype=F64), 0, end)
    s, w = quadrature(0, end)
    zeta = math.gamma(1 - alpha) * beta ** (alpha - 1)
    basis = math.sqrt(zeta) * laguerre(N, alpha, s) * (-(1 - beta) * s / 2).exp()  # times s^alpha
    measure = (-beta * s).exp() / zeta  # times s^-alpha: the two powers cancel
    torch.testing.assert_close(x, basis @ (w * measure * f(end - s)), rtol=0, atol=1e-10)


def test_lagt_remembers_what_is_recent() -> None:
    N, end = 32, 200.0
    f = Sinusoids(5, [0.1, 0.3, 0.5])
    A, B = hippo("lagt", N, dtype=F64)
    x = run(A, B, f, torch.zeros(N, dtype=F64), 0, end)
    s = torch.linspace(0, 10, 101, dtype=F64)
    assert (x @ laguerre(N, 0, s) - f(end - s)).abs().max() < 1e-3 * f(end - s).abs().max()


# FouT: periods of a sliding window


@pytest.mark.parametrize("window", [1.0, 7.0])
def test_fout_is_exact_for_whole_periods(window: float) -> None:
    N = 12
    f = Sinusoids(6, [2 * math.pi * m / window for m in (1, 3, 5)])
    A, B = hippo("fout", N, window=window, dtype=F64)
    expected = fourier_window(f, N, 9.4 * window, window)
    x = run(A, B, f, fourier_window(f, N, window, window), window, 9.4 * window)
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-9)
    x = run(A, B, f, torch.zeros(N, dtype=F64), -150 * window, 9.4 * window)
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-6)


def test_fout_remembers_the_window_as_it_grows() -> None:
    """Of signals without a period too, with an error that falls as 1/N."""
    f, errors = Sinusoids(7, [1.0, 4.0, 9.0]), []
    for N in (16, 64, 256):
        A, B = hippo("fout", N, dtype=F64)
        x = run(A, B, f, torch.zeros(N, dtype=F64), 0, 5)
        errors.append((x - fourier_window(f, N, 5.0, 1.0)).norm().item())
    assert errors[0] < 0.1
    assert errors[1] < errors[0] / 3
    assert errors[2] < errors[1] / 3


def test_a_sine_of_frequency_zero_stays_zero() -> None:
    A, B = hippo("fout", 10, dtype=F64)
    assert not A[1].any()
    assert not A[:, 1].any()
    assert B[1] == 0


@pytest.mark.parametrize("measure", ["legs", "legt", "lagt", "fout"])
def test_stable(measure: str) -> None:
    A, _ = hippo(measure, 24, dtype=F64)
    settled = torch.linalg.matrix_exp(400 * A)
    if measure == "fout":  # aside from the state that nothing writes or reads
        settled[1, 1] = 0
    assert settled.abs().max() < 1e-3
