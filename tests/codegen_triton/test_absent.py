"""States that nobody gives, and final states that nobody reads: as if zeros, or what is declared, had been given."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from codegen_triton.support import DEVICE
from interpreter.specs import EXAMPLES, small_arguments
from scanc_runtime import launch
from scanc_runtime.tiling import forced
from torch import Tensor
from torch.testing import assert_close

import scanc

TURN = """scan turn
axes d
input g[d], x[d]: complex
state z[d]: complex
z = sigmoid(g)*z + x
output z[d]
"""
COUNT = """scan count
axes d
input x[d], k[d]: int, on[d]: bool
param w[d]
state n[d]: int, seen[d]: bool, h[d] = 1
seen = seen + on
n = where(on, n + k, n)
h = where(seen, 0.5*h + w*x, h)
y = h * n
output y[d], n[d]
"""
ONE = """scan one
input x
state h = -inf, s = 1
h = max(h - 1, x)
s = 0.5*s + x
y = h + s
output y
"""
SUM = """scan running_sum
axes d
input x[d]
state h[d]
h = h + x
output h[d]
"""
SPECS = {"turn": TURN, "count": COUNT, "one": ONE, "running_sum": SUM}
NAMES = (*SPECS, "ema", "selective_ssm", "mlstm", "kalman", "conv_ema")
EXACT = {"rtol": 0.0, "atol": 0.0} if DEVICE == "cpu" else {"rtol": 1e-5, "atol": 1e-5}
"""A GPU's compiler rounds 0·a + x otherwise if it knows the 0."""
CASES = [(name, form) for name in NAMES for form in ("recurrent", "chunked", "parallel")]


@cache
def operator(name: str) -> Any:
    if name in SPECS:
        return scanc.compile(SPECS[name], target="triton")
    return scanc.load(EXAMPLES / f"{name}.scan", target="triton")


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANC_POISON", "1")


