"""Launching generated Triton kernels: memory, arguments, chunks of time, sums of partial results."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from math import prod
from operator import attrgetter
from typing import Any, NamedTuple, Protocol

import torch
import triton.language as tl
from torch import Tensor

from scanc_runtime.auto import multiprocessors
from scanc_runtime.dtypes import differentiable, value_dtype
from scanc_runtime.shapes import Shapes
from scanc_runtime.spec import Spec
from scanc_runtime.tiling import Blocks, Sized, forced_chunks
from scanc_runtime.triton_math import carry_kernel

_SHORTEST = 128  # steps of a chunk, at least
_LONG = 4096  # steps from which splitting the time gains more than two more launches cost
_MOST_CALLS = 256  # of different sizes, of which a spec remembers what they are
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

    @cached_property
    def times(self) -> dict[str, int]:
        """The arguments of kernels."""
        return {"T": self.time, "chunks": self.chunks, "span": self.span, "shift": self.shift}

    @cached_property
    def back(self) -> Split:
        """The same chunks, walked from the end."""
        return replace(self, backwards=True)

    def first(self, rows: Tensor | None) -> Tensor | None:
        """What the first chunks left, if anything."""
        if self.chunks == 1 or rows is None:
            return rows
        return rows.view(self.batch, self.chunks, *rows.shape[1:])[:, 0]

    def last(self, rows: Tensor) -> Tensor:
        """What the last chunks left."""
        if self.chunks == 1:
            return rows
        return rows.view(self.batch, self.chunks, *rows.shape[1:])[:, -1]


_NO_CHANGE = nullcontext()


@dataclass(frozen=True)
class Signature:
    """What all calls with tensors of the same shapes and dtypes have in common; it keeps no tensor.

    `real`: the real dtype of arithmetic, `width`: the bytes of the widest input's elements.
    """

    batch: int
    time: int
    sizes: dict[str, int]
    real: torch.dtype
    width: int
    results: tuple[torch.dtype, ...]
    splits: dict[tuple[int, int, int], Split] = field(default_factory=dict)
    constants: dict[tuple[Any, ...], tuple[Blocks, dict[str, Any]]] = field(default_factory=dict)
    sums: dict[tuple[Any, ...], _Laid] = field(default_factory=dict)


_SHAPE_AND_DTYPE = attrgetter("shape", "dtype")


class _Known:
    """The signatures of a spec's latest calls."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._shapes = Shapes(spec)
        self._inputs = len(spec.inputs)
        self._signatures: dict[Any, Signature] = {}

    def signature(self, primals: Sequence[Tensor | None]) -> Signature:
        key = tuple([None if tensor is None else _SHAPE_AND_DTYPE(tensor) for tensor in primals])
        found = self._signatures.get(key)
        if found is None:
            if len(self._signatures) >= _MOST_CALLS:
                self._signatures.clear()
            found = self._signatures[key] = self._compute(primals)
        return found

    def _compute(self, primals: Sequence[Tensor | None]) -> Signature:
        batch, time, sizes = self._shapes.sizes(primals)
        inputs = [x for x in primals[: self._inputs] if x is not None]
        floating = [x.element_size() for x in inputs if x.is_floating_point()]
        results = tuple(self._shapes.result_dtypes(primals))
        return Signature(batch, time, sizes, self._shapes.compute_dtype(primals), max(floating, default=4), results)


_known: dict[int, _Known] = {}  # by the identity of specs, which hash slowly


