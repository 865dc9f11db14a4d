"""A published operator that runs beside ours, if it is installed.  Nothing of any is copied here.

Each is called with tensors in the layout that it wants, made before any timing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from case import leaves
from torch import Tensor

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Peer:
    """A function of a package: `lay` makes its tensors from ours, `call` is one forward call on them.

    `turned`: it works on [B, D, T].  `lift` lifts what would keep it from running.
    """

    name: str
    specs: tuple[str, ...]
    module: str
    function: str
    lay: Callable[[Tensors], Tensors]
    call: Callable[[Callable[..., Any], Tensors], Tensor]
    turned: bool = False
    lift: Callable[[], None] | None = None


class Missing(Exception):
    """A peer that is not there, or does not import."""


def load(peer: Peer) -> Callable[[Tensors], Tensor]:
    """A peer's call, on tensors laid out for it. Raises `Missing`."""
    try:
        run = getattr(importlib.import_module(peer.module), peer.function)
        if peer.lift:
            peer.lift()
    except Exception as error:  # an extension that was built for another torch fails in many ways
        raise Missing(f"skipped: {(str(error).splitlines() or [type(error).__name__])[0]}") from None
    return lambda laid: peer.call(run, laid)


def prepared(peer: Peer, tensors: Tensors) -> tuple[list[Tensor], Callable[[], Tensor]]:
    """The leaves of a peer's call, and the call. Raises `Missing`."""
    call = load(peer)
    with torch.no_grad():
        laid = {name: x.detach().clone() for name, x in peer.lay(tensors).items()}
    return list(leaves(laid).values()), lambda: call(laid)


def as_ours(peer: Peer, y: Tensor) -> Tensor:
    """A peer's result in our layout."""
    return y.transpose(1, 2) if peer.turned else y
