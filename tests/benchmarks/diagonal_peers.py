"""The published operators that `diagonal.py` runs beside ours, if they are installed (`pip install 'scanc[peers]'`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from case import Case
from peer import Peer, Tensors
from torch import Tensor


def _turned(x: Tensor) -> Tensor:
    return x.transpose(1, 2).contiguous()


def _time_last(tensors: Tensors) -> Tensors:
    """Inputs as [B, channels, T]; params as they are."""
    return {name: _turned(x) if x.dim() == 3 else x for name, x in tensors.items()}


def _log_gates(tensors: Tensors) -> Tensors:
    return {"x": tensors["x"], "g": tensors["a"].float().log().to(tensors["a"].dtype)}


def _selective(run: Callable[..., Any], t: Tensors) -> Tensor:
    options = {"z": t.get("z"), "delta_bias": t["bias"], "delta_softplus": True}
    found: Tensor = run(t["u"], t["delta"], t["A"], t["B"], t["C"], t["D"], **options)
    return found


def _hgrn(run: Callable[..., Any], t: Tensors) -> Tensor:
    found: Tensor = run(t["x"], t["g"])[0]
    return found


def _scan(run: Callable[..., Any], t: Tensors) -> Tensor:
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


def peers(case: Case) -> list[Peer]:
    """Those that compute what a case computes."""
    return [peer for peer in PEERS if case.spec in peer.specs]
