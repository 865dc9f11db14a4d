"""The backward template: blocks of steps in reverse, each run forward again, then walked back by the adjoint step.

Of the past, only the states at segment boundaries are kept from forward.  The states inside a block stay in registers;
where a segment has several blocks, a program writes the states at their starts to scratch of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from scanc.codegen.triton.forward import origin
from scanc.codegen.triton.kernel import Kernel, KernelWriter, Leaving, share
from scanc.codegen.triton.rows import WAY, Again, Inputs, Row, write_move
from scanc.codegen.triton.scatter import Scatter
from scanc.codegen.triton.step import Read, Step, reads
from scanc.codegen.triton.tiles import BATCH, SEGMENT, TIME, Buffer
from scanc.codegen.triton.turns import TurnWriter
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


def backward_kernel(adjoint: Program, forward: Program, chunked: bool = False) -> Kernel:
    """The backward kernel of a fused adjoint program and the fused forward program that it belongs to.

    Host keys of its tensors: `in:<tensor>`, `in:dy.<output>`, `saved:<state>`, `scratch:<state>`, `start:d.<state>`
    (the gradient of the final state), `out:d.<input>`, `out:d.<param>`, `end:d.<state>`.
    """
    return _Backward(smooth(adjoint), rerun(adjoint, forward), states_read(adjoint, forward), chunked).write()


def smooth(adjoint: Program) -> Program:
    """Without the cotangents of bool and int states, which nothing reads."""
    states = tuple(state for state in adjoint.states if state.type.kind is Kind.REAL)
    kept = {state.name for state in states}
    return replace(adjoint, states=states, next=tuple(pair for pair in adjoint.next if pair[0] in kept))


def beside(step: Step, again: Program) -> Step:
    """The step that runs forward again beside an adjoint one, with names of its own where values differ."""
    own = {instr.name: instr for instr in step.program.instrs}
    states = {state.name for state in again.states}
    other = {instr.name for instr in again.instrs if own.get(instr.name, instr) != instr}

    def key(name: str) -> str:
        return f"{name}#now" if name in states else f"{name}#again" if name in other else name

    found = Step(step.out, step.frame, again, replace(step.schedule, spreads=()), key)
    found.tiles.update((name, tile) for name, tile in step.tiles.items() if name not in states | other)
    return found


class _Backward:
    def __init__(self, adjoint: Program, again: Program | None, wanted: tuple[str, ...], chunked: bool) -> None:
        self.adjoint = adjoint
        self.again = again
        self.wanted = wanted
        self.plan = schedule(adjoint, whole_states=False, alongside=again)
        self.kernel = KernelWriter([adjoint, again] if again else [adjoint], self.plan, chunked)
        self.frame, self.out = self.kernel.frame, self.kernel.body
        self.step = Step(self.out, self.frame, adjoint, self.plan)
        self.scratch: dict[str, str] = {}
        self.kept: dict[str, str] = {}
        self.ahead: dict[str, str] = {}
        self.turn: TurnWriter | None = None
        self.again_turn: TurnWriter | None = None
        self.turned: list[str] = []
        given = [tensor for tensor in adjoint.inputs if tensor.name not in wanted]
        self.inputs, self.params = reads(adjoint, given), reads(adjoint, adjoint.params)
        self.again_inputs = reads(again, again.inputs) if again else []
        self.again_params = reads(again, again.params) if again else []

    def write(self) -> Kernel:
        kernel, step, out, adjoint = self.kernel, self.step, self.out, self.adjoint
        found = distinct([*self.inputs, *self.again_inputs])
        kernel.declare([*found, *self.params, *self.again_params])
        starts = kernel.starts(adjoint.states)
        saved, scratch = self._past()
        outs = kernel.leaving(step, adjoint.outputs, (BATCH, TIME))
        totals = kernel.leaving(step, adjoint.totals, (kernel.lead,))
        ends = kernel.ends(step, adjoint.states)
        sums_out = Scatter(kernel, step, outs)

        again = self._write_params()
        out.blank()
        out.line(WAY)
        if scratch:
            with out.block("if segment > unroll:"):
                for state, buffer in scratch.items():
                    self._write_scratch_address(state, buffer)
        kernel.write_starts(step, starts)
        sums = self._write_sums(totals)
        parts = kernel.turns(adjoint, self.inputs)
        self.turn = TurnWriter(step, parts, kernel.folds[1], "share - 1", "0") if parts else None
        if again is not None:
            parts = kernel.turns(again.program, self.again_inputs)
            self.again_turn = TurnWriter(again, parts, kernel.folds[1], "0", "share - 1") if parts else None
        in_turns = [turn for turn in (self.turn, self.again_turn) if turn is not None]
        if in_turns:
            kernel.write_share("unroll", leaves=self.turn is not None and bool(self.turn.alone))
        self.turned = list(dict.fromkeys(read.value for turn in in_turns for read in turn.parts.reads))
        inputs = Inputs(out, step, found, kernel.buffers, turned=self.turned)
        out.line(f"whole = {kernel.steps} // unroll")
        with out.block("for tail in tl.static_range(1 if unroll > 1 else 0, -1, -1):"):
            out.line("last = whole if tail else whole - 1")
            out.line("begin = last * unroll")
            out.line(f"origin = tl.cast({origin(kernel)}, tl.int64)")
            inputs.write_first("-", f"(begin >= 0) & (begin + {{step}} < {kernel.steps})")
            if again is not None:
                with out.block("if segment == unroll:"):
                    self._write_checkpoint_ahead(again, saved, "last", f"(begin >= 0) & (begin < {kernel.steps})")
                with out.block("else:"):
                    self._write_nothing_ahead(again)
            out_rows = kernel.write_out_rows(outs, self.turn.alone if self.turn else ())
            with out.block(f"for behind in range(0, tl.cdiv({kernel.steps}, unroll) - whole if tail else whole):"):
                out.line("block = last - behind")
                out.line("first = block * unroll")
                inputs.write_turn("-", "block > 0", "block >= prefetch")
                if again is not None:
                    self._write_rerun(again, inputs, saved)
                sums_out.write_first()
                with out.block("for u in tl.static_range(unroll - 1, -1, -1):"):
                    out.line(f"alive = first + u < {kernel.steps} if tail else True")
                    for state in self.wanted:
                        comment = self.frame.comment(adjoint.types[state].axes)
                        out.line(f"{step.define(state)} = {self.kept[state]}[u]", comment)
                    self._write_adjoint_step(inputs, outs, out_rows, totals, sums)
                    sums_out.write_step()
                sums_out.write_stores(out_rows)
                for row in out_rows.values():
                    write_move(out, row, "-")
        for total in totals:
            text = sums[total.host]
            if self.turn and total.value in self.turn.alone:
                text = f"tlmath.lane_sum({text}, lanes_{kernel.folds[1]})"
            kernel.write_store(step, kernel.write_address(total.buffer), total.value, text)
        for end in ends:
            kernel.write_end(step, end)
        flags = [*(["segment"] if again else []), "unroll", "prefetch", "reverse", "acc"]
        doc = f"Each program: {share(self.plan)}, from the last step to the first."
        programs = [adjoint, self.again] if self.again else [adjoint]
        past = [self.frame.tile(state.type.axes) for state in self.again.states] if self.again else []
        return kernel.finish("backward_kernel", doc, flags, programs, found, past)

    # --- the past ---

    def _past(self) -> tuple[dict[str, Buffer], dict[str, Buffer]]:
        """The arguments that hold the states at segment boundaries, and each program's scratch."""
        if self.again is None:
            return {}, {}
        states = self.again.states
        saved = self.kernel.saved(states)
        return saved, {s.name: self.kernel.scratch(f"{s.name}_scratch", f"scratch:{s.name}") for s in states}

    def _write_scratch_address(self, state: str, buffer: Buffer) -> None:
        assert self.again is not None
        axes = self.again.types[state].axes
        name = self.frame.names.fresh(f"{state}_scratch_at")
        base = self.frame.times_cells("tl.program_id(0).to(tl.int64) * (segment // unroll)", axes)
        self.out.line(f"{name} = {buffer.pointer} + {base}{self.frame.cells(axes)}", self.frame.comment(axes))
        self.scratch[state] = f"{name} + {self.frame.times_cells('{} % (segment // unroll)', axes)}"

    def _write_rerun(self, again: Step, inputs: Inputs, saved: dict[str, Buffer]) -> None:
        """The states before each step of the block, from those at its start.

        Where a segment has several blocks, its last one first runs through them all and writes down how each starts.
        """
        out, states = self.out, again.program.states
        last = "if behind == 0 or (block + 1) % (segment // unroll) == 0:"
        with out.block("if segment > unroll:"), out.block(last):
            self._write_starts(again, inputs, saved)
        for state in states:
            out.line(f"{again.define(state.name)} = {self.ahead[state.name]}", self.frame.comment(state.type.axes))
        with out.block("if segment > unroll:"):
            for state in states:
                dtype = self.frame.dtype(state.type.kind)
                load = f"tl.load({self.scratch[state.name].format('tl.maximum(block - 1, 0)')}).to({dtype})"
                out.line(f"{self.ahead[state.name]} = {load}", self.frame.comment(state.type.axes))
        with out.block("else:"):
            self._write_checkpoint_ahead(again, saved, "tl.maximum(block - 1, 0)")
        for state_name in self.wanted:
            self.kept[state_name] = self.frame.names.of(f"{state_name}#kept")
            out.line(f"{self.kept[state_name]} = ()")
        with out.block("for u in tl.static_range(unroll):"):
            for state_name in self.wanted:
                out.line(f"{self.kept[state_name]} += ({again.identifier(state_name)},)")
            self._write_again(again, inputs.write_taken)
            self.kernel.write_next(again)

    def _write_nothing_ahead(self, again: Step) -> None:
        """Before the first segment is run through: no start of a block is known."""
        for state in again.program.states:
            nothing = self.frame.begin(0.0, state.type.axes, state.type.kind)
            self.out.line(f"{self.ahead[state.name]} = {nothing}", self.frame.comment(state.type.axes))

    def _write_starts(self, again: Step, inputs: Inputs, saved: dict[str, Buffer]) -> None:
        """The states at the starts of a segment's blocks: to scratch, and of its last block to what is ahead."""
        out, rows = self.out, Again(inputs, self.again_inputs)
        self._write_checkpoint(again, saved)
        if self.again_inputs:
            out.line("stands = block if tail else tl.maximum(block - 1, 0)", "where the pointers are")
        out.line("early = first // segment * (segment // unroll)")
        moving = any(state != value for state, value in again.program.next)
        if moving:
            rows.write_first("(early - stands) * unroll", "(early < block)")
        with out.block("for starts in range(early, block):"):
            for state in again.program.states:
                at = self.scratch[state.name].format("starts")
                out.line(f"tl.store({at}, {again.identifier(state.name)})")
            if moving:
                rows.write_turn("(tl.minimum(starts + 1, block - 1) - stands) * unroll")
                tiles = dict(again.tiles)
                with out.block("for u in tl.static_range(unroll):"):
                    self._write_again(again, rows.write_taken)
                    self.kernel.write_next(again)
                again.tiles = tiles
        for state in again.program.states:
            out.line(f"{self.ahead[state.name]} = {again.identifier(state.name)}")
        out.line("tl.debug_barrier()")

    def _write_again(self, again: Step, load: Callable[[Step, Sequence[Read]], None]) -> None:
        """The step `u` of the block, forward; `load` writes its rows."""
        if self.again_turn:
            self.again_turn.write_before(load)
        load(again, [read for read in self.again_inputs if read.value not in self.turned])
        again.write(self.again_turn.parts.during if self.again_turn else again.instrs(RegionKind.STEP))

    def _write_checkpoint(self, again: Step, saved: dict[str, Buffer]) -> None:
        """The states at the start of the segment."""
        place = f"({self.kernel.skip}first)" if self.kernel.skip else "first"
        self.out.line(f"checkpoint = tl.cast({place} // segment, tl.int64)")
        for state in again.program.states:
            again.write_load(state.name, self.kernel.write_address(saved[state.name], {SEGMENT: "checkpoint"}))

    def _write_checkpoint_ahead(self, again: Step, saved: dict[str, Buffer], block: str, *when: str) -> None:
        """The states at the start of a block, which starts a segment, loaded long before they are needed."""
        place = f"{self.kernel.skip.replace('skip', 'skip // segment')}{block}"
        self.out.line(f"checkpoint = tl.cast({place}, tl.int64)")
        for state in again.program.states:
            self.ahead[state.name] = self.frame.names.of(f"{state.name}#ahead")
            address = self.kernel.write_address(saved[state.name], {SEGMENT: "checkpoint"})
            load = self.frame.raw(address, state.type.axes, state.type.kind, *when)
            load = f"{load}.to({self.frame.dtype(state.type.kind)})"
            self.out.line(f"{self.ahead[state.name]} = {load}", self.frame.comment(state.type.axes))

    # --- parameters ---

    def _write_params(self) -> Step | None:
        """Loads of params and the work on them alone, for both steps; returns the step that runs forward again."""
        step, out = self.step, self.out
        params = distinct([*self.params, *self.again_params])
        if params:
            out.blank()
            step.write_params(params, self.kernel.buffers)
        step.write(step.instrs(RegionKind.PARAMS))
        if self.again is None:
            return None
        again = beside(step, self.again)
        again.write(again.instrs(RegionKind.PARAMS))
        return again

    # --- the adjoint step ---

    def _write_sums(self, totals: list[Leaving]) -> dict[str, str]:
        """Variables in which gradients of params are summed."""
        sums = {}
        for total in totals:
            axes = self.adjoint.types[total.value].axes
            name = self.frame.names.fresh(total.buffer.pointer.replace("_out_ptr", "_sum"))
            self.out.line(f"{name} = {self.frame.begin(0.0, axes, Kind.REAL)}", self.frame.comment(axes))
            sums[total.host] = name
        return sums

    def _write_adjoint_step(
        self,
        inputs: Inputs,
        outs: list[Leaving],
        out_rows: dict[str, Row],
        totals: list[Leaving],
        sums: dict[str, str],
    ) -> None:
        step = self.step
        turn = self.turn
        if turn:
            turn.write_before(inputs.write_taken)
        inputs.write_taken(step, [read for read in self.inputs if read.value not in self.turned])
        step.write(turn.parts.during if turn else step.instrs(RegionKind.STEP))
        self.kernel.write_stores(step, outs, out_rows)
        late = [total for total in totals if turn and total.value in turn.alone]
        for total in totals:
            if total not in late:
                self.out.line(f"{sums[total.host]} += tl.where(alive, {step.tensor(total.value)}, 0.0)")
        if turn and turn.alone:
            with turn.behind(self.kernel.steps):
                self.kernel.write_stores(step, outs, out_rows, turned=True)
                for total in late:
                    self.out.line(f"{sums[total.host]} += tl.where(turn_alive, {step.tensor(total.value)}, 0.0)")
        self.kernel.write_next(step, "alive")


def distinct(found: Iterable[Read]) -> list[Read]:
    """Each of some reads once."""
    return list(dict.fromkeys(found))
