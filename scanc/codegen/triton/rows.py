"""Rows: what moves with time. Inputs are read a block of steps ahead, results go out step by step.

A row is what one program reads or writes of a tensor at one step.  Its pointers stand at the first step of a block;
the step `u` of the block is `way * u` rows further, an offset that the compiler knows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from scanc.codegen.triton.step import Read, Step
from scanc.codegen.triton.tiles import TIME, Buffer, Frame
from scanc.codegen.writer import Writer
from scanc.ir.nodes import Kind

SHORT = "short"
"""The steps of a block of the tail of a forward walk."""
COUNT = f"{SHORT} if tail else unroll"
WAY = "way: tl.constexpr = -1 if reverse else 1"
"""The direction of the walk in memory."""


@dataclass(frozen=True)
class Row:
    """The variable that holds a tensor's pointers, and the stride from step to step."""

    at: str
    stride: str
    turned: bool = False

    @property
    def here(self) -> str:
        """The address of the step `u` of the block; of a turned row, that of the steps that are one turn with it."""
        return f"{self.at} + way * {'(u // share * share)' if self.turned else 'u'} * {self.stride}"

    def write_turned(self, out: Writer) -> None:
        """Moves each lane's pointers to its own step."""
        if self.turned:
            out.line(f"{self.at} += turn * (way * {self.stride})")


def write_row(
    out: Writer, frame: Frame, buffer: Buffer, stem: str, fixed: Mapping[str, int] | None = None, turned: bool = False
) -> Row:
    """Pointers to the row at the time `origin`; `fixed`: positions along some axes; `turned`: lanes will share it."""
    name = frame.names.fresh(f"{stem}_at")
    axes = [dim for dim in buffer.dims if dim not in (fixed or {})]
    out.line(f"{name} = {frame.address(buffer, {**(fixed or {}), TIME: 'origin'})}", frame.comment(axes))
    return Row(name, buffer.strides[buffer.dims.index(TIME)], turned)


