"""Diagonal state matrices by what they stand for."""

from __future__ import annotations

import math

import pytest
import torch
from init.systems import F64, response

from scanc.init import dplr, hippo, nplr, s4d_inv, s4d_legs, s4d_lin, s4d_real


@pytest.mark.parametrize("s", [0.5 + 0j, 1 + 2j, 3 - 10j])
def test_s4d_legs_drops_the_low_rank(s: complex) -> None:
    """Theorem 3 of S4D: as N grows, the normal part with half of B has the transfer function of all of A."""
    errors = []
    for N in (16, 64, 256):
        A, drive = hippo("legs", N, dtype=F64)
        whole = torch.linalg.solve(s * torch.eye(N) - A, drive.to(torch.complex128))
        _, _, B, V = dplr("legs", N, dtype=F64)
        Lambda = s4d_legs(N, dtype=F64)
        diagonal = V @ (B / 2 / (s - Lambda)) + V.conj() @ (B / 2 / (s - Lambda.conj()))
        errors.append(((diagonal - whole).norm() / whole.norm()).item())
    assert errors[0] < 0.05
    assert errors[1] < errors[0] / 8
    assert errors[2] < errors[1] / 8


def test_s4d_legs_has_the_eigenvalues_of_the_normal_part() -> None:
    S, _, _ = nplr("legs", 20, dtype=F64)
    eigenvalues = torch.linalg.eigvals(S)
    upper = eigenvalues[eigenvalues.imag > 0]
    upper = upper[upper.imag.argsort()]
    torch.testing.assert_close(s4d_legs(20, dtype=F64), upper, rtol=0, atol=1e-11)


def test_s4d_inv_is_the_law_of_s4d_legs() -> None:
    """Conjecture 5 of S4D: the n-th largest frequency of LegS nears N²/π / (2n+1)."""
    for N in (64, 512):
        law, found = s4d_inv(N, dtype=F64), s4d_legs(N, dtype=F64).flip(0)
        few = N // 32
        assert (law.imag[:few] / found.imag[:few] - 1).abs().max() < 0.1
        torch.testing.assert_close(law.imag + N / math.pi, N**2 / math.pi / (2 * torch.arange(N // 2) + 1).to(F64))
        assert (law.real == -0.5).all()
        assert (law.imag > 0).all()


def test_s4d_lin_has_the_frequencies_of_fourier() -> None:
    lin = s4d_lin(30, dtype=F64)
    torch.testing.assert_close(lin.imag, dplr("fout", 30, window=2, dtype=F64).Lambda.imag)
    assert (lin.real == -0.5).all()


def test_s4d_real_has_the_eigenvalues_of_legs() -> None:
    A, B = hippo("legs", 9, dtype=F64)
    assert torch.equal(s4d_real(9, dtype=F64), A.diagonal())  # A is triangular
    decays = response(torch.diag(s4d_real(9, dtype=F64)), B, torch.tensor([1.0], dtype=F64))[:, 0] / B
    torch.testing.assert_close(decays, (-torch.arange(1, 10, dtype=F64)).exp())
