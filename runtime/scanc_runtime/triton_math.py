"""Elementwise functions for generated kernels, accurate in fp32 and fp64.

What `triton.language` lacks comes from libdevice on a GPU; in Triton's interpreter, which has no libdevice,
NumPy computes it.  `tl.log`, `tl.sin` and `tl.cos` are approximate instructions in fp32, so
logarithms and angles come from libdevice too.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,misc"
# ruff: noqa: RET505  # Triton takes a branch that is not taken for reachable code unless it is an else

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import triton
import triton.language as tl
from triton.language.extra import libdevice
from triton.language.target_info import is_cuda

INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"


def _by_numpy(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` on the arrays behind the interpreter's tensors."""
    from triton.runtime.interpreter import TensorHandle

    def apply(*args: Any) -> Any:
        first = args[0]
        with np.errstate(all="ignore"):
            data = function(*(arg.handle.data for arg in args)).astype(first.handle.data.dtype)
        tiles = any(arg.type.is_block() for arg in args)  # a scalar is an array of one element
        type_ = tl.block_type(first.dtype, list(data.shape)) if tiles else first.dtype
        return tl.tensor(TensorHandle(data, first.handle.dtype), type_)

    return apply


if INTERPRETED:

    def cache_lines(row: Any, elements: int, stride: int, first: int, count: int) -> int:
        """Nowhere: there is no cache."""
        return 0

    def size_in_bytes(row: Any, elements: int) -> int:
        """Nothing."""
        return 0

    def prefetch(lines: Any) -> None:
        """Nothing."""

    exp = _by_numpy(np.exp)
    exp2 = _by_numpy(np.exp2)
    expm1 = _by_numpy(np.expm1)
    log = _by_numpy(np.log)
    log1p = _by_numpy(np.log1p)
    tanh = _by_numpy(np.tanh)
    sin = _by_numpy(np.sin)
    cos = _by_numpy(np.cos)
    erf = _by_numpy(np.vectorize(math.erf, otypes=[np.float64]))
    erfc = _by_numpy(np.vectorize(math.erfc, otypes=[np.float64]))
    pow = _by_numpy(np.power)
    hypot = _by_numpy(np.hypot)
    atan2 = _by_numpy(np.arctan2)
