"""The tensors of a call: drawn at random, or read from an `.npz` file."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scanc_runtime.spec import Spec
from torch import Tensor

from scanc.interpreter import random_arguments
from scanc.ir.nodes import Axis, Dims, Program

DEFAULT_SIZES = (2, 16, 8, 8)
"""Of the open axes of a spec: the first of several is often one of heads."""

DRAWN_STEPS = 64
"""Longer sequences repeat what was drawn for so many steps."""

DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class UnusableArguments(ValueError):
    """What the user asked for does not fit the spec."""


@dataclass(frozen=True)
class Call:
    """Inputs and params by name, initial states by name, and the sizes that they have."""

    tensors: Mapping[str, Tensor]
    initial: Mapping[str, Tensor]
    batch: int
    time: int
    sizes: Mapping[str, int]

    def to(self, device: str) -> Call:
        return replace(
            self,
            tensors={name: value.to(device) for name, value in self.tensors.items()},
            initial={name: value.to(device) for name, value in self.initial.items()},
        )


def parse_sizes(pairs: list[str]) -> dict[str, int]:
    """['d=64', 'n=16'] as {'d': 64, 'n': 16}."""
    sizes: dict[str, int] = {}
    for pair in pairs:
        axis, equals, size = pair.partition("=")
        if not (axis and equals and size.isdigit()):
            raise UnusableArguments(f"a size is given as axis=number, as in d=64; got '{pair}'")
        sizes[axis] = int(size)
    return sizes


def complete_sizes(program: Program, given: Mapping[str, int]) -> dict[str, int]:
    """The size of every axis that tensors have: as given, fixed by the spec, or small by default."""
    named = {axis.name: axis for axis in program.axes}
    for name, size in given.items():
        if name not in named:
            raise UnusableArguments(f"{program.name} has no axis '{name}'; its axes are {', '.join(named) or 'none'}")
        fixed = named[_root(named, name)].size
        if fixed is not None and fixed != size:
            raise UnusableArguments(f"axis '{name}' has size {fixed} in {program.name}, not {size}")
    roots = {_root(named, name): size for name, size in given.items()}
    free = [axis.name for axis in program.axes if axis.like is None and axis.size is None]
    defaults = DEFAULT_SIZES if len(free) > 2 else DEFAULT_SIZES[1:]
    for place, name in enumerate(free):
        roots.setdefault(name, defaults[min(place, len(defaults) - 1)])
    roots |= {axis.name: axis.size for axis in program.axes if axis.size is not None}
    return {axis.name: roots[_root(named, axis.name)] for axis in program.axes}


def _root(axes: Mapping[str, Axis], name: str) -> str:
    """The axis whose size this one shares, itself if it shares none."""
    like = axes[name].like
    return name if like is None else _root(axes, like)


def call(
    program: Program, given: Mapping[str, Tensor], *, sizes: Mapping[str, int], batch: int | None, time: int | None,
    dtype: str, seed: int,
) -> Call:  # fmt: skip
    """The given tensors, completed by random ones; sizes that nobody gives are small."""
    found = extents(program, given)
    for name, wanted in {"batch": batch, "time": time, **sizes}.items():
        if wanted is not None and found.get(name, wanted) != wanted:
            raise UnusableArguments(f"the given tensors have {name} = {found[name]}, not {wanted}")
    return draw(
        program,
        batch=found.pop("batch", 2 if batch is None else batch),
        time=found.pop("time", 64 if time is None else time),
        sizes=complete_sizes(program, {**found, **sizes}),
        dtype=dtype,
        seed=seed,
        given=given,
    )


def draw(
    program: Program, *, batch: int, time: int, sizes: Mapping[str, int], dtype: str, seed: int = 0,
    given: Mapping[str, Tensor] | None = None,
) -> Call:  # fmt: skip
    """Random arguments of the floating `dtype`, pinned tensors of their own; `given` ones are taken as they are."""
    given = given or {}
    drawn_steps = min(time, DRAWN_STEPS)
    inputs, params, initial = random_arguments(
        program, batch=batch, time=drawn_steps, sizes=sizes, seed=seed, dtype=torch.float64
    )
    copies = math.ceil(time / drawn_steps) if drawn_steps else 1
    long = {name: value.repeat(1, copies, *[1] * (value.dim() - 2))[:, :time] for name, value in inputs.items()}
    pins = {tensor.name: tensor.pin for tensor in (*program.inputs, *program.params)}
    narrow = DTYPES[dtype]
    tensors = {name: _cast(value, _pinned(pins[name], narrow)) for name, value in (long | params).items()}
    tensors |= given
    wide = any(value.dtype in (torch.float64, torch.complex128) for value in tensors.values())
    states = {name: _cast(value, torch.float64 if wide else torch.float32) for name, value in initial.items()}
    return Call(tensors, states, batch, time, dict(sizes))


def read(program: Program, path: Path) -> dict[str, Tensor]:
    """The tensors in an `.npz` file, whose names must be inputs or params of the program."""
    try:
        with np.load(path, allow_pickle=False) as file:
            tensors = {name: torch.from_numpy(file[name]) for name in file.files}
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise UnusableArguments(f"cannot read tensors from {path}: {error}") from None
    known = [tensor.name for tensor in (*program.inputs, *program.params)]
    for name in tensors:
        if name not in known:
            raise UnusableArguments(f"{path} holds '{name}'; the tensors of {program.name} are {', '.join(known)}")
    return tensors


def extents(program: Program, given: Mapping[str, Tensor]) -> dict[str, int]:
    """What tensors in the declared layout say of sizes: of axes, and of "batch" and "time"."""
    found: dict[str, int] = {}
    declared: list[tuple[str, Dims, int]] = [(t.name, t.dims, 2) for t in program.inputs]
    declared += [(t.name, t.dims, 0) for t in program.params]
    for name, dims, leading in declared:
        if name not in given:
            continue
        shape = tuple(given[name].shape)
        if len(shape) != len(dims) + leading:
            axes = ", ".join([*("B", "T")[:leading], *("*".join(dim) for dim in dims)])
            raise UnusableArguments(f"'{name}' is [{axes}] in {program.name}; the given one has shape {list(shape)}")
        if leading:
            found |= {"batch": shape[0], "time": shape[1]}
        for dim, size in zip(dims, shape[leading:], strict=True):
            if len(dim) == 1 and found.setdefault(dim[0], size) != size:
                raise UnusableArguments(f"'{name}' has {dim[0]} = {size}, another given tensor has {found[dim[0]]}")
    return found


def positional(spec: Spec, tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """Inputs and params in the order of their declaration."""
    return [tensors[name] for name in spec.order]


def _cast(value: Tensor, dtype: torch.dtype) -> Tensor:
    if value.is_complex():
        return value.to(torch.complex128 if dtype == torch.float64 else torch.complex64)
    return value.to(dtype) if value.is_floating_point() else value


def _pinned(pin: str | None, dtype: torch.dtype) -> torch.dtype:
    pinned: torch.dtype = dtype if pin is None else getattr(torch, pin)
    return pinned if pinned.is_floating_point else dtype
