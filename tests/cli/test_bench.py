"""The instruments themselves: errors, timings, sizes and rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure

from scanc.bench import arguments, compare, measure, plot
from scanc.ir.nodes import Axis, Kind, Level, Program, Tensor, TensorType


def program(*axes: Axis) -> Program:
    """One that only has axes and an input over all of them."""
    names = tuple(axis.name for axis in axes)
    tensor = Tensor("x", tuple((name,) for name in names), TensorType(names, Kind.REAL))
    return Program("p", Level.TYPED, "real", axes, (tensor,), (), (), (), (), ())


@pytest.mark.parametrize(
    ("ours", "theirs", "error"),
    [
        ([1.0, 2.5], [1.0, 2.0], 0.25),
        ([1.0, float("-inf")], [1.0, float("-inf")], 0.0),
        ([1.0, float("nan")], [1.0, float("nan")], 0.0),
        ([1.0, float("nan")], [1.0, 2.0], float("inf")),
        ([1.0, float("inf")], [1.0, float("-inf")], float("inf")),
        ([0.0, 1e-3], [0.0, 0.0], 1e-3),
        ([], [], 0.0),
    ],
)
def test_error_is_relative_to_the_largest_entry(ours: list[float], theirs: list[float], error: float) -> None:
    found = compare.error(torch.tensor(ours), torch.tensor(theirs))
    assert found == pytest.approx(error)


def test_error_of_integers_is_the_share_of_wrong_ones() -> None:
    assert compare.error(torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 3, 5])) == 0.25


def test_error_of_another_shape_is_infinite() -> None:
    assert compare.error(torch.ones(2, 3), torch.ones(3, 2)) == float("inf")


def test_time_call_is_the_median_of_at_least_five() -> None:
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1
        time.sleep(0.002)

    timing = measure.time_call(call, torch.device("cpu"), seconds=0.001)
    assert timing.runs == measure.ENOUGH_RUNS
    assert calls > timing.runs
    assert 0.002 <= timing.fastest <= timing.median <= timing.slowest


def test_grid_is_every_form_at_every_length_in_each_direction() -> None:
    cases = measure.grid(["a", "b"], [8, 16], 2, {"d": 4}, "float32", "cpu", backward=True)
    assert len(cases) == len(set(cases)) == 8
    assert measure.grid(["a"], [8], 2, {}, "float32", "cpu", backward=False)[0].direction == "forward"


def test_sizes_are_given_fixed_shared_or_small() -> None:
    axes = (Axis("h"), Axis("i"), Axis("w", size=4), Axis("m", like="i"), Axis("j"))
    assert arguments.complete_sizes(program(*axes), {"j": 5}) == {"h": 2, "i": 16, "w": 4, "m": 16, "j": 5}
    assert arguments.complete_sizes(program(*axes), {"m": 7})["i"] == 7
    with pytest.raises(arguments.UnusableArguments, match="axis 'w' has size 4 in p, not 5"):
        arguments.complete_sizes(program(*axes), {"w": 5})


def test_long_sequences_repeat_what_was_drawn() -> None:
    call = arguments.draw(program(Axis("d")), batch=2, time=150, sizes={"d": 3}, dtype="float16")
    x = call.tensors["x"]
    assert x.shape == (2, 150, 3)
    assert x.dtype == torch.float16
    assert torch.equal(x[:, :86], x[:, 64:])


def test_tolerance_is_that_of_the_narrowest_tensor() -> None:
    def call(*dtypes: torch.dtype) -> arguments.Call:
        return arguments.Call({str(d): torch.ones(1, dtype=d) for d in dtypes}, {}, 1, 1, {})

    assert compare.tolerance(call(torch.float64)) == compare.TOLERANCES[torch.float64]
    assert compare.tolerance(call(torch.float64, torch.bfloat16)) == compare.TOLERANCES[torch.bfloat16]
    assert compare.tolerance(call(torch.complex64)) == compare.TOLERANCES[torch.float32]
    assert compare.tolerance(call(torch.int64)) == compare.TOLERANCES[torch.float32]


def measured(form: str, time: int, seconds: float) -> measure.Measurement:
    case = measure.Case(form, 2, time, (("d", 4),), "float32", "cpu", "forward")
    return measure.Measurement(case, measure.Timing(seconds, seconds, seconds, 5), bytes=8000, copy=1e-5)


def test_the_plot_is_of_bytes_that_must_move_against_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = plot.points([measured("chunked", 16, 1e-4), measured("chunked", 8, 2e-4), measured("recurrent", 8, 1e-3)])
    assert [point.rate for point in found] == pytest.approx([8e7, 4e7, 8e6])
    assert [point.copy for point in found] == pytest.approx([8e8] * 3)
    drawn = drawing(monkeypatch)
    plot.plot([*found, plot.Point("forward", "theirs", 8, 3e7, 8e8, peer=True)], "title", tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    lines = {line.get_label(): line for line in drawn().axes[0].lines}
    assert list(lines) == ["chunked", "recurrent", "theirs", "copy of the tensors"]
    assert list(lines["chunked"].get_xdata()) == [8, 16]
    assert list(lines["chunked"].get_ydata()) == pytest.approx([0.04, 0.08])
    assert list(lines["copy of the tensors"].get_ydata()) == pytest.approx([0.8, 0.8])
    assert [line.get_linestyle() for line in lines.values()] == ["-", "-", ":", "--"]


def drawing(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """What has been drawn."""
    figures: list[Any] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))[1])
    return lambda: figures[-1]
