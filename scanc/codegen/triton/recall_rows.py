"""The kernels beside those that recall: sums of logarithms, what tilts, and gradients of decays.

A program has some steps of one sequence, and of one axis of a side or none.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from scanc.codegen.triton.kernel import Kernel, KernelWriter
from scanc.codegen.triton.recall_frame import (
    ABOUT_SUMS,
    CLOSED,
    FAINT,
    LOG2E,
    STRONG,
    RowsFrame,
    declare,
    leaving_of,
    reads_of,
    write_leave,
    write_tame,
)
from scanc.codegen.triton.recall_plan import First, Last, NoRecall, Plan, own_program
from scanc.codegen.triton.step import Read, Step
from scanc.codegen.writer import Writer
from scanc.ir.nodes import Instr, Meet, Memory, Output
from scanc.ir.rewrite import live
from scanc.passes.schedule import Schedule, spread


class _RowsWriter:
    """What the small kernels share: values of some steps of one sequence, with one axis of a side or none."""

    def __init__(
        self,
        found: Plan,
        axis: str | None,
        wanted: Sequence[str],
        given: Collection[str],
        leaves: Sequence[Output],
    ) -> None:
        self.found, self.clock, batch = found, found.clock, found.parts[0].batch
        self.wanted = [*wanted, *(output.value for output in leaves)]
        self.program = own_program(found, self.wanted, given, leaves)
        split = () if axis is None else (axis,)
        types = self.program.types
        read = {axis for instr in self.program.instrs for arg in instr.args for axis in types[arg].axes}
        if any({*i.type.axes, *read} - {self.clock, *batch, *split} for i in self.program.instrs):
            raise NoRecall("a decay is computed from values with other axes")
        spreads = [spread(self.program, each) for each in batch]
        if None in spreads:
            raise NoRecall("a batch axis is not carried along")
        block = None if axis is None else spread(self.program, axis)  # else all of it in a program
        full = (self.clock, *(split if block is None else ()))
        split = () if block is None else split
        leaving = frozenset(output.value for output in leaves)
        kept = tuple(each for each in (*spreads, block) if each is not None)
        self.frame = RowsFrame(self.program, Schedule(leaving, batch, split, full, kept), self.clock)
        self.kernel = KernelWriter([self.program], self.frame.schedule, False, self.frame)
        self.out = self.kernel.body
        self.step = Step(self.out, self.frame, self.program, self.frame.schedule)

    def begin(self, own: Collection[str] = ()) -> list[Read]:
        """The tensors that are read, as arguments."""
        reads = reads_of(self.program, self.wanted, {*own, *self.found.tilts})
        declare(self.kernel, reads, self.clock)
        return reads

    def write_tilts(self, log: str, cumulated: str, tame: str = "") -> None:
        """The factors of a logarithm that are needed; `cumulated`: the arguments with which it is summed."""
        out, step, tilts = self.out, self.step, self.found.tilts
        axes = self.program.types[log].axes
        inside, comment = self.frame.inside(axes, self.frame.tile(axes)), self.frame.comment(axes)
        out.line(f"logs = tl.where({inside}, {step.tensor(log)}, 0.0) * {LOG2E}", comment)
        out.line("half = 0.5 * tl.sum(logs, 0)")
        out.line(f"after = tl.cumsum(logs, 0{cumulated}) - half[None, :]", comment)
        used = {arg for instr in self.program.instrs for arg in instr.args}
        for name, by in tilts.items():
            if by.log == log and name in used:
                power = {"after": "after", "before": "after - logs", "write": "-after"}[by.kind]
                factor = f"tl.exp2({power})"
                out.line(f"{step.define(name)} = {f'tl.where({tame}, {factor}, 1.0)' if tame else factor}", comment)

    def write_steps(self, reads: Sequence[Read], backward: str) -> None:
        """The steps that a program has, from the last if `backward`, and what is read of them."""
        out = self.out
        out.line("u = tl.arange(0, steps)")
        out.line(f"u = steps - 1 - u if {backward} else u")
        out.line(f"at_{self.clock} = chunk * steps + u")
        out.line(f"in_{self.clock} = at_{self.clock} < T")
        for read in reads:
            self.step.write_load(read.value, self.kernel.write_address(self.kernel.buffers[read.tensor]))


def sums_kernel(found: Plan, memory: Instr, name: str) -> Kernel:
    """The kernel of the sums of a memory's logarithms of decays, from the start of each chunk as it is walked.

    If `apart` in two parts: of weak gates, which are small numbers, and of strong ones, equal before and behind where
    there is none between.  So a strong gate costs no digits of the decays behind it; 16-bit numbers have fewer than one
    sum leaves them.  -inf is no NaN.
    """
    op = memory.op
    assert isinstance(op, Memory)
    (log,) = [value for (over, _), value in zip(op.decays, memory.args, strict=False) if over == "both"]
    writer = _RowsWriter(found, None, [log], [], [])
    out, step = writer.out, writer.step
    reads = writer.begin()
    sums = writer.kernel.scratch("sums", "scratch:sums", ABOUT_SUMS).pointer
    writer.write_steps(reads, "reverse")
    step.write(writer.program.regions[0].instrs)
    out.line(f"log = tl.where(in_{writer.clock}, {step.tensor(log)}, 0.0) * {LOG2E}")
    out.line(f"log = tl.where(log < {CLOSED}, {CLOSED}, log)")
    out.line(f"strong = tl.where((log < {STRONG}) & apart, log, 0.0)")
    out.line("weak = log - strong")
    out.line("place = (row * chunks + chunk) * steps + u")
    out.line("size = tl.num_programs(0).to(tl.int64) * steps")
    out.line("weak_sum, strong_sum = tl.cumsum(weak, 0), tl.cumsum(strong, 0)")
    for i, what in enumerate(("weak_sum", "strong_sum", "weak_sum - weak", "strong_sum - strong")):
        out.line(f"tl.store({sums} + {i} * size + place, {what})")
    return writer.kernel.finish(
        name, "Each program: one chunk of one sequence.", ["reverse", "apart", "acc"], [writer.program], reads
    )


def first_kernel(found: Plan, first: First, name: str) -> Kernel:
    """The kernel of what decays of a side do to a chunk: what they tilt, what they leave of the state, their range."""
    writer = _RowsWriter(found, first.axis, [first.log], [], first.leaves)
    out, step, kernel, axis = writer.out, writer.step, writer.kernel, first.axis
    reads = writer.begin()
    leaving = leaving_of(kernel, step, first.leaves)
    halves = kernel.scratch("halves", f"scratch:halves.{first.log}", f"[rows, chunks, {axis}]").pointer
    ranges = kernel.scratch("ranges", f"scratch:ranges.{first.log}", "[rows, chunks]").pointer
    writer.write_steps(reads, "reverse")
    instrs = writer.program.regions[0].instrs
    step.write(live(instrs, [first.log]))
    writer.write_tilts(first.log, "")
    out.line("cell = row * chunks + chunk")
    out.line(f"tl.store({halves} + cell * size_{axis} + at_{axis}, tl.exp2(half), mask=in_{axis})")
    out.line("range = tl.maximum(tl.abs(after), tl.abs(after - logs))")
    out.line('range = tl.where(range == range, range, float("inf"))')
    out.line(f"tl.atomic_max({ranges} + cell, tl.max(range))", "the same in any order")
    step.write([instr for instr in instrs if instr.name not in step.tiles])
    for leave in leaving:
        write_leave(kernel, step, leave)
    return kernel.finish(name, "Each program: one chunk of one sequence.", ["reverse", "acc"], [writer.program], reads)


def meet_kernel(found: Plan, last: Last, name: str) -> Kernel:
    """The kernel of a decay's gradient, of what was recalled of a tilted side, and of what is made of them.

    It sums the flux from each stretch's end on, where the product of state and cotangent is known (theory, section 2),
    a chunk after the other.
    """
    meet, axis = last.meet, last.axis
    own = {output.value for output in last.leaves}
    met = () if meet is None else meet.args[2:]
    given = [*([] if meet is None else [meet.name]), *(value for value in found.handed if value not in own)]
    logs = [first.log for first in found.first if first.axis == axis]
    decay = [] if meet is None else [_log(found, meet)]
    writer = _RowsWriter(found, axis, [*met, *logs, *decay], given, last.leaves)
    writer.frame.stretched = True
    out, step, kernel = writer.out, writer.step, writer.kernel
    reads = writer.begin(set() if meet is None else {meet.name})
    leaving = leaving_of(kernel, step, last.leaves)
    told = [first.log for first in found.first] if logs else []
    ranges = [kernel.scratch(f"{log}_ranges", f"scratch:ranges.{log}", "[rows, chunks]").pointer for log in told]
    marks, sizes = [], list[str]()
    if meet is not None:
        states = [found.memory(name).state for name in last.memories]
        marks = [kernel.scratch(f"{n}_marks", f"scratch:marks.{n}", "[rows, marks, *sides]").pointer for n in states]
    if ranges:
        write_tame(out, ranges)
    if meet is not None:
        made = found.memory(last.memories[0])
        (rows,), (columns,) = made.rows, made.columns
        _write_ends(out, axis, rows, columns, marks)
        sizes = [f"size_{each}" for each in (rows, columns) if each != axis]
        sizes += [f"block_{each}" for each in (rows, columns) if each != axis and axis]
    with out.block("for n in range(0, stretch // steps):"):
        out.line("chunk = mark * (stretch // steps) + (n if reverse else stretch // steps - 1 - n)")
        writer.write_steps(reads, "not reverse")
        instrs = writer.program.regions[0].instrs
        step.write(live(instrs, [*logs, *decay]))
        for log in logs:
            writer.write_tilts(log, ", reverse=True", "tame")
        if meet is not None:
            step.write([i for i in live(instrs, met) if i.name not in step.tiles])
            axes = writer.program.types[met[0]].axes
            inside = writer.frame.inside(axes, writer.frame.tile(axes))
            out.line(f"flux = tl.where({inside}, {step.tensor(met[0])}, 0.0)", writer.frame.comment(axes))
            before = "".join(f" - {step.tensor(value)}" for value in met[1:])
            over = "ends[None, :]" if axis else "ends"
            product = f"tl.cumsum(flux, 0) + {over}{before}"
            faint = f"{step.tensor(decay[0])} < {FAINT}"
            out.line(f"{step.define(meet.name)} = tl.where({faint}, 0.0, {product})", writer.frame.comment(axes))
            out.line("ends += tl.sum(flux, 0)")
        step.write([instr for instr in instrs if instr.name not in step.tiles])
        for leave in leaving:
            write_leave(kernel, step, leave)
    doc = "Each program: a stretch of steps of one sequence, a chunk after the other."
    return kernel.finish(name, doc, [*sizes, "stretch", "reverse", "acc"], [writer.program], reads)


def _log(found: Plan, meet: Instr) -> str:
    """The logarithm whose gradient a meet is."""
    op, memory = meet.op, next(instr for instr in found.program.instrs if instr.name == meet.args[0])
    assert isinstance(op, Meet)
    assert isinstance(memory.op, Memory)
    return next(log for (over, _), log in zip(memory.op.decays, memory.args, strict=False) if over == op.over)


def _write_ends(out: Writer, axis: str | None, rows: str, columns: str, marks: Sequence[str]) -> None:
    """The product of state and cotangent at the end of a stretch, summed over the sides that the decay lacks."""
    if axis is None:
        out.line(f"numbers: tl.constexpr = size_{rows} * size_{columns}")
        out.line("cells = tl.arange(0, 1024)")
        out.line("product = tl.zeros([1024], acc)")
        with out.block("for first in range(0, numbers, 1024):"):
            out.line("place = (row * stretches + mark) * numbers + first + cells")
            loads = [f"tl.load({mark} + place, mask=first + cells < numbers, other=0.0).to(acc)" for mark in marks]
            out.line(f"product += {' * '.join(loads)}")
        out.line("ends = tl.sum(product, 0)")
        return
    other = columns if axis == rows else rows
    out.line(f"cells = tl.arange(0, block_{other})")
    own, across = f"at_{axis}[:, None]", "cells[None, :]"
    above, beside = (own, across) if axis == rows else (across, own)
    out.line(f"place = ((row * stretches + mark) * size_{rows} + {above}) * size_{columns} + {beside}")
    out.line(f"there = in_{axis}[:, None] & (cells < size_{other})[None, :]")
    loads = [f"tl.load({mark} + place, mask=there, other=0.0).to(acc)" for mark in marks]
    out.line(f"ends = tl.sum({' * '.join(loads)}, axis=1)", f"[{axis}]")
