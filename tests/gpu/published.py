"""One published case: results of ours and of the peer, values and gradients, against the interpreter in fp64."""

from __future__ import annotations

from collections.abc import Callable

import torch
from gpu.measure import Row, leaf, wide, worst
from gpu.published_cases import Case
from gpu.published_peers import load
from gpu.published_suites import SUITES, Source, Tensors
from gpu.published_tolerances import ratio, share_beside
from torch import Tensor

import scanc
from scanc.op import Target

Call = Callable[[Tensors, Tensors], Tensors]
"""The output and final states, of inputs and params, and of initial states."""


class Problem:
    """A case's random tensors on a device, and what is right."""

    def __init__(self, case: Case, device: str) -> None:
        source = Source(case, device)
        self.case, self.suite = case, SUITES[case.suite]
        self.tensors, self.states = self.suite.draw(source)
        self.inputs = {x.name for x in scanc.compile(self.suite.spec).compiled.typed.inputs}
        leaves = self._leaves(wide)
        values = _ours(self.suite.spec, "torch", "interpret")(*leaves)
        finals = [f"final {name}" for name in self.states if self.suite.final]
        self.given = {name: source.normal(*values[name].shape).to(case.dtype) for name in ("output", *finals)}
        self.wanted = self._with_gradients(values, *leaves)

    def ours(self, target: Target) -> Tensors:
        """Results of a target, in the form that it takes by itself."""
        return self._results(_ours(self.suite.spec, target, "auto"))

    def peers(self) -> Tensors:
        """Results of the published kernel. Raises `Missing`."""
        return self._results(load(self.case.suite))

    def _results(self, call: Call) -> Tensors:
        leaves = self._leaves()
        return self._with_gradients(call(*leaves), *leaves)

    def _leaves(self, widened: Callable[[Tensor], Tensor] = lambda x: x) -> tuple[Tensors, Tensors]:
        tensors, states = (
            {name: leaf(widened(x)) for name, x in group.items()} for group in (self.tensors, self.states)
        )
        return tensors, states

    def _with_gradients(self, values: Tensors, tensors: Tensors, states: Tensors) -> Tensors:
        """The output, final states, and the gradient of each tensor that takes one."""
        leaves = {name: x for name, x in {**tensors, **states}.items() if name not in self.suite.fixed}
        given = [g.to(values[name].dtype) for name, g in self.given.items()]
        gradients = torch.autograd.grad([values[name] for name in self.given], list(leaves.values()), given)
        found = {name: y.detach() for name, y in values.items()}
        return found | {f"d {name}": g for name, g in zip(leaves, gradients, strict=True)}

    def row(self, found: Tensors) -> Row:
        """Errors of results, by fla's measure."""
        errors = {name: ratio(x, self.wanted[name]) for name, x in found.items()}
        gradients = [error for name, error in errors.items() if name.startswith("d ")]
        values = [error for name, error in errors.items() if not name.startswith("d ")]
        return Row(self.case.label, self.case.dtype_name, worst(values), worst(gradients), errors=errors)

    def shares(self, found: Tensors) -> dict[str, float]:
        """How much of its published tolerance each result uses up."""
        bounds = {name: self.suite.bound(name) for name in self.wanted}
        return {name: bound.share(found[name], self.wanted[name]) for name, bound in bounds.items() if bound}

    def shares_beside(self, found: Tensors, theirs: Tensors) -> dict[str, float]:
        """How much of what is allowed beside the peer each result uses up, in the worst head or slice of channels."""
        of = self.wanted
        return {name: share_beside(found[name], x, of[name], self._axis(name)) for name, x in theirs.items()}

    def missed(self, shares: dict[str, float]) -> tuple[set[str], set[str]]:
        """Results that use up more than there is: those that are known to in 16 bits, and all others."""
        over = {name for name, share in shares.items() if not share <= 1}
        coarse = set(self.suite.coarse) if self.case.dtype.itemsize == 2 else set()
        return over & coarse, over - coarse

    def line(self, found: Tensors, shares: dict[str, float], theirs: Tensors | None = None) -> str:
        """A row of the table: errors, and the worst share of the published tolerance, or of what the peer allows."""
        ours, peer = self.row(found), self.row(theirs) if theirs else None
        most = max(shares, key=lambda name: (shares[name] != shares[name], shares[name]))
        errors = " | ".join(f"{row.values:.1e} | {row.gradients:.1e}" if row else "– | –" for row in (ours, peer))
        return f"| {ours.name} | {ours.dtype} | {errors} | {shares[most]:.2f} {most} |"

    def _axis(self, result: str) -> int:
        """Where a result has its heads or channels: after batch and time, after batch, or first."""
        name = result.removeprefix("d ")
        if name == "output" or name in self.inputs:
            return 2
        return 1 if name in self.states or name.startswith("final ") else 0


def _ours(spec: str, target: Target, form: str) -> Call:
    operator = scanc.compile(spec, target=target)

    def call(tensors: Tensors, states: Tensors) -> Tensors:
        output, final = operator(**tensors, initial_state=states or None, return_state=True, form=form)
        return {"output": output} | {f"final {name}": x for name, x in final.items()}

    return call
