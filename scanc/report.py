"""The text of `explain`: what a spec is, what each pass did or declined and why, and the forms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod

import torch
from scanc_runtime.auto import preferred
from scanc_runtime.checks import Plan
from scanc_runtime.dtypes import value_dtype
from scanc_runtime.register import SavedFn
from scanc_runtime.spec import Spec

from scanc.ir.nodes import Program, Region, RegionKind
from scanc.passes.base import Remark
from scanc.passes.pipeline import ON_CHIP

FORMS = {
    "recurrent": "one step after the other; any body",
    "parallel": "a scan over the associative operator",
    "chunked": "scans inside chunks of time, and a carry from chunk to chunk",
    "convolution": "a causal convolution, for time-invariant systems",
}

_OF_MEMORIES = {
    "parallel": "all pairs of steps at once",
    "chunked": "all pairs of steps of a chunk of time at once, and a carry from chunk to chunk",
}

_HOW = {
    RegionKind.LOOP: "step by step",
    RegionKind.SCAN: "as a scan",
    RegionKind.DELAY: "as a shift",
    RegionKind.MEMORY: "as a memory, in products of queries, keys and values",
}

TYPICAL = ((1, 1024, 16), (8, 4096, 64), (8, 65536, 64))
"""Batch, time and the size of every open axis, at which a spec says what it saves before it knows of a call."""

Refused = Sequence[tuple[str, str]]
Admitted = tuple[Sequence[str], Refused, tuple[str, float] | None, tuple[str, int] | None]
"""The forms of a target, (form, reason) of those that it refuses, and the forms for few long sequences and for short
ones, if any.
"""


def explain(
    program: Program,
    remarks: Iterable[Remark],
    adjoint_remarks: Iterable[Remark],
    triton_remarks: Iterable[Iterable[Remark]],
    admitted: Mapping[str, Admitted],
    form: str | None = None,
) -> str:
    """The report on a classified program: its stages, the remarks of its passes, its forms (or one of them).

    `triton_remarks` are those on the way to the Triton target, of the step and of its adjoint; what the passes of
    every target say is left out of them.  `admitted` is of each target.
    """
    memories = any(region.kind is RegionKind.MEMORY for region in program.regions)
    what = {target: FORMS | (_OF_MEMORIES if memories and target == "torch" else {}) for target in admitted}
    if form is not None:
        return "".join(f"{target} target: {_judged(form, what[target], *of)}\n" for target, of in admitted.items())
    stages = [region for region in program.regions if region.states]
    lines = [f"scan {program.name}" + (f" over {program.semiring}" if program.semiring != "real" else "")]
    lines += ["", "stages"]
    lines += [f"  {_stage(region)}" for region in stages] or ["  none: every time step stands by itself"]
    lines += ["", "passes"]
    lines += [f"  {_remark(remark)}" for remark in remarks]
    lines += ["", "passes on the adjoint"]
    lines += [f"  {_remark(remark)}" for remark in adjoint_remarks]
    for title, said in zip(("passes of the triton target", "and on the adjoint"), triton_remarks, strict=False):
        lines += ["", title]
        lines += [f"  {_remark(remark)}" for remark in said if remark.source in ON_CHIP]
    for target, of in admitted.items():
        lines += ["", f"forms of the {target} target"]
        names = (*of[0], *(name for name, _ in of[1]))
        lines += [f"  {_judged(name, what[target], *of)}" for name in names]
    return "\n".join(lines) + "\n"


def _stage(region: Region) -> str:
    return f"{', '.join(region.states)}: {region.recurrence or region.kind.value}; runs {_HOW[region.kind]}"


def _remark(remark: Remark) -> str:
    where = f" (line {remark.span.line})" if remark.span else ""
    declined = "" if remark.applied else "declined: "
    return f"{remark.source}: {declined}{remark.text}{where}"


def _judged(
    form: str,
    what: Mapping[str, str],
    forms: Sequence[str],
    refused: Refused,
    long: tuple[str, float] | None,
    short: tuple[str, int] | None,
) -> str:
    """What a target's form is, or why the target does not have it."""
    if form not in forms:
        return f"{form}: not admitted: {dict(refused).get(form, 'no target has it so far')}"
    if long is not None and form == long[0]:
        return f"{form}: {what[form]}, in one pass over memory (auto for few long sequences in float32)"
    if short is not None and form == short[0]:
        return f"{form}: {what[form]} (auto for less than {short[1]} steps)"
    return f"{form}: {what[form]}{' (auto)' if form == preferred(forms) else ''}"


def explain_saved(targets: Mapping[str, tuple[Spec, SavedFn]]) -> str:
    """What forward saves for backward at a few typical sizes; forms that save the same share a line."""
    if not any(spec.states for spec, _ in targets.values()):
        return "saved for backward: nothing, there is no state"
    lines = ["saved for backward, in bytes per time step and state element, fp32"]
    for target, (spec, saved) in targets.items():
        told: dict[str, list[str]] = {}
        for form in spec.forms:
            shares = [_share(spec, saved, form, _typical(spec, *typical)) for typical in TYPICAL]
            at = (f"{share} at B = {b}, T = {t}, axes of {n}" for share, (b, t, n) in zip(shares, TYPICAL, strict=True))
            told.setdefault(shares[0] if len(set(shares)) == 1 else "; ".join(at), []).append(form)
        lines += [f"  {target}: {', '.join(forms)}: {text}" for text, forms in told.items()]
    return "\n".join(lines)


def explain_saved_call(spec: Spec, saved: SavedFn, form: str, plan: Plan) -> str:
    """What forward saves for backward in one call."""
    share = _share(spec, saved, form, plan)
    return f"saved for backward: {saved_bytes(saved, form, plan)} bytes, {share} per time step and state element"


def saved_bytes(saved: SavedFn, form: str, plan: Plan) -> int:
    """The bytes that forward saves for backward, by the generated module's own account."""
    shapes = saved(form, plan.batch, plan.time, plan.sizes)
    return sum(prod(shape) * value_dtype(kind, plan.compute).itemsize for shape, kind in shapes)


def _share(spec: Spec, saved: SavedFn, form: str, plan: Plan) -> str:
    """Bytes saved per time step and state element."""
    elements = plan.batch * plan.time * sum(prod(plan.sizes[axis] for axis in state.axes) for state in spec.states)
    return f"{saved_bytes(saved, form, plan) / max(elements, 1):.2g}"


def _typical(spec: Spec, batch: int, time: int, size: int) -> Plan:
    """A call in fp32 in which every axis has its fixed size, or `size`."""
    sizes = {axis.name: axis.size or size for axis in spec.axes if axis.like is None}
    for axis in spec.axes:
        if axis.like is not None:
            sizes[axis.name] = sizes[axis.like]
    return Plan(batch, time, sizes, torch.float32, torch.float32, torch.device("cpu"))