else:

    @triton.jit
    def cache_lines(row, elements: tl.constexpr, stride: tl.constexpr, first: tl.constexpr, count: tl.constexpr):
        """The addresses of the 32-byte pieces of `count` rows from the row `first` on, `stride` elements apart.

        `row` points to the `elements` elements of row 0, which lie side by side.
        """
        width: tl.constexpr = row.dtype.element_ty.primitive_bitwidth // 8
        pieces: tl.constexpr = elements * width // 32 if elements * width > 32 else 1
        piece = tl.arange(0, count * pieces)
        return (
            tl.min(tl.ravel(row.to(tl.int64)), 0) + (first + piece // pieces) * (stride * width) + piece % pieces * 32
        )

    @triton.jit
    def size_in_bytes(row, elements: tl.constexpr):
        """What `elements` elements take in the memory that `row` points to."""
        return elements * (row.dtype.element_ty.primitive_bitwidth // 8)

    @triton.jit
    def prefetch(lines):
        """Asks for cache lines, and waits for none, where the chip can do so."""
        if is_cuda():
            tl.inline_asm_elementwise(
                "prefetch.global.L2 [$1]; mov.b32 $0, 0;", "=r,l", [lines], dtype=tl.int32, is_pure=False, pack=1
            )

    @triton.jit
    def exp2(x):
        return libdevice.exp2(x)

    @triton.jit
    def exp(x):
        """In fp32 one instruction for 2^x, to 2 units in the last place times |x|; results below 1e-38 are 0."""
        return libdevice.exp2(x * 1.4426950408889634) if x.dtype == tl.float32 else tl.exp(x)

    @triton.jit
    def expm1(x):
        return libdevice.expm1(x)

    @triton.jit
    def log(x):
        return libdevice.log(x)

    @triton.jit
    def log1p(x):
        return libdevice.log1p(x)

    @triton.jit
    def tanh(x):
        return libdevice.tanh(x)

    @triton.jit
    def sin(x):
        return libdevice.sin(x)

    @triton.jit
    def cos(x):
        return libdevice.cos(x)

    @triton.jit
    def erf(x):
        return libdevice.erf(x)

    @triton.jit
    def erfc(x):
        return libdevice.erfc(x)

    @triton.jit
    def pow(x, y):
        return libdevice.pow(x, y)

    @triton.jit
    def hypot(x, y):
        return libdevice.hypot(x, y)

    @triton.jit
    def atan2(y, x):
        return libdevice.atan2(y, x)


@triton.jit
def sign(x):
    return tl.where(x > 0, 1.0, 0.0).to(x.dtype) - tl.where(x < 0, 1.0, 0.0).to(x.dtype)


@triton.jit
def phi1(x):
    """expm1(x) / x, and 1 at 0."""
    zero = x == 0
    return tl.where(zero, 1.0, expm1(x) / tl.where(zero, 1.0, x))


@triton.jit
def dphi1(x):
    """The derivative of phi1; within 1/2 of 0, where (e^x - phi1)/x cancels, sum of (n+1) x^n / (n+2)!."""
    near = tl.abs(x) < 0.5
    z = tl.where(near, x, 0.0)
    series = z * 0.0 + 13.0 / 87178291200.0
    series = series * z + 12.0 / 6227020800.0
    series = series * z + 11.0 / 479001600.0
    series = series * z + 10.0 / 39916800.0
    series = series * z + 9.0 / 3628800.0
    series = series * z + 8.0 / 362880.0
    series = series * z + 7.0 / 40320.0
    series = series * z + 6.0 / 5040.0
    series = series * z + 5.0 / 720.0
    series = series * z + 4.0 / 120.0
    series = series * z + 3.0 / 24.0
    series = series * z + 2.0 / 6.0
    series = series * z + 1.0 / 2.0
    far = tl.where(near, 1.0, x)
    return tl.where(near, series, (exp(far) - phi1(far)) / far)


@triton.jit
def expdiff(a, m):
    """exp(a - m), and 0 wherever a is -inf."""
    gone = a == float("-inf")
    return tl.where(gone, 0.0, exp(tl.where(gone, 0.0, a - m)))


@triton.jit
def log1p_unit(x):
    """log1p on [0, 1]; in fp32 a polynomial of degree 9, to 2 units in the last place."""
    if x.dtype != tl.float32:
        return log1p(x)
    else:
        near = x * 0.00525346 - 0.02958851
        near = near * x + 0.07836167
        near = near * x - 0.1367477
        near = near * x + 0.19111431
        near = near * x - 0.2484437
        near = near * x + 0.33319271
        near = near * x - 0.49999502
        near = near * x + 0.99999997
        return near * x


@triton.jit
def logaddexp(a, b):
    """log(exp a + exp b); equal infinities stay what they are."""
    high = tl.maximum(a, b)
    same = a == b
    gap = tl.where(same, 0.0, tl.minimum(a, b) - high)
    return high + log1p_unit(exp(gap))


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x)), with exp of a non-positive number alone."""
    small = exp(-tl.abs(x))
    return tl.where(x >= 0, 1.0, small) / (1.0 + small)


@triton.jit
def logsigmoid(x):
    return tl.minimum(x, 0.0) - log1p_unit(exp(-tl.abs(x)))


@triton.jit
def softplus(x):
    return tl.maximum(x, 0.0) + log1p_unit(exp(-tl.abs(x)))


@triton.jit
def silu(x):
    return x * sigmoid(x)


@triton.jit
def gelu(x):
    """x Phi(x); erfc keeps the left tail."""
    return 0.5 * x * erfc(x * -0.7071067811865476)


@triton.jit
def logsumexp(x, axis: tl.constexpr):
    """log of the sum of exp x over one axis of a tile; -inf where x is."""
    high = tl.max(x, axis, keep_dims=True)
    safe = tl.where(tl.abs(high) == float("inf"), 0.0, high)
    return log(tl.sum(exp(x - safe), axis)) + tl.sum(safe, axis)


@triton.jit
def _passed(x, distance: tl.constexpr):
    """What the lane has whose number differs by `distance`, a power of two, from a folded tile's lanes."""
    other = tl.arange(0, x.shape[2])[None, None, :] ^ distance
    return tl.gather(x, tl.broadcast_to(other, x.shape), 2)


