"""Recurrences with a matrix as state on a GPU beside their peers: times, memory, errors, first calls.

    python tests/benchmarks/matrix.py [--only SPEC] [--shape INDEX] [--quick] [--csv FILE] [--plot DIRECTORY]

S = decay*S + k*v, o = q·S, with no decay, a fixed one, a gate per head, a gate per key feature (GLA, RWKV-6), and
Mamba-2; bf16, our form as `auto` picks it.  Random data, medians of many runs, in one run on one GPU, in CUDA graphs.
The floor is each input read once and each output written once at the measured copy bandwidth, forward and with
backward; percent is how much of the time it would take.  Peers that are installed (`pip install 'scanc[peers]'`) get
the same numbers; fla tunes itself for a minute or more at first.  Errors are relative L2 norms of the output and of
each gradient against our torch target in fp64 on the same numbers, of ours and of peers, at a short length.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import command
import matrix_cases
import torch
from case import Case, leaves
from matrix_cases import SPECS, arguments
from matrix_peers import peers
from measuring import measure
from peer import Peer, Tensors, load
from rows import Row, View
from torch import Tensor

import scanc

SHORT = (2, 512)  # batch and time of the calls that are compared with fp64
VIEW = View(
    columns={
        "forward": "fwd ms", "both": "both ms", "forward_share": "fwd %", "both_share": "both %",
        "peak": "peak GB", "cold": "cold s", "warm": "warm s", "error": "worst",
    },
    directions=("forward", "both"),
    place=lambda r, direction: (direction, f"{r.who}, {r.case.shape[3]}×{r.case.shape[4]}"),
)  # fmt: skip
Call = Callable[[Tensors], Tensor]


def results(tensors: Tensors, call: Call, given: Tensor) -> Tensors:
    """The output, and the gradient of each tensor that takes one."""
    differentiated = leaves(tensors)
    y = call(tensors)
    gradients = torch.autograd.grad(y, list(differentiated.values()), given)
    return {"output": y.detach()} | dict(zip(differentiated, gradients, strict=True))


def oracle(case: Case, length: tuple[int, int], device: str) -> tuple[Tensors, Tensor, Tensors]:
    """Tensors, the output's gradient, and the results of both in fp64."""
    tensors = arguments(case, (*length, *case.shape[2:]), device, seed=1)
    first = next(iter(tensors.values()))
    given = torch.randn(first.shape, generator=torch.Generator(device).manual_seed(2), device=device).to(case.dtype)
    op = scanc.compile(SPECS[case.spec], target="torch")
    wide = {name: x.double() for name, x in tensors.items()}
    return tensors, given, results(wide, lambda t: op(**t), given.double())


def distance(found: Tensor, wanted: Tensor) -> float:
    """Relative, in the L2 norm."""
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def judged(found: Tensors, wanted: Tensors) -> dict[str, Any]:
    """The worst error, and all of them in a note."""
    errors = {name: distance(x, wanted[name]) for name, x in found.items()}
    worst = max(errors.values(), key=lambda error: (error != error, error))  # one that is no number is the worst
    return {"error": worst, "note": ", ".join(f"{name} {error:.1e}" for name, error in errors.items())}


def beside(case: Case, op: scanc.ScanOperator, bandwidth: float) -> list[Row]:
    """Ours, then every peer."""
    tensors = arguments(case, case.shape, "cuda")
    short, given, wanted = oracle(case, SHORT, "cuda")

    def judge(peer: Peer | None, call: Callable[[], Tensor]) -> dict[str, Any]:
        if peer is None:
            return judged(results(short, lambda t: op(**t), given), wanted)
        theirs = load(peer)
        found = judged(results(short, lambda t: theirs(peer.lay(t)), given), wanted)
        with torch.no_grad():
            found["note"] += f"; at full size {distance(call(), op(**tensors)):.1e} from ours"
        return found

    return measure(case, tensors, lambda: op(**tensors), peers(case), judge, bandwidth)


if __name__ == "__main__":
    command.main(__doc__, matrix_cases, beside, VIEW)
