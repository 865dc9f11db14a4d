"""`precision=` of `compile` and `load`: the least precise arithmetic that a product of float32 numbers may be done in.

Generated kernels multiply in IEEE float32 or wider so far, whatever is asked, and so does the interpreter.  Products on
the torch target are torch's own and follow its settings: a call while these allow less than was asked is refused.
Second derivatives go through torch on every target; those of kernels follow its settings unchecked.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from scanc_runtime.errors import ArgumentError, did_you_mean

Precision = Literal["default", "ieee", "tf32x3", "tf32"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

_RISING = ("default", "bf16", "tf32", "tf32x3", "ieee")
_OF_TORCH = {"highest": "ieee", "high": "tf32", "medium": "bf16"}


def checked(precision: str) -> Precision:
    """A precision that there is; raises `ArgumentError` for any other."""
    for known in PRECISIONS:
        if precision == known:
            return known
    raise ArgumentError(
        f"there is no precision {str(precision)!r}",
        expected=f"one of {', '.join(PRECISIONS)}",
        hint=did_you_mean(str(precision), PRECISIONS),
    )


def require(name: str, wanted: Precision, device: str) -> None:
    """Raises `ArgumentError` if torch may multiply less precisely on a device (`cuda`, `cpu`, …) than is wanted."""
    if wanted == "default":
        return
    given = of_torch(device)
    if _RISING.index(given) < _RISING.index(wanted):
        raise ArgumentError(
            f"{name}: torch may do float32 products in {given} on {device}",
            expected=f"at least {wanted}, the precision that this operator was compiled for",
            hint='torch.set_float32_matmul_precision("highest") makes all of them ieee',
        )


def of_torch(device: str) -> str:
    """What torch's settings let a float32 product on a device be done in: `ieee`, `tf32` or `bf16`."""
    backend = torch.backends.cuda if device == "cuda" else torch.backends.mkldnn
    setting = getattr(getattr(backend, "matmul", None), "fp32_precision", None)
    if setting is None:  # before torch 2.9
        return _OF_TORCH[torch.get_float32_matmul_precision()]
    return "ieee" if setting == "none" else str(setting)
