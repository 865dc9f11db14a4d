"""Generated kernels against the interpreter in fp64: values and gradients, initial and final states included."""

from __future__ import annotations

import pytest
import torch
from codegen_triton.support import Emitted, by_kernels, compare, emit
from interpreter.specs import NAMES, example, small_arguments
from scanc_runtime.errors import ArgumentError
from scanc_runtime.tiling import forced, watched

from scanc.interpreter import random_arguments

TOLERANCE = {torch.float32: 5e-6, torch.float64: 1e-12, torch.bfloat16: 2e-2}
_emitted: dict[str, Emitted] = {}


def emitted(name: str) -> Emitted:
    if name not in _emitted:
        _emitted[name] = emit(example(name))
    return _emitted[name]


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANC_POISON", "1")


def check(found: dict[str, float], dtype: torch.dtype) -> None:
    wrong = {name: error for name, error in found.items() if not error < TOLERANCE[dtype]}
    assert not wrong


@pytest.mark.parametrize("name", NAMES)
def test_every_example(name: str) -> None:
    spec = emitted(name)
    check(compare(spec, small_arguments(spec.program, time=5)), torch.float32)


@pytest.mark.parametrize("name", ["gla", "gru", "lru", "mlstm", "hmm_forward"])
def test_in_double_precision_and_reverse(name: str) -> None:
    spec = emitted(name)
    check(compare(spec, small_arguments(spec.program, time=6), dtype=torch.float64, reverse=True), torch.float64)


@pytest.mark.parametrize("name", ["ema", "gla", "selective_ssm"])
def test_half_precision_inputs(name: str) -> None:
    spec = emitted(name)
    check(compare(spec, small_arguments(spec.program, time=5), dtype=torch.bfloat16), torch.bfloat16)


@pytest.mark.parametrize("time", [0, 1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("name", ["gla", "conv_ema", "gru"])
def test_lengths_around_a_segment(name: str, time: int) -> None:
    spec = emitted(name)
    check(compare(spec, small_arguments(spec.program, time=time)), torch.float32)


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_batches(batch: int) -> None:
    spec = emitted("gated_delta_rule")
    check(compare(spec, small_arguments(spec.program, batch=batch)), torch.float32)


@pytest.mark.parametrize(
    ("name", "sizes", "blocks", "programs"),
    [
        ("gla", (2, 5, 5), {"i": 2, "j": 4}, 12),
        ("rwkv6", (2, 3, 3), {"i": 1, "j": 2}, 12),
        ("delta_rule", (2, 3, 5), {"j": 2}, 6),
        ("selective_ssm", (3, 5), {"d": 2, "n": 2}, 6),
        ("mamba2", (2, 3, 3, 2), {"n": 4, "p": 2}, 12),
        ("s4d", (3, 7), {"d": 2}, 2),
        ("ema", (3,), {"d": 4}, 1),
    ],
)
def test_axes_shared_out_between_programs(
    name: str, sizes: tuple[int, ...], blocks: dict[str, int], programs: int
) -> None:
    """Sizes that blocks do not divide, partial sums and all; `programs` of each sequence, of several along an axis."""
    spec = emitted(name)
    free = [axis.name for axis in spec.program.axes if axis.size is None and axis.like is None]
    arguments = random_arguments(spec.program, batch=2, time=3, sizes=dict(zip(free, sizes, strict=True)))
    with forced(blocks), watched() as kernels:
        check(compare(spec, arguments), torch.float32)
    assert {kernel.blocks.per_sequence for kernel in kernels.values()} == {programs}


@pytest.mark.parametrize("name", ["gla", "selective_ssm", "elman"])
def test_axes_of_one_element(name: str) -> None:
    spec = emitted(name)
    free = [axis.name for axis in spec.program.axes if axis.size is None and axis.like is None]
    arguments = random_arguments(spec.program, batch=1, time=3, sizes=dict.fromkeys(free, 1))
    check(compare(spec, arguments), torch.float32)


def test_strided_tensors() -> None:
    """Inputs cut out of one projection, heads first, as attention layers hand them over."""
    spec = emitted("gla")
    inputs, params, initial = small_arguments(spec.program)
    strided = {
        n: x.transpose(1, 2).contiguous().transpose(1, 2).repeat(1, 1, 1, 2)[..., ::2] for n, x in inputs.items()
    }
    assert not any(x.is_contiguous() for x in strided.values())
    check(compare(spec, (strided, params, initial)), torch.float32)


def test_two_runs_are_bitwise_equal() -> None:
    spec = emitted("selective_ssm")
    inputs, params, initial = small_arguments(spec.program)
    given, final = {"y": torch.randn_like(inputs["x"])}, {"h": torch.randn_like(initial["h"])}
    with forced({"d": 1}):
        first, second = (by_kernels(spec, inputs, params, initial, given, final, False) for _ in range(2))
    assert all(torch.equal(a, second.gradients[name]) for name, a in first.gradients.items())


def test_a_step_too_large_for_the_chip_is_refused() -> None:
    spec = emitted("gru")
    arguments = random_arguments(spec.program, batch=1, time=1, sizes={"d": 300})
    with pytest.raises(ArgumentError) as error:
        compare(spec, arguments)
    assert str(error.value).splitlines()[0] == (
        "gru: one step needs a tile over d = 300, d_col = 300 at once, too large for one program of the triton target"
    )
    assert 'target="torch"' in str(error.value)
