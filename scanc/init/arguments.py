"""What all initialisers ask of their arguments: sizes, ranges, dtypes; and uniform random numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scanc_runtime.errors import ArgumentError
from torch import Tensor

PAIRS = "a real system of N states is diagonalised into N/2 conjugate pairs"


def whole(name: str, value: int, least: int = 1) -> None:
    """Raises where a size is no integer of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ArgumentError(f"{name} is not a size", expected=f"an integer of at least {least}", got=repr(value))


def even(N: int, why: str = PAIRS) -> None:
    """Raises where N is no even number of states."""
    whole("N", N, 2)
    if N % 2:
        raise ArgumentError("N is odd", expected="an even number of states", got=str(N), hint=why)


def within(name: str, value: float, low: float, high: float, ends: str = "()") -> None:
    """Raises where a number is not between `low` and `high`; square brackets among `ends` include that end."""
    above = value > low or (ends[0] == "[" and value == low)
    below = value < high or (ends[1] == "]" and value == high)
    if not (above and below):
        allowed = f"{ends[0]}{low:g}, {high:g}{ends[1]}"
        raise ArgumentError(f"{name} is out of range", expected=f"a number in {allowed}", got=repr(value))


def ascending(low_name: str, low: float, high_name: str, high: float) -> None:
    """Raises where the ends of a range are in the wrong order."""
    if low > high:
        raise ArgumentError(
            f"{low_name} exceeds {high_name}", expected=f"{low_name} <= {high_name}", got=f"{low!r} > {high!r}"
        )


def real_dtype(dtype: torch.dtype | None) -> torch.dtype:
    """The floating dtype of a real result; None is torch's default dtype."""
    dtype = dtype or torch.get_default_dtype()
    if not dtype.is_floating_point:
        raise ArgumentError("the result is real", expected="a floating dtype", got=str(dtype))
    return dtype


def complex_dtype(dtype: torch.dtype | None) -> torch.dtype:
    """The dtype of a complex result: as given, or the complex one of a floating dtype's precision."""
    dtype = dtype or torch.get_default_dtype()
    if dtype.is_complex:
        return dtype
    if dtype not in (torch.float16, torch.float32, torch.float64):
        raise ArgumentError("the result is complex", expected="a complex dtype", got=str(dtype))
    return dtype.to_complex()


def count(N: int) -> Tensor:
    """0, 1, …, N - 1 in float64 on the CPU, whatever torch's default device is."""
    return torch.arange(N, dtype=torch.float64, device="cpu")


def uniform(shape: int | Sequence[int], generator: torch.Generator | None) -> Tensor:
    """Random numbers in (0, 1), without both ends, in float64 on the CPU; `generator` is a CPU generator."""
    size = (shape,) if isinstance(shape, int) else tuple(shape)
    drawn = torch.rand(size, dtype=torch.float64, device="cpu", generator=generator)
    return drawn.clamp_(min=torch.finfo(torch.float64).eps / 2)
