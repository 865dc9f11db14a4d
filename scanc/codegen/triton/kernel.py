"""What the kernel templates share: arguments, the head, loads, states, and values that leave."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from scanc.codegen.expressions import ARITHMETIC
from scanc.codegen.triton.expressions import CALLS
from scanc.codegen.triton.folds import FoldedFrame, folds
from scanc.codegen.triton.rows import Row, write_row
from scanc.codegen.triton.step import Read, Step
from scanc.codegen.triton.tiles import BATCH, ROW, SEGMENT, TIME, Buffer, Frame, partial_dims
from scanc.codegen.triton.turns import Turns, turns
from scanc.codegen.writer import WIDTH, Writer
from scanc.ir.nodes import Contract, Instr, Map, Output, Program, RegionKind, State
from scanc.passes.schedule import Axes, Schedule

_BODY_WIDTH = 106  # a body is written by itself and indented afterwards


@dataclass(frozen=True)
class Argument:
    """A tensor argument and the key under which the launching function knows it."""

    buffer: Buffer
    host: str
    about: str = ""


@dataclass(frozen=True)
class Leaving:
    """A value that leaves a kernel: the argument it goes to, and the key of that for the launching function."""

    value: str
    buffer: Buffer
    host: str


@dataclass(frozen=True)
class Kernel:
    """The source of a kernel, its arguments in order, its compile-time flags, and its tiles.

    `tiles` are the largest that it works on, `resident` those that it holds from step to step, `rows` those that it
    reads at each, `past` those that it keeps of each; `work` is about the number of instructions of a step.
    `chunked`: programs share out the time too.  `folds`: the axes of folded tiles.
    """

    name: str
    source: str
    arguments: tuple[Argument, ...]
    scratches: tuple[Argument, ...]
    flags: tuple[str, ...]
    schedule: Schedule
    tiles: tuple[Axes, ...]
    resident: tuple[Axes, ...]
    rows: tuple[Axes, ...]
    past: tuple[Axes, ...]
    work: int
    chunked: bool
    folds: Axes


class KernelWriter:
    """Collects the arguments of a kernel, then its body, then puts the head before them."""

    def __init__(
        self, programs: Sequence[Program], schedule: Schedule, chunked: bool, frame: Frame | None = None
    ) -> None:
        self.program = program = programs[0]
        self.folds = folds(programs, schedule)
        if frame is None and self.folds:
            frame = FoldedFrame(program, schedule, chunked, self.folds)
        self.frame = frame or Frame(program, schedule, chunked)
        self.steps, self.skip = ("steps", "skip + ") if chunked else ("T", "")
        self.lead = ROW if chunked else BATCH
        self.arguments: list[Argument] = []
        self.scratches: list[Argument] = []
        self.body = Writer(_BODY_WIDTH)
        self.buffers: dict[str, Buffer] = {}

    def turns(self, program: Program, found: Sequence[Read]) -> Turns | None:
        """How a step of this kernel is done in turns, if its tiles are folded and that spares work."""
        return turns(program, found, self.frame, self.folds[0]) if self.folds else None

    def write_share(self, most: str, *, leaves: bool) -> None:
        """How many steps a turn has, at most so many; `leaves`: something leaves by turns."""
        assert isinstance(self.frame, FoldedFrame)
        self.frame.write_share(self.body, most, leaves=leaves)

    # --- arguments ---

    def argument(self, stem: str, dims: Axes, host: str) -> Buffer:
        """A new tensor argument; `host` is its key for the launching function."""
        buffer = self.frame.buffer(stem, dims)
        self.arguments.append(Argument(buffer, host))
        return buffer

    def scratch(self, stem: str, host: str, about: str = "[programs, blocks of a segment, block …]") -> Buffer:
        """A new argument for memory that programs have parts of, `about` says which; it stands behind all tensors."""
        buffer = self.frame.buffer(stem, ())
        self.scratches.append(Argument(buffer, host, about))
        return buffer

    def declare(self, found: Iterable[Read]) -> None:
        """Arguments for the inputs and params that are read, each once."""
        wanted = {read.tensor for read in found}
        for tensor in (*self.program.inputs, *self.program.params):
            if tensor.name in wanted:
                lead = (BATCH, TIME) if tensor in self.program.inputs else ()
                self.buffers[tensor.name] = self.argument(tensor.name, (*lead, *tensor.type.axes), f"in:{tensor.name}")

    def starts(self, states: Sequence[State]) -> dict[str, Buffer]:
        """Arguments for what the states hold before the first step."""
        return {s.name: self.argument(f"{s.name}_start", (self.lead, *s.type.axes), f"start:{s.name}") for s in states}

    def saved(self, states: Iterable[State]) -> dict[str, Buffer]:
        """Arguments for what the states held where segments begin."""
        lead = (BATCH, SEGMENT)
        return {s.name: self.argument(f"{s.name}_saved", (*lead, *s.type.axes), f"saved:{s.name}") for s in states}

    def leaving(self, step: Step, outputs: Iterable[Output], lead: Axes, role: str = "out") -> list[Leaving]:
        """Arguments for values that leave, with leading dimensions for partial sums."""
        found = []
        for output in outputs:
            axes = step.program.types[output.value].axes
            dims = partial_dims(step.schedule.partial_over(output.value), (*lead, *axes))
            host = f"{role}:{output.name}"
            found.append(Leaving(output.value, self.argument(f"{output.name}_{role}", dims, host), host))
        return found

    def ends(self, step: Step, states: Iterable[State]) -> list[Leaving]:
        """Arguments for what the states hold behind the last step."""
        return self.leaving(step, [Output(s.name, s.name, s.dims) for s in states], (self.lead,), role="end")

    # --- the body ---

    def write_starts(self, step: Step, starts: dict[str, Buffer]) -> None:
        """What the states hold at first; of a partial sum the first program alone has all."""
        for state in step.program.states:
            once = step.schedule.partial_over(state.name)

            def load(state: State = state, once: Axes = once) -> None:
                step.write_load(state.name, self.write_address(starts[state.name]), once)

            self.write_start(step, state, starts[state.name], self.frame.lead(once), load)

    def write_start(
        self, step: Step, state: State, buffer: Buffer, condition: str, load: Callable[[], None], name: str = ""
    ) -> None:
        """What a state holds at first, as `load` writes it, or where it is absent as declared; in the variable `name`.

        A state that begins as a param is never absent.
        """
        if isinstance(state.init, str):
            load()
            return
        begin = self.frame.begin(_real(state.init), state.type.axes, state.type.kind, condition)
        with self.body.block(f"if {buffer.pointer} is None:"):
            self.body.line(f"{name or step.define(state.name)} = {begin}", self.frame.comment(state.type.axes))
        with self.body.block("else:"):
            load()

    def write_end(self, step: Step, end: Leaving, *when: str) -> None:
        """Stores what a state holds behind the last step, if anyone asks."""
        with self.body.block(f"if {end.buffer.pointer} is not None:"):
            address = self.write_address(end.buffer)
            self.write_store(step, address, end.value, step.identifier(end.value), *when)

    def write_out_rows(self, outs: Iterable[Leaving], turned: Collection[str] = ()) -> dict[str, Row]:
        """The rows of what leaves at every step, by host key; `turned`: the values that lanes share."""
        rows = {}
        for out in outs:
            stem = out.buffer.pointer.removesuffix("_ptr")
            row = write_row(self.body, self.frame, out.buffer, stem, turned=out.value in turned)
            row.write_turned(self.body)
            rows[out.host] = row
        return rows

    def write_address(self, buffer: Buffer, at: Mapping[str, str] | None = None) -> str:
        """A line that gives the pointers of a tile a name; returns the name."""
        name = self.frame.names.of(f"{buffer.pointer.removesuffix('_ptr')}_at")
        self.body.line(f"{name} = {self.frame.address(buffer, at)}", self.frame.comment(buffer.dims))
        return name

    def write_stores(self, step: Step, outs: Iterable[Leaving], rows: Mapping[str, Row], turned: bool = False) -> None:
        """Stores what leaves at the step `u`, if there is such a step; or at the turn that ends with it."""
        for out in outs:
            row = rows[out.host]
            if row.turned is turned and (turned or out.value not in step.scattered):
                alive = "turn_alive" if turned else "alive"
                self.write_store(step, row.here, out.value, step.tensor(out.value), alive, turned=turned)

    def write_store(self, step: Step, address: str, value: str, text: str, *when: str, turned: bool = False) -> None:
        """Stores the tile `text` of a value; where many programs hold the same, one of them does."""
        axes = step.program.types[value].axes
        partial = step.schedule.partial_over(value)
        once = tuple(axis for axis in self.frame.spread if axis not in axes and axis not in partial)
        self.body.line(self.frame.store(address, text, axes, self.frame.lead(once), *when, turned=turned))

    def write_next(self, step: Step, condition: str = "") -> None:
        """The states take their next values, all at once where one reads what another held; or stay as they are."""
        pairs = [(step.identifier(state.name), step.next_value(state.name)) for state in step.program.states]
        moves = [(target, text) for target, text in pairs if text != target]
        if condition:
            moves = [(target, f"tl.where({condition}, {text}, {target})") for target, text in moves]
        gone = [{target for target, _ in moves[:i]} for i in range(len(moves))]
        if any(done.intersection(re.findall(r"\w+", text)) for done, (_, text) in zip(gone, moves, strict=True)):
            self.body.line(f"{', '.join(target for target, _ in moves)} = {', '.join(text for _, text in moves)}")
            return
        for target, text in moves:
            self.body.line(f"{target} = {text}")

    # --- the whole ---

    def finish(
        self,
        name: str,
        doc: str,
        flags: Sequence[str],
        programs: Sequence[Program],
        found: Sequence[Read],
        past: Sequence[Axes] = (),
    ) -> Kernel:
        """The whole kernel.

        `flags` are its compile-time arguments besides those about axes, `programs` its steps, `found` what
        it reads at each, `past` the tiles of states that it keeps of each.
        """
        head = Writer()
        times = self.frame.times
        head.line(f"@triton.jit(do_not_specialize=[{', '.join(map(_quoted, times))}])")
        with head.block(f"def {name}("):
            for argument in self.arguments:
                _write_argument(head, argument.buffer)
            for argument in self.scratches:
                head.line(f"{argument.buffer.pointer},", argument.about)
            head.line(f"{', '.join(times)},")
            for constant in (*self.frame.constants(), *flags):
                head.line(f"{constant}: tl.constexpr,")
        indices = Writer(_BODY_WIDTH)
        self.frame.write_indices(indices, past)
        with head.block("):"):
            head.docstring(doc)
            for line in (indices.text() + self.body.text()).splitlines():
                head.line(line) if line else head.blank()
        arguments, scratches = tuple(self.arguments), tuple(self.scratches)
        schedule = self.frame.schedule
        tiles, resident = _working_tiles(programs, schedule), _resident_tiles(programs, schedule)
        rows = tuple(self.frame.tile(read.axes) for read in found)
        regions = [region for program in programs for region in program.regions if region.kind is RegionKind.STEP]
        work = sum(work_of(instr) for region in regions for instr in region.instrs)
        return Kernel(
            name,
            head.text(),
            arguments,
            scratches,
            tuple(flags),
            schedule,
            tiles,
            resident,
            rows,
            tuple(past),
            work,
            self.frame.chunked,
            self.folds,
        )


def _write_argument(out: Writer, buffer: Buffer) -> None:
    """The pointer and the strides of a tensor, on two lines where they are many."""
    pointer, *strides = buffer.arguments.split(", ")
    if len(buffer.arguments) <= WIDTH:
        out.line(f"{buffer.arguments},", buffer.shape)
        return
    out.line(f"{pointer},", buffer.shape)
    for i in range(0, len(strides), 2):
        out.line(f"{', '.join(strides[i : i + 2])},")


def _real(init: float | complex) -> float:
    """What a real state begins as."""
    assert not isinstance(init, complex)
    return init


def _quoted(name: str) -> str:
    return f'"{name}"'


def work_of(instr: Instr) -> int:
    """About how many instructions of the chip an instruction is, per element of a thread."""
    if not isinstance(instr.op, Map) or instr.op.fn in ARITHMETIC or instr.op.fn in CALLS:
        return 1
    return 8


def _resident_tiles(programs: Sequence[Program], schedule: Schedule) -> tuple[Axes, ...]:
    """Params, states and sums: what a program holds from step to step."""
    held = [decl.type.axes for decl in programs[0].params]
    held += [state.type.axes for program in programs for state in program.states]
    held += [program.types[total.value].axes for program in programs for total in program.totals]
    tiles = [tuple(axis for axis in axes if axis in schedule.tile) for axes in held]
    return tuple(sorted(tile for tile in tiles if tile))


def _working_tiles(programs: Sequence[Program], schedule: Schedule) -> tuple[Axes, ...]:
    """The largest tiles of some steps, products inside contractions among them: none is part of another."""
    sets: set[frozenset[str]] = {frozenset()}
    for program in programs:
        types = program.types
        sets |= {frozenset(type_.axes) & schedule.tile for type_ in types.values()}
        for instr in program.instrs:
            if isinstance(instr.op, Contract):
                sets.add(frozenset(axis for arg in instr.args for axis in types[arg].axes) & schedule.tile)
    largest = [tile for tile in sets if not any(tile < other for other in sets)]
    return tuple(sorted(programs[0].canonical(tile) for tile in largest))


def share(schedule: Schedule) -> str:
    """What one program does, in words."""
    parts = ["one sequence", *(f"one {axis}" for axis in schedule.grid), *(f"a block of {a}" for a in schedule.split)]
    return ", ".join([*parts, *(f"all of {axis}" for axis in schedule.full)])
