"""The interpreter as an operator: what `form="interpret"` runs."""

from __future__ import annotations

from collections.abc import Sequence

from scanc_runtime.checks import Plan
from scanc_runtime.interface import Interface
from scanc_runtime.shapes import Arity, Primals, Shapes
from torch import Tensor

from scanc.codegen.module import spec_of
from scanc.driver import Compiled
from scanc.interpreter import interpret
from scanc.ir.nodes import Program


class Interpreted(Interface):
    """The interpreter behind the calling convention of operators; differentiable by torch."""

    def __init__(self, compiled: Compiled) -> None:
        super().__init__(spec_of(compiled.discrete, compiled.text, forms=("interpret",)))
        self._program: Program = compiled.typed
        self._shapes = Shapes(self.spec)

    @property
    def forms(self) -> tuple[str, ...]:
        return ("interpret",)

    def _auto(self, plan: Plan) -> str:
        return "interpret"

    def _run(
        self, form: str, reverse: bool, primals: Primals, final: bool
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        spec, primals = self.spec, self._shapes.begun(primals)
        inputs, params, states = Arity(spec).split(primals)
        sizes = self._shapes.sizes(primals)[2]
        given, constants = (
            {decl.name: layout.declared(tensor) for decl, layout, tensor in zip(*group, strict=True)}
            for group in ((spec.inputs, self._inputs, inputs), (spec.params, self._params, params))
        )
        outputs, last = interpret(self._program, given, constants, self._public(states), reverse=reverse)
        dtypes = self._shapes.result_dtypes(primals)
        results = [outputs[decl.name] for decl in spec.outputs]
        results += [
            last[decl.public[0]].select(1, decl.public[1]) if decl.public else last[decl.name] for decl in spec.states
        ]
        canonical = [
            layout.canonical(tensor, sizes).to(dtype, copy=True)  # a state may be the slice of an input
            for layout, tensor, dtype in zip(self._outputs + self._states, results, dtypes, strict=True)
        ]
        return canonical[: len(spec.outputs)], canonical[len(spec.outputs) :]
