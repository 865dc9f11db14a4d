"""What benchmarks found, a row per operator and case: as a table, as CSV, as plots."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from case import Case
from rich.markup import escape
from rich.table import Table

from scanc.bench.plot import Point, plot

OURS = "scanc"


@dataclass(frozen=True)
class Row:
    """One operator in one case; None is what was not measured.

    Times in ms, shares of the copy bandwidth in percent, memory in GB, first calls in s.
    """

    case: Case
    who: str
    forward: float | None = None
    backward: float | None = None
    both: float | None = None
    forward_share: float | None = None
    backward_share: float | None = None
    both_share: float | None = None
    peak: float | None = None
    cold: float | None = None
    warm: float | None = None
    error: float | None = None
    note: str = ""


@dataclass(frozen=True)
class View:
    """How a benchmark shows its rows: fields with their titles, and what is plotted, in which panel and line."""

    columns: Mapping[str, str]
    directions: tuple[str, ...]
    place: Callable[[Row, str], tuple[str, str]]


def table(rows: Iterable[Row], title: str, view: View) -> Table:
    """A row per operator and case; of peers also how much longer they take than ours."""
    rows = list(rows)
    ours = {r.case: r for r in rows if r.who == OURS}
    found = Table(title=title)
    for column in ("case", "who"):
        found.add_column(column)
    for column in (*view.columns.values(), "of ours, fwd", "both"):
        found.add_column(column, justify="right")
    found.add_column("note")
    for r in rows:
        numbers = [_text(name, getattr(r, name)) for name in view.columns]
        base = ours.get(r.case)
        times = [_ratio(r.forward, base.forward), _ratio(r.both, base.both)] if base and r is not base else ["", ""]
        found.add_row(r.case.label, r.who, *numbers, *times, escape(r.note))
    return found


def _ratio(theirs: float | None, ours: float | None) -> str:
    return f"{theirs / ours:.2f}×" if theirs and ours else ""


def _text(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if name.endswith("share") else f"{value:.1e}" if name == "error" else f"{value:.3g}"


def write_csv(rows: Iterable[Row], path: Path) -> None:
    """Sizes are one column, parted by spaces."""
    measured = [field.name for field in fields(Row) if field.name != "case"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("spec", "shape", "dtype", *measured))
        for r in rows:
            case = r.case.spec, " ".join(map(str, r.case.shape)), r.case.dtype_name
            writer.writerow((*case, *(getattr(r, name) for name in measured)))


def points(rows: Iterable[Row], spec: str, bandwidth: float, view: View) -> list[Point]:
    """Throughput of everything that was measured of a spec."""
    found = []
    for r in rows:
        for direction in view.directions:
            share = getattr(r, f"{direction}_share")
            if r.case.spec == spec and share is not None:
                copy = bandwidth * 1e3
                time = r.case.shape[1]
                found.append(Point(*view.place(r, direction), time, share / 100 * copy, copy, peer=r.who != OURS))
    return found


def write_plots(rows: Sequence[Row], bandwidth: float, title: str, directory: Path, view: View) -> list[Path]:
    """One PNG per spec."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for spec in dict.fromkeys(r.case.spec for r in rows):
        paths.append(directory / f"{spec}.png")
        plot(points(rows, spec, bandwidth, view), f"{spec}, {title}", paths[-1])
    return paths
