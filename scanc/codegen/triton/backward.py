"""The backward template: segments in reverse, each first run forward again, then walked back by the adjoint step.

Of the past, only the states at segment boundaries are kept from forward; inside a segment a program
writes the states that the adjoint reads to scratch of its own.
"""

from __future__ import annotations

from dataclasses import replace

from scanc.codegen.triton.kernel import Kernel, KernelWriter, Leaving, share
from scanc.codegen.triton.step import Read, Step, reads
from scanc.codegen.triton.tiles import BATCH, SEGMENT, TIME, Buffer
from scanc.ir.nodes import Kind, Program, RegionKind
from scanc.ir.rewrite import roots
from scanc.passes.schedule import recompute, schedule


def states_read(adjoint: Program, forward: Program) -> tuple[str, ...]:
    """The primal states that the adjoint step reads, in order."""
    read = {arg for instr in adjoint.instrs for arg in instr.args} | roots(adjoint)
    return tuple(state.name for state in forward.states if state.name in read)


def rerun(adjoint: Program, forward: Program) -> Program | None:
    """The part of the forward step that recomputes what the adjoint step reads; None if it reads no state."""
    wanted = states_read(adjoint, forward)
    return recompute(forward, wanted) if wanted else None


def backward_kernel(adjoint: Program, forward: Program) -> Kernel:
    """The backward kernel of a fused adjoint program and the fused forward program that it belongs to.

    Host keys of its tensors: `in:<tensor>`, `in:dy.<output>`, `saved:<state>`, `scratch:<state>`, `start:d.<state>`
    (the gradient of the final state), `out:d.<input>`, `out:d.<param>`, `end:d.<state>`.
    """
    return _Backward(_smooth(adjoint), rerun(adjoint, forward), states_read(adjoint, forward)).write()


def _smooth(adjoint: Program) -> Program:
    """Without the cotangents of bool and int states, which nothing reads."""
    states = tuple(state for state in adjoint.states if state.type.kind is Kind.REAL)
    kept = {state.name for state in states}
    return replace(adjoint, states=states, next=tuple(pair for pair in adjoint.next if pair[0] in kept))


