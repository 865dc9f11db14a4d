"""Classes against Jacobian probing of the interpreter: on written bodies, on generated ones, on the examples."""

from __future__ import annotations

import torch
from analysis.bodies import SIZES, arguments, program
from analysis.probing import Probe, check, is_nonlinear, is_time_varying, laid_out, off_diagonal_rank
from fuzz.programs import Case, cases
from hypothesis import HealthCheck, given, settings
from passes.test_classify import CASES

import pytest

from scanc.analysis.dependence import state_components
from scanc.analysis.recurrence import RecurrenceClass, facts, recurrence
from scanc.ir.nodes import Level, Program

Tensors = dict[str, torch.Tensor]


def classes(made: Program) -> dict[tuple[str, ...], RecurrenceClass]:
    known = facts(made)
    return {part.states: recurrence(known, part.states) for part in state_components(made)}


def probes(made: Program, states: tuple[str, ...]) -> tuple[Probe, Probe]:
    """The same step on two draws of inputs and of the other states, with the same params."""
    plain = laid_out(made)
    inputs, params, initial = arguments(plain, time=1, seed=5)
    others = {name: x for name, x in initial.items() if name not in states}
    here = Probe(plain, states, SIZES, inputs, params, others)
    inputs, _, initial = arguments(plain, time=1, seed=6)
    return here, here.with_other_inputs(inputs, {n: x for n, x in initial.items() if n not in states})


@pytest.mark.parametrize("case", CASES)
def test_written_bodies(case: str) -> None:
    body, states, inputs, params, *_ = CASES[case]
    made = program(body, states=states, inputs=inputs, params=params)
    for group, found in classes(made).items():
        here, elsewhere = probes(made, group)
        check(found, here, elsewhere)
        if found.transition == "nonlinear":
            assert is_nonlinear(here)
            assert found.blame is not None
        elif found.semiring == "real":
            assert not is_nonlinear(here)
            assert is_time_varying(here, elsewhere) is not (found.time_invariant or found.transition == "delay")
        if found.transition == "dplr":
            assert off_diagonal_rank(here, *found.acts) == found.rank.of(SIZES)  # type: ignore[union-attr]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases(level=Level.DISCRETE, times=(1,)))
def test_generated_bodies(case: Case) -> None:
    made = laid_out(case.program)
    sizes = {"m": case.sizes.get("i", 0), **{a.name: a.size for a in made.axes if a.size is not None}, **case.sizes}
    inputs, params, _ = case.arguments(time=1)
    inputs = {name: x[:1] for name, x in inputs.items()}
    g = torch.Generator().manual_seed(case.seed)

    def states() -> Tensors:
        return {
            s.name: 0.5 * torch.randn(
                (1, *(sizes[a] for a in s.type.axes)), generator=g,
                dtype=torch.complex128 if s.type.kind == "complex" else torch.float64,
            )
            for s in made.states
        }  # fmt: skip

    for group, found in classes(made).items():
        held, again = states(), states()
        here = Probe(made, group, sizes, inputs, params, {n: x for n, x in held.items() if n not in group})
        other = {n: -0.7 * x if x.is_floating_point() or x.is_complex() else x for n, x in inputs.items()}
        check(found, here, here.with_other_inputs(other, {n: x for n, x in again.items() if n not in group}))
