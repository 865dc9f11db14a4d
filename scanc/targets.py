"""What a spec can be compiled for."""

from __future__ import annotations

from typing import Literal

TARGETS = ("torch", "triton")
Target = Literal["auto", "torch", "triton"]
"""`auto`: Triton kernels for CUDA tensors, the torch module for all others."""
