"""The loop that both training examples share: a progress bar, a limit in steps and in seconds, the curve as PNG."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from mixer import REAL, Mixer, UnsuitedSpec, default_sizes, with_alike
from probe import choose_gates
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from scanc_runtime.errors import ScanError
from torch import Tensor, nn, optim
from torch.nn.utils import clip_grad_norm_

import scanc
from scanc.diagnostics.diagnostic import CompileError

console = Console()

Sizes = Annotated[list[str], typer.Option("--size", help="Size of an axis, as in d=64; may be repeated.")]
Activations = Annotated[
    list[str],
    typer.Option(help=f"How a tensor is made from features, as in g=logsigmoid ({', '.join(REAL)}); found by default."),
]


def usable(device: str) -> str:
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise typer.BadParameter(str(error).splitlines()[0]) from None
    return device


Device = Annotated[str, typer.Option(callback=usable, help="cpu, cuda, …")]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def assignments(pairs: list[str]) -> dict[str, str]:
    """['d=64'] as {'d': '64'}."""
    for pair in pairs:
        if "=" not in pair:
            raise typer.BadParameter(f"'{pair}' is not of the form name=value")
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def mixers(
    path: Path, count: int, width: int, sizes: list[str], activations: list[str], form: str, target: str, device: str
) -> list[Mixer]:
    """Compiles the spec and builds `count` mixers of it. Ends the program with a message where that cannot be."""
    try:
        operator = scanc.load(path, target=target)
        spec = operator.spec
        chosen = default_sizes(spec, width)
        for axis, size in assignments(sizes).items():
            if axis not in chosen or not size.isdigit():
                raise UnsuitedSpec(f"--size {axis}={size}: the axes of {spec.name} are {', '.join(chosen)}")
            chosen[axis] = int(size)
        chosen = with_alike(spec, chosen)
        given = assignments(activations)
        unknown = set(given) - {tensor.name for tensor in (*spec.inputs, *spec.params)}
        if unknown:
            raise UnsuitedSpec(f"--activation: {spec.name} has no input or param {', '.join(sorted(unknown))}")
        with torch.no_grad():  # says what is unsuited, and why a form is refused, before anything else is done
            Mixer(width, operator, chosen, form=form).to(device)(torch.zeros(1, 1, width, device=device))
        gates = choose_gates(operator, chosen, given, device)
        own = (axis.name for axis in spec.axes if axis.like is None)
        console.print(f"{spec.name} with " + ", ".join(f"{axis} = {chosen[axis]}" for axis in own))
        for name, gate in gates.items():
            console.print(f"  {name}: {gate}" + (" (given)" if name in given else " (found by probing)"))
        return [Mixer(width, operator, chosen, gates, form) for _ in range(count)]
    except (CompileError, ScanError, UnsuitedSpec, ValueError, OSError) as error:
        console.print(str(error), style="red", markup=False, highlight=False)
        raise typer.Exit(2) from None


def train(
    model: nn.Module, loss_of: Callable[[], Tensor], *, steps: int, seconds: float, rate: float = 4e-3
) -> list[float]:
    """Trains until `steps` or `seconds` are used up, whichever is first; returns the loss of each step."""
    optimizer = optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    losses: list[float] = []
    start = time.monotonic()
    columns = (TextColumn("loss {task.fields[loss]:.3f}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("train", total=steps, loss=math.nan)
        while len(losses) < steps and time.monotonic() - start < seconds:
            done = max(len(losses) / steps, (time.monotonic() - start) / seconds)
            warm = min(1.0, (len(losses) + 1) / 20)
            for group in optimizer.param_groups:
                group["lr"] = rate * warm * (0.05 + 0.95 * math.cos(math.pi / 2 * done) ** 2)
            loss = loss_of()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
            progress.update(task, advance=1, loss=smooth(losses)[-1])
            if not math.isfinite(losses[-1]):
                break
    return losses


def smooth(losses: list[float], window: int = 20) -> list[float]:
    """The running mean over up to `window` steps."""
    return [sum(losses[max(0, i - window + 1) : i + 1]) / min(i + 1, window) for i in range(len(losses))]


def save_curve(losses: list[float], title: str, path: Path) -> None:
    """Draws the loss of each step, and its running mean."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        console.print("no curve drawn: matplotlib is missing (pip install 'scanc[examples]')", style="yellow")
        return
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(title=title, xlabel="step", ylabel="loss (nats)")
    axes.plot(losses, color="tab:blue", alpha=0.3)
    axes.plot(smooth(losses), color="tab:blue")
    axes.grid(visible=True, alpha=0.25)
    figure.savefig(path, dpi=150)
    console.print(f"loss curve: {path}")
