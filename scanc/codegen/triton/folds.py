"""Folded tiles: two axes laid over threads by the kernel itself, so that nothing moves between threads but sums.

Each axis is cut in pieces of `fold` elements, one piece to a thread; `lanes_a · lanes_b` threads share the tile, those
of the inner axis b side by side.  Every value is a tile [fold_a, fold_b, lanes], with folds of one where it lacks an
axis: it is the same in all lanes of an axis that it lacks.  Triton then gives all of them one layout, with the folds
in the registers of a thread; had lanes two dimensions, it would be free to order them as each load likes best.  A
sum along an axis is a sum in each thread, then one across lanes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from scanc.codegen.triton.tiles import Frame
from scanc.codegen.writer import Writer
from scanc.ir.nodes import Broadcast, Const, Contract, Map, Program, Reduce, Size
from scanc.passes.schedule import Axes, Schedule


def folds(programs: Iterable[Program], schedule: Schedule) -> Axes:
    """The two axes of folded tiles, the one that is summed more last; none if these steps cannot have such tiles."""
    if len(schedule.tile) != 2:
        return ()
    summed: Counter[str] = Counter()
    for program in programs:
        for instr in program.instrs:
            match instr.op:
                case Reduce(_, axes) | Contract(_, axes):
                    summed.update(axes)
                case Map() | Const() | Size() | Broadcast():
                    pass
                case _:
                    return ()
    return tuple(sorted(program.canonical(schedule.tile), key=lambda axis: summed[axis]))


class FoldedFrame(Frame):
    """The frame of folded tiles; `order` are their two axes."""

    def __init__(self, program: Program, schedule: Schedule, chunked: bool, order: Axes) -> None:
        super().__init__(program, schedule, chunked)
        self.order = order
        self._once: set[str] = set()

    # --- tiles ---

    def shape(self, axes: Iterable[str]) -> str:
        tile = self.tile(axes)
        folds = [f"fold_{axis}" if axis in tile else "1" for axis in self.order]
        return f"[{', '.join(folds)}, lanes]"

    def lifted(self, text: str, own: Axes, wanted: Axes) -> str:
        return text

    def reduced(self, fn: str, text: str, axes: Axes, gone: Iterable[str], within: bool = False) -> str:
        gone = tuple(gone)
        if within:
            return f"tl.{fn}({text}, {self.order.index(gone[0])}, keep_dims=True)"
        for axis in gone:
            text = f"tlmath.folded_{fn}({text}, {self.order.index(axis)}, lanes_{axis}, {self.apart(axis)})"
        return f"tlmath.one_of({text})" if not set(axes) - set(gone) else text

    def apart(self, axis: str) -> str:
        """How many lanes lie from one place along an axis to the next."""
        return "1" if axis == self.order[1] else f"lanes_{self.order[1]}"

    # --- memory ---

    def _alone(self, axes: Iterable[str]) -> list[str]:
        tile = self.tile(axes)
        lacking = [axis for axis in self.order if tile and axis not in tile]
        self._once.update(lacking)
        return [f"once_{axis}" for axis in lacking]

    def constants(self) -> list[str]:
        return [*super().constants(), *(f"lanes_{axis}" for axis in self.order)]

    def _write_lanes(self, out: Writer, lanes: Iterable[str]) -> None:
        for axis in self.order:
            out.line(f"fold_{axis}: tl.constexpr = block_{axis} // lanes_{axis}", "elements of a thread")
        outer, inner = self.order
        out.line(f"lanes: tl.constexpr = lanes_{outer} * lanes_{inner}")
        out.line(f"lane = tl.arange(0, lanes)[{_index(2)}]")
        out.line(f"place_{outer} = lane // lanes_{inner}")
        out.line(f"place_{inner} = lane % lanes_{inner}")
        for i, axis in enumerate(self.order):
            own = f"tl.arange(0, fold_{axis})[{_index(i)}]"
            out.line(f"lane_{axis} = (place_{axis} * fold_{axis} + {own}).to(tl.int64)", f"[{axis}]")
        for axis in self.order:
            whole = f"size_{axis} > 0 and size_{axis} % block_{axis} == 0"
            start = f"part_{axis} * block_{axis} + " if axis in self.schedule.split else ""
            out.line(f"at_{axis} = {start}lane_{axis}")
            out.line(f"in_{axis} = (at_{axis} < size_{axis}) | ({whole})")
        for axis in self.order:
            if axis in self._once:
                out.line(f"once_{axis} = place_{axis} == 0")

    def write_share(self, out: Writer, most: str, *, leaves: bool) -> None:
        """How many steps are worked on at once, a step to a lane, at `most` that many; and each lane's step.

        `leaves`: something leaves by turns, from the first of the lanes that have a step.
        """
        inner = self.order[1]
        out.line(f"share: tl.constexpr = {most} if {most} < lanes_{inner} else lanes_{inner}", "steps at once")
        out.line(f"turn = place_{inner} * share // lanes_{inner}")
        if leaves:
            out.line(f"in_turn = place_{inner} * share % lanes_{inner} < share")


def _index(position: int) -> str:
    """The subscript that makes a row of numbers vary along one of three dimensions."""
    return ", ".join(":" if i == position else "None" for i in range(3))
