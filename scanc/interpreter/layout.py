"""Sizes of axes, and the way between the caller's layout of a tensor and the canonical one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from scanc.interpreter.arithmetic import Arithmetic, Array
from scanc.ir.nodes import Dims, Program

Shapes = Iterable[tuple[str, Dims, tuple[int, ...]]]


def axis_sizes(program: Program, shapes: Shapes) -> dict[str, int]:
    """The size of every axis, from the fixed ones and from `shapes`: (name, dims, sizes of those dims).

    Raises ValueError where sizes contradict each other or an axis' size is not given by any tensor.
    """
    sizes = {axis.name: axis.size for axis in program.axes if axis.size is not None}
    like = {axis.name: axis.like for axis in program.axes if axis.like is not None}

    def set_size(axis: str, size: int, source: str) -> bool:
        if axis in sizes:
            if sizes[axis] != size:
                raise ValueError(f"{source}: axis {axis} has size {size} here and {sizes[axis]} elsewhere")
            return False
        sizes[axis] = size
        return True

    merged = [(name, axes, size) for name, dims, shape in shapes for axes, size in zip(dims, shape, strict=True)]
    changed = True
    while changed:
        changed = False
        for a, b in like.items():
            for here, there in ((a, b), (b, a)):
                if here in sizes:
                    changed |= set_size(there, sizes[here], here)
        for name, axes, size in merged:
            unknown = [axis for axis in axes if axis not in sizes]
            known = math.prod(sizes[axis] for axis in axes if axis in sizes)
            if len(unknown) == 1 and known > 0 and size % known == 0:
                changed |= set_size(unknown[0], size // known, name)
            elif len(unknown) <= 1 and known != size:
                raise ValueError(f"{name}: a dimension {'*'.join(axes)} of size {size} does not fit {sizes}")
    missing = [axis.name for axis in program.axes if axis.name not in sizes]
    if missing:
        raise ValueError(f"no tensor gives the size of axis {', '.join(missing)}")
    return {axis: size for axis, size in sizes.items() if size is not None}


def flat(dims: Dims) -> tuple[str, ...]:
    """The axes of all dimensions in order, merged ones taken apart."""
    return tuple(axis for merged in dims for axis in merged)


def physical_shape(dims: Dims, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape that a tensor with these dimensions has."""
    return tuple(math.prod(sizes[axis] for axis in merged) for merged in dims)


def to_canonical(
    arith: Arithmetic, x: Array, dims: Dims, axes: tuple[str, ...], sizes: Mapping[str, int], leading: int
) -> Array:
    """Takes merged dimensions apart and puts the axes in canonical order behind `leading` dimensions."""
    given = flat(dims)
    x = x.reshape((*x.shape[:leading], *(sizes[axis] for axis in given)))
    return arith.transpose(x, [*range(leading), *(leading + given.index(axis) for axis in axes)])


def to_physical(
    arith: Arithmetic, x: Array, dims: Dims, axes: tuple[str, ...], sizes: Mapping[str, int], leading: int
) -> Array:
    """The inverse of `to_canonical`."""
    x = arith.transpose(x, [*range(leading), *(leading + axes.index(axis) for axis in flat(dims))])
    return x.reshape((*x.shape[:leading], *physical_shape(dims, sizes)))


def align(x: Array, axes: Sequence[str], onto: Sequence[str]) -> Array:
    """[b, *axes] with dimensions of size 1 for those of `onto` that are missing; both in canonical order."""
    extents = dict(zip(axes, x.shape[1:], strict=True))
    return x.reshape((x.shape[0], *(extents.get(axis, 1) for axis in onto)))
