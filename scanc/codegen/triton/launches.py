"""What the launches of all acts share: memory for what leaves, and what is handed on."""

from __future__ import annotations

from collections.abc import Sequence

from scanc.codegen.triton.acts import LATER
from scanc.codegen.triton.host import Host, computed, dims_in_call, quoted, tuple_of
from scanc.codegen.triton.kernel import Kernel
from scanc.ir.nodes import Kind, Output, Program


class Launches:
    """The launches of one act of a function; `dtypes`: of what leaves that function, in words of the host."""

    def __init__(self, host: Host, program: Program, clock: str, dtypes: dict[str, str]) -> None:
        self.host, self.out, self.clock, self.dtypes = host, host.out, clock, dtypes
        self.types = program.types

    def tensors(self, kernel: Kernel) -> str:
        ranks = tuple_of([str(len(argument.buffer.dims)) for argument in kernel.arguments])
        return f"[{', '.join(self.host.variable(argument.host) for argument in kernel.arguments)}], {ranks}"

    def allocate(self, leaves: Sequence[Output], kernel: Kernel, dtype: str = computed(Kind.REAL)) -> None:
        clock = self.clock
        for output in leaves:
            key = f"out:{output.name}"
            axes = self.types[output.value].axes
            dims = ["call.time" if axis == clock else dim for axis, dim in zip(axes, dims_in_call(axes), strict=True)]
            lead = ["call.batch", *(["recall.chunks(call, blocks.unroll)"] if output.name.startswith("total.") else [])]
            given = self.dtypes.get(key, dtype)
            over = kernel.schedule.partial_over(output.value)
            if over:
                programs = f"blocks.along({', '.join(map(quoted, over))})"
                made = f"call.shares({programs}, {tuple_of([*lead, *dims])}, {given}, narrow=True)"
                self.out.line(f"{self.host.variable(key)} = {made}")
            else:
                self.host.new(key, Kind.REAL, [*lead, *dims], given)

    def hand_on(self, leaves: Sequence[Output]) -> None:
        """What later kernels read, its partial sums added."""
        for output in leaves:
            if output.name.startswith(("handed.", LATER)):
                key = f"out:{output.name}"
                whole = self.host.result(key, Kind.REAL)
                name = self.host.variable(key)
                if whole != name:
                    self.out.line(f"{name} = {whole}")
                self.host.alias(f"in:{output.name.partition('.')[2]}", name)
