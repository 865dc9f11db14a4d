"""The text of `explain`: what a spec is, what each pass did or declined and why, and the forms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
    admitted: tuple[Sequence[str], Refused],
    form: str | None = None,
) -> str:
    """The report on a classified program: its stages, the remarks of its passes, its forms (or one of them).

    `triton_remarks` are those on the way to the Triton target, of the step and of its adjoint; what the passes of
    every target say is left out of them.  `admitted` = (forms of the torch target, (form, reason) of those that it
    refuses).
    """
    forms, refused = admitted
    auto = "chunked" if "chunked" in forms else "recurrent"
    if form is not None:
        reason = dict(refused).get(form, None if form in forms else "no target has it so far")
        lines = [_form(form, reason, form == auto)]
        if reason is None and form != "recurrent":
            lines.append("on the triton target: not admitted: it has the recurrent form alone so far")
        return "\n".join(lines) + "\n"
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
    lines += ["", "forms of the torch target"]
    lines += [f"  {_form(name, None, name == auto)}" for name in forms]
    lines += [f"  {_form(name, reason, False)}" for name, reason in refused]
    lines += ["", "forms of the triton target", f"  {_form('recurrent', None, True)}"]
    return "\n".join(lines) + "\n"


def _stage(region: Region) -> str:
    how = {RegionKind.LOOP: "step by step", RegionKind.SCAN: "as a scan", RegionKind.DELAY: "as a shift"}[region.kind]
    return f"{', '.join(region.states)}: {region.recurrence or region.kind.value}; runs {how}"


def _remark(remark: Remark) -> str:
    where = f" (line {remark.span.line})" if remark.span else ""
    declined = "" if remark.applied else "declined: "
    return f"{remark.source}: {declined}{remark.text}{where}"


def _form(form: str, reason: str | None, auto: bool) -> str:
    if reason is not None:
        return f"{form}: not admitted: {reason}"
    return f"{form}: {FORMS[form]}{' (auto)' if auto else ''}"
