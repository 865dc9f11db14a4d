"""One example on a GPU: its errors against the interpreter in fp64, and its time per call."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import torch
from scanc_runtime.tiling import forced
from torch import Tensor

import scanc
from scanc.interpreter import interpret, random_arguments
from scanc.ir.nodes import Program
from scanc.semantics.lower import lower

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.scan"))
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Tensors = dict[str, Tensor]


@dataclass
class Row:
    """What one example gave: the worst error of values and of gradients and where, or what went wrong."""

    name: str
    dtype: str
    values: float = float("nan")
    gradients: float = float("nan")
    worst: str = ""
    failure: str = ""
    errors: dict[str, float] = field(default_factory=dict)


def program_of(name: str) -> Program:
    path = EXAMPLES / f"{name}.scan"
    return lower(path.read_text(encoding="utf-8"), source=path.name, root=EXAMPLES)


def sizes_of(program: Program, width: int) -> dict[str, int]:
    """Few heads, the rest `width` and a little less: not all sizes are powers of two."""
    free = [axis for axis in program.axes if axis.size is None and axis.like is None]
    widths = cycle((width, width - 4))
    return {axis.name: 3 if axis.batch else next(widths) for axis in free}


def errors(
    name: str,
    dtype: str,
    *,
    width: int = 32,
    time: int = 70,
    blocks: dict[str, int] | None = None,
    warps: int | None = None,
) -> Row:
    """Values and gradients (initial and final states included) of one forward and backward.

    A layout is forced on the form recurrent; memories have layouts of their own (`test_memories.py`).
    """
    row, own = Row(name, dtype), bool(blocks or warps)
    try:
        with forced(blocks, warps) if own else nullcontext():
            row.errors = _errors(name, DTYPES[dtype], width, time, "recurrent" if own else "auto")
    except Exception as error:
        row.failure = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        return row
    values = {key: e for key, e in row.errors.items() if not key.startswith("d ")}
    gradients = {key: e for key, e in row.errors.items() if key.startswith("d ")}
    row.values, row.gradients = worst(values.values()), worst(gradients.values())
    row.worst = max(row.errors, key=lambda key: float("inf") if row.errors[key] != row.errors[key] else row.errors[key])
    return row


def worst(found: Iterable[float]) -> float:
    """The largest; one that is no number is larger than all, and of none it is 0."""
    return max(found, key=lambda e: float("inf") if e != e else e, default=0.0)


def _errors(name: str, dtype: torch.dtype, width: int, time: int, form: str) -> dict[str, float]:
    program = program_of(name)
    inputs, params, initial = random_arguments(
        program, batch=2, time=time, sizes=sizes_of(program, width), dtype=torch.float64
    )
    inputs = {key: _rounded(x, dtype) for key, x in inputs.items()}
    params, initial = ({key: _rounded(x, torch.float32) for key, x in group.items()} for group in (params, initial))
    operator = scanc.load(EXAMPLES / f"{name}.scan", target="triton")

    here = {key: leaf(x.cuda()) for key, x in {**inputs, **params, **initial}.items()}
    state = {key: here[key] for key in initial}
    got, last = operator(
        **{key: here[key] for key in (*inputs, *params)}, initial_state=state or None, return_state=True, form=form
    )
    names = [output.name for output in program.outputs]
    got = dict(zip(names, got if isinstance(got, tuple) else (got,), strict=True))
    got |= {f"final {key}": x for key, x in last.items()}

    there = {key: leaf(wide(x)) for key, x in {**inputs, **params, **initial}.items()}
    pick = [{key: there[key] for key in group} for group in (inputs, params, initial)]
    outputs, final = interpret(program, *pick)
    wanted = {**outputs, **{f"final {key}": x for key, x in final.items()}}

    found = {key: _relative(got[key], x) for key, x in wanted.items()}
    generator = torch.Generator().manual_seed(3)
    cotangents = {
        key: _rounded(torch.randn(x.shape, generator=generator, dtype=x.dtype), got[key].dtype)
        for key, x in wanted.items()
        if x.requires_grad
    }
    leaves = {key: x for key, x in there.items() if x.requires_grad}
    if not cotangents:
        return found
    flows = [(got[key], wanted[key], g) for key, g in cotangents.items()]
    mine = torch.autograd.grad(
        [y for y, _, _ in flows], [here[key] for key in leaves], [g.cuda() for _, _, g in flows], allow_unused=True
    )
    truth = torch.autograd.grad(
        [y for _, y, _ in flows], list(leaves.values()), [wide(g) for _, _, g in flows], allow_unused=True
    )
    for (key, of), have, want in zip(leaves.items(), mine, truth, strict=True):
        want = torch.zeros_like(of) if want is None else want
        found[f"d {key}"] = _relative(torch.zeros_like(want) if have is None else have, want)
    return found


def _rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    if x.is_complex():
        return x.to(dtype if dtype.is_complex else torch.complex64)
    return x.to(dtype) if x.is_floating_point() else x


def wide(x: Tensor) -> Tensor:
    return x.to(torch.complex128) if x.is_complex() else x.double() if x.is_floating_point() else x


def leaf(x: Tensor) -> Tensor:
    return x.detach().clone().requires_grad_(x.is_floating_point() or x.is_complex())


def _relative(got: Tensor, wanted: Tensor) -> float:
    """The largest difference in proportion to the largest finite value; equal infinities differ by nothing."""
    got, wanted = wide(got.detach().cpu()), wanted.detach()
    if wanted.numel() == 0:
        return 0.0
    if not wanted.is_floating_point() and not wanted.is_complex():
        return float((got != wanted).sum())
    gap = torch.where(got == wanted, torch.zeros_like(wanted), got - wanted).abs()
    finite = wanted.abs()[wanted.isfinite()]
    return float(gap.max() / finite.max().clamp_min(1e-6)) if finite.numel() else float(gap.max())


def times(name: str, dtype: str, *, width: int = 32, batch: int = 8, time: int = 1024) -> tuple[float, float]:
    """Median milliseconds of a forward, and of a forward with its backward."""
    program = program_of(name)
    inputs, params, _ = random_arguments(program, batch=batch, time=1, sizes=sizes_of(program, width))
    inputs = {key: _rounded(x.expand(-1, time, *x.shape[2:]), DTYPES[dtype]).cuda() for key, x in inputs.items()}
    params = {key: _rounded(x, torch.float32).cuda() for key, x in params.items()}
    leaves = {key: leaf(x) for key, x in {**inputs, **params}.items()}
    operator = scanc.load(EXAMPLES / f"{name}.scan", target="triton")

    def forward() -> None:
        with torch.no_grad():
            operator(**leaves)

    def both() -> None:
        y = operator(**leaves)
        ys = [x for x in (y if isinstance(y, tuple) else (y,)) if x.requires_grad]
        if ys:
            torch.autograd.backward(ys, [torch.ones_like(x) for x in ys])

    return _median(forward), _median(both)


def _median(run: object, repeats: int = 10) -> float:
    assert callable(run)
    for _ in range(3):
        run()
    found = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        found.append(begin.elapsed_time(end))
    return sorted(found)[repeats // 2]
