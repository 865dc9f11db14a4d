"""What a number per step does to a chunk's products: a decay of the whole memory, and factors of its operands.

A factor that a query or a key has of each step alone is left out of the products of matrices: scores are multiplied by
it, what the state gives, and what it takes, as they are by decays.  So an input that is shared, or multiplied by a
step's length, is an operand as it is stored.  Scores are rounded behind all factors, alike in all kernels that have
them: flux cancels so.

Triton repeats a plain load of few numbers in each layout that they are wanted in.  So the sums of logarithms, which
begin anew with each chunk, are loaded by a descriptor, into shared memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from scanc.codegen.triton.recall_plan import Part
from scanc.codegen.writer import Writer


def write_wholes_ahead(out: Writer, sums: str) -> list[str]:
    """Loads of the sums over all of the chunk `coming`; returns the names of what is loaded, `_ahead` left out."""
    out.line("whole = (row * chunks + coming) * steps + last")
    out.line(f"weak_all_ahead = tl.load({sums} + whole, mask=chunks > 0, other=0.0)")
    out.line(f"strong_all_ahead = tl.load({sums} + rows * chunks * steps + whole, mask=chunks > 0, other=0.0)")
    return ["weak_all", "strong_all"]


NAMES = {"inclusive": ("weak", "strong"), "exclusive": ("weak_x", "strong_x")}
"""The sums with a step's own decay and without, in the order in which they lie in memory."""


def kinds(part: Part) -> tuple[str, str]:
    """Whether a step's own decay is in the sums for what it reads, and in those for what it writes."""
    read = "inclusive" if part.op.decayed and not part.made.dual else "exclusive"
    write = "exclusive" if part.made.dual and part.made.writes[0] else "inclusive"
    return read, write


def write_gates(out: Writer, part: Part, read: Sequence[str], written: Sequence[str], rows: str) -> None:
    """Scales scores, what the state gives, and what it takes.

    `read` and `written`: the factors of queries and of keys; `rows`: the descriptor of sums.
    """
    shape = f"[{part.clock}]"
    if read:
        out.line(f"scale = tl.where(in_{part.clock}, {' * '.join(read)}, 0.0)", shape)
    gated = part.log("all") is not None
    if gated:
        _write_decays(out, part, rows)
    else:
        out.line("scores = tl.where(earlier, scores, 0.0)")
    if read:
        out.line("scores = scores * scale[None, :]")
        out.line(f"since = {'since * ' if gated else ''}scale", shape)
    _write_weight(out, part, written)
    if written:
        out.line("scores = scores * weight[:, None]")
    if gated or read:
        out.line("found = found * since[None, :]")


def write_written(out: Writer, part: Part, written: Sequence[str], rows: str) -> None:
    """Scales what the state takes, where nothing is recalled."""
    if part.log("all") is not None:
        _, write = kinds(part)
        _write_load(out, part, rows, write, 0)
        out.line(f"left = weak_all - {NAMES[write][0]}", f"[{part.clock}]")
        with out.block("if apart:"):
            _write_load(out, part, rows, write, 1)
            out.line(f"left += strong_all - {NAMES[write][1]}")
        _write_kept(out)
    _write_weight(out, part, written)


def _write_weight(out: Writer, part: Part, written: Sequence[str]) -> None:
    """What the state takes at a chunk's end."""
    gated = part.log("all") is not None
    if written:
        shape = f"[{part.clock}]"
        out.line(f"weight = tl.where(in_{part.clock}, {' * '.join(written)}, 0.0)", shape)
        out.line(f"left = {'left * ' if gated else ''}weight", shape)
    exact = "" if part.single else ".to(dtype)"
    out.line(f"written = {f'(value * left[:, None]){exact}' if gated or written else 'value'}")


def _write_kept(out: Writer) -> None:
    out.line("left = tl.exp2(left)")
    out.line("kept = tl.exp2(weak_all + strong_all)")


def _write_decays(out: Writer, part: Part, rows: str) -> None:
    """What is left of a chunk's first state as each step reads, of what it writes at the chunk's end, and of scores."""
    read, write = kinds(part)
    for kind in dict.fromkeys((read, write)):
        _write_load(out, part, rows, kind, 0)
    (read_weak, read_strong), (write_weak, write_strong) = NAMES[read], NAMES[write]
    out.line(f"between = {read_weak}[None, :] - {write_weak}[:, None]", "[written, read]")
    out.line(f"since = {read_weak}", f"[{part.clock}]")
    out.line(f"left = weak_all - {write_weak}", f"[{part.clock}]")
    with out.block("if apart:"):
        for kind in dict.fromkeys((read, write)):
            _write_load(out, part, rows, kind, 1)
        out.line(f"between += {read_strong}[None, :] - {write_strong}[:, None]")
        out.line(f"since += {read_strong}")
        out.line(f"left += strong_all - {write_strong}")
    out.line('scores = scores * tl.exp2(tl.where(earlier, between, float("-inf")))')
    out.line("since = tl.exp2(since)")
    _write_kept(out)


def _write_load(out: Writer, part: Part, rows: str, kind: str, which: int) -> None:
    """The sums up to each step of the chunk."""
    place = 2 * list(NAMES).index(kind) + which
    at = f"rows * {place} + row" if place else "row"
    load = f"{rows}.load([({at}).to(tl.int32), chunk * steps])"
    out.line(f"{NAMES[kind][which]} = tl.reshape({load}, [steps])", f"[{part.clock}]")
