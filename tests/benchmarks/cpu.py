"""`h = a*h + x` on a CPU: scanc beside what plain torch has for it.

    python tests/benchmarks/cpu.py [--csv FILE] [--shape B,T,D …] [--only NAME …] [--rounds N]

Random data.  Contenders take turns, and the table has the median of all turns of each; its last columns are the largest
error of the values and of both gradients against a loop in fp64, relative to the largest value.  The first call of what
torch compiles takes up to minutes.  A compiled loop over every step is left out: 64 steps take it half a minute.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor
from torch._higher_order_ops.associative_scan import associative_scan

import scanc

GATED = """scan gated
axes   d
input  a[d], x[d]
state  h[d]
h = a*h + x
output h[d]
"""
Scan = Callable[[Tensor, Tensor], Tensor]
Shape = tuple[int, int, int]
SHAPES = ((4, 1024, 512), (1, 16384, 64))


# --- what plain torch has: [B, T, D] and [B, T, D] to [B, T, D] ---------------------------------------------------


def loop(a: Tensor, x: Tensor) -> Tensor:
    """One step after the other."""
    h, out = torch.zeros_like(a[:, 0]), []
    for decay, write in zip(a.unbind(1), x.unbind(1), strict=True):
        h = decay * h + write
        out.append(h)
    return torch.stack(out, 1)


def associative(a: Tensor, x: Tensor) -> Tensor:
    """torch's own scan."""

    def combine(left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return left[0] * right[0], right[0] * left[1] + right[1]

    found: Tensor = associative_scan(combine, (a, x), 1, combine_mode="generic")[1]
    return found


def chunked(a: Tensor, x: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Steps of all chunks side by side, unrolled; carries in chunks of chunks, the outermost by a loop."""
    return _chunked(a, x, torch.zeros_like(a[:, 0]), sizes)[0]


def _chunked(a: Tensor, x: Tensor, carry: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """States behind each step, and those before."""
    if not sizes:
        before, after = [], []
        for decay, write in zip(a.unbind(1), x.unbind(1), strict=True):
            before.append(carry)
            carry = decay * carry + write
            after.append(carry)
        return torch.stack(after, 1), torch.stack(before, 1)
    decays, writes = (t.unflatten(1, (-1, sizes[0])).unbind(2) for t in (a, x))
    product, state = decays[0], writes[0]
    for decay, write in zip(decays[1:], writes[1:], strict=True):
        product, state = product * decay, decay * state + write
    _, h = _chunked(product, state, carry, sizes[1:])
    before, after = [], []
    for decay, write in zip(decays, writes, strict=True):
        before.append(h)
        h = decay * h + write
        after.append(h)
    return torch.stack(after, 2).flatten(1, 2), torch.stack(before, 2).flatten(1, 2)


def log_space(a: Tensor, x: Tensor, size: int) -> Tensor:
    """Cumulative sums within chunks; decays above 0 only."""
    a, x = (t.unflatten(1, (-1, size)) for t in (a, x))
    logs = a.log().cumsum(2)
    decay = logs.exp()
    return _carried(decay, decay * (x * (-logs).exp()).cumsum(2))


def matmul(a: Tensor, x: Tensor, size: int) -> Tensor:
    """A triangular matrix of decays per chunk and channel; decays above 0 only."""
    a, x = (t.unflatten(1, (-1, size)) for t in (a, x))
    logs = a.log().cumsum(2)
    apart = logs[:, :, :, None] - logs[:, :, None]  # [B, n, C, C, D]
    later = torch.ones(size, size, dtype=torch.bool).tril()[..., None]
    decays = torch.where(later, apart, -torch.inf).exp()
    return _carried(logs.exp(), torch.einsum("bnijd,bnjd->bnid", decays, x))


def _carried(decay: Tensor, local: Tensor) -> Tensor:
    """States, from those of each chunk that starts at 0."""
    h, carries = torch.zeros_like(local[:, 0, 0]), []
    for product, added in zip(decay[:, :, -1].unbind(1), local[:, :, -1].unbind(1), strict=True):
        carries.append(h)
        h = product * h + added
    return (local + decay * torch.stack(carries, 1)[:, :, None]).flatten(1, 2)


def by_hand(scan: Scan) -> Scan:
    """A scan compiled, its gradient written by hand (the scan once more, from the end) and compiled."""
    forward = torch.compile(scan, dynamic=False)

    def gradients(a: Tensor, h: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        later = torch.cat([a[:, 1:], a[:, :1]], 1).flip(1)
        adjoint = scan(later, grad.flip(1)).flip(1)
        return adjoint * torch.cat([torch.zeros_like(h[:, :1]), h[:, :-1]], 1), adjoint

    backward = torch.compile(gradients, dynamic=False)

    class ByHand(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, a: Tensor, x: Tensor) -> Tensor:
            h = forward(a, x)
            ctx.save_for_backward(a, h)
            return h

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
            return backward(*ctx.saved_tensors, grad)

    return ByHand.apply


def contenders(shape: Shape) -> dict[str, Scan]:
    """By name; chunk lengths are the best of those tried."""
    compiled = partial(torch.compile, dynamic=False)
    unrolled: Scan = partial(chunked, sizes=(32,) if shape[1] <= 4096 else (16, 32))
    return {
        "scanc": scanc.compile(GATED, target="torch"),
        "loop": loop,
        "associative_scan": associative,
        "associative_scan, compiled": compiled(associative),
        "chunks": unrolled,
        "chunks, compiled": compiled(unrolled),
        "chunks, gradient by hand, compiled": by_hand(unrolled),
        "chunks in log space, compiled": compiled(partial(log_space, size=max(16, shape[1] // 128))),
        "chunks by matmul, compiled": compiled(partial(matmul, size=max(16, shape[1] // 128))),
    }


# --- timing -------------------------------------------------------------------------------------------------------


@dataclass
class Times:
    """What was seen of one contender."""

    first: float
    errors: list[float]
    forward: list[float] = field(default_factory=list)
    both: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Problem:
    a: Tensor
    x: Tensor
    grad: Tensor

    @classmethod
    def draw(cls, shape: Shape) -> Problem:
        """Gates in (0, 1) as models have them."""
        generator = torch.Generator().manual_seed(0)
        a, x, grad = (torch.randn(shape, generator=generator) for _ in range(3))
        return cls(torch.sigmoid(2 + a).requires_grad_(), x.requires_grad_(), grad)

    def forward(self, scan: Scan) -> Tensor:
        with torch.no_grad():
            return scan(self.a, self.x)

    def both(self, scan: Scan) -> tuple[Tensor, ...]:
        h = scan(self.a, self.x)
        return h.detach(), *torch.autograd.grad(h, (self.a, self.x), self.grad)

    def exact(self) -> tuple[Tensor, ...]:
        """Values and gradients in fp64."""
        a, x = (t.detach().double().requires_grad_() for t in (self.a, self.x))
        return Problem(a, x, self.grad.double()).both(loop)


def first_call(problem: Problem, scan: Scan, exact: tuple[Tensor, ...]) -> Times:
    began = time.perf_counter()
    problem.forward(scan)
    found = problem.both(scan)
    first = time.perf_counter() - began
    errors = [float((f - e).abs().max() / e.abs().max()) for f, e in zip(found, exact, strict=True)]
    return Times(first, errors)


def turn(problem: Problem, scan: Scan, times: Times) -> None:
    """A few calls, the first of which finds the caches cold and does not count; one if calls are slow."""
    for run, found in ((problem.forward, times.forward), (problem.both, times.both)):
        for i in range(5):
            began = time.perf_counter()
            run(scan)
            taken = 1e3 * (time.perf_counter() - began)
            if i or taken > 200:
                found.append(taken)
            if taken > 200:
                break


def measure(shape: Shape, only: list[str] | None, rounds: int, progress: Progress) -> list[dict[str, object]]:
    problem = Problem.draw(shape)
    exact = problem.exact()
    scans = {name: scan for name, scan in contenders(shape).items() if only is None or name in only}
    task = progress.add_task(str(shape), total=len(scans) * (rounds + 1))
    seen: dict[str, Times] = {}
    for name, scan in scans.items():
        progress.update(task, description=f"{shape} {name}")
        seen[name] = first_call(problem, scan, exact)
        progress.advance(task)
    for _ in range(rounds):
        for name, scan in scans.items():
            turn(problem, scan, seen[name])
            progress.advance(task)
    return [row(shape, name, times) for name, times in seen.items()]


def row(shape: Shape, name: str, times: Times) -> dict[str, object]:
    return {
        "shape": str(shape),
        "scan": name,
        "forward ms": round(statistics.median(times.forward), 2),
        "both ms": round(statistics.median(times.both), 2),
        "forward best": round(min(times.forward), 2),
        "both best": round(min(times.both), 2),
        "first call s": round(times.first, 1),
        "error": f"{times.errors[0]:.0e}",
        "gradients": f"{max(times.errors[1:]):.0e}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, help="where to write the table")
    parser.add_argument("--shape", nargs="+", default=SHAPES, type=lambda s: tuple(map(int, s.split(","))))
    parser.add_argument("--only", nargs="+", help="names of contenders")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    console = Console(width=150)
    rows: list[dict[str, object]] = []
    with Progress(console=console, transient=True) as progress:
        for shape in options.shape:
            rows += measure(shape, options.only, options.rounds, progress)
    table = Table(title=f"fp32, torch {torch.__version__}, {torch.get_num_threads()} threads; milliseconds")
    for column in rows[0]:
        table.add_column(column, justify="left" if column in ("shape", "scan") else "right")
    for found in rows:
        table.add_row(*map(str, found.values()))
    console.print(table)
    if options.csv:
        with options.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
