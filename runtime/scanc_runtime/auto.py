"""The form that a call takes where it leaves the choice."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch

from scanc_runtime.checks import Plan
from scanc_runtime.spec import Spec

LONG = 2048
"""Steps from which one pass with the time shared out is sure to gain on one step after the other.

Its words cost one launch more.  That is what a few hundred steps take, but calls of 1024 steps still wait for the
host, which that launch keeps busy.
"""

_HELD = 1 << 14  # numbers of states of fp32 that a multiprocessor holds at a time, in a quarter of its registers
_STATES = 32  # states of a program that walks whole sequences, about
_PREFERENCE = ("chunked", "recurrent", "parallel")


def preferred(forms: Sequence[str]) -> str:
    """The form that `auto` is, of those that a module has, where no size says otherwise."""
    return next((form for form in _PREFERENCE if form in forms), forms[0])


def multiprocessors(device: torch.device) -> int:
    """Those of a GPU, and 0 of any other device."""
    return _of_gpu(device) if device.type == "cuda" else 0


# What torch.compiler.assume_constant_result does, without the import of all of Dynamo.
multiprocessors._dynamo_marked_constant = True  # type: ignore[attr-defined]


@cache
def _of_gpu(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def can_be_long(plan: Plan) -> bool:
    """Whether a call may take the form for few long sequences, as its sizes then say.

    It was measured on GPUs of NVIDIA alone, and carries float32 in words with another; nothing wider fits.
    """
    return multiprocessors(plan.device) > 0 and torch.version.hip is None and plan.compute == torch.float32


def is_long(spec: Spec, plan: Plan, few: float) -> bool:
    """Whether a call has long sequences, and `few` of them: less than so many programs for each multiprocessor.

    What is exported for any size is not, for it has one form.
    """
    if not can_be_long(plan) or not _holds(plan.time >= LONG):
        return False
    most = int(few * _STATES * multiprocessors(plan.device))
    for state in spec.states:
        scans = plan.batch
        for axis in state.axes:
            scans = scans * plan.sizes[axis]
        if not _holds(scans < most):
            return False
    return True


def is_short(spec: Spec, plan: Plan, steps: int) -> bool:
    """Whether walking a call takes no longer than `steps` steps of states that a GPU holds all at once.

    What is exported for any size is not, for it has one form.
    """
    if not _holds(plan.time < steps):
        return False
    held = _HELD * multiprocessors(plan.device)
    for state in spec.states if held else ():
        numbers = plan.batch * plan.time
        for axis in state.axes:
            numbers = numbers * plan.sizes[axis]
        if not _holds(numbers < held * steps):
            return False
    return True


def _holds(condition: bool) -> bool:
    """The condition on sizes; of an export, whether it holds for all sizes that are exported."""
    if torch.compiler.is_exporting():
        from torch.fx.experimental.symbolic_shapes import statically_known_true

        return statically_known_true(condition)
    return condition
