"""Drives the segment functions of a generated torch module over a whole sequence.

Work that needs no state is done for all time steps of a segment at once, so a segment's length bounds the
memory that a call takes.  Forward keeps the states at the starts of segments; backward walks the segments from
the last to the first, computes the states inside each once more, and runs the adjoint program over them.

All tensors are canonical: inputs [B, T, *axes], params [*axes], states [B, *axes].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from scanc_runtime import tuned
from scanc_runtime.dtypes import differentiable, value_dtype
from scanc_runtime.memories import Decay, Memory, Walk, Write, cut
from scanc_runtime.register import BackwardFn, ForwardFn
from scanc_runtime.scans import CHUNKED, REAL, Algebra, Solver, Term, afters, befores, chunks_of
from scanc_runtime.shapes import Shapes, Tensors
from scanc_runtime.spec import Spec, StateSpec, TensorSpec

_BUDGET = 1 << 24  # numbers that a segment may keep at once
_SHORTEST = 16  # steps of a segment, whatever its states take
_KEPT = 1 << 22  # numbers up to which forward keeps all states for backward, rather than having them computed again


@dataclass(frozen=True)
class Call:
    """What a segment function needs to know beside its tensors.

    `length` steps, taken from the last to the first if `reverse`; `dtype` is that of real numbers.  `kept` collects the
    path of each state that a scan computes, where it is wanted.
    """

    batch: int
    length: int
    sizes: Mapping[str, int]
    dtype: torch.dtype
    device: torch.device
    reverse: bool
    solver: Solver
    kept: dict[str, Tensor] | None = None

    def path(self, state: str, algebra: Algebra, decay: Term, write: Term, initial: Tensor) -> Tensor:
        """A scan: the initial state and those behind each step, [B, L + 1, *axes]."""
        path = self.solver.path(algebra, decay, write, initial, self.length, self.reverse)
        if self.kept is not None:
            self.kept[state] = path
        return path

    def after(self, state: str, algebra: Algebra, decay: Term, write: Term, initial: Tensor) -> Tensor:
        """A scan: the states behind each step, [B, L, *axes]."""
        if self.kept is not None:
            return afters(self.path(state, algebra, decay, write, initial), self.reverse)
        return self.solver.after(algebra, decay, write, initial, self.length, self.reverse)

    def sums(self, decay: Tensor, added: Tensor, initial: Tensor) -> Tensor:
        """A scan that adds before it decays: the sums state + added at each step, [B, L, *axes]."""
        return self.solver.sums(REAL, decay, added, initial, self.length, self.reverse)

    def memory(
        self,
        start: Tensor,
        rows: Sequence[str],
        columns: Sequence[str],
        decays: Sequence[Decay],
        writes: Sequence[Write],
        dual: bool = False,
        against: bool = False,
    ) -> Memory:
        """A matrix that exists at no step, of the given rows and columns; `against`: it runs against the call."""
        high, wide = (tuple([self.sizes[axis] for axis in axes]) for axes in (rows, columns))
        batch = start.dim() - 1 - len(rows) - len(columns)
        backward = self.reverse != against
        matrix = prod(high) * prod(wide)
        chunk, tame = cut(self.length, self.solver, decays, backward != dual, start.numel(), matrix)
        walk = Walk(self.length, chunk, batch, high, wide, backward, dual, tame, self.solver)
        return Memory(walk, decays, writes, start)

    @property
    def complex_dtype(self) -> torch.dtype:
        """The dtype of complex numbers."""
        return value_dtype("complex", self.dtype)

    def number(self, value: complex, dtype: torch.dtype) -> Tensor:
        """A number as a tensor without dimensions."""
        return torch.full((), value, dtype=dtype, device=self.device)

    def timed(self, value: Tensor, axes: int) -> Tensor:
        """A value of `axes` axes that does not change, as [B, L, *axes]."""
        return value.expand(self.batch, self.length, *value.shape[value.dim() - axes :])


Constants = Callable[[Tensors, Call], Tensors]
Segment = Callable[[Tensors, Tensors, Tensors, Tensors, Call], tuple[Tensors, Tensors]]
Trace = Callable[[Tensors, Tensors, Tensors, Tensors, Call], Tensors]
Adjoint = Callable[[Tensors, Tensors, Tensors, Tensors, Tensors, Tensors, Call], tuple[Tensors, Tensors, Tensors]]


def no_constants(params: Tensors, call: Call) -> Tensors:
    """For a program in which nothing depends on params alone."""
    return ()


@dataclass(frozen=True)
class Segments:
    """The functions of one spec, and what drives them.

    `segment(inputs, params, constants, states, call)` -> (outputs, states behind the last step);
    `trace` takes the same, with the states that `traced` names, -> the states before each step that the adjoint reads;
    `adjoint(inputs, primals, cotangents, params, constants, states, call)` -> (gradients of inputs, totals,
    states); `constants(params, call)` computes what depends on params alone.  `elements(sizes)` is how many numbers
    one time step of one sequence keeps.  `kept`: the primals, where `segment` computes all of them by scans.
    """

    spec: Spec
    segment: Segment
    adjoint: Adjoint
    elements: Callable[[Mapping[str, int]], int]
    trace: Trace | None = None
    traced: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    constants: Constants = no_constants
    adjoint_constants: Constants = no_constants

    def forward(self, solver: Solver) -> ForwardFn:
        """`forward(inputs, params, states, reverse, save)` in the form of `solver`."""

        @torch.no_grad()
        def forward(
            inputs: Tensors, params: Tensors, states: Tensors, reverse: bool, save: bool
        ) -> tuple[Tensors, Tensors, Tensors]:
            run = _Run(self, inputs, params, states, solver, reverse)
            return run.forward(save)

        return forward

    def backward(self, solver: Solver) -> BackwardFn:
        """`backward(inputs, params, states, saved, grad_outputs, grad_final, reverse)` in the form of `solver`."""

        @torch.no_grad()
        def backward(
            inputs: Tensors,
            params: Tensors,
            states: Tensors,
            saved: Tensors,
            grad_outputs: Tensors,
            grad_final: Tensors,
            reverse: bool,
        ) -> tuple[Tensors, Tensors, Tensors]:
            run = _Run(self, inputs, params, states, solver, reverse)
            return run.backward(saved, grad_outputs, grad_final)

        return backward

    def saved(self, form: str, batch: int, time: int, sizes: Mapping[str, int]) -> list[tuple[tuple[int, ...], str]]:
        """Shape and kind of what forward saves.

        A call of several segments: each traced state at the starts of all segments but the first.  Of a single one:
        the whole path of each kept state, if they are few enough.
        """
        count = self.count(batch, time, sizes)
        if count == 1:
            states = self.paths(batch, time, sizes)
            return [((batch, time + 1, *(sizes[axis] for axis in decl.axes)), decl.kind) for decl in states]
        states = [decl for decl in self.spec.states if decl.name in self.traced]
        return [((batch, count - 1, *(sizes[axis] for axis in decl.axes)), decl.kind) for decl in states]

    def paths(self, batch: int, time: int, sizes: Mapping[str, int]) -> list[StateSpec]:
        """The states of which a call of a single segment keeps every step."""
        states = [decl for name in self.kept for decl in self.spec.states if decl.name == name]
        width = sum(prod(sizes[axis] for axis in decl.axes) for decl in states)
        return states if 0 < batch * time * width <= _KEPT else []

    def count(self, batch: int, time: int, sizes: Mapping[str, int]) -> int:
        """How many segments a call takes."""
        longest = max(_BUDGET // (batch * self.elements(sizes) + 1), _SHORTEST)
        return 1 if time <= longest else -(-time // longest)


class _Run:
    """One call of forward or backward."""

    def __init__(
        self, segments: Segments, inputs: Tensors, params: Tensors, states: Tensors, solver: Solver, reverse: bool
    ) -> None:
        spec = segments.spec
        shapes = Shapes(spec)
        primals = inputs + params + states
        batch, time, sizes = shapes.sizes(primals)
        self.segments, self.spec, self.reverse, self.time = segments, spec, reverse, time
        self.dtype = shapes.compute_dtype(primals)
        self.results = shapes.results(primals)
        device = primals[0].device
        self.call = Call(batch, time, sizes, self.dtype, device, reverse, solver)
        if solver is CHUNKED and tuned.exists(spec.digest):
            key = tuned.call_key(spec.digest, spec.forms, batch, time, sizes, self.dtype, device)
            self.call = replace(self.call, solver=_chunked((tuned.find(key) or {}).get("chunk")))
        self.inputs = inputs
        self.given = {tensor.untyped_storage().data_ptr() for tensor in primals}
        self.params = self.cast(spec.params, params)
        self.states = self.cast(spec.states, states)
        count = segments.count(batch, time, sizes)
        self.step = max(-(-time // count), 1)

    def cast(self, decls: Sequence[TensorSpec], tensors: Sequence[Tensor]) -> Tensors:
        return tuple([t.to(value_dtype(d.kind, self.dtype)) for d, t in zip(decls, tensors, strict=True)])

    def windows(self) -> list[slice]:
        """The segments' time steps, in the order in which forward takes them."""
        if not self.reverse:
            return [slice(t, min(t + self.step, self.time)) for t in range(0, self.time, self.step)]
        return [slice(max(t - self.step, 0), t) for t in range(self.time, 0, -self.step)]

    def within(self, window: slice, reverse: bool) -> Call:
        return replace(self.call, length=window.stop - window.start, reverse=reverse)

    def cut(self, decls: Sequence[TensorSpec], tensors: Tensors, window: slice) -> Tensors:
        return self.cast(decls, [tensor[:, window] for tensor in tensors])

    def own(self, tensors: Sequence[Tensor]) -> Tensors:
        """The tensors, copied where they share memory with an argument or with an earlier result."""
        owned = []
        for tensor in tensors:
            place = tensor.untyped_storage().data_ptr()
            if place in self.given:
                tensor = tensor.clone(memory_format=torch.contiguous_format)
                place = tensor.untyped_storage().data_ptr()
            self.given.add(place)
            owned.append(tensor)
        return tuple(owned)

    def forward(self, save: bool) -> tuple[Tensors, Tensors, Tensors]:
        segments, spec = self.segments, self.spec
        windows = self.windows()
        constants = segments.constants(self.params, self.call) if windows else ()
        states = self.states
        kept = [i for i, decl in enumerate(spec.states) if decl.name in segments.traced]
        starts: list[Tensors] = []
        paths: dict[str, Tensor] = {}
        keep = save and len(windows) == 1 and bool(segments.paths(self.call.batch, self.time, self.call.sizes))
        outputs = _Joined(self.results[: len(spec.outputs)], self.call.device, len(windows))
        for i, window in enumerate(windows):
            if i and save:
                starts.append(tuple([states[k] for k in kept]))
            arguments = self.cut(spec.inputs, self.inputs, window)
            call = replace(self.within(window, self.reverse), kept=paths if keep else None)
            out, states = segments.segment(arguments, self.params, constants, states, call)
            outputs.put(window, out)
        saved = tuple([torch.stack(column, 1) for column in zip(*starts, strict=True)])
        if keep:  # before the outputs: those may be parts of a path, and are copied whole
            saved = self.own([paths[state] for state in segments.kept])
        return self.own(outputs.whole()), self.own(states), saved

    def backward(self, saved: Tensors, grad_outputs: Tensors, grad_final: Tensors) -> tuple[Tensors, Tensors, Tensors]:
        segments, spec = self.segments, self.spec
        for gradient in grad_outputs + grad_final:
            self.given.add(gradient.untyped_storage().data_ptr())
        windows = self.windows()
        constants = segments.constants(self.params, self.call) if windows else ()
        adjoint_constants = segments.adjoint_constants(self.params, self.call) if windows else ()
        smooth_inputs, smooth_params, smooth_states, smooth_outputs = (
            [decl for decl in decls if differentiable(decl)]
            for decls in (spec.inputs, spec.params, spec.states, spec.outputs)
        )
        states = self.cast(smooth_states, grad_final)
        sizes, batch, time = self.call.sizes, self.call.batch, self.time
        shapes = [
            ((batch, time, *(sizes[axis] for axis in decl.axes)), value_dtype(decl.kind, self.dtype))
            for decl in smooth_inputs
        ]
        gradients = _Joined(shapes, self.call.device, len(windows))
        totals: Tensors = tuple(
            [
                torch.zeros(
                    [sizes[axis] for axis in d.axes], dtype=value_dtype(d.kind, self.dtype), device=self.call.device
                )
                for d in smooth_params
            ]
        )
        first = tuple(
            [state for decl, state in zip(spec.states, self.states, strict=True) if decl.name in segments.traced]
        )
        kept = tuple([befores(path, self.reverse) for path in saved]) if len(windows) == 1 else ()
        starts = [first, *zip(*(s.unbind(1) for s in saved), strict=True)] if len(windows) > 1 and saved else None
        starts = starts or [first] * len(windows)
        for window, start in reversed(list(zip(windows, starts, strict=True))):
            call, back = self.within(window, self.reverse), self.within(window, not self.reverse)
            arguments = self.cut(spec.inputs, self.inputs, window)
            primals = kept
            if segments.trace and not kept:
                primals = segments.trace(arguments, self.params, constants, start, call)
            cotangents = self.cut(smooth_outputs, grad_outputs, window)
            grads, shares, states = segments.adjoint(
                arguments, primals, cotangents, self.params, adjoint_constants, states, back
            )
            gradients.put(window, grads)
            totals = tuple([total + share for total, share in zip(totals, shares, strict=True)])
        return self.own(gradients.whole()), totals, self.own(states)


