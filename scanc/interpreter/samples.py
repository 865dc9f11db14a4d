"""Random arguments for a program, in the declared layout: for `scanc run`, tests and benchmarks.

The generator knows no model.  A real number is a standard normal, halved; a tensor that enters a contraction is
divided by the square root of the contracted size, so that products of matrices neither grow nor vanish.
Two uses say more: what goes straight into `exp`, or multiplies the state of an ODE, is a (log) decay and
gets a non-positive real part; what goes straight into `log`, `sqrt` or `rsqrt` is positive.  Initial states
are what three such tokens leave behind, so that a variance is positive and a normaliser fits its state.  If
the interpreter still finds values above 100 on these arguments, all but the decays are halved, up to six times.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from scanc.interpreter.layout import axis_sizes, physical_shape
from scanc.interpreter.loop import interpret
from scanc.ir.functions import SEMIRINGS
from scanc.ir.nodes import Contract, Dims, Instr, Kind, Map, Ode, Program

Arguments = dict[str, torch.Tensor]

BOUND = 100.0
ATTEMPTS = 6
WARM_UP = 3


def random_arguments(
    program: Program,
    *,
    batch: int,
    time: int,
    sizes: Mapping[str, int],
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> tuple[Arguments, Arguments, Arguments]:
    """(inputs, params, initial states) as torch tensors; `sizes` gives every axis whose size is not fixed.

    Complex tensors get the complex dtype of `dtype`, int ones are int64 in 0..3, bool ones fair coins.
    """
    extents = axis_sizes(program, [(f"size of {axis}", ((axis,),), (size,)) for axis, size in sizes.items()])
    signs = _signs(program)
    spread = _spread(program, extents)
    generator = torch.Generator().manual_seed(seed)

    def draw(name: str, lead: tuple[int, ...], dims: Dims, kind: Kind) -> torch.Tensor:
        shape = (*lead, *physical_shape(dims, extents))
        if kind is Kind.BOOL:
            return torch.rand(shape, generator=generator) < 0.5
        if kind is Kind.INT:
            return torch.randint(0, 4, shape, generator=generator)
        re = 0.5 * torch.randn(shape, generator=generator, dtype=torch.float64) / spread.get(name, 1.0)
        sign = signs.get(name, 0)
        re = sign * re.abs() if sign else re
        if kind is Kind.REAL:
            return re
        im = 0.5 * torch.randn(shape, generator=generator, dtype=torch.float64) / spread.get(name, 1.0)
        return torch.complex(re, im)

    def tokens(count: int) -> Arguments:
        return {t.name: draw(t.name, (batch, count), t.dims, t.type.kind) for t in program.inputs}

    inputs, before = tokens(time), tokens(WARM_UP)
    params = {t.name: draw(t.name, (), t.dims, t.type.kind) for t in program.params}
    for _ in range(ATTEMPTS):
        _, initial = _run(program, before, params, {})
        outputs, final = _run(program, inputs, params, initial)
        if not _large([*outputs.values(), *final.values()], SEMIRINGS[program.semiring].zero):
            break
        for group in (inputs, before, params):
            group.update((n, x * 0.5) for n, x in group.items() if _floating(x) and signs.get(n, 0) == 0)
    return _narrowed(inputs, dtype), _narrowed(params, dtype), _narrowed(initial, dtype)


def _floating(x: torch.Tensor) -> bool:
    return x.is_floating_point() or x.is_complex()


def _narrowed(group: Arguments, dtype: torch.dtype) -> Arguments:
    def cast(x: torch.Tensor) -> torch.Tensor:
        return x.to(dtype.to_complex() if x.is_complex() else dtype) if _floating(x) else x

    return {name: cast(x) for name, x in group.items()}


def _run(program: Program, inputs: Arguments, params: Arguments, initial: Arguments) -> tuple[Arguments, Arguments]:
    with torch.no_grad():
        return interpret(program, inputs, params, initial)


def _large(values: list[torch.Tensor], zero: float) -> bool:
    """Whether any value, the semiring's zero aside, is above the bound or not a number."""
    floating = [x for x in values if _floating(x)]
    return any(not bool(((x.abs() <= BOUND) | (x == zero)).all()) for x in floating)


def _signs(program: Program) -> dict[str, int]:
    """-1 for decays, 1 for what must be positive; a tensor with conflicting uses has no entry."""
    declared = {d.name for d in (*program.inputs, *program.params)}
    votes: dict[str, set[int]] = {}
    states = _state_like(program)
    for instr in program.instrs:
        for position, name in enumerate(instr.args):
            origin, flipped = _origin(program, name)
            if origin in declared:
                votes.setdefault(origin, set()).add(_vote(instr, position, states) * flipped)
    found = {}
    for name, signs in votes.items():
        signs.discard(0)
        if len(signs) == 1:
            found[name] = signs.pop()
    return found


def _vote(instr: Instr, position: int, states: set[str]) -> int:
    match instr.op:
        case Map("exp" | "expm1"):
            return -1
        case Map("log" | "sqrt" | "rsqrt"):
            return 1
        case Map("mul") if instr.args[1 - position] in states:
            return -1
        case _:
            return 0


def _state_like(program: Program) -> set[str]:
    """The values that stand for the state on the right side of an ODE."""
    return {instr.args[0] for instr in program.instrs if isinstance(instr.op, Ode)}


def _origin(program: Program, name: str) -> tuple[str, int]:
    """The value behind negations, and the sign that they make."""
    sign = 1
    made = {instr.name: instr for instr in program.instrs}
    while name in made and made[name].op == Map("neg"):
        name, sign = made[name].args[0], -sign
    return name, sign


def _spread(program: Program, sizes: Mapping[str, int]) -> dict[str, float]:
    """The square root of the largest size over which each value is contracted."""
    spread: dict[str, float] = {}
    for instr in program.instrs:
        if isinstance(instr.op, Contract):
            root = math.sqrt(max(1, math.prod(sizes[axis] for axis in instr.op.axes)))
            for name in instr.args:
                spread[name] = max(root, spread.get(name, 1.0))
    return spread
