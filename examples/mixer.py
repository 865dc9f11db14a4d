"""A sequence mixer for any spec: projections for its inputs, parameters for its params, and a way back to the width.

The mixer knows no model. It reads the operator's own declarations: each input tensor gets a linear
projection of its shape, each param becomes a trainable parameter. How raw features are to be mapped onto an
input's range (a log decay must not be positive, say) is found by `probe.choose_gates`, or given by hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from scanc_runtime.spec import Spec, TensorSpec
from torch import Tensor, nn
from torch.nn import functional

State = Mapping[str, Tensor]


class UnsuitedSpec(ValueError):
    """The spec cannot be a mixer: it wants something that projected features are not."""


def unit(raw: Tensor) -> Tensor:
    """Unit length along the last axis."""
    return functional.normalize(raw, dim=-1)


def disk(raw: Tensor) -> Tensor:
    """Complex numbers inside the unit disk: the real part sets the modulus, the imaginary part is the angle."""
    return torch.polar(torch.sigmoid(raw.real), raw.imag)


def left(raw: Tensor) -> Tensor:
    """Complex numbers left of the imaginary axis: the rates of decaying oscillations."""
    return torch.complex(functional.logsigmoid(raw.real), raw.imag)


def identity(raw: Tensor) -> Tensor:
    return raw


REAL: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": identity,
    "sigmoid": torch.sigmoid,
    "logsigmoid": functional.logsigmoid,
    "unit": unit,
    "softplus": functional.softplus,
    "tanh": torch.tanh,
}
COMPLEX: dict[str, Callable[[Tensor], Tensor]] = {"identity": identity, "disk": disk, "left": left}


@dataclass(frozen=True)
class Gate:
    """How raw features become a tensor of the spec: activation(raw + bias)."""

    activation: str = "identity"
    bias: float = 0.0

    def __str__(self) -> str:
        return self.activation + (f" of raw {self.bias:+g}" if self.bias else "")


def feed(declared: TensorSpec, raw: Tensor, gate: Gate) -> Tensor:
    """Raw numbers, laid out as declared, as the tensor that the operator gets."""
    table = COMPLEX if declared.kind == "complex" else REAL
    if gate.activation not in table:
        raise UnsuitedSpec(
            f"'{declared.name}' is {declared.kind}; its activation can be {', '.join(table)}, not '{gate.activation}'"
        )
    value = table[gate.activation](raw + gate.bias)
    return value if declared.pin is None else value.to(getattr(torch, declared.pin))


def default_sizes(spec: Spec, width: int) -> dict[str, int]:
    """Sizes for the axes that the spec leaves open: the widest output makes up `width`, all other axes get 16.

    One open axis of that output are channels, as many as `width`. Of several the last one are the features of a
    head, and those before it make four heads.
    """
    sizes = {axis.name: axis.size or 16 for axis in spec.axes}
    open_axes = {axis.name for axis in spec.axes if axis.size is None and axis.like is None}
    *heads, features = max(([a for a in output.axes if a in open_axes] for output in spec.outputs), key=len) or [""]
    if features:
        sizes[features] = max(1, width // 4) if heads else width
        sizes |= dict.fromkeys(heads, 2) if len(heads) > 1 else dict.fromkeys(heads, 4)
    return with_alike(spec, sizes)


def with_alike(spec: Spec, sizes: Mapping[str, int]) -> dict[str, int]:
    """The sizes, where an axis that is declared like another has the other's."""
    return {axis.name: sizes[axis.like or axis.name] for axis in spec.axes}


