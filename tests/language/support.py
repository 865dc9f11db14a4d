"""A spec against a few lines of torch that say the same by hand.

`agree` runs a spec in every form (the interpreter among them) over random fp64 data and compares values, final
states and all gradients with a loop over a step function that the test wrote itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from scanc_runtime.spec import TensorSpec

import scanc
from scanc.op import ScanOperator

Tensor = torch.Tensor
DTYPES = {"real": torch.float64, "complex": torch.complex128, "int": torch.int64, "bool": torch.bool}


class Values(dict[str, Tensor]):
    """Tensors by name, also as attributes."""

    def __getattr__(self, name: str) -> Tensor:
        return self[name]


Step = Callable[[Values], Mapping[str, Any]]


@cache
def operator(text: str) -> ScanOperator:
    """The operator of a spec; a text without a `scan` line gets one."""
    return scanc.compile(text if text.startswith("scan ") else f"scan spec\n{text}", target="torch")


def sample(decl: TensorSpec, lead: tuple[int, ...], sizes: Mapping[str, int], rng: torch.Generator) -> Tensor:
    """Random values for a declaration, as its kind has them."""
    shape = list(lead)
    for group in decl.dims:
        size = 1
        for axis in group:
            size *= sizes[axis]
        shape.append(size)
    if decl.kind == "bool":
        return torch.rand(shape, generator=rng) < 0.5
    if decl.kind == "int":
        return torch.randint(-5, 6, shape, generator=rng)
    return torch.randn(shape, generator=rng, dtype=DTYPES[decl.kind]) * 0.7


def agree(
    text: str,
    step: Step,
    sizes: Mapping[str, int] | None = None,
    *,
    given: Mapping[str, Tensor] | None = None,
    start: Mapping[str, Any] | None = None,
    states: Mapping[str, tuple[int, ...]] | None = None,
    random_start: bool = True,
    gradients: bool = True,
    batch: int = 2,
    time: int = 5,
    tolerance: float = 1e-9,
) -> None:
    """The spec in every form, forwards and in reverse, from its declared state and from a random one.

    `step` gets inputs and states of one token ([B, *dims]) and the params, and returns outputs and new states;
    states that it does not return stay.  `given` are arguments that must not be random, `start` the declared
    initial values where they are not 0 (numbers, or names of params), `states` the shapes behind [B] of hidden
    buffers.
    """
    op = operator(text)
    rng = torch.Generator().manual_seed(0)
    spec = op.spec
    full = {**{axis.name: axis.size for axis in spec.axes if axis.size is not None}, **(sizes or {})}
    for axis in spec.axes:
        if axis.like is not None and axis.name not in full:
            full[axis.name] = full[axis.like]
    tensors = Values()
    for decls, lead in ((spec.inputs, (batch, time)), (spec.params, ())):
        for decl in decls:
            tensors[decl.name] = sample(decl, lead, full, rng)
    tensors.update(given or {})
    inputs = [decl.name for decl in spec.inputs]
    public = {(decl.public[0] if decl.public else decl.name): decl for decl in spec.states}
    declared = Values()
    drawn = Values()
    for name, decl in public.items():
        lead = (batch, decl.public[2]) if decl.public else (batch,)
        drawn[name] = sample(decl, lead, full, rng)
        first = (start or {}).get(name, 0)
        if isinstance(first, str):
            declared[name] = tensors[first].to(drawn[name].dtype).expand(drawn[name].shape)
        else:
            declared[name] = torch.full_like(drawn[name], first)
    for reverse in (False, True):
        _compare(op, step, tensors, inputs, declared, None, reverse, gradients, tolerance)
        if random_start:
            _compare(op, step, tensors, inputs, drawn, drawn, reverse, gradients, tolerance)


def by_hand(
    step: Step, tensors: Values, inputs: list[str], state: Mapping[str, Tensor], outputs: list[str], reverse: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The loop over `step`: outputs [B, T, *dims] and final states."""
    state = dict(state)
    length = tensors[inputs[0]].shape[1]
    collected: dict[int, Mapping[str, Any]] = {}
    for t in reversed(range(length)) if reverse else range(length):
        seen = Values(tensors)
        seen.update({name: tensors[name][:, t] for name in inputs})
        seen.update(state)
        made = step(seen)
        unknown = set(made) - set(state) - set(outputs)
        assert not unknown, f"the step returns {unknown}"
        state.update({name: made[name] for name in state if name in made})
        collected[t] = made
    stacked = {name: torch.stack([torch.as_tensor(collected[t][name]) for t in range(length)], 1) for name in outputs}
    return stacked, state


