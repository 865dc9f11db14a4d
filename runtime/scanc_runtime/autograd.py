"""Gradients of any order around the raw ops.

`Forward` is the raw forward op, its backward is `Backward`, which is the raw backward op; the backward
of that (double backward and beyond) differentiates a plain loop over the spec's `step`.  Both
functions have `setup_context`, which is what `torch.func` asks for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from scanc_runtime.dtypes import value_dtype
from scanc_runtime.eager import is_plain
from scanc_runtime.register import RawOps, StepFn, no_autocast
from scanc_runtime.shapes import Arity, Primals, Shapes
from scanc_runtime.spec import Spec

Apply = Callable[..., Sequence[Tensor]]


def differentiable_op(spec: Spec, raw: RawOps, step: StepFn, absent: bool) -> tuple[Apply, Apply]:
    """`apply(form, reverse, *primals)` -> outputs and final states (then what was saved), differentiable.

    And `apply(form, reverse, final, *primals)` for plain tensors, as `eager.is_plain` says, around the dispatcher:
    without `final` it returns outputs alone.  Where `absent`, states and gradients of final states may be none there.
    """
    arity = Arity(spec)
    # Dynamo follows closures over ints, tuples and ops, not over objects.
    count, results, outputs = len(arity.primals), len(arity.results), arity.outputs
    grads_at, cotangents_at = arity.grads, arity.cotangents
    plain_at = tuple(i for i in range(results) if i not in cotangents_at)
    forward_op, backward_op = raw.forward, raw.backward
    plain_forward, plain_backward = raw.plain_forward, raw.plain_backward
    double_backward = StepLoop(spec, step).double_backward
    shapes = Shapes(spec)
    shapes_of, begun = shapes.results, shapes.begun
    needed = arity.grad_outputs if absent else len(cotangents_at)  # cotangents that kernels cannot do without

    def fill(primals: Primals, cotangents: Sequence[Tensor | None]) -> list[Tensor]:
        """Zeros in place of cotangents that did not flow."""
        like, of_results = primals[0], shapes_of(primals)
        assert like is not None
        return [
            like.new_zeros(of_results[i][0], dtype=of_results[i][1]) if cotangent is None else cotangent
            for i, cotangent in zip(cotangents_at, cotangents, strict=False)
        ]

    class Backward(torch.autograd.Function):
        """(primals, saved, cotangents) -> gradients of the primals."""

        generate_vmap_rule = True

        @staticmethod
        def forward(form: str, reverse: bool, *tensors: Tensor) -> Any:
            saved = tensors[count : len(tensors) - len(cotangents_at)]
            cotangents = tensors[count + len(saved) :]
            return tuple(backward_op(tensors[:count], saved, cotangents, form, reverse))

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            _, ctx.reverse, *tensors = inputs
            ctx.total = len(tensors)
            ctx.save_for_backward(*tensors[:count], *tensors[count + (ctx.total - count - len(cotangents_at)) :])

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Any:
            primals, cotangents = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
            by_primal, by_cotangent = double_backward(primals, cotangents, grads, ctx.reverse)
            saved: list[Tensor | None] = [None] * (ctx.total - count - len(cotangents))
            return None, None, *by_primal, *saved, *by_cotangent

    class Forward(torch.autograd.Function):
        """primals -> outputs, final states, saved."""

        generate_vmap_rule = True

        @staticmethod
        def forward(form: str, reverse: bool, *primals: Tensor) -> Any:
            return tuple(forward_op(primals, form, reverse, True))

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            ctx.form, ctx.reverse, *primals = inputs
            saved = output[results:]
            ctx.mark_non_differentiable(*[output[i] for i in plain_at], *saved)
            ctx.save_for_backward(*primals, *saved)
            ctx.set_materialize_grads(False)  # zeros for what was saved would cost its memory once more

        @staticmethod
        def backward(ctx: Any, *grads: Tensor | None) -> Any:
            tensors = ctx.saved_tensors
            primals, saved = tensors[:count], tensors[count:]
            cotangents = [grads[i] for i in cotangents_at]
            if torch.compiler.is_compiling():  # a compiled graph has all cotangents and no double backward
                by_primal = backward_op(primals, saved, cotangents, ctx.form, ctx.reverse)
            else:
                filled = fill(primals, cotangents)
                by_primal = Backward.apply(ctx.form, ctx.reverse, *primals, *saved, *filled)  # type: ignore[no-untyped-call]
            return None, None, *_scatter(by_primal, grads_at, count)

    class ForwardPlain(torch.autograd.Function):
        """Plain primals -> outputs, final states if `final`."""

        @staticmethod
        def forward(ctx: Any, form: str, reverse: bool, final: bool, *primals: Tensor | None) -> Any:
            flat = plain_forward(primals, form, reverse, True, final)
            ctx.form, ctx.reverse = form, reverse
            own = results if final else outputs
            if plain_at:
                ctx.mark_non_differentiable(*[flat[i] for i in plain_at if i < own])
            ctx.save_for_backward(*primals, *flat[own:])
            ctx.set_materialize_grads(False)
            return tuple(flat[:own])

        @staticmethod
        def backward(ctx: Any, *grads: Tensor | None) -> Any:
            tensors = ctx.saved_tensors
            primals, saved = tensors[:count], tensors[count:]
            by_primal: Sequence[Tensor | None]
            cotangents: list[Any] = [grads[i] if i < len(grads) else None for i in cotangents_at]
            # What was saved was plain.
            if torch.compiler.is_compiling() or torch.is_grad_enabled() or not is_plain(cotangents):
                full, filled = begun(primals), fill(primals, cotangents)
                if torch.compiler.is_compiling():
                    found = backward_op(full, saved, filled, ctx.form, ctx.reverse)
                else:
                    found = Backward.apply(ctx.form, ctx.reverse, *full, *saved, *filled)  # type: ignore[no-untyped-call]
                by_primal = [None if primals[i] is None else g for i, g in zip(grads_at, found, strict=True)]
            else:
                if any(cotangent is None for cotangent in cotangents[:needed]):
                    cotangents[:needed] = fill(primals, cotangents[:needed])
                by_primal = plain_backward(primals, saved, cotangents, ctx.form, ctx.reverse)
            return None, None, None, *_scatter(by_primal, grads_at, count)

    for function in (Forward, Backward):  # `apply` asks for the signature at every call
        function.forward.__signature__ = inspect.signature(function.forward)  # type: ignore[attr-defined]
    # For plain tensors, nothing is left of what Function.apply does in Python.
    return Forward.apply, super(torch.autograd.Function, ForwardPlain).apply


class StepLoop:
    """The recurrence as a plain loop over `step`, which torch differentiates to any order."""

    def __init__(self, spec: Spec, step: StepFn) -> None:
        self._spec = spec
        self._arity = Arity(spec)
        self._shapes = Shapes(spec)
        self._step = step

    def double_backward(
        self, primals: Sequence[Tensor], cotangents: Sequence[Tensor], grads: Sequence[Tensor], reverse: bool
    ) -> tuple[list[Tensor | None], list[Tensor]]:
        """The gradient of <grads, vjp(primals)(cotangents)> by primals and by cotangents."""
        arity = self._arity

        def pullback(smooth: Sequence[Tensor], cotangents: Sequence[Tensor]) -> Any:
            def run(*smooth: Tensor) -> tuple[Tensor, ...]:
                full = list(primals)
                for i, tensor in zip(arity.grads, smooth, strict=True):
                    full[i] = tensor
                results = self(full, reverse)
                return tuple(results[i] for i in arity.cotangents)

            pull: Any = torch.func.vjp(run, *smooth)[1]
            return pull(tuple(cotangents))

        with no_autocast(primals[0]):
            smooth = tuple(primals[i] for i in arity.grads)
            pull: Any = torch.func.vjp(pullback, smooth, tuple(cotangents))[1]
            by_smooth, by_cotangent = pull(tuple(grads))
        return _scatter(by_smooth, arity.grads, len(primals)), list(by_cotangent)

    def __call__(self, primals: Sequence[Tensor], reverse: bool) -> list[Tensor]:
        """Outputs and final states from canonical tensors."""
        spec = self._spec
        compute = self._shapes.compute_dtype(primals)
        wide = [
            tensor.to(value_dtype(decl.kind, compute))
            for tensor, decl in zip(primals, self._arity.primals, strict=True)
        ]
        inputs, params, states = self._arity.split(wide)
        time = inputs[0].shape[1]
        columns: list[tuple[Tensor, ...]] = []
        for t in reversed(range(time)) if reverse else range(time):
            outputs, states = self._step(*(tensor[:, t] for tensor in inputs), *params, *states)
            columns.append(outputs)
        if reverse:
            columns.reverse()
        results = []
        for i, (shape, dtype) in enumerate(self._shapes.results(primals)[: len(spec.outputs)]):
            stacked = torch.stack([column[i] for column in columns], 1) if columns else inputs[0].new_zeros(shape)
            results.append(stacked.to(dtype))
        return results + list(states)


def _scatter(values: Sequence[Tensor | None], positions: Sequence[int], count: int) -> list[Tensor | None]:
    """`values` at their positions in a list of `count`, None elsewhere."""
    full: list[Tensor | None] = [None] * count
    for i, value in zip(positions, values, strict=True):
        full[i] = value
    return full
