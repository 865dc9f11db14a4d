"""A first call and later ones without a GPU, in a process of their own: what is compiled where, and launched how."""

from __future__ import annotations

import threading
from typing import Any

import torch
import triton.compiler
from scanc_runtime import ahead, launch
from triton.runtime.jit import JITFunction

import scanc
from runtime import no_launch

LINEAR = """scan linear
batch  h
axes   i, j
input  q[h,i], k[h,i], v[h,j]
state  S[h,i,j]
S = S + k*v
o = q · S
output o[h,j]
"""
compiled: list[tuple[str, str]] = []
bound: list[str] = []


def watch() -> None:
    """Notes who compiles which kernel, and which launches Triton binds itself."""
    compile_, run = triton.compiler.compile, JITFunction.run

    def noting(source: Any, *rest: Any, **named: Any) -> Any:
        compiled.append((source.fn.__name__, threading.current_thread().name.rpartition("_")[0]))
        return compile_(source, *rest, **named)

    def binding(self: Any, *args: Any, warmup: bool, **named: Any) -> Any:
        bound.extend([self.__name__] * (not warmup))
        return run(self, *args, warmup=warmup, **named)

    triton.compiler.compile, JITFunction.run = noting, binding


def tensors(time: int = 96, pad: int = 0) -> list[torch.Tensor]:
    wide = [torch.randn(2, time, 2, 32 + pad, dtype=torch.bfloat16) for _ in range(3)]
    return [x[..., :32].requires_grad_() for x in wide]


def step(given: list[torch.Tensor]) -> list[str]:
    """The kernels that a training step launches; forward's are given its tensors."""
    no_launch.launched.clear()
    y = op(*given)
    forward = no_launch.launched[-1][1]
    assert all(any(x.data_ptr() == y.data_ptr() for x in forward) for x in (*given, y))
    torch.autograd.grad(y, given, torch.randn_like(y))
    return [name for name, _ in no_launch.launched]


no_launch.install()
watch()
op = scanc.compile(LINEAR, target="triton")
first = step(tensors())
assert len(first) == 4, first
assert sorted(name for name, _ in compiled) == sorted(first), compiled  # each once
assert {thread for _, thread in compiled} == {"scanc-compile"}, compiled
assert sorted(bound) == sorted(first), bound
assert not ahead.pending

for given in (tensors(), tensors()):  # Triton is not asked again
    assert step(given) == first
    assert sorted(bound) == sorted(first), bound
assert step(tensors(time=97)) == first
assert len(compiled) == 4, "another time needs no other kernels"

given = tensors(pad=1)  # rows that begin at odd places: other kernels
assert step(given) == first
assert {name for name, _ in compiled[4:]} == set(first), compiled
before = len(compiled), len(bound)
assert step([x.detach().clone(memory_format=torch.preserve_format).requires_grad_() for x in tensors()]) == first
assert step(given) == first
assert (len(compiled), len(bound)) == before

kept = [ready for known in launch._known.values() for kind in known.kinds.values() for ready in kind.ready.values()]
assert kept
assert not any(isinstance(argument, torch.Tensor) for ready in kept for argument in ready.arguments)

GATED = LINEAR.replace("v[h,j]", "v[h,j], e[h]").replace("k*v", "(k*e)*v")
op = scanc.compile(GATED, target="triton")
wide = [x.detach().float() for x in tensors()]


def forward(dtype: torch.dtype) -> None:
    op(*wide, torch.randn(2, 96, 2).to(dtype))


forward(torch.bfloat16)
before = len(compiled), len(bound)
forward(torch.bfloat16)
assert (len(compiled), len(bound)) == before
forward(torch.float32)  # what a descriptor is of is another dtype, and all else the same
assert len(compiled) > before[0], compiled
