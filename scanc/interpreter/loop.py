"""`interpret`: a program over a whole sequence, one time step after the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from scanc.interpreter.arithmetic import Arithmetic, Array
from scanc.interpreter.layout import align, axis_sizes, physical_shape, to_canonical, to_physical
from scanc.interpreter.numpy_arithmetic import NumpyArithmetic
from scanc.interpreter.ode import carried, input_term
from scanc.interpreter.step import Evaluator, delayed
from scanc.interpreter.torch_arithmetic import TorchArithmetic
from scanc.ir.functions import SEMIRINGS
from scanc.ir.nodes import Conv, Delay, Dims, Kind, Ode, Output, Program, RegionKind, State, Tensor

Arrays = Mapping[str, Any]


def interpret(
    program: Program, inputs: Arrays, params: Arrays, initial: Arrays | None = None, *, reverse: bool = False
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Runs `program` (of any level) and returns its outputs (and totals) and its final states.

    Tensors are laid out as declared: inputs and outputs [B, T, *dims], params and totals [*dims], states
    [B, *dims], and the slots of one `public` buffer stacked as [B, count, *dims].  All arrays numpy: computed
    in float64, numpy returned.  Any tensor torch: differentiable torch, in the widest floating dtype given,
    at least float32.  `initial` may lack states, which then begin at their declared value.

    Raises ValueError for arrays that are missing, unknown or of the wrong shape.
    """
    initial = initial or {}
    return Run(program, inputs, params, initial).over_time(reverse)


class Run:
    """One call: the arithmetic, the sizes, and everything brought into the canonical layout."""

    def __init__(self, program: Program, inputs: Arrays, params: Arrays, initial: Arrays) -> None:
        self.program = program
        self.arith = _arithmetic([*inputs.values(), *params.values(), *initial.values()])
        _same_names("input", [t.name for t in program.inputs], inputs)
        _same_names("param", [t.name for t in program.params], params)
        lead = [tuple(inputs[t.name].shape[:2]) for t in program.inputs]
        if not lead or any(len(pair) != 2 or pair != lead[0] for pair in lead):
            raise ValueError(f"inputs need the same two leading dimensions [B, T], got {lead}")
        self.batch, self.length = lead[0]
        stacked = {s.public[0] for s in program.states if s.public} | {f"prev.{x}" for x in _delayed_names(program)}
        plain = [s for s in program.states if s.public is None and s.name in initial]
        self.sizes = axis_sizes(
            program,
            [(t.name, t.dims, tuple(inputs[t.name].shape[2:])) for t in program.inputs]
            + [(t.name, t.dims, tuple(params[t.name].shape)) for t in program.params]
            + [(s.name, s.dims, tuple(initial[s.name].shape[1:])) for s in plain if s.name not in stacked],
        )
        self.depths = _depths(program, self.sizes)
        self.types = program.types
        self.states = program.states + _hidden_states(program, self.depths)
        self.types.update((state.name, state.type) for state in self.states)
        self.evaluator = Evaluator(program, self.arith, self.types, self.sizes, self.depths)
        self.inputs = {t.name: self._canonical(t, inputs[t.name], 2) for t in program.inputs}
        self.params = {t.name: self._canonical(t, params[t.name], 0)[None] for t in program.params}
        self.initial = self._initial(initial)

    def over_time(self, reverse: bool) -> tuple[dict[str, Array], dict[str, Array]]:
        """Walks the steps; outputs [B, T, *axes] and totals by name, and the states after the last step."""
        regions = self.program.regions
        constants = dict(self.params)
        for region in regions:
            if region.kind is RegionKind.PARAMS:
                self.evaluator.region(region, constants)
        states = self.initial
        outputs: dict[str, list[Array]] = {output.name: [] for output in self.program.outputs}
        totals: dict[str, Array] = {}
        for t in reversed(range(self.length)) if reverse else range(self.length):
            values = {**constants, **states, **{name: x[:, t] for name, x in self.inputs.items()}}
            for region in regions:
                if region.kind is not RegionKind.PARAMS:
                    self.evaluator.region(region, values)
            for output in self.program.outputs:
                outputs[output.name].append(self._physical(values[output.value], output))
            for total in self.program.totals:
                summed = self._physical(values[total.value], total).sum(0)
                totals[total.name] = totals[total.name] + summed if total.name in totals else summed
            states = self._next(values)
        results = {
            output.name: self._sequence(output, outputs[output.name], reverse) for output in self.program.outputs
        }
        for total in self.program.totals:
            results[total.name] = totals[total.name] if total.name in totals else self._zeros(total, ())
        return results, self._final(states)

    # --- states ---

    def _initial(self, given: Arrays) -> dict[str, Array]:
        known = {state.public[0] if state.public else state.name for state in self.states}
        unknown = sorted(set(given) - known)
        if unknown:
            raise ValueError(f"no state is called {', '.join(unknown)}; there are {', '.join(sorted(known)) or 'none'}")
        return {state.name: self._begin(state, given) for state in self.states}

    def _begin(self, state: State, given: Arrays) -> Array:
        axes = state.type.axes
        public, slot = (state.public[0], state.public[1]) if state.public else (state.name, None)
        if public in given:
            x = given[public]
            count = (state.public[2],) if state.public else ()
            expected = (self.batch, *count, *physical_shape(state.dims, self.sizes))
            if tuple(x.shape) != expected:
                raise ValueError(f"state {public} has shape {tuple(x.shape)}, expected {expected}")
            x = self.arith.array(x if slot is None else x[:, slot], state.type.kind)
            return to_canonical(self.arith, x, state.dims, axes, self.sizes, 1)
        shape = (self.batch, *(self.sizes[a] for a in axes))
        if isinstance(state.init, str):
            x = self.arith.array(self.params[state.init], state.type.kind)
            return self.arith.expand(align(x, self.types[state.init].axes, axes), shape)
        return self.arith.full(shape, state.init, state.type.kind)

    def _next(self, values: dict[str, Array]) -> dict[str, Array]:
        following = {state: values[value] for state, value in self.program.next}
        for name, depth in self.depths.items():
            for slot in range(depth):
                following[delayed(name, slot)] = values[name if slot == depth - 1 else delayed(name, slot + 1)]
        for instr in self.program.instrs:
            if isinstance(instr.op, Ode) and instr.op.rule == "exp_trapezoid":
                following[carried(instr.op.state)] = input_term(self.evaluator, instr, values)
        for state in self.states:
            x = align(following[state.name], self.types[self._value_of(state)].axes, state.type.axes)
            x = self.arith.array(x, state.type.kind)
            following[state.name] = self.arith.expand(x, (self.batch, *(self.sizes[a] for a in state.type.axes)))
        return following

    def _value_of(self, state: State) -> str:
        """A value whose type has the axes of the state's next value."""
        return self.program.next_of.get(state.name, state.name)

    def _final(self, states: dict[str, Array]) -> dict[str, Array]:
        final: dict[str, Array] = {}
        buffers: dict[str, list[Array]] = {}
        for state in sorted(self.states, key=lambda s: s.public[1] if s.public else 0):
            x = to_physical(self.arith, states[state.name], state.dims, state.type.axes, self.sizes, 1)
            if state.public is None:
                final[state.name] = x
            else:
                buffers.setdefault(state.public[0], []).append(x)
        final.update((name, self.arith.stack(slots, 1)) for name, slots in buffers.items())
        return final

    # --- layouts ---

    def _canonical(self, tensor: Tensor, x: Any, leading: int) -> Array:
        x = self.arith.array(x, tensor.type.kind)
        return to_canonical(self.arith, x, tensor.dims, tensor.type.axes, self.sizes, leading)

    def _physical(self, x: Array, output: Output) -> Array:
        """[B, *dims] of an output in one time step."""
        axes = self.program.canonical({axis for merged in output.dims for axis in merged})
        x = align(x, self.types[output.value].axes, axes)
        x = self.arith.expand(x, (self.batch, *(self.sizes[a] for a in axes)))
        return to_physical(self.arith, x, output.dims, axes, self.sizes, 1)

    def _zeros(self, output: Output, leading: tuple[int, ...]) -> Array:
        return self.arith.full((*leading, *physical_shape(output.dims, self.sizes)), 0, self.types[output.value].kind)

    def _sequence(self, output: Output, steps: list[Array], reverse: bool) -> Array:
        if not steps:
            return self._zeros(output, (self.batch, 0))
        return self.arith.stack(steps[::-1] if reverse else steps, 1)


