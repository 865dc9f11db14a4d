"""The forward template: blocks of steps, states in registers, checkpoints where backward wants them."""

from __future__ import annotations

from collections.abc import Sequence

from scanc.codegen.triton.kernel import Kernel, KernelWriter, share
from scanc.codegen.triton.rows import COUNT, SHORT, WAY, Inputs, write_move
from scanc.codegen.triton.step import Step, reads
from scanc.codegen.triton.tiles import BATCH, SEGMENT, TIME, Buffer
from scanc.codegen.triton.turns import TurnWriter
from scanc.ir.nodes import Program, RegionKind
from scanc.passes.schedule import Schedule


def forward_kernel(
    program: Program, schedule: Schedule, kept: Sequence[str], chunked: bool = False, name: str = "forward_kernel"
) -> Kernel:
    """The forward kernel of a fused program; `kept` are the states that it saves for backward.

    `chunked`: programs share out the time too.

    Host keys of its tensors: `in:<tensor>`, `start:<state>`, `out:<output>`, `end:<state>`, `saved:<state>`.
    """
    kernel = KernelWriter([program], schedule, chunked)
    out = kernel.body
    step = Step(out, kernel.frame, program, schedule)
    found, params = reads(program, program.inputs), reads(program, program.params)
    kernel.declare([*found, *params])
    starts = kernel.starts(program.states)
    outs = kernel.leaving(step, program.outputs, (BATCH, TIME))
    ends = kernel.ends(step, program.states)
    saved = kernel.saved(state for state in program.states if state.name in kept)

    if params:
        out.blank()
        step.write_params(params, kernel.buffers)
    step.write(step.instrs(RegionKind.PARAMS))
    out.blank()
    out.line(WAY)
    out.line(f"{SHORT}: tl.constexpr = 4 if unroll > 4 else unroll", "steps of a block of the tail")
    kernel.write_starts(step, starts)
    parts = kernel.turns(program, found)
    turn = TurnWriter(step, parts, kernel.folds[1], "0", "share - 1") if parts else None
    if turn:
        kernel.write_share(SHORT, leaves=bool(turn.alone))
    turned = [read.value for read in turn.parts.reads] if turn else []
    inputs = Inputs(out, step, found, kernel.buffers, COUNT, turned)
    out.line(f"whole = {kernel.steps} // unroll * unroll")
    with out.block("for tail in tl.static_range(2 if unroll > 1 else 1):"):
        out.line("begin = whole if tail else 0")
        out.line(f"origin = tl.cast({origin(kernel)}, tl.int64)")
        inputs.write_first("", f"(begin + {{step}} < {kernel.steps})")
        out_rows = kernel.write_out_rows(outs, turn.alone if turn else ())
        with out.block(f"for first in range(begin, {kernel.steps} if tail else whole, {COUNT}):"):
            inputs.write_turn(
                "+", f"first + 2 * unroll <= {kernel.steps}", f"first + (1 + prefetch) * unroll <= {kernel.steps}"
            )
            inputs.write_short_turn(f"(first + {SHORT} + {{step}} < {kernel.steps})")
            with out.block(f"for u in tl.static_range({COUNT}):"):
                out.line(f"alive = first + u < {kernel.steps} if tail else True")
                if kept:
                    _write_checkpoint(kernel, step, saved)
                if turn:
                    turn.write_before(inputs.write_taken)
                inputs.write_taken(step, [read for read in found if read.value not in turned])
                step.write(turn.parts.during if turn else step.instrs(RegionKind.STEP))
                kernel.write_stores(step, outs, out_rows)
                if turn and turn.alone:
                    with turn.behind(kernel.steps):
                        kernel.write_stores(step, outs, out_rows, turned=True)
                kernel.write_next(step, "alive")
            for row in out_rows.values():
                write_move(out, row, "+", f"({COUNT})")
    for end in ends:
        kernel.write_end(step, end)
    flags = [*(["segment", "save"] if kept else []), "unroll", "prefetch", "reverse", "acc"]
    doc = f"Each program: {share(schedule)}, step by step."
    return kernel.finish(name, doc, flags, [program], found)


def origin(kernel: KernelWriter) -> str:
    """The time of the first row that a walk reads."""
    return (
        f"T - 1 - ({kernel.skip}begin) if reverse else {kernel.skip}begin"
        if kernel.skip
        else ("T - 1 - begin if reverse else begin")
    )


def _write_checkpoint(kernel: KernelWriter, step: Step, saved: dict[str, Buffer]) -> None:
    out = kernel.body
    with out.block("if save and u % segment == 0:"), out.block("if (first + u) % segment == 0 and alive:"):
        out.line(f"checkpoint = tl.cast(({kernel.skip}first + u) // segment, tl.int64)")
        for name, buffer in saved.items():
            kernel.write_store(step, kernel.write_address(buffer, {SEGMENT: "checkpoint"}), name, step.identifier(name))
