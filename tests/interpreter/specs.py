"""The example specs, lowered, with small sizes."""

from __future__ import annotations

from functools import cache
from itertools import cycle
from pathlib import Path

import torch

from scanc.interpreter import random_arguments
from scanc.ir.nodes import Program
from scanc.semantics.lower import lower

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.scan"))

Arguments = dict[str, torch.Tensor]


@cache
def example(name: str) -> Program:
    """The typed program of an example."""
    path = EXAMPLES / f"{name}.scan"
    return lower(path.read_text(encoding="utf-8"), source=path.name, root=EXAMPLES)


def small_sizes(program: Program) -> dict[str, int]:
    """2, 3, 4, 2, … for the axes whose size is free."""
    free = [axis.name for axis in program.axes if axis.size is None and axis.like is None]
    return dict(zip(free, cycle((2, 3, 4)), strict=False))


def small_arguments(
    program: Program, *, time: int = 5, batch: int = 2, seed: int = 0
) -> tuple[Arguments, Arguments, Arguments]:
    return random_arguments(program, batch=batch, time=time, sizes=small_sizes(program), seed=seed)
