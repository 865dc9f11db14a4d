"""Plots of measurements as PNG files. Needs matplotlib, which the extra `plot` installs."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scanc.bench.measure import Measurement


class PlottingUnavailable(RuntimeError):
    """matplotlib is not installed."""

    def __init__(self) -> None:
        super().__init__("plotting needs matplotlib; install it with: pip install 'scanc[plot]'")


def require_matplotlib() -> None:
    """Raises PlottingUnavailable, so that nobody measures for minutes and then sees no plot."""
    if importlib.util.find_spec("matplotlib") is None:
        raise PlottingUnavailable


@dataclass(frozen=True)
class Point:
    """A throughput in bytes per second at a sequence length, on a line of a panel; `copy` is that of a plain copy."""

    panel: str
    line: str
    time: int
    rate: float
    copy: float
    peer: bool = False


def points(measurements: Sequence[Measurement]) -> list[Point]:
    """A panel per direction, a line per form."""
    return [Point(m.case.direction, m.case.form, m.case.time, m.rate, m.bytes / m.copy) for m in measurements]


def plot(found: Sequence[Point], title: str, path: Path) -> None:
    """Throughput over sequence length, logarithmic: peers dotted, and the measured speed of a copy dashed."""
    require_matplotlib()
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys(point.panel for point in found))
    figure = Figure(figsize=(5.5 * len(panels), 4.2), layout="constrained")
    figure.suptitle(title)
    for place, panel in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), place + 1, title=panel)
        chosen = sorted((point for point in found if point.panel == panel), key=lambda point: point.time)
        for line in dict.fromkeys(point.line for point in sorted(chosen, key=lambda point: point.peer)):
            own = [point for point in chosen if point.line == line]
            style = ":" if own[0].peer else "-"
            axes.plot([p.time for p in own], [p.rate / 1e9 for p in own], marker="o", linestyle=style, label=line)
        times = sorted({point.time for point in chosen})
        copies = [max(point.copy for point in chosen if point.time == time) / 1e9 for time in times]
        axes.plot(times, copies, linestyle="--", color="grey", label="copy of the tensors")
        axes.set(xscale="log", yscale="log", xlabel="time steps", ylabel="GB/s that have to move")
        axes.set_xticks(times, [str(time) for time in times])
        axes.set_xticks([], minor=True)
        axes.grid(visible=True, which="both", alpha=0.25)
        axes.legend()
    figure.savefig(path, dpi=150)
