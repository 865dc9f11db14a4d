"""What generated kernels scan time with: affine maps composed, and carried from tile to tile by looking back.

A stretch of time maps the state h before it to P·h + E.  A program has a tile of several such chunks, [chunks, block];
it publishes the tile's own (P, E) as one word of 64 bits, and reads those of a fixed number of tiles before it.  A
word says itself whether it is there, so there are no flags, no fences, and no order but that of the tickets.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,misc"

from __future__ import annotations

import triton
import triton.language as tl

HEAD = tl.constexpr(2)
"""Words before those of the states: the ticket, and one that keeps the others aligned."""


@triton.jit
def ticket(words_ptr):
    """Numbers programs in the order in which they begin, so that none waits for one that may never begin."""
    return (tl.atomic_add(words_ptr, 1, sem="relaxed") + 1).to(tl.int32)


@triton.jit
def compose(product, end, later_product, later_end):
    """Two stretches of time as one."""
    return product * later_product, carried(end, later_product, later_end)


@triton.jit
def carried(state, product, end):
    """The state behind a stretch of time.

    A product may have overflowed where nothing is carried.  It is NaN where it had overflowed and a decay was 0, so
    that it stands for 0; where a decay was NaN, so is the end.
    """
    return tl.where((product == product) & (state != 0), product * state, 0.0) + end


@triton.jit
def compose_both(product, end, inner, before, later_product, later_end, later_inner, later_before):
    """Two stretches of time as one, with and without their last chunk."""
    whole, behind = compose(product, end, later_product, later_end)
    inner, before = compose(product, end, later_inner, later_before)
    return whole, behind, inner, before


@triton.jit
def prefixes(product, end):
    """Each chunk with all chunks of the tile before it, (P, E); and those before it alone, (P, E).

    Both by one scan: what a chunk leaves is never moved to the next one, which would cost a change of layouts.
    """
    return tl.associative_scan((product, end, tl.full(end.shape, 1.0, end.dtype), tl.zeros_like(end)), 0, compose_both)


@triton.jit
def pack(product, end):
    """Both in one word, which is never -1."""
    product = tl.where(product == product, product, 0.0)
    high = product.to(tl.int32, bitcast=True).to(tl.int64) << 32
    return high | (end.to(tl.int32, bitcast=True).to(tl.int64) & 0xFFFFFFFF)


@triton.jit
def product_of(word):
    return (word >> 32).to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def end_of(word):
    return (word & 0xFFFFFFFF).to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def state_words(words_ptr, which: tl.constexpr, tiles, rows, block: tl.constexpr, group: tl.constexpr):
    """Where the words of a state begin: one row per tile and sequence, then one per group of tiles and sequence."""
    return words_ptr + HEAD + which * (tiles + tl.cdiv(tiles, group)).to(tl.int64) * rows * block


@triton.jit
def publish(words, rows, slot, tile, product, end, group: tl.constexpr):
    """Writes what the tile does to the state; `product` and `end` are prefixes with the chunk itself.

    The last tile of a group need not: nobody looks at it but through the group.
    """
    chunks: tl.constexpr = product.shape[0]
    block: tl.constexpr = product.shape[1]
    chunk = tl.arange(0, chunks)[:, None]
    lane = tl.arange(0, block)[None, :]
    at = words + (tile.to(tl.int64) * rows + slot) * block + lane + chunk * 0
    tl.store(at, pack(product, end), mask=(chunk == chunks - 1) & (lane >= 0) & (tile % group < group - 1))


@triton.jit
def look_back(words, tiles, rows, slot, tile, product, end, inner, before, group: tl.constexpr):
    """The states before each chunk of the tile, from the prefixes with it and those before it.

    A tile reads a fixed window: the state behind the previous group, and the tiles of its own group before it.  So
    the association is always the same.
    """
    chunks: tl.constexpr = product.shape[0]
    block: tl.constexpr = product.shape[1]
    chunk = tl.arange(0, chunks)[:, None]
    lane = tl.arange(0, block)[None, :]
    place = tile % group
    first = (tile // group).to(tl.int64)
    groups = words + tiles.to(tl.int64) * rows * block
    # Row 0 of the window is the previous group, row i the i-th tile of this one.  Every element belongs to one thread.
    i = tl.arange(0, group)[:, None]
    at = tl.where(
        i == 0,
        groups + ((first - 1) * rows + slot) * block + lane,
        words + ((first * group + i - 1) * rows + slot) * block + lane,
    )
    wanted = (i <= place) & (i + first > 0) & (lane >= 0)
    word = tl.load(at, mask=wanted, other=0, volatile=True)
    while tl.max(tl.max((word == -1).to(tl.int32), 1), 0) > 0:
        word = tl.load(at, mask=wanted, other=0, volatile=True)
    seen = tl.where(wanted, end_of(word), 0.0)
    _, seen = tl.associative_scan((tl.where(wanted, product_of(word), 1.0), seen), 0, compose)
    state = tl.sum(tl.where(i == group - 1, seen, 0.0), 0)[None, :]
    behind = carried(state, product, end)
    at = groups + (first * rows + slot) * block + lane + chunk * 0
    mask = (chunk == chunks - 1) & (lane >= 0) & (place == group - 1)
    tl.store(at, pack(tl.zeros([chunks, block], tl.float32), behind), mask=mask)
    return carried(state, inner, before)
