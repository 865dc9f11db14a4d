"""Sums over the outer axis of folded tiles that leave at every step, as gradients of what channels share.

A sum across all lanes costs a thread log2(lanes) additions per value, with the same result in all.  The sums of a
block of steps are therefore taken together: at each round a lane passes on half of its steps, and ends with the sums
of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from scanc.codegen.triton.folds import FoldedFrame
from scanc.codegen.triton.kernel import KernelWriter, Leaving
from scanc.codegen.triton.rows import Row
from scanc.codegen.triton.step import Step
from scanc.ir.nodes import Contract, Program, Reduce


class Scatter:
    """The sums of a step that leave so, `outs`; none where tiles are not folded."""

    def __init__(self, kernel: KernelWriter, step: Step, outs: Sequence[Leaving]) -> None:
        self.kernel = kernel
        self.step = step
        values = _sums(kernel, step.program) if kernel.folds else frozenset()
        self.outs = [out for out in outs if out.value in values]
        step.scattered |= {out.value for out in self.outs}

    def write_first(self) -> None:
        """Before the steps of a block."""
        for out in self.outs:
            self.kernel.body.line(f"{self.step.parts(out.value)} = ()")

    def write_step(self) -> None:
        """At each step."""
        for out in self.outs:
            self.kernel.body.line(f"{self.step.parts(out.value)} += ({self.step.tensor(out.value)},)")

    def write_stores(self, rows: Mapping[str, Row]) -> None:
        """Behind a block whose last step was the first that was walked."""
        if not self.outs:
            return
        body, frame = self.kernel.body, self.kernel.frame
        assert isinstance(frame, FoldedFrame)
        outer = frame.order[0]
        lanes, place = f"lanes_{outer}", f"place_{outer}"
        for out in self.outs:
            parts = self.step.parts(out.value)
            body.line(f"{parts} = tlmath.scattered({parts}, unroll, {place}, {lanes}, {frame.apart(outer)})")
        with body.block(f"for k in tl.static_range((unroll + {lanes} - 1) // {lanes}):"):
            body.line(f"mine = unroll - 1 - ({place} * unroll // {lanes} + k)")
            alive = f"(first + mine < {self.kernel.steps} if tail else True)"
            body.line(f"mine_alive = ({place} * unroll % {lanes} < unroll) & {alive}")
            for out in self.outs:
                text = f"{self.step.parts(out.value)}[k]"
                row = rows[out.host]
                at = f"{row.at} + way * mine * {row.stride}"
                self.kernel.write_store(self.step, at, out.value, text, "mine_alive", turned=True)


def _sums(kernel: KernelWriter, program: Program) -> frozenset[str]:
    outer, inner = kernel.folds
    users = Counter(arg for instr in program.instrs for arg in instr.args)
    users.update(value for _, value in program.next)
    users.update(output.value for output in (*program.outputs, *program.totals))
    found = set()
    for instr in program.instrs:
        match instr.op:
            case Reduce("sum", axes) | Contract("real", axes):
                tiles = kernel.frame.tile(axes), kernel.frame.tile(instr.type.axes)
                if tiles == ((outer,), (inner,)) and users[instr.name] == 1:
                    found.add(instr.name)
            case _:
                pass
    return frozenset(found)
