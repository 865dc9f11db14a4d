"""What the runtime lays kernels out by: statements of a module."""

from __future__ import annotations

from scanc.codegen.triton.host import PARALLEL, RECURRENT
from scanc.codegen.triton.kernel import Kernel
from scanc.codegen.triton.lookback import Lookback
from scanc.ir.nodes import Program

SEGMENTS = 16, 32
"""Steps between two saved states, and between matrices, which take more memory than they save time.

With 16, one axis takes an eighth of an input in bf16, and a folded axis of 16 beside it twice one.
"""
LOOKBACK_SEGMENTS = 8, 16
"""Steps between two saved states of the form `parallel`, of a body with much work to a step and of one with little."""
_LOOKBACK_STEPS = 16  # the most steps of a chunk


def tiling(name: str, kernel: Kernel, program: Program) -> str:
    """How a kernel that walks the steps is laid out."""
    plan = kernel.schedule
    fields: dict[str, object] = {"grid": plan.grid, "split": plan.free, "summed": plan.summed, "full": plan.full}
    fields |= {"tiles": kernel.tiles, "resident": kernel.resident, "rows": kernel.rows, "past": kernel.past}
    fields |= {"folds": kernel.folds, "work": kernel.work}
    return _statement(name, "Tiling", program, fields, RECURRENT.segment)


def lookback_tiling(way: str, kernel: Kernel, found: Lookback, program: Program) -> str:
    """How a kernel of the form `parallel` is laid out; `way`: forward or backward."""
    states = sum(argument.host.startswith("start:") for argument in kernel.arguments)
    rows = sum(bool(tile) for tile in kernel.rows)
    fields: dict[str, object] = {"axis": found.axis, "grid": kernel.schedule.grid, "states": states, "rows": rows}
    kept = found.kept if way == "backward" else 0
    fields |= {"past": kept, "most": _LOOKBACK_STEPS, "light": found.light}
    return _statement(PARALLEL.tiling(way), "LookbackTiling", program, fields, PARALLEL.segment)


def _statement(name: str, kind: str, program: Program, fields: dict[str, object], segment: str) -> str:
    given = [repr(program.name), *(f"{field}={value!r}" for field, value in fields.items()), f"segment={segment}"]
    return f"{name} = {kind}({', '.join(given)})".replace("'", '"')
