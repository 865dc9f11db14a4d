"""The published operators that `matrix.py` runs beside ours, if they are installed (`pip install 'scanc[peers]'`).

What a peer wants in other words than ours (a log decay for its rate) is computed before any timing, in our dtype.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from case import Case
from peer import Peer, Tensors
from torch import Tensor

CHUNK = 256  # what Mamba-2's own module takes


def _as_named(tensors: Tensors) -> Tensors:
    return tensors


def _fixed_decay(t: Tensors) -> Tensors:
    return {"q": t["q"], "k": t["k"], "v": t["v"], "g_gamma": -t["slope"]}


def _log_decay(t: Tensors) -> Tensors:
    return t | {"w": -t["w"].float().exp().to(t["w"].dtype)}


def _ssd(t: Tensors) -> Tensors:
    names = {"x": t["x"], "dt": t["delta"], "B": t["B"], "C": t["C"], "D": t["D"], "dt_bias": t["bias"]}
    return names | {"A": -t["log_A"].exp()}


def _attention(run: Callable[..., Any], t: Tensors) -> Tensor:
    found: Tensor = run(**t, scale=1.0)[0]
    return found


def _unnormalised(run: Callable[..., Any], t: Tensors) -> Tensor:
    found: Tensor = run(**t, scale=1.0, normalize=False)[0]
    return found


def _normalised(run: Callable[..., Any], t: Tensors) -> Tensor:
    found: Tensor = run(**t, scale=1.0, normalize=True)[0]
    return found


def _heads_first(t: Tensors) -> Tensors:
    names = {"q": "q", "k": "k", "v": "v", "ig": "i", "fg": "f"}
    return {name: t[ours].transpose(1, 2).contiguous() for ours, name in names.items()}


def _mlstm(run: Callable[..., Any], t: Tensors) -> Tensor:
    found: Tensor = run(**t, autocast_kernel_dtype=t["q"].dtype)
    return found.transpose(1, 2)


def _mamba(run: Callable[..., Any], t: Tensors) -> Tensor:
    found: Tensor = run(**t, chunk_size=CHUNK, dt_softplus=True)
    return found


def _lift_gated_backward() -> None:
    """Lets fla run its gated backward on Hopper.

    It refuses on Triton 3.4 to 3.7, with which it has seen wrong gradients (fla issue 640); their errors are in our
    table, and say whether these are.  The refusal is the only thing that this version decides in that module.
    """
    importlib.import_module("fla.ops.common.chunk_o").TRITON_ABOVE_3_7_1 = True  # type: ignore[attr-defined]


_LINEAR, _SIMPLE = "fla.ops.linear_attn", "fla.ops.simple_gla"
_XL = "mlstm_kernels.torch.chunkwise.triton_xl_chunk"
_SSD = "mamba_ssm.ops.triton.ssd_combined"
PEERS = (
    Peer("fla linear_attn", ("linear",), _LINEAR, "chunk_linear_attn", _as_named, _unnormalised),
    Peer("fla simple_gla, fixed", ("lightning",), _SIMPLE, "chunk_simple_gla", _fixed_decay, _attention),
    Peer("fla simple_gla", ("gate",), _SIMPLE, "chunk_simple_gla", _as_named, _attention, lift=_lift_gated_backward),
    Peer("fla gla", ("gla",), "fla.ops.gla", "chunk_gla", _as_named, _attention),
    Peer("fla rwkv6", ("rwkv6",), "fla.ops.rwkv6", "chunk_rwkv6", _log_decay, _attention),
    Peer("fla linear_attn, normalised", ("normalised",), _LINEAR, "chunk_linear_attn", _as_named, _normalised),
    Peer("mlstm-kernels", ("mlstm",), _XL, "mlstm_chunkwise__xl_chunk", _heads_first, _mlstm),
    Peer("fla gsa", ("slots",), "fla.ops.gsa", "chunk_gsa", _as_named, _attention),
    Peer("mamba-ssm", ("mamba2",), _SSD, "mamba_chunk_scan_combined", _ssd, _mamba),
)


def peers(case: Case) -> list[Peer]:
    """Those that compute what a case computes."""
    return [peer for peer in PEERS if case.spec in peer.specs]
