"""Diagonal recurrences on a GPU beside their peers: times, share of the copy bandwidth, memory, errors, first calls.

    python tests/benchmarks/diagonal.py [--only SPEC] [--shape INDEX] [--quick] [--csv FILE] [--plot DIRECTORY]

Random data, medians of many runs, in one run on one GPU; calls are captured in CUDA graphs, so that times are those
of the GPU, whatever the host is (`overhead.py` measures the host).  Peers that are installed (`pip install
'scanc[peers]'`) are timed on the same numbers, laid out as they like; the others say why not.  A gated scan reads and
writes 3 words per element forward and 5 backward; for the selective scan the share of bandwidth counts each input and
output once. First calls are made in processes of their own: with empty caches, and with those that the first one left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import command
import diagonal_cases
import torch
from case import Case
from diagonal_cases import arguments
from diagonal_peers import peers
from measuring import measure
from peer import Peer, as_ours
from rows import Row, View
from torch import Tensor

import scanc

SMALL = (2, 203, 96)  # of the calls that are compared with the oracle
VIEW = View(
    columns={
        "forward": "fwd ms", "backward": "bwd ms", "both": "both ms",
        "forward_share": "fwd %", "backward_share": "bwd %", "peak": "peak GB",
        "cold": "cold s", "warm": "warm s", "error": "error",
    },
    directions=("forward", "backward"),
    place=lambda r, direction: (f"{r.case.dtype_name}, {direction}", r.who),
)  # fmt: skip


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


def beside(case: Case, op: scanc.ScanOperator, bandwidth: float) -> list[Row]:
    """Ours, then every peer."""
    tensors = arguments(case, case.shape, "cuda")

    def judge(peer: Peer | None, call: Callable[[], Tensor]) -> dict[str, Any]:
        if peer is None:
            return {"error": oracle_error(case, op, "cuda")}
        with torch.no_grad():
            return {"error": difference(as_ours(peer, call()), op(**tensors)), "note": "error: against ours"}

    return measure(case, tensors, lambda: op(**tensors), peers(case), judge, bandwidth)


if __name__ == "__main__":
    command.main(__doc__, diagonal_cases, beside, VIEW)
