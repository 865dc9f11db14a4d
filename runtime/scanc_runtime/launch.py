"""Launching generated Triton kernels: memory, arguments, chunks of time, sums of partial results."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from operator import attrgetter
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor
from triton.runtime.jit import JITFunction

from scanc_runtime import ahead
from scanc_runtime.auto import multiprocessors
from scanc_runtime.dtypes import value_dtype
from scanc_runtime.shapes import Shapes
from scanc_runtime.spec import Spec
from scanc_runtime.sums import Laid, Sums, lay_sums
from scanc_runtime.tiling import Blocks, forced_chunks
from scanc_runtime.triton_math import carry_kernel

_SHORTEST = 128  # steps of a chunk, at least
_LONG = 4096  # steps from which splitting the time gains more than two more launches cost
_MOST_CALLS = 256  # of different sizes, of which a spec remembers what they are
_MOST_KINDS = 4096  # of launches, of which a spec remembers what they are compiled for
_MOST_READY = 64  # of them with other strides or another time, of which a kind remembers how Triton launches it
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
_POINTER = 16  # bytes; Triton compiles a kernel for whether a pointer is a multiple of so many
_DIRECT = torch.version.hip is None
"""Whether what Triton compiles a kernel for follows from strides, dtypes and alignment; AMD's backend asks for more."""


class Ready(NamedTuple):
    """What Triton compiled, over a grid: all its arguments but those in some places, where tensors go."""

    launcher: Callable[..., None]
    arguments: list[Any]
    places: list[int]


@dataclass(frozen=True)
class Kind:
    """What all launches of a kernel with the same blocks and flags have in common.

    `constants`: what the kernel is compiled for.  `ready`: how it is launched, by all that Triton would look at first.
    """

    kernel: Any
    blocks: Blocks
    constants: dict[str, Any]
    ready: dict[Any, Ready] = field(default_factory=dict)


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
    sums: dict[tuple[Any, ...], Laid] = field(default_factory=dict)


_SHAPE_AND_DTYPE = attrgetter("shape", "dtype")


