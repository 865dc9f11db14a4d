"""Do these tensors fit the spec?  Sizes are solved, dtypes chosen, and everything wrong is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scanc_runtime.binding import public_name, where
from scanc_runtime.dtypes import ADMITTED, admitted, compute_dtype, dtype_name, promoted_dtype
from scanc_runtime.errors import ArgumentError
from scanc_runtime.spec import Spec, StateSpec, TensorSpec


@dataclass(frozen=True)
class Plan:
    """What is known of a call before it runs: sizes of batch, time and axes, dtypes, device."""

    batch: int
    time: int
    sizes: dict[str, int]
    compute: torch.dtype  # of arithmetic and states, the real one
    promoted: torch.dtype  # of outputs, the real one
    device: torch.device


@dataclass(frozen=True)
class _Slot:
    """A tensor that a caller passes, and what its leading dimensions are."""

    decl: TensorSpec
    lead: tuple[str, ...]

    @property
    def shape(self) -> str:
        return "[" + ", ".join([*self.lead, *("*".join(group) for group in self.decl.dims)]) + "]"


class Checker:
    """Checks calls of one spec: over a sequence ([B, T, *dims]) or a single step ([B, *dims])."""

    def __init__(self, spec: Spec) -> None:
        self._name = spec.name
        self._spec = spec
        self._inputs = len(spec.inputs)
        self._root = {axis.name: axis.name for axis in spec.axes}
        for axis in spec.axes:
            if axis.like is not None:
                self._root[axis.name] = self._root[axis.like]
        self._fixed = {self._root[axis.name]: axis.size for axis in spec.axes if axis.size is not None}
        params = [_Slot(decl, ()) for decl in spec.params]
        self._sequence = [_Slot(decl, ("B", "T")) for decl in spec.inputs] + params
        self._single = [_Slot(decl, ("B",)) for decl in spec.inputs] + params
        self._states = {
            public_name(decl): _Slot(decl, ("B", str(decl.public[2])) if decl.public else ("B",))
            for decl in reversed(spec.states)  # of a buffer's slots, the first speaks for it
        }

    def check(self, tensors: Sequence[Tensor], states: Mapping[str, Tensor], single: bool = False) -> Plan:
        """The plan of a call, or an `ArgumentError`. `single`: inputs have no time dimension."""
        slots = self._single if single else self._sequence
        pairs = list(zip(slots, tensors, strict=True))
        pairs += [(self._states[name], tensor) for name, tensor in states.items()]
        for slot, tensor in pairs:
            self._check_tensor(slot, tensor)
        self._check_devices(pairs)
        dtypes = [tensor.dtype for tensor in tensors]
        compute = compute_dtype(dtypes)
        for name, tensor in states.items():
            self._check_width(self._states[name], tensor, compute)
        batch = self._leading(pairs, "B", "batch size")
        time = 1 if single else self._leading(pairs, "T", "number of time steps")
        roots = _Sizes(self._name, self._root, self._fixed).solve(pairs)
        sizes = {axis: roots[root] for axis, root in self._root.items() if root in roots}
        self._check_known(sizes)
        promoted = promoted_dtype(self._spec.inputs, dtypes[: self._inputs], compute)
        return Plan(batch, time, sizes, compute, promoted, tensors[0].device)

    def _check_tensor(self, slot: _Slot, tensor: Any) -> None:
        decl = slot.decl
        if not isinstance(tensor, Tensor):
            raise ArgumentError(
                f"{self._name}: `{_label(decl)}` is not a tensor",
                declared=where(decl),
                expected=f"a tensor {slot.shape}",
                got=f"{type(tensor).__name__}",
            )
        if tensor.is_nested or tensor.layout is not torch.strided:
            raise ArgumentError(
                f"{self._name}: `{_label(decl)}` is not dense",
                declared=where(decl),
                expected=f"a dense tensor {slot.shape}",
                got="a nested tensor" if tensor.is_nested else f"a tensor of layout {tensor.layout}",
                hint="tensor.to_padded_tensor(0.0)" if tensor.is_nested else "tensor.to_dense()",
            )
        if tensor.dim() != len(slot.lead) + len(decl.dims):
            raise ArgumentError(
                f"{self._name}: `{_label(decl)}` has {tensor.dim()} dimensions, not {len(slot.lead) + len(decl.dims)}",
                declared=where(decl),
                expected=f"shape {slot.shape}",
                got=f"shape {_shape(tensor)}",
                hint="inputs of `step` have no time dimension"
                if decl in self._spec.inputs and slot.lead == ("B",)
                else "",
            )
        if not admitted(decl, tensor.dtype):
            raise ArgumentError(
                f"{self._name}: `{_label(decl)}` has dtype {dtype_name(tensor.dtype)}",
                declared=where(decl),
                expected=_admitted_dtypes(decl),
                got=dtype_name(tensor.dtype),
            )
        if isinstance(decl, StateSpec) and decl.public and tensor.shape[1] != decl.public[2]:
            raise ArgumentError(
                f"{self._name}: the buffer `{_label(decl)}` holds {decl.public[2]} past values, oldest first",
                declared=where(decl),
                expected=f"shape {slot.shape}",
                got=f"shape {_shape(tensor)}",
            )

    def _check_devices(self, pairs: Sequence[tuple[_Slot, Tensor]]) -> None:
        if not pairs:
            return
        first, device = pairs[0][0].decl, pairs[0][1].device
        for slot, tensor in pairs:
            if tensor.device != device:
                raise ArgumentError(
                    f"{self._name}: `{_label(slot.decl)}` is on {tensor.device}, `{_label(first)}` on {device}",
                    declared=where(slot.decl),
                    expected="all tensors on one device",
                    got=f"{tensor.device} and {device}",
                )

    def _check_width(self, slot: _Slot, tensor: Tensor, compute: torch.dtype) -> None:
        if compute == torch.float32 and tensor.dtype in (torch.float64, torch.complex128):
            raise ArgumentError(
                f"{self._name}: the state `{_label(slot.decl)}` is wider than the arithmetic of this call",
                declared=where(slot.decl),
                expected="float32 or narrower, as no input or param is float64"
                if slot.decl.kind == "real"
                else "complex64, as no input or param is float64",
                got=dtype_name(tensor.dtype),
            )

    def _leading(self, pairs: Sequence[tuple[_Slot, Tensor]], axis: str, meaning: str) -> int:
        known: tuple[_Slot, Tensor] | None = None
        for slot, tensor in pairs:
            if axis not in slot.lead:
                continue
            if known is None:
                known = (slot, tensor)
                continue
            at, at_known = slot.lead.index(axis), known[0].lead.index(axis)
            if tensor.shape[at] != known[1].shape[at_known]:
                raise ArgumentError(
                    f"{self._name}: `{_label(known[0].decl)}` and `{_label(slot.decl)}` differ in the {meaning} {axis}",
                    declared=where(slot.decl),
                    expected=f"{axis} = {known[1].shape[at_known]}, from `{_label(known[0].decl)}` "
                    f"{known[0].shape} = {_shape(known[1])}",
                    got=f"{axis} = {tensor.shape[at]} in {slot.shape} = {_shape(tensor)}",
                )
        if known is None:
            raise ArgumentError(f"{self._name}: no tensor tells the {meaning} {axis}")
        return known[1].shape[known[0].lead.index(axis)]

    def _check_known(self, sizes: Mapping[str, int]) -> None:
        for axis in self._spec.axes:
            if axis.name in sizes:
                continue
            decls = self._spec.inputs + self._spec.params + self._spec.states
            holders = [decl for decl in decls if any(axis.name in group for group in decl.dims)]
            if holders:
                raise ArgumentError(
                    f"{self._name}: the size of axis {axis.name} follows from no tensor of this call",
                    declared="; ".join(where(decl) for decl in holders),
                    hint=f"pass an initial state that has axis {axis.name}, or fix it in the spec: "
                    f"`axes {axis.name} = …`",
                )


class _Sizes:
    """Solves for the sizes of axes: those that stand alone first, merged ones by division."""

    def __init__(self, name: str, root: Mapping[str, str], fixed: Mapping[str, int]) -> None:
        self._name = name
        self._root = root
        self._sizes: dict[str, int] = dict(fixed)
        self._source: dict[str, tuple[_Slot, Tensor]] = {}  # of a size that the spec does not fix

    def solve(self, pairs: Sequence[tuple[_Slot, Tensor]]) -> dict[str, int]:
        merged: list[tuple[_Slot, Tensor, int]] = []
        for slot, tensor in pairs:
            for at, group in enumerate(slot.decl.dims, start=len(slot.lead)):
                if len(group) == 1:
                    self._single(slot, tensor, at, group[0])
                else:
                    merged.append((slot, tensor, at))
        while merged:
            rest = [entry for entry in merged if not self._divide(*entry)]
            if len(rest) == len(merged):
                break
            merged = rest
        return self._sizes

    def _single(self, slot: _Slot, tensor: Tensor, at: int, axis: str) -> None:
        size, root = tensor.shape[at], self._root[axis]
        if root not in self._sizes:
            self._sizes[root] = size
            self._source[root] = (slot, tensor)
        elif self._sizes[root] != size:
            raise ArgumentError(
                f"{self._name}: `{_label(slot.decl)}` has the wrong size along axis {axis}",
                declared=where(slot.decl),
                expected=f"{axis} = {self._sizes[root]}, from {self._told_by(root)}",
                got=f"{axis} = {size} in {slot.shape} = {_shape(tensor)}",
                hint="" if axis == root else f"{axis} has the size of {root}",
            )

    def _divide(self, slot: _Slot, tensor: Tensor, at: int) -> bool:
        """Whether the merged dimension could be settled."""
        group = slot.decl.dims[at - len(slot.lead)]
        size = tensor.shape[at]
        unknown = [axis for axis in group if self._root[axis] not in self._sizes]
        if len(unknown) > 1:
            return False
        known = 1
        for axis in group:
            if axis not in unknown:
                known = known * self._sizes[self._root[axis]]
        divides = known == size if not unknown else known != 0 and size % known == 0
        if not divides:
            parts = [axis for axis in group if axis not in unknown]
            raise ArgumentError(
                f"{self._name}: `{_label(slot.decl)}` has the wrong size along the merged axes {'*'.join(group)}",
                declared=where(slot.decl),
                expected=("a multiple of " if unknown else "")
                + " * ".join(f"{axis} = {self._sizes[self._root[axis]]}" for axis in parts)
                + ", from "
                + ", ".join(dict.fromkeys(self._told_by(self._root[axis]) for axis in parts)),
                got=f"{'*'.join(group)} = {size} in {slot.shape} = {_shape(tensor)}",
            )
        if unknown:
            root = self._root[unknown[0]]
            self._sizes[root] = size // known
            self._source[root] = (slot, tensor)
        return True

    def _told_by(self, root: str) -> str:
        if root not in self._source:
            return "the spec"
        slot, tensor = self._source[root]
        return f"`{_label(slot.decl)}` {slot.shape} = {_shape(tensor)}"


def _label(decl: TensorSpec) -> str:
    return public_name(decl)


def _shape(tensor: Tensor) -> str:
    return "[" + ", ".join(str(size) for size in tensor.shape) + "]"


def _admitted_dtypes(decl: TensorSpec) -> str:
    if decl.pin is None:
        return " or ".join(dtype_name(dtype) for dtype in ADMITTED[decl.kind])
    return f"{decl.pin} or wider, as the spec pins it"
