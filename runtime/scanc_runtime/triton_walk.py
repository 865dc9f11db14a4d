"""Affine maps over a semiring, composed: what generated kernels scan the steps of a chunk with.

A stretch of steps maps the state h before it to P ⊗ h ⊕ E.  `compose_*` puts one stretch behind another, `behind_*`
gives the state behind one.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,misc"

from __future__ import annotations

import triton
import triton.language as tl

from scanc_runtime import triton_math as tlmath


@triton.jit
def behind_real(state, product, end):
    """A product may have overflowed where nothing is carried, and is NaN where it had and a decay was 0."""
    return tl.where(state != 0, tl.where(product == product, product, 0.0) * state, 0.0) + end


@triton.jit
def compose_real(product, end, later_product, later_end):
    return product * later_product, behind_real(end, later_product, later_end)


@triton.jit
def behind_maxplus(state, product, end):
    return tl.maximum(state + product, end)


@triton.jit
def compose_maxplus(product, end, later_product, later_end):
    return product + later_product, behind_maxplus(end, later_product, later_end)


@triton.jit
def behind_minplus(state, product, end):
    return tl.minimum(state + product, end)


@triton.jit
def compose_minplus(product, end, later_product, later_end):
    return product + later_product, behind_minplus(end, later_product, later_end)


@triton.jit
def behind_log(state, product, end):
    return tlmath.logaddexp(state + product, end)


@triton.jit
def compose_log(product, end, later_product, later_end):
    return product + later_product, behind_log(end, later_product, later_end)
