"""products: a product of three values shares a factor pair with one that is there anyway, and only then."""

from __future__ import annotations

import pytest
import torch

from scanc.interpreter import interpret, random_arguments
from scanc.ir.nodes import Instr, Map, Program
from scanc.passes.differentiate import differentiate
from scanc.passes.pipeline import SIMPLIFIED, TO_DISCRETE, TO_FUSED, Trace, run
from scanc.semantics.lower import lower

HEAD = "scan s\naxes d\ninput a[d], b[d], c[d]\nparam p[d]\nstate h[d]\n"


def fused(body: str) -> tuple[Program, Program, Trace]:
    discrete = run(TO_DISCRETE, lower(f"{HEAD}{body}\noutput y[d], h[d]\n"), Trace())
    trace = Trace()
    return discrete, run(TO_FUSED, discrete, trace), trace


def products(program: Program) -> list[Instr]:
    return [instr for instr in program.instrs if instr.op == Map("mul")]


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ("y = (a*b)*c\nh = a*c + h", 2),
        ("y = (b*a)*c\nh = h + c*a", 2),
        ("h = a*c*h + b\ny = c*(a*b)", 3),
        ("y = (a*b)*c\nh = a*b + h", 2),  # both are there: nothing to share
        ("y = (a*b)*c + a*b\nh = a*c + h", 3),  # the inner product has another reader
        ("y = (a*a)*c\nh = a*c + h", 2),
        ("h = (a*c)*h + a*b*c*p\ny = h + c*p", 5),  # what is made from others is not taken apart again
        ("y = (p*a)*p\nh = (p*p)*h + b", 4),  # what is done once per call stays there
    ],
)
def test_shared_products(body: str, count: int) -> None:
    discrete, program, _ = fused(body)
    assert len(products(program)) == count
    inputs, params, initial = random_arguments(discrete, batch=2, time=5, sizes={"d": 3}, dtype=torch.float64)
    wanted, _ = interpret(discrete, inputs, params, initial)
    found, _ = interpret(program, inputs, params, initial)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-12)


def test_the_gradient_of_a_decay_is_made_from_that_of_the_state() -> None:
    discrete = run(TO_DISCRETE, lower(f"{HEAD}h = exp(a*p)*h + b\ny = c*h\noutput y[d]\n"), Trace())
    adjoint = run(SIMPLIFIED, differentiate(discrete), Trace())
    trace = Trace()
    run(TO_FUSED, adjoint, trace)
    assert "products" in [name for name, _ in trace.steps]
    assert any(remark.source == "products" for remark in trace.remarks)
