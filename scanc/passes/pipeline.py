"""The passes in order, and the one function that runs them: verified after each, remarks kept, every step recorded."""

from __future__ import annotations

from dataclasses import dataclass, field

from scanc.ir.levels import IllFormed, verify
from scanc.ir.nodes import Level, Program
from scanc.ir.printer import print_program
from scanc.passes.base import Pass, Remark
from scanc.passes.classify import CLASSIFY
from scanc.passes.desugar import DESUGAR
from scanc.passes.diagonalize import DIAGONALIZE
from scanc.passes.discretize import DISCRETIZE
from scanc.passes.fuse import FUSE
from scanc.passes.hoist import HOIST
from scanc.passes.memorize import MEMORIZE
from scanc.passes.powers import POWERS
from scanc.passes.products import PRODUCTS
from scanc.passes.realify import REALIFY
from scanc.passes.schedule import SCHEDULE
from scanc.passes.simplify import simplify
from scanc.passes.stage import STAGE
from scanc.passes.widen import WIDEN

TO_DISCRETE: tuple[Pass, ...] = (
    DESUGAR,  # first, so that no later pass need know of the past
    simplify(Level.CORE),
    DIAGONALIZE,  # before discretize: a diagonal system has closed forms
    DISCRETIZE,
    simplify(Level.DISCRETE),
)
"""typed → discrete: one step in plain arithmetic."""

TO_REMEMBERED: tuple[Pass, ...] = (
    MEMORIZE,
    simplify(Level.DISCRETE),  # behind it, recalls of the same query are one
)
"""discrete → discrete: matrices as memories, for targets that evaluate them by products of queries and keys."""

TO_WIDENED: tuple[Pass, ...] = (
    WIDEN,
    simplify(Level.DISCRETE),
)
"""discrete → discrete, behind TO_REMEMBERED: vectors beside matrices as memories too. For the Triton target."""

SIMPLIFIED: tuple[Pass, ...] = (simplify(Level.DISCRETE),)
"""discrete → discrete: for the adjoint, which begins at that level."""

TO_CLASSIFIED: tuple[Pass, ...] = (
    STAGE,
    HOIST,  # after stage: what it takes away is in no loop's way
    CLASSIFY,
)
"""discrete → classified: how the step is repeated. Runs on the forward program and on its adjoint."""

TO_FUSED: tuple[Pass, ...] = (
    REALIFY,  # before stage: pairs are separate states
    STAGE,
    HOIST,
    POWERS,  # after hoist: it adds to the work on parameters
    FUSE,  # in place of classify: a step in registers gains nothing from decay and write apart
    PRODUCTS,  # behind fuse: what is shared stands in one step
    SCHEDULE,  # last: it says how that step is shared out
)
"""discrete → scheduled: one step whose values stay on the chip. For the Triton target."""

ON_CHIP = {each.name for each in (*TO_WIDENED, *TO_FUSED)} - {each.name for each in (*TO_DISCRETE, *TO_CLASSIFIED)}
"""The names of the passes that only the Triton target runs."""


@dataclass
class Trace:
    """What happened: (name of the step, program behind it) in order, and every remark."""

    steps: list[tuple[str, Program]] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)

    def record(self, name: str, program: Program) -> Program:
        """Notes a program and returns it; raises IllFormed, with the step and the IR, if it breaks its level."""
        try:
            verify(program)
        except IllFormed as error:
            raise IllFormed(f"after {name}: {error}\n{print_program(program)}") from error
        self.steps.append((name, program))
        return program


def run(passes: tuple[Pass, ...], program: Program, trace: Trace) -> Program:
    """`program` through `passes`. A pass that changes nothing leaves no step behind, only its remarks."""
    for each in passes:
        assert program.level is each.before, f"{each.name} takes {each.before}, got {program.level}"
        result, remarks = each.run(program)
        trace.remarks.extend(remarks)
        if result is not program:
            program = trace.record(each.name, result)
        assert program.level is each.after, f"{each.name} promises {each.after}, gave {program.level}"
    return program
