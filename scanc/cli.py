"""The command line. Each command reads its arguments, calls the library and prints.

Exit codes: 0 all is well; 1 a check failed (`run` found an error above the tolerance); 2 the arguments or
the spec are wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console, RenderableType

if TYPE_CHECKING:
    from scanc.op import ScanOperator

FAILED, UNUSABLE = 1, 2
PIPE_WIDTH = 200  # columns of a table that no terminal shows

app = typer.Typer(
    help="Compiles recurrences (.scan files) to differentiable PyTorch operators.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Spec = Annotated[Path, typer.Argument(metavar="FILE", help="A .scan file.", show_default=False)]


class Target(StrEnum):
    AUTO = "auto"
    TRITON = "triton"
    TORCH = "torch"


class Precision(StrEnum):
    DEFAULT = "default"
    IEEE = "ieee"
    TF32X3 = "tf32x3"
    TF32 = "tf32"


class Dtype(StrEnum):
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class Form(StrEnum):
    RECURRENT = "recurrent"
    CHUNKED = "chunked"
    PARALLEL = "parallel"
    CONVOLUTION = "convolution"


PrecisionOption = Annotated[Precision, typer.Option(help="The least that a float32 product may be done in.")]
TargetOption = Annotated[Target, typer.Option(help="auto: Triton on a GPU, torch elsewhere.")]
FormOption = Annotated[list[str], typer.Option(help="May be repeated; 'all' (the default): every admitted form.")]
SizeOption = Annotated[list[str], typer.Option(help="Size of an axis, as in d=64; may be repeated.")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …; default: cuda if there is one.")]


def show(what: RenderableType) -> None:
    """Prints to stdout, in full where it is piped."""
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, markup=False, highlight=False)
    console.print(what, soft_wrap=isinstance(what, str))


def fail(message: str, code: int = UNUSABLE) -> NoReturn:
    """Prints to stderr and ends."""
    Console(stderr=True, soft_wrap=True, markup=False, highlight=False).print(message)
    raise typer.Exit(code)


@contextmanager
def user_faults() -> Iterator[None]:
    """Turns what a user can do wrong into a message and an exit code."""
    from scanc_runtime.errors import ScanError

    from scanc.bench.arguments import UnusableArguments
    from scanc.bench.plot import PlottingUnavailable
    from scanc.diagnostics.diagnostic import CompileError

    try:
        yield
    except (CompileError, ScanError, UnusableArguments, PlottingUnavailable) as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def loaded(path: Path, target: Target = Target.AUTO, precision: Precision = Precision.DEFAULT) -> ScanOperator:
    """The operator of a file; the compiler's warnings go to stderr."""
    from scanc.op import load

    operator = load(path, target=target.value, precision=precision.value)
    for warning in operator.compiled.warnings:
        Console(stderr=True, soft_wrap=True, markup=False, highlight=False).print(warning.rstrip())
    return operator


def version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version as installed

        typer.echo(f"scanc {installed('scanc')}")
        raise typer.Exit


