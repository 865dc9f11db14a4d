"""Functions of matrices [..., n, n] by scaling, the power series and squaring, and their Fréchet derivatives by blocks.

exp z = 1 + z φ₁(z), and φ₁(2z) = φ₁(z) (exp z + 1) / 2 takes both from z / 2ˢ back to z.  The k-th derivative is the
upper right block of the function of a block triangular matrix of 2ᵏ times the size (Higham and Relton, Higher order
Fréchet derivatives of matrix functions, 2014).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from scanc.interpreter.arithmetic import Arithmetic, Array

_TERMS = 18  # 0.5 ^ 18 / 19! is below the rounding of fp64


def matrix_function(arith: Arithmetic, fn: str, z: Array, directions: Sequence[Array]) -> Array:
    """The function at z, or its derivative there in as many directions as are given."""
    n = z.shape[-1]
    block, corners = z, list(directions)
    while corners:
        block, corners = _triangular(arith, block, corners[0]), [_repeated(arith, e) for e in corners[1:]]
    return _FUNCTIONS[fn](arith, block)[..., :n, block.shape[-1] - n :]


def _inverse(arith: Arithmetic, z: Array) -> Array:
    return arith.inverse(z)


def _exp(arith: Arithmetic, z: Array) -> Array:
    return _exp_and_phi1(arith, z)[0]


def _phi1(arith: Arithmetic, z: Array) -> Array:
    return _exp_and_phi1(arith, z)[1]


_FUNCTIONS = {"exp": _exp, "phi1": _phi1, "inverse": _inverse}


def _exp_and_phi1(arith: Arithmetic, z: Array) -> tuple[Array, Array]:
    one = arith.identity(z.shape[-1])
    norm = float(abs(arith.map("stop", z)).sum(-1).max()) if math.prod(z.shape) else 0.0
    squarings = math.ceil(math.log2(norm)) + 1 if 0.5 < norm < math.inf else 0
    small = z * 2.0**-squarings
    phi = small * 0 + one / math.factorial(_TERMS)
    for n in range(_TERMS - 1, 0, -1):
        phi = one / math.factorial(n) + small @ phi
    power = one + small @ phi
    for _ in range(squarings):
        phi = phi @ (power + one) / 2
        power = power @ power
    return power, phi


def _triangular(arith: Arithmetic, z: Array, corner: Array) -> Array:
    """[[z, corner], [0, z]]"""
    return _beside(arith, [_beside(arith, [z, corner], z.ndim - 1), _beside(arith, [z * 0, z], z.ndim - 1)], z.ndim - 2)


def _repeated(arith: Arithmetic, e: Array) -> Array:
    """[[e, 0], [0, e]]"""
    return _triangular(arith, e, e * 0)


def _beside(arith: Arithmetic, parts: Sequence[Array], dim: int) -> Array:
    """Matrices joined along a dimension."""
    joined = arith.stack(parts, dim)
    return joined.reshape((*joined.shape[:dim], -1, *joined.shape[dim + 2 :]))
