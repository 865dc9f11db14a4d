"""diagonalize: finds dense time-invariant transitions, and leaves them as they are, with a remark.

A constant `A @ h` could run in the basis of A's eigenvectors, element by element.  Whether that is
safe depends on the values of A (theory, section 5), which are not known here.
"""

from __future__ import annotations

from scanc.analysis.dependence import Varies, depends_on, varies
from scanc.ir.nodes import Contract, Instr, Level, Program
from scanc.passes.base import Pass, Remark, Rewrite


def run(program: Program) -> Rewrite:
    vary = varies(program)
    declared = {param.name: param for param in program.params}
    remarks = []
    for instr in program.instrs:
        matrix = _constant_matrix(program, instr, vary)
        if matrix is None:
            continue
        param = declared.get(matrix)
        what = f"`{matrix}`" if param else "a matrix of parameters"
        text = f"{what} is a dense transition, the same at every step: it stays in the recurrent form, since whether "
        text += "its eigenvectors can be trusted depends on its values"
        remarks.append(Remark("diagonalize", text, applied=False, span=instr.span))
    return program, tuple(remarks)


def _constant_matrix(program: Program, instr: Instr, vary: dict[str, Varies]) -> str | None:
    """The matrix of parameters that a contraction applies to a state that it leads back to."""
    if not isinstance(instr.op, Contract) or vary[instr.name] is not Varies.STATE:
        return None
    fixed = [arg for arg in instr.args if vary[arg] <= Varies.PARAM]
    if len(fixed) != 1:
        return None
    states = {state.name for state in program.states}
    (vector,) = (arg for arg in instr.args if arg not in fixed)
    read = (depends_on(program, vector) | {vector}) & states
    axes = set(program.types[fixed[0]].axes) - set(program.types[vector].axes)
    likes = {axis.name: axis.like for axis in program.axes}
    square = any(likes[a] in instr.op.axes or any(likes[c] == a for c in instr.op.axes) for a in axes)
    fed = {s for s, value in program.next if instr.name in depends_on(program, value) | {value}}
    return fixed[0] if square and read & fed else None


DIAGONALIZE = Pass(
    "diagonalize",
    Level.CORE,
    Level.CORE,
    "Leaves dense time-invariant transitions in the recurrent form, and says so.",
    run,
)
