"""The normal and low-rank parts of HiPPO, and their diagonal form, are HiPPO."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from init.systems import F64
from torch import Tensor

from scanc.init import DPLR, dplr, hippo, nplr

CASES: list[tuple[str, dict[str, Any]]] = [
    ("legs", {}),
    ("legt", {}),
    ("legt", {"window": 0.3}),
    ("lagt", {}),
    ("lagt", {"beta": 0.1}),
    ("fout", {}),
    ("fout", {"window": 50.0}),
]


def rebuilt(parts: DPLR) -> tuple[Tensor, Tensor]:
    """The real A and B that the half of the conjugate pairs stands for."""
    p = 2 * (parts.V @ parts.P).real
    return 2 * ((parts.V * parts.Lambda) @ parts.V.mH).real - p @ p.mT, 2 * (parts.V @ parts.B).real


@pytest.mark.parametrize("N", [2, 8, 64])
@pytest.mark.parametrize(("measure", "options"), CASES)
def test_normal_minus_low_rank(measure: str, options: dict[str, float], N: int) -> None:
    A, B = hippo(measure, N, **options, dtype=F64)
    S, P, b = nplr(measure, N, **options, dtype=F64)
    assert P.shape == (N, 2 if measure == "legt" else 1)
    assert torch.equal(B, b)
    scale = A.abs().max()
    torch.testing.assert_close((S - P @ P.mT) / scale, A / scale, rtol=0, atol=1e-14)
    torch.testing.assert_close(S @ S.mT / scale**2, S.mT @ S / scale**2, rtol=0, atol=1e-14)
    torch.testing.assert_close(S + S.mT, 2 * S[0, 0] * torch.eye(N, dtype=F64), rtol=0, atol=0)


@pytest.mark.parametrize("N", [2, 4, 16, 64, 256])
@pytest.mark.parametrize(("measure", "options"), CASES)
def test_diagonal_minus_low_rank(measure: str, options: dict[str, float], N: int) -> None:
    A, B = hippo(measure, N, **options, dtype=F64)
    parts = dplr(measure, N, **options, dtype=torch.complex128)
    assert parts.Lambda.shape == parts.B.shape == (N // 2,)
    assert parts.P.shape == (N // 2, 2 if measure == "legt" else 1)
    assert parts.V.shape == (N, N // 2)
    again, drive = rebuilt(parts)
    assert (again - A).abs().max() < 1e-10 * max(1, A.abs().max())
    assert (drive - B).abs().max() < 1e-10
    everything = torch.cat([parts.V, parts.V.conj()], dim=1)
    assert (everything.mH @ everything - torch.eye(N)).abs().max() < 1e-10
    frequencies = parts.Lambda.imag
    assert (frequencies[1:] > frequencies[:-1]).all()
    assert (frequencies > 0).all() or (measure == "fout" and frequencies[0] == 0)
    assert (parts.B.real > 0).all()
    assert not parts.B.imag.any()


@pytest.mark.parametrize(
    ("measure", "real", "options"),
    [("legs", -0.5, {}), ("legt", 0, {}), ("lagt", -0.1, {"beta": 0.2}), ("fout", 0, {})],
)
def test_real_parts(measure: str, real: float, options: dict[str, float]) -> None:
    assert (dplr(measure, 30, **options, dtype=F64).Lambda.real == real).all()


@pytest.mark.parametrize(("measure", "options"), CASES)
def test_half_of_the_state_reads_out_the_whole(measure: str, options: dict[str, float]) -> None:
    """Both systems side by side, in Euler's steps: C x of the real one is 2 Re(C V x) of the half."""
    N, h, generator = 12, 1e-3, torch.Generator().manual_seed(0)
    A, B = hippo(measure, N, **options, dtype=F64)
    Lambda, P, b, V = dplr(measure, N, **options, dtype=F64)
    C = torch.randn(N, dtype=F64, generator=generator)
    x, half = torch.zeros(N, dtype=F64), torch.zeros(N // 2, dtype=torch.complex128)
    for u in torch.randn(50, dtype=F64, generator=generator):
        x = x + h * (A @ x + B * u)
        half = half + h * (Lambda * half - P @ (2 * (P.mH @ half).real).to(half.dtype) + b * u)
        torch.testing.assert_close(2 * ((C.to(V.dtype) @ V) @ half).real, C @ x, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(2 * (V @ half).real, x, rtol=1e-9, atol=1e-12)


def test_direct_eigenvectors_would_not_do() -> None:
    """Why the normal part is diagonalised, and not A."""
    A, _ = hippo("legs", 16, dtype=F64)
    assert torch.linalg.cond(torch.linalg.eig(A).eigenvectors) > 1e10
