"""The kernel of a part that walks step by step: for sequences that decay too fast for their chunks to be tilted.

It takes any decay, down to none of the state left, at the pace of the recurrent form; all other sequences it leaves to
the kernel of chunks.
"""

from __future__ import annotations

from collections.abc import Sequence

from scanc.codegen.triton.kernel import Kernel, Leaving
from scanc.codegen.triton.recall import RecallWriter
from scanc.codegen.triton.recall_frame import LOG2E, write_tame
from scanc.codegen.triton.recall_plan import Part, Plan
from scanc.codegen.triton.tiles import SEGMENT
from scanc.ir.nodes import Kind


class _StepsWriter(RecallWriter):
    """Tiles have one step; nothing is tilted."""

    flags = ("span", "stages")
    walk = "the time, step by step"
    splits = rowed = False

    def _needs(self) -> tuple[Sequence[str], Sequence[str]]:
        return self.part.raw, [*self.part.raw, *(log for _, log in self.part.sides)]

    def _declare(self) -> None:
        pass

    def _write_guard(self, ranges: Sequence[str]) -> None:
        write_tame(self.out, ranges, "tl.cdiv(T, span)")
        with self.out.block("if tame:"):
            self.out.line("return")

    def _write_pairs(self) -> None:
        pass

    def _write_products(self, raw: dict[str, str]) -> None:
        part, out, step = self.part, self.out, self.step
        for name, value in zip(("query", "key", "value"), self.operands, strict=True):
            axes = self.types[value].axes
            inside = self.frame.inside(axes, self.frame.tile(axes))
            out.line(f"{name} = tl.where({inside}, {step.tensor(value)}, 0.0)", self.frame.comment(axes))
        for where, log in part.sides:
            axes = self.types[log].axes
            inside = self.frame.inside(axes, self.frame.tile(axes))
            fade = f"tl.exp2(tl.where({inside}, {step.tensor(log)}, 0.0) * {LOG2E})"
            fade = fade if where == "keys" else f"tl.trans({fade})"
            out.line(f"fade_{where} = {fade}", f"[1, {part.keys}]" if where == "keys" else f"[{part.values}, 1]")
        if part.op.decayed and not part.made.dual:
            self._write_fade()
        if part.whole:
            self._write_take()
        found = "tl.sum(state * query, 1)[None, :]"
        out.line(f"{step.define(part.result)} = {found}", self.frame.comment(self.types[part.result].axes))

    def _write_leave(self, leave: Leaving) -> None:
        if SEGMENT not in leave.buffer.dims:
            super()._write_leave(leave)
            return
        axes = self.types[leave.value].axes
        address = self.kernel.write_address(leave.buffer, {SEGMENT: "(chunk // span)"})
        self.out.line("goes_on = (chunk + 1) % span != 0 and chunk != T - 1 if reverse else chunk % span != 0")
        self.out.line(f"so_far = {self.frame.raw(address, axes, Kind.REAL, 'goes_on')}")
        text = f"so_far + {self.step.tensor(leave.value)}"
        self.kernel.write_store(self.step, address, leave.value, text)

    def _write_onward(self) -> None:
        part = self.part
        late = part.made.dual and part.made.writes[0]
        if not late and not (part.op.decayed and not part.made.dual):
            self._write_fade()
        if not part.whole:
            self._write_take()
        if late:
            self._write_fade()

    def _write_fade(self) -> None:
        for where, _ in self.part.sides:
            self.out.line(f"state = state * fade_{where}")

    def _write_take(self) -> None:
        self.out.line("state = state + tl.trans(value) * key")


def steps_kernel(found: Plan, part: Part, name: str) -> Kernel:
    """The kernel that walks a part step by step."""
    return _StepsWriter(found, part, name).write()