class _Backward:
    def __init__(self, adjoint: Program, again: Program | None, wanted: tuple[str, ...]) -> None:
        self.adjoint = adjoint
        self.again = again
        self.wanted = wanted
        self.plan = schedule(adjoint, whole_states=False, alongside=again)
        self.kernel = KernelWriter(adjoint, self.plan)
        self.frame, self.out = self.kernel.frame, self.kernel.body
        self.step = Step(self.out, self.frame, adjoint, self.plan)
        self.scratch: dict[str, str] = {}
        given = [tensor for tensor in adjoint.inputs if tensor.name not in wanted]
        self.inputs, self.params = reads(adjoint, given), reads(adjoint, adjoint.params)
        self.again_inputs = reads(again, again.inputs) if again else []
        self.again_params = reads(again, again.params) if again else []

    def write(self) -> Kernel:
        kernel, step, out, adjoint = self.kernel, self.step, self.out, self.adjoint
        kernel.declare([*self.inputs, *self.again_inputs, *self.params, *self.again_params])
        starts = kernel.starts(adjoint.states)
        saved, scratch = self._past()
        outs = kernel.leaving(step, adjoint.outputs, (BATCH, TIME))
        totals = kernel.leaving(step, adjoint.totals, (BATCH,))
        ends = kernel.ends(step, adjoint.states)

        again = self._write_params()
        out.blank()
        addresses = step.write_addresses(_distinct([*self.inputs, *self.again_inputs]), kernel.buffers)
        out_addresses = kernel.write_out_addresses(step, outs)
        for state, buffer in scratch.items():
            self._write_scratch_address(state, buffer)
        kernel.write_starts(step, starts)
        sums = self._write_sums(totals)
        if again is None:
            with out.block("for back in tl.range(0, T, num_stages=stages):"):
                out.line("t = tl.cast(back if reverse else T - 1 - back, tl.int64)")
                self._write_adjoint_step(addresses, outs, out_addresses, totals, sums)
        else:
            out.line("segments = tl.cdiv(T, segment)")
            with out.block("for behind in range(0, segments):"):
                out.line("first = (segments - 1 - behind) * segment")
                out.line("steps = tl.minimum(segment, T - first)")
                self._write_rerun(again, saved, addresses)
                out.line("tl.debug_barrier()")
                with out.block("for back in tl.range(0, steps, num_stages=stages):"):
                    out.line("local = steps - 1 - back")
                    out.line(_TIME)
                    for state in self.wanted:
                        type_ = adjoint.types[state]
                        dtype = self.frame.dtype(type_.kind)
                        load = f"tl.load({self.scratch[state]}).to({dtype})"
                        out.line(f"{step.define(state)} = {load}", self.frame.comment(type_.axes))
                    self._write_adjoint_step(addresses, outs, out_addresses, totals, sums)
                out.line("tl.debug_barrier()")
        for total in totals:
            kernel.write_store(step, kernel.write_address(total.buffer), total.value, sums[total.host])
        for end in ends:
            kernel.write_store(step, kernel.write_address(end.buffer), end.value, step.identifier(end.value))
        flags = [*(["segment"] if again else []), "reverse", "acc", "stages"]
        doc = f"Each program: {share(self.plan)}, from the last step to the first."
        programs = [adjoint, self.again] if self.again else [adjoint]
        tiles = [self.frame.tile(adjoint.types[state].axes) for state in self.wanted]
        return kernel.finish("backward_kernel", doc, flags, programs, tiles)

    # --- the past ---

    def _past(self) -> tuple[dict[str, Buffer], dict[str, Buffer]]:
        """The arguments that hold the states at segment boundaries, and each program's scratch."""
        if self.again is None:
            return {}, {}
        saved = self.kernel.saved(self.again.states)
        return saved, {s: self.kernel.scratch(f"{s}_scratch", f"scratch:{s}") for s in self.wanted}

    def _write_scratch_address(self, state: str, buffer: Buffer) -> None:
        axes = self.adjoint.types[state].axes
        name = self.frame.names.fresh(f"{state}_scratch_at")
        base = self.frame.times_cells("tl.program_id(0).to(tl.int64) * segment", axes)
        self.out.line(f"{name} = {buffer.pointer} + {base}{self.frame.cells(axes)}", self.frame.comment(axes))
        self.scratch[state] = f"{name} + {self.frame.times_cells('local', axes)}"

    def _write_rerun(self, again: Step, saved: dict[str, Buffer], addresses: dict[str, str]) -> None:
        """The segment's steps once more, each state written down before it moves on."""
        out = self.out
        out.line("checkpoint = tl.cast(segments - 1 - behind, tl.int64)")
        for state in again.program.states:
            again.write_load(state.name, self.kernel.write_address(saved[state.name], {SEGMENT: "checkpoint"}))
        with out.block("for local in tl.range(0, steps, num_stages=stages):"):
            out.line(_TIME)
            for state_name in self.wanted:
                out.line(f"tl.store({self.scratch[state_name]}, {again.identifier(state_name)})")
            again.write_loads(self.again_inputs, addresses)
            again.write(again.instrs(RegionKind.STEP))
            self.kernel.write_next(again)

    # --- parameters ---

    def _write_params(self) -> Step | None:
        """Loads of params and the work on them alone, for both steps; returns the step that runs forward again."""
        step, out = self.step, self.out
        params = _distinct([*self.params, *self.again_params])
        if params:
            out.blank()
            step.write_loads(params, step.write_addresses(params, self.kernel.buffers))
        step.write(step.instrs(RegionKind.PARAMS))
        if self.again is None:
            return None
        own = {instr.name: instr for instr in self.adjoint.instrs}
        states = {state.name for state in self.again.states}
        other = {instr.name for instr in self.again.instrs if own.get(instr.name, instr) != instr}

        def key(name: str) -> str:
            return f"{name}#now" if name in states else f"{name}#again" if name in other else name

        again = Step(out, self.frame, self.again, replace(self.plan, spreads=()), key)
        again.tiles.update((name, tile) for name, tile in step.tiles.items() if name not in states | other)
        again.write(again.instrs(RegionKind.PARAMS))
        return again

    # --- the adjoint step ---

    def _write_sums(self, totals: list[Leaving]) -> dict[str, str]:
        """Variables in which gradients of params are summed."""
        sums = {}
        for total in totals:
            axes = self.adjoint.types[total.value].axes
            name = self.frame.names.fresh(total.buffer.pointer.replace("_out_ptr", "_sum"))
            shape = self.frame.shape(axes) if self.frame.tile(axes) else "()"
            self.out.line(f"{name} = tl.full({shape}, 0.0, acc)", self.frame.comment(axes))
            sums[total.host] = name
        return sums

    def _write_adjoint_step(
        self,
        addresses: dict[str, str],
        outs: list[Leaving],
        out_addresses: dict[str, str],
        totals: list[Leaving],
        sums: dict[str, str],
    ) -> None:
        step = self.step
        step.write_loads(self.inputs, addresses)
        step.write(step.instrs(RegionKind.STEP))
        self.kernel.write_stores(step, outs, out_addresses)
        for total in totals:
            self.out.line(f"{sums[total.host]} += {step.tensor(total.value)}")
        self.kernel.write_next(step)


_TIME = "t = tl.cast(T - 1 - first - local if reverse else first + local, tl.int64)"


def _distinct(found: list[Read]) -> list[Read]:
    return list(dict.fromkeys(found))
