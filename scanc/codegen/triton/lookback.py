"""The look-back template: one pass over memory, the time shared out between programs.

A program has a tile of time: `chunks` chunks of `unroll` steps, of a block of channels.  Every value is a tile
[chunk, channel], each chunk at the same step of its own.  All rows of the tile are read first.  A first pass over the
steps finds what each chunk does to the states, a scan over chunks what the tile does, and a look at the tiles before it
the states from which a second pass makes all that leaves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scanc.codegen.triton.backward import beside, distinct, rerun, smooth, states_read
from scanc.codegen.triton.decays import Decays, decays
from scanc.codegen.triton.kernel import Kernel, KernelWriter, Leaving, work_of
from scanc.codegen.triton.rows import WAY, Row, write_row
from scanc.codegen.triton.step import Read, Step, reads
from scanc.codegen.triton.tiles import BATCH, ROW, SEGMENT, TIME, Buffer, Frame
from scanc.codegen.writer import Writer
from scanc.ir.nodes import Broadcast, Const, Contract, Kind, Map, Program, Reduce, RegionKind, Size, State
from scanc.passes.schedule import Axes, Schedule, schedule

_OWN = """
tlscan batch ticket tile tiles rows slot chunk group nest start count span holds behind
forward_lookback_kernel backward_lookback_kernel
"""
_FIRST = "(tile == 0) & (chunk == 0)"  # whether a chunk is the very first
_LIGHT = 16  # instructions of a step forward and back


@dataclass(frozen=True)
class Lookback:
    """The kernels of the form `parallel`, the axis that is shared out, and what a thread keeps of each step.

    `light`: a step is so little work that a chunk of many holds few registers.
    """

    forward: Kernel
    backward: Kernel
    axis: str
    kept: int
    light: bool


def lookback(forward: Program, adjoint: Program) -> Lookback | None:
    """The kernels of a fused step and its fused adjoint; None if a state is no real scan of its own over one axis."""
    adjoint = smooth(adjoint)
    again, wanted = rerun(adjoint, forward), states_read(adjoint, forward)
    plans = schedule(forward), schedule(adjoint, whole_states=False, alongside=again)
    ahead, back = decays(forward), decays(adjoint)
    if ahead is None or back is None:
        return None
    if not all(_fits(program, plan) for program, plan in zip((forward, adjoint), plans, strict=True)):
        return None
    if plans[0].split != plans[1].split or plans[0].grid != plans[1].grid:
        return None
    (axis,) = plans[0].split
    first = _Forward(forward, plans[0], ahead, [state.name for state in again.states] if again else []).write()
    last = _Backward(adjoint, plans[1], back, again, wanted).write()
    steps = [adjoint, again] if again else [adjoint]
    regions = [region for step in steps for region in step.regions if region.kind is not RegionKind.PARAMS]
    work = sum(work_of(instr) for region in regions for instr in region.instrs)
    return Lookback(first, last, axis, len(wanted), work <= _LIGHT)


def _fits(program: Program, plan: Schedule) -> bool:
    """Whether a step has tiles over one axis alone, which its states have, and does nothing along it but sum."""
    if len(plan.split) != 1 or plan.full:
        return False
    if any({*plan.split, *plan.grid} != {*state.type.axes} for state in program.states):
        return False
    for instr in program.instrs:
        match instr.op:
            case Map() | Const() | Size() | Broadcast() | Reduce("sum", _) | Contract("real", _):
                pass
            case _:
                return False
    return True


class LookbackFrame(Frame):
    """Tiles [chunk, channel], and [chunk, 1] of what has no axis."""

    def __init__(self, program: Program, schedule: Schedule) -> None:
        super().__init__(program, schedule, chunked=False, own=_OWN.split())
        (self.axis,) = schedule.split
        self.words = ""
        self.summed = False

    @property
    def times(self) -> tuple[str, ...]:
        return "T", "batch"

    def shape(self, axes: Iterable[str]) -> str:
        return f"[chunks, {f'block_{self.axis}' if self.tile(axes) else 1}]"

    def comment(self, axes: Iterable[str]) -> str:
        return ", ".join(["[chunk", *self.tile(axes)]) + "]"

    def lifted(self, text: str, own: Axes, wanted: Axes) -> str:
        return text

    def reduced(self, fn: str, text: str, axes: Axes, gone: Iterable[str], within: bool = False) -> str:
        assert fn == "sum"
        assert not within
        return f"tl.sum({text}, axis=1, keep_dims=True)"

    def constants(self) -> list[str]:
        return [*super().constants(), "chunks", "unroll", "group", "nest"]

    def write_indices(self, out: Writer, scratch: Iterable[Axes] = ()) -> None:
        parts = [f"size_{a}" if a in self.schedule.grid else f"tl.cdiv(size_{a}, block_{a})" for a in self.spread]
        out.line(f"ticket = tlscan.ticket({self.words})")
        out.line(" * ".join(["rows = batch", *parts]), "programs of a tile of time")
        out.line("tiles = tl.maximum(tl.cdiv(T, chunks * unroll), 1)")
        out.line("tile, slot = ticket // rows, ticket % rows")
        out.line("program = slot.to(tl.int64)")
        self._write_spread(out)
        out.line("b = program")
        if self.summed:
            out.line("row = tile.to(tl.int64) * batch + b", "of what tiles of time leave")
        out.line("chunk = tl.arange(0, chunks)[:, None]")
        axis, block = self.axis, f"block_{self.axis}"
        lanes = f"tl.arange(0, {block})[None, :] + tl.zeros([chunks, 1], tl.int64)"
        out.line(f"at_{axis} = part_{axis} * {block} + {lanes}", "[chunk, " + axis + "]")
        out.line(f"in_{axis} = (at_{axis} < size_{axis}) | (size_{axis} > 0 and size_{axis} % {block} == 0)")
        self._write_leads(out)


class _Pass:
    """What both directions share."""

    def __init__(self, programs: Sequence[Program], plan: Schedule, found: Decays) -> None:
        self.program = programs[0]
        self.programs = programs
        self.plan = plan
        self.found = found
        self.frame = LookbackFrame(self.program, plan)
        self.kernel = KernelWriter(programs, plan, chunked=False, frame=self.frame)
        self.frame.words = self.kernel.scratch("words", "scratch:words", "what tiles of time do to states").pointer
        self.out = self.kernel.body
        self.step = Step(self.out, self.frame, self.program, plan)
        self.rows: dict[str, str] = {}
        self._firsts: dict[str, str] = {}

    # --- rows ---

    def write_place(self, start: str) -> None:
        """Which steps each chunk has: `count` of them from `start` on, the first of them at `origin`."""
        self.out.blank()
        self.out.line(WAY)
        self.out.line(f"start = {start}", "[chunk]: its first step")
        self.out.line("count = tl.minimum(T - start, unroll)", "[chunk]: its steps")
        self.out.line("origin = (T - 1 - start if reverse else start).to(tl.int64)")

    def write_rows(self, found: Sequence[Read]) -> None:
        """All rows of the tile, as they are stored."""
        if not found:
            return
        places: dict[str, Row] = {}
        for read in found:
            stem = self.step.identifier(read.value)
            buffer = self.kernel.buffers[read.tensor]
            places[read.value] = write_row(self.out, self.frame, buffer, stem, dict(read.fixed))
            self.rows[read.value] = self.frame.names.fresh(f"{stem}_rows")
            self.out.line(f"{self.rows[read.value]} = ()")
        with self.out.block("for u in tl.static_range(unroll):"):
            for read in found:
                load = self.frame.raw(places[read.value].here, read.axes, read.kind, "(u < count)")
                self.out.line(f"{self.rows[read.value]} += ({load},)", self.frame.comment(read.axes))

    def write_taken(self, step: Step, found: Iterable[Read]) -> None:
        """The values of the step `u`."""
        for read in found:
            row, dtype = f"{self.rows[read.value]}[u]", self.frame.dtype(read.kind)
            paired = read.kind is Kind.REAL and self.frame.tile(read.axes)
            wide = f"tlscan.wide({row}, {dtype})" if paired else f"{row}.to({dtype})"
            text = f"{step.define(read.value)} = {wide}"
            self.out.line(text, self.frame.comment(read.axes))

    # --- what chunks do to states ---

    def local(self) -> Step:
        """The step of the first pass, behind the params of the second."""
        keys = {state.name: f"{state.name}#local" for state in self.found.program.states}
        local = Step(self.out, self.frame, self.found.program, self.plan, lambda name: keys.get(name, name))
        local.tiles.update((name, tile) for name, tile in self.step.tiles.items() if name not in keys)
        local.write(local.instrs(RegionKind.PARAMS))
        return local

    def product(self, state: str) -> str:
        return self.frame.names.of(f"{state}#product")

    def _prefixes(self, state: str) -> tuple[str, str]:
        """The variables of what the chunks before each chunk do."""
        return self.frame.names.of(f"{state}#inner"), self.frame.names.of(f"{state}#before")

    def write_firsts(self, local: Step, starts: dict[str, Buffer]) -> None:
        """What a chunk starts with: nothing, but for the very first one."""
        for state in self.program.states:
            comment = self.frame.comment(state.type.axes)
            first = self._firsts[state.name] = self.frame.names.fresh(f"{self.step.identifier(state.name)}_first")

            def load(state: State = state, first: str = first, comment: str = comment) -> None:
                address = self.kernel.write_address(starts[state.name])
                text = self.frame.raw(address, state.type.axes, state.type.kind, _FIRST)
                self.out.line(f"{first} = {text}.to(acc)", comment)

            self.kernel.write_start(self.step, state, starts[state.name], _FIRST, load, first)
            self.out.line(f"{local.define(state.name)} = {first}")
            self.out.line(f"{self.product(state.name)} = tl.full({self.frame.shape(state.type.axes)}, 1.0, acc)")

    def write_local_next(self, local: Step, alive: bool) -> None:
        """Products and ends behind the step `u`; with `alive`, where there is such a step."""
        for state, decay in self.found.of:
            if decay is not None:
                name = self.product(state)
                text = f"{name} * {local.tensor(decay)}"
                self.out.line(f"{name} = tl.where(alive, {text}, {name})" if alive else f"{name} = {text}")
        self.kernel.write_next(local, "alive" if alive else "")

    def write_look_back(self, local: Step) -> None:
        """The states before each chunk."""
        out, names = self.out, {}
        for which, state in enumerate(self.program.states):
            end, product = local.identifier(state.name), self.product(state.name)
            words = names[state.name] = self.frame.names.fresh(f"{self.step.identifier(state.name)}_words")
            block = f"block_{self.frame.axis}"
            out.line(f"{words} = tlscan.state_words({self.frame.words}, {which}, tiles, rows, {block}, group, nest)")
            inner, before = self._prefixes(state.name)
            found = f"{product}, {end}, {inner}, {before} = tlscan.prefixes({product}, {end})"
            out.line(found, self.frame.comment(state.type.axes))
        for state in self.program.states:
            end, product = local.identifier(state.name), self.product(state.name)
            prefixes = ", ".join([product, end, *self._prefixes(state.name)])
            found = f"tlscan.look_back({names[state.name]}, tiles, rows, slot, tile, {prefixes}, group, nest)"
            name = self.step.define(state.name)
            out.line(f"{name} = {found} + {self._firsts[state.name]}", self.frame.comment(state.type.axes))

    def write_ends(self, ends: Iterable[Leaving], holds: str) -> None:
        """Stores the states of the chunks where `holds`."""
        for end in ends:
            self.kernel.write_end(self.step, end, holds)

    def finish(self, name: str, doc: str, flags: Sequence[str], found: Sequence[Read], past: Sequence[Axes]) -> Kernel:
        return self.kernel.finish(name, doc, flags, self.programs, found, past)


class _Forward(_Pass):
    """Host keys as of `forward_kernel`, and `scratch:words`."""

    def __init__(self, program: Program, plan: Schedule, found: Decays, kept: Sequence[str]) -> None:
        super().__init__([program], plan, found)
        self.kept = kept

    def write(self) -> Kernel:
        kernel, step, out, program = self.kernel, self.step, self.out, self.program
        inputs, params = reads(program, program.inputs), reads(program, program.params)
        kernel.declare([*inputs, *params])
        starts = kernel.starts(program.states)
        outs = kernel.leaving(step, program.outputs, (BATCH, TIME))
        ends = kernel.ends(step, program.states)
        saved = kernel.saved(state for state in program.states if state.name in self.kept)
        if params:
            out.blank()
            step.write_params(params, kernel.buffers)
        step.write(step.instrs(RegionKind.PARAMS))
        local = self.local()

        self.write_place("(tile * chunks + chunk) * unroll")
        self.write_rows(inputs)
        self.write_firsts(local, starts)
        if any(state != value for state, value in program.next):
            with out.block("for u in tl.static_range(unroll):"):
                needed = {tensor.name for tensor in local.program.inputs}
                self.write_taken(local, [read for read in inputs if read.tensor in needed])
                local.write(local.instrs(RegionKind.STEP))
                self.write_local_next(local, alive=False)
        self.write_look_back(local)
        rows = kernel.write_out_rows(outs)
        with out.block("for u in tl.static_range(unroll):"):
            out.line("alive = u < count")
            if saved:
                self._write_checkpoint(saved)
            self.write_taken(step, inputs)
            step.write(step.instrs(RegionKind.STEP))
            kernel.write_stores(step, outs, rows)
            kernel.write_next(step, "alive")
        out.line("last = tl.maximum(T - 1, 0)")
        out.line("holds = (start <= last) & (last < start + unroll)", "[chunk]: whether it ends with the sequence")
        self.write_ends(ends, "holds")
        flags = [*(["segment", "save"] if self.kept else []), "reverse", "acc"]
        doc = "Each program: a tile of time of one sequence, a block of channels; tiles before it by looking back."
        return self.finish("forward_lookback_kernel", doc, flags, inputs, [])

    def _write_checkpoint(self, saved: dict[str, Buffer]) -> None:
        with self.out.block("if save and u % segment == 0:"):
            self.out.line("checkpoint = ((start + u) // segment).to(tl.int64)")
            for name, buffer in saved.items():
                address = self.kernel.write_address(buffer, {SEGMENT: "checkpoint"})
                there = "alive & ((start + u) % segment == 0)"
                self.kernel.write_store(self.step, address, name, self.step.identifier(name), there)


class _Backward(_Pass):
    """Host keys as of `backward_kernel`, and `scratch:words`."""

    def __init__(
        self, adjoint: Program, plan: Schedule, found: Decays, again: Program | None, wanted: Sequence[str]
    ) -> None:
        super().__init__([adjoint, again] if again else [adjoint], plan, found)
        self.again = again
        self.wanted = wanted
        self._kept: dict[str, str] = {}

    def write(self) -> Kernel:
        kernel, step, out, adjoint, again = self.kernel, self.step, self.out, self.program, self.again
        inputs = reads(adjoint, [tensor for tensor in adjoint.inputs if tensor.name not in self.wanted])
        params = reads(adjoint, adjoint.params)
        again_inputs = reads(again, again.inputs) if again else []
        params = distinct([*params, *(reads(again, again.params) if again else [])])
        found = distinct([*inputs, *again_inputs])
        kernel.declare([*found, *params])
        starts = kernel.starts(adjoint.states)
        saved = kernel.saved(again.states) if again else {}
        outs = kernel.leaving(step, adjoint.outputs, (BATCH, TIME))
        totals = kernel.leaving(step, adjoint.totals, (ROW,))
        self.frame.summed = bool(totals)
        ends = kernel.ends(step, adjoint.states)
        rerun = self._write_params(params)
        local = self.local()

        self.write_place("((tiles - tile) * chunks - 1 - chunk) * unroll")
        self.write_rows(found)
        if rerun is not None:
            self._write_rerun(rerun, again_inputs, saved)
        self.write_firsts(local, starts)
        with out.block("for u in tl.static_range(unroll - 1, -1, -1):"):
            out.line("alive = u < count")
            needed = {tensor.name for tensor in local.program.inputs}
            self._write_past(local, needed)
            self.write_taken(local, [read for read in inputs if read.tensor in needed])
            local.write(local.instrs(RegionKind.STEP))
            self.write_local_next(local, alive=True)
        self.write_look_back(local)
        rows = kernel.write_out_rows(outs)
        sums = self._write_sums(totals)
        with out.block("for u in tl.static_range(unroll - 1, -1, -1):"):
            out.line("alive = u < count")
            self._write_past(step, self.wanted)
            self.write_taken(step, inputs)
            step.write(step.instrs(RegionKind.STEP))
            kernel.write_stores(step, outs, rows)
            for total in totals:
                out.line(f"{sums[total.host]} += tl.where(alive, {step.tensor(total.value)}, 0.0)")
            kernel.write_next(step, "alive")
        for total in totals:
            self._write_total(total, sums[total.host])
        self.write_ends(ends, "(tile == tiles - 1) & (chunk == chunks - 1)")
        flags = [*(["segment"] if again else []), "reverse", "acc"]
        doc = "Each program: a tile of time of one sequence, a block of channels; tiles behind it by looking back."
        past = [self.frame.tile(state.type.axes) for state in again.states] if again else []
        return self.finish("backward_lookback_kernel", doc, flags, found, past)

    # --- the past ---

    def _write_params(self, params: Sequence[Read]) -> Step | None:
        """What depends on params alone; returns the step that runs forward again."""
        step = self.step
        if params:
            self.out.blank()
            step.write_params(params, self.kernel.buffers)
        step.write(step.instrs(RegionKind.PARAMS))
        if self.again is None:
            return None
        again = beside(step, self.again)
        again.write(again.instrs(RegionKind.PARAMS))
        return again

    def _write_rerun(self, again: Step, inputs: Sequence[Read], saved: dict[str, Buffer]) -> None:
        """The states before each step, from those that forward saved at the start of the chunk."""
        out = self.out
        out.line("checkpoint = (start // segment).to(tl.int64)")
        for state in again.program.states:
            address = self.kernel.write_address(saved[state.name], {SEGMENT: "checkpoint"})
            load = self.frame.raw(address, state.type.axes, state.type.kind, "(count > 0)")
            out.line(f"{again.define(state.name)} = {load}.to({self.frame.dtype(state.type.kind)})")
        for name in self.wanted:
            self._kept[name] = self.frame.names.of(f"{name}#kept")
            out.line(f"{self._kept[name]} = ()")
        with out.block("for u in tl.static_range(unroll):"):
            for name in self.wanted:
                out.line(f"{self._kept[name]} += ({again.identifier(name)},)")
            self.write_taken(again, inputs)
            again.write(again.instrs(RegionKind.STEP))
            self.kernel.write_next(again)

    def _write_past(self, step: Step, names: Iterable[str]) -> None:
        """The states before the step `u`."""
        for name in self.wanted:
            if name in names:
                comment = self.frame.comment(self.program.types[name].axes)
                self.out.line(f"{step.define(name)} = {self._kept[name]}[u]", comment)

    # --- gradients of params ---

    def _write_sums(self, totals: Iterable[Leaving]) -> dict[str, str]:
        sums = {}
        for total in totals:
            axes = self.program.types[total.value].axes
            name = sums[total.host] = self.frame.names.fresh(total.buffer.pointer.replace("_out_ptr", "_sum"))
            self.out.line(f"{name} = tl.full({self.frame.shape(axes)}, 0.0, acc)", self.frame.comment(axes))
        return sums

    def _write_total(self, total: Leaving, name: str) -> None:
        """Stores the sum over the tile."""
        address = self.kernel.write_address(total.buffer)
        axes = self.frame.tile(self.program.types[total.value].axes)
        text = f"tl.sum({name}, axis=0, keep_dims=True)" if axes else f"tl.sum({name})"
        self.kernel.write_store(self.step, address, total.value, text, *(["(chunk == 0)"] if axes else []))
