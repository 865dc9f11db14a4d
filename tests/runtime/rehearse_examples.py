"""What is compiled ahead is what is launched: of all examples in every form, without a GPU or a compiler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from scanc_runtime import ahead, launch
from scanc_runtime.recall import forced_recall
from scanc_runtime.tiling import forced
from triton.runtime.jit import JITFunction

import scanc
from runtime import no_launch
from scanc.interpreter import random_arguments

EXAMPLES = Path(__file__).parents[2] / "examples"
WIDTH, WHOLE, SPLIT = 16, 40, 600  # steps of a call whose time is whole, and is shared out between programs
rehearsed: set[Any] = set()
launched: set[Any] = set()
names: set[str] = set()


def noting(self: Any, *arguments: Any, grid: Any, warmup: bool, **named: Any) -> None:
    found = ahead.specialization(ahead.Launch(self, arguments, named, lambda: None))
    (rehearsed if warmup else launched).add(found)
    names.add(self.__name__)


def step(op: scanc.ScanOperator, form: str, time: int, state: bool) -> None:
    """A training step."""
    program = op.compiled.typed
    sizes = {axis.name: WIDTH for axis in program.axes if axis.size is None and axis.like is None}
    inputs, params, _ = random_arguments(program, batch=2, time=time, sizes=sizes, dtype=torch.float32)
    given = {
        name: x.requires_grad_(x.is_floating_point() or x.is_complex()) for name, x in {**inputs, **params}.items()
    }
    found = op(**given, form=form, return_state=state)
    outputs, last = found if state else (found, {})
    results = [*(outputs if isinstance(outputs, tuple) else (outputs,)), *last.values()]
    smooth, leaves = ([x for x in group if x.requires_grad] for group in (results, given.values()))
    if smooth:
        torch.autograd.grad(smooth, leaves, [torch.randn_like(x) for x in smooth], allow_unused=True)


no_launch.install()
JITFunction.run = noting
for path in sorted(EXAMPLES.glob("*.scan")):
    op = scanc.load(path, target="triton")
    for form in op.operator("triton").forms:
        for time, state in ((WHOLE, False), (WHOLE, True), (SPLIT, False))[: 3 if form == "chunked" else 2]:
            for seen in (rehearsed, launched, names, ahead._begun, launch._known):
                seen.clear()
            parts = 2 if time == SPLIT else None
            with forced(chunks=parts), forced_recall(segments=parts):
                step(op, form, time, state)
            ahead._pool().shutdown()
            ahead._forget()
            assert launched == rehearsed, (path.name, form, time, launched ^ rehearsed)
            assert parts is None or any(name == "carry_kernel" for name in names), path.name
