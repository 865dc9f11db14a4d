"""Plots of measurements as PNG files. Needs matplotlib, which the extra `plot` installs."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
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


def plot(measurements: Sequence[Measurement], title: str, path: Path) -> None:
    """Time per call over sequence length, logarithmic: a panel per direction, a line per form, and the copy."""
    require_matplotlib()
    from matplotlib.figure import Figure

    directions = list(dict.fromkeys(m.case.direction for m in measurements))
    figure = Figure(figsize=(5.5 * len(directions), 4.2), layout="constrained")
    figure.suptitle(title)
    for panel, direction in enumerate(directions):
        axes = figure.add_subplot(1, len(directions), panel + 1, title=direction)
        chosen = [m for m in measurements if m.case.direction == direction]
        for form in dict.fromkeys(m.case.form for m in chosen):
            line = [m for m in chosen if m.case.form == form]
            axes.plot([m.case.time for m in line], [m.timing.median * 1e3 for m in line], marker="o", label=form)
        times = sorted({m.case.time for m in chosen})
        copies = [min(m.copy for m in chosen if m.case.time == time) * 1e3 for time in times]
        axes.plot(times, copies, linestyle="--", color="grey", label="copy of the tensors")
        axes.set(xscale="log", yscale="log", xlabel="time steps", ylabel="milliseconds")
        axes.set_xticks(times, [str(time) for time in times])
        axes.set_xticks([], minor=True)
        axes.grid(visible=True, which="both", alpha=0.25)
        axes.legend()
    figure.savefig(path, dpi=150)
