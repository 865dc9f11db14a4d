"""Calls of the example specs with random tensors, as functions that torch's checkers can take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from pathlib import Path

import torch
from torch import Tensor

import scanc
from scanc.interpreter import random_arguments

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.scan"))


def example(name: str, target: str = "torch") -> scanc.ScanOperator:
    """The operator of an example, the same one at every question."""
    return _loaded(name, target)


@cache
def _loaded(name: str, target: str) -> scanc.ScanOperator:
    return scanc.load(EXAMPLES / f"{name}.scan", target=target)


@dataclass(frozen=True)
class Call:
    """`run` maps the tensors (arguments, then states) to all results that have gradients."""

    run: Callable[..., tuple[Tensor, ...]]
    tensors: list[Tensor]
    smooth: tuple[int, ...]


def is_smooth(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def call(
    name: str,
    *,
    batch: int = 2,
    time: int = 3,
    seed: int = 0,
    target: str = "torch",
    device: str = "cpu",
    **options: object,
) -> Call:
    """A call in fp64 of small sizes, with an initial state, returning the final one; `options` go to the operator."""
    operator = example(name, target)
    program = operator.compiled.typed
    sizes = {a.name: n for a, n in zip(program.axes, cycle((2, 3)), strict=False) if a.size is None and a.like is None}
    inputs, params, states = random_arguments(program, batch=batch, time=time, sizes=sizes, seed=seed)
    arguments = {**inputs, **params}
    tensors = [tensor.to(device) for tensor in (*arguments.values(), *states.values())]
    tensors = [tensor.requires_grad_() if is_smooth(tensor) else tensor for tensor in tensors]

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(arguments, tensors, strict=False))
        initial = dict(zip(states, tensors[len(arguments) :], strict=True))
        outputs, final = operator(**named, initial_state=initial, return_state=True, **options)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return tuple(tensor for tensor in (*outputs, *final.values()) if is_smooth(tensor))

    return Call(run, tensors, tuple(i for i, tensor in enumerate(tensors) if is_smooth(tensor)))


def loss(results: tuple[Tensor, ...]) -> Tensor:
    """A real number of which every finite result is part, not linearly."""
    parts = [torch.where(torch.isfinite(tensor.abs()), tensor.abs() ** 2, 0.0).sum() for tensor in results]
    return torch.stack(parts).sum()
