"""What generated kernels scan time with: affine maps composed, and carried from tile to tile by looking back.

A stretch of time maps the state h before it to P·h + E.  A program has a tile of several such chunks, [chunks, block];
it publishes the tile's own (P, E) as one word of 64 bits, and reads those of a fixed number of tiles before it.  A
word says itself whether it is there, so there are no flags, no fences, and no order but that of the tickets.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,misc"
# ruff: noqa: RET505  # Triton takes a branch that is not taken for reachable code unless it is an else

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.target_info import is_cuda

from scanc_runtime import triton_math as tlmath

HEAD = tl.constexpr(2)
"""Words before those of the states: the ticket, and one that keeps the others aligned."""


@triton.jit
def ticket(words_ptr):
    """Numbers programs in the order in which they begin, so that none waits for one that may never begin."""
    return (tl.atomic_add(words_ptr, 1, sem="relaxed") + 1).to(tl.int32)


if tlmath.INTERPRETED:

    def wide(row, dtype):
        """The same numbers in another dtype."""
        return row.to(dtype)
else:

    @triton.jit
    def wide(row, dtype: tl.constexpr):
        """The same numbers in another dtype.

        Pairs of 16 bits that two passes read stay pairs: not to be the same to the compiler, each has its own.
        """
        if is_cuda() and row.dtype == tl.bfloat16 and dtype == tl.float32:
            return tl.inline_asm_elementwise(
                "shl.b32 $0, $2, 16; and.b32 $1, $2, 0xffff0000;",
                "=r,=r,r",
                [row],
                dtype=tl.float32,
                is_pure=False,
                pack=2,
            )
        else:
            return row.to(dtype)


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
def state_words(
    words_ptr, which: tl.constexpr, tiles, rows, block: tl.constexpr, group: tl.constexpr, nest: tl.constexpr
):
    """Where the words of a state begin: one row per tile and sequence, per group of tiles, per nest of groups."""
    count = tiles + tl.cdiv(tiles, group)
    if nest > 1:
        count += tl.cdiv(tl.cdiv(tiles, group), nest)
    return words_ptr + HEAD + which * count.to(tl.int64) * rows * block


@triton.jit
def publish(words, rows, slot, number, product, end, there):
    """Writes what the stretch `number` does to the state, if `there`; both are prefixes with the last chunk."""
    chunks: tl.constexpr = product.shape[0]
    block: tl.constexpr = product.shape[1]
    chunk = tl.arange(0, chunks)[:, None]
    lane = tl.arange(0, block)[None, :]
    at = words + (number.to(tl.int64) * rows + slot) * block + lane + chunk * 0
    tl.store(at, pack(product, end), mask=(chunk == chunks - 1) & (lane >= 0) & there)


@triton.jit
def window(wide, near, rows, slot, number, size: tl.constexpr, block: tl.constexpr, first):
    """The addresses of the words of a window, and which of them the stretch `number` waits for.

    Row 0 is what stands before all stretches of its group, among the words `wide`, wanted if `first`; row i is the i-th
    stretch of the group, among the words `near`.  Every element belongs to one thread.
    """
    lane = tl.arange(0, block)[None, :]
    i = tl.arange(0, size)[:, None]
    begun = (number // size).to(tl.int64)
    at = tl.where(
        i == 0,
        wide + ((begun - 1) * rows + slot) * block + lane,
        near + ((begun * size + i - 1) * rows + slot) * block + lane,
    )
    return at, (i <= number % size) & ((i > 0) | ((begun > 0) & first)) & (lane >= 0)


@triton.jit
def awaited(at, wanted, word):
    """What all wanted words of a window do, as (P, E) of one row, once they are there; `word`: a first look."""
    size: tl.constexpr = word.shape[0]
    i = tl.arange(0, size)[:, None]
    while tl.max(tl.max((word == -1).to(tl.int32), 1), 0) > 0:
        word = tl.load(at, mask=word == -1, other=word, volatile=True)
    product, end = tl.where(wanted, product_of(word), 1.0), tl.where(wanted, end_of(word), 0.0)
    product, end = tl.associative_scan((product, end), 0, compose)
    last = i == size - 1
    return tl.sum(tl.where(last, product, 0.0), 0)[None, :], tl.sum(tl.where(last, end, 0.0), 0)[None, :]


@triton.jit
def look_back(words, tiles, rows, slot, tile, product, end, inner, before, group: tl.constexpr, nest: tl.constexpr):
    """The states before each chunk of the tile, from the prefixes with it and those before it.

    A tile reads fixed windows, so the association is always the same: the tiles of its own group before it, and the
    state behind the previous group.  In a nest of several groups this is the state behind the previous nest, and what
    the groups of its own nest before it do; then as few wait for one another as there are nests.
    """
    chunks: tl.constexpr = product.shape[0]
    block: tl.constexpr = product.shape[1]
    here = tile // group
    last = tile % group == group - 1
    # Nobody looks at the last tile of a group but through the group.
    publish(words, rows, slot, tile, product, end, tile % group < group - 1)
    groups = words + tiles.to(tl.int64) * rows * block
    nests = groups + tl.cdiv(tiles, group).to(tl.int64) * rows * block
    nothing = tl.zeros([chunks, block], tl.float32)
    at, wanted = window(groups, words, rows, slot, tile, group, block, nest == 1)
    word = tl.load(at, mask=wanted, other=0, volatile=True)
    if nest == 1:
        _, state = awaited(at, wanted, word)
        publish(groups, rows, slot, here, nothing, carried(state, product, end), last)
    else:
        at_group, wanted_group = window(nests, groups, rows, slot, here, nest, block, True)
        word_group = tl.load(at_group, mask=wanted_group, other=0, volatile=True)
        beside, behind = awaited(at, wanted, word)
        whole_product, whole_end = compose(beside, behind, product, end)
        publish(groups, rows, slot, here, whole_product, whole_end, last & (here % nest < nest - 1))
        _, state = awaited(at_group, wanted_group, word_group)
        state = carried(state, beside, behind)
        publish(
            nests, rows, slot, here // nest, nothing, carried(state, product, end), last & (here % nest == nest - 1)
        )
    return carried(state, inner, before)
