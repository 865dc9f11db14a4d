"""Every pass keeps the meaning of every program, and the adjoint of every program is its gradient."""

from __future__ import annotations

import torch
from fuzz.programs import Case, cases
from hypothesis import given, settings

from scanc.interpreter import interpret
from scanc.ir.nodes import Program
from scanc.ir.printer import print_program
from scanc.ir.reader import read_program
from scanc.passes.differentiate import differentiate
from scanc.passes.pipeline import SIMPLIFIED, TO_CLASSIFIED, TO_DISCRETE, Trace, run
from scanc.passes.realify import REALIFY
from tests.passes.adjoint_support import gradients_by_adjoint, gradients_by_autograd

FEW = settings(max_examples=60, deadline=None)


def lowered(typed: Program) -> tuple[Trace, Program]:
    """Every program on the way down, and the discrete one."""
    trace = Trace()
    discrete = run(TO_DISCRETE, trace.record("typed", typed), trace)
    run(TO_CLASSIFIED, discrete, trace)
    return trace, discrete


@FEW
@given(cases())
def test_every_pass_keeps_the_meaning(case: Case) -> None:
    inputs, params, initial = case.arguments()
    expected, expected_final = interpret(case.program, inputs, params, initial)
    trace, _ = lowered(case.program)
    for name, program in trace.steps:
        outputs, final = interpret(program, inputs, params, initial)
        for got, wanted in ((outputs, expected), (final, expected_final)):
            assert got.keys() == wanted.keys(), name
            for key, value in wanted.items():
                torch.testing.assert_close(got[key], value, rtol=1e-9, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")


@FEW
@given(cases())
def test_text_of_every_level_reads_back(case: Case) -> None:
    trace, discrete = lowered(case.program)
    for _, program in [*trace.steps, ("adjoint", differentiate(discrete))]:
        assert read_program(print_program(program)) == program


@FEW
@given(cases(times=(1, 2, 4)))
def test_the_adjoint_is_the_gradient_at_every_level(case: Case) -> None:
    inputs, params, initial = case.arguments()
    _, discrete = lowered(case.program)
    outputs, final = interpret(discrete, inputs, params, initial)
    full = {**final, **initial}
    given_ = {n: torch.randn_like(y) for n, y in outputs.items()}
    last = {n: torch.randn_like(s) for n, s in final.items()}
    expected = gradients_by_autograd(discrete, inputs, params, full, given_, last)
    trace = Trace()
    adjoint = run(SIMPLIFIED, trace.record("differentiate", differentiate(discrete)), trace)
    run(TO_CLASSIFIED, adjoint, trace)
    for name, program in trace.steps:
        got = gradients_by_adjoint(discrete, program, inputs, params, full, given_, last)
        for key, value in got.items():
            wanted = expected.get(key)
            if wanted is not None:
                torch.testing.assert_close(value, wanted, rtol=1e-8, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


@FEW
@given(cases())
def test_realify_gives_back_a_real_program_of_the_same_size(case: Case) -> None:
    _, discrete = lowered(case.program)
    real, _ = REALIFY.run(discrete)
    assert all(type_.kind != "complex" for type_ in real.types.values())
