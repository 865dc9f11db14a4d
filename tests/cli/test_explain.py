"""What `explain` says that forward saves for backward, held against what a call really saves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from scanc_runtime import Operator
from torch import Tensor

import scanc
from scanc.bench import arguments

EXAMPLES = Path(__file__).parents[2] / "examples"


def saved_line(text: str) -> str:
    return next(line for line in text.splitlines() if line.startswith("saved for backward: "))


@pytest.mark.parametrize("target", ["torch", "triton"])
@pytest.mark.parametrize("name", ["ema", "lru", "gla", "gru", "selective_ssm"])
def test_a_call_saves_what_it_says(name: str, target: str) -> None:
    op = scanc.load(EXAMPLES / f"{name}.scan", target=target)
    program = op.compiled.typed
    call = arguments.draw(program, batch=2, time=37, sizes=arguments.complete_sizes(program, {}), dtype="float32")
    tensors = {name: value.requires_grad_() for name, value in call.tensors.items()}
    operator = op.operator(target)
    flat = operator.raw.forward(canonical(operator, tensors), operator.plan(**tensors)[1], False, True)
    kept = flat[len(op.spec.outputs) + len(op.spec.states) :]
    line = saved_line(op.explain(**tensors))
    assert line.startswith(f"saved for backward: {sum(x.nbytes for x in kept)} bytes, ")


def canonical(operator: Operator, tensors: dict[str, Tensor]) -> list[Tensor]:
    """Inputs, params and zero states as the raw op takes them."""
    with torch.no_grad():
        given = operator._binder.bind((), tensors)
        plan = operator._checker.check(given, {}, False)
        layouts = [*operator._inputs, *operator._params]
        primals = [layout.canonical(tensor, plan.sizes) for layout, tensor in zip(layouts, given, strict=True)]
        for state in operator.spec.states:
            shape = (plan.batch, *(plan.sizes[axis] for axis in state.axes))
            primals.append(torch.zeros(shape, dtype=torch.complex64 if state.kind == "complex" else torch.float32))
        return primals


def test_a_target_says_a_number_where_sizes_do_not_matter() -> None:
    text = scanc.load(EXAMPLES / "ema.scan").explain()
    assert "  triton: recurrent, chunked, parallel: 0.25\n" in text  # a state of four bytes, every 16 steps
    assert "4 at B = 1, T = 1024, axes of 16" in text  # every state of a short call


def test_a_long_call_saves_little_for_backward() -> None:
    op = scanc.load(EXAMPLES / "ema.scan", target="torch")
    said = saved_line(op.explain(torch.randn(1, 1 << 16, 256), torch.randn(256)))
    assert float(said.split(" bytes, ")[1].split()[0]) < 0.01


def test_a_spec_without_states_saves_nothing() -> None:
    op = scanc.compile("scan twice\naxes d\ninput x[d]\ny = 2*x\noutput y[d]\n")
    assert "saved for backward: nothing, there is no state" in op.explain()


def test_one_form_alone_says_nothing_of_memory() -> None:
    assert "saved" not in scanc.load(EXAMPLES / "ema.scan").explain(form="chunked")
