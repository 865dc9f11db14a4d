"""What `scanc run` and `scanc bench` print, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table

from scanc.bench.arguments import Call, UnusableArguments
from scanc.bench.compare import FormReport
from scanc.bench.measure import Measurement, Timing
from scanc.bench.tune import Trial
from scanc.op import ScanOperator
from scanc.targets import Target


def chosen_forms(operator: ScanOperator, wanted: Sequence[str]) -> list[str]:
    """The forms that `--form` asks for, each once. The operator itself refuses what it does not admit."""
    admitted = operator.spec.forms
    return list(dict.fromkeys(form for each in wanted for form in (admitted if each == "all" else (each,))))


def chosen_device(wanted: str) -> str:
    """The device that `--device` asks for; "auto" is cuda if there is one."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError) as error:
        raise UnusableArguments(f"no device '{wanted}': {str(error).splitlines()[0]}") from None
    return wanted


def chosen_target(wanted: Target, device: str) -> Target:
    """The target that `--target` asks for; "auto" is torch but for a GPU, where the operator says."""
    return wanted if wanted != "auto" or torch.device(device).type == "cuda" else "torch"


def classes(operator: ScanOperator) -> str:
    """The class of each stage in words, one stage per line behind the states that it computes."""
    return "\n".join(f"  {', '.join(states)}: {words}" for states, words in operator.classes) or "  no state"


def sizes_text(operator: ScanOperator, sizes: Mapping[str, int], **leading: int) -> str:
    """Sizes in words; an axis that shares another's is left out."""
    own = {axis.name: sizes[axis.name] for axis in operator.compiled.typed.axes if axis.like is None}
    return ", ".join(f"{axis} = {size}" for axis, size in {**leading, **own}.items())


def heading(operator: ScanOperator, call: Call) -> str:
    """What is run: class, target, sizes, dtypes and device."""
    tensors = list(call.tensors.values())
    dtypes = ", ".join(dict.fromkeys(str(value.dtype).removeprefix("torch.") for value in tensors))
    return "\n".join(
        (
            operator.name,
            classes(operator),
            f"target {operator.target}; {dtypes}, {tensors[0].device}",
            sizes_text(operator, call.sizes, batch=call.batch, time=call.time),
        )
    )


def error_table(reports: Sequence[FormReport], tolerance: float) -> Table:
    """One row per tensor, one column per form; what exceeds the tolerance is marked with an exclamation mark."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column(f"error (at most {tolerance:g})")
    for report in reports:
        table.add_column(report.form, justify="right")
    tensors = dict.fromkeys(deviation.tensor for report in reports for deviation in report.deviations)
    for tensor in tensors:
        errors = [{d.tensor: d.error for d in report.deviations}[tensor] for report in reports]
        table.add_row(tensor, *(f"{error:.1e}" if error <= tolerance else f"{error:.1e} !" for error in errors))
    table.add_section()
    table.add_row("forward", *(milliseconds(report.forward) for report in reports))
    if any(report.backward for report in reports):
        table.add_row("forward+backward", *(milliseconds(report.backward) for report in reports))
    return table


def verdict(operator: ScanOperator, reports: Sequence[FormReport], tolerance: float) -> tuple[bool, str]:
    """Whether every form is within the tolerance, and that in words."""
    wrong = [report for report in reports if not report.worst <= tolerance]
    if not wrong:
        return True, f"{operator.name} agrees with the interpreter in fp64: {', '.join(each.form for each in reports)}"
    found = (f"the {each.form} form by {each.worst:.1e}" for each in wrong)
    return False, f"{operator.name} differs from the interpreter in fp64: {', '.join(found)}"


def measurement_table(measurements: Sequence[Measurement]) -> Table:
    """One row per direction and sequence length, one column per form, and the copy of the tensors as the roofline.

    In brackets stands what the cost model predicts.
    """
    table = Table(box=SIMPLE_HEAD, caption="in brackets: what the cost model predicts", caption_justify="left")
    table.add_column("direction")
    table.add_column("time steps", justify="right")
    forms = list(dict.fromkeys(m.case.form for m in measurements))
    for form in (*forms, "copy of the tensors"):
        table.add_column(form, justify="right")
    for direction, time in dict.fromkeys((m.case.direction, m.case.time) for m in measurements):
        chosen = {m.case.form: m for m in measurements if (m.case.direction, m.case.time) == (direction, time)}
        cells = [_cell(chosen[form]) if form in chosen else "" for form in forms]
        copy = min(m.copy for m in chosen.values())
        table.add_row(direction, str(time), *cells, f"{copy * 1e3:.3g} ms")
    return table


def trial_table(trials: Sequence[Trial]) -> Table:
    """One row per candidate, kernel by kernel: its time or why it was refused, and which one is chosen."""
    table = Table(box=SIMPLE_HEAD)
    for column in ("kernel", "candidate"):
        table.add_column(column)
    table.add_column("time", justify="right")
    table.add_column("chosen")
    for kernel in dict.fromkeys(trial.candidate.kernel for trial in trials):
        for trial in trials:
            if trial.candidate.kernel == kernel:
                time = trial.refused if trial.seconds is None else f"{trial.seconds * 1e3:.3g} ms"
                table.add_row(kernel, trial.candidate.text, time, "yes" if trial.chosen else "")
        table.add_section()
    return table


def _cell(measured: Measurement) -> str:
    if measured.predicted is None:
        return milliseconds(measured.timing)
    return f"{milliseconds(measured.timing)} ({measured.predicted * 1e3:.2g})"


def milliseconds(timing: Timing | None) -> str:
    return "" if timing is None else f"{timing.median * 1e3:.3g} ms"
