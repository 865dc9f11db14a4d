"""Folded tiles: every way to share two axes out between threads, steps done in turns, sums that end in a lane each."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from codegen_triton.support import Emitted, by_kernels, compare, cotangents, emit
from interpreter.specs import example, small_arguments
from scanc_runtime.tiling import forced

from scanc.interpreter import random_arguments
from scanc.semantics.lower import lower

FOLDED = ("selective_ssm", "gla", "mlstm", "mamba2", "delta_rule", "s4d", "linear_attention")


@cache
def emitted(name: str) -> Emitted:
    return emit(example(name))


def axes(name: str) -> list[str]:
    """The folded axes of a spec's kernels."""
    lines = [line for line in emitted(name).functions.source.splitlines() if "folds=(" in line]
    found = {axis for line in lines for axis in line.split("(")[1].split(")")[0].replace('"', "").split(", ") if axis}
    return sorted(axis.strip(", ") for axis in found)


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANC_POISON", "1")


@pytest.mark.parametrize("unroll", [1, 2, 4])
@pytest.mark.parametrize("lanes", [1, 2, 4])
@pytest.mark.parametrize("name", [name for name in FOLDED if name != "mamba2"])
def test_lanes_and_turns(name: str, lanes: int, unroll: int) -> None:
    spec = emitted(name)
    assert axes(name)
    with forced(lanes=dict.fromkeys(axes(name), lanes), unroll=unroll):
        found = compare(spec, small_arguments(spec.program, time=11), dtype=torch.float64, reverse=lanes == 2)
    assert all(error < 1e-11 for error in found.values()), found


@pytest.mark.parametrize("lanes", [2, 4])
@pytest.mark.parametrize("name", ["selective_ssm", "gla"])
def test_chunks_in_turns(name: str, lanes: int) -> None:
    spec = emitted(name)
    with forced(lanes=dict.fromkeys(axes(name), lanes), unroll=2, chunks=3):
        found = compare(spec, small_arguments(spec.program, time=13), dtype=torch.float64, form="chunked")
    assert all(error < 1e-11 for error in found.values()), found


RERUN_ALONE = {
    "no other row": "S = tanh(S) + k + v\noutput S[i, j]\n",
    "another row": "y = x * S\nS = tanh(S) + 2*k + v\noutput y[i, j]\n",
}


@pytest.mark.parametrize("lanes", [1, 2, 4])
@pytest.mark.parametrize("body", RERUN_ALONE.values(), ids=RERUN_ALONE.keys())
def test_rows_that_the_rerun_alone_reads(body: str, lanes: int) -> None:
    spec = emit(lower(f"scan rerun\naxes i, j\ninput k[i], v[j], x[i]\nstate S[i, j]\n{body}"))
    arguments = random_arguments(spec.program, batch=2, time=11, sizes={"i": 5, "j": 6}, dtype=torch.float64)
    for unroll in (2, 4):
        with forced(lanes={"i": lanes, "j": lanes}, unroll=unroll):
            found = compare(spec, arguments, dtype=torch.float64)
        assert all(error < 1e-11 for error in found.values()), found


def test_two_runs_are_bitwise_equal() -> None:
    spec = emitted("selective_ssm")
    inputs, params, initial = small_arguments(spec.program, time=13)
    with forced(lanes={"n": 2}, unroll=4):
        plain = by_kernels(spec, inputs, params, initial, *zeros(spec, inputs, initial), False)
        given, final = cotangents(spec.program, plain.values)
        first, second = (by_kernels(spec, inputs, params, initial, given, final, False) for _ in range(2))
    assert all(torch.equal(a, second.gradients[name]) for name, a in first.gradients.items())


def zeros(spec: Emitted, inputs: dict, initial: dict) -> tuple[dict, dict]:
    return {"y": torch.zeros_like(inputs["x"])}, {"h": torch.zeros_like(initial["h"])}


STATES_BESIDE = {
    "a normaliser": "S = a*S + k*v\nn = a*n + k\no = sum[j](S)*k\noutput o[i], n[i]\n",
    "a total that is read": "S = 0.9*S + k*v\nn = n + a\no = sum[j](S)*n\noutput o[i]\n",
    "the past of a row": "w = prev(k, 1)\nS = a*S + w*v\no = sum[j](S)*w\noutput o[i]\n",
}


@pytest.mark.parametrize("lanes", [2, 4])
@pytest.mark.parametrize("body", STATES_BESIDE.values(), ids=STATES_BESIDE.keys())
def test_states_along_the_outer_axis(body: str, lanes: int) -> None:
    """Their next values are those of the step, whatever leaves by turns beside them."""
    n = ", n[i]" if "n =" in body else ""
    spec = emit(lower(f"scan beside\naxes i, j\ninput k[i], v[j], a[i]\nstate S[i,j]{n}\n{body}"))
    given = random_arguments(spec.program, batch=2, time=11, sizes={"i": 5, "j": 8}, dtype=torch.float64)
    with forced(lanes={"i": 4, "j": lanes}, unroll=4):
        found = compare(spec, given, dtype=torch.float64)
    assert all(error < 1e-11 for error in found.values()), found
