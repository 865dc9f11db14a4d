"""Calls in CUDA graphs: what was captured once and is replayed on new data is what an eager call gives, to the bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from gpu.measure import EXAMPLES, program_of, sizes_of
from torch import Tensor
from torch.testing import assert_close

import scanc
from scanc.interpreter import random_arguments

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

NAMES = ["ema", "gla", "gru", "lru", "gated_conv", "hmm_forward", "mlstm", "selective_ssm"]
LONG = 16384  # steps from which the time of a few channels is split over the chip
CASES = [*((name, 70) for name in NAMES), ("ema", LONG)]


def arguments(name: str, time: int, seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Inputs and params, and initial states, on the GPU."""
    program = program_of(name)
    drawn = random_arguments(program, batch=2, time=time, sizes=sizes_of(program, 16), seed=seed, dtype=torch.float32)
    inputs, params, states = ({key: x.cuda() for key, x in group.items()} for group in drawn)
    return {**inputs, **params}, states


def is_smooth(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def call(name: str, given: dict[str, Tensor], states: dict[str, Tensor], gradients: bool) -> Callable[[], list[Tensor]]:
    """A call that reads the given tensors and returns outputs, final states and, if asked for, all gradients."""
    operator = scanc.load(EXAMPLES / f"{name}.scan", target="triton")
    leaves = [x.requires_grad_() for x in (*given.values(), *states.values()) if gradients and is_smooth(x)]
    generator = torch.Generator("cuda").manual_seed(2)
    cotangents: list[Tensor] = []

    def run() -> list[Tensor]:
        outputs, final = operator(**given, initial_state=states or None, return_state=True)
        results = [*(outputs if isinstance(outputs, tuple) else (outputs,)), *final.values()]
        smooth = [x for x in results if x.requires_grad]
        if not smooth:
            return results
        if not cotangents:
            cotangents.extend(torch.randn(x.shape, generator=generator, device="cuda", dtype=x.dtype) for x in smooth)
        found = torch.autograd.grad(smooth, leaves, cotangents, allow_unused=True)
        return [x.detach() for x in results] + [x for x in found if x is not None]

    return run


@pytest.mark.parametrize("gradients", [False, True], ids=["forward", "with backward"])
@pytest.mark.parametrize(("name", "time"), CASES)
def test_a_replay_is_an_eager_call(name: str, time: int, gradients: bool) -> None:
    given, states = arguments(name, time, seed=0)
    run = call(name, given, states, gradients)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # kernels are compiled and loaded before the capture
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    for seed in (1, 2):
        fresh, fresh_states = arguments(name, time, seed)
        with torch.no_grad():
            for old, new in zip(
                (*given.values(), *states.values()), (*fresh.values(), *fresh_states.values()), strict=True
            ):
                old.copy_(new)
        graph.replay()
        torch.cuda.synchronize()
        replayed = [x.clone() for x in captured]
        assert_close(replayed, run(), rtol=0, atol=0, equal_nan=True)
    assert len(captured) > len(states)
