"""The chunked form: time shared out between programs, forward and backward, against the interpreter."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from codegen_triton.support import Emitted, by_kernels, compare, emit
from interpreter.specs import example, small_arguments
from scanc_runtime.tiling import forced

from scanc.semantics.lower import lower

ADMITTED = ("ema", "selective_ssm", "gla", "mingru", "retnet")


@cache
def emitted(name: str) -> Emitted:
    return emit(example(name))


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANC_POISON", "1")


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", ADMITTED)
def test_values_and_gradients(name: str, reverse: bool) -> None:
    spec = emitted(name)
    with forced(unroll=2, chunks=3):
        arguments = small_arguments(spec.program, time=13)
        found = compare(spec, arguments, dtype=torch.float64, reverse=reverse, form="chunked")
    assert all(error < 1e-12 for error in found.values()), found


@pytest.mark.parametrize("time", [0, 1, 4, 5, 8, 9, 12])
@pytest.mark.parametrize("chunks", [1, 2, 40])
def test_lengths_and_numbers_of_chunks(time: int, chunks: int) -> None:
    spec = emitted("mingru")
    with forced(unroll=4, chunks=chunks):
        found = compare(spec, small_arguments(spec.program, time=time), form="chunked")
    assert all(error < 5e-6 for error in found.values()), found


@pytest.mark.parametrize("reverse", [False, True])
def test_a_complex_state_with_a_real_decay_has_two_real_scans(reverse: bool) -> None:
    text = "scan turn\naxes d\ninput g[d], x[d]: complex\nstate z[d]: complex\nz = sigmoid(g)*z + x\noutput z[d]\n"
    spec = emit(lower(text))
    with forced(unroll=2, chunks=3):
        arguments = small_arguments(spec.program, time=13)
        found = compare(spec, arguments, dtype=torch.float64, reverse=reverse, form="chunked")
    assert all(error < 1e-12 for error in found.values()), found


def test_states_are_read_as_they_lie_in_memory() -> None:
    spec = emit(lower("scan ema\naxes d\ninput g[d], x[d]\nstate h[d]\nh = sigmoid(g)*h + x\noutput h[d]\n"))
    inputs, params, initial = small_arguments(spec.program, time=13)
    turned = {"h": torch.randn(initial["h"].shape[1], initial["h"].shape[0], dtype=torch.float64).T}
    with forced(unroll=2, chunks=3):
        found = compare(spec, (inputs, params, turned), dtype=torch.float64, form="chunked")
    assert all(error < 1e-12 for error in found.values()), found


def test_nothing_carried_stays_nothing_though_decays_overflow() -> None:
    """Gates above 1 whose product over a chunk is infinite, and inputs that only begin in the last chunk."""
    spec = emit(lower("scan grow\naxes d\ninput a[d], x[d]\nstate h[d]\nh = a*h + x\noutput h[d]\n"), segment=32)
    x = torch.zeros(1, 96, 2)
    x[:, 94:] = torch.randn(2, 2)
    a = torch.full((1, 96, 2), 1e3)
    cotangents = {"h": torch.zeros(1, 96, 2)}, {"h": torch.zeros(1, 2)}
    with forced(unroll=4, chunks=3):
        found = by_kernels(spec, {"a": a, "x": x}, {}, {"h": torch.zeros(1, 2)}, *cotangents, False, "chunked")
    assert found.values["h"].isfinite().all()
    assert all(x.isfinite().all() for x in found.gradients.values())


def test_two_runs_are_bitwise_equal() -> None:
    spec = emitted("selective_ssm")
    inputs, params, initial = small_arguments(spec.program, time=13)
    given, final = {"y": torch.randn_like(inputs["x"])}, {"h": torch.randn_like(initial["h"])}
    with forced(unroll=2, chunks=3):
        first, second = (by_kernels(spec, inputs, params, initial, given, final, False, "chunked") for _ in range(2))
    assert all(torch.equal(a, second.gradients[name]) for name, a in first.gradients.items())


@pytest.mark.parametrize("name", ["gru", "lru", "hgrn", "delta_rule", "viterbi", "mlstm"])
def test_other_recurrences_have_no_chunks(name: str) -> None:
    assert emitted(name).functions.forms == ("recurrent",)
