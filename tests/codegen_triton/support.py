"""Compiles a program to the functions of the Triton target, runs them, and holds them against the interpreter."""

from __future__ import annotations

import hashlib
import importlib.util
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from scanc_runtime.layout import Layout
from scanc_runtime.spec import Spec
from torch import Tensor

from scanc.codegen.module import spec_literal, spec_of
from scanc.codegen.triton import TritonFunctions, emit_functions
from scanc.interpreter import interpret
from scanc.interpreter.layout import axis_sizes
from scanc.ir.nodes import Kind, Program
from scanc.passes.differentiate import differentiate
from scanc.passes.pipeline import SIMPLIFIED, TO_DISCRETE, TO_FUSED, Trace, run
from scanc.passes.prepare import prepare

Tensors = dict[str, Tensor]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # without a GPU, Triton's interpreter runs the kernels
SMOOTH = (Kind.REAL, Kind.COMPLEX)
_HEAD = """import torch
from scanc_runtime import AxisSpec, Spec, StateSpec, TensorSpec
"""


@dataclass(frozen=True)
class Emitted:
    """A program's module without its operator."""

    program: Program
    spec: Spec
    functions: TritonFunctions
    module: ModuleType


def fused(program: Program) -> Program:
    """A discrete program as the target wants it."""
    return run(TO_FUSED, program, Trace())


def emit(typed: Program, segment: int | None = 4) -> Emitted:
    discrete = run(TO_DISCRETE, typed, Trace())
    prepared = prepare(discrete)  # what kernels run takes matrices that torch has made of the params
    discrete = prepared.core if prepared else discrete
    adjoint = run(SIMPLIFIED, differentiate(discrete), Trace())
    functions = emit_functions(fused(discrete), fused(adjoint), discrete, segment=segment)
    spec = spec_of(discrete, "")
    head = "\n".join([_HEAD, *functions.imports, "", spec_literal(spec)])
    return Emitted(discrete, spec, functions, load(head + "\n" + functions.source, discrete.name))


def load(source: str, name: str) -> ModuleType:
    """A module from source, through a file, which triton reads kernels from."""
    digest = hashlib.sha256(source.encode()).hexdigest()[:8]
    path = Path(tempfile.mkdtemp()) / f"{name}_{digest}.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _slots(program: Program, state: Tensors) -> Tensors:
    return {s.name: state[s.public[0]][:, s.public[1]] if s.public else state[s.name] for s in program.states}


@dataclass(frozen=True)
class Results:
    """Outputs, final states and gradients by name, in the declared layout."""

    values: Tensors
    gradients: Tensors


def by_interpreter(
    program: Program, inputs: Tensors, params: Tensors, initial: Tensors, given: Tensors, final: Tensors, reverse: bool
) -> Results:
    """In fp64, gradients by autograd. `given` and `final`: cotangents of outputs and of final states."""

    def leaf(x: Tensor) -> Tensor:
        if x.is_complex():
            return x.detach().to(torch.complex128).requires_grad_()
        return x.detach().double().requires_grad_() if x.is_floating_point() else x

    leaves = {name: leaf(x) for name, x in {**inputs, **params, **initial}.items()}
    pick = {n: leaves[n] for n in inputs}, {n: leaves[n] for n in params}, {n: leaves[n] for n in initial}
    outputs, last = interpret(program, *pick, reverse=reverse)
    slots = _slots(program, last)
    pairs = [(outputs[n], g) for n, g in given.items()] + [(slots[n], g) for n, g in final.items()]
    loss = sum(((y * g.to(y.dtype).conj()).real.sum() for y, g in pairs if y.requires_grad), torch.zeros(()).double())
    smooth = {name: x for name, x in leaves.items() if x.requires_grad}
    if loss.requires_grad:
        grads = torch.autograd.grad(loss, list(smooth.values()), allow_unused=True)
    else:
        grads = (None,) * len(smooth)
    gradients = {
        name: torch.zeros_like(x) if grad is None else grad
        for (name, x), grad in zip(smooth.items(), grads, strict=True)
    }
    by_slot = {n: g for n, g in gradients.items() if n in inputs or n in params}
    by_slot |= _slots(program, {n: gradients.get(n, x) for n, x in initial.items()})
    kept = {t.name for t in (*program.inputs, *program.params, *program.states) if t.type.kind in SMOOTH}
    values = {**outputs, **{f"final {n}": x for n, x in slots.items()}}
    return Results(
        {n: x.detach() for n, x in values.items()}, {f"d {n}": g.detach() for n, g in by_slot.items() if n in kept}
    )


