"""Calls of operators on random data, and all that comes of them, in one mapping that forms can be compared by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import torch

import scanc
from scanc.interpreter import random_arguments

Tensors = dict[str, torch.Tensor]
LARGE = 1e8
ERROR = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: float("inf")}
"""How far results of each dtype may be apart; of bf16 the shapes and dtypes alone are compared."""


@dataclass(frozen=True)
class Call:
    """One call: sizes, dtype and seed of its arguments, and which results and arguments take part in gradients.

    `given`: whether a state is passed; `twice`: whether gradients of the gradients are wanted; `mask`: a bit per result
    that flows into the loss; `still`: which third of the arguments wants no gradient, 0 for none.
    """

    operator: scanc.ScanOperator
    sizes: Mapping[str, int]
    batch: int = 2
    time: int = 37
    seed: int = 0
    dtype: torch.dtype = torch.float64
    given: bool = True
    twice: bool = False
    reverse: bool = False
    mask: int = -1
    still: int = 0

    @property
    def forms(self) -> tuple[str, ...]:
        """The forms that take the call: what looks back on a GPU carries states in 32 bits."""
        single = self.operator.target == "triton" and self.dtype == torch.float64
        return tuple(form for form in self.operator.forms if not (single and form == "parallel"))

    @cached_property
    def groups(self) -> tuple[Tensors, Tensors, Tensors]:
        """(inputs, params, initial states)."""
        typed = self.operator.compiled.typed
        inputs, params, initial = random_arguments(
            typed, batch=self.batch, time=self.time, sizes=self.sizes, seed=self.seed, dtype=self.dtype
        )
        for decl in (*typed.inputs, *typed.params):
            group = inputs if decl.name in inputs else params
            if decl.pin is not None:
                pinned = torch.promote_types(getattr(torch, decl.pin), self.dtype)
                group[decl.name] = group[decl.name].to(pinned)
        groups = inputs, params, initial if self.given else {}
        for at, tensor in enumerate(chain.from_iterable(group.values() for group in groups)):
            if (tensor.is_floating_point() or tensor.is_complex()) and (self.still == 0 or at % 3 != self.still - 1):
                tensor.requires_grad_()
        return groups

    def run(
        self, form: str, inputs: Tensors, state: Tensors, reverse: bool = False
    ) -> tuple[tuple[torch.Tensor, ...], Tensors]:
        """Outputs and final states."""
        output, final = self.operator(
            **inputs, **self.groups[1], initial_state=state, return_state=True, reverse=reverse, form=form
        )
        return _all(output), final

    def results(self, form: str) -> Tensors:
        """Outputs, final states, and the gradients of a loss."""
        inputs, params, initial = self.groups
        outputs, final = self.run(form, inputs, initial, self.reverse)
        found = {f"output {n}": t for n, t in enumerate(outputs)} | {f"final {n}": t for n, t in final.items()}
        terms = [
            _square(torch.where(t.abs() < LARGE, t, 0))
            for at, t in enumerate(found.values())
            if (t.is_floating_point() or t.is_complex()) and self.mask >> at & 1
        ]
        leaves = {n: t for n, t in {**inputs, **params, **initial}.items() if t.requires_grad}
        gradients = _gradients(terms, leaves, create_graph=self.twice)
        found |= {f"gradient {n}": g for n, g in gradients.items()}
        if self.twice:
            second = _gradients([_square(g) for g in gradients.values()], leaves)
            found |= {f"second gradient {n}": g for n, g in second.items()}
        return {n: t.detach() for n, t in found.items()}

    @torch.no_grad()
    def check_parts(self, form: str, cut: int) -> None:
        """In two parts, and token by token, the outputs and the final state are those of the whole."""
        inputs, params, initial = self.groups
        whole, last = self.run("interpret", inputs, initial)
        first, middle = self.run(form, {n: t[:, :cut] for n, t in inputs.items()}, initial)
        second, final = self.run(form, {n: t[:, cut:] for n, t in inputs.items()}, middle)
        both = [torch.cat(parts, 1) for parts in zip(first, second, strict=True)]
        close(_named(both, final), _named(whole, last), f"{form} in two parts")
        if not 0 < self.time <= 5:
            return
        state, steps = initial, []
        for t in range(self.time):
            output, state = self.operator.step(**{n: x[:, t] for n, x in inputs.items()}, **params, state=state)
            steps.append(_all(output))
        joined = [torch.stack(tokens, 1) for tokens in zip(*steps, strict=True)]
        close(_named(joined, state), _named(whole, last), "step by step")


def close(found: Tensors, wanted: Tensors, what: str, error: float = ERROR[torch.float64]) -> None:
    """The same names, shapes and dtypes, and nearly the same numbers: `error` is relative to the largest."""
    assert found.keys() == wanted.keys(), what
    for name, value in wanted.items():
        number = value.numel() and (value.is_floating_point() or value.is_complex())
        size = max(1.0, value.abs().nan_to_num(posinf=0.0).max().item()) if number else 1.0
        torch.testing.assert_close(
            found[name], value, rtol=10 * error, atol=error * size, msg=lambda m, n=name: f"{what}: {n}: {m}"
        )


def bounded(results: Tensors, infinite: bool) -> bool:
    """Whether no result is too large, or not a number; infinite values may be right over a semiring."""
    values = {n: t for n, t in results.items() if t.is_floating_point() or t.is_complex()}
    return all(
        bool(((t.abs() < LARGE) | (infinite and "gradient" not in n and ~t.isnan())).all()) for n, t in values.items()
    )


def _all(output: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return output if isinstance(output, tuple) else (output,)


def _named(outputs: Sequence[torch.Tensor], final: Tensors) -> Tensors:
    return {f"output {n}": t for n, t in enumerate(outputs)} | {f"final {n}": t for n, t in final.items()}


def _square(x: torch.Tensor) -> torch.Tensor:
    return (x * x.conj()).real.sum()


def _gradients(terms: Sequence[torch.Tensor], leaves: Tensors, create_graph: bool = False) -> Tensors:
    loss = sum(terms, torch.zeros(()))
    if not leaves or not loss.requires_grad:
        return {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    found = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True, create_graph=create_graph)
    return dict(zip(leaves, found, strict=True))
