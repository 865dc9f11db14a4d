"""Launching generated Triton kernels: block sizes, memory, arguments, sums of partial results."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from math import prod
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from scanc_runtime.dtypes import differentiable, value_dtype
from scanc_runtime.errors import ArgumentError
from scanc_runtime.shapes import Shapes
from scanc_runtime.spec import Spec
from scanc_runtime.triton_math import carry_kernel

MOST_ELEMENTS = 32768
"""The largest tile of fp32 numbers that a program holds: 64 registers a thread at 16 warps."""
_LANES, _ALONG, _FEW = 32, 8, 32
_MATRIX = 1024  # elements that a program is given where an axis can be split
_ROW_BYTES = 128  # of a row, for a program with one axis: all that a warp loads at once
_WORKED_ON, _HELD = 1024, 2560
"""Elements per warp, of the largest tile and of all that are held: 32 and 80 registers a thread."""
_SMALL = 16  # elements of the largest tile in a thread, for several steps at once
_MOST_STEPS = 32
ENOUGH, FULL, SHORTEST = 1.2, 5, 128
"""Programs per multiprocessor from which the time is not split, and those to split it for; the fewest steps a chunk."""
_LONG = 4096  # steps from which splitting the time gains more than two more launches cost
_CARRIED, _GROUP = 32, 16  # states of a program that carries them from chunk to chunk, and chunks that it reads ahead
_MOST_WORK, _MOST_CODE = 768, 1200  # instructions of a block, for the compiler and for the chip
_ROWS, _REGISTERS = 80, 150
"""Registers of a thread for rows on their way and states of the past, and for all that a thread holds."""


@dataclass(frozen=True)
class Blocks:
    """How a kernel is laid over programs for some sizes.

    `constants` are its compile-time sizes and blocks, `programs` the programs along each spread axis, `unroll` the
    steps of a block.
    """

    constants: Mapping[str, int]
    programs: Mapping[str, int]
    unroll: int
    num_warps: int

    def starts(self, segment: int) -> int:
        """Blocks of steps of a segment, if there are several: how many starts a program writes down."""
        return segment // self.unroll if segment > self.unroll else 0

    @property
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
class Split:
    """The time of a call in `chunks` parts of `span` steps, the last of them shorter, or the first if `backwards`."""

    batch: int
    chunks: int
    span: int
    time: int
    backwards: bool = False

    @property
    def shift(self) -> int:
        """The steps that the first chunk lacks."""
        return self.chunks * self.span - self.time if self.backwards else 0

    @property
    def rows(self) -> int:
        return self.batch * self.chunks

    @property
    def back(self) -> Split:
        """The same chunks, walked from the end."""
        return replace(self, backwards=True)

    def first(self, rows: Tensor) -> Tensor:
        """What the first chunks left."""
        return rows.view(self.batch, self.chunks, *rows.shape[1:])[:, 0]

    def last(self, rows: Tensor) -> Tensor:
        """What the last chunks left."""
        return rows.view(self.batch, self.chunks, *rows.shape[1:])[:, -1]


@cache
def _multiprocessors(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


@dataclass
class Tiling:
    """What the compiler knows of a kernel's tiles.

    A program has one index of each `grid` axis, a block of each `split` and `summed` axis (those to be split first
    come first; `summed` ones leave partial sums), and all of each `full` one.  `tiles`: the largest that it works on;
    `resident`: those that it holds; `rows`: those that it reads at each step; `past`: those that it keeps of each step
    of a block; `work`: the instructions of a step; `segment`: the steps between two saved states.
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
    work: int
    segment: int
    _known: dict[Any, Blocks] = field(default_factory=dict)

    @property
    def axes(self) -> tuple[str, ...]:
        return (*self.grid, *self.split, *self.summed, *self.full)

    def blocks(self, call: Call) -> Blocks:
        """How to lay the kernel over programs. Raises ArgumentError if a step's tiles cannot fit on the chip."""
        key = (tuple(call.sizes[axis] for axis in self.axes), call.real, call.width, _forced.key())
        if key not in self._known:
            self._known[key] = self._choose(call.sizes, call.real.itemsize // 4, call.width)
        return self._known[key]

    def _choose(self, sizes: Mapping[str, int], words: int, width: int) -> Blocks:
        block = {axis: _power_of_two(sizes[axis]) for axis in (*self.split, *self.summed, *self.full)}

        def elements(tile: tuple[str, ...]) -> int:
            return words * prod(block[axis] for axis in tile)

        def halve(axis: str, least: int, most: int) -> None:
            while block[axis] > least and any(elements(tile) > most for tile in self.tiles if axis in tile):
                block[axis] //= 2

        wanted = _ROW_BYTES // width * words if all(len(tile) <= 1 for tile in self.tiles) else _MATRIX
        first = (*self.split, *self.summed)[:1]
        if wanted == _MATRIX and all(prod(block[a] for a in tile if a not in first) <= _FEW for tile in self.tiles):
            wanted = _LANES * _FEW // (4 if self.past else 2)
        for axis in self.split:
            halve(axis, 8, wanted)
        for axis in self.summed:
            halve(axis, 8, 2 * wanted if wanted == _MATRIX else wanted)
        for axis in (*self.split, *self.summed):
            halve(axis, 1, MOST_ELEMENTS)
        block.update((axis, size) for axis, size in _forced.blocks.items() if axis in (*self.split, *self.summed))
        largest = max(self.tiles, key=elements)
        if elements(largest) > MOST_ELEMENTS:
            self._refuse(largest, sizes, elements(largest))
        held = sum(elements(tile) for tile in self.resident)
        warps = min(16, _power_of_two(max(elements(largest) // _WORKED_ON, -(-held // _HELD))))
        warps = _forced.num_warps or warps_of(warps, wide=torch.version.hip is not None)
        constants = {f"size_{axis}": sizes[axis] for axis in self.axes}
        constants.update((f"block_{axis}", size) for axis, size in block.items())

        def share(tile: tuple[str, ...]) -> float:
            return max(1, elements(tile) / (_LANES * warps if len(tile) == len(largest) else _ALONG))

        unroll = constants["unroll"] = _forced.unroll or self._steps(share, width, warps)
        # Rows are contiguous where blocks fit: then there are lines of the cache to ask for.
        even = all(sizes[axis] % size == 0 for axis, size in block.items())
        constants["prefetch"] = max(1, (32 if self.past else 64) // unroll) if even and unroll > 1 else 0
        if _forced.prefetch is not None:
            constants["prefetch"] = _forced.prefetch
        programs = {axis: sizes[axis] for axis in self.grid}
        programs.update((axis, max(1, -(-sizes[axis] // block[axis]))) for axis in (*self.split, *self.summed))
        return Blocks(constants, programs, unroll, warps)

    def _steps(self, share: Callable[[tuple[str, ...]], float], width: int, warps: int) -> int:
        """The steps of a block; `share`: elements of a tile that a thread has."""
        work, largest = self.work, max(share(tile) for tile in self.tiles)
        if largest > _SMALL:
            return 1
        kept = sum(share(tile) * (1 if len(tile) <= 1 else 3) for tile in self.past)  # and what is computed on the way
        rows = sum(share(tile) * max(width, 2) / 4 for tile in self.rows) + kept
        held = sum(share(tile) for tile in self.resident) + 2 * largest
        most = [
            self.segment if self.past else _MOST_STEPS,
            _MOST_WORK / work,
            _MOST_CODE / (work * largest),
            min(_ROWS, min(_REGISTERS, 1600 / warps) - held) / max(rows, 1),
        ]
        return _power_of_two(int(max(1, min(most))) + 1) // 2

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


def _power_of_two(size: int) -> int:
    """The least power of two that is no smaller."""
    return 1 << max(0, size - 1).bit_length()


# --- for tests and tuning: other blocks and warps than the chosen ones ---


@dataclass
class _Forced:
    blocks: Mapping[str, int] = field(default_factory=dict)
    num_warps: int | None = None
    unroll: int | None = None
    prefetch: int | None = None
    chunks: int | None = None

    def key(self) -> Any:
        return tuple(self.blocks.items()), self.num_warps, self.unroll, self.prefetch


_forced = _Forced()


@contextmanager
def forced(
    blocks: Mapping[str, int] | None = None,
    num_warps: int | None = None,
    unroll: int | None = None,
    prefetch: int | None = None,
    chunks: int | None = None,
) -> Iterator[None]:
    """Within, split axes get the given blocks, kernels the given warps and steps per block, time the given chunks."""
    global _forced
    before = _forced
    _forced = _Forced(dict(blocks or {}), num_warps, unroll, prefetch, chunks)
    try:
        yield
    finally:
        _forced = before


# --- one call ---

_shapes: dict[Spec, Shapes] = {}


class Call:
    """The sizes and dtypes of one call, and the memory that it takes."""

    def __init__(self, spec: Spec, primals: Sequence[Tensor]) -> None:
        shapes = _shapes.get(spec)
        if shapes is None:
            shapes = _shapes[spec] = Shapes(spec)
        self.batch, self.time, self.sizes = shapes.sizes(primals)
        self.real = shapes.compute_dtype(primals)
        inputs = [x for x in primals[: len(spec.inputs)] if x.is_floating_point()]
        self.width = max((x.element_size() for x in inputs), default=4)
        self._results = [dtype for _, dtype in shapes.results(primals)]
        self._spec = spec
        self._like = primals[0]

    def split(self, blocks: Blocks, chunks: int | None, segment: int) -> Split:
        """The time in `chunks` parts of whole segments, or in as many as keep the chip busy."""
        if chunks is None:
            chunks = _forced.chunks or self._chunks(self.batch * blocks.per_sequence)
        unit = max(segment, blocks.unroll)
        span = -(-max(self.time, 1) // (chunks * unit)) * unit
        return Split(self.batch, max(1, -(-self.time // span)), span, self.time)

    def _chunks(self, programs: int) -> int:
        if self._like.device.type != "cuda" or programs == 0:
            return 1
        chip = _multiprocessors(self._like.device)
        if programs >= ENOUGH * chip or self.time < _LONG:
            return 1
        return max(1, min(FULL * chip // programs, self.time // SHORTEST))

    def constant(self, value: float, shape: Sequence[int]) -> Tensor:
        """One number, seen as a tensor in the dtype of computation."""
        return self._like.new_full((1,) * len(shape), value, dtype=self.real).expand(tuple(shape))

    def carries(self, start: Tensor, ends: Tensor, products: Tensor, split: Split, *, behind: bool) -> Tensor:
        """The states before each chunk, from `start` on; with `behind`, in the order of chunks from the last back."""
        found = self.new(ends.shape, self.real)
        if found.numel() == 0 or _rehearsing():
            return found
        flat, size = start.reshape(self.batch, -1).contiguous(), found.numel() // split.rows
        grid = (self.batch, -(-size // _CARRIED))
        constants = {"behind": behind, "block": _CARRIED, "group": _GROUP}
        with torch.cuda.device_of(self._like):  # type: ignore[no-untyped-call]
            carry_kernel[grid](
                flat, flat.stride(0), ends, products, found, size, split.chunks, **constants, num_warps=1
            )
        return found

    def segments(self, segment: int) -> int:
        """How many stretches of `segment` steps the sequence has."""
        return -(-self.time // segment)

    def dims(self, axes: Sequence[str]) -> tuple[int, ...]:
        return tuple(self.sizes[axis] for axis in axes)

    def output(self, position: int) -> torch.dtype:
        """The dtype in which an output is returned."""
        return self._results[position]

    def dtype(self, kind: str) -> torch.dtype:
        """The dtype in which values of a kind are computed."""
        return value_dtype(kind, self.real)

    def new(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Memory that a kernel fills; NaN before that if SCANC_POISON=1."""
        if _rehearsing():
            return torch.empty(tuple(shape), dtype=dtype, device="meta")
        tensor = self._like.new_empty(tuple(shape), dtype=dtype)
        if os.environ.get("SCANC_POISON") == "1" and dtype.is_floating_point | dtype.is_complex:
            tensor.fill_(float("nan"))
        return tensor

    def shares(self, programs: tuple[int, ...], shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Memory for the partial sums that `programs` leave, in full precision where there are several."""
        wide = dtype if prod(programs) == 1 else torch.promote_types(dtype, self.real)
        return self.new((*programs, *shape), wide)

    def run(
        self,
        kernel: Any,
        blocks: Blocks,
        tensors: Sequence[Tensor],
        scratch: Sequence[Tensor] = (),
        split: Split | None = None,
        **flags: Any,
    ) -> None:
        """Launches `kernel` with the pointer and the strides of each tensor, and bare pointers to scratch."""
        programs = (split.rows if split else self.batch) * blocks.per_sequence
        if programs == 0:
            return
        arguments: list[Any] = []
        for tensor in tensors:
            arguments.append(tensor)
            arguments.extend(tensor.stride())
        arguments.extend(scratch)
        times = {"T": self.time}
        if split:
            times |= {"chunks": split.chunks, "span": split.span, "shift": split.shift}
        constants = {**blocks.constants, **flags, "acc": tl.float64 if self.real == torch.float64 else tl.float32}
        options = {"num_warps": blocks.num_warps, "num_stages": 1, "enable_fp_fusion": True}
        with torch.cuda.device_of(self._like):  # type: ignore[no-untyped-call]
            if _rehearsing():
                kernel.warmup(*arguments, **times, **constants, **options, grid=(1,))
                return
            begun = _pending.pop(id(kernel), None)
            if begun is not None:
                begun.result()
            kernel[(programs,)](*arguments, **times, **constants, **options)

    def ahead(
        self, tiling: Tiling, kernel: Any, backward: Backward, saved: Saved, groups: Groups, reverse: bool
    ) -> None:
        """Begins to compile a backward kernel in a thread, while this one goes on to compile the forward kernel.

        `groups` are inputs, params and states.  Raises ArgumentError if backward's tiles cannot fit on the chip.
        """
        key = (id(kernel), id(tiling.blocks(self)), groups[0][0].dtype, reverse)
        if key in _begun or self._like.device.type != "cuda" or self.batch == 0:
            return
        _begun.add(key)

        def meta(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
            return torch.empty(tuple(shape), dtype=dtype, device="meta")

        shapes = saved("recurrent", self.batch, self.time, self.sizes)
        kept = tuple(meta(shape, self.dtype(kind)) for shape, kind in shapes)
        spec, results = self._spec, self._results
        leads = [(self.batch, self.time)] * len(spec.outputs) + [(self.batch,)] * len(spec.states)
        given = [
            (i, meta((*lead, *self.dims(decl.axes)), dtype))
            for i, (lead, decl, dtype) in enumerate(zip(leads, (*spec.outputs, *spec.states), results, strict=True))
            if differentiable(decl)
        ]
        grads = (
            tuple(g for i, g in given if i < len(spec.outputs)),
            tuple(g for i, g in given if i >= len(spec.outputs)),
        )
        _pending[id(kernel)] = _pool().submit(_rehearse, lambda: backward(*groups, kept, *grads, reverse))


# --- compiling ahead ---

Backward = Callable[..., object]
Groups = tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]
Saved = Callable[[str, int, int, Mapping[str, int]], Sequence[tuple[Sequence[int], str]]]

_begun: set[Any] = set()
_pending: dict[int, Future[None]] = {}
_here = threading.local()


def _rehearsing() -> bool:
    """Whether this thread only compiles what it would launch."""
    return getattr(_here, "rehearsing", False)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=4, thread_name_prefix="scanc-compile")


def _rehearse(run: Callable[[], object]) -> None:
    _here.rehearsing = True
    with suppress(Exception):  # the launch itself will say what is wrong
        run()


def halves(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """The real and the imaginary part of a complex tensor, as views."""
    re, im = torch.view_as_real(tensor.resolve_conj()).unbind(-1)
    return re, im


def total(partial: Tensor, leading: int) -> Tensor:
    """The sum over the leading dimensions of partial results, always in the same order."""
    if all(size == 1 for size in partial.shape[:leading]):
        return partial.reshape(partial.shape[leading:])
    return partial.sum(dim=tuple(range(leading)))
