"""Every command as a user and as a script sees it: output, files and exit codes."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from scanc.cli import app

EXAMPLES = Path(__file__).parents[2] / "examples"
GLA, EMA, GRU = (str(EXAMPLES / f"{name}.scan") for name in ("gla", "ema", "gru"))

Scanc = Callable[..., Any]


@pytest.fixture
def scanc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scanc:
    """Runs a command in an empty directory; a traceback for a user's fault fails the test."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Any:
        result = CliRunner().invoke(app, list(arguments))
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


@pytest.fixture
def wrong(tmp_path: Path) -> str:
    path = tmp_path / "wrong.scan"
    path.write_text("scan wrong\naxes d\ninput x[d]\nstate h[d]\nh = h + y\noutput h[d]\n")
    return str(path)


def test_without_a_command_it_lists_them(scanc: Scanc) -> None:
    result = scanc()
    assert all(command in result.output for command in ("check", "explain", "build", "run", "bench", "tune", "new"))


def test_version(scanc: Scanc) -> None:
    result = scanc("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("scanc 0.")


def test_check_says_the_class_of_each_stage(scanc: Scanc) -> None:
    result = scanc("check", GLA, GRU)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[::2] == [f"{GLA}: ok", f"{GRU}: ok"]
    assert lines[1].startswith("  S: outer product")
    assert lines[3].startswith("  h: nonlinear")


def test_check_names_every_wrong_spec_on_stderr(scanc: Scanc, wrong: str) -> None:
    result = scanc("check", wrong, GLA, "missing.scan")
    assert result.exit_code == 2
    for part in ("wrong.scan", "h = h + y", "^", "missing.scan: No such file"):
        assert part in result.stderr
    assert result.stdout.splitlines()[0] == f"{GLA}: ok"


def test_warnings_go_to_stderr(scanc: Scanc, tmp_path: Path) -> None:
    path = tmp_path / "idle.scan"
    path.write_text("scan idle\naxes d\ninput x[d], z[d]\nstate h[d]\nh = 0.5 * h + x\noutput h[d]\n")
    result = scanc("check", str(path))
    assert result.exit_code == 0
    assert "warning[W0101]: input `z` is never used" in result.stderr
    assert result.stdout.startswith(f"{path}: ok")


@pytest.mark.parametrize("command", ["explain", "run", "bench", "tune"])
def test_a_wrong_spec_is_a_message(scanc: Scanc, wrong: str, command: str) -> None:
    result = scanc(command, wrong)
    assert result.exit_code == 2
    assert "wrong.scan" in result.stderr
    assert result.stdout == ""


def test_a_file_that_is_no_text(scanc: Scanc, tmp_path: Path) -> None:
    (tmp_path / "binary.scan").write_bytes(b"\xff\xfe\x00scan")
    result = scanc("check", "binary.scan")
    assert result.exit_code == 2
    assert "UTF-8" in result.stderr


def test_a_directory_is_no_spec(scanc: Scanc, tmp_path: Path) -> None:
    result = scanc("check", str(tmp_path))
    assert result.exit_code == 2
    assert "Is a directory" in result.stderr


def test_explain(scanc: Scanc) -> None:
    result = scanc("explain", GLA)
    assert result.exit_code == 0
    assert "chunked" in result.stdout


def test_explain_says_why_a_form_is_refused(scanc: Scanc) -> None:
    result = scanc("explain", GRU, "--form", "chunked")
    assert result.exit_code == 0
    assert "nonlinear" in result.stdout


def test_explain_knows_the_forms(scanc: Scanc) -> None:
    assert scanc("explain", GRU, "--form", "magic").exit_code == 2


def test_explain_of_a_form_that_one_target_lacks(scanc: Scanc) -> None:
    first, second = scanc("explain", GLA, "--form", "parallel").stdout.splitlines()
    assert first == "torch target: parallel: all pairs of steps at once"
    assert second.startswith("triton target: parallel: not admitted: ")


def test_explain_tells_what_the_triton_passes_did(scanc: Scanc) -> None:
    lines = scanc("explain", str(EXAMPLES / "lru.scan")).stdout.splitlines()
    of_step, of_adjoint = lines.index("passes of the triton target"), lines.index("and on the adjoint")
    for start in (of_step, of_adjoint):
        assert [line.split(":")[0].strip() for line in lines[start + 1 : start + 4]] == ["realify", "fuse", "schedule"]


def test_explain_dumps_every_stage(scanc: Scanc, tmp_path: Path) -> None:
    assert scanc("explain", GLA, "--dump", "stages").exit_code == 0
    names = sorted(path.name for path in (tmp_path / "stages").iterdir())
    stages = [name for name in names if name.endswith(".ir")]
    assert [int(name[:2]) for name in stages] == list(range(len(stages)))
    assert stages[0] == "00_typed.ir"
    assert stages[-1].endswith("_triton_adjoint_fuse.ir")
    assert {"generated_torch.py", "generated_triton.py", "graph.dot", "graph.svg"} <= set(names)
    assert (tmp_path / "stages" / "graph.svg").read_text().startswith("<svg")


def test_a_built_module_runs_without_the_compiler(scanc: Scanc, tmp_path: Path) -> None:
    result = scanc("build", EMA, "-o", "ops.py", "--target", "torch")
    assert result.exit_code == 0
    assert result.stdout == "ops.py\n"
    code = """
import sys
sys.modules["scanc"] = None
import torch, ops
x = torch.ones(1, 3, 2)
print(ops.operator(x, torch.zeros(2)).squeeze().tolist())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[[0.5, 0.5], [0.75, 0.75], [0.875, 0.875]]", done.stderr


def test_build_into_a_missing_directory(scanc: Scanc) -> None:
    result = scanc("build", EMA, "-o", "nowhere/ops.py", "--target", "torch")
    assert result.exit_code == 2
    assert "nowhere/ops.py: No such file or directory" in result.stderr


def test_build_wants_an_output(scanc: Scanc) -> None:
    assert scanc("build", EMA).exit_code == 2


SMALL = ("--batch", "2", "--time", "9", "--target", "torch", "--device", "cpu")


def test_run_compares_every_form(scanc: Scanc) -> None:
    result = scanc("run", GLA, *SMALL, "--size", "i=3", "--size", "j=5")
    assert result.exit_code == 0, result.output
    for word in ("chunked", "recurrent", "final S", "d q", "d initial S", "+backward", "time = 9", "i = 3", "agrees"):
        assert word in result.stdout
    assert result.stderr == ""


def test_run_in_another_dtype_and_form(scanc: Scanc) -> None:
    result = scanc("run", EMA, *SMALL, "--dtype", "bfloat16", "--form", "recurrent", "--no-backward")
    assert result.exit_code == 0, result.output
    assert "bfloat16" in result.stdout
    assert "chunked" not in result.stdout
    assert "d x" not in result.stdout


def test_run_fails_above_the_tolerance(scanc: Scanc) -> None:
    result = scanc("run", GLA, *SMALL, "--tolerance", "0", "--form", "recurrent")
    assert result.exit_code == 1
    assert "!" in result.stdout
    assert "gla differs from the interpreter in fp64: the recurrent form by" in result.stderr


def test_run_takes_given_tensors(scanc: Scanc, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).standard_normal((3, 7, 5)).astype(np.float32))
    result = scanc("run", EMA, "--inputs", "x.npz", "--target", "torch", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "batch = 3, time = 7, d = 5" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--size", "d"), "a size is given as axis=number, as in d=64; got 'd'"),
        (("--size", "z=3"), "ema has no axis 'z'; its axes are d"),
        (("--form", "magic"), "magic"),
        (("--device", "abacus"), "no device 'abacus'"),
        (("--dtype", "int8"), "int8"),
        (("--inputs", "none.npz"), "none.npz"),
    ],
)
def test_run_refuses(scanc: Scanc, arguments: tuple[str, ...], message: str) -> None:
    result = scanc("run", EMA, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("tensors", "arguments", "message"),
    [
        ({"y": (2, 3, 4)}, (), "holds 'y'; the tensors of ema are x, logit"),
        ({"x": (2, 3)}, (), "'x' is [B, T, d] in ema; the given one has shape [2, 3]"),
        ({"x": (2, 3, 4)}, ("--time", "5"), "the given tensors have time = 3, not 5"),
        ({"x": (2, 3, 4)}, ("--size", "d=5"), "the given tensors have d = 4, not 5"),
        ({"x": (2, 3, 4), "logit": (5,)}, (), "'logit' has d = 5, another given tensor has 4"),
    ],
)
def test_run_refuses_tensors(
    scanc: Scanc, tmp_path: Path, tensors: dict[str, tuple[int, ...]], arguments: tuple[str, ...], message: str
) -> None:
    generator = np.random.default_rng(0)
    np.savez(tmp_path / "t.npz", **{name: generator.standard_normal(shape) for name, shape in tensors.items()})
    result = scanc("run", EMA, "--inputs", "t.npz", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_bench_prints_a_table_and_writes_files(scanc: Scanc, tmp_path: Path) -> None:
    result = scanc("bench", EMA, "--time", "8", "--time", "16", "--target", "torch", "--device", "cpu", "--size", "d=4",
                   "--csv", "times.csv", "--plot", "times.png")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "copy of the tensors" in result.stdout
    with (tmp_path / "times.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {line["time"] for line in lines} == {"8", "16"}
    assert {line["direction"] for line in lines} == {"forward", "forward+backward"}
    assert all(float(line["median_ms"]) > 0 for line in lines)
    assert (tmp_path / "times.png").read_bytes().startswith(b"\x89PNG")


def test_bench_without_matplotlib_says_so_before_measuring(scanc: Scanc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = scanc("bench", EMA, "--plot", "times.png")
    assert result.exit_code == 2
    assert "pip install 'scanc[plot]'" in result.stderr


def test_new_writes_a_spec_that_runs(scanc: Scanc, tmp_path: Path) -> None:
    result = scanc("new", "mine")
    assert result.exit_code == 0
    assert "scan mine" in (tmp_path / "mine.scan").read_text()
    assert scanc("check", "mine.scan").exit_code == 0
    assert scanc("run", "mine.scan", *SMALL).exit_code == 0


def test_new_overwrites_nothing(scanc: Scanc, tmp_path: Path) -> None:
    (tmp_path / "mine.scan").write_text("precious")
    result = scanc("new", "mine")
    assert result.exit_code == 2
    assert "already there" in result.stderr
    assert (tmp_path / "mine.scan").read_text() == "precious"


@pytest.mark.parametrize("name", ["../mine", "1st", "a b", "", "λ", "scan", "dot", 65 * "a"])
def test_new_wants_a_name(scanc: Scanc, name: str) -> None:
    result = scanc("new", name)
    assert result.exit_code == 2
    assert "cannot name a scan" in result.stderr


def test_piped_tables_are_not_cut(scanc: Scanc) -> None:
    long = EXAMPLES / "rwkv7.scan"
    result = scanc("run", str(long), *SMALL)
    assert "…" not in result.stdout


@pytest.mark.gpu
def test_run_and_bench_on_a_gpu(scanc: Scanc) -> None:
    result = scanc("run", GLA, "--batch", "2", "--time", "9")
    assert result.exit_code == 0, result.output
    assert "target triton; float32, cuda" in result.stdout
    result = scanc("bench", GLA, "--batch", "1", "--time", "64", "--target", "torch")
    assert result.exit_code == 0, result.output
    assert "float32, cuda" in result.stdout
