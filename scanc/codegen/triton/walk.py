"""The walk template: one state beside memories, a chunk of steps at once, from what its steps do to it.

A program has one sequence.  The steps of a chunk are composed in one scan, each as the step before it, so that the scan
gives what the state was before each step; the last of a chunk begins the next one (theory, section 1).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from scanc.codegen.triton.kernel import Kernel, KernelWriter
from scanc.codegen.triton.recall_frame import TimedFrame, declare, leaving_of, reads_of, write_leave
from scanc.codegen.triton.recall_plan import NoRecall
from scanc.codegen.triton.step import Step
from scanc.codegen.triton.tiles import BATCH
from scanc.codegen.triton.timed import timed
from scanc.ir.build import Builder
from scanc.ir.nodes import Kind, Output, Program, RegionKind, Scan, State, Tensor
from scanc.ir.rewrite import live, one_region
from scanc.passes.classify import CLASSIFY
from scanc.passes.schedule import Schedule, spread
from scanc.passes.stage import STAGE

_SEMIRINGS = {
    "real": ("tlwalk.compose_real", "tlwalk.behind_real", "1.0", "0.0"),
    "maxplus": ("tlwalk.compose_maxplus", "tlwalk.behind_maxplus", "0.0", 'float("-inf")'),
    "minplus": ("tlwalk.compose_minplus", "tlwalk.behind_minplus", "0.0", 'float("inf")'),
    "log": ("tlwalk.compose_log", "tlwalk.behind_log", "0.0", 'float("-inf")'),
}
"""How steps are composed, what is behind them, and the semiring's one and zero."""


@dataclass
class Walk:
    """An act that walks one state: `program` is its step over time, with the state as an input."""

    act: Program
    way: str
    program: Program = field(init=False)
    clock: str = field(init=False)
    kernel: Kernel = field(init=False)

    def __post_init__(self) -> None:
        self.state, self.scan, past = _scanned(self.act)
        given = Tensor(self.state.name, self.state.dims, self.state.type)
        totals = tuple(replace(total, name=f"total.{total.name}") for total in self.act.totals)
        program = replace(self.act, inputs=(*self.act.inputs, given), states=(), next=(), totals=totals)
        self.program, self.clock = timed(_needed(program))
        self.past, _ = timed(past)
        self.leaves = [*self.program.outputs, *self.program.totals]
        self.kernel = _WalkWriter(self).write()

    @property
    def all(self) -> list[Kernel]:
        """Its one kernel."""
        return [self.kernel]

    @property
    def tiling(self) -> str:
        """The constant that the kernel is laid out by."""
        return f"{self.way}_walk_tiling".upper()

    def tilings(self, name: str) -> list[str]:
        """The constant, as a statement."""
        schedule, clock = self.kernel.schedule, self.clock
        full = tuple(axis for axis in schedule.full if axis != clock)
        tiles = {tuple(axis for axis in tile if axis in full) for tile in (*self.kernel.tiles, self.state.type.axes)}
        found = f"{self.tiling} = WalkTiling({schedule.grid!r}, {full!r}, {tuple(sorted(tiles))!r})"
        return [found.replace("'", '"')]


def _needed(program: Program) -> Program:
    """The program with what its outputs are made of alone."""
    leaves = {output.value for output in (*program.outputs, *program.totals)}
    instrs = live(program.instrs, leaves)
    used = {arg for instr in instrs for arg in instr.args} | leaves
    inputs, params = (tuple(t for t in group if t.name in used) for group in (program.inputs, program.params))
    return one_region(replace(program, inputs=inputs, params=params), instrs)


def _scanned(act: Program) -> tuple[State, Scan, Program]:
    """The state of an act, how it goes on, and a program of what that is made of. Raises NoRecall."""
    (state,) = act.states
    if state.type.kind is not Kind.REAL:
        raise NoRecall(f"{state.name}, a state beside a memory, is not real")
    classified, _ = CLASSIFY.run(STAGE.run(replace(act, outputs=(), totals=()))[0])
    region = next(region for region in classified.regions if state.name in region.states)
    scan = region.scan
    if scan is None or region.kind not in (RegionKind.SCAN, RegionKind.DELAY):
        raise NoRecall(f"{state.name}, a state beside a memory, is no scan")
    builder = Builder.extending(classified)
    outputs = []
    for name, value in (("decay", scan.decay), ("write", scan.write)):
        if value is not None:
            whole = builder.broadcast(value, state.type.axes, hint=name)
            outputs.append(Output(name, whole, state.dims))
    instrs = [*classified.instrs, *builder.take()]
    if region.kind is RegionKind.DELAY:
        scan = replace(scan, semiring="delay")
    past = replace(classified, level=act.level, outputs=tuple(outputs), states=(), next=())
    return state, scan, _needed(one_region(past, instrs))


