"""README tells the truth: its commands, its spec, its Python and its table of forms."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import scanc
from scanc.cli import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str, after: str = "") -> str:
    found = re.search(rf"{re.escape(after)}```{language}\n(.*?)```", README, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("name", ["try", "tests"])
def test_ci_runs_the_commands_to_the_letter(name: str) -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert f'bash -euo pipefail -c "$(.ci/readme-command {name})"' in script
    printed = subprocess.run([ROOT / ".ci" / "readme-command", name], capture_output=True, text=True, check=True).stdout
    assert printed == block("bash", f"<!-- {name} -->\n")


def test_each_command_installs_what_it_needs() -> None:
    for name in ("try", "tests"):
        commands = block("bash", f"<!-- {name} -->\n")
        assert commands.startswith("python3 -m venv .venv && . .venv/bin/activate && pip install torch==")


def test_the_commands_of_the_compiler_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    commands = [line.strip(" &") for line in block("bash", "<!-- try -->\n").splitlines()]
    ours = [shlex.split(line)[1:] for line in commands if line.startswith("scanc ")]
    assert len(ours) == 2
    for arguments in ours:
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output


def test_the_spec_and_its_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gla.scan").write_text(block(""))
    exec(compile(block("python"), "README.md", "exec"), {})
    assert "gla" in capsys.readouterr().out


def test_prototyping_leads_to_a_trained_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "prototyping.md").read_text(encoding="utf-8")
    spec = re.search(r"```\n(# decayed:.*?)```", page, re.DOTALL)
    module = re.search(r"```python\n(import scanc\nimport torch.*?)```", page, re.DOTALL)
    assert spec is not None
    assert module is not None
    Path("decayed.scan").write_text(spec[1])
    assert CliRunner().invoke(app, ["run", "decayed.scan", "--time", "9"]).exit_code == 0
    names: dict[str, Any] = {}
    exec(compile(module[1], "prototyping.md", "exec"), names)
    layer = names["Decayed"](32)
    layer(torch.randn(2, 9, 32)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in layer.parameters())


def rows() -> list[tuple[str, str]]:
    """(example, forms) of every example in the table of forms."""
    table = README.split("## Forms")[1].split("## More")[0]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
    return [(name, row[2]) for row in cells[2:] for name in re.findall(r"`(\w+)`", row[1])]


@pytest.mark.parametrize(("name", "forms"), rows())
def test_the_table_of_forms(name: str, forms: str) -> None:
    spec = scanc.load(ROOT / "examples" / f"{name}.scan", target="torch").spec
    assert sorted(spec.forms) == sorted(forms.split(", "))


def test_every_link_leads_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "docs" / "prototyping.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
