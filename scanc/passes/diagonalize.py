"""diagonalize: finds dense time-invariant transitions, and leaves them as they are, with a remark.

A constant `h = A @ h + …` could run in the basis of A's eigenvectors, element by element.  Whether that
is safe depends on the values of A (theory, section 5), which are not known here.
"""

from __future__ import annotations

from scanc.analysis.dependence import state_components
from scanc.analysis.mixing import first_mixing
from scanc.analysis.recurrence import RecurrenceClass, facts, recurrence
from scanc.ir.nodes import Level, Program
from scanc.passes.base import Pass, Remark, Rewrite


def run(program: Program) -> Rewrite:
    known = facts(program)
    remarks = []
    for component in state_components(program):
        found = recurrence(known, component.states)
        if found.transition == "dense" and found.time_invariant and found.semiring == "real":
            remarks.append(_remark(program, found))
    return program, tuple(remarks)


def _remark(program: Program, found: RecurrenceClass) -> Remark:
    text = (
        f"{', '.join(found.states)}: the transition is dense and the same at every step, but it stays in the recurrent "
        "form: whether the eigenvectors of its matrix can be trusted depends on the matrix' values"
    )
    following = program.next_of[found.states[0]]
    place = first_mixing(program.instrs, found.states, following, program.types)
    return Remark("diagonalize", text, applied=False, span=place.span if place else None)


DIAGONALIZE = Pass(
    "diagonalize",
    Level.CORE,
    Level.CORE,
    "Leaves dense time-invariant transitions in the recurrent form, and says so.",
    run,
)
