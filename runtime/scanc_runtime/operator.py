"""The operator that a generated module defines: its kernels behind the calling convention of `interface.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from scanc_runtime import tuned
from scanc_runtime.auto import is_long, is_short, preferred
from scanc_runtime.autograd import differentiable_op
from scanc_runtime.checks import Plan
from scanc_runtime.eager import is_plain
from scanc_runtime.interface import Interface
from scanc_runtime.register import BackwardFn, ForwardFn, Kernels, SavedFn, StepFn, register
from scanc_runtime.shapes import Primals, Shapes, Tensors
from scanc_runtime.spec import Spec


class Operator(Interface):
    """A differentiable operator from the functions of a generated module.

    `forward` and `backward` map each form to its function, `saved` tells the shapes of what forward keeps
    for backward, `step` is one time step in plain torch.  `absent`: the functions take None for a state that begins
    as declared, and for the gradient of a final state that has none, and leave out final states that nobody reads.
    `long` is the form for few long sequences on a GPU, if the module has one, and how few: programs for each
    multiprocessor, of those that would walk whole sequences.  `short` is the form for short calls, where another is
    preferred, and the steps from which calls are long.  `narrow` are the forms that compute in float32 alone.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        step: StepFn,
        forward: Mapping[str, ForwardFn],
        backward: Mapping[str, BackwardFn],
        saved: SavedFn,
        absent: bool = False,
        long: tuple[str, float] | None = None,
        short: tuple[str, int] | None = None,
        narrow: tuple[str, ...] = (),
    ) -> None:
        super().__init__(spec)
        self.saved = saved
        self._absent = absent
        self._shapes = Shapes(spec)
        self._forms = tuple(forward)
        self.long = long
        self.short = short
        self._preferred = preferred(self._forms)
        self._wide = preferred([form for form in self._forms if form not in narrow])
        self.raw = register(spec, Kernels(step, forward, backward, saved))
        self._apply, self._apply_plain = differentiable_op(spec, self.raw, step, absent)

    @property
    def forms(self) -> tuple[str, ...]:
        return self._forms

    def __repr__(self) -> str:
        return f"<scan {self.spec.name}: {', '.join(self._forms)}>"

    def _auto(self, plan: Plan) -> str:
        if plan.time == 1 and "recurrent" in self._forms:
            return "recurrent"
        default = self._preferred if plan.compute == torch.float32 else self._wide
        if self.long is not None and is_long(self.spec, plan, self.long[1]):
            default = self.long[0]
        elif self.short is not None and is_short(self.spec, plan, self.short[1]):
            default = self.short[0]
        if torch.compiler.is_compiling() or not tuned.exists(self.spec.digest):
            return default
        of = self.spec
        key = tuned.call_key(of.digest, of.forms, plan.batch, plan.time, plan.sizes, plan.compute, plan.device)
        form = (tuned.find(key) or {}).get("form")
        return form if form in self._forms else default

    def _run(
        self, form: str, reverse: bool, primals: Primals, final: bool
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        outputs, states = len(self.spec.outputs), len(self.spec.states)
        if not torch.compiler.is_compiling() and is_plain(primals):
            if not self._absent:
                primals, final = self._shapes.begun(primals), True
            if _wants_gradients(primals):
                flat = self._apply_plain(form, reverse, final, *primals)
            else:
                flat = self.raw.plain_forward(primals, form, reverse, False, final)
            return flat[:outputs], flat[outputs:]
        full = self._shapes.begun(primals)
        if _wants_gradients(full):
            flat = self._apply(form, reverse, *(_distinct(full) if torch.compiler.is_compiling() else full))
        else:
            flat = self.raw.forward(full, form, reverse, False)
        return flat[:outputs], flat[outputs : outputs + states]


def _wants_gradients(tensors: Primals) -> bool:
    if not torch.is_grad_enabled():
        return False
    # Below an outer level of torch.func, a tensor of that level does not say that it requires a gradient.
    for tensor in tensors:
        if tensor is not None and tensor.requires_grad:
            return True
    return torch._C._are_functorch_transforms_active()


def _distinct(tensors: Tensors) -> Tensors:
    """The tensors, a repeated one as a view of itself: Dynamo takes no tensor twice."""
    seen: list[Tensor] = []
    for tensor in tensors:
        seen.append(tensor.view_as(tensor) if any(tensor is other for other in seen) else tensor)
    return tuple(seen)
