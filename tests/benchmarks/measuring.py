"""Times, memory and first calls of operators on a GPU, ours and peers' on the same numbers.

Medians of many runs; calls are captured in CUDA graphs, so that times are those of the GPU, whatever the host is
(`overhead.py` measures the host).
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from case import Case, bytes_moved, leaves
from peer import Missing, Peer, Tensors, prepared
from rows import OURS, Row
from torch import Tensor
from triton.testing import do_bench

Judge = Callable[[Peer | None, Callable[[], Tensor]], dict[str, Any]]
"""The error and a note about a call at full size: a peer's, or ours."""


def median(run: Callable[[], Any]) -> float:
    """Milliseconds, the median of many."""
    return float(do_bench(run, warmup=20, rep=80, return_mode="median"))


def copy_bandwidth() -> float:
    """Bytes per millisecond of a device-to-device copy, read and written."""
    source = torch.empty(1 << 31, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    return 2 * source.numel() / median(lambda: target.copy_(source))


def captured(run: Callable[[], Any]) -> Callable[[], None]:
    """A call as a CUDA graph. With gradients no graph of an eager call on the same tensors may be alive."""
    gc.collect()  # graphs that hold themselves
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


def time_all(differentiated: Sequence[Tensor], call: Callable[[], Tensor]) -> dict[str, float]:
    """Forward, backward and both, and the memory that one forward and backward takes beside its arguments.

    Backward is what it adds to a forward that saves for it.
    """
    given = torch.randn_like(call())

    def both() -> Sequence[Tensor]:
        return torch.autograd.grad(call(), differentiated, given)

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


def shares(moved: tuple[int, int], times: dict[str, float], bandwidth: float) -> dict[str, float]:
    """The shares of the copy bandwidth, in percent, of what has to move."""
    words = {"forward": moved[0], "backward": moved[1], "both": sum(moved)}
    return {f"{name}_share": 100 * moved / times[name] / bandwidth for name, moved in words.items()}


def measure(
    case: Case, tensors: Tensors, ours: Callable[[], Tensor], peers: Iterable[Peer], judge: Judge, bandwidth: float
) -> list[Row]:
    """Ours, then every peer on the same numbers.

    Each is timed before it is judged, so that what tunes itself does so at full size.
    """
    moved = bytes_moved(tensors)

    def row(who: str, differentiated: Sequence[Tensor], call: Callable[[], Tensor], peer: Peer | None) -> Row:
        times = time_all(differentiated, call)
        return Row(case, who, **times, **shares(moved, times, bandwidth), **judge(peer, call))

    rows = [row(OURS, list(leaves(tensors).values()), ours, None)]
    for peer in peers:
        try:
            rows.append(row(peer.name, *prepared(peer, tensors), peer))
        except Missing as missing:
            rows.append(Row(case, peer.name, note=str(missing)))
        except Exception as failed:  # a peer's own limits: sizes, dtypes, memory
            rows.append(Row(case, peer.name, note=f"failed: {(str(failed).splitlines() or ['?'])[0]}"))
        torch.cuda.empty_cache()
    return rows


def first_calls(cases: str, case: Case) -> dict[str, float]:
    """Seconds of the first call, forward and backward: cold, with empty caches, and warm, in a second process.

    `cases` names the module that draws the tensors.  Both find the bytecode of all that they import, as an
    installation has it.
    """
    script = Path(__file__).with_name("first_call.py")
    command = [sys.executable, str(script), cases, case.spec, case.dtype_name, "cuda", *map(str, case.shape)]
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