@triton.jit
def _across(x, lanes: tl.constexpr, apart: tl.constexpr, kind: tl.constexpr):
    """A sum, maximum or minimum over lanes that lie `apart`, the same in all of them."""
    if lanes == 1:
        return x
    else:
        other = _passed(x, lanes // 2 * apart)
        if kind == "sum":
            both = x + other
        elif kind == "max":
            both = tl.maximum(x, other)
        else:
            both = tl.minimum(x, other)
        return _across(both, lanes // 2, apart, kind)


@triton.jit
def folded_sum(x, fold: tl.constexpr, lanes: tl.constexpr, apart: tl.constexpr):
    """The sum along an axis of a folded tile, in each thread and then over its lanes, which lie `apart`."""
    return _across(tl.sum(x, fold, keep_dims=True), lanes, apart, "sum")


@triton.jit
def folded_max(x, fold: tl.constexpr, lanes: tl.constexpr, apart: tl.constexpr):
    """The maximum along an axis of a folded tile."""
    return _across(tl.max(x, fold, keep_dims=True), lanes, apart, "max")


@triton.jit
def folded_min(x, fold: tl.constexpr, lanes: tl.constexpr, apart: tl.constexpr):
    """The minimum along an axis of a folded tile."""
    return _across(tl.min(x, fold, keep_dims=True), lanes, apart, "min")


@triton.jit
def folded_logsumexp(x, fold: tl.constexpr, lanes: tl.constexpr, apart: tl.constexpr):
    """log of the sum of exp x along an axis of a folded tile; -inf where x is."""
    high = folded_max(x, fold, lanes, apart)
    safe = tl.where(tl.abs(high) == float("inf"), 0.0, high)
    return log(folded_sum(exp(x - safe), fold, lanes, apart)) + safe


@triton.jit
def from_lane(x, turn: tl.constexpr, share: tl.constexpr, lanes: tl.constexpr):
    """What the lane of a turn has, in all `lanes` of the inner axis of a folded tile."""
    if share == 1:
        return x
    else:
        giver = tl.arange(0, x.shape[2])[None, None, :] // lanes * lanes + turn * (lanes // share)
        return tl.gather(x, tl.broadcast_to(giver, x.shape), 2)


@triton.jit
def lane_sum(x, lanes: tl.constexpr):
    """The sum over the `lanes` of the inner axis of a folded tile, the same in all of these."""
    return _across(x, lanes, 1, "sum")


@triton.jit
def scattered(parts, count: tl.constexpr, place, lanes: tl.constexpr, apart: tl.constexpr):
    """The sums of `count` tiles over lanes that lie `apart`: place i is left with those of tiles i·count/lanes and on.

    At each round a lane gives away half of what it has and adds what it is given of the other half.
    """
    if lanes == 1:
        return parts
    else:
        half: tl.constexpr = lanes // 2
        kept = ()
        if count == 1:
            kept += (parts[0] + _passed(parts[0], half * apart),)  # type: ignore[assignment]
        else:
            high = (place & half) != 0
            for i in tl.static_range(count // 2):
                given = _passed(tl.where(high, parts[i], parts[i + count // 2]), half * apart)
                kept += (tl.where(high, parts[i + count // 2], parts[i]) + given,)  # type: ignore[assignment]
        return scattered(kept, count // 2 if count > 1 else 1, place, half, apart)


@triton.jit
def one_of(x):
    """The number that all lanes of a fully reduced tile hold."""
    flat = tl.ravel(x)
    return tl.sum(tl.where(tl.arange(0, flat.numel) == 0, flat, tl.zeros_like(flat)), 0)


@triton.jit
def first_max(x, place, inside, axes: tl.constexpr):
    """Where x has its maximum over `axes`, at the lowest `place` if there are several."""
    best = tl.where(inside, x, float("-inf"))
    for n in tl.static_range(len(axes)):
        best = tl.max(best, axes[n], keep_dims=True)
    return _first((x == best) & inside, place, axes)


@triton.jit
def first_min(x, place, inside, axes: tl.constexpr):
    """Where x has its minimum over `axes`, at the lowest `place` if there are several."""
    best = tl.where(inside, x, float("inf"))
    for n in tl.static_range(len(axes)):
        best = tl.min(best, axes[n], keep_dims=True)
    return _first((x == best) & inside, place, axes)


@triton.jit
def _first(found, place, axes: tl.constexpr):
    lowest = tl.where(found, place, 9223372036854775807)
    for n in tl.static_range(len(axes)):
        lowest = tl.min(lowest, axes[n], keep_dims=True)
    return found & (place == lowest)


@triton.jit(do_not_specialize=["chunks"])
def carry_kernel(
    start_ptr,
    start_stride_b,
    ends_ptr,
    products_ptr,
    found_ptr,
    size,
    chunks,
    begin: tl.constexpr,
    behind: tl.constexpr,
    block: tl.constexpr,
    group: tl.constexpr,
):
    """The states before each chunk of time, from what every chunk does to a state, always in the same order.

    Each program: a block of one sequence's states, chunk by chunk; with `behind`, they go to the places from the last.
    A state that is absent begins with `begin`.
    """
    b = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * block + tl.arange(0, block)
    inside = at < size
    if start_ptr is None:
        state = tl.full([block], begin, found_ptr.dtype.element_ty)
    else:
        state = tl.load(start_ptr + b * start_stride_b + at, mask=inside, other=0.0).to(found_ptr.dtype.element_ty)
    first = b * chunks * size + at
    for early in range(0, chunks, group):
        ends = ()
        products = ()
        for i in tl.static_range(group):
            alive = inside & (early + i < chunks)
            here = first + tl.cast(early + i, tl.int64) * size
            ends += (tl.load(ends_ptr + here, mask=alive, other=0.0),)  # type: ignore[assignment]
            products += (tl.load(products_ptr + here, mask=alive, other=0.0),)  # type: ignore[assignment]
        for i in tl.static_range(group):
            place = chunks - 1 - early - i if behind else early + i
            alive = inside & (early + i < chunks)
            tl.store(found_ptr + first + tl.cast(place, tl.int64) * size, state, mask=alive)
            # A product may have overflowed where nothing is carried, and be NaN before a decay of 0.
            state = tl.where((state != 0) & (products[i] == products[i]), products[i] * state, 0.0) + ends[i]
