"""Functions of matrices that params alone decide: computed by torch ahead of the recurrence, once per call.

The functions of a generated module then take other params than its callers give: `prepare` makes the former of the
latter, and `pull_back` takes gradients the other way.  Both run in float64 where the device has it: what they make is
multiplied with itself at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from scanc_runtime.ahead import here
from scanc_runtime.dtypes import value_dtype
from scanc_runtime.register import BackwardFn, ForwardFn
from scanc_runtime.shapes import Primals, Shapes, Tensors
from scanc_runtime.spec import Spec, TensorSpec


@dataclass(frozen=True)
class Prepared:
    """`outer` is the spec that callers see, `inner` that of the functions; they differ in their params alone.

    `prepare(*params of outer) -> params of inner`; `pull_back(*params of outer, *their gradients in inner) -> gradients
    of the params of outer`, of real and complex ones.
    """

    outer: Spec
    inner: Spec
    prepare: Callable[..., Tensors]
    pull_back: Callable[..., Tensors]

    def forward(self, functions: Mapping[str, ForwardFn]) -> dict[str, ForwardFn]:
        """The forward functions, for the params that callers give."""
        return {form: self._forward(function) for form, function in functions.items()}

    def backward(self, functions: Mapping[str, BackwardFn]) -> dict[str, BackwardFn]:
        """The backward functions, for the params that callers give."""
        return {form: self._backward(function) for form, function in functions.items()}

    def _forward(self, function: ForwardFn) -> ForwardFn:
        @torch.no_grad()
        def forward(inputs: Tensors, params: Tensors, states: Tensors, *how: Any, **named: Any) -> Any:
            compute = self._compute(inputs, params, states)
            return function(inputs, self._prepared(params, compute), states, *how, **named)

        return forward

    def _backward(self, function: BackwardFn) -> BackwardFn:
        @torch.no_grad()
        def backward(inputs: Tensors, params: Tensors, states: Tensors, *given: Any) -> Any:
            compute = self._compute(inputs, params, states)
            by_inputs, by_params, by_states = function(inputs, self._prepared(params, compute), states, *given)
            if here.rehearsal is not None:  # nothing is launched behind the kernels, and gradients have no memory
                return by_inputs, by_params, by_states
            wide = _wide(compute, params[0].device)
            gradients = [grad.to(torch.promote_types(grad.dtype, wide)) for grad in by_params if grad is not None]
            return by_inputs, self.pull_back(*_cast(self.outer.params, params, wide), *gradients), by_states

        return backward

    def _compute(self, inputs: Tensors, params: Tensors, states: Tensors) -> torch.dtype:
        return Shapes(self.outer).compute_dtype((*inputs, *params, *states))

    def _prepared(self, params: Tensors, compute: torch.dtype) -> Tensors:
        made = self.prepare(*_cast(self.outer.params, params, _wide(compute, params[0].device)))
        return _cast(self.inner.params, made, compute)


def _wide(compute: torch.dtype, device: torch.device) -> torch.dtype:
    return compute if device.type == "mps" else torch.float64


def _cast(decls: Sequence[TensorSpec], tensors: Primals, real: torch.dtype) -> Tensors:
    pairs = zip(tensors, decls, strict=True)
    return tuple([tensor.to(value_dtype(decl.kind, real)) for tensor, decl in pairs if tensor is not None])
