"""Diagonal recurrences on a GPU: times, share of the measured copy bandwidth, and errors against the fp64 oracle.

    python tests/benchmarks/diagonal.py [--csv FILE] [--only gated|selective]

Random data, medians of many runs.  A gated scan reads and writes 3 words per element forward and 5 backward; for
the selective scan the share of bandwidth counts each input and output once.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from triton.testing import do_bench

import scanc

GATED = """scan gated
axes   d
input  a[d], x[d]
state  h[d]
h = a*h + x
output h[d]
"""
SELECTIVE = """scan selective
axes   d, n
input  u[d], delta(u)[d], B(u)[n], C(u)[n]
param  A[d,n], D[d], bias[d]
state  h[d,n]
step = softplus(delta + bias)
h = exp(step*A)*h + (step*u)*B
y = C · h + D*u
output y[d]
"""
STATES = 16
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 1.5e-2}


@dataclass(frozen=True)
class Case:
    """One spec at one size (batch, time, channels)."""

    spec: str
    shape: tuple[int, int, int]
    dtype: torch.dtype

    @property
    def label(self) -> str:
        return f"{self.spec} {self.shape} {str(self.dtype).removeprefix('torch.')}"


SHAPES = ((8, 4096, 2048), (1, 65536, 2048), (64, 512, 2048), (1, 1048576, 64))
CASES = [Case("gated", shape, dtype) for dtype in (torch.float32, torch.bfloat16) for shape in SHAPES]
CASES += [Case("selective", shape, torch.bfloat16) for shape in ((8, 4096, 2048), (8, 2048, 4096), (1, 65536, 2048))]


def arguments(case: Case, shape: tuple[int, int, int], seed: int = 0) -> dict[str, Any]:
    """Random inputs and params as models have them: gates in (0, 1), A below 0."""
    generator = torch.Generator("cuda").manual_seed(seed)
    batch, length, channels = shape

    def draw(*dims: int) -> Tensor:
        return torch.randn(*dims, generator=generator, device="cuda")

    if case.spec == "gated":
        found = {"a": torch.sigmoid(2 + draw(*shape)), "x": draw(*shape)}
        return {name: x.to(case.dtype) for name, x in found.items()}
    found = {"u": draw(*shape), "delta": draw(*shape) - 2}
    found |= {"B": draw(batch, length, STATES), "C": draw(batch, length, STATES)}
    found = {name: x.to(case.dtype) for name, x in found.items()}
    A = -torch.exp(0.5 * draw(channels, STATES))
    return found | {"A": A, "D": draw(channels), "bias": 0.1 * draw(channels)}


def bench(run: Callable[[], Any]) -> float:
    """Milliseconds, the median of many."""
    return float(do_bench(run, warmup=20, rep=80, return_mode="median"))


def copy_bandwidth() -> float:
    """Bytes per millisecond of a device-to-device copy, read and written."""
    source = torch.empty(1 << 31, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    return 2 * source.numel() / bench(lambda: target.copy_(source))


def error(case: Case, op: scanc.ScanOperator) -> float:
    """The largest error of a value or a gradient against the fp64 oracle, relative to the largest value."""
    tensors = arguments(case, (2, 203, 96), seed=1)
    wide = {name: x.double().cpu().requires_grad_() for name, x in tensors.items()}
    near = {name: x.requires_grad_() for name, x in tensors.items()}
    wanted, found = op(**wide, form="interpret"), op(**near)
    given = torch.randn(wanted.shape, dtype=torch.float64)
    pairs = [(found, wanted)]
    pairs += zip(
        torch.autograd.grad(found, list(near.values()), given.to(found)),
        torch.autograd.grad(wanted, list(wide.values()), given.to(case.dtype).double()),
        strict=True,
    )
    return max(float((a.detach().cpu() - b.detach()).abs().max() / b.detach().abs().max()) for a, b in pairs)


def bytes_moved(case: Case, tensors: dict[str, Any]) -> tuple[int, int]:
    """Bytes that have to move, forward and backward: every tensor once."""
    read = sum(x.numel() * x.element_size() for x in tensors.values())
    out = next(iter(tensors.values())).numel() * case.dtype.itemsize
    return read + out, 2 * read + out


def measure(case: Case, op: scanc.ScanOperator, bandwidth: float) -> dict[str, object]:
    tensors = {name: x.requires_grad_() for name, x in arguments(case, case.shape).items()}
    leaves = list(tensors.values())
    began = time.perf_counter()
    out = op(**tensors)
    given = torch.randn_like(out)
    torch.autograd.grad(out, leaves, given)
    torch.cuda.synchronize()
    first = time.perf_counter() - began
    torch.cuda.reset_peak_memory_stats()
    base = torch.cuda.memory_allocated()
    with torch.no_grad():
        forward = bench(lambda: op(**tensors))
    out = op(**tensors)
    backward = bench(lambda: torch.autograd.grad(out, leaves, given, retain_graph=True))
    both = bench(lambda: torch.autograd.grad(op(**tensors), leaves, given))
    needs, needed = bytes_moved(case, tensors)
    return {
        "case": case.label,
        "forward ms": round(forward, 3),
        "backward ms": round(backward, 3),
        "both ms": round(both, 3),
        "forward %": round(100 * needs / forward / bandwidth),
        "backward %": round(100 * needed / backward / bandwidth),
        "first call s": round(first, 1),
        "peak GB": round((torch.cuda.max_memory_allocated() - base) / 1e9, 2),
        "error": f"{error(case, op):.1e}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--csv", type=Path, help="where to write the table")
    parser.add_argument("--only", choices=["gated", "selective"])
    options = parser.parse_args()
    console = Console(width=140)
    bandwidth = copy_bandwidth()
    operators = {"gated": scanc.compile(GATED, target="triton"), "selective": scanc.compile(SELECTIVE, target="triton")}
    rows = []
    for case in track([case for case in CASES if options.only in (None, case.spec)], console=console):
        rows.append(measure(case, operators[case.spec], bandwidth))
        console.print("  ".join(f"{name} {value}" for name, value in rows[-1].items()), markup=False)
        torch.cuda.empty_cache()
    table = Table(title=f"copy bandwidth {bandwidth / 1e9:.2f} TB/s; {torch.cuda.get_device_name()}")
    for column in rows[0]:
        table.add_column(column, justify="left" if column == "case" else "right")
    for row in rows:
        table.add_row(*map(str, row.values()))
    console.print(table)
    if options.csv:
        with options.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
