"""batch_invariant: a row's results are bitwise the same in any batch."""

from __future__ import annotations

import pytest
import torch
from op.calls import example

from scanc.interpreter import random_arguments

NAMES = ("ema", "gla", "gru", "lru", "hmm_forward", "conv_ema", "selective_ssm")


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_row_does_not_depend_on_its_batch(name: str, reverse: bool) -> None:
    operator = example(name)
    program = operator.compiled.typed
    sizes = {axis.name: 5 for axis in program.axes if axis.size is None and axis.like is None}
    inputs, params, initial = random_arguments(program, batch=6, time=70, sizes=sizes, dtype=torch.float32)

    def run(rows: list[int]) -> list[torch.Tensor]:
        """Outputs, final states and the gradients of inputs and initial states, of some rows."""
        own = {n: x[rows].clone() for n, x in inputs.items()}
        start = {n: x[rows].clone() for n, x in initial.items()}
        leaves = [x.requires_grad_() for x in (*own.values(), *start.values()) if x.is_floating_point()]
        result, final = operator(
            **own, **params, initial_state=start, return_state=True, reverse=reverse, batch_invariant=True
        )
        results = [*(result if isinstance(result, tuple) else (result,)), *final.values()]
        smooth = [x for x in results if x.requires_grad]
        loss = sum((torch.view_as_real(x) if x.is_complex() else x).square().sum() for x in smooth)
        return [x.detach() for x in results] + list(torch.autograd.grad(loss, leaves, allow_unused=True))

    whole, some = run([0, 1, 2, 3, 4, 5]), run([4, 1])
    for of_all, of_some in zip(whole, some, strict=True):
        if of_all is not None:
            assert torch.equal(of_all[[4, 1]], of_some)


def test_gradients_of_params_are_those_of_the_batch() -> None:
    operator = example("ema")
    program = operator.compiled.typed
    inputs, params, initial = random_arguments(program, batch=3, time=9, sizes={"d": 4}, dtype=torch.float64)
    leaves = [x.requires_grad_() for x in params.values()]

    def gradients(invariant: bool) -> tuple[torch.Tensor, ...]:
        out = operator(**inputs, **params, initial_state=initial, batch_invariant=invariant)
        return torch.autograd.grad(out.square().sum(), leaves)

    torch.testing.assert_close(gradients(True), gradients(False))


def test_an_empty_batch() -> None:
    operator = example("ema")
    program = operator.compiled.typed
    inputs, params, initial = random_arguments(program, batch=0, time=9, sizes={"d": 4})
    out, state = operator(**inputs, **params, initial_state=initial, return_state=True, batch_invariant=True)
    assert out.shape == (0, 9, 4)
    assert state["h"].shape == (0, 4)
