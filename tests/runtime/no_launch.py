"""A GPU that is not there: Triton compiles for it, and launches nothing; tensors stay on the CPU."""

from __future__ import annotations

from typing import Any

import scanc_runtime.launch
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

import scanc.op


class _Utils:
    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 232448, "multiprocessor_count": 132, "warpSize": 32}

    def load_binary(self, name: str, kernel: bytes, shared: int, device: int) -> tuple[int, ...]:
        return 1, 1, 64, 0, 1024


class _Launcher:
    """Notes what is launched: the kernel's name and its arguments that are tensors."""

    def __init__(self, source: Any, metadata: Any) -> None:
        self._name = metadata.name

    def __call__(self, *arguments: Any) -> None:
        launched.append((self._name, [x for x in arguments if isinstance(x, torch.Tensor)]))


class _Driver:
    utils = _Utils()
    launcher_cls = _Launcher

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


launched: list[tuple[str, list[torch.Tensor]]] = []


def install() -> None:
    """From now on; tensors count as those of a GPU where a target is chosen."""
    driver.set_active(_Driver())
    scanc.op._device = lambda tensors: "cuda"
    scanc_runtime.launch._known.clear()
