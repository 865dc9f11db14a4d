"""Functions of matrices [..., n, n], and their Fréchet derivatives in as many directions as are given.

Values are torch operations that torch differentiates to any order.  Derivatives are exact too, but meant for code that
runs without gradients: the adjoints of generated modules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations

import torch
from torch import Tensor

_TERMS = {torch.float32: 9, torch.complex64: 9}  # of the series of phi1 where the norm is at most 1/2
_MOST_TERMS = 16


def matrix_exp(z: Tensor, *directions: Tensor) -> Tensor:
    """Σ zⁿ / n!

    A derivative is the upper right block of the exponential of a block triangular matrix (Higham and Relton, 2014).
    It is linear in the directions, which enter it no larger than 1: large ones would be squared more often.
    """
    if not directions:
        value: Tensor = torch.linalg.matrix_exp(z)
        return value
    block, corners, size = z, [], torch.ones((), dtype=z.dtype, device=z.device)
    for direction in directions:
        most = direction.detach().abs().amax((-2, -1), keepdim=True)
        most = torch.where(most > 0, most, 1.0)
        corners.append(direction / most)
        size = size * most
    while corners:
        block, corners = _triangular(block, corners[0]), [_triangular(e, torch.zeros_like(e)) for e in corners[1:]]
    n = z.shape[-1]
    whole: Tensor = torch.linalg.matrix_exp(block)
    return whole[..., :n, block.shape[-1] - n :] * size


def _triangular(z: Tensor, corner: Tensor) -> Tensor:
    """[[z, corner], [0, z]]"""
    z, corner = torch.broadcast_tensors(z, corner)  # type: ignore[no-untyped-call]
    return torch.cat([torch.cat([z, corner], -1), torch.cat([torch.zeros_like(z), z], -1)], -2)


def matrix_inverse(z: Tensor, *directions: Tensor) -> Tensor:
    """z⁻¹, not finite where there is none; no device waits to learn whether there is."""
    inverse: Tensor = torch.linalg.inv_ex(z).inverse
    if not directions:
        return inverse
    total = torch.zeros((), dtype=z.dtype, device=z.device)
    for order in permutations(directions):
        term = inverse
        for direction in order:
            term = -(term @ direction @ inverse)
        total = total + term
    return total


def matrix_phi1(z: Tensor, *directions: Tensor) -> Tensor:
    """Σ zⁿ / (n + 1)!, the upper right block of exp [[z, 1], [0, 0]] (Van Loan, Computing integrals, 1978).

    Derivatives by the series at z / 2ˢ and φ₁(2z) = φ₁(z) (exp z + 1) / 2, both differentiated term by term: that
    takes n × n matrices alone.
    """
    if directions:
        return _phi1_jet(z, directions)
    n = z.shape[-1]
    one = torch.eye(n, dtype=z.dtype, device=z.device).expand_as(z)
    rows = torch.cat([z, one], -1)
    whole: Tensor = torch.linalg.matrix_exp(torch.cat([rows, torch.zeros_like(rows)], -2))
    return whole[..., :n, n:]


Jet = list[Tensor | None]
"""A function's mixed derivatives in k directions: of index m in those whose bits m has, 0 the value; None is zero."""


def _phi1_jet(z: Tensor, directions: Sequence[Tensor]) -> Tensor:
    norm = float(z.detach().abs().sum(-1).amax()) if z.numel() else 0.0
    squarings = math.ceil(math.log2(norm)) + 1 if 0.5 < norm < math.inf else 0
    one = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
    small: Jet = [None] * 2 ** len(directions)
    small[0] = z * 2.0**-squarings
    for i, direction in enumerate(directions):
        small[1 << i] = direction * 2.0**-squarings
    terms = _TERMS.get(z.dtype, _MOST_TERMS)
    phi: Jet = [one / math.factorial(terms + 1), *([None] * (len(small) - 1))]
    for n in range(terms, 0, -1):
        phi = _plus(one / math.factorial(n), _product(small, phi))
    exp = _plus(one, _product(small, phi))
    for _ in range(squarings):
        phi = [None if part is None else part / 2 for part in _product(phi, _plus(one, exp))]
        exp = _product(exp, exp)
    last = phi[-1]
    assert last is not None
    return last


def _plus(constant: Tensor, jet: Jet) -> Jet:
    value = jet[0]
    return [constant if value is None else constant + value, *jet[1:]]


def _product(a: Jet, b: Jet) -> Jet:
    """The jet of a product, by Leibniz' rule."""
    found: Jet = []
    for index in range(len(a)):
        total = None
        for part in (p for p in range(index + 1) if p & index == p):
            left, right = a[part], b[index ^ part]
            if left is not None and right is not None:
                total = left @ right if total is None else total + left @ right
        found.append(total)
    return found
