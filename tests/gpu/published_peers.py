"""The published operators that our results are held beside, if they are installed (`pip install 'scanc[peers]'`).

Each takes our tensors and initial states, and gives the output and final states in our names and layouts, so that
gradients come in them too.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpu.published_suites import LAYER, LAYERS, Tensors


@dataclass(frozen=True)
class Peer:
    """A function of a module, and how it is called."""

    module: str
    function: str
    call: Callable[[Callable[..., Any], Tensors, Tensors], Tensors]


class Missing(Exception):
    """A peer that is not there, or does not import."""


def load(suite: str) -> Callable[[Tensors, Tensors], Tensors]:
    """A call of the suite's peer. Raises `Missing`."""
    peer = PEERS[suite]
    try:
        run = getattr(importlib.import_module(peer.module), peer.function)
        if suite in _REFUSED:
            _lift_refusal()
    except Exception as error:  # an extension that was built for another torch fails in many ways
        raise Missing(f"{peer.module}: {(str(error).splitlines() or [type(error).__name__])[0]}") from None
    return lambda tensors, states: peer.call(run, tensors, states)


_REFUSED = ("simple_gla",)


def _lift_refusal() -> None:
    """Lets fla run its gated backward on Hopper, which it refuses on Triton 3.4 to 3.7 (fla issue 640).

    Its errors tell whether its gradients are wrong; the refusal is all that this version decides in that module.
    """
    importlib.import_module("fla.ops.common.chunk_o").TRITON_ABOVE_3_7_1 = True  # type: ignore[attr-defined]


def _attention(run: Callable[..., Any], tensors: Tensors, states: Tensors, **options: Any) -> Tensors:
    output, final = run(**tensors, scale=1.0, initial_state=states["S"], output_final_state=True, **options)
    return {"output": output, "final S": final}


def _linear(run: Callable[..., Any], tensors: Tensors, states: Tensors) -> Tensors:
    return _attention(run, tensors, states, normalize=False)


def _retention(run: Callable[..., Any], tensors: Tensors, states: Tensors) -> Tensors:
    return _attention(run, {name: tensors[name] for name in "qkv"}, states)


def _lightning(run: Callable[..., Any], tensors: Tensors, states: Tensors) -> Tensors:
    qkv = {name: tensors[name] for name in "qkv"}
    return _attention(run, qkv, states, layer_idx=LAYER, num_layers=LAYERS)


def _gsa(run: Callable[..., Any], tensors: Tensors, states: Tensors) -> Tensors:
    initial = states["K"], states["V"]
    output, (keys, values) = run(**tensors, scale=1.0, initial_state=initial, output_final_state=True)
    return {"output": output, "final K": keys, "final V": values}


def _based(run: Callable[..., Any], tensors: Tensors, states: Tensors) -> Tensors:
    return {"output": run(**tensors, scale=1.0, use_norm=True)}


def _hgrn(run: Callable[..., Any], tensors: Tensors, states: Tensors) -> Tensors:
    output, final = run(**tensors, initial_state=states["h"], output_final_state=True)
    return {"output": output, "final h": final}


def _ssd(run: Callable[..., Any], tensors: Tensors, states: Tensors) -> Tensors:
    given = {name: tensors[name] for name in "xBCD"}
    given |= {"dt": tensors["delta"], "A": -tensors["log_A"].exp(), "dt_bias": tensors["bias"]}
    initial = states["h"].transpose(-1, -2).contiguous()
    options = {"chunk_size": 256, "dt_softplus": True, "return_final_states": True}
    output, final = run(**given, initial_states=initial, **options)
    return {"output": output, "final h": final.transpose(-1, -2)}


def _selective(run: Callable[..., Any], tensors: Tensors, states: Tensors) -> Tensors:
    turned = {name: tensors[name].transpose(1, 2).contiguous() for name in ("u", "delta", "z")}
    shared = {name: tensors[name].permute(0, 2, 3, 1).contiguous() for name in "BC"}
    options = {"delta_bias": tensors["bias"], "delta_softplus": True, "return_last_state": True}
    output, final = run(**turned, **shared, A=tensors["A"], D=tensors["D"], **options)
    return {"output": output.transpose(1, 2), "final h": final}


PEERS = {
    "linear_attn": Peer("fla.ops.linear_attn", "chunk_linear_attn", _linear),
    "retention": Peer("fla.ops.retention", "chunk_retention", _retention),
    "lightning_attn": Peer("fla.ops.lightning_attn", "chunk_lightning_attn", _lightning),
    "simple_gla": Peer("fla.ops.simple_gla", "chunk_simple_gla", _attention),
    "gla": Peer("fla.ops.gla", "chunk_gla", _attention),
    "rwkv6": Peer("fla.ops.rwkv6", "chunk_rwkv6", _attention),
    "gsa": Peer("fla.ops.gsa", "chunk_gsa", _gsa),
    "based": Peer("fla.ops.based", "fused_chunk_based", _based),
    "hgrn": Peer("fla.ops.hgrn", "fused_recurrent_hgrn", _hgrn),
    "ssd": Peer("mamba_ssm.ops.triton.ssd_combined", "mamba_chunk_scan_combined", _ssd),
    "selective_scan": Peer("mamba_ssm.ops.selective_scan_interface", "selective_scan_fn", _selective),
}
