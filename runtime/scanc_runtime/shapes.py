"""The flat argument lists of a spec: which tensor stands where, and the shapes and dtypes that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from scanc_runtime.dtypes import compute_dtype, differentiable, promoted_dtype, value_dtype
from scanc_runtime.spec import Spec, TensorSpec

Tensors = tuple[Tensor, ...]
Primals = Sequence[Tensor | None]
"""Inputs, params, states; a state may be absent, and begins as declared."""


class Arity:
    """Where inputs, params, states and cotangents stand in the flat argument lists of a spec."""

    def __init__(self, spec: Spec) -> None:
        self.primals: tuple[TensorSpec, ...] = spec.inputs + spec.params + spec.states
        self.results: tuple[TensorSpec, ...] = spec.outputs + spec.states
        self.inputs = len(spec.inputs)
        self.params = len(spec.params)
        self.outputs = len(spec.outputs)
        self.cotangents = tuple(i for i, decl in enumerate(self.results) if differentiable(decl))
        self.grads = tuple(i for i, decl in enumerate(self.primals) if differentiable(decl))
        self.grad_outputs = sum(differentiable(decl) for decl in spec.outputs)

    def split(self, primals: Sequence[Any]) -> tuple[Tensors, Tensors, Tensors]:
        """Primals as inputs, params, states."""
        behind = self.inputs + self.params
        primals = tuple(primals)
        return primals[: self.inputs], primals[self.inputs : behind], primals[behind:]

    def split_cotangents(self, cotangents: Sequence[Any]) -> tuple[Tensors, Tensors]:
        return tuple(cotangents[: self.grad_outputs]), tuple(cotangents[self.grad_outputs :])


class Shapes:
    """Sizes and dtypes read off canonical primals (inputs, params, states)."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._inputs = len(spec.inputs)
        self._tensors = self._inputs + len(spec.params)
        self._known: dict[tuple[torch.dtype, ...], list[torch.dtype]] = {}
        self._places: dict[str, list[tuple[int, int]]] = {}
        for i, decl in enumerate(spec.inputs + spec.params + spec.states):
            lead = 2 if i < self._inputs else 0 if i < self._tensors else 1
            for at, axis in enumerate(decl.axes, start=lead):
                self._places.setdefault(axis, []).append((i, at))
        self._fixed = {axis.name: axis.size for axis in spec.axes if axis.size is not None}
        self._like = {axis.name: axis.like for axis in spec.axes if axis.like is not None}

    def sizes(self, primals: Primals) -> tuple[int, int, dict[str, int]]:
        """B, T and the size of every axis."""
        sizes: dict[str, int] = dict(self._fixed)
        for axis, places in self._places.items():
            for i, at in places:
                tensor = primals[i]
                if tensor is not None:
                    sizes[axis] = tensor.shape[at]
                    break
        for one, other in [*self._like.items(), *[(like, axis) for axis, like in self._like.items()]]:
            if one not in sizes and other in sizes:
                sizes[one] = sizes[other]
        first = _there(primals[0])
        return first.shape[0], first.shape[1], sizes

    def begun(self, primals: Primals) -> Tensors:
        """The primals, with the states that are absent as they are declared to begin."""
        sizes: dict[str, int] = {}
        first, full = _there(primals[0]), []
        for i, tensor in enumerate(primals):
            if tensor is None:
                decl = self._spec.states[i - self._tensors]
                sizes = sizes or self.sizes(primals)[2]
                shape = (first.shape[0], *[sizes[axis] for axis in decl.axes])
                assert not isinstance(decl.init, str)
                tensor = first.new_full(shape, decl.init, dtype=value_dtype(decl.kind, self.compute_dtype(primals)))
            full.append(tensor)
        return tuple(full)

    def compute_dtype(self, primals: Primals) -> torch.dtype:
        """The real dtype of arithmetic and states."""
        return compute_dtype(_there(tensor).dtype for tensor in primals[: self._tensors])

    def result_dtypes(self, primals: Primals) -> list[torch.dtype]:
        """Of outputs, then of final states."""
        dtypes = tuple([_there(tensor).dtype for tensor in primals[: self._tensors]])
        known = self._known.get(dtypes)
        if known is None:
            compute = compute_dtype(dtypes)
            promoted = promoted_dtype(self._spec.inputs, dtypes[: self._inputs], compute)
            outputs = [value_dtype(decl.kind, promoted) for decl in self._spec.outputs]
            known = outputs + [value_dtype(decl.kind, compute) for decl in self._spec.states]
            self._known[dtypes] = known
        return known

    def results(self, primals: Primals) -> list[tuple[tuple[int, ...], torch.dtype]]:
        """Shape and dtype of every output, then of every final state."""
        batch, time, sizes = self.sizes(primals)
        shapes = [(batch, time, *(sizes[axis] for axis in decl.axes)) for decl in self._spec.outputs]
        shapes += [(batch, *(sizes[axis] for axis in decl.axes)) for decl in self._spec.states]
        return list(zip(shapes, self.result_dtypes(primals), strict=True))


def _there(tensor: Tensor | None) -> Tensor:
    """An input or a param, which are never absent."""
    assert tensor is not None
    return tensor
