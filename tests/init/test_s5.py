"""S5's blocks are a real system in its eigenvectors."""

from __future__ import annotations

import pytest
import torch
from init.systems import F64

from scanc.init import dplr, nplr, s5


@pytest.mark.parametrize("blocks", [1, 4])
def test_half_of_the_state_is_the_block_diagonal_system(blocks: int) -> None:
    N, d, h, generator = 24, 5, 0.01, torch.Generator().manual_seed(1)
    Lambda, B, C = s5(N, d, blocks=blocks, dtype=F64, generator=generator)
    assert Lambda.shape == (N // 2,)
    assert B.shape == (N // 2, d)
    assert C.shape == (d, N // 2)
    A = torch.block_diag(*[nplr("legs", N // blocks, dtype=F64).S] * blocks)
    V = torch.block_diag(*[dplr("legs", N // blocks, dtype=F64).V] * blocks)
    real_B, real_C = 2 * (V @ B).real, 2 * (C @ V.mH).real
    x, half = torch.zeros(N, dtype=F64), torch.zeros(N // 2, dtype=torch.complex128)
    for u in torch.randn(40, d, dtype=F64, generator=generator):
        x = x + h * (A @ x + real_B @ u)
        half = half + h * (Lambda * half + B @ u.to(B.dtype))
        torch.testing.assert_close(2 * (C @ half).real, real_C @ x)


def test_blocks_are_alike_and_stable() -> None:
    Lambda = s5(48, 3, blocks=3, dtype=F64).Lambda.unflatten(0, (3, 8))
    assert (Lambda.real == -0.5).all()
    assert torch.equal(Lambda, dplr("legs", 16, dtype=F64).Lambda.expand(3, 8))


def test_variances() -> None:
    N, d = 128, 96
    generator = torch.Generator().manual_seed(0)
    _, B, C = s5(N, d, blocks=2, dtype=F64, generator=generator)
    V = torch.block_diag(*[dplr("legs", N // 2, dtype=F64).V] * 2)
    for drawn, variance in ((2 * (V @ B).real, 1 / d), (2 * (C @ V.mH).real, 1 / N)):
        assert abs(drawn.var().item() / variance - 1) < 0.05
        assert drawn.mean().abs() < 4 * (variance / drawn.numel()) ** 0.5
