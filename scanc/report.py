"""The text of `explain`: what a spec is, what each pass did or declined and why, and the forms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from scanc.ir.nodes import Program, Region, RegionKind
from scanc.passes.base import Remark

FORMS = {
    "recurrent": "one step after the other; any body",
    "parallel": "a scan over the associative operator",
    "chunked": "scans inside chunks of time, and a carry from chunk to chunk",
    "convolution": "a causal convolution, for time-invariant systems",
}

_TRITON_ONLY = ("realify", "fuse", "schedule")
Refused = Sequence[tuple[str, str]]


def explain(
    program: Program,
    remarks: Iterable[Remark],
    adjoint_remarks: Iterable[Remark],
    triton_remarks: Iterable[Iterable[Remark]],
    admitted: Mapping[str, tuple[Sequence[str], Refused]],
    form: str | None = None,
) -> str:
    """The report on a classified program: its stages, the remarks of its passes, its forms (or one of them).

    `triton_remarks` are those on the way to the Triton target, of the step and of its adjoint; what the passes of
    every target say is left out of them.  `admitted` maps each target to its forms, and (form, reason) of those that it
    refuses.
    """
    if form is not None:
        return "".join(f"{target} target: {_judged(form, *of)}\n" for target, of in admitted.items())
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
        lines += [f"  {_remark(remark)}" for remark in said if remark.source in _TRITON_ONLY]
    for target, (forms, refused) in admitted.items():
        lines += ["", f"forms of the {target} target"]
        lines += [f"  {_judged(name, forms, refused)}" for name in (*forms, *(name for name, _ in refused))]
    return "\n".join(lines) + "\n"


def _stage(region: Region) -> str:
    how = {RegionKind.LOOP: "step by step", RegionKind.SCAN: "as a scan", RegionKind.DELAY: "as a shift"}[region.kind]
    return f"{', '.join(region.states)}: {region.recurrence or region.kind.value}; runs {how}"


def _remark(remark: Remark) -> str:
    where = f" (line {remark.span.line})" if remark.span else ""
    declined = "" if remark.applied else "declined: "
    return f"{remark.source}: {declined}{remark.text}{where}"


def _judged(form: str, forms: Sequence[str], refused: Refused) -> str:
    """What a target's form is, or why the target does not have it."""
    if form not in forms:
        return f"{form}: not admitted: {dict(refused).get(form, 'no target has it so far')}"
    auto = "chunked" if "chunked" in forms else "recurrent"
    return f"{form}: {FORMS[form]}{' (auto)' if form == auto else ''}"