def shape(tensor: TensorSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The declared dimensions in numbers, the leading ones left out."""
    return tuple(math.prod(sizes[axis] for axis in dim) for dim in tensor.dims)


def square(spec: Spec, tensor: TensorSpec) -> bool:
    """Whether the tensor is a matrix from an axis to itself, as the recurrent weights of a cell are."""
    like = {axis.name: axis.like or axis.name for axis in spec.axes}
    return len({like[axis] for axis in tensor.axes}) < len(tensor.axes)


def raw_parameter(spec: Spec, tensor: TensorSpec, sizes: Mapping[str, int], *, gate: bool) -> Tensor:
    """Random numbers for a param: of unit variance for a gate (many time scales), else 1 / sqrt(last size)."""
    dims = shape(tensor, sizes)
    scale = 1.0 if not dims or (gate and not square(spec, tensor)) else dims[-1] ** -0.5
    dtype = torch.complex64 if tensor.kind == "complex" else torch.float32
    return torch.randn(dims, dtype=dtype) * scale


def check_suited(spec: Spec) -> None:
    """Raises UnsuitedSpec where a tensor of the spec cannot be made from projected features."""
    for tensor in (*spec.inputs, *spec.params):
        if tensor.kind in ("int", "bool"):
            raise UnsuitedSpec(
                f"{spec.name} cannot be a mixer: '{tensor.declared or tensor.name}' (line {tensor.line}) wants "
                f"{tensor.kind} values, a mixer makes real and complex ones"
            )
    if not spec.inputs:
        raise UnsuitedSpec(f"{spec.name} cannot be a mixer: it has no input")
    if not any(tensor.kind in ("real", "complex") for tensor in spec.outputs):
        raise UnsuitedSpec(f"{spec.name} cannot be a mixer: none of its outputs is real or complex, so nothing trains")


class Mixer(nn.Module):
    """[B, T, width] → [B, T, width] through the operator; `step` does the same for one token, [B, width]."""

    def __init__(
        self,
        width: int,
        operator: Any,
        sizes: Mapping[str, int],
        gates: Mapping[str, Gate] | None = None,
        form: str = "auto",
    ) -> None:
        super().__init__()
        spec: Spec = operator.spec
        check_suited(spec)
        self.operator, self.spec, self.form, self.sizes = operator, spec, form, dict(sizes)
        self.gates = {tensor.name: (gates or {}).get(tensor.name, Gate()) for tensor in (*spec.inputs, *spec.params)}
        self.projections = nn.ModuleDict(
            {tensor.name: nn.Linear(width, _reals(tensor, sizes)) for tensor in spec.inputs}
        )
        self.raw = nn.ParameterDict(
            {
                tensor.name: nn.Parameter(raw_parameter(spec, tensor, sizes, gate=tensor.name in (gates or {})))
                for tensor in spec.params
            }
        )
        self.kept = [i for i, tensor in enumerate(spec.outputs) if tensor.kind in ("real", "complex")]
        features = sum(_reals(spec.outputs[i], sizes) for i in self.kept)
        self.norm = nn.RMSNorm(features)
        self.out = nn.Linear(features, width)

    def forward(self, x: Tensor) -> Tensor:
        """All tokens at once, from the spec's initial state."""
        return self._read_out(x, self.operator(*self._arguments(x), form=self.form))

    def step(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """One token, from the state that the token before left."""
        outputs, state = self.operator.step(*self._arguments(x), state=state)
        return self._read_out(x, outputs), state

    def _arguments(self, x: Tensor) -> list[Tensor]:
        """The operator's tensors in its order: inputs projected from x, and params, each through its activation."""
        tensors: dict[str, Tensor] = {}
        for tensor in self.spec.inputs:
            flat = self.projections[tensor.name](x)
            if tensor.kind == "complex":
                flat = torch.view_as_complex(flat.unflatten(-1, (-1, 2)).contiguous())
            raw = flat.reshape(*x.shape[:-1], *shape(tensor, self.sizes))
            tensors[tensor.name] = feed(tensor, raw, self.gates[tensor.name])
        for tensor in self.spec.params:
            tensors[tensor.name] = feed(tensor, self.raw[tensor.name], self.gates[tensor.name])
        return [tensors[name] for name in self.spec.order]

    def _read_out(self, x: Tensor, outputs: Tensor | tuple[Tensor, ...]) -> Tensor:
        several = outputs if isinstance(outputs, tuple) else (outputs,)
        flat = [_as_real(several[i]).reshape(*x.shape[:-1], -1).to(x.dtype) for i in self.kept]
        return self.out(self.norm(torch.cat(flat, dim=-1)))


def _reals(tensor: TensorSpec, sizes: Mapping[str, int]) -> int:
    """How many real numbers the tensor holds per token."""
    return math.prod(shape(tensor, sizes)) * (2 if tensor.kind == "complex" else 1)


def _as_real(value: Tensor) -> Tensor:
    return torch.view_as_real(value) if value.is_complex() else value