def _arithmetic(arrays: list[Any]) -> Arithmetic:
    tensors = [x for x in arrays if isinstance(x, torch.Tensor)]
    if not tensors:
        return NumpyArithmetic()
    dtype = torch.float32
    for x in tensors:
        if x.is_floating_point() or x.is_complex():
            dtype = torch.promote_types(dtype, x.dtype.to_real())
    return TorchArithmetic(dtype, tensors[0].device)


def _same_names(what: str, declared: list[str], given: Arrays) -> None:
    missing, unknown = sorted(set(declared) - set(given)), sorted(set(given) - set(declared))
    if missing or unknown:
        raise ValueError(f"{what}s: missing {missing}, unknown {unknown}")


def _delayed_names(program: Program) -> list[str]:
    return sorted({instr.args[0] for instr in program.instrs if isinstance(instr.op, Delay | Conv)})


def _depths(program: Program, sizes: Mapping[str, int]) -> dict[str, int]:
    """How many past values of each delayed name are kept."""
    depths: dict[str, int] = {}
    for instr in program.instrs:
        match instr.op:
            case Delay(steps):
                depth = steps
            case Conv(axis):
                depth = sizes[axis] - 1
            case _:
                continue
        depths[instr.args[0]] = max(depth, depths.get(instr.args[0], 0))
    return depths


def _hidden_states(program: Program, depths: Mapping[str, int]) -> tuple[State, ...]:
    """What `prev`, `conv` and `exp_trapezoid` keep, as states."""
    types = program.types
    dims: dict[str, Dims] = {tensor.name: tensor.dims for tensor in program.inputs}
    zero = SEMIRINGS[program.semiring].zero
    hidden = []
    for name, depth in depths.items():
        type_ = types[name]
        laid_out = dims.get(name, tuple((axis,) for axis in type_.axes))
        init = zero if type_.kind in (Kind.REAL, Kind.COMPLEX) else 0
        hidden += [State(delayed(name, i), laid_out, type_, init, (f"prev.{name}", i, depth)) for i in range(depth)]
    for instr in program.instrs:
        if isinstance(instr.op, Ode) and instr.op.rule == "exp_trapezoid":
            state = next(state for state in program.states if state.name == instr.op.state)
            hidden.append(State(carried(state.name), state.dims, state.type))
    return tuple(hidden)
