"""Imports: where they are looked for, what they may hold, and their limits."""

from __future__ import annotations

from pathlib import Path

import pytest

from scanc.diagnostics.diagnostic import CompileError
from scanc.semantics.lower import analyse
from scanc.syntax import limits

SPEC = 'scan s\nimport "{path}" as lib\naxes d\ninput x[d]\ny = lib.f(x)\noutput y[d]\n'


def codes(path: str, root: Path | None, source: str = "spec.scan") -> list[str]:
    try:
        analyse(SPEC.format(path=path), source=source, root=root)
    except CompileError as error:
        return [diagnostic.code for diagnostic in error.diagnostics]
    return []


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "inner" / "deep").mkdir(parents=True)
    (tmp_path / "f.scan").write_text("def f(x) = 2*x\n", encoding="utf-8")
    (tmp_path / "inner" / "f.scan").write_text('import "deep/g.scan" as g\ndef f(x) = g.g(x) + 1\n', encoding="utf-8")
    (tmp_path / "inner" / "deep" / "g.scan").write_text("def g(x) = 3*x\n", encoding="utf-8")
    return tmp_path


def test_imports_are_read_relative_to_the_importing_file(root: Path) -> None:
    assert codes("f.scan", root) == []
    assert codes("inner/f.scan", root) == []
    lowered = analyse(SPEC.format(path="inner/f.scan"), source="models/spec.scan", root=root)
    assert list(lowered.sources) == ["models/spec.scan", "models/inner/f.scan", "models/inner/deep/g.scan"]
    assert [instr.op for instr in lowered.program.instrs]


def test_imports_stay_below_the_importing_file(root: Path) -> None:
    outside = root.parent / "outside.scan"
    outside.write_text("def f(x) = x\n", encoding="utf-8")
    assert codes("../outside.scan", root) == ["E0804"]
    assert codes(str(outside), root) == ["E0804"]
    assert codes("inner/../f.scan", root) == []
    (root / "inner" / "up.scan").write_text('import "../f.scan" as f\ndef f(x) = f.f(x)\n', encoding="utf-8")
    assert codes("inner/up.scan", root) == ["E0804"]
    (root / "link.scan").symlink_to(outside)
    assert codes("link.scan", root) == ["E0804"]


def test_a_spec_without_a_file_cannot_import() -> None:
    assert codes("f.scan", None) == ["E0804"]


def test_files_that_cannot_be_read(root: Path) -> None:
    (root / "bytes.scan").write_bytes(b"\xff\xfe\x00")
    (root / "folder.scan").mkdir()
    (root / "long.scan").write_text("#" * (5 * limits.SOURCE_CHARS), encoding="utf-8")
    assert codes("bytes.scan", root) == ["E0805"]
    assert codes("folder.scan", root) == ["E0805"]
    assert codes("none.scan", root) == ["E0805"]
    assert codes("nul\x00.scan", root) in (["E0805"], ["E0804"])
    assert codes("long.scan", root) == ["E0901"]


def test_circles_and_depth(root: Path) -> None:
    (root / "a.scan").write_text('import "b.scan" as b\ndef f(x) = b.f(x)\n', encoding="utf-8")
    (root / "b.scan").write_text('import "a.scan" as a\ndef f(x) = a.f(x)\n', encoding="utf-8")
    assert codes("a.scan", root) == ["E0806"]
    (root / "self.scan").write_text(SPEC.format(path="self.scan"), encoding="utf-8")
    assert codes("self.scan", root, "self.scan") == ["E0806"]
    for i in range(20):
        (root / f"n{i}.scan").write_text(f'import "n{i + 1}.scan" as n\ndef f(x) = n.f(x)\n', encoding="utf-8")
    (root / "n20.scan").write_text("def f(x) = x\n", encoding="utf-8")
    assert codes("n0.scan", root) == ["E0906"]
    assert codes(f"n{20 - limits.IMPORT_DEPTH + 1}.scan", root) == []


def test_a_file_imported_twice_is_read_once(root: Path) -> None:
    (root / "both.scan").write_text(
        'import "f.scan" as one\nimport "f.scan" as two\ndef f(x) = one.f(x) + two.f(x)\n', encoding="utf-8"
    )
    assert codes("both.scan", root) == []
