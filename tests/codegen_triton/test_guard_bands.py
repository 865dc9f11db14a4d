"""No kernel writes beside the memory that it is given: every buffer lies between bands that must stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import pytest
import torch
from codegen_triton.support import compare, emit
from interpreter.specs import example, small_arguments
from scanc_runtime import launch
from scanc_runtime.tiling import forced
from torch import Tensor

BAND, MARK = 64, 7


@pytest.mark.parametrize(("name", "form"), [("gla", "recurrent"), ("gru", "recurrent"), ("selective_ssm", "chunked")])
def test_bands_around_every_buffer_stay(name: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bands: list[Tensor] = []
    plain = launch.Call.new

    def new(self: launch.Call, shape: Sequence[int], dtype: torch.dtype, when: bool = True) -> Tensor | None:
        if not when:
            return None
        memory = plain(self, (prod(shape) + 2 * BAND,), dtype)
        if memory.device.type != "meta":
            memory[:BAND] = memory[-BAND:] = MARK
            bands.extend((memory[:BAND], memory[-BAND:]))
        return memory[BAND:-BAND].view(tuple(shape))

    monkeypatch.setattr(launch.Call, "new", new)
    spec = emit(example(name))
    with forced(unroll=2, chunks=2):
        found = compare(spec, small_arguments(spec.program, time=7), form=form)
    assert all(error < 5e-6 for error in found.values()), found
    assert len(bands) > 6
    assert all(bool((band == MARK).all()) for band in bands)
