"""Properties that the language itself promises, held against the interpreter."""

from __future__ import annotations

import torch
from fuzz.programs import Case, cases
from hypothesis import given, settings
from hypothesis import strategies as st

from scanc.interpreter import interpret

Tensors = dict[str, torch.Tensor]
FEW = settings(max_examples=60, deadline=None)


def close(a: Tensors, b: Tensors) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-10, atol=1e-12, equal_nan=False)


def numpy_of(group: Tensors) -> dict[str, object]:
    return {name: x.numpy() for name, x in group.items()}


@FEW
@given(cases())
def test_numpy_and_torch_agree_and_are_finite(case: Case) -> None:
    inputs, params, initial = case.arguments()
    outputs, final = interpret(case.program, inputs, params, initial)
    expected = interpret(case.program, numpy_of(inputs), numpy_of(params), numpy_of(initial))
    for got, reference in zip((outputs, final), expected, strict=True):
        close(got, {name: torch.from_numpy(x.copy()) for name, x in reference.items()})
        assert all(bool(torch.isfinite(x).all()) for x in got.values())


@FEW
@given(cases(times=(2, 3, 5, 8)), st.data())
def test_a_split_sequence_gives_the_same(case: Case, data: st.DataObject) -> None:
    inputs, params, initial = case.arguments()
    cut = data.draw(st.integers(0, case.time))
    outputs, final = interpret(case.program, inputs, params, initial)
    first, middle = interpret(case.program, {n: x[:, :cut] for n, x in inputs.items()}, params, initial)
    second, last = interpret(case.program, {n: x[:, cut:] for n, x in inputs.items()}, params, middle)
    close(outputs, {n: torch.cat([first[n], second[n]], 1) for n in outputs})
    close(final, last)


@FEW
@given(cases(times=(2, 3, 5)), st.data())
def test_later_tokens_never_change_earlier_outputs(case: Case, data: st.DataObject) -> None:
    inputs, params, initial = case.arguments()
    cut = data.draw(st.integers(1, case.time - 1))
    outputs, _ = interpret(case.program, inputs, params, initial)
    changed = {n: torch.cat([x[:, :cut], torch.full_like(x[:, cut:], 7)], 1) for n, x in inputs.items()}
    others, _ = interpret(case.program, changed, params, initial)
    for name in outputs:
        assert torch.equal(outputs[name][:, :cut], others[name][:, :cut])


@FEW
@given(cases())
def test_reverse_is_the_reversed_sequence(case: Case) -> None:
    inputs, params, initial = case.arguments()
    outputs, final = interpret(case.program, inputs, params, initial, reverse=True)
    flipped, last = interpret(case.program, {n: x.flip(1) for n, x in inputs.items()}, params, initial)
    close(outputs, {n: x.flip(1) for n, x in flipped.items()})
    close(final, last)


@FEW
@given(cases(times=(1, 2, 3)))
def test_gradients_are_finite(case: Case) -> None:
    groups = case.arguments()
    for group in groups:
        for x in group.values():
            x.requires_grad_(x.is_floating_point() or x.is_complex())
    outputs, final = interpret(case.program, *groups)
    leaves = [x for group in groups for x in group.values() if x.requires_grad]
    loss = sum(x.abs().sum() for x in (*outputs.values(), *final.values()))
    for grad in torch.autograd.grad(loss, leaves, allow_unused=True):
        assert grad is None or bool(torch.isfinite(torch.view_as_real(grad) if grad.is_complex() else grad).all())