def by_kernels(
    emitted: Emitted,
    inputs: Tensors,
    params: Tensors,
    initial: Tensors,
    given: Tensors,
    final: Tensors,
    reverse: bool,
    form: str = "recurrent",
) -> Results:
    """The same from the generated functions, dtypes as given."""
    inputs, params, initial, given, final = (
        {name: x.to(DEVICE) for name, x in group.items()} for group in (inputs, params, initial, given, final)
    )
    program, spec, module = emitted.program, emitted.spec, emitted.module
    sizes = _sizes(emitted, inputs, params, initial)
    layouts = {d.name: Layout(d, 2) for d in spec.inputs} | {d.name: Layout(d, 0) for d in spec.params}
    layouts |= {d.name: Layout(d, 1) for d in spec.states}
    outs = {d.name: Layout(d, 2) for d in spec.outputs}
    flat = {**inputs, **params, **_slots(program, initial)}
    canonical = {name: layouts[name].canonical(x, sizes) for name, x in flat.items()}
    groups = [tuple(canonical[d.name] for d in group) for group in (spec.inputs, spec.params, spec.states)]
    y, last, saved = module.FORWARD[form](*groups, reverse, True)
    bare_y, bare_last, _ = module.FORWARD[form](*groups, reverse, False)
    for a, b in zip((*y, *last), (*bare_y, *bare_last), strict=True):
        assert torch.equal(a, b) or torch.equal(a.isnan(), b.isnan()), "saving changes a value"
    batch, time = groups[0][0].shape[:2]
    assert [tuple(x.shape) for x in saved] == [tuple(s) for s, _ in module.saved(form, batch, time, sizes)]
    smooth = lambda decls: [d for d in decls if d.kind in ("real", "complex")]  # noqa: E731
    grad_y = tuple(outs[d.name].canonical(given[d.name], sizes) for d in smooth(spec.outputs))
    grad_last = tuple(layouts[d.name].canonical(final[d.name], sizes) for d in smooth(spec.states))
    grads = module.BACKWARD[form](*groups, saved, grad_y, grad_last, reverse)
    values = {d.name: outs[d.name].declared(x) for d, x in zip(spec.outputs, y, strict=True)}
    values |= {f"final {d.name}": layouts[d.name].declared(x) for d, x in zip(spec.states, last, strict=True)}
    gradients: Tensors = {}
    for decls, group in zip((spec.inputs, spec.params, spec.states), grads, strict=True):
        gradients |= {f"d {d.name}": layouts[d.name].declared(g) for d, g in zip(smooth(decls), group, strict=True)}
    return Results(_home(values), _home(gradients))


def _home(tensors: Tensors) -> Tensors:
    return {name: x.cpu() for name, x in tensors.items()}


def _sizes(emitted: Emitted, inputs: Tensors, params: Tensors, initial: Tensors) -> dict[str, int]:
    program = emitted.program
    flat = _slots(program, initial)
    return axis_sizes(
        program,
        [(t.name, t.dims, tuple(inputs[t.name].shape[2:])) for t in program.inputs]
        + [(t.name, t.dims, tuple(params[t.name].shape)) for t in program.params]
        + [(s.name, s.dims, tuple(flat[s.name].shape[1:])) for s in program.states],
    )


def cotangents(program: Program, results: Tensors, seed: int = 7) -> tuple[Tensors, Tensors]:
    """Random cotangents for the outputs and the final states of some results."""
    generator = torch.Generator().manual_seed(seed)

    def like(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator, dtype=x.dtype)

    types = program.types
    given = {o.name: like(results[o.name]) for o in program.outputs if types[o.value].kind in SMOOTH}
    final = {s.name: like(results[f"final {s.name}"]) for s in program.states if s.type.kind in SMOOTH}
    return given, final


def errors(got: Tensors, wanted: Tensors) -> dict[str, float]:
    """The largest difference of each tensor, relative to its largest finite value or 1."""
    assert got.keys() == wanted.keys(), (sorted(got), sorted(wanted))
    found = {}
    for name, want in wanted.items():
        have = got[name].to(want.dtype)
        assert have.shape == want.shape, (name, have.shape, want.shape)
        if want.numel() == 0:
            found[name] = 0.0
            continue
        if not want.is_floating_point() and not want.is_complex():
            found[name] = float((have != want).sum())
            continue
        same = (have == want) | (have.isnan() & want.isnan())
        gap = torch.where(same, torch.zeros_like(want), have - want).abs()
        size = want.abs()[want.isfinite()]
        found[name] = float(gap.max()) / max(1.0, float(size.max()) if size.numel() else 1.0)
    return found


def compare(
    emitted: Emitted,
    arguments: tuple[Tensors, Tensors, Tensors],
    *,
    dtype: torch.dtype = torch.float32,
    reverse: bool = False,
    form: str = "recurrent",
) -> dict[str, float]:
    """The error of every value and gradient against the interpreter in fp64, on tensors rounded to `dtype`."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32

    def cast(x: Tensor, real: torch.dtype) -> Tensor:
        if x.is_complex():
            return x.to(torch.complex128 if wide == torch.float64 else torch.complex64)
        return x.to(real) if x.is_floating_point() else x

    inputs = {n: cast(x, dtype) for n, x in arguments[0].items()}
    params = {n: cast(x, dtype) for n, x in arguments[1].items()}
    initial = {n: cast(x, wide) for n, x in arguments[2].items()}
    program = emitted.program
    plain = by_interpreter(program, inputs, params, initial, {}, {}, reverse)
    given, final = cotangents(program, plain.values)
    given = {n: cast(x, dtype) for n, x in given.items()}
    final = {n: cast(x, wide) for n, x in final.items()}
    wanted = by_interpreter(program, inputs, params, initial, given, final, reverse)
    got = by_kernels(emitted, inputs, params, initial, given, final, reverse, form)
    return errors(got.values, wanted.values) | errors(got.gradients, wanted.gradients)
