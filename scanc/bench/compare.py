"""An operator against the interpreter: the same tensors through both, values and gradients compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from scanc.bench.arguments import Call, positional
from scanc.bench.measure import Timing, several, time_call
from scanc.interpreter import interpret
from scanc.ir.nodes import Program
from scanc.op import ScanOperator

TOLERANCES: dict[torch.dtype, float] = {
    torch.float64: 1e-9,
    torch.float32: 1e-4,
    torch.float16: 1e-2,
    torch.bfloat16: 5e-2,
}
"""The largest error, relative to the largest entry of the reference, that rounding explains."""

Tensors = Mapping[str, Tensor]


def tolerance(call: Call) -> float:
    """The tolerance of the call's narrowest tensor."""
    narrow = [TOLERANCES.get(value.real.dtype, 0.0) for value in call.tensors.values()]
    return max(narrow) or TOLERANCES[torch.float32]


@dataclass(frozen=True)
class Deviation:
    """How far one tensor is from the interpreter's: the largest difference over the largest entry of the reference."""

    tensor: str
    error: float


@dataclass(frozen=True)
class FormReport:
    """One form: its deviations, the time of a forward call, and of forward and backward where gradients were taken."""

    form: str
    deviations: tuple[Deviation, ...]
    forward: Timing
    backward: Timing | None

    @property
    def worst(self) -> float:
        return max((deviation.error for deviation in self.deviations), default=0.0)


@dataclass(frozen=True)
class Results:
    """Everything that a call computes, by name: outputs `o`, final states `final S`, gradients `d q`."""

    values: dict[str, Tensor]
    gradients: dict[str, Tensor]


def compare(operator: ScanOperator, call: Call, forms: Sequence[str], *, backward: bool) -> Iterator[FormReport]:
    """Runs each form on the call's tensors, and reports how far it is from the interpreter.

    The interpreter computes in fp64 from the same, possibly rounded, numbers. Gradients are those of a random
    linear function of all outputs and final states.
    """
    cotangents: dict[str, Tensor] = {}
    reference = _reference(operator.compiled.typed, call, cotangents, backward)
    device = next(iter(call.tensors.values())).device
    for form in forms:
        results = _run(operator, call, form, cotangents, backward)
        deviations = _deviations(results.values, reference.values) + _deviations(results.gradients, reference.gradients)
        forward = time_call(partial(_run, operator, call, form, cotangents, False), device, most=20)
        both = time_call(partial(_run, operator, call, form, cotangents, True), device, most=20) if backward else None
        yield FormReport(form, tuple(deviations), forward, both)


def _reference(program: Program, call: Call, cotangents: dict[str, Tensor], backward: bool) -> Results:
    tensors = _leaves({name: _widest(value.cpu()) for name, value in call.tensors.items()}, backward)
    initial = _leaves({name: _widest(value.cpu()) for name, value in call.initial.items()}, backward)
    inputs = {tensor.name: tensors[tensor.name] for tensor in program.inputs}
    params = {tensor.name: tensors[tensor.name] for tensor in program.params}
    outputs, final = interpret(program, inputs, params, initial)
    return _results(outputs, final, tensors, initial, cotangents, backward)


def _run(operator: ScanOperator, call: Call, form: str, cotangents: dict[str, Tensor], backward: bool) -> Results:
    tensors, initial = _leaves(call.tensors, backward), _leaves(call.initial, backward)
    outputs, final = operator(*positional(operator.spec, tensors), initial_state=initial, form=form, return_state=True)
    named = dict(zip((tensor.name for tensor in operator.spec.outputs), several(outputs), strict=True))
    return _results(named, final, tensors, initial, cotangents, backward)


def _results(
    outputs: Tensors, final: Tensors, tensors: Tensors, initial: Tensors, cotangents: dict[str, Tensor], backward: bool
) -> Results:
    values = {**outputs, **{f"final {name}": state for name, state in final.items()}}
    leaves = {**tensors, **{f"initial {name}": state for name, state in initial.items()}}
    gradients = _gradients(values, leaves, cotangents) if backward else {}
    return Results({name: value.detach() for name, value in values.items()}, gradients)


def _gradients(values: Tensors, leaves: Tensors, cotangents: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradients of every leaf; draws the cotangents that are not there yet."""
    reached = {name: value for name, value in values.items() if value.requires_grad}
    for name, value in reached.items():
        cotangents.setdefault(name, torch.randn(value.shape, dtype=value.dtype))
    wanted = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    if not reached or not wanted:
        return {}
    found = torch.autograd.grad(
        list(reached.values()),
        list(wanted.values()),
        [cotangents[name].to(value) for name, value in reached.items()],
        allow_unused=True,
    )
    return {
        f"d {name}": torch.zeros_like(leaf) if gradient is None else gradient
        for (name, leaf), gradient in zip(wanted.items(), found, strict=True)
    }


def _deviations(ours: Tensors, theirs: Tensors) -> list[Deviation]:
    return [Deviation(name, error(ours[name], value)) for name, value in theirs.items()]


def error(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference over the largest finite entry; of bool and int tensors the share of wrong entries.

    Equal infinities and common NaNs are no difference; a NaN on one side alone is an infinite one.
    """
    ours, theirs = _widest(ours.cpu()), _widest(theirs)
    if ours.shape != theirs.shape:
        return float("inf")
    if not theirs.numel():
        return 0.0
    if not (theirs.is_floating_point() or theirs.is_complex()):
        return float((ours != theirs).double().mean())
    difference = torch.where((ours == theirs) | (ours.isnan() & theirs.isnan()), 0.0, (ours - theirs).abs())
    largest = float(torch.where(theirs.isfinite(), theirs.abs(), 0.0).max())
    return float(difference.nan_to_num(nan=float("inf"), posinf=float("inf")).max()) / (largest or 1.0)


def _leaves(tensors: Tensors, backward: bool) -> dict[str, Tensor]:
    return {
        name: value.detach().requires_grad_(backward and (value.is_floating_point() or value.is_complex()))
        for name, value in tensors.items()
    }


def _widest(value: Tensor) -> Tensor:
    if value.is_complex():
        return value.to(torch.complex128)
    return value.double() if value.is_floating_point() else value
