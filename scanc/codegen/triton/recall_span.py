"""The kernel of a memory's spans: what each segment of the time comes to from nothing.

It reads keys, values and decays alone.  What it leaves is carried from segment to segment by the runtime, so that the
kernels of parts walk all segments side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from scanc.codegen.triton import gates
from scanc.codegen.triton.kernel import Kernel
from scanc.codegen.triton.recall import RecallWriter
from scanc.codegen.triton.recall_plan import Part, Plan
from scanc.codegen.triton.tiles import BATCH, SEGMENT, Buffer


class _SpanWriter(RecallWriter):
    """Nothing is recalled, and nothing leaves but the state."""

    walk = "a segment of the time, from nothing"

    def _needs(self) -> tuple[Sequence[str], Sequence[str]]:
        _, key, value = self.part.operands
        return (key, value), (key, value, *self.part.factors[1])

    def _declare_start(self) -> Buffer | None:
        return None

    def _declare(self) -> None:
        super()._declare()
        made, kernel = self.part.made, self.kernel
        self.ends = kernel.argument(f"{made.state}_ends", (SEGMENT, BATCH, *made.axes), f"scratch:{made.state}.starts")
        self.kept: dict[str, str] = {}
        about = "what is left of a state behind each"
        if self.part.log("all") is not None:
            found = kernel.scratch("kept", f"scratch:{made.state}.kept", f"[rows, segments]: {about}")
            self.kept["all"] = found.pointer
        for where, _ in self.part.sides:
            axis = self.axis(where)
            found = kernel.scratch(
                f"kept_{where}", f"scratch:{made.state}.kept.{axis}", f"[rows, segments, {axis}]: {about}"
            )
            self.kept[where] = found.pointer

    def _write_pairs(self) -> None:
        if self.part.log("all") is not None:
            self.out.line("total = 0.0", "logarithm of what is left of a state")
        for where, _ in self.part.sides:
            self.out.line(f"total_{where} = tl.full([block_{self.axis(where)}], 1.0, acc)", "what is left of a state")

    def _write_products(self, raw: dict[str, str]) -> None:
        for name, value in zip(("key", "value"), self.operands, strict=True):
            self.out.line(f"{name} = {self._operand(value, raw)}", self.frame.comment(self.types[value].axes))
        self._write_halves()
        for where, _ in self.part.sides:
            self.out.line(f"total_{where} *= half_{where} * half_{where}")
        gates.write_written(self.out, self.part, [self.number(name) for name in self.part.factors[1]], self.sum_rows)
        if self.part.log("all") is not None:
            self.out.line("total += weak_all + strong_all")

    def _write_end(self, end: Buffer | None) -> None:
        """The state, and what is left behind the segment of what was there before it."""
        self.out.line(f"state_at = {self._state_address(self.ends)}")
        self.out.line(f"tl.store(state_at, state, mask={self._there()})")
        for where, kept in self.kept.items():
            if where == "all":
                self.out.line(f"tl.store({kept} + row * segments + segment, tl.exp2(total))")
                continue
            axis = self.axis(where)
            place = f"{kept} + (row * segments + segment) * size_{axis} + at_{axis}"
            self.out.line(f"tl.store({place}, total_{where}, mask=in_{axis})")


def span_kernel(found: Plan, part: Part, name: str) -> Kernel:
    """The kernel of the spans of a part's memory; it runs before the part hands anything on."""
    left = {output.value for output in part.leaves}
    found = replace(found, handed=[value for value in found.handed if value not in left])
    return _SpanWriter(found, replace(part, leaves=[], marks=False, ends=False), name).write()