def arguments(name: str, time: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Inputs and params, and the states as they are declared to begin; all that has gradients asks for them."""
    op = operator(name)
    inputs, params, states = small_arguments(op.compiled.typed, time=time)
    given = {key: x.float() if x.is_floating_point() else x for key, x in {**inputs, **params}.items()}
    given = {key: x.to(torch.complex64) if x.is_complex() else x for key, x in given.items()}
    declared = {s.public[0] if s.public else s.name: s for s in op.spec.states if not isinstance(s.init, str)}
    begin = {key: torch.full_like(states[key], declared[key].init) for key in declared}
    begin = {key: x.float() if x.is_floating_point() else x for key, x in begin.items()}
    begin = {key: x.to(torch.complex64) if x.is_complex() else x for key, x in begin.items()}
    return tuple({k: leaf(x.to(DEVICE)) for k, x in group.items()} for group in (given, begin))  # type: ignore[return-value]


def leaf(x: Tensor) -> Tensor:
    return x.requires_grad_() if smooth(x) else x


def smooth(x: Tensor) -> bool:
    return x.is_floating_point() or x.is_complex()


def run(op: Any, given: dict[str, Tensor], form: str, *, final: bool, flows: bool, **options: Any) -> Any:
    """Outputs, final states, gradients by name of what was given; those of final states flow if `flows`."""
    result = op(**given, form=form, return_state=final, **options)
    outputs, last = result if final else (result, {})
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    leaves = {key: x for key, x in given.items() if x.requires_grad}
    reached = [y for y in (*outputs, *(last.values() if flows else ())) if y.requires_grad]
    generator = torch.Generator(DEVICE).manual_seed(3)
    cotangents = [torch.randn(y.shape, generator=generator, device=DEVICE, dtype=y.dtype) for y in reached]
    grads = torch.autograd.grad(reached, list(leaves.values()), cotangents, allow_unused=True)
    return (
        [y.detach() for y in outputs],
        {k: y.detach() for k, y in last.items()},
        dict(zip(leaves, grads, strict=True)),
    )


@pytest.mark.parametrize("time", [0, 5])
@pytest.mark.parametrize(("name", "form"), CASES)
def test_absent_states_are_as_declared(name: str, form: str, time: int) -> None:
    op = operator(name)
    if form == "parallel" and (time == 0 or name == "running_sum"):
        return  # slow to interpret, and as the others
    if form not in op.operator("triton").forms:
        assert form in dict(op.spec.refused)
        return
    given, begin = arguments(name, time)
    with forced(unroll=2, chunks=3 if form == "chunked" else None):
        for final, flows in ((True, True), (False, False)):
            wanted = run(op, given, form, final=final, flows=flows, initial_state=begin)
            found = run(op, given, form, final=final, flows=flows)
            assert_close(found, wanted, **EXACT, equal_nan=True)
            with torch.no_grad():
                bare = op(**given, form=form, return_state=final)
            outputs = bare[0] if final else bare
            assert_close(list(outputs) if isinstance(outputs, tuple) else [outputs], wanted[0], **EXACT)
            assert_close(bare[1] if final else {}, wanted[1], **EXACT)


def test_some_states_may_be_given() -> None:
    op = operator("mlstm")
    given, begin = arguments("mlstm", 5)
    for names in ((False, False, True), (False, True, False), (True, True, False)):
        some = {key: x for take, (key, x) in zip(names, begin.items(), strict=True) if take}
        found = run(op, given, "recurrent", final=True, flows=True, initial_state=some)
        assert_close(found, run(op, given, "recurrent", final=True, flows=True), **EXACT)


def test_the_gradient_of_a_given_state_flows_beside_one_that_is_not_there() -> None:
    op = operator("mlstm")
    given, begin = arguments("mlstm", 5)
    start = leaf(torch.randn(begin["C"].shape, device=DEVICE))
    grads = []
    stabilizer = torch.randn(begin["m"].shape, device=DEVICE)
    for states in ({**begin, "C": start, "m": stabilizer}, {"C": start, "m": stabilizer}):
        y = op(**given, initial_state=states)
        grads.append(
            torch.autograd.grad(
                y, [start, *given.values()], torch.cos(torch.arange(y.numel(), device=DEVICE)).view_as(y)
            )
        )
    assert_close(grads[1], grads[0], **EXACT)
    assert grads[0][0].abs().sum() > 0


@pytest.mark.parametrize("name", ["ema", "count", "mlstm"])
def test_second_derivatives(name: str) -> None:
    op = operator(name)
    given, begin = arguments(name, 5)
    leaves = [x for x in given.values() if x.requires_grad]
    found = []
    for options in ({}, {"initial_state": begin}):
        results = op(**given, **options)
        y = results[0] if isinstance(results, tuple) else results
        first = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
        found.append(torch.autograd.grad(sum(g.square().sum() for g in first), leaves))
    assert_close(found[0], found[1])


@pytest.mark.parametrize("form", ["recurrent", "chunked", "parallel"])
def test_nothing_is_allocated_that_nobody_reads(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    op = operator("ema")
    given, _ = arguments("ema", 7)
    count = [0]
    new = launch.Call.new

    def counted(self: launch.Call, shape: Any, dtype: torch.dtype, when: bool = True) -> Any:
        count[0] += when and dtype != torch.int64 and self._rehearsal is None  # a GPU rehearses too
        return new(self, shape, dtype, when)

    monkeypatch.setattr(launch.Call, "new", counted)
    with torch.no_grad():
        op(**given, form=form)
        assert count == [1]  # the output
        op(**given, form=form, return_state=True)
        assert count == [3]
    y = op(**given, form=form)
    assert count == [5]  # the output and what backward reads
    torch.autograd.grad(y.sum(), list(given.values()))
    assert count == [7]  # gradients of x and of logit


@pytest.mark.parametrize("form", ["recurrent", "chunked"])
def test_the_registered_ops_return_tensors_of_their_own(form: str) -> None:
    op = operator("selective_ssm")
    given, begin = arguments("selective_ssm", 5)
    generated = op.operator("triton")
    named = {**given, **begin}
    primals = [named[d.name].detach() for d in (*generated.spec.inputs, *generated.spec.params, *generated.spec.states)]
    flat = generated.raw.forward(primals, form, False, True)
    results, saved = flat[:2], flat[2:]
    grads = generated.raw.backward(primals, saved, [torch.randn_like(x) for x in results], form, False)
    places = {x.untyped_storage().data_ptr() for x in grads}
    assert len(places) == len(grads) == len(primals)


def test_a_compiled_call_is_an_eager_one() -> None:
    op = operator("selective_ssm")
    given, _ = arguments("selective_ssm", 5)
    torch._dynamo.reset()
    compiled = torch.compile(lambda **tensors: op(**tensors), backend="aot_eager", fullgraph=True)
    grads = [torch.autograd.grad(f(**given).square().sum(), list(given.values())) for f in (compiled, op)]
    assert_close(grads[0], grads[1])
