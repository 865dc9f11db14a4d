"""The example specs on the interpreter: against the papers' recurrences by hand, and against finite differences."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from interpreter import references
from interpreter.specs import EXAMPLES as SPECS
from interpreter.specs import NAMES as EXAMPLES
from interpreter.specs import Arguments, example, small_arguments

from scanc.interpreter import interpret


def as_numpy(group: Arguments) -> dict[str, np.ndarray]:
    return {name: x.numpy() for name, x in group.items()}


def assert_close(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert got.keys() == expected.keys()
    for name in got:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-9, atol=1e-11, err_msg=name)


def test_every_example_has_a_reference() -> None:
    assert [name for name in EXAMPLES if not hasattr(references, name)] == []


def test_every_example_is_documented_and_names_its_source() -> None:
    table = (SPECS.parent / "docs" / "examples.md").read_text(encoding="utf-8")
    assert [name for name in EXAMPLES if f"| `{name}` |" not in table] == []
    for name in EXAMPLES:
        text = (SPECS / f"{name}.scan").read_text(encoding="utf-8")
        assert re.match(r"(#.*\n)+", text), name
        assert re.search(r"(19|20)\d\d", text.split("scan ")[0]), name


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("given", [True, False], ids=["initial state", "declared beginning"])
def test_values_by_hand(name: str, given: bool) -> None:
    program = example(name)
    inputs, params, state = map(as_numpy, small_arguments(program, time=5))
    if not given:
        _, state = interpret(program, {n: x[:, :0] for n, x in inputs.items()}, params)
    with np.errstate(divide="ignore"):
        expected = getattr(references, name)(inputs, params, state)
    got = interpret(program, inputs, params, state if given else None)
    for a, b in zip(got, expected, strict=True):
        assert_close(a, b)


@pytest.mark.parametrize("name", EXAMPLES)
def test_torch_agrees_with_numpy(name: str) -> None:
    program = example(name)
    groups = small_arguments(program, time=7, batch=3, seed=1)
    got = interpret(program, *groups)
    expected = interpret(program, *map(as_numpy, groups))
    for a, b in zip(got, expected, strict=True):
        assert_close(as_numpy(a), b)


@pytest.mark.parametrize("name", EXAMPLES)
def test_gradients_by_finite_differences(name: str) -> None:
    program = example(name)
    groups = small_arguments(program, time=3, seed=2)
    keys = [(index, n) for index, group in enumerate(groups) for n in group]

    def run(*leaves: torch.Tensor) -> tuple[torch.Tensor, ...]:
        rebuilt: tuple[Arguments, ...] = ({}, {}, {})
        for (index, n), leaf in zip(keys, leaves, strict=True):
            rebuilt[index][n] = leaf
        outputs, final = interpret(program, *rebuilt)
        return (*outputs.values(), *final.values())

    leaves = [groups[index][n].requires_grad_() for index, n in keys]
    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)


@pytest.mark.parametrize("name", EXAMPLES)
def test_thirty_two_steps_stay_in_bounds(name: str) -> None:
    program = example(name)
    outputs, final = interpret(program, *small_arguments(program, time=32, seed=3))
    for x in (*outputs.values(), *final.values()):
        assert bool((x.abs() <= 100).all())


@pytest.mark.parametrize("name", EXAMPLES)
def test_gradients_from_the_declared_beginning_are_finite(name: str) -> None:
    """The beginning holds the zeros and -inf at which a careless gradient is not a number."""
    program = example(name)
    inputs, params, _ = small_arguments(program, time=3, seed=4)
    leaves = [x.requires_grad_() for x in (*inputs.values(), *params.values())]
    outputs, final = interpret(program, inputs, params)
    grads = torch.autograd.grad(sum(x.abs().sum() for x in (*outputs.values(), *final.values())), leaves)
    assert all(bool(torch.isfinite(g.abs()).all()) for g in grads)


@pytest.mark.parametrize("name", ["gla", "gated_delta_rule"])
@pytest.mark.parametrize("gate", [0.0, -1e-6, -20.0, -1e4, -torch.inf])
def test_extreme_log_gates(name: str, gate: float) -> None:
    program = example(name)
    inputs, params, state = small_arguments(program)
    inputs["g"] = torch.full_like(inputs["g"], gate)
    leaves = [x.requires_grad_() for x in (*inputs.values(), *state.values())]
    outputs, final = interpret(program, inputs, params, state)
    grads = torch.autograd.grad(outputs["o"].sum() + final["S"].sum(), leaves)
    assert all(bool(torch.isfinite(x).all()) for x in (*outputs.values(), *final.values(), *grads))
    by_hand = references.__dict__[name](
        as_numpy({n: x.detach() for n, x in inputs.items()}), {}, {n: x.detach().numpy() for n, x in state.items()}
    )
    assert_close(as_numpy({n: x.detach() for n, x in outputs.items()}), by_hand[0])


def test_the_gradient_of_viterbi_is_the_best_path() -> None:
    inputs, params, state = small_arguments(example("viterbi"), time=4, batch=1)
    leaf = inputs["e"].requires_grad_()
    outputs, _ = interpret(example("viterbi"), inputs, params, state)
    (grad,) = torch.autograd.grad(outputs["score"][0, -1], leaf)
    groups = [as_numpy({n: x.detach() for n, x in group.items()}) for group in (inputs, params, state)]
    every, score = references.paths(*groups)
    best = every[int(score[0].argmax())]
    np.testing.assert_array_equal(grad[0].numpy(), np.eye(grad.shape[-1])[best])


def test_impossible_transitions_have_zero_gradient() -> None:
    inputs, params, _ = small_arguments(example("hmm_forward"), time=4)
    params["A"][0, 1] = -torch.inf
    params["start"][0] = -torch.inf
    leaves = [x.requires_grad_() for x in (*inputs.values(), *params.values())]
    outputs, _ = interpret(example("hmm_forward"), inputs, params)
    grads = torch.autograd.grad(outputs["likelihood"].sum(), leaves)
    assert all(bool(torch.isfinite(g).all()) for g in grads)
    assert float(grads[1][0, 1]) == 0.0
    assert float(grads[2][0]) == 0.0
