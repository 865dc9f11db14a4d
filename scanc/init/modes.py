"""HiPPO in the eigenvectors of its normal part: diagonal plus low rank, with one of each conjugate pair kept."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from scanc.init.arguments import complex_dtype, even
from scanc.init.matrices import nplr


class DPLR(NamedTuple):
    """x' = diag(Lambda) x - P (Pᴴ x) + B u over all conjugate pairs, of which these are one half.

    `Lambda` [N/2], `P` [N/2, r] and `B` [N/2], all complex. `V` [N, N/2] holds the eigenvectors: with the conjugate
    ones beside them they are unitary, a real state is 2 Re(V x), and the C of a real read-out becomes C V.
    So A = 2 Re(V diag(Lambda) Vᴴ) - p pᵀ with p = 2 Re(V P), and the real product Pᴴ x over all pairs is 2 Re(Pᴴ x)
    over the half.
    """

    Lambda: Tensor
    P: Tensor
    B: Tensor
    V: Tensor


def dplr(
    measure: str, N: int, *, window: float | None = None, beta: float | None = None, dtype: torch.dtype | None = None
) -> DPLR:
    """HiPPO as S4 is initialised, diagonal plus low rank: (Lambda [N/2], P [N/2, r], B [N/2], V [N, N/2]), complex.

    S4 (Gu et al., 2021, arXiv:2111.00396), theorem 1: A = V (diag(Lambda) - P Pᴴ) Vᴴ, where
    S = V diag(Lambda) Vᴴ is the normal part of `nplr`, and P and B are Vᴴ times those of `nplr`. The eigenvectors
    come from the antisymmetric part of S, whose eigenproblem is Hermitian: A itself has eigenvectors of condition
    10^11 at N = 16.

    Imaginary parts are ascending and not negative; they begin with 0 for fout only. Eigenvectors have the phase that
    makes B real and positive.

    Args:
        measure: legs, legt, lagt or fout.
        N: number of real states, even.
        window: legt, fout: as in `hippo`.
        beta: lagt: as in `hippo`.
        dtype: complex, or the real dtype of its parts; None is torch's default.

    Raises:
        ArgumentError: N is odd; and as `hippo`.
    """
    dtype = complex_dtype(dtype)
    even(N)
    S, P, B = nplr(measure, N, window=window, beta=beta, dtype=torch.float64)
    omega, V = _upper_half((S - S.mT) / 2)
    phases = V.mH @ B.to(V.dtype)
    V = V * (phases / phases.abs())
    Lambda = torch.complex(S[0, 0].expand(N // 2), omega)
    return DPLR(Lambda.to(dtype), (V.mH @ P.to(V.dtype)).to(dtype), phases.abs().to(dtype), V.to(dtype))


def _upper_half(antisymmetric: Tensor) -> tuple[Tensor, Tensor]:
    """Of the eigenvalues ±iω of a real antisymmetric matrix, the ω >= 0, ascending [N/2], and eigenvectors [N, N/2].

    The eigenvectors and their conjugates are orthonormal together. Eigenvectors of ω = 0 may be real, and then are
    not orthogonal to their conjugates; so two real ones, a and b, become (a + ib)/√2.
    """
    half = len(antisymmetric) // 2
    omega, V = torch.linalg.eigh(-1j * antisymmetric)
    omega, V = omega[half:], V[:, half:]
    zeros = int((omega <= 1e-12 * omega[-1]).sum())
    if zeros:
        real = torch.linalg.svd(antisymmetric).Vh[-2 * zeros :].mT
        omega[:zeros] = 0
        V[:, :zeros] = torch.complex(real[:, :zeros], real[:, zeros:]) / math.sqrt(2)
    return omega, V