class _WalkWriter:
    def __init__(self, walk: Walk) -> None:
        self.walk, self.program, self.clock = walk, walk.program, walk.clock
        leaving = frozenset(output.value for output in walk.leaves)
        tensors = {t.name: t.type.axes for t in (*self.program.inputs, *self.program.params)}
        used = {axis for axes in self._tiles(tensors) for axis in axes}
        batch = tuple(axis.name for axis in self.program.axes if axis.batch and axis.name in used)
        spreads = [spread(program, axis) for axis in batch for program in (self.program, walk.past)]
        if None in spreads:
            raise NoRecall("a batch axis is not carried along")
        if any(len({*axes} - {*batch, self.clock}) > 1 for axes in self._tiles(tensors)):
            raise NoRecall(f"a value beside {walk.state.name} has several axes")
        full = (self.clock, *(axis for axis in self.program.canonical(used) if axis not in (*batch, self.clock)))
        kept = tuple(each for each in spreads[::2] if each is not None)
        self.schedule = Schedule(leaving, batch, (), full, kept)
        self.frame = TimedFrame(self.program, self.schedule, self.clock)
        self.kernel = KernelWriter([self.program], self.schedule, False, self.frame)
        self.out = self.kernel.body
        self.step = Step(self.out, self.frame, self.program, self.schedule)
        self.before = Step(self.out, self.frame, walk.past, self.schedule, lambda name: f"{name}#past")

    def _tiles(self, tensors: dict[str, tuple[str, ...]]) -> list[tuple[str, ...]]:
        programs = (self.program, self.walk.past)
        made = [instr.type.axes for program in programs for instr in program.instrs]
        read = [tensors[arg] for program in programs for i in program.instrs for arg in i.args if arg in tensors]
        return [*made, *read, self.walk.state.type.axes]

    def write(self) -> Kernel:
        walk, out, kernel, clock = self.walk, self.out, self.kernel, self.clock
        state, name = walk.state, walk.state.name
        reads = reads_of(self.program, [output.value for output in walk.leaves], {name})
        past = reads_of(walk.past, [output.value for output in walk.past.outputs])
        declare(kernel, {read.tensor: read for read in (*reads, *past)}.values(), clock)
        start = kernel.argument(f"{name}_start", (BATCH, *state.type.axes), f"start:{name}")
        end = kernel.argument(f"{name}_end", (BATCH, *state.type.axes), f"end:{name}")
        leaving = leaving_of(kernel, self.step, walk.leaves)
        for step, found in ((self.step, reads), (self.before, past)):
            step.write_params([read for read in found if clock not in read.axes], kernel.buffers)
        axes = (clock, *state.type.axes)
        tile = self.frame.tile(axes)
        own, comment = self.frame.tile(state.type.axes), self.frame.comment(axes)
        outer = f"[:, {', '.join('None' for _ in own)}]" if own else ""
        inner = f"[None, {', '.join(':' for _ in own)}]" if own else ""

        def load() -> None:
            text = self.frame.load(kernel.write_address(start), state.type.axes, state.type.kind)
            out.line(f"carry = {text}", self.frame.comment(state.type.axes))

        kernel.write_start(self.step, state, start, "", load, "carry")
        out.line("chunks = tl.cdiv(T, steps)")
        out.line("u = tl.arange(0, steps)")
        with out.block("for chunk in range(0, T // steps + 1):"):
            out.line("place = chunk * steps + u", "steps taken before each")
            out.line(f"at_{clock} = (T - place if reverse else place - 1).to(tl.int64)", "the step taken last")
            out.line(f"in_{clock} = (place > 0) & (place <= T)")
            for read in past:
                if clock in read.axes:
                    self.before.write_load(read.value, kernel.write_address(kernel.buffers[read.tensor]))
            self.before.write(walk.past.regions[0].instrs)
            made = {output.name: self.before.tensor(output.value) for output in walk.past.outputs}
            variable = self.step.define(name)
            if walk.scan.semiring == "delay":
                out.line(f"{variable} = tl.where((place > 0){outer}, {made['write']}, carry{inner})", comment)
            else:
                self._write_scan(made, variable, f"carry{inner}", outer, comment)
            picked = "tl.sum(tl.where(({})" + outer + f", {variable}, 0.0), 0)"
            with out.block(f"if chunk == T // steps and {end.pointer} is not None:"):
                text = picked.format("place == T")
                out.line(self.frame.store(kernel.write_address(end), text, state.type.axes))
            if walk.scan.semiring != "delay":
                out.line(f"carry = {picked.format('u == steps - 1')}", self.frame.comment(state.type.axes))
            out.line(f"at_{clock} = (T - 1 - place if reverse else place).to(tl.int64)")
            out.line(f"in_{clock} = place < T")
            for read in reads:
                if clock in read.axes:
                    self.step.write_load(read.value, kernel.write_address(kernel.buffers[read.tensor]))
            self.step.write(self.program.regions[0].instrs)
            for leave in leaving:
                write_leave(kernel, self.step, leave)
        assert tile[0] == clock
        doc = f"Each program: one sequence, a chunk after the other; {name} before each step."
        return kernel.finish(f"{walk.way}_walk_kernel", doc, ["reverse", "acc"], [self.program, walk.past], reads)

    def _write_scan(self, found: dict[str, str], variable: str, carry: str, outer: str, comment: str) -> None:
        """What the steps of a chunk do to the state, composed."""
        out = self.out
        compose, behind, one, zero = _SEMIRINGS[self.walk.scan.semiring]
        shape = self.frame.shape((self.clock, *self.walk.state.type.axes))
        inside = f"in_{self.clock}{outer}"
        for what, name, unit in (("product", "decay", one), ("ending", "write", zero)):
            text = f"tl.where({inside}, {found[name]}, {unit})" if name in found else unit
            out.line(f"{what} = tl.zeros({shape}, acc) + {text}" if name not in found else f"{what} = {text}", comment)
        out.line(f"product, ending = tl.associative_scan((product, ending), 0, {compose})")
        out.line(f"{variable} = {behind}({carry}, product, ending)", comment)
