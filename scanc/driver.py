"""The whole compiler on one screen: a call per stage, with what goes in and what comes out above it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from scanc import report
from scanc.analysis.drawing import to_dot, to_svg
from scanc.codegen import torch as torch_target
from scanc.codegen import triton as triton_target
from scanc.codegen.module import Functions, assemble
from scanc.diagnostics.diagnostic import fault
from scanc.diagnostics.render import render
from scanc.ir.nodes import Program
from scanc.ir.printer import print_program
from scanc.passes.base import Remark
from scanc.passes.differentiate import differentiate
from scanc.passes.pipeline import (
    SIMPLIFIED,
    TO_CLASSIFIED,
    TO_DISCRETE,
    TO_FUSED,
    TO_REMEMBERED,
    TO_WIDENED,
    Trace,
    run,
)
from scanc.passes.prepare import Prepared, host_only, no_kernels, prepare
from scanc.semantics.lower import analyse
from scanc.targets import TARGETS


@dataclass(frozen=True)
class Compiled:
    """A spec as far as targets share it: one step and its adjoint, and how each of them is repeated."""

    text: str
    warnings: tuple[str, ...]
    typed: Program
    discrete: Program
    prepared: Prepared | None
    remembered: Program
    remembered_adjoint: Program
    classified: Program
    classified_adjoint: Program
    trace: Trace
    adjoint_trace: Trace
    sources: Mapping[str, str]

    @property
    def name(self) -> str:
        """The name on the spec's `scan` line."""
        return self.typed.name

    @property
    def digest(self) -> str:
        """Twelve hex digits that name this text among all specs."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]

    @property
    def core(self) -> Program:
        """One step, without what is made of params ahead of the recurrence."""
        return self.discrete if self.prepared is None else self.prepared.core

    @cached_property
    def no_kernels(self) -> Remark | None:
        """Why the Triton target has nothing of this spec, if so."""
        instr = host_only(self.core)
        return None if instr is None else no_kernels(instr)

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets that run this spec."""
        return tuple(target for target in TARGETS if target != "triton" or self.no_kernels is None)

    @property
    def stages(self) -> tuple[tuple[str, str], ...]:
        """The IR after every pass that changed it, as (file name, text)."""
        return _files((("", self.trace), ("adjoint_", self.adjoint_trace)))

    @property
    def triton_stages(self) -> tuple[tuple[str, str], ...]:
        """The IR after every pass that only the Triton target runs, as (file name, text), numbered behind `stages`."""
        if self.no_kernels is not None:
            return ()
        forward, adjoint = self._fused
        traces = (("triton_", self._widened), ("triton_", forward), ("triton_adjoint_", adjoint))
        return _files(traces, start=len(self.stages))

    @property
    def graph(self) -> tuple[str, str]:
        """The dependence graph of the step, as DOT and as SVG."""
        return to_dot(self.classified), to_svg(self.classified)

    def explain(self, form: str | None = None) -> str:
        """What the spec is, what each pass did or declined and why, and its forms, or one of them."""
        admitted: dict[str, report.Admitted] = {
            "torch": (*torch_target.admitted(self.classified, self.classified_adjoint), None, None)
        }
        if self.no_kernels is not None:
            admitted["triton"] = (), ((form or "recurrent", self.no_kernels.text),), None, None
        else:
            admitted["triton"] = self._triton.forms, self._triton.refused, self._triton.long, self._triton.short
        remarks = self.trace.remarks, self.adjoint_trace.remarks
        triton_remarks = []
        if form is None and self.no_kernels is None:
            forward, adjoint = self._fused
            triton_remarks = [[*forward.remarks, *self._widened.remarks], adjoint.remarks]
        return report.explain(self.classified, *remarks, triton_remarks, admitted, form)

    def module_source(self, target: str) -> str:
        """The generated module for one of `TARGETS`.  Raises `CompileError` if it is none of `targets`."""
        if target == "torch":
            # classified → source of `step`, of forward and of backward in every form
            functions: Functions = torch_target.emit_functions(self.classified, self.classified_adjoint, self.discrete)
        elif self.no_kernels is not None:
            raise fault(
                "E0708",
                f"{self.name}: the Triton target has no functions of matrices that vary in time",
                self.no_kernels.span,
                "this matrix differs from step to step",
                hint="target='torch' or 'auto' runs it, on GPUs too; with A and the step as params there are kernels",
            ).with_sources(self.sources)
        else:
            functions = self._triton
        # sources → a module that needs torch, triton and scanc_runtime alone
        return assemble(self.text, self.discrete, self.classified, functions, self.digest, target, self.prepared)

    @cached_property
    def _triton(self) -> triton_target.TritonFunctions:
        # scheduled → source of the kernels, and of `step`
        forward, adjoint = (trace.steps[-1][1] for trace in self._fused)
        # what each state's transition is; its writes and read-outs, behind the first `;`, refuse no form
        regions = [region for region in self.classified.regions if region.recurrence]
        classes = {state: str(region.recurrence).split(";")[0] for region in regions for state in region.states}
        return triton_target.emit_functions(
            forward, adjoint, self.core, classes=classes, remembered=self._recalled, whole=self.discrete
        )

    @cached_property
    def _recalled(self) -> tuple[Program, Program] | None:
        """The step and its adjoint with all memories that products of matrices can read, if there are any."""
        if self.remembered is self.core:
            return None
        if not self._widened.steps:
            return self.remembered, self.remembered_adjoint
        wide = self._widened.steps[-1][1]
        return wide, run(SIMPLIFIED, differentiate(wide), Trace())

    @cached_property
    def _widened(self) -> Trace:
        """The step with vectors beside memories as memories too, on its way to products."""
        trace = Trace()
        # discrete → discrete: nothing changes where nothing is a memory
        run(TO_WIDENED, self.remembered, trace)
        return trace

    @cached_property
    def _fused(self) -> tuple[Trace, Trace]:
        """The step and its adjoint on the way to the Triton target; each trace ends with the fused program."""
        forward, adjoint = Trace(), Trace()
        # discrete → scheduled: one step whose values stay on the chip
        run(TO_FUSED, self.core, forward)
        back = self.remembered_adjoint
        if self.remembered is not self.core:  # kernels have the matrices at each step, and so has their adjoint
            back = run(SIMPLIFIED, differentiate(self.core), Trace())
        run(TO_FUSED, back, adjoint)
        return forward, adjoint


