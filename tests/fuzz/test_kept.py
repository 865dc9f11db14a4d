"""Failures that were found once, shrunk and kept: each spec broke a pass or a target in the way that its name says."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from fuzz.calls import ERROR, Call, close
from scanc_runtime.lookback import forced_lookback
from scanc_runtime.tiling import forced

import scanc

KEPT = {
    "an output has the name of its state": "state h[d]\nh = a*h + x\noutput h[d]",
    "conj of a complex value is no identity": "state z[d]: complex\nz = polar(a, x)*z + x\ny = real(z)\noutput y[d]",
    "the next value of one state is an input": "state h[d], last[d]\nh = a*h + last\nlast = x\noutput h[d]",
    "a state that nothing changes": "state h[d]\ny = a*h + x\noutput y[d]",
    "a write before the decay": "state h[d]\nh = a*(h + x)\noutput h[d]",
    "a state that reads no input": "param p[d]\nstate h[d]\nh = tanh(h) + p\ny = a*h + x\noutput y[d]",
    "a complex state whose halves are scans": "state z[d]: complex\nz = a*z + complex(x, a)\noutput z[d]",
    "a step of no instructions": "state h[d]\ny = x\noutput y[d]",
    "only the imaginary part is read": "state z[d]: complex\ny = tanh(imag(z))\nz = 0.5*z + complex(x, a)\noutput y[d]",
    "a choice of real and complex": "state z[d]: complex\nz = where(x > 0, a, 0.5*z + x)\noutput z[d]",
}
KEPT_OVER_LOG = {
    "second gradients beside a zero": "y = x + prev(a, 2)\noutput y[d]",
}
SPECS = {name: ("real", body) for name, body in KEPT.items()}
SPECS |= {name: ("log", body) for name, body in KEPT_OVER_LOG.items()}


@pytest.mark.parametrize("target", ["torch", "triton"])
@pytest.mark.parametrize(("semiring", "body"), SPECS.values(), ids=SPECS.keys())
def test_kept(semiring: str, body: str, target: str) -> None:
    operator = scanc.compile(f"scan kept over {semiring}\naxes d\ninput a[d], x[d]\n{body}\n", target=target)
    call = Call(operator, {"d": 3})
    wanted = call.results("interpret")
    for form in call.forms:
        for split in (True, False):
            with forced(unroll=2, chunks=2) if split else nullcontext():
                close(call.results(form), wanted, form)
    single = Call(operator, {"d": 3}, dtype=torch.float32)
    wanted = single.results("interpret")
    for form in {*single.forms} - {*call.forms}:
        with forced_lookback(block=4, chunks=2, steps=2, group=2):
            close(single.results(form), wanted, form, ERROR[torch.float32])
    for given in (True, False):
        twice = Call(operator, {"d": 3}, time=3, twice=True, given=given)
        close(twice.results(operator.forms[0]), twice.results("interpret"), "second gradients")
