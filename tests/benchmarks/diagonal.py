"""Diagonal recurrences on a GPU beside their peers: times, share of the copy bandwidth, memory, errors, first calls.

    python tests/benchmarks/diagonal.py [--only SPEC] [--quick] [--csv FILE] [--plot DIRECTORY]

Random data, medians of many runs, in one run on one GPU; calls are captured in CUDA graphs, so that times are those
of the GPU, whatever the host is (`overhead.py` measures the host).  Peers that are installed (`pip install
'scanc[peers]'`) are timed on the same numbers, laid out as they like; the others say why not.  A gated scan reads and
writes 3 words per element forward and 5 backward; for the selective scan the share of bandwidth counts each input and
output once. First calls are made in processes of their own: with empty caches, and with those that the first one left.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from diagonal_cases import SPECS, Case, arguments, bytes_moved, cases
from diagonal_peers import Missing, as_ours, peers, prepared
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from triton.testing import do_bench

import scanc
from scanc.bench.plot import Point, plot

OURS = "scanc"
SMALL = (2, 203, 96)  # of the calls that are compared with the oracle


@dataclass(frozen=True)
class Row:
    """One operator in one case.  Times in ms, memory in GB, first calls in s; None is what was not measured."""

    spec: str
    batch: int
    time: int
    channels: int
    dtype: str
    who: str
    forward: float | None = None
    backward: float | None = None
    both: float | None = None
    forward_share: float | None = None
    backward_share: float | None = None
    peak: float | None = None
    cold: float | None = None
    warm: float | None = None
    error: float | None = None
    note: str = ""


def row(case: Case, who: str, **measured: Any) -> Row:
    return Row(case.spec, *case.shape, case.dtype_name, who, **measured)


def median(run: Callable[[], Any]) -> float:
    """Milliseconds, the median of many."""
    return float(do_bench(run, warmup=20, rep=80, return_mode="median"))


def copy_bandwidth() -> float:
    """Bytes per millisecond of a device-to-device copy, read and written."""
    source = torch.empty(1 << 31, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    return 2 * source.numel() / median(lambda: target.copy_(source))


def captured(run: Callable[[], Any]) -> Callable[[], None]:
    """A call as a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # compiles, tunes, and warms up
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        run()
    return graph.replay


def time_all(leaves: Sequence[Tensor], call: Callable[[], Tensor]) -> dict[str, float]:
    """Forward, backward and both, and the memory that one forward and backward takes beside its arguments.

    Backward is what it adds to a forward that saves for it.
    """
    given = torch.randn_like(call())

    def both() -> Sequence[Tensor]:
        return torch.autograd.grad(call(), leaves, given)

    both()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    base = torch.cuda.memory_allocated()
    both()
    peak = (torch.cuda.max_memory_allocated() - base) / 1e9
    with torch.no_grad():
        forward = median(captured(call))
    saving, whole = median(captured(call)), median(captured(both))
    return {"forward": forward, "backward": whole - saving, "both": whole, "peak": peak}


def shares(case: Case, tensors: dict[str, Tensor], times: dict[str, float], bandwidth: float) -> dict[str, float]:
    """The shares of the copy bandwidth, in percent, of forward and backward."""
    forward, backward = bytes_moved(tensors)
    return {
        "forward_share": 100 * forward / times["forward"] / bandwidth,
        "backward_share": 100 * backward / times["backward"] / bandwidth,
    }


def oracle_error(case: Case, op: scanc.ScanOperator, device: str) -> float:
    """The largest error of a value or a gradient against the fp64 oracle, relative to the largest value."""
    tensors = arguments(case, SMALL, device, seed=1)
    wide = {name: _wide(x).cpu().requires_grad_() for name, x in tensors.items()}
    near = {name: x.requires_grad_() for name, x in tensors.items()}
    wanted, found = op(**wide, form="interpret"), op(**near)
    given = torch.randn(wanted.shape, dtype=wanted.dtype)
    pairs = [(found, wanted)]
    pairs += zip(
        torch.autograd.grad(found, list(near.values()), given.to(found)),
        torch.autograd.grad(wanted, list(wide.values()), _wide(given.to(found)).cpu()),
        strict=True,
    )
    return max(difference(a, b) for a, b in pairs)


def difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference over the largest entry of the second."""
    theirs = theirs.detach()
    return float((_wide(ours.detach()).to(theirs.device) - _wide(theirs)).abs().max() / theirs.abs().max())


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.complex128) if x.is_complex() else x.double()


def first_calls(case: Case) -> dict[str, float]:
    """Seconds of the first call, forward and backward: cold, with empty caches, and warm, in a second process.

    Both find the bytecode of all that they import, as an installation has it.
    """
    script = Path(__file__).with_name("diagonal_first.py")
    command = [sys.executable, str(script), case.spec, *map(str, case.shape), case.dtype_name]
    found = {}
    with tempfile.TemporaryDirectory() as cache:
        caches = {"SCANC_CACHE_DIR": f"{cache}/scanc", "TRITON_CACHE_DIR": f"{cache}/triton"}
        environment = os.environ | caches | {"PYTHONPYCACHEPREFIX": f"{cache}/bytecode", "PYTHONDONTWRITEBYTECODE": ""}
        imports = "import torch.fx.experimental.symbolic_shapes, triton, scanc.driver, scanc_runtime.operator"
        subprocess.run([sys.executable, "-c", imports], env=environment, check=True)
        for name in ("cold", "warm"):
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            found[name] = float(done.stdout.split()[-1])
    return found


def measure(case: Case, op: scanc.ScanOperator, bandwidth: float) -> list[Row]:
    """Ours, then every peer on the same numbers."""
    tensors = {name: x.requires_grad_() for name, x in arguments(case, case.shape, "cuda").items()}
    times = time_all(list(tensors.values()), lambda: op(**tensors))
    rows = [row(case, OURS, **times, **shares(case, tensors, times, bandwidth), error=oracle_error(case, op, "cuda"))]
    with torch.no_grad():
        wanted = op(**tensors)
    for peer in peers(case):
        try:
            leaves, call = prepared(peer, tensors)
            with torch.no_grad():
                away = difference(as_ours(peer, call()), wanted)
            times = time_all(leaves, call)
        except Missing as missing:
            rows.append(row(case, peer.name, note=str(missing)))
        except Exception as failed:  # a peer's own limits: sizes, dtypes, memory
            rows.append(row(case, peer.name, note=f"failed: {(str(failed).splitlines() or ['?'])[0]}"))
        else:
            of_copy = shares(case, tensors, times, bandwidth)
            rows.append(row(case, peer.name, **times, **of_copy, error=away, note="error: against ours"))
        torch.cuda.empty_cache()
    return rows


COLUMNS = {
    "forward": "fwd ms", "backward": "bwd ms", "both": "both ms", "forward_share": "fwd %", "backward_share": "bwd %",
    "peak": "peak GB", "cold": "cold s", "warm": "warm s", "error": "error",
}  # fmt: skip


def table(rows: Iterable[Row], title: str) -> Table:
    """A row per operator and case; of peers also how much longer they take than ours."""
    rows = list(rows)
    ours = {_case(r): r for r in rows if r.who == OURS}
    found = Table(title=title)
    for column in ("case", "who"):
        found.add_column(column)
    for column in (*COLUMNS.values(), "of ours, fwd", "both"):
        found.add_column(column, justify="right")
    found.add_column("note")
    for r in rows:
        numbers = [_text(name, getattr(r, name)) for name in COLUMNS]
        base = ours.get(_case(r))
        times = (
            [_ratio(r.forward, base and base.forward), _ratio(r.both, base and base.both)]
            if r is not base
            else ["", ""]
        )
        found.add_row(f"{r.spec} {(r.batch, r.time, r.channels)} {r.dtype}", r.who, *numbers, *times, r.note)
    return found


def _case(r: Row) -> tuple[object, ...]:
    return r.spec, r.batch, r.time, r.channels, r.dtype


def _ratio(theirs: float | None, ours: float | None) -> str:
    return f"{theirs / ours:.2f}×" if theirs and ours else ""


def _text(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if name.endswith("share") else f"{value:.1e}" if name == "error" else f"{value:.3g}"


def write_csv(rows: Iterable[Row], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(r) for r in rows)


def points(rows: Iterable[Row], spec: str, bandwidth: float) -> list[Point]:
    """Throughput of everything that was measured of a spec; a panel per dtype and direction."""
    found = []
    for r in rows:
        for direction, share in (("forward", r.forward_share), ("backward", r.backward_share)):
            if r.spec == spec and share is not None:
                copy = bandwidth * 1e3
                panel = f"{r.dtype}, {direction}"
                found.append(Point(panel, r.who, r.time, share / 100 * copy, copy, peer=r.who != OURS))
    return found


def write_plots(rows: Sequence[Row], bandwidth: float, title: str, directory: Path) -> list[Path]:
    """One PNG per spec."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for spec in dict.fromkeys(r.spec for r in rows):
        paths.append(directory / f"{spec}.png")
        plot(points(rows, spec, bandwidth), f"{spec}, {title}", paths[-1])
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(SPECS), help="one spec")
    parser.add_argument("--quick", action="store_true", help="one shape and dtype of each spec, no first calls")
    parser.add_argument("--csv", type=Path, help="where to write the table")
    parser.add_argument("--plot", type=Path, help="a directory for a plot per spec")
    options = parser.parse_args()
    console = Console(width=200)
    bandwidth = copy_bandwidth()
    operators = {spec: scanc.compile(text, target="triton") for spec, text in SPECS.items()}
    rows: list[Row] = []
    timed: set[tuple[str, str]] = set()
    for case in track(cases(options.only, quick=options.quick), "measuring", console=console):
        ours, *others = measure(case, operators[case.spec], bandwidth)
        if not options.quick and (case.spec, case.dtype_name) not in timed:  # they depend on sizes little
            timed.add((case.spec, case.dtype_name))
            ours = replace(ours, **first_calls(case))
        rows += [ours, *others]
        console.print(f"{case.label}: forward {ours.forward:.3g} ms, with backward {ours.both:.3g} ms", markup=False)
        torch.cuda.empty_cache()
        if options.csv:
            write_csv(rows, options.csv)
    title = f"copy bandwidth {bandwidth / 1e9:.2f} TB/s; {torch.cuda.get_device_name()}"
    console.print(table(rows, title))
    for path in write_plots(rows, bandwidth, title, options.plot) if options.plot else []:
        console.print(str(path))


if __name__ == "__main__":
    main()
