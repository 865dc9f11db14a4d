"""Launching generated Triton kernels: memory, arguments, chunks of time, sums of partial results."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from scanc_runtime.dtypes import differentiable, value_dtype
from scanc_runtime.shapes import Shapes
from scanc_runtime.spec import Spec
from scanc_runtime.tiling import Blocks, Tiling, forced_chunks
from scanc_runtime.triton_math import carry_kernel

ENOUGH, FULL, SHORTEST = 1.2, 5, 128
"""Programs per multiprocessor from which the time is not split, and those to split it for; the fewest steps a chunk."""
_LONG = 4096  # steps from which splitting the time gains more than two more launches cost
_CARRIED, _GROUP = 32, 16  # states of a program that carries them from chunk to chunk, and chunks that it reads ahead


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
            chunks = forced_chunks() or self._chunks(self.batch * blocks.per_sequence)
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

    @property
    def digest(self) -> str:
        """The digest of the spec."""
        return self._spec.digest

    @property
    def device(self) -> torch.device:
        """The device of the tensors."""
        return self._like.device

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