class Call:
    """The sizes and dtypes of one call, and the memory that it takes.

    Of the primals a state may be absent.
    """

    def __init__(self, spec: Spec, primals: Sequence[Any]) -> None:
        known = _known.get(id(spec))
        if known is None:
            known = _known[id(spec)] = _Known(spec)
        self._signature = signature = known.signature(primals)
        self.batch, self.time, self.sizes = signature.batch, signature.time, signature.sizes
        self.real, self.width = signature.real, signature.width
        self._spec = spec
        self._like: Tensor = primals[0]
        self._poisoned = os.environ.get("SCANC_POISON") == "1"
        self._rehearsing = getattr(_here, "rehearsing", False)

    def split(self, blocks: Blocks, chunks: int | None, segment: int) -> Split:
        """The time in `chunks` parts of whole segments, or in as many as keep the chip busy."""
        if chunks is None:
            chunks = forced_chunks() or self._chunks(self.batch * blocks.per_sequence, *blocks.spread)
        key = chunks, segment, blocks.unroll
        found = self._signature.splits.get(key)
        if found is None:
            unit = max(segment, blocks.unroll)
            span = -(-max(self.time, 1) // (chunks * unit)) * unit
            found = Split(self.batch, max(1, -(-self.time // span)), span, self.time)
            self._signature.splits[key] = found
        return found

    def _chunks(self, programs: int, enough: float, full: int) -> int:
        chip = multiprocessors(self._like.device)
        if programs == 0 or programs >= enough * chip or self.time < _LONG:
            return 1
        return max(1, min(full * chip // programs, self.time // _SHORTEST))

    def carries(
        self, start: Tensor | None, begin: float, ends: Tensor, products: Tensor, split: Split, *, behind: bool
    ) -> Tensor:
        """The states before each chunk, from `start` on, or if there is none from the number `begin`.

        With `behind`, in the order of chunks from the last back.
        """
        found: Tensor = self.new(ends.shape, self.real)
        if found.numel() == 0 or self._rehearsing:
            return found
        size = found.numel() // split.rows
        flat = None if start is None else start.reshape(self.batch, -1).contiguous()
        stride = 0 if flat is None else flat.stride(0)
        grid = (self.batch, -(-size // _CARRIED))
        constants = {"begin": begin, "behind": behind, "block": _CARRIED, "group": _GROUP}
        with self.on_device():
            carry_kernel[grid](flat, stride, ends, products, found, size, split.chunks, **constants, num_warps=1)
        return found

    @property
    def stored(self) -> torch.dtype:
        """The dtype in which inputs and outputs are stored."""
        return self._signature.results[0]

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
        return self._signature.results[position]

    def dtype(self, kind: str) -> torch.dtype:
        """The dtype in which values of a kind are computed."""
        return value_dtype(kind, self.real)

    def new(self, shape: Sequence[int], dtype: torch.dtype, when: bool = True) -> Any:
        """Memory that a kernel fills, NaN before that if SCANC_POISON=1; None without `when`."""
        if not when:
            return None
        if self._rehearsing:
            return torch.empty(tuple(shape), dtype=dtype, device="meta")
        tensor = self._like.new_empty(shape, dtype=dtype)
        if self._poisoned and dtype.is_floating_point | dtype.is_complex:
            tensor.fill_(float("nan"))
        return tensor

    def sums(self, *results: tuple[tuple[int, ...], tuple[int, ...]]) -> Sums:
        """One memory for the partial sums of several results: of each the leading dimensions and the others."""
        laid = self._signature.sums.get(results)
        if laid is None:
            laid = self._signature.sums[results] = _lay_sums(results)
        return Sums([self.new(shape, self.real) for shape in laid.memory], laid)

    def shares(
        self,
        programs: tuple[int, ...],
        shape: Sequence[int],
        dtype: torch.dtype,
        when: bool = True,
        narrow: bool = False,
    ) -> Any:
        """Memory for the partial sums that `programs` leave, in full precision; for the result where there is one.

        `narrow`: in bfloat16 if the result is, for what they are sums of was rounded so already.
        """
        if prod(programs) == 1:
            return self.new(shape, dtype, when)
        wide = dtype
        if dtype is not self.real and not (narrow and dtype is torch.bfloat16):
            wide = torch.promote_types(dtype, self.real)
        return self.new((*programs, *shape), wide, when)

    def run(
        self,
        kernel: Any,
        blocks: Blocks,
        tensors: Sequence[Tensor | None],
        ranks: Sequence[int],
        scratch: Sequence[Tensor | None] = (),
        split: Split | None = None,
        tiles: int | None = None,
        **flags: Any,
    ) -> None:
        """Launches `kernel` with the pointer and the strides of each tensor, and bare pointers to scratch.

        `ranks`: how many strides the kernel takes of each tensor; those of an absent one are zeros, and those of the
        dimensions that a result has not where one program leaves it whole.
        A kernel is compiled for which tensors are there.
        `tiles`: tiles of time, for a kernel that has a program for each.
        """
        programs = (split.rows if split else self.batch) * blocks.per_sequence * (1 if tiles is None else tiles)
        if programs == 0:
            return
        arguments: list[Any] = []
        for tensor, rank in zip(tensors, ranks, strict=True):
            strides = () if tensor is None else tensor.stride()
            if len(strides) == rank:
                arguments += (tensor, *strides)
            else:
                arguments += (tensor, *(0,) * (rank - len(strides)), *strides)
        arguments += scratch
        times = split.times if split else {"T": self.time}
        if tiles is not None:
            times = {**times, "batch": self.batch}
        constants = self._constants(kernel, blocks, flags)
        with self.on_device():
            if self._rehearsing:
                kernel.warmup(*arguments, **times, **constants, grid=(1,))
                return
            begun = _pending.pop(id(kernel), None)
            if begun is not None:
                begun.result()
            kernel[(programs,)](*arguments, **times, **constants)

    def _constants(self, kernel: Any, blocks: Blocks, flags: Mapping[str, Any]) -> dict[str, Any]:
        """What a kernel is compiled for: sizes and blocks, flags, options."""
        key = (id(kernel), id(blocks), *flags.values())
        found = self._signature.constants.get(key)
        if found is None:
            taken = {*kernel.arg_names}  # a kernel of some values of a step has some of its sizes
            sizes = {name: value for name, value in blocks.constants.items() if name in taken}
            constants = {**sizes, **flags, "acc": tl.float64 if self.real == torch.float64 else tl.float32}
            constants |= {"num_warps": blocks.num_warps, "num_stages": 1, "enable_fp_fusion": True}
            if blocks.registers is not None:
                constants["maxnreg"] = blocks.registers
            found = self._signature.constants[key] = blocks, constants
        return found[1]

    def on_device(self) -> AbstractContextManager[Any]:
        """Within, the tensors' device is the current one."""
        like = self._like
        if not like.is_cuda or like.get_device() == torch.cuda.current_device():
            return _NO_CHANGE
        return torch.cuda.device(like.get_device())

    def ahead(
        self,
        tiling: Tiled,
        kernel: Any,
        backward: Backward,
        saved: Saved,
        groups: Groups,
        reverse: bool,
        final: bool = True,
        form: str = "recurrent",
    ) -> None:
        """Begins to compile a backward kernel in a thread, while this one goes on to compile the forward kernel.

        `groups` are inputs, params and states; `final`: final states have gradients too.
        Raises ArgumentError if backward's tiles cannot fit on the chip.
        """
        there = tuple([state is not None for state in groups[2]])
        key = (id(kernel), id(tiling.blocks(self)), groups[0][0].dtype, reverse, there, final)
        if key in _begun or not self._like.is_cuda or self.batch == 0:
            return
        _begun.add(key)

        def meta(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
            return torch.empty(tuple(shape), dtype=dtype, device="meta")

        shapes = saved(form, self.batch, self.time, self.sizes)
        kept = tuple(meta(shape, self.dtype(kind)) for shape, kind in shapes)
        spec, results = self._spec, self._signature.results
        leads = [(self.batch, self.time)] * len(spec.outputs) + [(self.batch,)] * len(spec.states)
        given = [
            (i, meta((*lead, *self.dims(decl.axes)), dtype))
            for i, (lead, decl, dtype) in enumerate(zip(leads, (*spec.outputs, *spec.states), results, strict=True))
            if differentiable(decl)
        ]
        grads = (
            tuple(g for i, g in given if i < len(spec.outputs)),
            tuple(g if final else None for i, g in given if i >= len(spec.outputs)),
        )
        _pending[id(kernel)] = _pool().submit(_rehearse, lambda: backward(*groups, kept, *grads, reverse))


# --- compiling ahead ---

Backward = Callable[..., object]
Groups = tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor | None, ...]]


class Tiled(Protocol):
    """What knows how a kernel is laid over programs."""

    def blocks(self, call: Sized) -> Blocks: ...


Saved = Callable[[str, int, int, Mapping[str, int]], Sequence[tuple[Sequence[int], str]]]

_begun: set[Any] = set()
_pending: dict[int, Future[None]] = {}
_here = threading.local()  # `rehearsing`: whether this thread only compiles what it would launch


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=4, thread_name_prefix="scanc-compile")


def _rehearse(run: Callable[[], object]) -> None:
    _here.rehearsing = True
    with suppress(Exception):  # the launch itself will say what is wrong
        run()


def halves(tensor: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """The real and the imaginary part of a complex tensor, as views; nothing of none."""
    if tensor is None:
        return None, None
    re, im = torch.view_as_real(tensor.resolve_conj()).unbind(-1)
    return re, im


def join(re: Tensor | None, im: Tensor | None) -> Tensor | None:
    """A complex tensor of its halves; nothing of none."""
    return None if re is None or im is None else torch.complex(re, im)


def total(partial: Any, rank: int) -> Any:
    """The sum of partial results over all but the last `rank` dimensions, always in the same order; nothing of none."""
    if partial is None or (leading := partial.dim() - rank) == 0:
        return partial
    shape = partial.shape
    for at in range(leading):
        if shape[at] != 1:
            return partial.sum(dim=tuple(range(leading)))
    return partial.view(shape[leading:])


# --- sums of several results ---

_ALIGNED = 16  # elements, so that a kernel is compiled for no less of pointers and strides than alone


class _View(NamedTuple):
    """Where a result lies: in which memory, and the sizes, strides and offset there, of its parts and of the sum."""

    memory: int
    parts: tuple[tuple[int, ...], tuple[int, ...], int]
    total: tuple[tuple[int, ...], tuple[int, ...], int]


class _Laid(NamedTuple):
    """The memory for some results: results of as many partial sums lie side by side."""

    memory: list[tuple[int, int]]
    views: list[_View]


def _lay_sums(results: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> _Laid:
    counts = list(dict.fromkeys(prod(lead) for lead, _ in results))
    widths = [0] * len(counts)
    offsets = []
    for lead, shape in results:
        which = counts.index(prod(lead))
        offsets.append(widths[which])
        widths[which] += -(-prod(shape) // _ALIGNED) * _ALIGNED
    views = []
    for (lead, shape), offset in zip(results, offsets, strict=True):
        which = counts.index(prod(lead))
        inner, outer = _strides(shape), tuple(stride * widths[which] for stride in _strides(lead))
        views.append(_View(which, ((*lead, *shape), (*outer, *inner), offset), (shape, inner, offset)))
    return _Laid(list(zip(counts, widths, strict=True)), views)


def _strides(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of a contiguous tensor."""
    return tuple(prod(shape[i + 1 :]) for i in range(len(shape)))


class Sums:
    """The partial sums of several results, in `parts`, and their totals."""

    def __init__(self, memory: list[Tensor], laid: _Laid) -> None:
        self._memory = memory
        self._views = laid.views
        self.parts = [_view(memory[view.memory], *view.parts) for view in laid.views]

    def totals(self) -> list[Tensor]:
        """The sums, always in the same order; they are parts of one memory."""
        rows = [memory.sum(0) if memory.shape[0] != 1 else memory for memory in self._memory]
        return [_view(rows[view.memory], *view.total) for view in self._views]


def _view(memory: Tensor, shape: Sequence[int], strides: Sequence[int], offset: int) -> Tensor:
    """A part of some memory; `offset`: from where that begins."""
    return memory.as_strided(shape, strides, memory.storage_offset() + offset)
