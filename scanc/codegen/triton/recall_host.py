"""The kernels of an act of memories, and the statements that launch them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from scanc.codegen.triton.host import ROWS, Host, computed, dims_in_call, tuple_of
from scanc.codegen.triton.kernel import Kernel
from scanc.codegen.triton.launches import Launches
from scanc.codegen.triton.recall import recall_kernel
from scanc.codegen.triton.recall_pairs import pairs_kernel, whole_axes
from scanc.codegen.triton.recall_plan import First, Last, Part, Plan
from scanc.codegen.triton.recall_rows import first_kernel, meet_kernel, sums_kernel
from scanc.codegen.triton.recall_span import span_kernel
from scanc.codegen.triton.recall_steps import steps_kernel
from scanc.ir.nodes import Kind


@dataclass
class Memories:
    """The kernels of an act, forward or backward, and the constants that they are laid out by."""

    plan: Plan
    way: str
    kernels: list[Kernel] = field(default_factory=list)
    sums: dict[str, Kernel] = field(default_factory=dict)
    spans: dict[str, Kernel] = field(default_factory=dict)
    first: list[Kernel] = field(default_factory=list)
    steps: dict[int, Kernel] = field(default_factory=dict)
    last: list[Kernel] = field(default_factory=list)

    def __post_init__(self) -> None:
        for i, first in enumerate(self.plan.first):
            self.first.append(first_kernel(self.plan, first, f"{self.way}_tilt_{i}_kernel"))
        for i, part in enumerate(self.plan.parts):
            if part.sides:
                self.steps[i] = steps_kernel(self.plan, part, f"{self.way}_recall_{i}_steps_kernel")
            self.kernels.append(recall_kernel(self.plan, part, f"{self.way}_recall_{i}_kernel"))
            if part.log("all") is not None and part.memory.name not in self.sums:
                name = f"{self.way}_sums_{len(self.sums)}_kernel"
                self.sums[part.memory.name] = sums_kernel(self.plan, part.memory, name)
            if part.memory.name not in self.spans:
                name = f"{self.way}_span_{len(self.spans)}_kernel"
                self.spans[part.memory.name] = span_kernel(self.plan, part, name)
        for i, last in enumerate(self.plan.last):
            kernel = meet_kernel if last.axis is not None else pairs_kernel
            self.last.append(kernel(self.plan, last, f"{self.way}_flux_{i}_kernel"))

    @property
    def all(self) -> list[Kernel]:
        """Every kernel."""
        return [*self.sums.values(), *self.spans.values(), *self.first, *self.kernels, *self.steps.values(), *self.last]

    def tiling(self, kernel: Kernel) -> str:
        """The constant that the kernel of a part or of a span is laid out by."""
        return kernel.name.removesuffix("kernel").upper() + "TILING"

    def tilings(self, name: str) -> list[str]:
        """The constants, as statements."""
        laid = list(zip(self.plan.parts, self.kernels, strict=True))
        first = {part.memory.name: part for part in reversed(self.plan.parts)}
        laid += [(first[memory], kernel) for memory, kernel in self.spans.items()]
        found = []
        for part, kernel in laid:
            whole = part.values not in kernel.schedule.split
            clock = self.plan.clock
            reads = tuple(tuple(axis for axis in row if axis != clock) for row in kernel.rows if clock in row)
            fields: dict[str, object] = {"grid": part.batch, "keys": part.keys, "values": part.values}
            fields |= {
                "rows": part.made.rows[0],
                "columns": part.made.columns[0],
                "whole": whole,
                "reads": reads,
                "tilted": bool(part.sides),
            }
            if part.single is not None:
                fields["single"] = part.keys if part.single == "keys" else part.values
            text = ", ".join([repr(name), *(f"{key}={value!r}" for key, value in fields.items())])
            found.append(f"{self.tiling(kernel)} = RecallTiling({text})".replace("'", '"'))
        return found


class RecallLaunches(Launches):
    """The launches of one act of memories.  `prepared`: sums of logarithms, and memories whose time is shared out."""

    def __init__(
        self, host: Host, found: Memories, dtypes: dict[str, str], ends: dict[str, str], prepared: set[str]
    ) -> None:
        super().__init__(host, found.plan.program, found.plan.clock, dtypes)
        self.found, self.ends, self.prepared = found, ends, prepared

    def write(self) -> None:
        for first, kernel in zip(self.found.plan.first, self.found.first, strict=True):
            self._write_first(first, kernel)
        for i, part in enumerate(self.found.plan.parts):
            self._write_part(i, part)
        for last, kernel in zip(self.found.plan.last, self.found.last, strict=True):
            self._write_last(last, kernel)

    def _reverse(self, part: Part) -> str:
        return "not reverse" if part.made.dual else "reverse"

    def _write_part(self, i: int, part: Part) -> None:
        out, host, kernel = self.out, self.host, self.found.kernels[i]
        tiling = self.found.tiling(kernel)
        out.line(f"blocks = {tiling}.blocks(call)")
        scratch = []
        flags = [f"**{tiling}.flags(call)", f"reverse={self._reverse(part)}"]
        if part.marks:
            marks = host.variable(f"scratch:marks.{part.made.state}")
            out.line(f"{marks} = {tiling}.marks(call)")
            scratch.append(marks)
            flags.append("marks=recall.STRETCH // blocks.unroll")
        ranges = [host.variable(f"scratch:ranges.{each.log}") for each in self.found.plan.first if part.sides]
        if part.log("all") is not None:
            name = f"{part.made.state}.sums"
            sums = host.variable(f"scratch:{name}")
            if name not in self.prepared:
                self.prepared.add(name)
                own = self.found.sums[part.memory.name]
                out.line(f"{sums} = {tiling}.room(call, blocks)")
                given = f"{own.name}, {tiling}.of_steps(call, blocks.unroll), {self.tensors(own)}, [{sums}]"
                given += ", tiles=recall.chunks(call, blocks.unroll), apart=recall.apart(call)"
                out.line(f"call.run({given}, reverse={self._reverse(part)})")
            scratch += self._sums(part)
            flags.append("apart=recall.apart(call)")
        halves = [host.variable(f"scratch:halves.{log}") for _, log in part.sides]
        self._share_out(part, tiling, halves, ranges)
        flags.append(f"split={self._segments(part)}")
        walked = [*scratch, *ranges]
        scratch += [*halves, *ranges, *self._rows(kernel)]
        self.allocate(part.leaves, kernel)
        if part.ends:
            state = part.made.state
            dims = ["call.batch", *dims_in_call(part.made.axes)]
            host.new(f"end:{state}", Kind.REAL, dims, computed(Kind.REAL), self.ends[state])
        given = f"{kernel.name}, blocks, {self.tensors(kernel)}, [{', '.join(scratch)}]"
        out.line(f"call.run({given}, {', '.join(flags)})")
        if part.sides:
            own = self.found.steps[i]
            given = f"{own.name}, {tiling}.stepwise(call), {self.tensors(own)}, [{', '.join(walked)}]"
            flags = [f"reverse={self._reverse(part)}", *(["marks=recall.STRETCH"] if part.marks else [])]
            out.line(f"call.run({given}, span=blocks.unroll, {', '.join(flags)})")
        self.hand_on(part.leaves)

    def _write_first(self, first: First, kernel: Kernel) -> None:
        out, host = self.out, self.host
        i = next(i for i, part in enumerate(self.found.plan.parts) if first.log in dict(part.sides).values())
        tiling = self.found.tiling(self.found.kernels[i])
        halves, ranges = (host.variable(f"scratch:{what}.{first.log}") for what in ("halves", "ranges"))
        out.line(f"blocks = {tiling}.blocks(call)")
        out.line(f'{halves}, {ranges} = {tiling}.tilts(call, blocks, "{first.axis}")')
        out.line(f"blocks = {tiling}.of_steps(call, blocks.unroll{_along(first.axis, kernel)})")
        self.allocate(first.leaves, kernel, f"{tiling}.tilted_dtype(call)")
        given = f"{kernel.name}, blocks, {self.tensors(kernel)}, [{halves}, {ranges}]"
        out.line(f"call.run({given}, tiles=recall.chunks(call, blocks.unroll), reverse=reverse)")
        self.hand_on(first.leaves)

    def _sums(self, part: Part) -> list[str]:
        """The sums of logarithms of what decays all, and the same as rows for a descriptor."""
        if part.log("all") is None:
            return []
        sums = self.host.variable(f"scratch:{part.made.state}.sums")
        return [sums, f"recall.rows({sums}, blocks.unroll)"]

    def _rows(self, kernel: Kernel) -> list[str]:
        """Numbers of each step as rows, for descriptors."""
        found = []
        for key in (argument.host for argument in kernel.scratches if argument.host.startswith(ROWS)):
            rows = self.host.variable(key)
            if key not in self.prepared:
                self.prepared.add(key)
                given = self.host.variable(f"in:{key.removeprefix(ROWS)}")
                self.out.line(f"{rows} = recall.by_time({given}, blocks.unroll)")
            found.append(f"recall.rows({rows}, blocks.unroll)")
        return found

    def _segments(self, part: Part) -> str:
        return self.host.variable(f"scratch:{part.made.state}.segments")

    def _share_out(self, part: Part, tiling: str, halves: Sequence[str], ranges: Sequence[str]) -> None:
        """How the time of a memory is shared out, and the states that segments begin with where there are several."""
        out, host, made = self.out, self.host, part.made
        if made.state in self.prepared:
            return
        self.prepared.add(made.state)
        kernel = self.found.spans[part.memory.name]
        own = self.found.tiling(kernel)
        segments, start = self._segments(part), host.variable(f"start:{made.state}")
        starts = host.variable(f"scratch:{made.state}.starts")
        sums = self._sums(part)
        along = [*("" for _ in sums[:1]), *(part.keys if where == "keys" else part.values for where, _ in part.sides)]
        kept = {axis: host.variable(f"scratch:{made.state}.kept{'.' if axis else ''}{axis}") for axis in along}
        sides = [kept.get(axis, "None") for axis in ("", *made.rows, *made.columns)]
        rows = self._rows(kernel)
        out.line(f"{segments} = {tiling}.segments(call, blocks)")
        out.line(f"{starts} = {start}")
        with out.block(f"if {segments}.chunks > 1:"):
            out.line(f"{starts} = {segments}.states(call, {tuple_of(dims_in_call(made.axes))})")
            for axis, name in kept.items():
                dims = ", ".join(map(tuple_of, (dims_in_call(part.batch), dims_in_call([axis] if axis else []))))
                out.line(f"{name} = {segments}.kept(call, {dims})")
            scratch = ", ".join([*sums, *halves, *kept.values(), *ranges, *rows])
            flags = f"**{own}.flags(call), reverse={self._reverse(part)}, split={segments}"
            flags += ", apart=recall.apart(call)" if sums else ""
            given = f"{own}.blocks(call), {self.tensors(kernel)}, [{scratch}]"
            out.line(f"call.run({kernel.name}, {given}, {flags})")
            out.line(f"{segments}.carry(call, {start}, {starts}, {', '.join(sides)}, reverse={self._reverse(part)})")
        host.alias(f"given:{made.state}", start)
        host.alias(f"start:{made.state}", starts)

    def _write_last(self, last: Last, kernel: Kernel) -> None:
        out, host, plan = self.out, self.host, self.found.plan
        parts = zip(plan.parts, self.found.kernels, strict=True)
        tiled = (kernel for part, kernel in parts if part.values == last.axis and part.sides)
        tiling = self.found.tiling(next(tiled, self.found.kernels[0]))
        if last.axis is not None:
            out.line(f"blocks = {tiling}.of_steps(call, blocks.unroll{_along(last.axis, kernel)})")
        else:
            whole = "".join(f', "{axis}"' for axis in whole_axes(plan, last))
            out.line(f"blocks = {tiling}.pairs(call{whole})")
        self.allocate(last.leaves, kernel)
        tilted = any(first.axis == last.axis for first in plan.first)
        scratch = [host.variable(f"scratch:ranges.{first.log}") for first in plan.first if tilted]
        if last.meet is not None:
            scratch += [host.variable(f"scratch:marks.{plan.memory(name).state}") for name in last.memories]
        given = f"{kernel.name}, blocks, {self.tensors(kernel)}, [{', '.join(scratch)}]"
        tiles = "tiles=recall.chunks(call, recall.STRETCH), stretch=recall.STRETCH"
        if last.axis is None:
            tiles += f", apart=recall.apart(call), **{tiling}.flags(call)"
        elif "dtype" in kernel.flags:
            tiles += f', dtype={tiling}.flags(call)["dtype"]'
        out.line(f"call.run({given}, {tiles}, reverse=reverse)")
        self.hand_on(last.leaves)


def _along(axis: str | None, kernel: Kernel) -> str:
    """The axis of which a kernel of rows has a block a program, or all, as further arguments of its layout."""
    if axis is None:
        return ""
    return f', "{axis}"' if axis in kernel.schedule.split else f', "{axis}", whole=True'
