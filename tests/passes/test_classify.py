"""classify keeps the meaning, and turns into scans what is affine element by element."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace as Names

import pytest
import torch
from analysis.bodies import Value, outputs, program, stack
from fuzz.programs import Case, cases
from hypothesis import HealthCheck, given, settings

from scanc.interpreter import interpret, random_arguments
from scanc.ir.levels import verify
from scanc.ir.nodes import Program, RegionKind
from scanc.passes.classify import CLASSIFY, classes
from scanc.passes.differentiate import differentiate
from scanc.passes.hoist import HOIST
from scanc.passes.pipeline import TO_CLASSIFIED, TO_DISCRETE, Trace, run
from scanc.passes.stage import STAGE


def classified(made: Program) -> tuple[Program, str, str]:
    """The classified program, and label and description of its stages, joined by ` | `."""
    staged, _ = STAGE.run(made)
    staged, _ = HOIST.run(staged)
    verify(staged)
    found = classes(staged)
    result, remarks = CLASSIFY.run(staged)
    verify(result)
    assert len(remarks) == len(found)
    return result, " | ".join(c.label for _, c in found), " | ".join(c.describe() for _, c in found)


def kinds(made: Program) -> list[RegionKind]:
    return [region.kind for region in made.regions if region.states]


def assert_same(before: Program, after: Program) -> None:
    expected, got = outputs(before), outputs(after)
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-12, atol=1e-12, msg=name)


HIJ = {"q": "h i", "k": "h i", "v": "h j", "g": "h i", "a": "h", "beta": "h", "x": "i", "u": "h j", "b": "h i j"}


def ema(n: Names) -> Mapping[str, Value]:
    return {"h": n.w.map("sigmoid") * n.h + n.x}


def lerp(n: Names) -> Mapping[str, Value]:
    z = n.x.map("sigmoid")
    moved = n.h + z * (n.x - n.h)
    return {"h": moved, "y": moved * n.x}


def gla(n: Names) -> Mapping[str, Value]:
    s = n.g.map("exp") * n.S + n.k * n.v
    return {"S": s, "o": n.q.dot(s, "i")}


def rwkv6(n: Names) -> Mapping[str, Value]:
    kv = n.k * n.v
    o = n.q.dot(n.S + n.w * kv, "i")
    return {"S": n.g.map("exp") * n.S + kv, "o": o}


def mamba(n: Names) -> Mapping[str, Value]:
    step = n.x.map("softplus")
    s = (step * n.w).map("exp") * n.S + (step * n.x) * n.v
    return {"S": s, "o": n.v.dot(s, "j")}


def delta(n: Names) -> Mapping[str, Value]:
    s = n.g.map("exp") * n.S
    s = s + n.beta * (n.k * (n.v - n.k.dot(s, "i")))
    return {"S": s, "o": n.q.dot(s, "i")}


def delta_two(n: Names) -> Mapping[str, Value]:
    s = n.g.map("exp") * n.S
    for k in (n.k, n.q):
        s = s + n.beta * (k * (n.v - k.dot(s, "i")))
    return {"S": s, "o": n.q.dot(s, "i")}


def running_max(n: Names) -> Mapping[str, Value]:
    return {"h": (n.x + n.h).map("maximum", n.x * n.x), "y": n.h - n.x}


def reset(n: Names) -> Mapping[str, Value]:
    kept = n.flag.map("where", n.h, n.x)
    return {"h": n.w * kept - n.x / (n.w * n.w + 1.0), "y": kept}


def rotation(n: Names) -> Mapping[str, Value]:
    c, s = n.x.map("cos"), n.x.map("sin")
    return {"h": c * n.h - s * n.c, "c": s * n.h + c * n.c + n.x}


def repeated(n: Names) -> Mapping[str, Value]:
    parts = [n.h.at("p", i) * n.x + n.y.at("p", i) for i in range(2)]
    return {"h": stack("p", *parts)}


def shifted(n: Names) -> Mapping[str, Value]:
    return {"h": stack("p", n.x, n.h.at("p", 0))}


def two_stages(n: Names) -> Mapping[str, Value]:
    m = (n.m + n.x).map("maximum", n.y)
    h = (n.x + n.m - m).map("exp") * n.h + (n.y - m).map("exp")
    return {"m": m, "h": h, "o": h * n.x}


def reached(n: Names) -> Mapping[str, Value]:
    return {"h": n.h.map("and", n.flag).map("or", n.other)}


def summed(n: Names) -> Mapping[str, Value]:
    """The sum runs over an axis that the state lacks."""
    return {"h": (n.b * n.h).sum("j") - (n.h - n.x) * 0.5}


def swapped(n: Names) -> Mapping[str, Value]:
    """There and back by rename is the element itself."""
    return {"h": (n.h.rename("i", "m") * n.x.rename("i", "m")).rename("m", "i") + n.x}


def transposed(n: Names) -> Mapping[str, Value]:
    """h[m, i] is another element than h[i, m]."""
    turned = n.h.rename("i", "j").rename("m", "i").rename("j", "m")
    return {"h": turned * 0.5 + n.x}


def complex_decay(n: Names) -> Mapping[str, Value]:
    return {"h": n.a * n.h + n.x, "y": n.h.map("real") * n.x}


def conjugated(n: Names) -> Mapping[str, Value]:
    return {"h": n.h.map("conj") * n.a + n.x}


def low_rank(n: Names) -> Mapping[str, Value]:
    """Σ_r u[r, i] (w[r, i'] h[i']): rank size(r), no factor holds both sides."""
    read = n.w.dot(n.h, "i")
    return {"h": n.x * n.h + n.u.dot(read, "r")}


CASES = {
    "ema": (ema, {"h": "i"}, {"x": "i"}, {"w": "i"}, "time-invariant",
            "diagonal over i, the same at every step, decay in [0, 1]; writes elementwise"),
    "lerp": (lerp, {"h": "i"}, {"x": "i"}, {}, "diagonal",
             "diagonal over i, input-dependent, decay in [0, 1]; writes elementwise"),
    "gla": (gla, {"S": "h i j"}, HIJ, {}, "outer product",
            "diagonal over i, input-dependent, growth possible; writes an outer product over (i; j); "
            "read-out contracts i"),
    "rwkv6": (rwkv6, {"S": "h i j"}, HIJ, {"w": "h i"}, "outer product",
              "diagonal over i, input-dependent, growth possible; writes an outer product over (i; j); "
              "read-out contracts i"),
    "mamba": (mamba, {"S": "i j"}, {"x": "i", "v": "j"}, {"w": "i j"}, "diagonal",
              "diagonal over i, j (not separable), input-dependent, growth possible; "
              "writes an outer product over (i; j); read-out contracts j"),
    "delta": (delta, {"S": "h i j"}, HIJ, {}, "DPLR",
              "diagonal plus rank 1 over i, input-dependent; writes an outer product over (i; j); "
              "read-out contracts i"),
    "delta_two": (delta_two, {"S": "h i j"}, HIJ, {}, "DPLR",
                  "diagonal plus rank 2 over i, input-dependent; writes an outer product over (i; j); "
                  "read-out contracts i"),
    "running_max": (running_max, {"h": "i"}, {"x": "i"}, {}, "diagonal",
                    "diagonal over i over max-plus, input-dependent; writes elementwise"),
    "reset": (reset, {"h": "i"}, {"x": "i", "flag": ":bool"}, {"w": "i"}, "diagonal",
              "diagonal over i, input-dependent, growth possible; writes elementwise"),
    "rotation": (rotation, {"h": "i", "c": "i"}, {"x": "i"}, {}, "dense",
                 "dense between h, c, input-dependent; writes elementwise"),
    "repeated": (repeated, {"h": "i p"}, {"x": "i", "y": "i p"}, {}, "diagonal",
                 "diagonal over i, p (not separable), input-dependent, growth possible; writes elementwise"),
    "shifted": (shifted, {"h": "i p"}, {"x": "i"}, {}, "delay", "shift over p; writes elementwise"),
    "two_stages": (two_stages, {"m": "h", "h": "h"}, {"x": "h", "y": "h"}, {}, "scalar | scalar",
                   "scalar over max-plus, input-dependent; writes elementwise | "
                   "scalar, input-dependent, growth possible; writes elementwise"),
    "delay": (lambda n: {"h": n.x, "c": n.h, "y": n.h + n.c}, {"h": "i", "c": "i"}, {"x": "i"}, {}, "delay | delay",
              "delay: the next value does not read the state | delay: the next value does not read the state"),
    "kept": (lambda n: {"h": n.h, "y": n.h + n.x}, {"h": "i"}, {"x": "i"}, {}, "identity",
             "identity; writes nothing"),
    "cumsum": (lambda n: {"h": n.h + n.x}, {"h": "i"}, {"x": "i"}, {}, "identity", "identity; writes elementwise"),
    "elman": (lambda n: {"h": (n.W.dot(n.h.rename("n", "n_col"), "n_col") + n.x).map("tanh")}, {"h": "n"}, {"x": "n"},
              {"W": "n n_col"}, "nonlinear", "nonlinear, its Jacobian mixes n"),
    "gate": (lambda n: {"h": (n.x * n.h).map("sigmoid") * n.h + n.x}, {"h": "i"}, {"x": "i"}, {}, "nonlinear",
             "nonlinear, its Jacobian is diagonal"),
    "log": (lambda n: {"h": (n.x + n.h).map("logaddexp", n.w)}, {"h": "i"}, {"x": "i"}, {"w": "i"}, "diagonal",
            "diagonal over i over logaddexp, input-dependent; writes elementwise"),
    "softplus": (lambda n: {"h": (n.h - n.x).map("softplus")}, {"h": "i"}, {"x": "i"}, {}, "diagonal",
                 "diagonal over i over logaddexp, input-dependent; writes elementwise"),
    "relu": (lambda n: {"h": (n.h + n.x).map("relu")}, {"h": "i"}, {"x": "i"}, {}, "diagonal",
             "diagonal over i over max-plus, input-dependent; writes elementwise"),
    "running_min": (lambda n: {"h": n.h.map("minimum", n.x)}, {"h": "i"}, {"x": "i"}, {}, "identity",
                    "identity over min-plus; writes elementwise"),
    "reached": (reached, {"h": "i:bool"}, {"flag": ":bool", "other": "i:bool"}, {}, "scalar",
                "scalar over boolean, input-dependent; writes elementwise"),
    "summed": (summed, {"h": "i"}, {"x": "i", "b": "i j"}, {}, "diagonal",
               "diagonal over i, input-dependent, growth possible; writes elementwise"),
    "swapped": (swapped, {"h": "i"}, {"x": "i"}, {}, "diagonal",
                "diagonal over i, input-dependent, growth possible; writes elementwise"),
    "transposed": (transposed, {"h": "i m"}, {"x": "i m"}, {}, "time-invariant",
                   "dense over i, m, the same at every step; writes elementwise"),
    "complex_decay": (complex_decay, {"h": "i:complex"}, {"x": "i"}, {"a": "i:complex"}, "time-invariant",
                      "diagonal over i, the same at every step, growth possible; writes elementwise"),
    "conjugated": (conjugated, {"h": "i:complex"}, {"x": "i"}, {"a": "i:complex"}, "nonlinear",
                   "nonlinear, its Jacobian is diagonal"),
    "low_rank": (low_rank, {"h": "i"}, {"x": "i", "u": "i r", "w": "i r"}, {}, "DPLR",
                 "diagonal plus rank size(r) over i, input-dependent; writes nothing"),
    "dense": (lambda n: {"h": n.W.dot(n.h.rename("n", "n_col"), "n_col") + n.x}, {"h": "n"}, {"x": "n"},
              {"W": "n n_col"}, "time-invariant", "dense over n, the same at every step; writes elementwise"),
}  # fmt: skip

SCANNED = {
    "log",
    "softplus",
    "relu",
    "running_min",
    "reached",
    "summed",
    "swapped",
    "complex_decay",
    "ema",
    "lerp",
    "gla",
    "rwkv6",
    "mamba",
    "running_max",
    "reset",
    "repeated",
    "two_stages",
    "kept",
    "cumsum",
}


@pytest.mark.parametrize("case", CASES)
def test_class_and_meaning(case: str) -> None:
    body, states, inputs, params, label, described = CASES[case]
    made = program(body, states=states, inputs=inputs, params=params)
    result, labels, words = classified(made)
    assert (labels, words) == (label, described)
    assert_same(made, result)
    expected = RegionKind.SCAN if case in SCANNED else RegionKind.DELAY if case == "delay" else RegionKind.LOOP
    assert set(kinds(result)) == {expected}


FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@FEW
@given(cases())
def test_generated_programs_keep_their_meaning(case: Case) -> None:
    """typed → classified, on programs with every manner of state."""
    inputs, params, initial = case.arguments()
    result = run(TO_CLASSIFIED, run(TO_DISCRETE, case.program, Trace()), Trace())
    expected, final = interpret(case.program, inputs, params, initial)
    got, last = interpret(result, inputs, params, initial)
    for before, after in ((expected, got), (final, last)):
        assert before.keys() == after.keys()
        for name, value in before.items():
            torch.testing.assert_close(after[name], value, rtol=1e-9, atol=1e-9)


@FEW
@given(cases(times=(1, 3)))
def test_generated_adjoints_keep_their_meaning(case: Case) -> None:
    adjoint = differentiate(run(TO_DISCRETE, case.program, Trace()))
    result = run(TO_CLASSIFIED, adjoint, Trace())
    inputs, params, initial = random_arguments(
        adjoint, batch=case.batch, time=case.time, sizes=case.sizes, seed=case.seed
    )
    expected, final = interpret(adjoint, inputs, params, initial, reverse=True)
    got, last = interpret(result, inputs, params, initial, reverse=True)
    for name, value in {**expected, **final}.items():
        scale = 1 + float(value.abs().max()) if value.numel() else 1.0
        torch.testing.assert_close({**got, **last}[name] / scale, value / scale, rtol=1e-9, atol=1e-9)
