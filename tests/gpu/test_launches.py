"""Later calls, whose launches go around Triton's binder, are right: new data, other strides, other addresses."""

from __future__ import annotations

import pytest
import torch
from gpu.measure import EXAMPLES, program_of, sizes_of
from torch import Tensor
from torch.testing import assert_close

import scanc
from scanc.interpreter import random_arguments

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CASES = [
    (name, form)
    for name, forms in {
        "ema": ("recurrent", "chunked", "parallel"),
        "gla": ("recurrent", "chunked"),
        "gru": ("recurrent",),
        "lru": ("recurrent",),
        "mamba2": ("recurrent", "chunked"),
        "selective_ssm": ("recurrent", "chunked"),
    }.items()
    for form in forms
]


def shifted(tensor: Tensor) -> Tensor:
    """The same numbers, where rows begin an element later and are an element longer."""
    wide = tensor.new_zeros(*tensor.shape[:-1], tensor.shape[-1] + 1)
    wide[..., 1:] = tensor
    return wide[..., 1:]


def gradients(operator: scanc.ScanOperator, given: dict[str, Tensor], form: str) -> list[Tensor]:
    """The output and all gradients, of some cotangent."""
    leaves = {name: x.detach().requires_grad_(x.is_floating_point() or x.is_complex()) for name, x in given.items()}
    y = operator(**leaves, form=form)
    cotangent = torch.cos(torch.arange(y.numel(), device=y.device)).reshape(y.shape).to(y.dtype)
    wanted = [x for x in leaves.values() if x.requires_grad]
    return [y.detach(), *torch.autograd.grad(y, wanted, cotangent)]


@pytest.mark.parametrize(("name", "form"), CASES)
def test_later_calls_are_right(name: str, form: str) -> None:
    program = program_of(name)
    ours = scanc.load(EXAMPLES / f"{name}.scan", target="triton")
    torchs = scanc.load(EXAMPLES / f"{name}.scan", target="torch")
    for seed, time in enumerate((70, 70, 70, 70, 81, 70)):
        drawn = random_arguments(
            program, batch=2, time=time, sizes=sizes_of(program, 16), seed=seed, dtype=torch.float32
        )
        given = {name: x.to(DEVICE) for group in drawn[:2] for name, x in group.items()}
        if seed in (2, 3):
            given = {name: shifted(x) if x.dim() else x for name, x in given.items()}
        wide = {
            name: x.to(torch.complex128) if x.is_complex() else x.double() if x.is_floating_point() else x
            for name, x in given.items()
        }
        for found, wanted in zip(gradients(ours, given, form), gradients(torchs, wide, "auto"), strict=True):
            assert_close(found, wanted.to(found.dtype), rtol=2e-3, atol=2e-4 * float(wanted.abs().max()))
