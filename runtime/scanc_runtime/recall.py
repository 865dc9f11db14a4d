"""How the kernels of memories are laid out: steps of a chunk, blocks of keys and values, warps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from math import prod
from typing import Any

import torch
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from scanc_runtime.errors import ArgumentError
from scanc_runtime.launch import Call
from scanc_runtime.recall_segments import Segments, segments
from scanc_runtime.tiling import Blocks, power_of_two, warps_of

STRETCH = 256
"""Steps over which flux is summed before it begins anew from a state and its cotangent."""
_ALONG, _EACH, _LANES = 32, 16, 32
"""Of an axis along which decays differ in a program that tilts or sums flux; numbers of a thread; threads of a warp."""
_ALONE = 1 << 12  # numbers of a state in a program that walks step by step
_SPARE = 7_448  # bytes of a multiprocessor's shared memory that the estimate leaves
_HOPPER = 232_448  # bytes that a program may have there
_WIDE = 128  # keys or values of fp32 with which registers are left for 32 steps
_PIECE = 128  # steps of a stretch, and numbers of a side, of which all pairs are products at once
_LEAST = 16  # of each dimension of a product of matrices
_MOST = 1 << 14  # numbers of a state that a program holds
_MANY = 16  # warps that a program has at most
_BESIDE = 4  # warps of a program that leaves room for another on its multiprocessor
_HALF = 1 << 13  # of one that leaves room for another program on its multiprocessor
_DTYPES = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16, torch.float32: tl.float32}


@dataclass(frozen=True)
class _Forced:
    steps: int | None = None
    block: int | None = None
    num_warps: int | None = None
    stages: int | None = None
    segments: int | None = None


_forced = _Forced()


@dataclass
class RecallTiling:
    """What the compiler knows of a kernel of a memory.

    A program has one index of each `grid` axis, all `keys`, and a block of `values`, or all of them if `whole`.  `rows`
    and `columns` are the state's axes, `reads` those of what is read of each step.  `tilted`: of operands that decays
    of a side tilt.  `single`: the axis of a side that is one number, of which no matrix is multiplied.
    """

    name: str
    grid: tuple[str, ...]
    keys: str
    values: str
    rows: str
    columns: str
    whole: bool
    reads: tuple[tuple[str, ...], ...]
    tilted: bool = False
    single: str = ""
    _known: dict[Any, Blocks] = field(default_factory=dict)

    def blocks(self, call: Call) -> Blocks:
        """How to lay the kernel over programs. Raises ArgumentError in fp64, or if a state is too large."""
        if call.real != torch.float32:
            raise ArgumentError(
                f"{self.name}: form chunked multiplies matrices of at most 32 bits",
                expected="a call that computes in float32",
                got=f"one that computes in {str(call.real).removeprefix('torch.')}",
                hint='form="recurrent" takes it',
            )
        axes = (*self.grid, self.keys, self.values)
        key: Any = tuple(call.sizes[axis] for axis in axes), call.stored, _forced
        if key not in self._known:
            self._known[key] = self._choose(call)
        return self._known[key]

    def of_steps(self, call: Call, steps: int, axis: str = "", *, whole: bool = False) -> Blocks:
        """How a kernel of so many steps a program, and of a block of an axis or all of it, is laid out."""
        sizes = {axis: call.sizes[axis] for axis in (*self.grid, self.rows, self.columns)}
        key = tuple(sizes.values()), steps, axis, whole
        if key not in self._known:
            programs = {axis: sizes[axis] for axis in self.grid}
            constants = {f"size_{axis}": size for axis, size in sizes.items()} | {"steps": steps}
            warps = 4 if steps >= STRETCH else 2
            if axis:
                other = self.columns if axis == self.rows else self.rows
                block = power_of_two(sizes[axis]) if whole else min(_ALONG, power_of_two(sizes[axis]))
                constants |= {f"block_{axis}": block, f"block_{other}": power_of_two(sizes[other])}
                programs[axis] = -(-sizes[axis] // block)
                warps = min(_MANY, max(1, steps * block // (_LANES * _EACH)))
            self._known[key] = Blocks(constants, programs, steps, warps)
        return self._known[key]

    def pairs(self, call: Call, *whole: str) -> Blocks:
        """How the kernel of all pairs of a stretch is laid out; `whole`: axes that are not taken in blocks."""
        sizes = {axis: call.sizes[axis] for axis in (*self.grid, self.rows, self.columns)}
        key: Any = tuple(sizes.values()), call.stored, _forced, "pairs"
        if key not in self._known:
            wide = call.stored == torch.float32
            most = _forced.block or (_PIECE // 2 if wide else _PIECE)
            padded = {axis: max(_LEAST, power_of_two(sizes[axis])) for axis in (self.rows, self.columns)}
            blocks = {axis: size if axis in whole else min(size, most) for axis, size in padded.items()}
            written, stages = _forced.steps or min(STRETCH, _PIECE // 4 if wide else _PIECE), _forced.stages or 2
            numbers = (_shared(call.device) - _SPARE) // call.stored.itemsize - prod(blocks.values())
            while written > _LEAST and (written + stages * written // 2) * sum(blocks.values()) > numbers:
                written, stages = (written, 1) if stages > 1 else (written // 2, 2)
            constants = {f"size_{axis}": size for axis, size in sizes.items()}
            constants |= {f"block_{axis}": block for axis, block in blocks.items()}
            constants |= {"steps": STRETCH, "steps_written": written, "steps_read": max(_LEAST, written // 2)}
            constants["stages"] = stages
            warps = warps_of(8 if written * max(blocks.values()) > 64 * 64 else 4, wide=torch.version.hip is not None)
            programs = {axis: sizes[axis] for axis in self.grid}
            self._known[key] = Blocks(constants, programs, STRETCH, _forced.num_warps or warps)
        return self._known[key]

    def stepwise(self, call: Call) -> Blocks:
        """How the kernel that walks step by step is laid out."""
        sizes = {axis: call.sizes[axis] for axis in (*self.grid, self.keys, self.values)}
        key = tuple(sizes.values()), "stepwise"
        if key not in self._known:
            keys, values = (power_of_two(sizes[axis]) for axis in (self.keys, self.values))
            # twice as many numbers of wide keys to a thread end LLVM's vectorizer in Triton 3.6
            most = _ALONE if keys <= _WIDE else _ALONE // 2
            block = values if self.whole else max(1, min(values, most // keys))
            constants = {f"size_{axis}": size for axis, size in sizes.items()}
            constants |= {f"block_{self.keys}": keys, f"block_{self.values}": block, "steps": 1, "stages": 1}
            programs = {axis: sizes[axis] for axis in self.grid} | {
                self.values: max(1, -(-sizes[self.values] // block))
            }
            self._known[key] = Blocks(constants, programs, 1, 4 if block * keys <= _ALONE else 8)
        return self._known[key]

    def tilts(self, call: Call, blocks: Blocks, axis: str) -> tuple[Any, Any]:
        """Memory for what half a chunk of a side's decays leaves, and for how far they range, which is nothing yet."""
        rows, count = self._rows(call), chunks(call, blocks.unroll)
        halves = call.new((rows, count, call.sizes[axis]), torch.float32)
        return halves, call.new((rows, count), torch.float32).zero_()

    def tilted_dtype(self, call: Call) -> torch.dtype:
        """What operands are stored in when they are tilted: half precision has too few exponents."""
        return torch.bfloat16 if call.stored == torch.float16 else call.stored

    def segments(self, call: Call, blocks: Blocks) -> Segments:
        """How the time is shared out between programs, in whole stretches."""
        beside = 1 if blocks.num_warps > _BESIDE else 2
        return segments(call, -(-call.batch * blocks.per_sequence // beside), STRETCH, _forced.segments)

    def room(self, call: Call, blocks: Blocks) -> Any:
        """Memory for the sums of logarithms: [2, 2, rows, chunks · steps]."""
        return call.new((2, 2, self._rows(call), max(1, chunks(call, blocks.unroll)) * blocks.unroll), torch.float32)

    def marks(self, call: Call) -> Any:
        """Memory for states at the ends of stretches of steps: [rows, stretches, rows of the state, columns]."""
        sizes = call.sizes[self.rows], call.sizes[self.columns]
        # sums may be past the largest half; flux over decays of a side is as exact as what it begins from
        dtype = torch.float32 if self.tilted or call.stored == torch.float16 else call.stored
        return call.new((self._rows(call), chunks(call, STRETCH), *sizes), dtype)

    def _rows(self, call: Call) -> int:
        return call.batch * prod(call.sizes[axis] for axis in self.grid)

    def flags(self, call: Call) -> dict[str, Any]:
        """In what operands are multiplied, and how exactly."""
        wide = call.stored == torch.float32
        dtype = self.tilted_dtype(call) if self.tilted else call.stored
        return {"dtype": _DTYPES[dtype], "precision": "tf32x3" if wide else "tf32"}

    def _choose(self, call: Call) -> Blocks:
        sides = self.keys, self.values
        keys, values = (1 if axis == self.single else max(_LEAST, power_of_two(call.sizes[axis])) for axis in sides)
        wide = call.stored == torch.float32
        most = _MOST // (4 if wide else 1)
        block = values
        while not self.whole and block > _LEAST and (block * keys > most or self._halved(keys, block)):
            block //= 2
        block = values if self.whole else min(values, _forced.block or block)
        if block * keys > 2 * _MOST:
            raise ArgumentError(
                f"{self.name}: one program of form chunked holds a state of {keys} keys and {block} values",
                expected=f"at most {2 * _MOST} numbers, padded to powers of two",
                got=str(block * keys),
                hint='form="recurrent" takes it',
            )
        # the same for all kernels of a memory, which share sums and tilted operands
        largest = max(power_of_two(call.sizes[axis]) for axis in (self.rows, self.columns))
        steps = _forced.steps or (64 if not wide else 32 if largest <= _WIDE else 16)
        sizes = {axis: call.sizes[axis] for axis in (*self.grid, self.keys, self.values)}
        constants = {f"size_{axis}": size for axis, size in sizes.items()}
        constants |= {f"block_{self.keys}": keys, f"block_{self.values}": block, "steps": steps}
        alone = block * keys > (64 * 64 if wide else _HALF)  # on its multiprocessor
        tiles = [prod(constants[f"block_{axis}"] for axis in axes) for axes in self.reads]
        loaded = steps * sum(tiles) * call.stored.itemsize
        rest = steps * (2 * (keys + block) + steps) * call.stored.itemsize
        room = (_shared(call.device) - _SPARE) // (1 if alone else 2)
        ahead = max(0, min(2 if alone and not wide else 1, (room - rest) // max(1, loaded)))
        constants["stages"] = _forced.stages or 1 + ahead
        programs = {axis: sizes[axis] for axis in self.grid} | {self.values: max(1, -(-sizes[self.values] // block))}
        warps = _forced.num_warps or warps_of(8 if alone else 4, wide=torch.version.hip is not None)
        return Blocks(constants, programs, steps, warps)

    def _halved(self, keys: int, block: int) -> bool:
        """Whether two programs of half the block do better than one alone on its multiprocessor.

        Alone it has 8 warps, each with 16 values, and what it reads besides operands waits in registers.
        """
        matrices = sum(len(axes) > 0 for axes in self.reads)
        return block > 64 and (block * keys <= _HALF or matrices > 3)


def with_axes(call: Call, *axes: str) -> Call:
    """A call that knows axes of size one besides those of its spec."""
    call.sizes = call.sizes | dict.fromkeys(axes, 1)
    return call


def column(state: Tensor | None) -> Tensor | None:
    """A vector as a matrix of one column."""
    return None if state is None else state.unsqueeze(-1)


def flat(state: Tensor | None) -> Tensor | None:
    """A matrix of one column as a vector."""
    return None if state is None else state.squeeze(-1)


def chunks(call: Call, steps: int) -> int:
    """Stretches of so many steps of a sequence."""
    return -(-call.time // steps)


def apart(call: Call) -> bool:
    """Whether strong gates are summed apart from weak ones: where more digits are wanted than 16 bits have."""
    return call.stored == torch.float32


def by_time(numbers: Tensor, steps: int) -> Tensor:
    """Numbers of each step, [B, T, *axes], as rows of whole chunks of steps, with zeros at their ends."""
    batch, time, *axes = numbers.shape
    rows = numbers.new_empty((batch, *axes, max(1, -(-time // steps)) * steps))
    rows[..., :time] = numbers.movedim(1, -1)
    rows[..., time:] = 0
    return rows


def rows(sums: Any, steps: int) -> TensorDescriptor:
    """Sums as rows of which a kernel loads some steps."""
    long = max(1, sums.shape[-1])
    return TensorDescriptor(sums, [max(1, sums.numel() // long), long], [long, 1], [1, steps])


@cache
def _shared(device: torch.device) -> int:
    """Bytes of shared memory that a program may have."""
    if device.type != "cuda":
        return _HOPPER
    properties = torch.cuda.get_device_properties(device)
    return int(getattr(properties, "shared_memory_per_block_optin", 0) or properties.shared_memory_per_block)


@contextmanager
def forced_recall(
    steps: int | None = None,
    block: int | None = None,
    num_warps: int | None = None,
    stages: int | None = None,
    segments: int | None = None,
) -> Iterator[None]:
    """Within, kernels have the given layout, and the time at most so many segments."""
    global _forced
    before, _forced = _forced, _Forced(steps, block, num_warps, stages, segments)
    try:
        yield
    finally:
        _forced = before
