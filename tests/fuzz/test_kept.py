"""Failures that were found once, shrunk and kept: each spec broke a pass or a target in the way that its name says."""

from __future__ import annotations

import pytest
import torch
from scanc_runtime.tiling import forced

import scanc
from scanc.interpreter import random_arguments

KEPT = {
    "an output has the name of its state": "state h[d]\nh = a*h + x\noutput h[d]",
    "conj of a complex value is no identity": "state z[d]: complex\nz = polar(a, x)*z + x\ny = real(z)\noutput y[d]",
    "the next value of one state is an input": "state h[d], last[d]\nh = a*h + last\nlast = x\noutput h[d]",
    "a state that nothing changes": "state h[d]\ny = a*h + x\noutput y[d]",
    "a write before the decay": "state h[d]\nh = a*(h + x)\noutput h[d]",
    "a state that reads no input": "param p[d]\nstate h[d]\nh = tanh(h) + p\ny = a*h + x\noutput y[d]",
    "a complex state whose halves are scans": "state z[d]: complex\nz = a*z + complex(x, a)\noutput z[d]",
}


@pytest.mark.parametrize("target", ["torch", "triton"])
@pytest.mark.parametrize("body", KEPT.values(), ids=KEPT.keys())
def test_kept(body: str, target: str) -> None:
    operator = scanc.compile(f"scan kept\naxes d\ninput a[d], x[d]\n{body}\n", target=target)
    inputs, params, initial = random_arguments(operator.compiled.typed, batch=2, time=37, sizes={"d": 3})
    leaves = {n: t.requires_grad_() for n, t in {**inputs, **params, **initial}.items()}

    def results(form: str) -> tuple[torch.Tensor, ...]:
        state = {n: leaves[n] for n in initial}
        given = [leaves[n] for n in (*inputs, *params)]
        output, final = operator(*given, initial_state=state, return_state=True, form=form)
        values = (output, *final.values())
        real = [torch.view_as_real(v).square().sum() if v.is_complex() else v.square().sum() for v in values]
        return (*values, *torch.autograd.grad(sum(real), list(leaves.values()), materialize_grads=True))

    expected = results("interpret")
    fp64 = [form for form in operator.forms if (target, form) != ("triton", "parallel")]  # that one has fp32 alone
    for form in fp64:
        with forced(unroll=2, chunks=2):
            found = results(form)
        for got, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-11)
