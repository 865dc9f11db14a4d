"""Runs an adjoint program over a sequence, with the interpreter alone."""

from __future__ import annotations

import torch

from scanc.interpreter import interpret
from scanc.ir.nodes import Kind, Program

Tensors = dict[str, torch.Tensor]
SMOOTH = (Kind.REAL, Kind.COMPLEX)


def states_before(program: Program, inputs: Tensors, params: Tensors, initial: Tensors) -> Tensors:
    """What each state held before every step, [B, T, *dims], under the state's name."""
    time = next(iter(inputs.values())).shape[1]
    held: dict[str, list[torch.Tensor]] = {s.name: [] for s in program.states}
    state = dict(initial)
    for t in range(time):
        flat = _slots(program, state)
        for name, past in held.items():
            past.append(flat[name])
        _, state = interpret(program, {n: x[:, t : t + 1] for n, x in inputs.items()}, params, state)
    return {name: torch.stack(past, 1) for name, past in held.items()}


def _slots(program: Program, state: Tensors) -> Tensors:
    """The public mapping taken apart into single states."""
    return {s.name: state[s.public[0]][:, s.public[1]] if s.public else state[s.name] for s in program.states}


def gradients_by_adjoint(
    program: Program,
    adjoint: Program,
    inputs: Tensors,
    params: Tensors,
    initial: Tensors,
    given: Tensors,
    final: Tensors,
) -> Tensors:
    """Every gradient, named `d.<tensor>`, given the cotangents of the outputs and of the final states."""
    before = states_before(program, inputs, params, initial)
    outputs, last = interpret(
        adjoint,
        {**inputs, **before, **{f"dy.{n}": g for n, g in given.items()}},
        params,
        {f"d.{s.name}": _slots(program, final)[s.name] for s in program.states},
        reverse=True,
    )
    return {**outputs, **last}


def gradients_by_autograd(
    program: Program, inputs: Tensors, params: Tensors, initial: Tensors, given: Tensors, final: Tensors
) -> Tensors:
    """The same gradients, by torch's autograd through the interpreter."""
    leaves = {
        n: x.detach().requires_grad_() if x.is_floating_point() or x.is_complex() else x
        for n, x in {**inputs, **params, **initial}.items()
    }
    pick = lambda group: {n: leaves[n] for n in group}  # noqa: E731
    outputs, last = interpret(program, pick(inputs), pick(params), pick(initial))
    pairs = [(outputs[n], g) for n, g in given.items()] + [(last[n], g) for n, g in final.items()]
    pairs = [(y, g) for y, g in pairs if y.requires_grad]
    smooth = [n for n, x in leaves.items() if x.requires_grad]
    grads = torch.autograd.grad(
        [y for y, _ in pairs], [leaves[n] for n in smooth], [g for _, g in pairs], allow_unused=True
    )
    return {f"d.{n}": torch.zeros_like(leaves[n]) if g is None else g for n, g in zip(smooth, grads, strict=True)}
