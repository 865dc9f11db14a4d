"""S5: one system of many inputs and outputs, block-diagonal HiPPO in its eigenvectors."""

from __future__ import annotations

from typing import NamedTuple

import torch
from scanc_runtime.errors import ArgumentError
from torch import Tensor

from scanc.init.arguments import complex_dtype, even, whole
from scanc.init.modes import dplr


class S5(NamedTuple):
    """x' = diag(Lambda) x + B u, y = 2 Re(C x): `Lambda` [N/2], `B` [N/2, d] and `C` [d, N/2], complex."""

    Lambda: Tensor
    B: Tensor
    C: Tensor


def s5(
    N: int,
    d: int,
    *,
    blocks: int = 1,
    dtype: torch.dtype | None = None,
    generator: torch.Generator | None = None,
) -> S5:
    """The initial Lambda [N/2], B [N/2, d] and C [d, N/2] of an S5 layer, complex, one of each conjugate pair kept.

    S5 (Smith et al., 2022, arXiv:2208.04933), appendix B: A is block-diagonal, with HiPPO-N, the normal part of
    HiPPO-LegS, of N/blocks states in each block. Real B and C are drawn normal with variances 1/d and 1/N, and brought
    into the eigenvectors V of A: B becomes Vᴴ B, and C becomes C V.

    Args:
        N: number of real states; N/blocks is even.
        d: number of features, of the input and of the output.
        blocks: number of blocks.
        dtype: complex, or the real dtype of its parts; None is torch's default.
        generator: a CPU generator of the random numbers.

    Raises:
        ArgumentError: `blocks` does not divide N, N/blocks is odd, or d is no positive integer.
    """
    dtype = complex_dtype(dtype)
    whole("d", d)
    whole("blocks", blocks)
    even(N)
    if N % (2 * blocks):
        raise ArgumentError(
            f"{N} states do not make {blocks} blocks of conjugate pairs",
            expected=f"N a multiple of {2 * blocks}",
            got=str(N),
        )
    Lambda, _, _, V = dplr("legs", N // blocks, dtype=torch.complex128)
    B = _normal(blocks, N // blocks, d, generator) / d**0.5
    C = _normal(blocks, d, N // blocks, generator) / N**0.5
    return S5(
        Lambda.repeat(blocks).to(dtype),
        (V.mH @ B).flatten(0, 1).to(dtype),
        (C @ V).movedim(0, 1).flatten(1, 2).to(dtype),
    )


def _normal(blocks: int, rows: int, columns: int, generator: torch.Generator | None) -> Tensor:
    drawn = torch.randn(blocks, rows, columns, dtype=torch.float64, device="cpu", generator=generator)
    return drawn.to(torch.complex128)
