"""The command line of a benchmark: chooses cases, measures them, and shows what it found."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import torch
from case import Case
from measuring import copy_bandwidth, first_calls
from rich.console import Console
from rich.progress import track
from rows import Row, View, table, write_csv, write_plots

import scanc

Measure = Callable[[Case, scanc.ScanOperator, float], list[Row]]
"""Ours and its peers in one case, at a bandwidth."""


def main(about: str | None, cases: ModuleType, measure: Measure, view: View) -> None:
    """`cases` has SPECS, and `cases` that chooses among them; `measure` returns our row first."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(cases.SPECS), help="one spec")
    parser.add_argument("--shape", type=int, metavar="INDEX", help="one shape of each spec, counted from 0")
    parser.add_argument("--quick", action="store_true", help="one shape and dtype of each spec, no first calls")
    parser.add_argument("--csv", type=Path, help="where to write the table")
    parser.add_argument("--plot", type=Path, help="a directory for a plot per spec")
    options = parser.parse_args()
    chosen = cases.cases(options.only, index=options.shape, quick=options.quick)
    if not chosen:
        parser.error(f"no spec has a shape {options.shape}")
    console = Console(width=200)
    bandwidth = copy_bandwidth()
    rows: list[Row] = []
    timed: set[tuple[str, str]] = set()
    for case in track(chosen, "measuring", console=console):
        ours, *others = measure(case, scanc.compile(cases.SPECS[case.spec], target="triton"), bandwidth)
        if not options.quick and (case.spec, case.dtype_name) not in timed:  # they depend on sizes little
            timed.add((case.spec, case.dtype_name))
            ours = replace(ours, **first_calls(cases.__name__, case))
        rows += [ours, *others]
        console.print(f"{case.label}: forward {ours.forward:.3g} ms, with backward {ours.both:.3g} ms", markup=False)
        torch.cuda.empty_cache()
        if options.csv:
            write_csv(rows, options.csv)
    title = f"copy bandwidth {bandwidth / 1e9:.2f} TB/s; {torch.cuda.get_device_name()}"
    console.print(table(rows, title, view))
    for path in write_plots(rows, bandwidth, title, options.plot, view) if options.plot else []:
        console.print(str(path))
