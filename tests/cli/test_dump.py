"""The files of `scanc explain --dump`: a second dump leaves nothing of the first that would mislead."""

from __future__ import annotations

from pathlib import Path

from scanc.driver import compile_text
from scanc.dump import write_stages

EXAMPLES = Path(__file__).parents[2] / "examples"


def dump(name: str, directory: Path) -> set[str]:
    compiled = compile_text((EXAMPLES / f"{name}.scan").read_text(encoding="utf-8"))
    return {path.name for path in write_stages(compiled, directory)}


def test_the_stages_of_an_earlier_dump_are_gone(tmp_path: Path) -> None:
    first, second = dump("selective_ssm", tmp_path), dump("ema", tmp_path)
    assert first - second
    assert {path.name for path in tmp_path.iterdir()} == second


def test_other_files_stay(tmp_path: Path) -> None:
    (tmp_path / "00_old.ir").mkdir()
    mine = {
        "notes.ir": "program notes",
        "01_notes.ir": "my own text",
        "generated_by_me.py": "x = 1",
        "02_b.txt": "program",
    }
    for name, text in mine.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    dump("ema", tmp_path)
    assert {name: (tmp_path / name).read_text(encoding="utf-8") for name in mine} == mine
    assert (tmp_path / "00_old.ir").is_dir()
