"""The cost model counts what can be counted by hand, and orders the forms as they should be."""

from __future__ import annotations

import pytest
from analysis.bodies import program

from scanc.analysis.cost import CPU, H200, forward_cost
from scanc.ir.nodes import Program
from scanc.passes.pipeline import TO_CLASSIFIED, Trace, run

SIZES = {"i": 4}


def ema() -> Program:
    """y = tanh(h) * x of a moving average with a learned decay."""

    def body(n):  # type: ignore[no-untyped-def]
        h = n.w.map("sigmoid") * n.h + n.x
        return {"h": h, "y": h.map("tanh") * n.x}

    return run(TO_CLASSIFIED, program(body, states={"h": "i"}, inputs={"x": "i"}, params={"w": "i"}), Trace())


def test_fused_moves_arguments_and_results_once() -> None:
    cost = forward_cost(ema(), "recurrent", SIZES, batch=2, time=100, itemsize=4, fused=True)
    size = SIZES["i"]
    assert cost.bytes == 4 * (2 * 100 * 2 * size + size + 2 * 2 * size)
    assert cost.transcendentals == 2 * 100 * size + size  # tanh at every step, sigmoid once
    assert cost.flops == 2 * 100 * (2 * size + size)  # the scan, and the product behind it
    assert cost.state_bytes == 2 * 4 * size
    assert (cost.kernels, cost.steps) == (1, 100)


def test_half_precision_halves_the_tensors_not_the_states() -> None:
    wide, narrow = (forward_cost(ema(), "recurrent", SIZES, 2, 100, itemsize=n, fused=True) for n in (4, 2))
    assert narrow.state_bytes == wide.state_bytes
    assert narrow.bytes < 0.6 * wide.bytes


def test_long_sequences_are_not_stepped_through_on_a_cpu() -> None:
    step, chunked, tree = (
        forward_cost(ema(), form, SIZES, 4, 1024, fused=False).time(CPU)
        for form in ("recurrent", "chunked", "parallel")
    )
    assert chunked < step / 3
    assert tree < step / 3
    assert forward_cost(ema(), "recurrent", SIZES, 4, 1024, fused=False).bound(CPU) == "launches"
    assert forward_cost(ema(), "recurrent", SIZES, 4, 1024, fused=True).bound(H200) == "steps"


def test_chunks_walk_twice_and_take_fewer_calls() -> None:
    step, chunked = (forward_cost(ema(), form, SIZES, 4, 1024, fused=False) for form in ("recurrent", "chunked"))
    size = 4 * SIZES["i"]
    assert step.kernels - chunked.kernels > 800
    assert chunked.bytes - step.bytes == 4 * 1024 * 2 * size + 4 * 1024 * size  # x and h once more, and the decay


def test_wide_states_are_stepped_through_in_every_chunk() -> None:
    kernels = [
        forward_cost(ema(), form, {"i": 1 << 16}, 1, 64, fused=False).kernels for form in ("recurrent", "chunked")
    ]
    assert kernels[0] == kernels[1]


def gated() -> Program:
    """h = a*h + x."""
    return run(
        TO_CLASSIFIED,
        program(lambda n: {"h": n.a * n.h + n.x}, states={"h": "i"}, inputs={"a": "i", "x": "i"}),
        Trace(),
    )


@pytest.mark.parametrize(("time", "width", "milliseconds"), [(1 << 16, 2048, 0.427), (1 << 20, 64, 0.341)])
def test_one_pass_over_memory_is_as_fast_as_it_was_measured(time: int, width: int, milliseconds: float) -> None:
    cost = forward_cost(gated(), "parallel", {"i": width}, 1, time, fused=True)
    assert 1e3 * cost.time(H200) == pytest.approx(milliseconds, rel=0.3)
    once = forward_cost(gated(), "recurrent", {"i": width}, 1, time, fused=True)
    assert once.bytes < cost.bytes < 1.02 * once.bytes
    assert cost.flops == 2 * once.flops
    assert cost.kernels == once.kernels + 1


def test_few_long_sequences_are_worth_one_pass_over_memory() -> None:
    step, once = (
        forward_cost(gated(), form, {"i": 64}, 1, 2048, fused=True).time(H200) for form in ("recurrent", "parallel")
    )
    assert once < step / 10
    step, once = (
        forward_cost(gated(), form, {"i": 64}, 1, 8, fused=True).time(H200) for form in ("recurrent", "parallel")
    )
    assert step < once


def test_nothing_to_do_costs_a_launch() -> None:
    cost = forward_cost(ema(), "recurrent", SIZES, 0, 0, fused=True)
    assert cost.time(H200) < 1e-5
