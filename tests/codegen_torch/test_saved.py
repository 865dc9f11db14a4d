"""The memory that forward keeps for backward, as `docs/generated-code.md` states it."""

from math import prod

import pytest
import torch
from codegen_torch.modules import Module, example
from scanc_runtime import segments

WIDTHS = {"ema": {"d": 5}, "lru": {"n": 3, "d": 4}, "s4d": {"d": 3, "n": 2}, "selective_ssm": {"d": 4, "n": 3}}


def kept_bytes(module: Module, time: int, sizes: dict[str, int], batch: int = 2) -> int:
    """Bytes of what autograd holds of a call in fp32, arguments aside, each piece of memory once."""
    groups = module.arguments(batch=batch, time=time, sizes=sizes)
    inputs, params, states = (
        {n: t.to(torch.complex64 if t.is_complex() else torch.float32).requires_grad_() for n, t in group.items()}
        for group in groups
    )
    given = {t.untyped_storage().data_ptr() for group in (inputs, params, states) for t in group.values()}
    held: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in given:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        results = module.operator(**inputs, **params, initial_state=states)
    assert next(iter(results if isinstance(results, tuple) else (results,))).requires_grad
    return sum(held.values())


def state_bytes(module: Module, sizes: dict[str, int]) -> int:
    """Bytes of all states of one sequence at one step."""
    states = module.operator.spec.states
    return sum(prod(sizes[axis] for axis in s.axes) * (8 if s.kind == "complex" else 4) for s in states)


@pytest.mark.parametrize("name", WIDTHS)
def test_a_short_call_keeps_every_state(name: str) -> None:
    """4 bytes a state and step, 8 if it is complex, and the first state."""
    module, sizes = example(name), WIDTHS[name]
    for time in (24, 57):
        assert kept_bytes(module, time, sizes) == 2 * (time + 1) * state_bytes(module, sizes)


@pytest.mark.parametrize("name", WIDTHS)
def test_more_numbers_than_are_worth_keeping(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, sizes = example(name), WIDTHS[name]
    numbers = 2 * 24 * sum(prod(sizes[axis] for axis in state.axes) for state in module.operator.spec.states)
    monkeypatch.setattr(segments, "_KEPT", numbers)
    assert kept_bytes(module, 24, sizes) == 2 * 25 * state_bytes(module, sizes)
    assert kept_bytes(module, 25, sizes) == 0


@pytest.mark.parametrize("name", WIDTHS)
def test_a_long_call_keeps_the_states_between_segments(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "_BUDGET", 1)
    module, sizes = example(name), WIDTHS[name]
    for time, between in ((33, 2), (80, 4)):
        assert kept_bytes(module, time, sizes) == 2 * between * state_bytes(module, sizes)


def test_a_memory_keeps_what_segments_begin_with(monkeypatch: pytest.MonkeyPatch) -> None:
    module, sizes = example("gla"), {"h": 2, "i": 3, "j": 4}
    assert kept_bytes(module, 24, sizes) == 0
    monkeypatch.setattr(segments, "_BUDGET", 1)
    assert kept_bytes(module, 33, sizes) == 2 * 2 * state_bytes(module, sizes)


def test_the_limits_themselves() -> None:
    """Segments of 2²⁴ numbers: 204 steps of 5 numbers a channel, at 4 x 4096 channels."""
    module, sizes = example("ema"), {"d": 4096}
    assert kept_bytes(module, 204, sizes, 4) == 4 * 4 * 205 * 4096
    assert kept_bytes(module, 205, sizes, 4) == 4 * 4 * 4096
