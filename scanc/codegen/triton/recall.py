"""The recall template: a memory in registers, a chunk of time as products of queries, keys and values.

A program has one sequence and a block of values.  For each chunk it computes queries, keys and values from the inputs,
what the steps recall from the state at the chunk's start and from one another, and all that leaves; then the chunk is
added to the state.  The state is held transposed, [values, keys], in fp32, so that it is an operand of the products
from where it lies; only the scores of a chunk pass through shared memory (theory, sections 2 and 8).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from scanc.codegen.expressions import Level
from scanc.codegen.triton import gates
from scanc.codegen.triton.host import ROWS
from scanc.codegen.triton.kernel import Kernel, KernelWriter, Leaving
from scanc.codegen.triton.recall_frame import (
    ABOUT_SUMS,
    SegmentFrame,
    TimedFrame,
    declare,
    leaving_of,
    reads_of,
    write_leave,
    write_rounded,
    write_tame,
)
from scanc.codegen.triton.recall_plan import NoRecall, Part, Plan, own_program
from scanc.codegen.triton.step import Read, Step
from scanc.codegen.triton.tiles import BATCH, NOTHING, SEGMENT, Buffer
from scanc.ir.nodes import Contract, Kind, Program
from scanc.ir.rewrite import live
from scanc.passes.schedule import Schedule, spread

_DOT = "tl.dot({}, {}, input_precision=precision)"
_PRODUCTS: dict[str | None, tuple[str, str, str]] = {
    None: (
        _DOT.format("key", "tl.trans(query)"),
        _DOT.format("state.to(dtype)", "tl.trans(query)"),
        _DOT.format("tl.trans(written)", "key, state"),
    ),
    "values": (
        _DOT.format("key", "tl.trans(query)"),
        "tl.sum(query.to(acc) * state, 1)[None, :]",
        "state + tl.sum(written * key.to(acc), 0)[None, :]",
    ),
    "keys": ("key * tl.trans(query)", "state * tl.trans(query)", "state + tl.sum(written * key, 0)[:, None]"),
}
"""Scores, what the state gives, and the state behind a chunk; a side of one number is summed as it is, in fp32."""


class RecallWriter:
    """Writes the kernel of one part."""

    flags: Sequence[str] = ("stages", "dtype", "precision")
    walk = "a segment of the time, a chunk after the other"
    splits = True
    rowed = True  # numbers of each step are read as rows

    def __init__(self, found: Plan, part: Part, name: str) -> None:
        self.found, self.part, self.name = found, part, name
        self.clock = found.clock
        self.types = found.program.types
        self.operands, self.needed = self._needs()
        self.program = self._own()
        spreads = {axis: spread(self.program, axis) for axis in (*part.batch, part.values)}
        if any(spreads[axis] is None for axis in part.batch):
            raise NoRecall("a batch axis is not carried along")
        block = spreads[part.values]
        split = block is not None and not block.partial & {*self.needed}
        kept = tuple(each for axis, each in spreads.items() if each is not None and (split or axis != part.values))
        if any(each.partial & {*self.needed} for each in kept):
            raise NoRecall("a query, a key or a value is a sum over programs")
        full = (self.clock, part.keys, *(() if split else (part.values,)))
        leaving = frozenset(output.value for output in part.leaves)
        self.schedule = Schedule(leaving, part.batch, (part.values,) if split else (), full, kept)
        self.frame = (SegmentFrame if self.splits else TimedFrame)(self.program, self.schedule, self.clock)
        self.kernel = KernelWriter([self.program], self.schedule, False, self.frame)
        self.out = self.kernel.body
        self.step = Step(self.out, self.frame, self.program, self.schedule)
        self.halves: dict[str, str] = {}
        self.sums = self.sum_rows = ""
        self.rows: dict[str, str] = {}

    def axis(self, where: str) -> str:
        """The axis of keys or of values."""
        return self.part.keys if where == "keys" else self.part.values

    def _needs(self) -> tuple[Sequence[str], Sequence[str]]:
        """Query, key and value, and all that must be known of a chunk; sums of logarithms come from memory."""
        factors = (name for names in self.part.factors for name in names)
        return self.part.operands, [*self.part.operands, *factors]

    def _own(self) -> Program:
        """The part's own instructions; what is recalled, and what others hand on, are inputs."""
        part = self.part
        left = [output.value for output in part.leaves]
        given = [*(name for name in self.found.handed if name not in left and name != part.result), part.result]
        own = own_program(self.found, [*self.needed, *left], given, part.leaves)
        if any({part.keys, part.values} <= {*instr.type.axes} for instr in own.instrs):
            raise NoRecall("a value has the axes of both sides")
        used = {axis for instr in own.instrs for name in (instr.name, *instr.args) for axis in own.types[name].axes}
        if foreign := sorted(used - {self.clock, *part.made.axes}):
            raise NoRecall(f"a value has an axis {foreign[0]}, which {part.made.state} lacks")
        return own

    def write(self) -> Kernel:
        part, out, kernel = self.part, self.out, self.kernel
        reads = reads_of(self.program, [*self.needed, *(o.value for o in part.leaves)], {part.recall.name, part.result})
        numbers = [read for read in reads if self.frame.tile(read.axes) == (self.clock,)]
        shared = [read for read in numbers if self._is_row(read)]
        declare(kernel, [read for read in reads if read not in shared], self.clock)
        state, axes = part.made.state, part.made.axes
        start = self._declare_start()
        leaving = leaving_of(kernel, self.step, part.leaves)
        end = kernel.argument(f"{state}_end", (BATCH, *axes), f"end:{state}") if part.ends else None
        if part.marks:
            about = "[rows, marks, *sides]: states now and then"
            self.marks = kernel.scratch(f"{state}_marks", f"scratch:marks.{state}", about).pointer
        self._declare()
        ranges = [kernel.scratch(f"{log}_ranges", f"scratch:ranges.{log}", "[rows, chunks]") for log in self._logs()]
        about = "[rows, steps]"
        self.rows = {r.value: kernel.scratch(f"{r.tensor}_rows", f"{ROWS}{r.tensor}", about).pointer for r in shared}
        self.step.write_params([read for read in reads if self.clock not in read.axes], kernel.buffers)
        self._write_begin(start)
        self._write_guard([each.pointer for each in ranges])
        ahead = self._write_ahead_first([read for read in numbers if read not in shared])
        first, past = self._range()
        with out.block(f"for n in tl.range({first}, {past}, num_stages=stages):"):
            others = [read for read in reads if read not in numbers]
            self._write_chunk(others, [read for read in numbers if read not in shared], ahead, leaving)
        self._write_end(end)
        gated = ["apart"] if part.log("all") is not None else []
        flags = [*gated, *self.flags, "reverse", *(["marks"] if part.marks else []), "acc"]
        doc = f"Each program: one sequence, {part.values} or a block; {self.walk}."
        return kernel.finish(self.name, doc, flags, [self.program], reads)

    def _is_row(self, read: Read) -> bool:
        """Whether a number of each step, which each sequence has its own of."""
        return self.rowed and read.kind is Kind.REAL and {*read.axes} == {self.clock, *self.part.batch}

    def _declare_start(self) -> Buffer | None:
        """The argument for what the state holds before the first step, of each segment where there are several."""
        made, lead = self.part.made, (SEGMENT, BATCH) if self.splits else (BATCH,)
        role = "start" if self.splits else "given"
        return self.kernel.argument(f"{made.state}_start", (*lead, *made.axes), f"{role}:{made.state}")

    def _declare(self) -> None:
        """Arguments for what kernels before this one left of decays."""
        part, kernel = self.part, self.kernel
        if part.log("all") is not None:
            self.sums = kernel.scratch("sums", "scratch:sums", ABOUT_SUMS).pointer
            self.sum_rows = kernel.scratch("sum_rows", "scratch:sum_rows", "the same, [·, chunks · steps]").pointer
        for where, log in part.sides:
            halves = kernel.scratch(f"{log}_halves", f"scratch:halves.{log}", f"[rows, chunks, {self.axis(where)}]")
            self.halves[where] = halves.pointer

    def _logs(self) -> list[str]:
        """The logarithms that decide how a sequence is walked: those of all sides, for all parts alike."""
        return [first.log for first in self.found.first] if self.part.sides else []

    def _write_guard(self, ranges: Sequence[str]) -> None:
        """Leaves sequences that decay too fast to the kernel that walks them step by step."""
        if ranges:
            write_tame(self.out, ranges)
            with self.out.block("if not tame:"):
                self.out.line("return")

    # --- the state ---

    def _state_address(self, buffer: Buffer) -> str:
        terms = [buffer.pointer]
        keys, values = self.part.keys, self.part.values
        for dim, stride in zip(buffer.dims, buffer.strides, strict=True):
            own = {BATCH: "b", SEGMENT: "segment", keys: f"at_{keys}[None, :]", values: f"at_{values}[:, None]"}
            terms.append(f"{own.get(dim, f'at_{dim}')} * {stride}")
        return " + ".join(terms)

    def _there(self) -> str:
        return f"in_{self.part.values}[:, None] & in_{self.part.keys}[None, :]"

    def _write_begin(self, start: Buffer | None) -> None:
        out, part = self.out, self.part
        self._write_start(start)
        out.line("chunks = tl.cdiv(T, steps)")
        if self.splits:
            out.line("begun = (segment * (span // steps)).to(tl.int32)")
            out.line("until = tl.minimum(begun + span // steps, chunks)")
        out.line("u = tl.arange(0, steps)")
        self._write_pairs()
        if part.log("all") is not None or part.marks or part.sides or self.rows:
            blocks = f"tl.cdiv(size_{part.values}, block_{part.values})"
            out.line(f"blocks = {f'segments * {blocks}' if self.splits else blocks}")
            out.line("row = tl.program_id(0).to(tl.int64) // blocks")
            out.line("rows = tl.num_programs(0).to(tl.int64) // blocks")

    def _range(self) -> tuple[str, str]:
        """The first of the chunks that a program walks, and the one behind them."""
        return ("begun", "until") if self.splits else ("0", "chunks")

    # --- numbers of each step, loaded a chunk ahead ---

    def _write_ahead_first(self, numbers: Sequence[Read]) -> list[str]:
        """Loads for the first chunk; returns the names of what is loaded."""
        out, part, (first, past) = self.out, self.part, self._range()
        if not numbers and part.log("all") is None:
            return []
        if part.log("all") is not None:
            out.line("last: tl.constexpr = 0 if reverse else steps - 1")
        out.line(f"coming = tl.maximum({past} - 1, 0) if reverse else {first}")
        return self._write_ahead(numbers)

    def _write_ahead(self, numbers: Sequence[Read]) -> list[str]:
        out, clock = self.out, self.clock
        names = []
        if numbers:
            out.line("at_coming = (coming * steps + u).to(tl.int64)")
            out.line("in_coming = at_coming < T")
        for read in numbers:
            name = self.frame.names.of(f"{read.value}#stored")
            address = self.frame.address(self.kernel.buffers[read.tensor], {clock: "at_coming"})
            out.line(f"{name}_ahead = tl.load({address}, mask=in_coming, other={NOTHING[read.kind]})")
            names.append(name)
        if self.part.log("all") is not None:
            names += gates.write_wholes_ahead(out, self.sums)
        return names

    def _write_start(self, start: Buffer | None) -> None:
        out, part = self.out, self.part
        zeros = f"state = tl.zeros([block_{part.values}, block_{part.keys}], acc)"
        if start is None:
            out.line(zeros, f"[{part.values}, {part.keys}]")
            return
        with out.block(f"if {start.pointer} is None:"):
            out.line(zeros, f"[{part.values}, {part.keys}]")
        with out.block("else:"):
            out.line(f"state_at = {self._state_address(start)}")
            out.line(f"state = tl.load(state_at, mask={self._there()}, other=0.0).to(acc)")

    def _write_pairs(self) -> None:
        """Which steps of a chunk read what others write."""
        less = f"u[:, None] {'<=' if self.part.whole else '<'} u[None, :]"
        self.out.line(f"earlier = {less.replace('<', '>')} if reverse else {less}", "[written, read]")

    def _write_end(self, end: Buffer | None) -> None:
        """The final state, by the program that has the last chunk."""
        if end is None:
            return
        there = self._there()
        if self.splits:
            there += " & (begun == 0 if reverse else until == chunks)"
        with self.out.block(f"if {end.pointer} is not None:"):
            self.out.line(f"state_at = {self._state_address(end)}")
            self.out.line(f"tl.store(state_at, state, mask={there})")

    # --- a chunk ---

    def _write_chunk(
        self, reads: Sequence[Read], numbers: Sequence[Read], ahead: Sequence[str], leaving: Sequence[Leaving]
    ) -> None:
        part, out, step, clock, (first, past) = self.part, self.out, self.step, self.clock, self._range()
        out.line(f"chunk = {'begun + until' if self.splits else 'chunks'} - 1 - n if reverse else n")
        for name in ahead:
            out.line(f"{name} = {name}_ahead")
        if ahead:
            out.line(f"coming = tl.maximum(chunk - 1, {first}) if reverse else tl.minimum(chunk + 1, {past} - 1)")
            self._write_ahead(numbers)
        for read in numbers:
            stored = self.frame.names.of(f"{read.value}#stored")
            out.line(f"{step.define(read.value)} = {stored}.to({self.frame.dtype(read.kind)})")
        early = part.made.dual or part.log("all") is not None
        if part.marks and early:
            self._write_mark("not reverse")
        out.line(f"at_{clock} = (chunk * steps + u).to(tl.int64)")
        out.line(f"in_{clock} = chunk * steps + u < T")
        for value, rows in self.rows.items():
            load = f"tl.reshape({rows}.load([row.to(tl.int32), chunk * steps]), [steps]).to(acc)"
            out.line(f"{step.define(value)} = {load}", f"[{clock}]")
        raw: dict[str, str] = {}
        for read in reads:
            if clock in read.axes:
                address = self.frame.address(self.kernel.buffers[read.tensor])
                stored = self.frame.names.of(f"{read.value}#stored")
                out.line(f"{stored} = {self.frame.raw(address, read.axes, read.kind)}", self.frame.comment(read.axes))
                raw[read.value] = stored
                out.line(f"{step.define(read.value)} = {stored}.to({self.frame.dtype(read.kind)})")
        step.write(live(self.program.instrs, self.needed))
        self._write_products(raw)
        rest = [instr for instr in self.program.instrs if instr.name not in step.tiles]
        self._write_rounded()
        step.write([instr for instr in rest if instr.name not in step.tiles])
        for leave in leaving:
            self._write_leave(leave)
        self._write_onward()
        if part.marks and not early:
            self._write_mark("reverse")

    def _write_products(self, raw: dict[str, str]) -> None:
        """What is recalled of a chunk."""
        part, out, step = self.part, self.out, self.step
        for name, value in zip(("query", "key", "value"), self.operands, strict=True):
            out.line(f"{name} = {self._operand(value, raw)}", self.frame.comment(self.types[value].axes))
        self._write_halves()
        scores, found, _ = _PRODUCTS[part.single]
        out.line(f"scores = {scores}", "[written, read]")
        self._write_own(raw)
        if part.finer and part.single is None:
            product = _DOT.format("{}.to(dtype)", "tl.trans(query){}")
            out.line(f"found = tl.zeros([block_{part.values}, steps], acc)", f"[{part.values}, read]")
            with out.block("if dtype != acc:"):
                out.line("rest = state - state.to(dtype).to(acc)", f"[{part.values}, {part.keys}]")
                out.line(f"found = {product.format('rest', ', found')}")
            out.line(f"found = {product.format('state', ', found')}")
        else:
            out.line(f"found = {found}", f"[{part.values}, read]")
        of_read, of_written = ([self.number(name) for name in names] for names in part.factors)
        gates.write_gates(out, part, of_read, of_written, self.sum_rows)
        if part.single == "values":
            out.line("found = found + tl.sum(scores * value, 0)[None, :]")
        else:
            out.line("found = tl.dot(tl.trans(value), scores.to(dtype), found, input_precision=precision)")
        if part.result in self.program.types:  # else its state alone is read, by the gradient of a decay
            comment = self.frame.comment(self.types[part.result].axes)
            out.line(f"{step.define(part.result)} = tl.trans(found)", comment)

    def _write_halves(self) -> None:
        """What the sides' decays leave of the state in half a chunk."""
        for where, _ in self.part.sides:
            axis = self.axis(where)
            place = f"{self.halves[where]} + (row * chunks + chunk) * size_{axis} + at_{axis}"
            self.out.line(f"half_{where} = tl.load({place}, mask=in_{axis}, other=1.0)", f"[{axis}]")
            self.out.line(f"state = state * {self._along(where)}")

    def _write_leave(self, leave: Leaving) -> None:
        """Stores what leaves."""
        write_leave(self.kernel, self.step, leave)

    def _write_onward(self) -> None:
        """The state behind a chunk."""
        part, out = self.part, self.out
        if part.log("all") is not None:
            out.line("state = state * kept")
        out.line(f"state = {_PRODUCTS[part.single][2]}")
        for where, _ in part.sides:
            out.line(f"state = state * {self._along(where)}")

    def number(self, name: str) -> str:
        """A factor of each step, or of all."""
        return self.step.speller.tensor(self.step.tiles[name]).expr.at(Level.ATOM)

    def _write_own(self, raw: Collection[str]) -> None:
        """What the program itself has of queries times their own steps' keys: scores have it already."""
        query, key, _ = self.operands
        if self.part.sides or not {query, key} <= {*raw}:
            return
        for instr in self.program.instrs:
            if instr.op == Contract("real", (self.part.keys,)) and {*instr.args} == {query, key}:
                own = "tl.sum(tl.where(u[:, None] == u[None, :], scores, 0.0), axis=1)"
                self.out.line(f"{self.step.define(instr.name)} = {own}", self.frame.comment(instr.type.axes))

    def _write_rounded(self) -> None:
        """Values as products of matrices have them."""
        write_rounded(self.step, [instr.name for instr in self.program.instrs], self.found.rounded)

    def _write_mark(self, backward: str) -> None:
        """The state at one end of a stretch: of a side's decays, at its end as the primal memory walks; else at the
        end that the memory begins with.  `backward`: whether the walk on from there is back.
        """
        out, part = self.out, self.part
        out.line(f"at_mark = chunk % marks == 0 if {backward} else (chunk + 1) % marks == 0 or chunk == chunks - 1")
        with out.block("if at_mark:"):
            rows, columns = part.made.rows[0], part.made.columns[0]
            place = {part.keys: f"at_{part.keys}[None, :]", part.values: f"at_{part.values}[:, None]"}
            out.line("mark = row * tl.cdiv(chunks, marks) + chunk // marks")
            where = f"(mark * size_{rows} + {place[rows]}) * size_{columns} + {place[columns]}"
            out.line(f"tl.store({self.marks} + {where}, state, mask={self._there()})")

    def _along(self, where: str) -> str:
        """What a side is multiplied by at either end of a chunk, along that side of the state."""
        return f"half_{where}{'[None, :]' if where == 'keys' else '[:, None]'}"

    def _operand(self, name: str, raw: dict[str, str]) -> str:
        """An operand of a product: an input as it is stored, or what was computed, zero outside."""
        axes = self.types[name].axes
        if self.part.single is not None and self.axis(self.part.single) in axes:
            return f"tl.where({self.frame.inside(axes, self.frame.tile(axes))}, {self.step.tensor(name)}, 0.0)"
        if name in raw:
            return f"{raw[name]}.to(dtype)"
        inside = self.frame.inside(axes, self.frame.tile(axes))
        return f"tl.where({inside}, {self.step.tensor(name)}, 0.0).to(dtype)"


def recall_kernel(found: Plan, part: Part, name: str) -> Kernel:
    """The kernel of one part of a plan."""
    return RecallWriter(found, part, name).write()