def _chunked(steps: object) -> Solver:
    """The solver whose chunks have as many steps as was tuned, if that makes sense."""
    return chunks_of(steps) if isinstance(steps, int) and steps > 0 else CHUNKED


class _Joined:
    """Results [B, T, *axes] from those of segments; those of a single segment are kept as they are."""

    def __init__(
        self, shapes: Sequence[tuple[tuple[int, ...], torch.dtype]], device: torch.device, windows: int
    ) -> None:
        self._shapes = shapes
        self._single = windows == 1
        self._whole: Tensors = ()
        if not self._single:
            self._whole = tuple([torch.empty(shape, dtype=dtype, device=device) for shape, dtype in shapes])

    def put(self, window: slice, parts: Tensors) -> None:
        if self._single:
            pairs = zip(parts, self._shapes, strict=True)
            self._whole = tuple([part.to(dtype) for part, (_, dtype) in pairs])
            return
        for whole, part in zip(self._whole, parts, strict=True):
            whole[:, window] = part

    def whole(self) -> Tensors:
        return self._whole


# --- what generated code calls ----------------------------------------------------------------------------


def steps(reverse: bool, *values: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The time slices [B, *axes] of values [B, L, *axes], in the order in which time runs."""
    columns = (value.unbind(1) for value in values)
    return zip(*(column[::-1] if reverse else column for column in columns), strict=True)


def gather(slices: Sequence[Tensor], reverse: bool) -> Tensor:
    """Slices taken in the order in which time runs, as [B, L, *axes]."""
    return torch.stack(tuple(slices[::-1]) if reverse else tuple(slices), 1)


def last(value: Tensor, reverse: bool) -> Tensor:
    """The slice [B, *axes] of the last step taken."""
    return value[:, 0 if reverse else -1]


def delayed(value: Tensor, initial: Tensor, reverse: bool) -> Tensor:
    """The values before each step of a state that is handed `value`, as a path [B, L + 1, *axes]."""
    return torch.cat([value, initial[:, None]] if reverse else [initial[:, None], value], 1)
