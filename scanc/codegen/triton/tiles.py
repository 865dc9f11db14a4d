"""Tiles: how a program indexes its share of every axis, and where tensors lie in memory.

A value is a tile over its own axes in canonical order, `grid` axes left out (a program has one index of each).
For an axis `i` the kernel has `size_i`, `block_i`, `lane_i` (0 … block-1), `at_i` (indices, int64) and `in_i`
(which of them exist); for a split axis also `part_i`, the number of the program's block, and `lead_i` where only the
first block counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scanc.codegen.expressions import number
from scanc.codegen.names import Names, legal
from scanc.codegen.writer import Writer
from scanc.ir.nodes import Kind, Program
from scanc.passes.schedule import Axes, Schedule

BATCH, TIME, SEGMENT, ROW = "#b", "#t", "#segment", "#row"  # no axis can have these names
_DTYPES = {Kind.REAL: "acc", Kind.INT: "tl.int64", Kind.BOOL: "tl.int1"}
NOTHING = {Kind.REAL: "0.0", Kind.INT: "0", Kind.BOOL: "0"}

_OWN = """
T acc short reverse save segment unroll prefetch program b u way origin alive whole tail begin last first early stands
moved row chunks chunk span shift skip steps block behind starts gap checkpoint lanes lane share turn in_turn
turn_alive k mine mine_alive launch tlmath forward_kernel backward_kernel forward_summary_kernel
backward_summary_kernel
"""
RESERVED = frozenset(_OWN.split())
"""Names that a kernel has besides its values, its tensors and its axes' own."""


_ABOUT_AXES = ("size", "block", "lane", "at", "in", "part", "lead", "lanes", "fold", "place", "once")


def axis_names(axes: Iterable[str]) -> list[str]:
    """The names that a kernel has for its axes."""
    return [f"{what}_{axis}" for axis in axes for what in _ABOUT_AXES]


@dataclass(frozen=True)
class Buffer:
    """A tensor argument of a kernel: its pointer, and the name of one stride per dimension.

    `dims` are axes, or BATCH, TIME, SEGMENT, ROW (a chunk of a sequence), `part.<axis>` for the leading ones.
    """

    pointer: str
    dims: Axes
    strides: tuple[str, ...]
    fixed: frozenset[str]
    """The dimensions whose strides are compile-time constants: a row's place is then an offset inside a load."""

    @property
    def arguments(self) -> str:
        """The kernel's arguments about this tensor: its pointer and its strides."""
        strides = zip(self.dims, self.strides, strict=True)
        return ", ".join([self.pointer, *(f"{s}: tl.constexpr" if dim in self.fixed else s for dim, s in strides)])

    @property
    def shape(self) -> str:
        """The shape as a comment."""
        return f"[{', '.join(_PUBLIC.get(dim, dim.replace('part.', 'programs along ')) for dim in self.dims)}]"


_PUBLIC = {BATCH: "B", TIME: "T", SEGMENT: "segments", ROW: "B * chunks"}