@app.callback()
def main(
    wanted: Annotated[bool, typer.Option("--version", callback=version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Compiles recurrences (.scan files) to differentiable PyTorch operators."""


@app.command()
def check(files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="One or more .scan files.")]) -> None:
    """Compiles specs, and says what is wrong with those that do not."""
    from scanc.bench.report import classes

    wrong = False
    for path in files:
        try:
            with user_faults():
                show(f"{path}: ok\n{classes(loaded(path))}")
        except typer.Exit:
            wrong = True
    if wrong:
        raise typer.Exit(UNUSABLE)


@app.command()
def explain(
    file: Spec,
    form: Annotated[Form | None, typer.Option(help="Of this form alone: is it admitted, and if not, why?")] = None,
    target: TargetOption = Target.AUTO,
    dump: Annotated[Path | None, typer.Option(help="Write the IR after each pass, the code, the graph there.")] = None,
) -> None:
    """Tells the class of a spec, what each pass did or declined and why, and the forms."""
    from scanc.dump import write_stages

    with user_faults():
        operator = loaded(file, target)
        show(operator.explain(form=form.value if form else None).rstrip())
        for path in write_stages(operator.compiled, dump) if dump else []:
            show(str(path))


@app.command()
def build(
    file: Spec,
    output: Annotated[Path, typer.Option("--output", "-o", help="The module to write.", show_default=False)],
    target: TargetOption = Target.AUTO,
) -> None:
    """Writes a standalone module, which needs torch, triton and scanc_runtime, but not the compiler."""
    with user_faults():
        output.write_text(loaded(file, target).code(), encoding="utf-8")
        show(str(output))


@app.command()
def run(
    file: Spec,
    inputs: Annotated[Path | None, typer.Option(help="An .npz file of tensors; what it lacks is drawn.")] = None,
    size: SizeOption = [],  # noqa: B006 (typer copies it)
    batch: Annotated[int | None, typer.Option(min=1, help="Default: 2, or as the inputs say.")] = None,
    time: Annotated[int | None, typer.Option(min=0, help="Time steps. Default: 64, or as the inputs say.")] = None,
    dtype: Dtype = Dtype.FLOAT32,
    form: FormOption = ["all"],  # noqa: B006
    backward: Annotated[bool, typer.Option(help="Check gradients as well.")] = True,
    tolerance: Annotated[float | None, typer.Option(min=0, help="Default: by dtype, 1e-4 for float32.")] = None,
    target: TargetOption = Target.AUTO,
    precision: PrecisionOption = Precision.DEFAULT,
    device: DeviceOption = "auto",
    seed: int = 0,
) -> None:
    """Runs a spec in its forms and compares values and gradients with the interpreter. Exit code 1 if they differ."""
    from scanc.bench import arguments, compare, report

    with user_faults():
        where = report.chosen_device(device)
        operator = loaded(file, Target(report.chosen_target(target.value, where)), precision)
        program = operator.compiled.typed
        given = arguments.read(program, inputs) if inputs else {}
        call = arguments.call(
            program, given, sizes=arguments.parse_sizes(size), batch=batch, time=time, dtype=dtype, seed=seed
        ).to(where)
        allowed = compare.tolerance(call) if tolerance is None else tolerance
        show(report.heading(operator, call))
        forms = report.chosen_forms(operator, form)
        reports = list(compare.compare(operator, call, forms, backward=backward))
    show(report.error_table(reports, allowed))
    agrees, words = report.verdict(operator, reports, allowed)
    if not agrees:
        fail(words, FAILED)
    show(words)


@app.command()
def bench(
    file: Spec,
    size: SizeOption = [],  # noqa: B006
    batch: Annotated[int, typer.Option(min=1)] = 4,
    time: Annotated[list[int], typer.Option(min=1, help="Time steps; may be repeated.")] = [256, 1024, 4096],  # noqa: B006
    dtype: Dtype = Dtype.FLOAT32,
    form: FormOption = ["all"],  # noqa: B006
    backward: bool = True,
    target: TargetOption = Target.AUTO,
    precision: PrecisionOption = Precision.DEFAULT,
    device: DeviceOption = "auto",
    csv: Annotated[Path | None, typer.Option(help="Write every measurement there.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw throughput over sequence length, as PNG.")] = None,
) -> None:
    """Times the forms of a spec against each other and against a plain copy of its tensors."""
    from rich.progress import track

    from scanc.bench import arguments, measure, report
    from scanc.bench.plot import plot as draw_plot
    from scanc.bench.plot import points, require_matplotlib

    with user_faults():
        if plot is not None:
            require_matplotlib()
        where = report.chosen_device(device)
        operator = loaded(file, Target(report.chosen_target(target.value, where)), precision)
        sizes = arguments.complete_sizes(operator.compiled.typed, arguments.parse_sizes(size))
        cases = measure.grid(
            report.chosen_forms(operator, form), time, batch, sizes, dtype, where,
            backward=backward and measure.differentiable(operator.spec),
        )  # fmt: skip
        progress = track(cases, "measuring", console=Console(stderr=True), transient=True)
        measurements = [measure.measure(operator, case) for case in progress]
        shown = f"{operator.name}: {report.sizes_text(operator, sizes, batch=batch)}, {dtype}, {where}"
        show(shown)
        show(report.measurement_table(measurements))
        if csv is not None:
            measure.write_csv(measurements, csv)
            show(str(csv))
        if plot is not None:
            draw_plot(points(measurements), shown, plot)
            show(str(plot))


@app.command()
def tune(
    file: Spec,
    size: SizeOption = [],  # noqa: B006
    batch: Annotated[int, typer.Option(min=1)] = 4,
    time: Annotated[int, typer.Option(min=1, help="Time steps.")] = 1024,
    dtype: Dtype = Dtype.FLOAT32,
    backward: Annotated[bool, typer.Option(help="Tune what backward needs as well.")] = True,
    target: TargetOption = Target.AUTO,
    device: DeviceOption = "auto",
    seed: int = 0,
) -> None:
    """Measures at most eight ways to run each kernel at some sizes, and stores the fastest for later calls."""
    from rich.progress import track

    from scanc.bench import arguments, measure, report
    from scanc.bench import tune as tuning

    with user_faults():
        where = report.chosen_device(device)
        operator = loaded(file, Target(report.chosen_target(target.value, where)))
        program = operator.compiled.typed
        sizes = arguments.complete_sizes(program, arguments.parse_sizes(size))
        call = arguments.draw(program, batch=batch, time=time, sizes=sizes, dtype=dtype, seed=seed).to(where)
        tuner = tuning.Tuner(operator, call, backward=backward and measure.differentiable(operator.spec))
        console = Console(stderr=True)
        trials = tuner.trials(lambda each: track(each, "measuring", console=console, transient=True))
        show(f"{operator.name}: {report.sizes_text(operator, sizes, batch=batch, time=time)}, {dtype}, {where}")
        show(report.trial_table(trials))
        paths = tuning.store(trials)
    if len(paths) < sum(trial.chosen for trial in trials):
        fail("not everything could be stored", FAILED)
    for path in paths:
        show(str(path))


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Of the scan; the file is NAME.scan.", show_default=False)],
) -> None:
    """Writes a commented spec to start from. Leaves existing files alone."""
    from scanc.starter import write_starter

    try:
        path = write_starter(name, Path.cwd())
    except (ValueError, FileExistsError) as error:
        fail(str(error))
    show(f"{path.name}; next: scanc check {path.name}, scanc run {path.name}")
