"""The two orders of a tensor's dimensions: as its declaration writes them, and as kernels want them.

Both directions are views wherever memory allows it: a merged dimension is taken apart and axes are
permuted on the way in; the reverse on the way out, where merging axes that do not lie next to each
other copies.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from scanc_runtime.spec import TensorSpec

Sizes = Mapping[str, int]


class Layout:
    """How one declaration lies in memory behind `lead` leading dimensions."""

    def __init__(self, decl: TensorSpec, lead: int) -> None:
        flat = [axis for group in decl.dims for axis in group]
        self._lead = lead
        self._groups = decl.dims
        self._merged = [i for i, group in enumerate(decl.dims) if len(group) != 1]
        self._permuted = flat != list(decl.axes)
        self.straight = not self._merged and not self._permuted  # both orders are one
        leading = list(range(lead))
        self._inward = leading + [lead + flat.index(axis) for axis in decl.axes]
        self._outward = leading + [lead + decl.axes.index(axis) for axis in flat]

    def canonical(self, tensor: Tensor, sizes: Sizes) -> Tensor:
        """[*lead, *dims] as [*lead, *axes]."""
        for i in reversed(self._merged):
            tensor = tensor.unflatten(self._lead + i, [sizes[axis] for axis in self._groups[i]])  # type: ignore[no-untyped-call]
        return tensor.permute(self._inward) if self._permuted else tensor

    def declared(self, tensor: Tensor) -> Tensor:
        """[*lead, *axes] as [*lead, *dims]."""
        if self._permuted:
            tensor = tensor.permute(self._outward)
        for i in self._merged:
            tensor = tensor.flatten(self._lead + i, self._lead + i + len(self._groups[i]) - 1)
        return tensor
