"""Generated kernels of generated programs, with generated blocks, against the interpreter."""

from __future__ import annotations

import torch
from codegen_triton.support import Emitted, compare, emit
from fuzz.programs import Case, cases
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scanc_runtime.lookback import forced_lookback
from scanc_runtime.tiling import forced

BLOCKS = st.dictionaries(st.sampled_from(("h", "i", "j")), st.sampled_from((1, 2, 4)))


# Shrinking would emit and run hundreds of kernels, minutes of work.
@settings(max_examples=20, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(cases(times=(0, 1, 2, 3, 5)), BLOCKS, st.sampled_from((1, 2)), st.sampled_from((1, 2, 3)), st.booleans())
def test_kernels_agree_with_the_interpreter(
    case: Case, blocks: dict[str, int], unroll: int, chunks: int, reverse: bool
) -> None:
    emitted = emit(case.program, segment=2)
    for form in (form for form in emitted.functions.forms if form != "parallel"):
        with forced(blocks, unroll=unroll, chunks=chunks if form == "chunked" else None):
            found = compare(emitted, case.arguments(), dtype=torch.float64, reverse=reverse, form=form)
        wrong = {name: error for name, error in found.items() if not error < 1e-9}
        assert not wrong, form
    if "parallel" in emitted.functions.forms:
        _check_parallel(emitted, case, reverse)


def _check_parallel(emitted: Emitted, case: Case, reverse: bool) -> None:
    """It computes in fp32: about as far from the interpreter as the recurrent form is there."""
    near = compare(emitted, case.arguments(), reverse=reverse)
    with forced_lookback(block=4, chunks=2, steps=2, group=2):
        found = compare(emitted, case.arguments(), reverse=reverse, form="parallel")
    wrong = {name: error for name, error in found.items() if not error < 20 * near[name] + 1e-5}
    assert not wrong, near
