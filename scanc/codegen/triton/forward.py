"""The forward template: one loop over time, states in registers, checkpoints where backward wants them."""

from __future__ import annotations

from collections.abc import Sequence

from scanc.codegen.triton.kernel import Kernel, KernelWriter, share
from scanc.codegen.triton.step import Step, reads
from scanc.codegen.triton.tiles import BATCH, SEGMENT, TIME, Buffer
from scanc.ir.nodes import Program, RegionKind
from scanc.passes.schedule import Schedule


def forward_kernel(program: Program, schedule: Schedule, kept: Sequence[str]) -> Kernel:
    """The forward kernel of a fused program; `kept` are the states that it saves for backward.

    Host keys of its tensors: `in:<tensor>`, `start:<state>`, `out:<output>`, `end:<state>`, `saved:<state>`.
    """
    kernel = KernelWriter(program, schedule)
    out = kernel.body
    step = Step(out, kernel.frame, program, schedule)
    inputs, params = reads(program, program.inputs), reads(program, program.params)
    kernel.declare([*inputs, *params])
    starts = kernel.starts(program.states)
    outs = kernel.leaving(step, program.outputs, (BATCH, TIME))
    ends = kernel.ends(step, program.states)
    saved = kernel.saved(state for state in program.states if state.name in kept)

    if params:
        out.blank()
        step.write_loads(params, step.write_addresses(params, kernel.buffers))
    step.write(step.instrs(RegionKind.PARAMS))
    out.blank()
    addresses = step.write_addresses(inputs, kernel.buffers)
    out_addresses = kernel.write_out_addresses(step, outs)
    kernel.write_starts(step, starts)
    with out.block("for step in tl.range(0, T, num_stages=stages):"):
        out.line("t = tl.cast(T - 1 - step if reverse else step, tl.int64)")
        if kept:
            _write_checkpoint(kernel, step, saved)
        step.write_loads(inputs, addresses)
        step.write(step.instrs(RegionKind.STEP))
        kernel.write_stores(step, outs, out_addresses)
        kernel.write_next(step)
    for end in ends:
        kernel.write_store(step, kernel.write_address(end.buffer), end.value, step.identifier(end.value))
    flags = [*(["segment", "save"] if kept else []), "reverse", "acc", "stages"]
    doc = f"Each program: {share(schedule)}, step by step."
    return kernel.finish("forward_kernel", doc, flags, [program])


def _write_checkpoint(kernel: KernelWriter, step: Step, saved: dict[str, Buffer]) -> None:
    out = kernel.body
    with out.block("if save:"), out.block("if step % segment == 0:"):
        out.line("checkpoint = tl.cast(step // segment, tl.int64)")
        for name, buffer in saved.items():
            kernel.write_store(step, kernel.write_address(buffer, {SEGMENT: "checkpoint"}), name, step.identifier(name))
