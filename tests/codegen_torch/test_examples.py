"""Every example against the interpreter, values and all gradients, in every form."""

import pytest
import torch
from codegen_torch.modules import EXAMPLES, Module, compiled, example, generated, oracle

NAMES = sorted(path.stem for path in EXAMPLES.glob("*.scan"))


def agree(module: Module, form: str, reverse: bool = False, rtol: float = 1e-7, **options: int) -> None:
    inputs, params, states = module.arguments(**options)
    expected, expected_grads = oracle(module, inputs, params, states, reverse)
    results, grads = generated(module, inputs, params, states, reverse, form)
    assert results.keys() == expected.keys()
    assert grads.keys() == expected_grads.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            results[name], value.to(results[name].dtype), rtol=rtol, atol=1e-9, msg=f"{form}: {name}"
        )
    for name, value in expected_grads.items():
        torch.testing.assert_close(grads[name], value, rtol=rtol, atol=1e-8, msg=f"{form}: gradient of {name}")


@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_the_interpreter(name: str) -> None:
    module = example(name)
    for form in module.operator.forms:
        agree(module, form, time=7)
        agree(module, form, time=6, reverse=True, seed=3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("time", [0, 1, 2, 14, 33])
def test_lengths(name: str, time: int) -> None:
    module = example(name)
    for form in module.operator.forms:
        agree(module, form, time=time, batch=1, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_source_is_deterministic(name: str) -> None:
    text = (EXAMPLES / f"{name}.scan").read_text()
    again = compiled.__wrapped__(text)
    assert again.source == example(name).source


def test_an_empty_batch() -> None:
    module = example("gla")
    for form in module.operator.forms:
        agree(module, form, batch=0)
