"""Timing: how long a call takes, as the median of many after a warm-up, and the forms of an operator side by side."""

from __future__ import annotations

import csv
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from scanc_runtime.spec import Spec

from scanc.analysis.cost import CPU, H200, forward_cost
from scanc.bench.arguments import draw, positional
from scanc.op import ScanOperator

ENOUGH_RUNS = 5
"""A median of fewer runs is not reported, however slow a run is."""


@dataclass(frozen=True)
class Timing:
    """Seconds per call: the median, and the fastest and slowest run, of `runs`."""

    median: float
    fastest: float
    slowest: float
    runs: int


@dataclass(frozen=True)
class Case:
    """One call to be timed. `direction` is "forward" or "forward+backward"."""

    form: str
    batch: int
    time: int
    sizes: tuple[tuple[str, int], ...]
    dtype: str
    device: str
    direction: str


@dataclass(frozen=True)
class Measurement:
    """A case, how long it took, and how long it takes to copy `bytes`, the size of its arguments and results, once.

    The copy is the roofline of an operator that is bound by memory: nothing that reads its arguments
    and writes its results can be faster. Backward reads the arguments again, and their gradients are as large as
    they are: with it, the tensors count three times.  `predicted` is what the cost model says, of forward alone.
    """

    case: Case
    timing: Timing
    bytes: int
    copy: float
    predicted: float | None = None

    @property
    def tokens_per_second(self) -> float:
        return self.case.batch * self.case.time / self.timing.median

    @property
    def rate(self) -> float:
        """Bytes that have to move, per second."""
        return self.bytes / self.timing.median

    @property
    def roofline(self) -> float:
        """The share of the copy's speed that the call reaches, 1 at best."""
        return self.copy / self.timing.median


def time_call(
    call: Callable[[], object], device: torch.device, *, seconds: float = 0.5, least: int = ENOUGH_RUNS, most: int = 200
) -> Timing:
    """Calls once or more to warm up, then for about `seconds`, at least `least` and at most `most` times."""
    first = _once(call, device)
    for _ in range(2 if first < seconds else 0):
        _once(call, device)
    runs: list[float] = []
    while len(runs) < least or (sum(runs) < seconds and len(runs) < most):
        runs.append(_once(call, device))
    return Timing(statistics.median(runs), min(runs), max(runs), len(runs))


def _once(call: Callable[[], object], device: torch.device) -> float:
    if device.type != "cuda":
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    with torch.cuda.device(device):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        call()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3


def grid(
    forms: Sequence[str], times: Sequence[int], batch: int, sizes: Mapping[str, int], dtype: str, device: str,
    *, backward: bool,
) -> list[Case]:  # fmt: skip
    """Every form at every sequence length, forward and, if wanted, forward and backward."""
    directions = ("forward", "forward+backward") if backward else ("forward",)
    return [
        Case(form, batch, steps, tuple(sizes.items()), dtype, device, direction)
        for steps in times
        for direction in directions
        for form in forms
    ]


def differentiable(spec: Spec) -> bool:
    """Whether any output has a gradient."""
    return any(tensor.kind in ("real", "complex") for tensor in spec.outputs)


def measure(operator: ScanOperator, case: Case, *, seconds: float = 0.5) -> Measurement:
    """Times one case on random tensors."""
    program = operator.compiled.typed
    call = draw(program, batch=case.batch, time=case.time, sizes=dict(case.sizes), dtype=case.dtype).to(case.device)
    device = torch.device(case.device)
    backward = case.direction != "forward"
    leaves = {
        name: value.requires_grad_(backward and (value.is_floating_point() or value.is_complex()))
        for name, value in call.tensors.items()
    }
    wanted = [value for value in leaves.values() if value.requires_grad]
    ordered = positional(operator.spec, leaves)
    outputs = several(operator(*ordered, form=case.form))
    cotangents = [torch.ones_like(value) for value in outputs if value.requires_grad]

    def forward() -> object:
        with torch.no_grad():
            return operator(*ordered, form=case.form)

    def both() -> object:
        results = [value for value in several(operator(*ordered, form=case.form)) if value.requires_grad]
        return torch.autograd.grad(results, wanted, cotangents, allow_unused=True)

    moved = sum(value.nbytes for value in (*leaves.values(), *outputs)) * (3 if backward else 1)
    timing = time_call(both if backward else forward, device, seconds=seconds)
    expected = None if backward else predicted(operator, case)
    return Measurement(case, timing, moved, _copy_time(moved, device, seconds), expected)


def predicted(operator: ScanOperator, case: Case) -> float:
    """Seconds that the cost model expects of a forward call."""
    on_gpu = case.device.startswith("cuda")
    itemsize = getattr(torch, case.dtype).itemsize
    program, sizes = operator.compiled.classified, dict(case.sizes)
    cost = forward_cost(program, case.form, sizes, case.batch, case.time, itemsize=itemsize, fused=on_gpu)
    return cost.time(H200 if on_gpu else CPU)


def _copy_time(size: int, device: torch.device, seconds: float) -> float:
    """How long it takes at best to move `size` bytes through memory: half of them read, half written."""
    source = torch.empty(max(size // 2, 1), dtype=torch.uint8, device=device).fill_(1)
    target = torch.empty_like(source)
    return time_call(lambda: target.copy_(source), device, seconds=seconds / 4).fastest


def several(value: Any) -> tuple[torch.Tensor, ...]:
    """What an operator returns, as a tuple: of one, if it has one output."""
    return value if isinstance(value, tuple) else (value,)


COLUMNS = ("form", "direction", "batch", "time", "sizes", "dtype", "device", "median_ms", "fastest_ms", "slowest_ms",
           "runs", "tokens_per_second", "bytes", "gb_per_second", "copy_ms", "share_of_copy",
           "predicted_ms")  # fmt: skip


def rows(measurements: Sequence[Measurement]) -> list[tuple[str, ...]]:
    """The measurements as text, in the order of `COLUMNS`."""
    return [
        (
            m.case.form, m.case.direction, str(m.case.batch), str(m.case.time),
            " ".join(f"{axis}={size}" for axis, size in m.case.sizes), m.case.dtype, m.case.device,
            f"{m.timing.median * 1e3:.4g}", f"{m.timing.fastest * 1e3:.4g}", f"{m.timing.slowest * 1e3:.4g}",
            str(m.timing.runs), f"{m.tokens_per_second:.4g}", str(m.bytes), f"{m.rate / 1e9:.4g}",
            f"{m.copy * 1e3:.4g}", f"{m.roofline:.3g}",
            "" if m.predicted is None else f"{m.predicted * 1e3:.4g}",
        )
        for m in measurements
    ]  # fmt: skip


def write_csv(measurements: Sequence[Measurement], path: Path) -> None:
    """Writes a header and one line per measurement."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows(measurements))
