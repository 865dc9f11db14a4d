"""Bounds hold for every value of generated programs, and are tight where a form relies on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace as Names

import pytest
import torch
from analysis.bodies import Value, program
from fuzz.programs import Case, cases
from hypothesis import given, settings

from scanc.analysis.sign import UNIT, Interval, bounds
from scanc.interpreter import interpret
from scanc.ir.nodes import Kind, Level, Output


@settings(max_examples=80, deadline=None)
@given(cases(level=Level.DISCRETE, times=(1, 3)))
def test_every_value_lies_within_its_bounds(case: Case) -> None:
    instrs = [i for i in case.program.instrs if i.type.kind is not Kind.BOOL]
    shown = tuple(Output(f"v.{i.name}", i.name, tuple((a,) for a in i.type.axes)) for i in instrs)
    values, _ = interpret(replace(case.program, outputs=shown), *case.arguments())
    known = bounds(case.program.instrs, case.program.types)
    for instr in instrs:
        value, bound = values[f"v.{instr.name}"], known[instr.name]
        real = value.real if value.is_complex() else value
        slack = 1e-9 * (1 + float(value.abs().max()))
        assert bool((real >= bound.real.low - slack).all()), instr
        assert bool((real <= bound.real.high + slack).all()), instr
        assert bool((value.abs() <= bound.size.high + slack).all()), instr
        assert bool((value.abs() >= bound.size.low - slack).all()), instr


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda n: n.x.map("sigmoid"), UNIT),
        (lambda n: n.x.map("neg").map("exp").map("neg").map("exp"), UNIT),
        (lambda n: n.x.map("softplus").map("neg").map("exp"), UNIT),
        (lambda n: n.x.map("logsigmoid"), Interval(-torch.inf, 0.0)),
        (lambda n: n.x.map("sigmoid").map("sub", 1.0).map("neg"), UNIT),
        (lambda n: n.x * n.x, Interval(0.0, torch.inf)),
        (lambda n: n.x.map("maximum", -1.0).map("minimum", 1.0), Interval(-1.0, 1.0)),
        (lambda n: n.x.map("exp"), Interval(0.0, torch.inf)),
    ],
)
def test_what_decays_rely_on(make: Callable[[Names], Value], expected: Interval) -> None:
    made = program(lambda n: {"h": n.h, "y": make(n)}, states={"h": "i"}, inputs={"x": "i"})
    assert bounds(made.instrs, made.types)[made.outputs[0].value].real == expected


def test_a_polar_number_is_as_large_as_its_radius() -> None:
    def polar(n: Names) -> Value:
        radius = n.x.map("sigmoid")
        return (radius * n.k.map("cos")).map("complex", radius * n.k.map("sin"))

    made = program(lambda n: {"h": n.h, "y": polar(n)}, states={"h": "i"}, inputs={"x": "i", "k": "i"})
    assert bounds(made.instrs, made.types)[made.outputs[0].value].size == UNIT
