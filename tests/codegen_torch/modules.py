"""Generated torch modules of specs, beside the typed program that the interpreter runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from scanc_runtime.operator import Operator

from scanc.codegen.module import assemble
from scanc.codegen.safety import check_source
from scanc.codegen.torch import emit_functions
from scanc.interpreter import interpret, random_arguments
from scanc.ir.nodes import Program
from scanc.passes.differentiate import differentiate
from scanc.passes.pipeline import SIMPLIFIED, TO_CLASSIFIED, TO_DISCRETE, TO_REMEMBERED, Trace, run
from scanc.passes.prepare import prepare
from scanc.semantics.lower import lower

EXAMPLES = Path(__file__).parents[2] / "examples"
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Module:
    typed: Program
    source: str
    operator: Operator

    def sizes(self) -> dict[str, int]:
        """A size for every axis that needs one, all different."""
        free = [axis for axis in self.typed.axes if axis.size is None and axis.like is None]
        return {axis.name: 2 + i for i, axis in enumerate(free)}

    def arguments(
        self, batch: int = 2, time: int = 7, seed: int = 0, **options: Any
    ) -> tuple[Tensors, Tensors, Tensors]:
        sizes = options.pop("sizes", self.sizes())
        return random_arguments(self.typed, batch=batch, time=time, sizes=sizes, seed=seed, **options)


def module_of(typed: Program, text: str = "") -> Module:
    """The module of a typed program, checked and executed."""
    discrete = run(TO_DISCRETE, typed, Trace())
    prepared = prepare(discrete)
    remembered = run(TO_REMEMBERED, prepared.core if prepared else discrete, Trace())
    adjoint = run(SIMPLIFIED, differentiate(remembered), Trace())
    forward, backward = (run(TO_CLASSIFIED, program, Trace()) for program in (remembered, adjoint))
    functions = emit_functions(forward, backward, discrete)
    source = assemble(text, discrete, forward, functions, "0", "torch", prepared)
    check_source(source)
    namespace: dict[str, Any] = {"__name__": "generated"}
    exec(compile(source, "generated", "exec"), namespace)
    return Module(typed, source, namespace["operator"])


@cache
def compiled(text: str) -> Module:
    return module_of(lower(text, source="test", root=EXAMPLES), text)


@cache
def example(name: str) -> Module:
    return compiled((EXAMPLES / f"{name}.scan").read_text())


def gradients(results: Tensors, tensors: Tensors, seed: int = 1) -> Tensors:
    """The gradient of a random linear function of all results, one entry a differentiable tensor."""
    generator = torch.Generator().manual_seed(seed)
    loss = torch.zeros((), dtype=torch.float64)
    for name in sorted(results):
        result = results[name]
        if result.is_floating_point() or result.is_complex():
            weight = torch.randn(result.shape, generator=generator, dtype=torch.float64)
            if result.is_complex():
                other = torch.randn(result.shape, generator=generator, dtype=torch.float64)
                loss = loss + _finite(result.real * weight + result.imag * other).sum().double()
            else:
                loss = loss + _finite(result * weight).sum().double()
    smooth = {name: tensor for name, tensor in tensors.items() if tensor.requires_grad}
    if not loss.requires_grad:
        return {name: torch.zeros_like(tensor) for name, tensor in smooth.items()}
    grads = torch.autograd.grad(loss, list(smooth.values()), allow_unused=True)
    pairs = zip(smooth.items(), grads, strict=True)
    return {name: torch.zeros_like(tensor) if grad is None else grad for (name, tensor), grad in pairs}


def _finite(x: torch.Tensor) -> torch.Tensor:
    return torch.where(torch.isfinite(x.detach()), x, torch.zeros_like(x))


def smooth(tensors: Mapping[str, torch.Tensor], dtype: torch.dtype | None = None) -> Tensors:
    """Fresh leaves that require gradients where they can."""
    result = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().clone()
        if dtype is not None and tensor.is_floating_point():
            tensor = tensor.to(dtype)
        result[name] = tensor.requires_grad_(tensor.is_floating_point() or tensor.is_complex())
    return result


def oracle(module: Module, inputs: Tensors, params: Tensors, states: Tensors, reverse: bool) -> tuple[Tensors, Tensors]:
    """Results (outputs, `final.<state>`) and gradients by the interpreter."""
    tensors = smooth({**inputs, **params, **{f"state.{n}": t for n, t in states.items()}})
    outputs, final = interpret(
        module.typed,
        {n: tensors[n] for n in inputs},
        {n: tensors[n] for n in params},
        {n: tensors[f"state.{n}"] for n in states},
        reverse=reverse,
    )
    results = {**outputs, **{f"final.{n}": t for n, t in final.items()}}
    return results, gradients(results, tensors)


def generated(
    module: Module, inputs: Tensors, params: Tensors, states: Tensors, reverse: bool, form: str, **options: Any
) -> tuple[Tensors, Tensors]:
    """Results and gradients by the generated module."""
    tensors = smooth({**inputs, **params, **{f"state.{n}": t for n, t in states.items()}}, **options)
    named = {n: tensors[n] for n in (*inputs, *params)}
    initial = {n: tensors[f"state.{n}"] for n in states}
    outputs, final = module.operator(**named, initial_state=initial, return_state=True, reverse=reverse, form=form)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    names = [output.name for output in module.typed.outputs]
    results = {**dict(zip(names, outputs, strict=True)), **{f"final.{n}": t for n, t in final.items()}}
    return results, gradients(results, tensors)
