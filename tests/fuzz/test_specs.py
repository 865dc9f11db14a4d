"""Any spec that the compiler takes runs on both targets in every form, and agrees with the interpreter."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from fuzz.calls import ERROR, Call, bounded, close
from fuzz.specs import specs
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from scanc_runtime.errors import ArgumentError
from scanc_runtime.tiling import forced

import scanc

FEW = settings(deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def calls(draw: st.DrawFn, operator: scanc.ScanOperator, lengths: tuple[int, ...]) -> Call:
    """Calls of an operator."""
    free = [axis.name for axis in operator.compiled.typed.axes if axis.size is None and axis.like is None]
    dtype = draw(st.sampled_from([*ERROR, torch.float64, torch.float64]))
    return Call(
        operator,
        sizes={axis: draw(st.integers(1, 3)) for axis in free},
        batch=draw(st.sampled_from((0, 1, 2, 2, 2))),
        time=draw(st.sampled_from(lengths)),
        seed=draw(st.integers(0, 1000)),
        dtype=dtype,
        given=draw(st.booleans()),
        twice=dtype == torch.float64 and draw(st.integers(0, 3)) == 0,
        reverse=draw(st.booleans()),
        mask=draw(st.integers(1, 2**10 - 1)),
        still=draw(st.integers(0, 3)),
    )


def check(text: str, target: str, data: st.DataObject, lengths: tuple[int, ...]) -> None:
    """A text is refused, or all its forms agree with the interpreter."""
    try:
        operator = scanc.compile(text, target=target)
    except scanc.CompileError as error:
        event(str(error).splitlines()[0])
        return
    assert operator.explain()
    if target not in operator.compiled.targets:
        event("matrices that vary in time have no kernels")
        return
    assert operator.code()
    call = data.draw(calls(operator, lengths))
    inputs, params, _ = call.groups
    try:
        wanted = call.results("interpret")
    except ArgumentError as error:
        assume("follows from no tensor" not in str(error))
        raise
    assume(bounded(wanted, infinite=operator.compiled.typed.semiring != "real"))
    blocks = forced(unroll=2, chunks=2) if target == "triton" and data.draw(st.booleans()) else nullcontext()
    with blocks:
        for form in call.forms:
            close(call.results(form), wanted, form, ERROR[call.dtype])
        if call.dtype == torch.float64:
            call.check_parts(data.draw(st.sampled_from(call.forms)), data.draw(st.integers(0, call.time)))
    assert operator.explain(**inputs, **params)


@settings(FEW, max_examples=60)
@given(specs(), st.data())
def test_torch(text: str, data: st.DataObject) -> None:
    check(text, "torch", data, (0, 1, 2, 5, 17, 37))


@settings(FEW, max_examples=6)
@given(specs(), st.data())
def test_triton(text: str, data: st.DataObject) -> None:
    check(text, "triton", data, (0, 1, 2, 5, 5, 17))