def _compare(
    op: ScanOperator,
    step: Step,
    tensors: Values,
    inputs: list[str],
    start: Values,
    passed: Values | None,
    reverse: bool,
    gradients: bool,
    tolerance: float,
) -> None:
    names = [decl.name for decl in op.spec.outputs]

    def run(form: str | None) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        leaves = Values({name: _leaf(tensor) for name, tensor in tensors.items()})
        first = Values({name: _leaf(tensor) for name, tensor in start.items()})
        if form is None:
            begun: Mapping[str, Tensor] = first
            if passed is None:  # a declared start may be a param, whose gradient counts
                begun = {name: _declared(op, name, leaves, tensor) for name, tensor in first.items()}
            outputs, final = by_hand(step, leaves, inputs, begun, names, reverse)
        else:
            result, final = op(
                **leaves,
                initial_state=None if passed is None else first,
                return_state=True,
                reverse=reverse,
                form=form,
            )
            outputs = dict(zip(names, result if isinstance(result, tuple) else (result,), strict=True))
        if passed is not None:
            leaves = Values({**leaves, **{f"state {name}": tensor for name, tensor in first.items()}})
        grads = _gradients({**outputs, **{f"final {k}": v for k, v in final.items()}}, leaves) if gradients else {}
        return outputs, final, grads

    expected = run(None)
    for form in op.forms:
        found = run(form)
        where = f"form {form}{', reverse' if reverse else ''}{', state given' if passed is not None else ''}"
        for what, group, wanted in zip(("output", "final state", "gradient of"), found, expected, strict=True):
            assert set(group) == set(wanted), f"{where}: {what}s {set(group)} for {set(wanted)}"
            for name in wanted:
                _close(group[name], wanted[name], f"{where}, {what} {name}", tolerance)
    if not reverse:
        _steps(op, tensors, inputs, start, passed, expected[0], expected[1], tolerance)


def _declared(op: ScanOperator, name: str, leaves: Values, tensor: Tensor) -> Tensor:
    decl = next(decl for decl in op.spec.states if name in (decl.name, (decl.public or (None,))[0]))
    return leaves[decl.init].expand(tensor.shape) if isinstance(decl.init, str) else tensor


def _steps(
    op: ScanOperator,
    tensors: Values,
    inputs: list[str],
    start: Values,
    passed: Values | None,
    outputs: Mapping[str, Tensor],
    final: Mapping[str, Tensor],
    tolerance: float,
) -> None:
    """`step()`, token by token, equals the sequence."""
    state: Any = None if passed is None else dict(start)
    for t in range(tensors[inputs[0]].shape[1]):
        arguments = {name: tensor[:, t] if name in inputs else tensor for name, tensor in tensors.items()}
        result, state = op.step(**arguments, state=state)
        results = result if isinstance(result, tuple) else (result,)
        for name, value in zip(outputs, results, strict=True):
            _close(value, outputs[name][:, t], f"step {t}, output {name}", tolerance)
    for name in final:
        _close(state[name], final[name], f"after the last step, state {name}", tolerance)


def _leaf(tensor: Tensor) -> Tensor:
    leaf = tensor.detach().clone()
    return leaf.requires_grad_() if leaf.is_floating_point() or leaf.is_complex() else leaf


def _gradients(results: Mapping[str, Tensor], leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of one fixed random combination of all results."""
    rng = torch.Generator().manual_seed(1)
    loss = torch.zeros((), dtype=torch.float64)
    for name in sorted(results):
        value = results[name]
        if value.is_complex():
            value = torch.view_as_real(value)
        weight = torch.randn(value.shape, generator=rng, dtype=torch.float64)
        if value.is_floating_point() and value.requires_grad:
            loss = loss + (torch.where(value.isfinite(), value, 0.0) * weight).sum()
    wanted = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    if not wanted or not loss.requires_grad:
        return {name: torch.zeros_like(leaf) for name, leaf in wanted.items()}
    found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    return {
        name: torch.zeros_like(leaf) if grad is None else grad
        for (name, leaf), grad in zip(wanted.items(), found, strict=True)
    }


def _close(found: Tensor, wanted: Tensor, where: str, tolerance: float) -> None:
    assert found.shape == wanted.shape, f"{where}: shape {tuple(found.shape)}, not {tuple(wanted.shape)}"
    if wanted.dtype in (torch.bool, torch.int64):
        assert found.dtype == wanted.dtype, f"{where}: {found.dtype}"
    torch.testing.assert_close(
        found.detach(),
        wanted.detach().to(found.dtype),
        rtol=tolerance,
        atol=tolerance,
        msg=lambda text: f"{where}: {text}",
    )


def refused(text: str) -> str:
    """The diagnostics of a spec that must not compile."""
    import pytest

    from scanc.diagnostics.diagnostic import CompileError

    with pytest.raises(CompileError) as caught:
        scanc.compile(text if text.startswith("scan ") else f"scan spec\n{text}", target="torch")
    return str(caught.value)
