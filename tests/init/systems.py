"""Linear systems driven by signals, solved exactly, and the bases and quadratures that they are held against."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.polynomial import legendre
from torch import Tensor

F64 = torch.float64


def tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))


def quadrature(low: float, high: float, panels: int = 40) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [low, high]: 20 Gauss-Legendre points in each of some equal panels."""
    x, w = legendre.leggauss(20)
    edges = np.linspace(low, high, panels + 1)
    half = (edges[1:] - edges[:-1])[:, None] / 2
    return tensor((edges[:-1, None] + half * (x + 1)).ravel()), tensor((half * w).ravel())


def legendre_basis(N: int, z: Tensor) -> Tensor:
    """√(2n+1) P_n(z), [N, *z]: orthonormal under the uniform probability on [-1, 1]."""
    norms = (2 * torch.arange(N, dtype=F64) + 1).rsqrt()
    return tensor(legendre.legvander(z.numpy(), N - 1)).mT / norms[:, None]


def fourier_basis(N: int, s: Tensor) -> Tensor:
    """cos(2πms) and sin(2πms) in turn, [N, *s], √2 times those with m > 0."""
    angles = 2 * math.pi * torch.arange(N // 2, dtype=F64)[:, None] * s
    basis = torch.stack([angles.cos(), angles.sin()], dim=1).flatten(0, 1) * math.sqrt(2)
    basis[0] = 1
    return basis


class Sinusoids:
    """A random sum of sinusoids: f(t) = Σ a_i sin(w_i t + p_i)."""

    def __init__(self, seed: int, frequencies: list[float]) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.w = torch.tensor(frequencies, dtype=F64)
        self.a, self.p = torch.randn(2, len(frequencies), dtype=F64, generator=generator)

    def __call__(self, t: Tensor) -> Tensor:
        return (self.a * torch.sin(self.w * t[..., None] + self.p)).sum(-1)

    def generator(self, t: float) -> tuple[Tensor, Tensor, Tensor]:
        """(S, w, z) with f(t + s) = w · exp(sS) z."""
        n = len(self.w)
        S = torch.zeros(2 * n, 2 * n, dtype=F64)
        z, read = torch.zeros(2, 2 * n, dtype=F64)
        for i in range(n):
            S[2 * i, 2 * i + 1], S[2 * i + 1, 2 * i] = self.w[i], -self.w[i]
            z[2 * i], z[2 * i + 1] = torch.sin(self.w[i] * t + self.p[i]), torch.cos(self.w[i] * t + self.p[i])
            read[2 * i] = self.a[i]
        return S, read, z


class Polynomial:
    """A random polynomial of a degree: f(t) = Σ a_k t^k / k!."""

    def __init__(self, seed: int, degree: int) -> None:
        self.a = torch.randn(degree + 1, dtype=F64, generator=torch.Generator().manual_seed(seed))

    def __call__(self, t: Tensor) -> Tensor:
        return sum(a * t**k / math.factorial(k) for k, a in enumerate(self.a))

    def generator(self, t: float) -> tuple[Tensor, Tensor, Tensor]:
        n = len(self.a)
        z = torch.tensor([t**k / math.factorial(k) for k in range(n)], dtype=F64)
        return torch.diag(torch.ones(n - 1, dtype=F64), -1), self.a, z


def run(A: Tensor, B: Tensor, signal: Sinusoids | Polynomial, x: Tensor, begin: float, end: float) -> Tensor:
    """x(end) of x' = A x + B f(t) from x(begin): the exponential of system and signal together."""
    S, read, z = signal.generator(begin)
    joint = torch.cat([torch.cat([A, B[:, None] * read], 1), torch.cat([torch.zeros(len(S), len(A)), S], 1)])
    return (torch.linalg.matrix_exp((end - begin) * joint) @ torch.cat([x, z]))[: len(A)]


def run_scaled(A: Tensor, B: Tensor, f: Callable[[Tensor], Tensor], x: Tensor, begin: float, end: float) -> Tensor:
    """x(end) of x' = (A x + B f(t)) / t, by Runge and Kutta's method in log t, fourth order."""
    steps = 4000
    h = math.log(end / begin) / steps

    def slope(log_t: float, x: Tensor) -> Tensor:
        return A @ x + B * f(torch.tensor(math.exp(log_t), dtype=F64))

    for i in range(steps):
        s = math.log(begin) + i * h
        k1 = slope(s, x)
        k2 = slope(s + h / 2, x + h / 2 * k1)
        k3 = slope(s + h / 2, x + h / 2 * k2)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + slope(s + h, x + h * k3))
    return x


def response(A: Tensor, B: Tensor, times: Tensor) -> Tensor:
    """The impulse response exp(tA) B, [N, times]."""
    return torch.stack([torch.linalg.matrix_exp(t * A) @ B for t in times], dim=-1)
