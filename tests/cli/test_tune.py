"""`scanc tune`: candidates are checked, the fastest is stored, and the next call runs it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from scanc_runtime import auto, cache, tuned
from scanc_runtime.tiling import Watched, watched
from torch import Tensor
from torch.testing import assert_close
from typer.testing import CliRunner

import scanc as compiler
from scanc.bench import tune
from scanc.bench.measure import Timing
from scanc.cli import app

EXAMPLES = Path(__file__).parents[2] / "examples"
EMA, GRU = str(EXAMPLES / "ema.scan"), str(EXAMPLES / "gru.scan")
ON_TORCH = ("--target", "torch", "--device", "cpu", "--batch", "2")
ON_TRITON = ("--target", "triton", "--device", "cpu", "--batch", "1", "--time", "20", "--size", "d=8")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv(cache.DIRECTORY, str(tmp_path / "cache"))
    tuned.forget()
    return tmp_path / "cache"


def run(*arguments: str) -> Any:
    result = CliRunner().invoke(app, ["tune", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def rows(output: str) -> list[list[str]]:
    """The cells of the table's candidates."""
    lines = [line.strip() for line in output.splitlines()]
    return [[cell.strip() for cell in line.split("  ") if cell] for line in lines if " ms" in line or "differs" in line]


def faked(monkeypatch: pytest.MonkeyPatch, seconds: Callable[[Mapping[str, Any]], float]) -> None:
    """Lets a call take as long as `seconds` says of the choice that is being tried."""

    def time_call(call: Callable[[], object], device: torch.device, *, seconds: float) -> Timing:
        call()
        took = fake(tuned._tried)
        return Timing(took, took, took, 1)

    def fake(tried: Mapping[str, Mapping[str, Any]] | None) -> float:
        assert tried is not None
        (choice,) = tried.values()
        return seconds(choice)

    monkeypatch.setattr(tune, "time_call", time_call)


def test_the_torch_target_is_measured_and_the_next_process_runs_the_choice(home: Path) -> None:
    result = run(EMA, *ON_TORCH, "--time", "64", "--size", "d=3")
    assert result.exit_code == 0, result.output
    table = rows(result.stdout)
    assert [row[1] for row in table][:3] == ["chunked (default)", "recurrent", "parallel"]
    assert 3 < len(table) <= tune.MOST
    (chosen,) = [row[1] for row in table if row[-1] == "yes"]
    assert "ema: batch = 2, time = 64, d = 3, float32, cpu" in result.stdout
    (path,) = (home / "tuned").rglob("*.json")
    assert str(path) in result.stdout
    code = f"import scanc, torch; print(scanc.load({EMA!r}).explain(torch.randn(2, 64, 3), torch.randn(3)))"
    text = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert f"form {chosen.split()[0].strip(',')}," in text


def test_the_fastest_form_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    faked(monkeypatch, lambda choice: 1.0 if choice.get("form") == "parallel" else 2.0)
    result = run(EMA, *ON_TORCH, "--time", "64", "--no-backward")
    assert [row[1] for row in rows(result.stdout) if row[-1] == "yes"] == ["parallel"]
    x, logit = torch.randn(2, 64, 16), torch.randn(16)
    assert "form parallel" in compiler.load(EMA, target="torch").explain(x, logit)


def test_a_gain_within_noise_leaves_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    faked(monkeypatch, lambda choice: 0.99 if choice.get("form") == "parallel" else 1.0)
    result = run(EMA, *ON_TORCH, "--time", "64")
    assert [row[1] for row in rows(result.stdout) if row[-1] == "yes"] == ["chunked (default)"]


def test_a_candidate_with_other_values_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    faked(monkeypatch, lambda choice: 1.0 if choice.get("form") == "parallel" else 2.0)
    run_one = compiler.ScanOperator.__call__

    def wrong(self: compiler.ScanOperator, *tensors: Tensor, **options: Any) -> Any:
        outputs, final = run_one(self, *tensors, **{**options, "return_state": True})
        if any(choice.get("form") == "parallel" for choice in (tuned._tried or {}).values()):
            outputs = outputs * 1.001
        return (outputs, final) if options.get("return_state") else outputs

    monkeypatch.setattr(compiler.ScanOperator, "__call__", wrong)
    table = rows(run(EMA, *ON_TORCH, "--time", "64").stdout)
    assert [row[2] for row in table if row[1] == "parallel"] == ["differs by 1.0e-03"]
    assert not [row for row in table if row[-1] == "yes" and row[1] == "parallel"]


