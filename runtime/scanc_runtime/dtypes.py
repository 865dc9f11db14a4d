"""Which dtypes a tensor may have, and which a call computes in and returns.

Arithmetic and states are fp32, or fp64 if any floating tensor is; outputs have the promoted dtype of
the inputs whose dtype the spec does not pin.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from scanc_runtime.spec import TensorKind, TensorSpec

ADMITTED: dict[TensorKind, tuple[torch.dtype, ...]] = {
    "real": (torch.float32, torch.bfloat16, torch.float16, torch.float64),
    "complex": (torch.complex64, torch.complex128),
    "int": (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8),
    "bool": (torch.bool,),
}
_DOUBLE = (torch.float64, torch.complex128)
_FLOATING: dict[torch.dtype, torch.dtype] = {dtype: dtype for dtype in ADMITTED["real"]} | {
    torch.complex64: torch.float32,
    torch.complex128: torch.float64,
}


def differentiable(decl: TensorSpec) -> bool:
    """Whether values of this declaration have gradients."""
    return decl.kind in ("real", "complex")


def dtype_name(dtype: object) -> str:
    """A dtype as messages name it: `float32`."""
    return str(dtype).removeprefix("torch.")


def admitted(decl: TensorSpec, dtype: torch.dtype) -> bool:
    """Whether a tensor of this dtype may stand for the declaration: of its kind, and no narrower than its pin."""
    if dtype not in ADMITTED[decl.kind]:
        return False
    return decl.pin is None or torch.promote_types(getattr(torch, decl.pin), dtype) == dtype


def compute_dtype(dtypes: Iterable[torch.dtype]) -> torch.dtype:
    """The real dtype of arithmetic and states, from the dtypes of all inputs and params."""
    return torch.float64 if any(dtype in _DOUBLE for dtype in dtypes) else torch.float32


def value_dtype(kind: str, real: torch.dtype) -> torch.dtype:
    """The dtype of a value of this kind where real numbers are `real`."""
    if kind == "complex":
        return torch.complex128 if real == torch.float64 else torch.complex64
    if kind == "int":
        return torch.int64
    return torch.bool if kind == "bool" else real


def promoted_dtype(inputs: Sequence[TensorSpec], dtypes: Sequence[torch.dtype], compute: torch.dtype) -> torch.dtype:
    """The real dtype of outputs: the unpinned floating inputs promoted, or `compute` if there are none."""
    promoted: torch.dtype | None = None
    for decl, dtype in zip(inputs, dtypes, strict=True):
        if decl.pin is None and dtype in _FLOATING:
            real = _FLOATING[dtype]
            promoted = real if promoted is None else torch.promote_types(promoted, real)
    return compute if promoted is None else promoted
