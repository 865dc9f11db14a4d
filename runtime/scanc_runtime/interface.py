"""The calling convention of every scan, whatever executes it.

A call is bound, checked, laid out canonically, run, and laid out as declared again.  Here is all but the
running, which subclasses do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, Self

import torch
from torch import Tensor

from scanc_runtime.binding import STEP_OPTIONS, Binder, InitialState, StateBinder, public_name
from scanc_runtime.checks import Checker, Plan
from scanc_runtime.dtypes import dtype_name, value_dtype
from scanc_runtime.errors import ArgumentError, did_you_mean
from scanc_runtime.layout import Layout
from scanc_runtime.shapes import Primals, Tensors
from scanc_runtime.spec import Spec, StateSpec

Outputs = Tensor | tuple[Tensor, ...]
State = dict[str, Tensor]
_MOST_PLANS = 256
_LOOKS = attrgetter("shape", "dtype", "device", "layout")  # all of a tensor that a plan depends on
_NOWHERE = {
    "convolution": "no target has it so far",
    "interpret": "the interpreter is part of the compiler, which a generated module does not need",
}


class Interface(ABC):
    """What users call; `_run` is what differs."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._binder = Binder(spec)
        self._state_binder = StateBinder(spec)
        self._checker = Checker(spec)
        self._inputs = [Layout(decl, 2) for decl in spec.inputs]
        self._single_inputs = [Layout(decl, 1) for decl in spec.inputs]
        self._params = [Layout(decl, 0) for decl in spec.params]
        self._states = [Layout(decl, 1) for decl in spec.states]
        self._outputs = [Layout(decl, 2) for decl in spec.outputs]
        self._plans: dict[Any, Plan] = {}

    @property
    @abstractmethod
    def forms(self) -> tuple[str, ...]:
        """The forms that can be asked for, `auto` aside."""

    @abstractmethod
    def _run(
        self, form: str, reverse: bool, primals: Primals, final: bool
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Outputs and final states from canonical tensors; without `final`, nobody reads the states."""

    @abstractmethod
    def _auto(self, plan: Plan) -> str:
        """The form that runs where the caller leaves the choice."""

    def __call__(
        self,
        /,
        *tensors: Tensor,
        initial_state: InitialState = None,
        return_state: bool = False,
        reverse: bool = False,
        form: str = "auto",
        cu_seqlens: Tensor | None = None,
        batch_invariant: bool = False,
        **named: Tensor,
    ) -> Any:
        """Runs the scan over a sequence.

        Inputs are [B, T, *dims], params [*dims], in order of declaration or by name; states [B, *dims].
        `initial_state` is a tensor (of the only state) or a mapping, completed by the declared initial
        values.  Returns the output, or a tuple of outputs; with `return_state` that and a mapping of final
        states.  `reverse` runs the same program from the last token to the first.  With `batch_invariant` each
        row is computed by itself, so that its result is bitwise the same in any batch; that takes as long as a
        call per row.  Raises `ArgumentError`.
        """
        if cu_seqlens is not None:
            raise ArgumentError(
                f"{self.spec.name}: packed sequences come later; cu_seqlens is not taken yet",
                hint="pad to [B, T, …], or call once per sequence",
            )
        given = self._binder.bind(tensors, named)
        states = self._state_binder.bind(initial_state)
        plan = self._plan(given, states, single=False)
        if batch_invariant and plan.batch > 1:
            rows = [self._row(given, states, row, form, reverse, return_state) for row in range(plan.batch)]
            declared = [torch.cat(column) for column in zip(*(outputs for outputs, _ in rows), strict=True)]
            state = {name: torch.cat([final[name] for _, final in rows]) for name in rows[0][1]}
        else:
            outputs, final = self._execute(given, states, plan, form, reverse, single=False, final=return_state)
            declared = _declared(self._outputs, outputs)
            state = self._public(final) if return_state else {}
        result: Outputs = declared[0] if len(declared) == 1 else tuple(declared)
        return (result, state) if return_state else result

    def _row(
        self, given: Sequence[Tensor], states: Mapping[str, Tensor], row: int, form: str, reverse: bool, final: bool
    ) -> tuple[list[Tensor], State]:
        """The outputs of one row of the batch, [1, …], and its final states if asked for: what it alone would give."""
        count = len(self.spec.inputs)
        alone = [tensor[row : row + 1] for tensor in given[:count]]
        own = {name: tensor[row : row + 1] for name, tensor in states.items()}
        plan = self._plan([*alone, *given[count:]], own, single=False)
        outputs, last = self._execute([*alone, *given[count:]], own, plan, form, reverse, single=False, final=final)
        return _declared(self._outputs, outputs), self._public(last) if final else {}

    def step(self, /, *tensors: Tensor, state: InitialState = None, form: str = "auto", **named: Tensor) -> Any:
        """One token: inputs [B, *dims] and a state to outputs [B, *dims] and the next state (a mapping)."""
        given = self._binder.bind(tensors, named, STEP_OPTIONS)
        states = self._state_binder.bind(state)
        plan = self._plan(given, states, single=True)
        outputs, final = self._execute(given, states, plan, form, False, single=True)
        declared = [output.squeeze(1) for output in _declared(self._outputs, outputs)]
        return declared[0] if len(declared) == 1 else tuple(declared), self._public(final)

    def plan(self, /, *tensors: Tensor, **named: Tensor) -> tuple[Plan, str]:
        """What is known of a call with these tensors before it runs, and the form that it would take."""
        plan = self._plan(self._binder.bind(tensors, named), {}, single=False)
        return plan, self._auto(plan)

    def plan_text(self, /, *tensors: Tensor, **named: Tensor) -> str:
        """What a call with these tensors would do, in a line: sizes, form, dtypes."""
        plan, form = self.plan(*tensors, **named)
        sizes = ", ".join(f"{name} = {size}" for name, size in {"B": plan.batch, "T": plan.time, **plan.sizes}.items())
        dtypes = f"computes in {dtype_name(plan.compute)}, returns {dtype_name(plan.promoted)}"
        return f"{self.spec.name} at {sizes}: form {form}, {dtypes}"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def _plan(self, given: Sequence[Tensor], states: Mapping[str, Tensor], single: bool) -> Plan:
        """The checked plan of a call; calls of a shape seen before cost a look-up."""
        if torch.compiler.is_compiling():
            return self._checker.check(given, states, single)
        try:
            key = (single, *map(_LOOKS, given))
            if states:
                key += (*states, *map(_LOOKS, states.values()))
            plan = self._plans.get(key)
        except (AttributeError, TypeError, RuntimeError):  # no tensor, a symbolic size, or a nested tensor
            return self._checker.check(given, states, single)
        if plan is None:
            plan = self._checker.check(given, states, single)
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            self._plans[key] = plan
        return plan

    def _execute(
        self,
        given: Sequence[Tensor],
        states: Mapping[str, Tensor],
        plan: Plan,
        form: str,
        reverse: bool,
        single: bool,
        final: bool = True,
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        chosen = self._auto(plan) if form == "auto" else self._admitted(form)
        layouts = self._single_inputs if single else self._inputs
        count = len(layouts)
        inputs = _canonical(layouts, given[:count], plan)
        if single:
            inputs = tuple([tensor.unsqueeze(1) for tensor in inputs])
        params = _canonical(self._params, given[count:], plan)
        initial = [
            self._initial(decl, layout, states, params, plan)
            for decl, layout in zip(self.spec.states, self._states, strict=True)
        ]
        return self._run(chosen, bool(reverse), (*inputs, *params, *initial), bool(final))

    def _admitted(self, form: str) -> str:
        if form in self.forms:
            return form
        admitted = ", ".join(("auto", *self.forms))
        reason = {**_NOWHERE, **dict(self.spec.refused)}.get(form)
        if reason is not None:
            raise ArgumentError(
                f"{self.spec.name} does not admit form {form!r}: {reason}", expected=f"one of {admitted}"
            )
        raise ArgumentError(
            f"{self.spec.name} has no form {form!r}",
            expected=f"one of {admitted}",
            hint=did_you_mean(str(form), ("auto", *self.forms)),
        )

    def _initial(
        self,
        decl: StateSpec,
        layout: Layout,
        states: Mapping[str, Tensor],
        params: Tensors,
        plan: Plan,
    ) -> Tensor | None:
        """The state before the first step, [B, *axes]: as given, or a param; None if it is declared as a number."""
        tensor = states.get(public_name(decl)) if states else None
        if tensor is None and not isinstance(decl.init, str):
            return None
        dtype = value_dtype(decl.kind, plan.compute)
        if tensor is not None:
            if decl.public is not None:
                tensor = tensor.select(1, decl.public[1])
            return layout.canonical(tensor, plan.sizes).to(dtype)
        shape = (plan.batch, *[plan.sizes[axis] for axis in decl.axes])
        return self._from_param(decl, params).to(dtype).expand(shape)

    def _from_param(self, decl: StateSpec, params: Tensors) -> Tensor:
        """A param as an initial value, its axes placed among those of the state."""
        at = next(i for i, param in enumerate(self.spec.params) if param.name == decl.init)
        axes = self.spec.params[at].axes
        tensor = params[at].permute([axes.index(axis) for axis in decl.axes if axis in axes])
        for i, axis in enumerate(decl.axes):
            if axis not in axes:
                tensor = tensor.unsqueeze(i)
        return tensor

    def _public(self, final: Sequence[Tensor]) -> State:
        """Final states as callers see them, the slots of a hidden buffer stacked."""
        state: State = {}
        slots: dict[str, dict[int, Tensor]] = {}
        for decl, declared in zip(self.spec.states, _declared(self._states, final), strict=True):
            if decl.public is None:
                state[decl.name] = declared
            else:
                slots.setdefault(decl.public[0], {})[decl.public[1]] = declared
        for name, buffer in slots.items():
            state[name] = torch.stack([buffer[slot] for slot in sorted(buffer)], 1)
        return state


def _canonical(layouts: Sequence[Layout], tensors: Sequence[Tensor], plan: Plan) -> Tensors:
    return tuple(
        [
            tensor if layout.straight else layout.canonical(tensor, plan.sizes)
            for layout, tensor in zip(layouts, tensors, strict=True)
        ]
    )


def _declared(layouts: Sequence[Layout], tensors: Sequence[Tensor]) -> list[Tensor]:
    return [
        tensor if layout.straight else layout.declared(tensor) for layout, tensor in zip(layouts, tensors, strict=True)
    ]