class _Known:
    """The signatures of a spec's latest calls, and the kinds of their launches."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._shapes = Shapes(spec)
        self._inputs = len(spec.inputs)
        self._signatures: dict[Any, Signature] = {}
        self.kinds: dict[tuple[Any, ...], Kind] = {}  # by kernel and blocks as they are, real dtype, flags

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
        self._kinds = known.kinds
        self._signature = signature = known.signature(primals)
        self.batch, self.time, self.sizes = signature.batch, signature.time, signature.sizes
        self.real, self.width = signature.real, signature.width
        self._spec = spec
        self._like: Tensor = primals[0]
        self._poisoned = os.environ.get("SCANC_POISON") == "1"
        self._rehearsal = ahead.here.rehearsal

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
        if found.numel() == 0:
            return found
        size = found.numel() // split.rows
        flat = None if start is None else start.reshape(self.batch, -1).contiguous()
        stride = 0 if flat is None else flat.stride(0)
        grid = (self.batch, -(-size // _CARRIED))
        constants = {"begin": begin, "behind": behind, "block": _CARRIED, "group": _GROUP, "num_warps": 1}
        self.launch(carry_kernel, grid, flat, stride, ends, products, found, size, split.chunks, **constants)
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
        if self._rehearsal is not None:
            return torch.empty(tuple(shape), dtype=dtype, device="meta")
        tensor = self._like.new_empty(shape, dtype=dtype)
        if self._poisoned and dtype.is_floating_point | dtype.is_complex:
            tensor.fill_(float("nan"))
        return tensor

    def sums(self, *results: tuple[tuple[int, ...], tuple[int, ...]]) -> Sums:
        """One memory for the partial sums of several results: of each the leading dimensions and the others."""
        laid = self._signature.sums.get(results)
        if laid is None:
            laid = self._signature.sums[results] = lay_sums(results)
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
        scratch: Sequence[Any] = (),
        split: Split | None = None,
        tiles: int | None = None,
        **flags: Any,
    ) -> None:
        """Launches `kernel` with the pointer and the strides of each tensor, and scratch: bare pointers, descriptors.

        `ranks`: how many strides the kernel takes of each tensor; those of an absent one are zeros, and those of the
        dimensions that a result has not where one program leaves it whole.
        A kernel is compiled for which tensors are there.
        `tiles`: tiles of time, for a kernel that has a program for each.
        """
        programs = (split.rows if split else self.batch) * blocks.per_sequence * (1 if tiles is None else tiles)
        if programs == 0:
            return
        times = split.times if split else {"T": self.time}
        if tiles is not None:
            times = {**times, "batch": self.batch}
        key = (
            *(programs, self._like.get_device(), *times.values()),
            *[None if x is None else (x.stride(), x.dtype, x.data_ptr() % _POINTER) for x in tensors],
            *[x.data_ptr() % _POINTER if isinstance(x, Tensor) else x and x.base.dtype for x in scratch],
        )
        kind = self._kinds.get((id(kernel), id(blocks), self.real, *flags.values()))
        if kind is None:
            kind = self._learn(kernel, blocks, flags)
        ready = kind.ready.get(key)
        if ready is not None:
            arguments = ready.arguments.copy()
            for place, tensor in zip(ready.places, (*tensors, *scratch), strict=True):
                arguments[place] = tensor
            with self.on_device():
                ready.launcher(*arguments)
            return
        arguments, places = [], []
        for tensor, rank in zip(tensors, ranks, strict=True):
            strides = () if tensor is None else tensor.stride()
            places.append(len(arguments))
            arguments += (tensor, *(0,) * (rank - len(strides)), *strides)
        places += range(len(arguments), len(arguments) + len(scratch))
        arguments += scratch
        named = {**times, **kind.constants}
        compiled = self.launch(kernel, (programs,), *arguments, **named)
        if _DIRECT and isinstance(kernel, JITFunction) and compiled is not None:
            for place in places:
                arguments[place] = None
            arguments += [named[name] for name in kernel.arg_names[len(arguments) :]]
            if len(kind.ready) >= _MOST_READY:
                kind.ready.clear()
            with self.on_device():
                kind.ready[key] = Ready(compiled[programs, 1, 1], arguments, places)

    def launch(self, kernel: Any, grid: tuple[int, ...], *arguments: Any, **named: Any) -> Any:
        """Launches a kernel by Triton's own means, or notes that it would be; returns what Triton compiled."""
        if self._rehearsal is not None:
            self._rehearsal.append(ahead.Launch(kernel, arguments, named, self.on_device))
            return None
        if ahead.pending:
            ahead.await_kernel(kernel)
        with self.on_device():
            return kernel[grid](*arguments, **named)

    def _learn(self, kernel: Any, blocks: Blocks, flags: Mapping[str, Any]) -> Kind:
        """A kind of launch that was not met before; all that is launched beside it begins to be compiled."""
        taken = {*kernel.arg_names}  # a kernel of some values of a step has some of its sizes
        sizes = {name: value for name, value in blocks.constants.items() if name in taken}
        constants = {**sizes, **flags, "acc": tl.float64 if self.real == torch.float64 else tl.float32}
        constants |= {"num_warps": blocks.num_warps, "num_stages": 1, "enable_fp_fusion": True}
        if blocks.registers is not None:
            constants["maxnreg"] = blocks.registers
        if len(self._kinds) >= _MOST_KINDS:
            self._kinds.clear()
        found = self._kinds[id(kernel), id(blocks), self.real, *flags.values()] = Kind(kernel, blocks, constants)
        if isinstance(kernel, JITFunction):
            ahead.rehearse()
        return found

    def on_device(self) -> AbstractContextManager[Any]:
        """Within, the tensors' device is the current one."""
        like = self._like
        if not like.is_cuda or like.get_device() == torch.cuda.current_device():
            return _NO_CHANGE
        return torch.cuda.device(like.get_device())


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
