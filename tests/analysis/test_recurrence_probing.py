"""Classes against Jacobian probing of the interpreter: on written bodies, on generated ones, on the examples."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from analysis.bodies import SIZES, arguments, program
from analysis.probing import Probe, check, is_nonlinear, is_time_varying, laid_out, off_diagonal_rank
from fuzz.programs import Case, cases
from hypothesis import HealthCheck, given, settings
from passes.test_classify import CASES

from scanc.analysis.dependence import state_components
from scanc.analysis.recurrence import RecurrenceClass, facts, recurrence
from scanc.interpreter import random_arguments
from scanc.ir.nodes import Level, Program
from scanc.passes.pipeline import TO_DISCRETE, Trace, run
from scanc.semantics.lower import lower

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
        if found.semiring == "bool":  # no Jacobian; test_classify runs it
            continue
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


EXAMPLES = Path(__file__).parents[2] / "examples"

LABELS = {
    "based": {
        "S0": "identity",
        "S1": "outer product",
        "S2": "outer product",
        "z0": "identity",
        "z1": "identity",
        "z2": "outer product",
    },
    "conv_ema": {"h": "time-invariant"},
    "delta_product": {"S": "DPLR"},
    "delta_rule": {"S": "DPLR"},
    "dense_lti": {"h": "time-invariant"},
    "elman": {"h": "nonlinear"},
    "ema": {"h": "time-invariant"},
    "gated_conv": {},
    "gated_delta_rule": {"S": "DPLR"},
    "gla": {"S": "outer product"},
    "gru": {"h": "nonlinear"},
    "gsa": {"K": "outer product", "V": "outer product"},
    "hgrn": {"h": "diagonal"},
    "hgrn2": {"S": "outer product"},
    "hmm_forward": {"p": "dense"},
    "kalman": {"P": "nonlinear", "mean": "diagonal"},
    "lightning": {"S": "outer product"},
    "linear_attention": {"S": "outer product", "z": "identity"},
    "linear_attention_plain": {"S": "outer product"},
    "lru": {"x": "time-invariant"},
    "lstm": {"c, h": "nonlinear"},
    "mamba2": {"h": "outer product"},
    "mamba3": {"h": "scalar"},
    "mingru": {"h": "diagonal"},
    "minlstm": {"h": "diagonal"},
    "mission": {"h": "diagonal"},
    "mlstm": {"m": "scalar", "C": "outer product", "n": "scalar"},
    "qrnn": {"c": "diagonal"},
    "retnet": {"S": "outer product"},
    "rg_lru": {"h": "diagonal"},
    "rwkv4": {"pp": "time-invariant", "aa": "diagonal", "bb": "diagonal"},
    "rwkv6": {"S": "outer product"},
    "rwkv7": {"S": "DPLR"},
    "s4d": {"h": "time-invariant"},
    "selective_ssm": {"h": "diagonal"},
    "slstm": {"c, n, h, m": "nonlinear"},
    "viterbi": {"p": "dense"},
}


def test_every_example_is_labelled() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.scan")} == set(LABELS)


@pytest.mark.parametrize("name", LABELS)
def test_examples(name: str) -> None:
    text = (EXAMPLES / f"{name}.scan").read_text()
    made = laid_out(run(TO_DISCRETE, lower(text, source=name), Trace()))
    sizes = {axis.name: axis.size or (2 if axis.batch else 6) for axis in made.axes}
    given_sizes = {axis.name: sizes[axis.name] for axis in made.axes if axis.size is None and axis.like is None}
    inputs, params, initial = random_arguments(made, batch=1, time=1, sizes=given_sizes, seed=1)
    again, _, later = random_arguments(made, batch=1, time=1, sizes=given_sizes, seed=2)
    labels = {}
    for group, found in classes(made).items():
        if found.transition != "delay":
            labels[", ".join(group)] = found.label
        here = Probe(made, group, sizes, inputs, params, {n: x for n, x in initial.items() if n not in group})
        elsewhere = here.with_other_inputs(again, {n: x for n, x in later.items() if n not in group})
        check(found, here, elsewhere)
        if found.transition == "nonlinear":
            assert is_nonlinear(here)
        elif found.semiring == "real" and found.transition != "delay":
            assert is_time_varying(here, elsewhere) is not (found.time_invariant or found.transition == "identity")
        if found.transition == "dplr":
            assert found.rank is not None
            assert off_diagonal_rank(here, *found.acts) == found.rank.of(sizes)
    assert labels == LABELS[name]
