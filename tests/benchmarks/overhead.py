"""The host time of eager calls: on a GPU against the bare launches of the same kernels, with a check of CUDA graphs.

    python tests/benchmarks/overhead.py [--target torch|triton]

Tensors are tiny, so the host is what takes time.  Each number is the least of many means, in microseconds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import scanc
from scanc.interpreter import random_arguments

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ("ema", "gla", "selective_ssm")
BATCH, TIME, WIDTH = 2, 8, 16
Launch = tuple[Any, Any, tuple[Any, ...], dict[str, Any]]


def microseconds(run: Callable[[], object], repeats: int = 30, calls: int = 50) -> float:
    """Of host time; a GPU is waited for between the repeats only."""
    best = float("inf")
    for _ in range(repeats):
        _wait()
        began = time.perf_counter()
        for _ in range(calls):
            run()
        best = min(best, (time.perf_counter() - began) / calls)
    return 1e6 * best


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """The launches of Triton kernels: kernel, grid, arguments.  All go by Triton's own means, as they do at first."""
    from scanc_runtime import launch
    from triton.runtime.jit import JITFunction

    found: list[Launch] = []
    plain = JITFunction.run

    def run(self: Any, *args: Any, grid: Any, warmup: bool, **named: Any) -> Any:
        if not warmup:
            found.append((self, grid, args, dict(named)))
        return plain(self, *args, grid=grid, warmup=warmup, **named)

    JITFunction.run = run
    launch._known.clear()
    try:
        yield found
    finally:
        JITFunction.run = plain


def bare(run: Callable[[], object]) -> tuple[float, int]:
    """The time of the launches that `run` makes, and their number."""
    with recorded() as launches:
        run()

    def again() -> None:
        for kernel, grid, args, named in launches:
            kernel[grid](*args, **named)

    return microseconds(again), len(launches)


def captured(run: Callable[[], tuple[Tensor, ...]], inputs: list[Tensor]) -> str:
    """Whether a CUDA graph of `run`, replayed on other data, gives what `run` gives."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            results = run()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    with torch.no_grad():
        for tensor in inputs:
            tensor.mul_(0.75)
    graph.replay()
    same = all(torch.equal(x, y) for x, y in zip([x.clone() for x in results], run(), strict=True))
    return "equal" if same else "differs"


def measure(name: str, target: Any, device: str) -> list[str]:
    op = scanc.load(EXAMPLES / f"{name}.scan", target=target)
    program = op.compiled.typed
    sizes = {axis.name: WIDTH for axis in program.axes if axis.size is None and axis.like is None}
    inputs, params, _ = random_arguments(program, batch=BATCH, time=TIME, sizes=sizes, dtype=torch.float32)
    named = {key: x.to(device) for key, x in {**inputs, **params}.items()}
    tensors = [named[key] for key in op.spec.order]
    leaves = [x.clone().requires_grad_() for x in tensors]
    given = torch.randn_like(op(*tensors))

    def forward() -> tuple[Tensor, ...]:
        return (op(*tensors),)

    def both() -> tuple[Tensor, ...]:
        return torch.autograd.grad(op(*leaves), leaves, given)

    both()
    calls = [microseconds(forward), microseconds(lambda: op(*leaves)), microseconds(both)]
    row = [name, *(f"{x:.1f}" for x in calls)]
    if target != "triton" or device != "cuda":
        return row
    for run, whole in ((forward, calls[0]), (both, calls[2])):
        alone, count = bare(run)
        row += [f"{alone:.1f} ({count})", f"{whole - alone:.1f}"]
    return [*row, captured(forward, tensors), captured(both, leaves)]


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", choices=["torch", "triton"], default="triton" if device == "cuda" else "torch")
    options = parser.parse_args()
    if options.target == "triton" and device == "cpu":
        parser.error("the triton target runs on a GPU")
    torch.manual_seed(0)
    where = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    table = Table(title=f"µs of host time of a call, target {options.target}, {where}, torch {torch.__version__}")
    columns = ["", "forward, no gradients", "forward", "forward and backward"]
    if options.target == "triton":
        columns += ["launches forward", "above", "launches of both", "above", "graph forward", "graph of both"]
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    for name in NAMES:
        table.add_row(*measure(name, options.target, device))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
