"""prepare: matrices that params alone decide are no work of the recurrence: they are made once per call, ahead of it.

The program falls into two.  The first takes the params and gives those of the second: functions of matrices, what is
made of them, and params that are read as they are.  It has an adjoint of its own, so that the recurrence sums the
gradient of a matrix over all steps before it goes back through an exponential, once.  The second is what targets make
forms and kernels of; it has no instruction of the first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from scanc.ir.levels import verify
from scanc.ir.nodes import Identity, Instr, Kind, Matrix, Output, Program, Tensor
from scanc.ir.rewrite import live, one_region, roots
from scanc.passes.base import Remark
from scanc.passes.differentiate import differentiate
from scanc.passes.simplify import simplify


@dataclass(frozen=True)
class Prepared:
    """`ahead`: the params as its inputs, those of `core` as its outputs, in order; `adjoint` is that of `ahead`."""

    ahead: Program
    adjoint: Program
    core: Program
    remark: Remark


def prepare(program: Program) -> Prepared | None:
    """The two programs that a discrete program falls into; None where no matrix is decided by params alone."""
    instrs = tuple(program.instrs)
    made = _made(program)
    if not made or not program.params:
        return None
    rest = live([instr for instr in instrs if instr.name not in made], roots(program))
    read = roots(program) | {arg for instr in rest for arg in instr.args}
    read |= {state.init for state in program.states if isinstance(state.init, str)}
    taken = [instr for instr in instrs if instr.name in made and instr.name in read]
    derived = [Tensor(i.name, tuple((axis,) for axis in i.type.axes), i.type, span=i.span) for i in taken]
    params = (*(param for param in program.params if param.name in read), *derived)
    core = replace(one_region(program, rest), params=params)
    outputs = tuple(Output(param.name, param.name, param.dims, param.span) for param in params)
    ahead = replace(
        program, name=f"{program.name}.ahead", inputs=program.params, params=(), states=(), next=(), outputs=outputs
    )
    ahead = one_region(ahead, live(instrs, roots(ahead)))
    pass_ = simplify(ahead.level)
    adjoint, _ = pass_.run(differentiate(ahead))
    for each in (ahead, adjoint, core):
        verify(each)
    names = ", ".join(tensor.name for tensor in derived)
    text = f"made once per call, from parameters alone, ahead of the recurrence, in float64: {names}"
    return Prepared(ahead, adjoint, core, Remark("prepare", text, span=taken[0].span))


def host_only(program: Program) -> Instr | None:
    """The first instruction that no kernel has: a matrix as a whole."""
    return next((instr for instr in program.instrs if isinstance(instr.op, Identity | Matrix)), None)


def no_kernels(instr: Instr) -> Remark:
    """Why there are no kernels of a program with such an instruction, and what there is instead."""
    what = f"the {instr.op.fn} of a matrix" if isinstance(instr.op, Matrix) else "a matrix"
    text = f"{instr.name}: {what} that varies in time is no work for kernels; the torch target runs it, on GPUs too"
    return Remark("prepare", text, applied=False, span=instr.span)


def _made(program: Program) -> set[str]:
    """Matrices that params alone decide, and what is made of them and params."""
    fixed = {param.name for param in program.params}
    made: set[str] = set()
    for instr in program.instrs:
        if fixed.issuperset(instr.args):
            fixed.add(instr.name)
            whole = isinstance(instr.op, Identity | Matrix) or not made.isdisjoint(instr.args)
            if whole and instr.type.kind in (Kind.REAL, Kind.COMPLEX):
                made.add(instr.name)
    return made
