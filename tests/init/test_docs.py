"""The page on initial values: its table is complete, and its programs run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from scanc_runtime import cache

from scanc import init

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "init.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_table_lists_every_function() -> None:
    listed = re.findall(r"^\| `(\w+)\(", PAGE, re.MULTILINE)
    assert sorted(listed) == sorted(name for name in init.__all__ if name.islower())


@pytest.mark.parametrize("program", PROGRAMS, ids=["s4d", "lru"])
def test_programs(program: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(cache.DIRECTORY, str(tmp_path / "cache"))
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {}
    exec(compile(program, "init.md", "exec"), names)
    assert names["y"].shape == (2, 1000, 16)
    assert names["y"].isfinite().all()
    assert names["y"].std() > 0.1
