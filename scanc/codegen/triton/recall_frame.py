"""What the kernels of memories share: tiles of the steps of a chunk, what is read and what leaves."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from scanc.codegen.triton.kernel import KernelWriter, Leaving
from scanc.codegen.triton.step import Read, Step
from scanc.codegen.triton.tiles import BATCH, SEGMENT, Frame
from scanc.codegen.writer import Writer
from scanc.ir.nodes import Output, Program
from scanc.passes.schedule import Axes, Schedule

_OWN = """
scores found state written weak strong weak_x strong_x weak_all strong_all between left kept earlier
steps stages dtype precision chunks chunk n size query key value log place
at_mark mark marks row cells product numbers there first sums blocks logs ends half_keys half_values
half after range worst tame flux cell stretches stretch span fade_keys fade_values state_at so_far goes_on
segments begun until total total_keys total_values
weak_all_ahead strong_all_ahead coming at_coming in_coming weight
place product ending carry
last rows whole weak_sum strong_sum since scale apart sum_rows
"""


LOG2E = 1.4426950408889634
STRONG, CLOSED = -12.0, -160.0
"""Powers of two: decays below the first are strong, and below the second nothing is left."""
ABOUT_SUMS = "[2, 2, rows, chunks · steps]: with a step's own and without, weak and strong"
FAINT = -17.0
"""The logarithm of a decay from which on its gradient, that many times smaller, is below the rounding of the flux."""
MOST = 80.0
"""The largest power of two that tilts; a sequence that would need more is walked step by step."""


class TimedFrame(Frame):
    """Tiles [steps, …] of what varies with time."""

    def __init__(self, program: Program, schedule: Schedule, clock: str) -> None:
        self.clock = clock
        super().__init__(program, schedule, chunked=False, own=_OWN.split())

    def constants(self) -> list[str]:
        own = [name for name in super().constants() if name not in (f"size_{self.clock}", f"block_{self.clock}")]
        return [*own, "steps"]

    def shape(self, axes: Iterable[str]) -> str:
        return super().shape(axes).replace(f"block_{self.clock}", "steps")

    def _write_lanes(self, out: Writer, lanes: Iterable[str]) -> None:
        for axis in self.tile(self.axes):
            if axis == self.clock:
                continue
            index = f"tl.arange(0, block_{axis})"
            index = f"part_{axis} * block_{axis} + {index}" if axis in self.schedule.split else index
            out.line(f"at_{axis} = ({index}).to(tl.int64)")
            out.line(f"in_{axis} = (at_{axis} < size_{axis}) | (size_{axis} > 0 and size_{axis} % block_{axis} == 0)")


class SegmentFrame(TimedFrame):
    """The same, of a program that has a segment of the time."""

    @property
    def times(self) -> tuple[str, ...]:
        return "T", "segments", "span"

    def _write_spread(self, out: Writer) -> None:
        out.line("segment = program % segments")
        out.line("program = program // segments")
        super()._write_spread(out)


class RowsFrame(TimedFrame):
    """Some steps of one sequence a program, and a block of an axis; if `stretched`, a stretch of chunks."""

    stretched = False

    @property
    def times(self) -> tuple[str, ...]:
        return "T", "batch"

    def write_indices(self, out: Writer, scratch: Iterable[Axes] = ()) -> None:
        out.line("chunks = tl.cdiv(T, steps)")
        if self.stretched:
            out.line("stretches = tl.cdiv(T, stretch)")
        parts, part = ("stretches", "mark") if self.stretched else ("chunks", "chunk")
        out.line("program = tl.program_id(0).to(tl.int64)")
        out.line(f"{part} = program % {parts}")
        out.line(f"program = program // {parts}")
        blocks = "".join(f" // tl.cdiv(size_{axis}, block_{axis})" for axis in self.schedule.split)
        out.line(f"row = program{blocks}")
        self._write_spread(out)
        out.line("b = program")
        self._write_lanes(out, ())
        self._write_leads(out)


def reads_of(program: Program, wanted: Iterable[str], own: Collection[str] = ()) -> list[Read]:
    """The tensors that a kernel's instructions read, and those among what is wanted of it."""
    used = {arg for instr in program.instrs for arg in instr.args} | {*wanted}
    tensors = [t for t in (*program.inputs, *program.params) if t.name in used and t.name not in own]
    return [Read(t.name, t.name, t.type.axes, t.type.kind) for t in tensors]


def declare(kernel: KernelWriter, reads: Iterable[Read], clock: str) -> None:
    """An argument for each tensor that is read."""
    for read in reads:
        lead = (BATCH,) if clock in read.axes else ()
        kernel.buffers[read.tensor] = kernel.argument(read.tensor, (*lead, *read.axes), f"in:{read.tensor}")


def leaving_of(kernel: KernelWriter, step: Step, leaves: Iterable[Output]) -> list[Leaving]:
    """Arguments for what leaves at each step, or of a total at each chunk."""
    return [
        leaving
        for leave in leaves
        for leaving in kernel.leaving(step, [leave], (BATCH, SEGMENT) if leave.name.startswith("total.") else (BATCH,))
    ]


def write_leave(kernel: KernelWriter, step: Step, leave: Leaving) -> None:
    """Stores what leaves."""
    address = kernel.write_address(leave.buffer, {SEGMENT: "chunk"})
    there = ("(chunk < chunks)",) if SEGMENT in leave.buffer.dims else ()
    kernel.write_store(step, address, leave.value, step.tensor(leave.value), *there)


def write_tame(out: Writer, ranges: Sequence[str], chunks: str = "chunks") -> None:
    """Whether all chunks of a sequence can be tilted."""
    out.line("cells = tl.arange(0, 512)")
    out.line("worst = 0.0")
    with out.block(f"for first in range(0, {chunks}, 512):"):
        out.line(f"cell = row * {chunks} + first + cells")
        for each in ranges:
            load = f"tl.load({each} + cell, mask=first + cells < {chunks}, other=0.0)"
            out.line(f"worst = tl.maximum(worst, tl.max({load}))")
    out.line(f"tame = worst <= {MOST}")