class Inputs:
    """The rows that a kernel reads: those of the next block are on their way while a block is worked on.

    Rows further on are asked for `prefetch` blocks before, so that they are in the cache by then.
    """

    def __init__(
        self,
        out: Writer,
        step: Step,
        found: Sequence[Read],
        buffers: Mapping[str, Buffer],
        count: str = "unroll",
        turned: Collection[str] = (),
    ) -> None:
        self.out = out
        self.count = count
        self.frame = step.frame
        self.found = found
        self.turned = frozenset(turned)
        self._buffers = buffers
        self.stems = {read.value: step.identifier(read.value) for read in found}
        self._rows: dict[str, Row] = {}
        self._ahead = {value: self.frame.names.fresh(f"{stem}_ahead") for value, stem in self.stems.items()}
        self._block = {value: self.frame.names.fresh(f"{stem}_block") for value, stem in self.stems.items()}
        self._lines = {
            read.value: self.frame.names.fresh(f"{self.stems[read.value]}_lines")
            for read in found
            if read.kind is Kind.REAL and len(self.frame.tile(read.axes)) == 1
        }

    def write_first(self, sign: str, condition: str) -> None:
        """Pointers at the time `origin`, and the rows of a first block for whose step `{step}` the condition holds."""
        for read in self.found:
            buffer = self._buffers[read.tensor]
            turned = read.value in self.turned
            stem = self.stems[read.value]
            self._rows[read.value] = write_row(self.out, self.frame, buffer, stem, dict(read.fixed), turned)
        if self._lines:
            with self.out.block("if prefetch > 0 and not tail:"):
                for read in self.found:
                    if read.value in self._lines:
                        row, (axis,) = self._rows[read.value], self.frame.tile(read.axes)
                        where = f"{row.at}, block_{axis}, way * {row.stride}, {sign}prefetch * unroll, unroll"
                        self.out.line(f"{self._lines[read.value]} = tlmath.cache_lines({where})")
        for row in self._rows.values():
            row.write_turned(self.out)
        self._write_ahead(condition)

    def _write_ahead(self, *conditions: str) -> None:
        self.write_rows(self._ahead, self.found, "", *conditions)

    def write_rows(self, names: Mapping[str, str], found: Sequence[Read], place: str, *conditions: str) -> None:
        """Loads the rows of a block into tuples, where the conditions hold of a row's `{step}`.

        `place`: the block's steps from the pointers, as a term; none if they stand there.
        """
        for read in found:
            self.out.line(f"{names[read.value]} = ()")
        steps = [read for read in found if read.value not in self.turned]
        turns = [read for read in found if read.value in self.turned]
        for group, span, own in ((steps, self.count, "u"), (turns, f"0, {self.count}, share", "u + turn")):
            if group:
                when = [condition.format(step=own) for condition in conditions]
                with self.out.block(f"for u in tl.static_range({span}):"):
                    for read in group:
                        row = self._rows[read.value]
                        at = f"{row.here} + way * {place} * {row.stride}" if place else row.here
                        load = self.frame.raw(at, read.axes, read.kind, *when)
                        self.out.line(f"{names[read.value]} += ({load},)", self.frame.comment(read.axes))

    def write_short_turn(self, condition: str) -> None:
        """The same for the short blocks of the tail; a row is loaded where the condition holds of its `{step}`."""
        if self.found:
            with self.out.block("if tail:"):
                for row in self._rows.values():
                    self.out.line(f"{row.at} += way * {SHORT} * {row.stride}")
                self._write_ahead(condition)

    def write_turn(self, sign: str, more: str, far: str) -> None:
        """What was ahead is the block now; the rows of the block behind it are loaded.

        The pointers stay where there is no such block (`more`); no line is asked for where there is none (`far`).
        """
        if not self.found:
            return
        for read in self.found:
            self.out.line(f"{self._block[read.value]} = {self._ahead[read.value]}")
        with self.out.block("if not tail:"):
            self.out.line(f"moved = way * tl.where({more}, unroll, 0).to(tl.int64)")
            for row in self._rows.values():
                self.out.line(f"{row.at} {sign}= moved * {row.stride}")
            if self._lines:
                with self.out.block("if prefetch > 0:"):
                    with self.out.block(f"if {far}:"):
                        for name in self._lines.values():
                            self.out.line(f"tlmath.prefetch({name})")
                    for value, name in self._lines.items():
                        move = f"way * unroll * {self._rows[value].stride}"
                        self.out.line(f"{name} {sign}= tlmath.size_in_bytes({self._rows[value].at}, {move})")
            self._write_ahead()

    def write_taken(self, step: Step, found: Sequence[Read], names: Mapping[str, str] | None = None) -> None:
        """The values of the step `u` of the block, or of the one whose rows have these `names`."""
        for read in found:
            dtype = self.frame.dtype(read.kind)
            place = "u // share" if read.value in self.turned else "u"
            text = f"{step.define(read.value)} = {(names or self._block)[read.value]}[{place}].to({dtype})"
            self.out.line(text, self.frame.comment(read.axes))


class Again:
    """The rows of blocks in order, for a walk within the walk: those of the next block are on their way here too."""

    def __init__(self, inputs: Inputs, found: Sequence[Read]) -> None:
        self.inputs = inputs
        self.found = found
        fresh, stems = inputs.frame.names.fresh, inputs.stems
        self._ahead = {read.value: fresh(f"{stems[read.value]}_soon") for read in found}
        self._block = {read.value: fresh(f"{stems[read.value]}_again") for read in found}

    def write_first(self, steps: str, condition: str) -> None:
        """The rows of a first block so many steps behind the pointers, if the condition holds."""
        if self.found:
            self.inputs.out.line(f"gap = tl.cast({steps}, tl.int64)")
            self.inputs.write_rows(self._ahead, self.found, "gap", condition)

    def write_turn(self, steps: str) -> None:
        """What was ahead is the block now; the rows of a block so many steps behind the pointers are loaded."""
        if self.found:
            out = self.inputs.out
            for read in self.found:
                out.line(f"{self._block[read.value]} = {self._ahead[read.value]}")
            out.line(f"gap = tl.cast({steps}, tl.int64)")
            self.inputs.write_rows(self._ahead, self.found, "gap")

    def write_taken(self, step: Step, found: Sequence[Read]) -> None:
        """The values of the step `u` of the block."""
        self.inputs.write_taken(step, found, self._block)


def write_move(out: Writer, row: Row, sign: str, count: str = "unroll") -> None:
    """Moves pointers by one block, on or back in time."""
    out.line(f"{row.at} {sign}= way * {count} * {row.stride}")
