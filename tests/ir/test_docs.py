"""docs/ir.md says what the tables say: its program is one; its operations, semirings, regions and levels are all."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from scanc.ir.functions import REDUCTIONS, SEMIRINGS, TABLE
from scanc.ir.levels import verify
from scanc.ir.nodes import Kind, Level, Map, Op, RegionKind
from scanc.ir.printer import print_program
from scanc.ir.reader import read_program

PAGE = (Path(__file__).parents[2] / "docs" / "ir.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(title: str) -> dict[str, str]:
    """The table of a section, code in the first column → the other column."""
    cells = re.findall(r"^\| (`.*?) \| (.*) \|$", section(title), flags=re.MULTILINE)
    return dict(cells)


def words(text: str) -> list[str]:
    """Everything between backticks."""
    return re.findall(r"`([^`]+)`", text)


def test_the_program_is_read_verified_and_printed() -> None:
    text = PAGE.split("```\n")[1]
    program = read_program(text)
    verify(program)
    assert print_program(program) == text


def test_kinds() -> None:
    listed = section("Values and types").split("A type is a kind\n(")[1].split(")")[0]
    assert words(listed) == [kind.value for kind in Kind]


def test_every_operation_has_its_text() -> None:
    table = rows("Operations")
    heads = [re.split(r"[.{(]", word)[0] for text in table for word in words(text)]
    functions = [head for head in heads if head in TABLE]
    assert functions, "the elementwise functions have a row"
    named = {head for head in heads if head not in TABLE}
    assert named == {op.__name__.lower() for op in get_args(Op) if op is not Map}


def test_reductions_and_semirings() -> None:
    table = {text.split("{")[0].strip("`"): meaning for text, meaning in rows("Operations").items()}
    assert words(table["reduce.sum"]) == list(REDUCTIONS)
    assert words(table["contract.real"]) == list(SEMIRINGS)


def test_regions() -> None:
    listed = [words(text)[0].split()[0] for text in rows("Regions")]
    assert listed == [kind.value for kind in RegionKind if kind is not RegionKind.STEP]


def test_levels() -> None:
    assert [words(text)[0] for text in rows("Levels")] == [level.value for level in Level]
