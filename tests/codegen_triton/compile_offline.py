"""Compiles the kernels of examples for one target at customary sizes.

`compile_offline.py TARGET NAME…` prints a line of JSON per kernel.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from itertools import cycle

import torch
from codegen_triton.support import Emitted, emit
from interpreter.specs import example
from scanc_runtime.dtypes import value_dtype
from scanc_runtime.spec import TensorSpec

from scanc.codegen.triton.offline import Launch, compile_for, record, usage

BATCH, TIME = 2, 64


def launches(emitted: Emitted) -> list[Launch]:
    """The forward and the backward launches of training steps on bf16 inputs, recurrent and with look-back."""
    program, spec = emitted.program, emitted.spec
    free = [axis.name for axis in program.axes if axis.size is None and axis.like is None]
    sizes = {axis.name: axis.size for axis in program.axes if axis.size is not None}
    # All axes of a body that multiplies by a matrix are its width; elsewhere heads are few.
    sizes.update(zip(free, cycle((64,) if len(free) == 1 else (4, 64, 64)), strict=False))
    sizes.update({axis.name: sizes[axis.like] for axis in program.axes if axis.like is not None})

    def tensors(decls: tuple[TensorSpec, ...], lead: tuple[int, ...], real: torch.dtype) -> tuple[torch.Tensor, ...]:
        shapes = [(*lead, *(sizes[axis] for axis in decl.axes)) for decl in decls]
        kinds = [value_dtype(decl.kind, torch.float32 if decl.kind == "complex" else real) for decl in decls]
        return tuple(torch.empty(shape, dtype=kind) for shape, kind in zip(shapes, kinds, strict=True))

    primals = (
        tensors(spec.inputs, (BATCH, TIME), torch.bfloat16),
        tensors(spec.params, (), torch.float32),
        tensors(spec.states, (BATCH,), torch.float32),
    )
    smooth = [
        tuple(decl for decl in decls if decl.kind in ("real", "complex")) for decls in (spec.outputs, spec.states)
    ]
    given = tensors(smooth[0], (BATCH, TIME), torch.bfloat16), tensors(smooth[1], (BATCH,), torch.float32)

    def train() -> None:
        for form in [form for form in ("recurrent", "parallel") if form in emitted.module.FORWARD]:
            *_, saved = emitted.module.FORWARD[form](*primals, False, True)
            emitted.module.BACKWARD[form](*primals, saved, *given, False)

    return record(emitted.module, train)


def main() -> None:
    target, *names = sys.argv[1:]
    for name in names:
        for launch in launches(emit(example(name), segment=None)):
            print(json.dumps({"spec": name, **asdict(usage(compile_for(launch, target), target))}), flush=True)


if __name__ == "__main__":
    main()
