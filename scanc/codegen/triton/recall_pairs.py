"""The gradient of what decays a whole memory, from pairs of steps.

A decay counts in all that is read behind it of what was written before it.  A program has a stretch of steps of one
sequence; it knows the state that the stretch begins with and the cotangent that it ends with.  Each product of a score
of queries and keys with one of cotangents and values is added to the step that reads and taken from the step that
writes, so that the gradients are sums over all later steps (theory, section 2).  Nothing of a pair is rounded: what the
sums of two steps have in common cancels, and what is left are pairs across a stretch's ends, whose states are operands.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scanc.codegen.expressions import Level
from scanc.codegen.names import Names
from scanc.codegen.triton.flux import Factors
from scanc.codegen.triton.kernel import Kernel
from scanc.codegen.triton.recall_frame import (
    CLOSED,
    FAINT,
    LOG2E,
    STRONG,
    RowsFrame,
    declare,
    leaving_of,
    reads_of,
    write_leave,
)
from scanc.codegen.triton.recall_plan import Last, Plan, operands_of, own_program
from scanc.codegen.triton.recall_rows import RowsWriter, log_of
from scanc.codegen.triton.step import Read, Step
from scanc.ir.nodes import Program
from scanc.ir.rewrite import live
from scanc.passes.schedule import Schedule, spread


class _PieceFrame(RowsFrame):
    """Tiles of some steps of a stretch: those that write, or those that read."""

    def __init__(self, program: Program, schedule: Schedule, clock: str, which: str, names: Names) -> None:
        super().__init__(program, schedule, clock)
        self.which, self.names = which, names

    def shape(self, axes: Iterable[str]) -> str:
        return super().shape(axes).replace("steps", f"steps_{self.which}")

    def at(self, axis: str, wanted: Sequence[str]) -> str:
        own = tuple(wanted)
        return self.lifted(f"at_{self.which}", (axis,), own) if axis == self.clock else super().at(axis, own)

    def inside(self, axes: Iterable[str], wanted: Sequence[str]) -> str:
        names = {axis: self.which if axis == self.clock else axis for axis in self.tile(axes)}
        return " & ".join(self.lifted(f"in_{name}", (axis,), tuple(wanted)) for axis, name in names.items())


@dataclass(frozen=True)
class _Side:
    """What is known of some steps: two operands over `rows` and `columns`, and factors of each step alone."""

    which: str
    names: tuple[str, str]
    operands: tuple[str, str]
    factors: Factors
    step: Step
    reads: Sequence[Read]

    @property
    def number(self) -> str:
        return {"written": "w", "read": "r"}[self.which]

    @property
    def scale(self) -> str:
        return {"written": "weight", "read": "scale"}[self.which]


class _PairsWriter(RowsWriter):
    def __init__(self, found: Plan, last: Last) -> None:
        assert last.meet is not None
        self.meet, self.last = last.meet, last
        memory, dual = (found.memory(name) for name in last.memories)
        self.states = memory.state, dual.state
        (self.rows,), (self.columns,) = memory.rows, memory.columns
        self.before = not dual.writes[0]
        self.log = log_of(found, self.meet)
        left = {output.value for output in last.leaves}
        handed = [value for value in found.handed if value not in left]
        inner = (self.rows, self.columns)
        super().__init__(found, None, [self.log], [self.meet.name, *handed], last.leaves, inner)
        self.frame.stretched, self.frame.inner = True, inner
        given = operands_of(found.program, found.clock, self.meet)
        self.whole = whole_axes(found, last)
        names = (("written", ("key", "value")), ("read", ("query", "cotangent")))
        self.sides: list[_Side] = []
        for (which, own), (operands, factors) in zip(names, given, strict=True):
            program = own_program(found, [*operands, *factors], handed, ())
            frame = _PieceFrame(program, self.frame.schedule, self.clock, which, self.frame.names)
            step = Step(self.out, frame, program, self.frame.schedule, key=lambda name, which=which: f"{name}#{which}")  # type: ignore[misc]
            reads = reads_of(program, [*operands, *factors])
            self.sides.append(_Side(which, own, operands, factors, step, reads))

    def write(self, name: str) -> Kernel:
        out, kernel, step = self.out, self.kernel, self.step
        reads = reads_of(self.program, self.wanted, {self.meet.name})
        every = {read.tensor: read for each in (reads, *(side.reads for side in self.sides)) for read in each}
        declare(kernel, every.values(), self.clock)
        leaving = leaving_of(kernel, step, self.last.leaves)
        about = "[rows, stretches, *sides]: states that stretches begin with"
        self.marks = [kernel.scratch(f"{n}_marks", f"scratch:marks.{n}", about).pointer for n in self.states]
        out.line("chunk = mark")
        self.write_steps(reads, "not reverse")
        instrs = self.program.regions[0].instrs
        step.write(live(instrs, [self.log]))
        self._write_sums()
        self._write_ends()
        self._write_blocks()
        self._write_gradient()
        step.write([instr for instr in instrs if instr.name not in step.tiles])
        for leave in leaving:
            write_leave(kernel, step, leave)
        doc = "Each program: a stretch of steps of one sequence, latest first; all pairs of them."
        flags = ["steps_written", "steps_read", "stages", "stretch", "apart", "dtype", "precision", "reverse", "acc"]
        return kernel.finish(name, doc, flags, [self.program], list(every.values()))

    def _write_sums(self) -> None:
        """Sums of logarithms over the later steps of a piece that is written, weak and strong ones apart."""
        out = self.out
        out.line(f"log = tl.where(in_{self.clock}, {self.step.tensor(self.log)}, 0.0) * {LOG2E}", "latest first")
        out.line(f"log = tl.where(log < {CLOSED}, {CLOSED}, log)")
        out.line("weak = tl.reshape(log, [steps // steps_written, steps_written])")
        with out.block("if apart:"):
            out.line(f"strong = tl.where(weak < {STRONG}, weak, 0.0)")
            out.line("weak = weak - strong")
            self._write_sum("strong")
        self._write_sum("weak")
        out.line("pieces = tl.arange(0, steps // steps_written)")
        out.line("slots = tl.arange(0, steps // steps_read)")
        out.line("taken = tl.zeros([steps // steps_read, steps_read], acc)", "by what reads")
        out.line("given = tl.zeros([steps // steps_written, steps_written], acc)", "by what writes")

    def _write_ends(self) -> None:
        """What the stretch leaves of the state that it begins with, times the cotangent that it ends with."""
        out = self.out
        out.line(f"numbers: tl.constexpr = size_{self.rows} * size_{self.columns}")
        out.line("cells = tl.arange(0, 1024)")
        out.line("product = tl.zeros([1024], acc)")
        with out.block("for first in range(0, numbers, 1024):"):
            out.line("place = (row * stretches + mark) * numbers + first + cells")
            load = "tl.load({} + place, mask=first + cells < numbers, other=0.0).to(acc)"
            out.line(f"product += {' * '.join(load.format(mark) for mark in self.marks)}")
        self._write_power("kept", "tl.sum(#_all, 0)")
        out.line("ends = tl.sum(product, 0) * tl.exp2(kept)")

    def _write_mark(self, name: str, mark: str) -> None:
        """A block of a state at an end of the stretch."""
        rows, columns = self.rows, self.columns
        above, beside = f"at_{rows}[:, None]", f"at_{columns}[None, :]"
        self.out.line(f"place = ((row * stretches + mark) * size_{rows} + {above}) * size_{columns} + {beside}")
        there = f"in_{rows}[:, None] & in_{columns}[None, :]"
        load = f"tl.load({mark} + place, mask={there}, other=0.0).to(dtype)"
        self.out.line(f"{name} = {load}", f"[{rows}, {columns}]")

    def _write_sum(self, what: str) -> None:
        out = self.out
        out.line(f"{what}_all = tl.sum({what}, 1)", "of a piece")
        out.line(f"{what}_sum = tl.cumsum({what}, 1)")
        out.line(f"{what}_written = {what}_sum - {what}")
        read = f"{what}_sum" if self.before else f"{what}_written"
        out.line(f"{what}_read = tl.reshape({read}, [steps // steps_read, steps_read])")

    def _write_power(self, name: str, text: str) -> None:
        """The logarithm of what is left, of weak decays and of strong ones, as `text` has it of either."""
        self.out.line(f"{name} = {text.replace('#', 'weak')}")
        with self.out.block("if apart:"):
            self.out.line(f"{name} += {text.replace('#', 'strong')}")

    def _write_blocks(self) -> None:
        """The products over blocks of both sides."""
        out, rows, columns = self.out, self.rows, self.columns
        with out.block(
            f"for part in range(tl.cdiv(size_{rows}, block_{rows}) * tl.cdiv(size_{columns}, block_{columns})):"
        ):
            parts = f"tl.cdiv(size_{rows}, block_{rows})"
            for axis, part in ((rows, f"part % {parts}"), (columns, f"part // {parts}")):
                out.line(f"at_{axis} = ({part} * block_{axis} + tl.arange(0, block_{axis})).to(tl.int64)")
                out.line(f"in_{axis} = at_{axis} < size_{axis}")
            written, read = self.sides
            self._write_mark("state", self.marks[0])
            with out.block("for r in tl.range(0, steps // steps_read, num_stages=stages):"):
                self._write_side(read)
                out.line("piece = r * steps_read // steps_written")
                self._write_power("since", "tl.sum(tl.where(pieces >= piece, #_all, 0.0), 0) - #_r")
                self._write_state(read, "state", "cotangent", "query", "since")
                out.line("taken += tl.where(slots[:, None] == r, found[None, :], 0.0)")
            self._write_mark("later", self.marks[1])
            with out.block("for w in range(0, steps // steps_written):"):
                self._write_side(written)
                self._write_power("left", "tl.sum(tl.where(pieces < w, #_all, 0.0), 0) + #_w")
                self._write_state(written, "later", "value", "key", "left")
                out.line("ends += tl.sum(found, 0)")
                out.line("own = tl.exp2(weak_w)", "[written]")
                with out.block("if apart:"):
                    out.line("own *= tl.exp2(strong_w)")
                if written.factors:
                    out.line("own = own * weight")
                out.line("across = tl.zeros([steps_written], acc)")
                with out.block("for r in tl.range(0, w * (steps_written // steps_read), num_stages=stages):"):
                    self._write_side(read)
                    self._write_pairs_apart()
                out.line("found += across * own")
                first, last = (f"{n} * (steps_written // steps_read)" for n in ("w", "(w + 1)"))
                with out.block(f"for r in tl.range({first}, {last}, num_stages=stages):"):
                    self._write_side(read)
                    self._write_pairs()
                out.line("given += tl.where(pieces[:, None] == w, found[None, :], 0.0)")

    def _write_side(self, side: _Side) -> None:
        """The operands of a piece, its factors, and its sums of logarithms."""
        out, step, which, number = self.out, side.step, side.which, side.number
        out.line(f"u_{which} = {number} * steps_{which} + tl.arange(0, steps_{which})")
        out.line(f"at_{which} = mark * steps + (u_{which} if reverse else steps - 1 - u_{which})")
        out.line(f"in_{which} = at_{which} < T")
        step.tiles.clear()
        raw: dict[str, str] = {}
        for read in side.reads:
            stored = step.frame.names.of(f"{read.value}#{which}#stored")
            address = step.frame.address(self.kernel.buffers[read.tensor])
            comment = step.frame.comment(read.axes)
            out.line(f"{stored} = {step.frame.raw(address, read.axes, read.kind)}", comment)
            raw[read.value] = stored
            out.line(f"{step.define(read.value)} = {stored}.to({step.frame.dtype(read.kind)})")
        step.write(live(step.program.instrs, [*side.operands, *side.factors]))
        for name, value in zip(side.names, side.operands, strict=True):
            axes = step.program.types[value].axes
            inside = step.frame.inside(axes, step.frame.tile(axes))
            text = raw[value] if value in raw else f"tl.where({inside}, {step.tensor(value)}, 0.0)"
            out.line(f"{name} = {text}.to(dtype)", step.frame.comment(axes))
        numbers = [step.speller.tensor(step.tiles[name]).expr.at(Level.ATOM) for name in side.factors]
        if numbers:
            out.line(f"{side.scale} = tl.where(in_{which}, {' * '.join(numbers)}, 0.0)", f"[{self.clock}]")
        places = {"written": "pieces", "read": "slots"}[which]
        chosen = f"tl.sum(tl.where({places}[:, None] == {number}, #_{which}, 0.0), 0)"
        out.line(f"weak_{number} = {chosen.replace('#', 'weak')}", f"[{which}]")
        with out.block("if apart:"):
            out.line(f"strong_{number} = {chosen.replace('#', 'strong')}", f"[{which}]")

    def _write_state(self, side: _Side, state: str, through: str, operand: str, power: str) -> None:
        """What a piece has in common with a state at an end of the stretch, of each step."""
        out = self.out
        product = f"tl.dot({through}, tl.trans({state}), input_precision=precision)"
        out.line(f"found = {product}", f"[{side.which}, {self.rows}]")
        scale = f" * {side.scale}" if side.factors else ""
        out.line(f"found = tl.sum(found * {operand}.to(acc), 1) * tl.exp2({power}){scale}", f"[{side.which}]")

    def _write_products(self) -> None:
        out = self.out
        out.line("pairs = tl.dot(key, tl.trans(query), input_precision=precision)", "[written, read]")
        out.line("pairs *= tl.dot(value, tl.trans(cotangent), input_precision=precision)")

    def _write_pairs_apart(self) -> None:
        """What is read by the steps of a piece of what an earlier one has written: decays fall in two factors."""
        out = self.out
        self._write_products()
        out.line("piece = r * steps_read // steps_written")
        out.line("crossed = (pieces >= piece) & (pieces < w)")
        self._write_power("since", "tl.sum(tl.where(crossed, #_all, 0.0), 0) - #_r")
        scale = " * scale" if self.sides[1].factors else ""
        out.line(f"since = tl.exp2(since){scale}", "[read]")
        out.line("across += tl.sum(pairs * since[None, :], 1)")
        out.line("found_r = tl.sum(pairs * own[:, None], 0) * since", "[read]")
        out.line("taken += tl.where(slots[:, None] == r, found_r[None, :], 0.0)")

    def _write_pairs(self) -> None:
        """What is read by the steps of a piece of what earlier steps of their own have written."""
        out = self.out
        self._write_products()
        self._write_power("between", "#_w[:, None] - #_r[None, :]")
        later = "u_read[None, :] < u_written[:, None]"
        out.line(f'pairs *= tl.exp2(tl.where({later}, between, float("-inf")))')
        written, read = self.sides
        if written.factors:
            out.line("pairs *= weight[:, None]")
        if read.factors:
            out.line("pairs *= scale[None, :]")
        out.line("found += tl.sum(pairs, 1)")
        out.line("taken += tl.where(slots[:, None] == r, tl.sum(pairs, 0)[None, :], 0.0)")

    def _write_gradient(self) -> None:
        out, step = self.out, self.step
        out.line("read = tl.reshape(taken, [steps])")
        out.line("flux = read - tl.reshape(given, [steps])")
        product = f"tl.cumsum(flux, 0) + ends{' - read' if self.before else ''}"
        faint = f"{step.tensor(self.log)} < {FAINT}"
        out.line(f"{step.define(self.meet.name)} = tl.where({faint}, 0.0, {product})", f"[{self.clock}]")


def whole_axes(found: Plan, last: Last) -> tuple[str, ...]:
    """The axes of a memory of which a program needs all to make operands of."""
    assert last.meet is not None
    memory = found.memory(last.memories[0])
    axes = *memory.rows, *memory.columns
    given = operands_of(found.program, found.clock, last.meet)
    wanted = [name for operands, factors in given for name in (*operands, *factors)]
    program = own_program(found, wanted, found.handed, ())
    spreads = {axis: spread(program, axis) for axis in axes}
    return tuple(axis for axis, each in spreads.items() if each is None or each.partial & {*wanted})


def pairs_kernel(found: Plan, last: Last, name: str) -> Kernel:
    """The kernel of the gradient of what decays a whole memory, and of what is made of it."""
    return _PairsWriter(found, last).write(name)
