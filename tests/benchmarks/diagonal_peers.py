"""The published operators that `diagonal.py` runs beside ours, if they are installed (`pip install 'scanc[peers]'`).

Each is called with tensors in the layout that it wants, made before any timing.  Nothing of them is copied here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diagonal_cases import Case
from torch import Tensor

Leaves = dict[str, Tensor]


@dataclass(frozen=True)
class Peer:
    """A function of a package: `lay` makes its tensors from ours, `call` is one forward call, [B, T, D] or [B, D, T].

    `turned`: it works on [B, D, T].
    """

    name: str
    specs: tuple[str, ...]
    module: str
    function: str
    lay: Callable[[Leaves], Leaves]
    call: Callable[[Callable[..., Any], Leaves], Tensor]
    turned: bool = False


def _turned(x: Tensor) -> Tensor:
    return x.transpose(1, 2).contiguous()


def _time_last(tensors: Leaves) -> Leaves:
    """Inputs as [B, channels, T]; params as they are."""
    return {name: _turned(x) if x.dim() == 3 else x for name, x in tensors.items()}


def _log_gates(tensors: Leaves) -> Leaves:
    return {"x": tensors["x"], "g": tensors["a"].float().log().to(tensors["a"].dtype)}


def _selective(run: Callable[..., Any], t: Leaves) -> Tensor:
    options = {"z": t.get("z"), "delta_bias": t["bias"], "delta_softplus": True}
    found: Tensor = run(t["u"], t["delta"], t["A"], t["B"], t["C"], t["D"], **options)
    return found


def _hgrn(run: Callable[..., Any], t: Leaves) -> Tensor:
    found: Tensor = run(t["x"], t["g"])[0]
    return found


def _scan(run: Callable[..., Any], t: Leaves) -> Tensor:
    found: Tensor = run(t["a"], t["x"])
    return found


_MAMBA = "mamba_ssm.ops.selective_scan_interface"
PEERS = (
    Peer("mamba-ssm", ("selective", "selective_z"), _MAMBA, "selective_scan_fn", _time_last, _selective, turned=True),
    Peer("fla chunk_hgrn", ("gated",), "fla.ops.hgrn", "chunk_hgrn", _log_gates, _hgrn),
    Peer("fla fused_recurrent_hgrn", ("gated",), "fla.ops.hgrn", "fused_recurrent_hgrn", _log_gates, _hgrn),
    Peer("accelerated-scan warp", ("gated",), "accelerated_scan.warp", "scan", _time_last, _scan, turned=True),
    Peer("accelerated-scan triton", ("gated",), "accelerated_scan.triton", "scan", _time_last, _scan, turned=True),
)


class Missing(Exception):
    """A peer that is not there, or does not import."""


def peers(case: Case) -> list[Peer]:
    """Those that compute what a case computes."""
    return [peer for peer in PEERS if case.spec in peer.specs]


def prepared(peer: Peer, tensors: Leaves) -> tuple[list[Tensor], Callable[[], Tensor]]:
    """The leaves of a peer's call, and the call. Raises `Missing`."""
    try:
        run = getattr(importlib.import_module(peer.module), peer.function)
    except Exception as error:  # an extension that was built for another torch fails in many ways
        raise Missing(f"skipped: {(str(error).splitlines() or [type(error).__name__])[0]}") from None
    with torch.no_grad():
        laid = {name: x.detach().clone() for name, x in peer.lay(tensors).items()}
    for x in laid.values():
        x.requires_grad_()
    return list(laid.values()), lambda: peer.call(run, laid)


def as_ours(peer: Peer, y: Tensor) -> Tensor:
    """A peer's result as [B, T, D]."""
    return y.transpose(1, 2) if peer.turned else y