def _files(traces: Iterable[tuple[str, Trace]], start: int = 0) -> tuple[tuple[str, str], ...]:
    """Every step of the traces as (file name, text): numbered from `start`, the trace's prefix before its name."""
    steps = [(prefix + name, program) for prefix, trace in traces for name, program in trace.steps]
    return tuple((f"{i:02d}_{name}.ir", print_program(program)) for i, (name, program) in enumerate(steps, start))


def compile_text(text: str, *, source: str = "<spec>", root: Path | None = None) -> Compiled:
    """Compiles the text of a spec; `Compiled.module_source` turns the result into a module.

    `source` names the text in messages, `root` is the directory that imports may not leave.
    Raises CompileError with every diagnostic found.
    """
    trace = Trace()
    # text → typed: names, axes and types are known
    lowered = analyse(text, source=source, root=root)
    typed = trace.record("typed", lowered.program)
    # typed → discrete: one step in plain arithmetic
    with lowered.showing_sources():
        discrete = run(TO_DISCRETE, typed, trace)
    # discrete → discrete: functions of matrices that params alone decide, ahead of the recurrence
    prepared = prepare(discrete)
    if prepared is not None:
        trace.record("ahead", prepared.ahead)
        trace.record("prepare", prepared.core)
        trace.remarks.append(prepared.remark)
    core = discrete if prepared is None else prepared.core
    # discrete → discrete: matrices that are only read by contractions exist at no step
    remembered = run(TO_REMEMBERED, core, trace)
    # discrete → classified: stages in order, each a scan, a memory, a delay or a loop
    classified = run(TO_CLASSIFIED, remembered, trace)
    # discrete → discrete: the step's vector-Jacobian product, a recurrence in reversed time
    adjoint_trace = Trace()
    adjoint = run(SIMPLIFIED, adjoint_trace.record("differentiate", differentiate(remembered)), adjoint_trace)
    # discrete → classified: the adjoint goes the way of its primal
    classified_adjoint = run(TO_CLASSIFIED, adjoint, adjoint_trace)
    warnings = tuple(render(warning, lowered.sources) for warning in lowered.warnings)
    steps = typed, discrete, prepared, remembered, adjoint, classified, classified_adjoint
    return Compiled(text, warnings, *steps, trace, adjoint_trace, lowered.sources)
