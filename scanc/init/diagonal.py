"""Diagonal state matrices: the diagonal part of HiPPO-LegS, what approximates it, and the real one of Mamba."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scanc.init.arguments import complex_dtype, count, even, real_dtype, whole
from scanc.init.modes import dplr


def s4d_legs(N: int, *, dtype: torch.dtype | None = None) -> Tensor:
    """S4D-LegS: the eigenvalues [N/2] of HiPPO-LegS' normal part, complex, the low rank dropped.

    S4D (Gu et al., 2022, arXiv:2206.11893), section 4 and theorem 3: with half of HiPPO's B, which is half of
    `dplr("legs", N).B`, the system without the low rank nears HiPPO-LegS as N grows. Its transfer function does: the
    impulse responses differ by ripples, which smooth inputs do not see. The real parts are -1/2. Imaginary parts are
    positive and ascending, the conjugates left out.

    Raises:
        ArgumentError: N, the number of real states, is odd.
    """
    return dplr("legs", N, dtype=dtype).Lambda


def s4d_inv(N: int, *, dtype: torch.dtype | None = None) -> Tensor:
    """S4D-Inv: Lambda_n = -1/2 + i (N/π)(N/(2n+1) - 1) for n = 0 … N/2-1, complex [N/2].

    S4D (Gu et al., 2022, arXiv:2206.11893), equation 8: the asymptotic law of the eigenvalues of S4D-LegS,
    here from the fastest to the slowest.

    Raises:
        ArgumentError: N, the number of real states, is odd.
    """
    dtype = complex_dtype(dtype)
    even(N)
    return _oscillating(N / math.pi * (N / (2 * count(N // 2) + 1) - 1)).to(dtype)


def s4d_lin(N: int, *, dtype: torch.dtype | None = None) -> Tensor:
    """S4D-Lin: Lambda_n = -1/2 + iπn for n = 0 … N/2-1, complex [N/2].

    S4D (Gu et al., 2022, arXiv:2206.11893), equation 9: the frequencies of the Fourier basis of a window of
    length 2, as in `dplr("fout", N, window=2)`, damped.

    Raises:
        ArgumentError: N, the number of real states, is odd.
    """
    dtype = complex_dtype(dtype)
    even(N)
    return _oscillating(math.pi * count(N // 2)).to(dtype)


def s4d_real(N: int, *, dtype: torch.dtype | None = None) -> Tensor:
    """S4D-Real, the A of Mamba: A_n = -(n+1) for n = 0 … N-1, real [N].

    Mamba (Gu and Dao, 2023, arXiv:2312.00752), section 3.6: the eigenvalues of HiPPO-LegS itself.

    Raises:
        ArgumentError: N is no positive integer.
    """
    dtype = real_dtype(dtype)
    whole("N", N)
    return -(count(N) + 1).to(dtype)


def _oscillating(frequency: Tensor) -> Tensor:
    """-1/2 + i frequency."""
    return torch.complex(torch.full_like(frequency, -0.5), frequency)