def test_kernels_are_tuned_one_by_one_and_laid_out_as_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    faked(monkeypatch, lambda choice: 1.0 if choice.get("unroll") == 8 or choice.get("num_warps") == 2 else 2.0)
    result = run(EMA, *ON_TRITON)
    assert result.exit_code == 0, result.output
    table = rows(result.stdout)
    kernels = {row[0] for row in table}
    assert sorted(name.split()[0] for name in kernels) == ["backward", "forward"]
    assert all(sum(row[0] == name for row in table) <= tune.MOST for name in kernels)
    chosen = {row[0].split()[0]: row[1] for row in table if row[-1] == "yes"}
    assert chosen == {"forward": "2 warps", "backward": "2 warps"}
    forward, backward = laid()
    assert forward.blocks.num_warps == backward.blocks.num_warps == 2
    x, logit = torch.randn(1, 20, 8), torch.randn(8)
    assert_close(compiler.load(EMA, target="triton")(x, logit), compiler.load(EMA, target="torch")(x, logit))


def on_a_chip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets calls choose their form as on a GPU, and be long from 40 steps on."""
    monkeypatch.setattr(auto, "multiprocessors", lambda device: 132)
    monkeypatch.setattr(auto, "LONG", 40)


@pytest.mark.parametrize(
    ("time", "default", "fastest"),
    [
        (20, "chunked", "chunked"),
        (20, "chunked", "parallel"),
        (40, "parallel", "recurrent"),
        (40, "parallel", "parallel"),
    ],
)
def test_forms_are_tried_where_auto_depends_on_sizes(
    monkeypatch: pytest.MonkeyPatch, time: int, default: str, fastest: str
) -> None:
    on_a_chip(monkeypatch)
    monkeypatch.setattr(tune, "MOST", 3)
    monkeypatch.setattr(tune, "_of_kernel", lambda kernel, direction: [])
    faked(monkeypatch, lambda choice: 1.0 if choice.get("form", default) == fastest else 2.0)
    sizes = "--target", "triton", "--device", "cpu", "--batch", "1", "--time", str(time), "--size", "d=2"
    result = run(EMA, *sizes, "--no-backward")
    assert result.exit_code == 0, result.output
    others = [form for form in ("recurrent", "chunked", "parallel") if form != default]
    assert [row[1] for row in rows(result.stdout)] == [f"{default} (default)", *others]
    assert [row[1].split()[0] for row in rows(result.stdout) if row[-1] == "yes"] == [fastest]
    x, logit = torch.randn(1, time, 2), torch.randn(2)
    op = compiler.load(EMA, target="triton")
    assert f"form {fastest}" in op.explain(x, logit)
    assert f"form {default}" in op.explain(x[:, :-1].repeat(1, 2, 1), logit)


def test_what_has_one_form_at_any_size_is_tuned_by_its_kernels_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_chip(monkeypatch)
    faked(monkeypatch, lambda choice: 1.0)
    sizes = "--target", "triton", "--device", "cpu", "--batch", "1", "--time", "4", "--size", "d=2"
    for file, more in ((GRU, ()), (EMA, ("--dtype", "float64"))):
        table = rows(run(file, *sizes, "--no-backward", *more).stdout)
        assert {row[0].split()[0] for row in table} == {"forward"}


def laid() -> tuple[Watched, Watched]:
    """How the two kernels of `ema` are laid out."""
    op = compiler.load(EMA, target="triton")
    with watched() as kernels:
        op(torch.randn(1, 20, 8, requires_grad=True), torch.randn(8)).sum().backward()
    forward, backward = kernels.values()
    return forward, backward


def test_no_candidate_passes_the_limits_of_its_kernel() -> None:
    for kernel in laid():
        for candidate in tune._of_kernel(kernel, "forward"):
            assert candidate.choice == {} or kernel.tiling._read(candidate.choice) is not None


def test_a_spec_without_a_choice_is_measured_all_the_same() -> None:
    result = run(GRU, *ON_TORCH, "--time", "4", "--size", "d=3")
    assert result.exit_code == 0, result.output
    assert [row[1] for row in rows(result.stdout)] == ["recurrent (default)"]


def test_what_cannot_be_stored_is_said(home: Path) -> None:
    home.mkdir()
    home.chmod(0o777)
    with pytest.warns(cache.CacheWarning):
        result = run(EMA, *ON_TORCH, "--time", "8", "--no-backward")
    assert result.exit_code == 1
    assert "not everything could be stored" in result.stderr


@pytest.mark.parametrize("arguments", [("--size", "z=3"), ("--time", "0"), ("--device", "abacus")])
def test_tune_refuses(arguments: tuple[str, ...]) -> None:
    assert run(EMA, *arguments).exit_code == 2


@pytest.mark.gpu
def test_kernels_are_tuned_on_a_gpu(home: Path) -> None:
    result = run(EMA, "--batch", "4", "--time", "2048", "--size", "d=512", "--dtype", "bfloat16")
    assert result.exit_code == 0, result.output
    table = rows(result.stdout)
    assert not [row for row in table if "differs" in row[2]]
    assert len([row for row in table if row[-1] == "yes"]) == len(list((home / "tuned").rglob("*.json"))) >= 2
    tensors = torch.randn(4, 2048, 512, device="cuda", dtype=torch.bfloat16), torch.randn(512, device="cuda")
    op = compiler.load(EMA)
    found = op(*tensors)
    with tuned.trying({}):
        assert_close(found, op(*tensors))
