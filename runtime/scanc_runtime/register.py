"""The raw torch ops of one spec: `scanc::<name>_<digest>_forward` and `…_backward`.

They take lists of tensors, since a schema holds 64 arguments at most, and know nothing of autograd
(`autograd.py` wraps them).  Tensors are canonical, dtypes as the caller gave them.  Both return a list of
dense, contiguous tensors:

    forward([inputs…, params…, states…], form, reverse, save) -> outputs… final_states… saved…
    backward([inputs…, params…, states…], [saved…], [grad_outputs…, grad_final…], form, reverse)
        -> gradients of inputs… params… states…

What has no gradient (int and bool tensors) is left out of the gradients on both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scanc_runtime.ahead import here
from scanc_runtime.dtypes import value_dtype
from scanc_runtime.eager import without_records
from scanc_runtime.errors import ScanError
from scanc_runtime.shapes import Arity, Primals, Shapes, Tensors
from scanc_runtime.spec import Spec

ForwardFn = Callable[..., tuple[Tensors, Tensors, Tensors]]
BackwardFn = Callable[[Tensors, Tensors, Tensors, Tensors, Tensors, Tensors, bool], tuple[Primals, Primals, Primals]]
StepFn = Callable[..., tuple[Tensors, Tensors]]
OpFn = Callable[..., list[Tensor]]
SavedFn = Callable[[str, int, int, Mapping[str, int]], Sequence[tuple[Sequence[int], str]]]


@dataclass(frozen=True)
class Kernels:
    """The functions of a generated module."""

    step: StepFn
    forward: Mapping[str, ForwardFn]
    backward: Mapping[str, BackwardFn]
    saved: SavedFn


@dataclass(frozen=True)
class RawOps:
    """The registered ops, ready to be called, and the functions behind them for calls without the dispatcher."""

    forward: OpFn
    backward: OpFn
    plain_forward: OpFn
    plain_backward: OpFn


_FORWARD = "(Tensor[] primals, str form, bool reverse, bool save) -> Tensor[]"
_BACKWARD = "(Tensor[] primals, Tensor[] saved, Tensor[] cotangents, str form, bool reverse) -> Tensor[]"
_library = torch.library.Library("scanc", "FRAGMENT")  # type: ignore[no-untyped-call]
_registered: dict[str, tuple[Spec, Kernels]] = {}
_NO_CHANGE = nullcontext()
_functions: dict[str, tuple[OpFn, OpFn]] = {}


def register(spec: Spec, kernels: Kernels) -> RawOps:
    """Defines the two ops of a spec, once per name and digest; a module that is loaded again takes them over."""
    base = f"{spec.name}_{spec.digest}"
    if not base.isidentifier():
        raise ScanError(f"`{base}` cannot name a torch op")
    known = _registered.get(base)
    if known is not None and known[0] != spec:
        raise ScanError(f"two different specs claim the torch op scanc::{base}_forward")
    _registered[base] = (spec, kernels)
    if known is None:
        _functions[base] = _define(spec, base)
    ops = [getattr(torch.ops.scanc, f"{base}_{suffix}").default for suffix in ("forward", "backward")]
    return RawOps(*ops, *map(_without_dispatcher, _functions[base]))


def _define(spec: Spec, base: str) -> tuple[OpFn, OpFn]:
    """Defines the ops, and returns the functions behind them."""
    arity = Arity(spec)
    shapes = Shapes(spec)

    def kernels() -> Kernels:
        return _registered[base][1]

    def rehearsal(form: str, given: tuple[Tensors, Tensors, Tensors], reverse: bool, save: bool, final: bool) -> None:
        """What a forward call runs, and if it saves for one, the backward call after it."""
        outputs, states, saved = kernels().forward[form](*given, reverse, save, final)
        if save:
            results = [*outputs, *states, *(() if final else [None] * len(spec.states))]
            cotangents = arity.split_cotangents([results[i] for i in arity.cotangents])
            kernels().backward[form](*given, tuple(saved), *cotangents, reverse)

    def forward(primals: list[Tensor], form: str, reverse: bool, save: bool, final: bool = True) -> list[Tensor]:
        less = () if final else (False,)
        given = arity.split(primals)
        here.running = rehearsal, (form, given, reverse, save, final)
        try:
            with no_autocast(primals[0]):
                outputs, states, saved = kernels().forward[form](*given, reverse, save, *less)
        finally:
            here.running = None
        found = (*outputs, *states)
        results = _own(found, shapes.result_dtypes(primals)[: len(found)], primals)
        if save:
            results += saved
        return results

    def forward_fake(primals: list[Tensor], form: str, reverse: bool, save: bool) -> list[Tensor]:
        like = primals[0]
        results = [like.new_empty(shape, dtype=dtype) for shape, dtype in shapes.results(primals)]
        if save:
            compute = shapes.compute_dtype(primals)
            for shape, kind in kernels().saved(form, *shapes.sizes(primals)):
                results.append(like.new_empty(tuple(shape), dtype=value_dtype(kind, compute)))
        return results

    def backward(
        primals: list[Tensor], saved: list[Tensor], cotangents: list[Tensor], form: str, reverse: bool
    ) -> list[Tensor]:
        given = (*arity.split(primals), tuple(saved), *arity.split_cotangents(cotangents))
        here.running = kernels().backward[form], (*given, reverse)
        try:
            with no_autocast(primals[0]):
                grads = kernels().backward[form](*given, reverse)
        finally:
            here.running = None
        flat = [grad for group in grads for grad in group]
        return _own(flat, [None if primals[i] is None else primals[i].dtype for i in arity.grads], cotangents)

    def backward_fake(
        primals: list[Tensor], saved: list[Tensor], cotangents: list[Tensor], form: str, reverse: bool
    ) -> list[Tensor]:
        return [primals[i].new_empty(primals[i].shape) for i in arity.grads]

    _library.define(f"{base}_forward{_FORWARD}")  # type: ignore[no-untyped-call]
    _library.define(f"{base}_backward{_BACKWARD}")  # type: ignore[no-untyped-call]

    def backward_apart(*args: Any) -> list[Tensor]:
        return _apart(backward(*args))

    for suffix, real, fake in (("forward", forward, forward_fake), ("backward", backward_apart, backward_fake)):
        _library.impl(f"{base}_{suffix}", real, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
        torch.library.register_fake(f"scanc::{base}_{suffix}", fake, lib=_library)
        torch.library.register_vmap(f"scanc::{base}_{suffix}", _one_by_one(f"{base}_{suffix}"), lib=_library)
    return forward, backward


def _without_dispatcher(function: OpFn) -> OpFn:
    """The function behind an op, called as the dispatcher calls it."""

    def run(*args: Any) -> list[Tensor]:
        with without_records():
            return function(*args)

    return run


def _one_by_one(op: str) -> Callable[..., tuple[list[Tensor], list[int]]]:
    """The rule of `torch.func.vmap`: a call for each element. Gradients of params are sums over what a call sees."""

    def pick(arg: Any, dim: Any, i: int) -> Any:
        if isinstance(arg, list | tuple):
            return [pick(each, at, i) for each, at in zip(arg, dim, strict=True)]
        if dim is None:
            return arg
        return arg.select(dim, i) if arg.shape[dim] else arg.new_zeros(arg.movedim(dim, 0).shape[1:])

    def rule(info: Any, in_dims: Sequence[Any], *args: Any) -> tuple[list[Tensor], list[int]]:
        call, count = getattr(torch.ops.scanc, op), info.batch_size
        # Where there is none, a call for zeros tells the shapes.
        rows = [call(*(pick(a, d, i) for a, d in zip(args, in_dims, strict=True))) for i in range(max(1, count))]
        columns = [torch.stack(column)[:count] for column in zip(*rows, strict=True)]
        return columns, [0] * len(columns)

    return rule


def _apart(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors, none in the memory of another: so torch's ops return them."""
    seen: set[int] = set()
    found = []
    for tensor in tensors:
        at = tensor.untyped_storage().data_ptr()
        found.append(tensor.clone() if at in seen else tensor)
        seen.add(at)
    return found


def _own(tensors: Iterable[Any], dtypes: Sequence[torch.dtype | None], given: Sequence[Any]) -> list[Any]:
    """The tensors dense, of these dtypes, and none of them one that was given: torch's ops return what is theirs.

    None stays None.
    """
    taken = set(map(id, given))
    dense: list[Any] = []
    for tensor, dtype in zip(tensors, dtypes, strict=True):
        if tensor is None:
            dense.append(None)
        elif id(tensor) in taken:
            dense.append(tensor.clone(memory_format=torch.contiguous_format).to(dtype))
        elif tensor.dtype == dtype and tensor.is_contiguous():
            dense.append(tensor)
        else:
            dense.append(tensor.to(dtype).contiguous())
    return dense


def no_autocast(like: Tensor) -> AbstractContextManager[Any]:
    """States and their arithmetic are fp32 or wider, whatever autocast is on around the call."""
    if not torch._C._is_any_autocast_enabled():
        return _NO_CHANGE
    kind = like.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else _NO_CHANGE
