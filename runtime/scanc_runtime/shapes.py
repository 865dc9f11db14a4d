"""The flat argument lists of a spec: which tensor stands where, and the shapes and dtypes that follow from them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scanc_runtime.dtypes import compute_dtype, differentiable, promoted_dtype, value_dtype
from scanc_runtime.spec import Spec, TensorSpec

Tensors = tuple[Tensor, ...]


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

    def split(self, primals: Sequence[Tensor]) -> tuple[Tensors, Tensors, Tensors]:
        """Primals as inputs, params, states."""
        behind = self.inputs + self.params
        primals = tuple(primals)
        return primals[: self.inputs], primals[self.inputs : behind], primals[behind:]

    def split_cotangents(self, cotangents: Sequence[Tensor]) -> tuple[Tensors, Tensors]:
        return tuple(cotangents[: self.grad_outputs]), tuple(cotangents[self.grad_outputs :])


class Shapes:
    """Sizes and dtypes read off canonical primals (inputs, params, states)."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._inputs = len(spec.inputs)
        self._tensors = self._inputs + len(spec.params)
        self._known: dict[tuple[torch.dtype, ...], list[torch.dtype]] = {}
        self._places: dict[str, tuple[int, int]] = {}
        for i, decl in enumerate(spec.inputs + spec.params + spec.states):
            lead = 2 if i < self._inputs else 0 if i < self._tensors else 1
            for at, axis in enumerate(decl.axes, start=lead):
                self._places.setdefault(axis, (i, at))
        self._fixed = {axis.name: axis.size for axis in spec.axes if axis.size is not None}
        self._like = {axis.name: axis.like for axis in spec.axes if axis.like is not None}

    def sizes(self, primals: Sequence[Tensor]) -> tuple[int, int, dict[str, int]]:
        """B, T and the size of every axis."""
        sizes: dict[str, int] = dict(self._fixed)
        sizes.update((axis, primals[i].shape[at]) for axis, (i, at) in self._places.items())
        for axis, like in self._like.items():
            if axis not in sizes and like in sizes:
                sizes[axis] = sizes[like]
        return primals[0].shape[0], primals[0].shape[1], sizes

    def compute_dtype(self, primals: Sequence[Tensor]) -> torch.dtype:
        """The real dtype of arithmetic and states."""
        return compute_dtype(tensor.dtype for tensor in primals[: self._tensors])

    def result_dtypes(self, primals: Sequence[Tensor]) -> list[torch.dtype]:
        """Of outputs, then of final states."""
        dtypes = tuple([tensor.dtype for tensor in primals[: self._tensors]])
        known = self._known.get(dtypes)
        if known is None:
            compute = compute_dtype(dtypes)
            promoted = promoted_dtype(self._spec.inputs, dtypes[: self._inputs], compute)
            outputs = [value_dtype(decl.kind, promoted) for decl in self._spec.outputs]
            known = outputs + [value_dtype(decl.kind, compute) for decl in self._spec.states]
            self._known[dtypes] = known
        return known

    def results(self, primals: Sequence[Tensor]) -> list[tuple[tuple[int, ...], torch.dtype]]:
        """Shape and dtype of every output, then of every final state."""
        batch, time, sizes = self.sizes(primals)
        shapes = [(batch, time, *(sizes[axis] for axis in decl.axes)) for decl in self._spec.outputs]
        shapes += [(batch, *(sizes[axis] for axis in decl.axes)) for decl in self._spec.states]
        return list(zip(shapes, self.result_dtypes(primals), strict=True))