class Frame:
    """The axes of one kernel, and how values and memory are spelled over them."""

    def __init__(self, program: Program, schedule: Schedule, chunked: bool, own: Iterable[str] = ()) -> None:
        self.program = program
        self.chunked = chunked
        self.schedule = schedule
        used = {*schedule.grid, *schedule.split, *schedule.full}
        self.axes = program.canonical(frozenset(used))
        self.spread = tuple(axis for axis in self.axes if axis in schedule.grid or axis in schedule.split)
        self.names = Names([*RESERVED, *own, *axis_names(self.axes)])
        self.leads: set[str] = set()

    # --- tiles ---

    def tile(self, axes: Iterable[str]) -> Axes:
        """The axes of a value that its tile has."""
        return tuple(axis for axis in axes if axis in self.schedule.tile)

    def shape(self, axes: Iterable[str]) -> str:
        """The shape of a value's tile, as source text."""
        return "[" + ", ".join(f"block_{axis}" for axis in self.tile(axes)) + "]"

    def comment(self, axes: Iterable[str]) -> str:
        """The shape comment of a tile."""
        tile = self.tile(axes)
        return f"[{', '.join(tile)}]" if tile else "scalar"

    def lifted(self, text: str, own: Axes, wanted: Axes) -> str:
        """A tile over axes `own` with dimensions of one where `wanted` has more."""
        if not own or own == wanted:
            return text
        index = ", ".join(":" if axis in own else "None" for axis in wanted)
        return f"{text}[{index}]"

    def reduced(self, fn: str, text: str, axes: Axes, gone: Iterable[str], within: bool = False) -> str:
        """A tile over `axes` reduced along some of them, the last first; `within`: inside each thread alone."""
        call = "tlmath.logsumexp" if fn == "logsumexp" else f"tl.{fn}"
        for axis in reversed([*gone]):
            text = f"{call}({text}, axis={axes.index(axis)})"
        return text

    def at(self, axis: str, wanted: Axes) -> str:
        """The indices along an axis, shaped for a tile over `wanted`."""
        return self.lifted(f"at_{axis}", self.tile((axis,)), wanted)

    def inside(self, axes: Iterable[str], wanted: Axes) -> str:
        """Which elements exist, along the given axes, of a tile over `wanted`."""
        return " & ".join(self.lifted(f"in_{axis}", (axis,), wanted) for axis in self.tile(axes))

    def lead(self, axes: Iterable[str]) -> str:
        """Whether this program's block is the first along each of the axes."""
        axes = tuple(axes)
        self.leads.update(axes)
        return " & ".join(f"lead_{axis}" for axis in axes)

    # --- memory ---

    def buffer(self, stem: str, dims: Axes) -> Buffer:
        """A new tensor argument."""
        stem = legal(stem)
        strides = tuple(self.names.fresh(f"{stem}_stride_{dim.strip('#').replace('.', '_')}") for dim in dims)
        fixed = frozenset(dim for dim in dims if dim == TIME or dim in self.schedule.tile)
        return Buffer(self.names.fresh(f"{stem}_ptr"), dims, strides, fixed)

    def address(self, buffer: Buffer, at: Mapping[str, str | int] | None = None) -> str:
        """The pointers of a tile of `buffer`; `at` gives the index along some dimensions."""
        at = at or {}
        tile = self.tile(dim for dim in buffer.dims if dim not in at)
        terms = [buffer.pointer]
        for dim, stride in zip(buffer.dims, buffer.strides, strict=True):
            if dim in at:
                index = str(at[dim])
            elif dim in (BATCH, ROW):
                index = "b" if dim == BATCH else "row"
            elif dim.startswith("part."):
                index = self.part(dim.removeprefix("part."))
            else:
                index = self.at(dim, tile)
            terms.append(f"{index} * {stride}")
        return " + ".join(terms)

    def part(self, axis: str) -> str:
        """The number of this program's block of a spread axis."""
        return f"at_{axis}" if axis in self.schedule.grid else f"part_{axis}"

    def load(self, address: str, axes: Iterable[str], kind: Kind, once: Axes = ()) -> str:
        """A load of the tile at `address`, nothing outside; `once`: the axes of which only the first program counts."""
        return f"{self.raw(address, axes, kind, self.lead(once))}.to({_DTYPES[kind]})"

    def raw(self, address: str, axes: Iterable[str], kind: Kind, *when: str) -> str:
        """A load of the tile at `address` as it is stored, nothing outside or where a condition does not hold."""
        mask = self._mask(axes, *when)
        guard = f", mask={mask}, other={NOTHING[kind]}" if mask else ""
        return f"tl.load({address}{guard})"

    def begin(self, init: float, axes: Iterable[str], kind: Kind, *when: str) -> str:
        """A tile of `init`, nothing outside or where a condition does not hold."""
        axes = tuple(axes)
        value = init if kind is Kind.REAL else int(init)
        shape = self.shape(axes) if self.tile(axes) else "()"
        full = f"tl.full({shape}, {number(value).text}, {_DTYPES[kind]})"
        mask = self._mask(axes, *when) if value != 0 else ""
        return f"tl.where({mask}, {full}, {NOTHING[kind]}).to({_DTYPES[kind]})" if mask else full

    def store(self, address: str, value: str, axes: Iterable[str], *when: str, turned: bool = False) -> str:
        """A store to the tile at `address`, nothing outside or where a condition does not hold.

        `turned`: each lane of the axes that the tile lacks has an element of its own.
        """
        mask = self._mask(axes, *([] if turned else self._alone(axes)), *when)
        return f"tl.store({address}, {value}{f', mask={mask}' if mask else ''})"

    def _alone(self, axes: Iterable[str]) -> list[str]:
        """Which of the threads that hold the same element stores it."""
        return []

    def _mask(self, axes: Iterable[str], *when: str) -> str:
        tile = self.tile(axes)
        return " & ".join(part for part in (self.inside(tile, tile), *when) if part)

    def cells(self, axes: Iterable[str]) -> str:
        """The places of a tile's elements in a program's own scratch, as a term of an address; nothing for a scalar."""
        tile = self.tile(axes)
        terms = []
        for i, axis in enumerate(tile):
            lane = self.lifted(f"lane_{axis}", (axis,), tile)
            terms.append(" * ".join([lane, *(f"block_{inner}" for inner in tile[i + 1 :])]))
        return "".join(f" + {term}" for term in terms)

    def times_cells(self, count: str, axes: Iterable[str]) -> str:
        """`count` times the elements of a tile."""
        return " * ".join([count, *(f"block_{axis}" for axis in self.tile(axes))])

    def dtype(self, kind: Kind) -> str:
        """The Triton dtype of a kind of values, as source text."""
        return _DTYPES[kind]

    # --- the head of a kernel ---

    @property
    def times(self) -> tuple[str, ...]:
        """The arguments about time."""
        return ("T", *(("chunks", "span", "shift") if self.chunked else ()))

    def constants(self) -> list[str]:
        """The compile-time arguments about axes."""
        sizes = [f"size_{axis}" for axis in self.axes]
        return sizes + [f"block_{axis}" for axis in self.tile(self.axes)]

    def write_indices(self, out: Writer, scratch: Iterable[Axes] = ()) -> None:
        """Which sequence and which share of the axes this program has; `scratch`: the tiles it keeps in memory."""
        lanes = {axis for tile in scratch for axis in tile} | set(self.schedule.split)
        out.line("program = tl.program_id(0).to(tl.int64)")
        self._write_spread(out)
        if self.chunked:
            out.line("row = program")
            out.line("b = row // chunks")
            out.line("chunk = (row % chunks).to(tl.int32)")
            out.line("skip = tl.maximum(chunk * span - shift, 0)", "the chunk's first step")
            out.line("steps = tl.minimum((chunk + 1) * span - shift, T) - skip")
        else:
            out.line("b = program")
        self._write_lanes(out, lanes)
        self._write_leads(out)

    def _write_spread(self, out: Writer) -> None:
        """Takes the program's share of the spread axes out of its number."""
        for axis in reversed(self.spread):
            if axis in self.schedule.grid:
                out.line(f"at_{axis} = program % size_{axis}")
                out.line(f"program = program // size_{axis}")
            else:
                out.line(f"part_{axis} = program % tl.cdiv(size_{axis}, block_{axis})")
                out.line(f"program = program // tl.cdiv(size_{axis}, block_{axis})")

    def _write_leads(self, out: Writer) -> None:
        for axis in (axis for axis in self.spread if axis in self.leads):
            out.line(f"lead_{axis} = {self.part(axis)} == 0")

    def _write_lanes(self, out: Writer, lanes: Iterable[str]) -> None:
        """The program's indices along each axis; `lanes`: the axes of which it needs the place in a block."""
        for axis in self.tile(self.axes):
            if axis in lanes:
                out.line(f"lane_{axis} = tl.arange(0, block_{axis})")
            if axis in self.schedule.split:
                out.line(f"at_{axis} = part_{axis} * block_{axis} + lane_{axis}")
            else:
                own = f"lane_{axis}" if axis in lanes else f"tl.arange(0, block_{axis})"
                out.line(f"at_{axis} = {own}.to(tl.int64)")
            whole = f"size_{axis} > 0 and size_{axis} % block_{axis} == 0"
            out.line(f"in_{axis} = (at_{axis} < size_{axis}) | ({whole})")


def partial_dims(partial: Axes, dims: Axes) -> Axes:
    """The dimensions of a buffer of partial results: the programs along each spread axis, then `dims`."""
    return (*(f"part.{axis}" for axis in partial), *dims)
