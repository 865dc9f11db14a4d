"""Every form over a grid of sizes: is the one that `auto` picks fast, and does the cost model know which one is?

    python tests/benchmarks/forms.py [--csv FILE] [--device cpu] [--quick]

Batch, time, channels and states; N = 1 is a gated recurrence, N > 1 Mamba's.  A choice is good if it is within 10 % of
the fastest form.  Forms take turns, in several rounds, and the best round counts.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

import scanc
from scanc.bench.arguments import draw, positional
from scanc.bench.measure import Case, predicted, time_call

GATED = """scan gated
axes   d
input  a[d], x[d]
state  h[d]
h = sigmoid(a)*h + x
output h[d]
"""
SELECTIVE = """scan selective
axes   d, n
input  u[d], delta(u)[d], B(u)[n], C(u)[n]
param  A[d,n], D[d], bias[d]
state  h[d,n]
step = softplus(delta + bias)
h = exp(-step*exp(A))*h + (step*u)*B
y = C · h + D*u
output y[d]
"""
GRID = {
    "cpu": ((1, 4, 16), (16, 128, 1024, 4096), (16, 128, 1024), (1, 16), 1 << 22),
    "cuda": ((1, 8, 64), (64, 512, 4096, 65536), (64, 512, 4096), (1, 16, 64), 1 << 31),
}
"""Batch, time, channels, states, and the most states that a call may have over all steps."""

WITHIN, ROUNDS = 1.1, 3


@dataclass(frozen=True)
class Row:
    """Seconds of every form in one direction at one size; `expected` is what the cost model says of forward."""

    batch: int
    time: int
    channels: int
    states: int
    direction: str
    auto: str
    seconds: dict[str, float]
    expected: dict[str, float]

    @property
    def loss(self) -> float:
        """How much slower the picked form is than the fastest: 1 is best."""
        return self.seconds[self.auto] / min(self.seconds.values())

    @property
    def model_loss(self) -> float:
        """The same of the form that the cost model finds fastest."""
        return self.seconds[min(self.expected, key=self.expected.__getitem__)] / min(self.seconds.values())


def points(device: str, quick: bool) -> list[tuple[int, int, int, int]]:
    """The grid, without what is too large; every seventh point if `quick`."""
    batches, times, channels, states, most = GRID[device]
    found = [size for size in product(batches, times, channels, states) if torch.Size(size).numel() <= most]
    return found[::7] if quick else found


def measure(point: tuple[int, int, int, int], operator: scanc.ScanOperator, device: str, seconds: float) -> list[Row]:
    """Both directions at one size."""
    batch, time, channels, states = point
    sizes = {"d": channels} | ({"n": states} if states > 1 else {})
    call = draw(operator.compiled.typed, batch=batch, time=time, sizes=sizes, dtype="float32").to(device)
    leaves = [value.requires_grad_() for value in positional(operator.spec, call.tensors)]
    auto = operator.operator(operator.target).plan(*leaves)[1]
    given = torch.randn_like(operator(*leaves))
    forms, rows = operator.spec.forms, []
    for direction in ("forward", "forward+backward"):

        def run(form: str, backward: bool = direction != "forward") -> object:
            with torch.set_grad_enabled(backward):
                y = operator(*leaves, form=form)
            return torch.autograd.grad(y, leaves, given) if backward else y

        found = dict.fromkeys(forms, float("inf"))
        for form in list(forms) * ROUNDS:
            call_form = partial(run, form)
            timing = time_call(call_form, torch.device(device), seconds=seconds / ROUNDS, least=2)
            found[form] = min(found[form], timing.median)
        cases = {form: Case(form, batch, time, tuple(sizes.items()), "float32", device, direction) for form in forms}
        expected = {form: predicted(operator, case) for form, case in cases.items()}
        rows.append(Row(*point, direction, auto, found, expected))
    return rows


def share(losses: Iterable[float]) -> str:
    """For how many of the points a choice was good."""
    known = list(losses)
    good = sum(loss <= WITHIN for loss in known)
    return f"{good} of {len(known)} ({good / max(len(known), 1):.0%})"


def table(rows: Sequence[Row]) -> Table:
    found = Table(title=f"milliseconds, and auto against the fastest; auto is good at {share(r.loss for r in rows)}")
    forms = list(dict.fromkeys(form for row in rows for form in row.seconds))
    for column in ("B", "T", "D", "N", "direction", *forms, "auto", "loss"):
        found.add_column(column, justify="left" if column in ("direction", "auto") else "right")
    for row in rows:
        times = [f"{row.seconds[form] * 1e3:.3g}" if form in row.seconds else "" for form in forms]
        size = map(str, (row.batch, row.time, row.channels, row.states))
        loss = f"{row.loss:.2f}{'' if row.loss <= WITHIN else ' !'}"
        found.add_row(*size, row.direction, *times, row.auto, loss)
    return found


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """One line per size, direction and form."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("B", "T", "D", "N", "direction", "form", "ms", "predicted_ms", "auto"))
        for row in rows:
            for form, seconds in row.seconds.items():
                times = f"{seconds * 1e3:.4g}", f"{row.expected[form] * 1e3:.4g}"
                size = row.batch, row.time, row.channels, row.states
                writer.writerow((*size, row.direction, form, *times, int(form == row.auto)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, help="where to write every time")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=list(GRID))
    parser.add_argument("--quick", action="store_true", help="a seventh of the grid")
    parser.add_argument("--seconds", type=float, default=0.3, help="that each form is timed for, about")
    options = parser.parse_args()
    target = "triton" if options.device == "cuda" else "torch"
    operators = [scanc.compile(text, target=target) for text in (GATED, SELECTIVE)]
    rows: list[Row] = []
    console = Console(width=140)
    for point in track(points(options.device, options.quick), "measuring", console=Console(stderr=True)):
        rows += measure(point, operators[point[3] > 1], options.device, options.seconds)
    if options.csv:
        write_csv(rows, options.csv)
    console.print(table(rows))
    for direction in ("forward", "forward+backward"):
        own = [row for row in rows if row.direction == direction]
        console.print(f"{direction}: auto is good at {share(row.loss for row in own)}", highlight=False)
    forward = [row for row in rows if row.direction == "forward"]
    console.print(
        f"the cost model would be good at {share(row.model_loss for row in forward)} of forward", highlight=False
    )


if __name__ == "__main__":
    main()
