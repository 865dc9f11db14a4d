"""powers: exp of a parameter times a value becomes a power of two, and nothing else does."""

from __future__ import annotations

import pytest
import torch

from scanc.interpreter import interpret, random_arguments
from scanc.ir.nodes import Instr, Map, Program, RegionKind
from scanc.passes.pipeline import TO_DISCRETE, TO_FUSED, Trace, run
from scanc.semantics.lower import lower

HEAD = "scan s\naxes d, n\ninput x[d], g[d]\nparam A[d,n], p[d]\nstate h[d,n]\n"


def fused(body: str) -> tuple[Program, Program]:
    discrete = run(TO_DISCRETE, lower(f"{HEAD}{body}\noutput h[d,n]\n"), Trace())
    return discrete, run(TO_FUSED, discrete, Trace())


def powers(program: Program) -> list[Instr]:
    return [instr for instr in program.instrs if instr.op == Map("exp2")]


@pytest.mark.parametrize("body", ["h = exp(x*A)*h + g", "h = exp(A*x)*h + g", "h = exp(-softplus(g)*A)*h + x*exp(p*g)"])
def test_the_factor_goes_to_the_parameter(body: str) -> None:
    discrete, program = fused(body)
    assert powers(program)
    fixed = {i.name for r in program.regions if r.kind is RegionKind.PARAMS for i in r.instrs}
    for power in powers(program):
        (product,) = (instr for instr in program.instrs if instr.name == power.args[0])
        assert fixed.intersection(product.args)
    inputs, params, initial = random_arguments(discrete, batch=2, time=5, sizes={"d": 3, "n": 2}, dtype=torch.float64)
    wanted, _ = interpret(discrete, inputs, params, initial)
    found, _ = interpret(program, inputs, params, initial)
    torch.testing.assert_close(found["h"], wanted["h"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "body", ["h = exp(x*g)*h + p", "h = exp(g)*h + p", "h = exp(p*A)*h + x", "h = exp(x + A)*h + g"]
)
def test_other_exponentials_stay(body: str) -> None:
    assert not powers(fused(body)[1])


def test_what_nobody_reads_is_gone() -> None:
    _, program = fused("h = exp(x*A)*h + g")
    read = {arg for instr in program.instrs for arg in instr.args} | {value for _, value in program.next}
    read |= {output.value for output in program.outputs}
    assert all(instr.name in read for instr in program.instrs)
