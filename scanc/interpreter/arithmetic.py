"""What the interpreter needs of an array library; `numpy_arithmetic` and `torch_arithmetic` supply it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from scanc.ir.nodes import Kind

Array = Any


class Arithmetic(ABC):
    """Elementwise functions by their name in `functions.TABLE`, and the few structural operations."""

    functions: ClassVar[Mapping[str, Callable[..., Array]]]

    def map(self, fn: str, *args: Array) -> Array:
        """An elementwise function of `functions.TABLE`; arguments broadcast."""
        return self.functions[fn](*args)

    @abstractmethod
    def array(self, value: Any, kind: Kind) -> Array:
        """`value` (a number or an array) with elements of `kind`, in the compute dtype."""

    @abstractmethod
    def full(self, shape: Sequence[int], value: Any, kind: Kind) -> Array:
        """An array of one value, with elements of `kind`, in the compute dtype."""

    @abstractmethod
    def reduce(self, fn: str, x: Array, dims: Sequence[int]) -> Array:
        """A reduction of `functions.REDUCTIONS` over `dims`, which go away."""

    @abstractmethod
    def extremum(self, fn: str, x: Array, dims: Sequence[int]) -> Array:
        """True at the lowest index of the `max` or `min` over `dims`, false elsewhere."""

    @abstractmethod
    def transpose(self, x: Array, order: Sequence[int]) -> Array:
        """The array with its dimensions in the given order."""

    @abstractmethod
    def expand(self, x: Array, shape: Sequence[int]) -> Array:
        """The array with dimensions of size one repeated up to `shape`."""

    @abstractmethod
    def stack(self, xs: Sequence[Array], dim: int) -> Array:
        """Arrays of one shape laid along a new dimension."""

    @abstractmethod
    def identity(self, n: int) -> Array:
        """The real n × n matrix of ones on the diagonal."""

    @abstractmethod
    def inverse(self, x: Array) -> Array:
        """x⁻¹ for x[..., n, n]."""

    @abstractmethod
    def solve(self, a: Array, b: Array) -> Array:
        """a⁻¹ b for a[..., n, n] and a vector b[..., n]."""


def moved_last(rank: int, dims: Sequence[int]) -> tuple[list[int], list[int]]:
    """The permutation that brings `dims` to the end, in their order, and its inverse."""
    order = [d for d in range(rank) if d not in dims] + list(dims)
    inverse = sorted(range(rank), key=order.__getitem__)
    return order, inverse
