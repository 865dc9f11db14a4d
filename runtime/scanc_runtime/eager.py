"""Calls that go around torch's dispatcher, because it would do no more than call the function behind the op.

torch.compile, torch.func, forward-mode AD, modes, subclasses, tracing and profilers need to see the registered op; so
do lazy conjugates and negations, which the dispatcher writes out.  A plain call has none of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

_ASKED = {
    torch._C: "DispatchKey DispatchKeySet _ExcludeDispatchKeyGuard _are_functorch_transforms_active _dispatch_keys "
    "_get_tracing_state _len_torch_dispatch_stack",
    torch._C._autograd: "_profiler_enabled",
    forward_ad: "_current_level",
}
# None of these is public: where a torch lacks one, every call goes through the dispatcher.
_ABLE = all(hasattr(module, name) for module, names in _ASKED.items() for name in names.split())
_plain: set[int] = set()  # the dispatch keys that tensors have if there is nothing special about them


def without_records() -> AbstractContextManager[Any]:
    """A context in which torch records no gradients and no views: results are tensors of their own."""
    return torch._C._ExcludeDispatchKeyGuard(_records())


@cache
def _records() -> Any:
    """The dispatch keys by which torch records gradients and views, on any device."""
    key, keys = torch._C.DispatchKey, torch._C.DispatchKeySet
    return keys(key.AutogradCPU) | keys(key.ADInplaceOrView)


def is_plain(tensors: Sequence[Tensor | None]) -> bool:
    """Whether a call of an op with these tensors, here and now, is nothing but a call of its function."""
    torch_c = torch._C
    if (
        not _ABLE
        or torch_c._len_torch_dispatch_stack()
        or torch_c._are_functorch_transforms_active()
        or torch.overrides.has_torch_function(tensors)
        or torch_c._get_tracing_state() is not None
        or torch_c._autograd._profiler_enabled()
        or forward_ad._current_level >= 0
    ):
        return False
    for tensor in tensors:
        if tensor is not None and torch_c._dispatch_keys(tensor).raw_repr() not in _plain and not _learn(tensor):
            return False
    return True


def _learn(tensor: Tensor) -> bool:
    """Whether a tensor of dispatch keys that were not met before has those of any dense tensor on its device."""
    device = tensor.device
    if device.type == "meta":
        return False
    keys = set()
    for inference in (False, True):
        with torch.inference_mode(inference):
            keys.add(torch._C._dispatch_keys(torch.empty(0, device=device)).raw_repr())
    _plain.update(keys)
    return torch._C._dispatch_keys(tensor).raw_repr() in keys
