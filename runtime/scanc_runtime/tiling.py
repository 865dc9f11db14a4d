"""How generated Triton kernels are laid over programs: block sizes, warps, steps to a block."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any, Protocol

import torch

from scanc_runtime import tuned
from scanc_runtime.errors import ArgumentError

MOST_ELEMENTS = 32768
"""The largest tile of fp32 numbers that a program holds: 64 registers a thread at 16 warps."""
_LANES, _ALONG, _FEW = 32, 8, 32
_MATRIX = 1024  # elements that a program is given where an axis can be split
_ROW_BYTES = 128  # of a row, for a program with one axis: all that a warp loads at once
_WORKED_ON, _HELD = 1024, 2560
"""Elements per warp, of the largest tile and of all that are held: 32 and 80 registers a thread."""
_SMALL = 16  # elements of the largest tile in a thread, for several steps at once
_MOST_STEPS = 32
_MOST_WORK, _MOST_CODE = 768, 1200  # instructions of a block, for the compiler and for the chip
_ROWS, _REGISTERS = 80, 150
"""Registers of a thread for rows on their way and states of the past, and for all that a thread holds."""
_NARROW_ROWS, _NARROW_REGISTERS = 128, 200
"""The same where tiles have one axis: what is worked on takes few."""
_FOLDED, _FOLDED_CODE, _FOLDED_ROWS, _FOLDED_REGISTERS = 8, 2400, 160, 224
"""Elements of a folded tile in a thread, and the same limits where no layout but one takes registers."""
_IN_FLIGHT = 1 << 23  # bytes of rows that programs have on their way, with which lines need not be asked for as well
SPREAD, _SPREAD_FOLDED = (1.2, 5), (3, 32)
"""Programs per multiprocessor that keep it busy enough, and up to which time is split if there are fewer."""


@dataclass(frozen=True)
class Blocks:
    """How a kernel is laid over programs for some sizes.

    `constants` are its compile-time sizes and blocks, `programs` the programs along each spread axis, `unroll` the
    steps of a block, `registers` the most that a thread may have, if the compiler is to be held to it.
    """

    constants: Mapping[str, int]
    programs: Mapping[str, int]
    unroll: int
    num_warps: int
    registers: int | None = None
    spread: tuple[float, int] = SPREAD

    def starts(self, segment: int) -> int:
        """Blocks of steps of a segment, if there are several: how many starts a program writes down."""
        return segment // self.unroll if segment > self.unroll else 0

    @cached_property
    def per_sequence(self) -> int:
        """Programs per row of the batch."""
        return prod(self.programs.values())

    def along(self, *axes: str) -> tuple[int, ...]:
        """Programs along each of some spread axes."""
        return tuple(self.programs[axis] for axis in axes)

    def cells(self, *axes: str) -> int:
        """Elements of a tile over the given axes, padding included."""
        return prod(self.constants[f"block_{axis}"] for axis in axes)


@dataclass(frozen=True)
class Choice:
    """What of a layout is not left to the model: blocks of split axes, warps, steps of a block, blocks read ahead."""

    blocks: Mapping[str, int] = field(default_factory=dict)
    num_warps: int | None = None
    unroll: int | None = None
    prefetch: int | None = None
    lanes: Mapping[str, int] = field(default_factory=dict)

    def key(self) -> Any:
        blocks, lanes = tuple(self.blocks.items()), tuple(self.lanes.items())
        return blocks, lanes, self.num_warps, self.unroll, self.prefetch


@dataclass(frozen=True)
class _Laid:
    """Blocks of axes, the threads along folded ones, warps, and the elements of a tile that a thread has."""

    block: Mapping[str, int]
    lanes: Mapping[str, int]
    warps: int
    share: Callable[[tuple[str, ...]], float]


class Sized(Protocol):
    """What blocks are chosen by: the size of each axis, the dtype of computation, the widest input's bytes.

    What was tuned depends on the digest of the spec and on the device as well.
    """

    @property
    def batch(self) -> int: ...
    @property
    def sizes(self) -> Mapping[str, int]: ...
    @property
    def real(self) -> torch.dtype: ...
    @property
    def width(self) -> int: ...
    @property
    def digest(self) -> str: ...
    @property
    def device(self) -> torch.device: ...


@dataclass
class Tiling:
    """What the compiler knows of a kernel's tiles.

    A program has one index of each `grid` axis, a block of each `split` and `summed` axis (those to be split first
    come first; `summed` ones leave partial sums), and all of each `full` one.  `tiles`: the largest that it works on;
    `resident`: those that it holds; `rows`: those that it reads at each step; `past`: those that it keeps of each step
    of a block; `folds`: the two axes that are folded over threads, if so; `work`: the instructions of a step;
    `segment`: the steps between two saved states.
    """

    name: str
    grid: tuple[str, ...]
    split: tuple[str, ...]
    summed: tuple[str, ...]
    full: tuple[str, ...]
    tiles: tuple[tuple[str, ...], ...]
    resident: tuple[tuple[str, ...], ...]
    rows: tuple[tuple[str, ...], ...]
    past: tuple[tuple[str, ...], ...]
    folds: tuple[str, ...]
    work: int
    segment: int
    _known: dict[Any, Blocks] = field(default_factory=dict)

    @property
    def axes(self) -> tuple[str, ...]:
        return (*self.grid, *self.split, *self.summed, *self.full)

    @cached_property
    def digest(self) -> str:
        """Twelve hex digits that name a kernel of a spec by what is known of its tiles."""
        fields = (getattr(self, name) for name in self.__dataclass_fields__ if not name.startswith("_"))
        return hashlib.sha256(repr(tuple(fields)).encode()).hexdigest()[:12]

    def blocks(self, call: Sized) -> Blocks:
        """How to lay the kernel over programs: as forced, as tuned, or as the model says.

        Raises ArgumentError if a step's tiles cannot fit on the chip.
        """
        sizes = tuple([call.sizes[axis] for axis in self.axes])
        forced = _forced.key() if _forced else tuned.generation()
        key = (sizes, call.batch, call.real, call.width, call.device, forced)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._laid(call)
        if _watching is not None:
            _watching.setdefault(self.digest, Watched(self, found, self._key(call)))
        return found

    def _laid(self, call: Sized) -> Blocks:
        arguments = call.batch, call.sizes, call.real.itemsize // 4, call.width
        if _forced is None and tuned.exists(call.digest):
            choice = tuned.find(self._key(call))
            if choice is not None and (read := self._read(choice)) is not None:
                with suppress(ArgumentError):  # tiles too large for the chip: the file is not what tuning wrote
                    return self._choose(*arguments, read)
        return self._choose(*arguments, _forced or Choice())

    def _key(self, call: Sized) -> tuned.Key:
        sizes = {axis: call.sizes[axis] for axis in self.axes}
        dtype = f"{call.real}, inputs of {call.width} bytes"
        return tuned.key(call.digest, self.digest, sizes, dtype, call.device)

    def _read(self, choice: tuned.Choice) -> Choice | None:
        """A tuned choice, or None if it is none for this kernel."""
        blocks = choice.get("blocks", {})
        numbers = [choice.get(name) for name in ("num_warps", "unroll", "prefetch")]
        legal = isinstance(blocks, dict) and blocks.keys() <= {*self.split, *self.summed}
        legal = legal and all(_is_power(size, MOST_ELEMENTS) for size in blocks.values())
        legal = legal and (numbers[0] is None or _is_power(numbers[0], 32))
        legal = legal and (numbers[1] is None or _is_power(numbers[1], self.most_steps))
        legal = legal and (numbers[2] is None or (isinstance(numbers[2], int) and 0 <= numbers[2] <= 64))
        return Choice(blocks, numbers[0], numbers[1], numbers[2]) if legal else None

    @property
    def most_steps(self) -> int:
        """The most steps that a block may have: those of a segment, where it keeps the states of all of them."""
        return self.segment if self.past else _MOST_STEPS

    def _choose(self, batch: int, sizes: Mapping[str, int], words: int, width: int, choice: Choice) -> Blocks:
        laid = self._folded(sizes, words, choice) if self.folds else self._plain(sizes, words, width, choice)
        constants = {f"size_{axis}": sizes[axis] for axis in self.axes}
        constants.update((f"block_{axis}", size) for axis, size in laid.block.items())
        constants.update((f"lanes_{axis}", lanes) for axis, lanes in laid.lanes.items())
        unroll = constants["unroll"] = choice.unroll or self._steps(laid, width)
        programs = {axis: sizes[axis] for axis in self.grid}
        spread = (*self.split, *self.summed)
        programs.update((axis, max(1, -(-sizes[axis] // laid.block[axis]))) for axis in spread)
        running = batch * prod(programs.values())
        constants["prefetch"] = self._prefetch(laid, sizes, unroll, width, running)
        if choice.prefetch is not None:
            constants["prefetch"] = choice.prefetch
        return Blocks(constants, programs, unroll, laid.warps, spread=_SPREAD_FOLDED if self.folds else SPREAD)

    def _prefetch(self, laid: _Laid, sizes: Mapping[str, int], unroll: int, width: int, programs: int) -> int:
        """How many blocks ahead lines are asked for.

        Rows are contiguous where blocks fit: then there are lines to ask for.  Many programs have enough on its way
        without, and a rerun of several blocks reads rows before they are needed.
        """
        even = all(sizes[axis] % size == 0 for axis, size in laid.block.items())
        rows = width * sum(prod(laid.block[axis] for axis in tile) for tile in self.rows)
        rerun = bool(self.past) and unroll < self.segment
        if not even or unroll == 1 or rerun or programs * unroll * rows > _IN_FLIGHT:
            return 0
        return max(1, (32 if self.past else 64) // unroll)

    def _plain(self, sizes: Mapping[str, int], words: int, width: int, choice: Choice) -> _Laid:
        """Tiles whose layout is left to Triton."""
        block = {axis: power_of_two(sizes[axis]) for axis in (*self.split, *self.summed, *self.full)}

        def elements(tile: tuple[str, ...]) -> int:
            return words * prod(block[axis] for axis in tile)

        def halve(axis: str, least: int, most: int) -> None:
            while block[axis] > least and any(elements(tile) > most for tile in self.tiles if axis in tile):
                block[axis] //= 2

        narrow = all(len(tile) <= 1 for tile in self.tiles)
        wanted = _ROW_BYTES // (2 * len(self.past) if self.past else width) * words if narrow else _MATRIX
        first = (*self.split, *self.summed)[:1]
        if wanted == _MATRIX and all(prod(block[a] for a in tile if a not in first) <= _FEW for tile in self.tiles):
            wanted = _LANES * _FEW // (4 if self.past else 2)
        for axis in self.split:
            halve(axis, 8, wanted)
        for axis in self.summed:
            halve(axis, 8, 2 * wanted if wanted == _MATRIX else wanted)
        for axis in (*self.split, *self.summed):
            halve(axis, 1, MOST_ELEMENTS)
        block.update((axis, size) for axis, size in choice.blocks.items() if axis in (*self.split, *self.summed))
        largest = max(self.tiles, key=elements)
        if elements(largest) > MOST_ELEMENTS:
            self._refuse(largest, sizes, elements(largest))
        held = sum(elements(tile) for tile in self.resident)
        warps = min(16, power_of_two(max(elements(largest) // _WORKED_ON, -(-held // _HELD))))
        warps = choice.num_warps or warps_of(warps, wide=torch.version.hip is not None)

        def share(tile: tuple[str, ...]) -> float:
            return max(1, elements(tile) / (_LANES * warps if len(tile) == len(largest) else _ALONG))

        return _Laid(block, {}, warps, share)

    def _folded(self, sizes: Mapping[str, int], words: int, choice: Choice) -> _Laid:
        """Tiles folded over threads: a thread has `_FOLDED` elements, of which 4 lie along the inner axis.

        It has fewer where it keeps several states of each step, as a complex one is.
        """
        outer, inner = self.folds
        kept = sum(len(tile) > 1 for tile in self.past)
        most = max(1, _FOLDED // max(1, kept))
        spread = (*self.split, *self.summed)
        block = {axis: power_of_two(sizes[axis]) for axis in self.folds}
        if inner in spread:
            block[inner] = min(block[inner], _LANES * _FOLDED)
        if inner in choice.blocks and inner in spread:
            block[inner] = choice.blocks[inner]
        lanes = {inner: min(choice.lanes.get(inner, max(1, block[inner] // 4)), _LANES, block[inner])}
        lanes[outer] = min(_LANES // lanes[inner], block[outer])
        if outer in spread:
            fold = max(1, most // (words * block[inner] // lanes[inner]))
            block[outer] = choice.blocks.get(outer, min(block[outer], lanes[outer] * fold))
            lanes[outer] = min(lanes[outer], block[outer])
        elements = words * block[outer] * block[inner]
        if elements > MOST_ELEMENTS:
            self._refuse(self.folds, sizes, elements)
        warps = choice.num_warps or min(16, max(1, elements // (_LANES * 2 * _FOLDED)))
        lanes[outer] = min(_LANES * warps // lanes[inner], block[outer])
        thread = {axis: block[axis] // lanes[axis] for axis in self.folds}
        wide = torch.version.hip is not None
        return _Laid(block, lanes, warps_of(warps, wide=wide), lambda tile: words * prod(thread[axis] for axis in tile))

    def _steps(self, laid: _Laid, width: int) -> int:
        """The steps of a block."""
        work, share, warps = max(1, self.work), laid.share, laid.warps
        largest = max(share(tile) for tile in self.tiles)
        if largest > _SMALL:
            return 1
        kept = sum(share(tile) * (1 if len(tile) <= 1 else 3) for tile in self.past)  # and what is computed on the way
        rows = sum(share(tile) * max(width, 2) / 4 for tile in self.rows) + kept
        held = sum(share(tile) for tile in self.resident) + 2 * largest
        rows_most, held_most = _ROWS, _REGISTERS
        if self.folds:
            rows_most, held_most = _FOLDED_ROWS, _FOLDED_REGISTERS
        elif len(self.past) <= 1 and all(len(tile) <= 1 for tile in self.tiles):
            rows_most, held_most = _NARROW_ROWS, _NARROW_REGISTERS
        most = [
            self.most_steps,
            _MOST_WORK / work,
            (_FOLDED_CODE if self.folds else _MOST_CODE) / (work * largest),
            min(rows_most, min(held_most, 1600 / warps) - held) / max(rows, 1),
        ]
        return power_of_two(int(max(1, min(most))) + 1) // 2

    def _refuse(self, tile: tuple[str, ...], sizes: Mapping[str, int], elements: int) -> None:
        axes = ", ".join(f"{axis} = {sizes[axis]}" for axis in tile)
        raise ArgumentError(
            f"{self.name}: one step needs a tile over {axes} at once, too large for one program of the triton target",
            expected=f"at most {MOST_ELEMENTS} elements of fp32, padded to powers of two",
            got=f"{elements}",
            hint='compile with target="torch", which takes any size',
        )


def warps_of(warps: int, *, wide: bool) -> int:
    """As many threads as `warps` warps of 32 have, in warps of 64 if `wide` (AMD)."""
    return max(1, warps // 2) if wide else warps


def power_of_two(size: int) -> int:
    """The least power of two that is no smaller."""
    return 1 << max(0, size - 1).bit_length()


def _is_power(number: object, most: int) -> bool:
    """Whether that is a power of two, and no more than `most`."""
    return isinstance(number, int) and 1 <= number <= most and number & (number - 1) == 0


# --- for tests: other blocks and warps than the chosen ones ---

_forced: Choice | None = None
_chunks: int | None = None


def forced_chunks() -> int | None:
    """The chunks that time is to be split in, if that is forced."""
    return _chunks


@contextmanager
def forced(
    blocks: Mapping[str, int] | None = None,
    num_warps: int | None = None,
    unroll: int | None = None,
    prefetch: int | None = None,
    chunks: int | None = None,
    lanes: Mapping[str, int] | None = None,
) -> Iterator[None]:
    """Within, split axes get the given blocks, kernels the given warps and steps per block, time the given chunks."""
    global _forced, _chunks
    before = _forced, _chunks
    _forced, _chunks = Choice(dict(blocks or {}), num_warps, unroll, prefetch, dict(lanes or {})), chunks
    try:
        yield
    finally:
        _forced, _chunks = before


# --- for tuning: which kernels a call launches ---


@dataclass(frozen=True)
class Watched:
    """A kernel that ran: its tiling, how it was laid out, and what a choice for it is stored under."""

    tiling: Tiling
    blocks: Blocks
    key: tuned.Key


_watching: dict[str, Watched] | None = None


@contextmanager
def watched() -> Iterator[dict[str, Watched]]:
    """Within, every kernel that is laid out is noted, by the digest of its tiling."""
    global _watching
    before, _watching = _watching, {}
    try:
        yield _watching
    finally:
        _watching = before
