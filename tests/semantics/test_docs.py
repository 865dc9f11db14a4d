"""The documentation: every spec in `docs/` compiles, and `docs/errors.md` lists every code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scanc.diagnostics.codes import CODES
from scanc.ir.levels import verify
from scanc.semantics.lower import analyse
from scanc.syntax.lexer import KEYWORDS

DOCS = Path(__file__).parents[2] / "docs"
LIBRARY = re.search(r"```text\n(def l2.*?)```", (DOCS / "language.md").read_text(encoding="utf-8"), re.S)


def blocks() -> list[tuple[str, str]]:
    """Every fenced `scan` block with the page and the name that it gives itself."""
    found = []
    for page in sorted(DOCS.glob("*.md")):
        for text in re.findall(r"```scan\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
            name = re.search(r"^scan +(\w+)", text, re.M)
            found.append((f"{page.stem}-{name.group(1) if name else 'nameless'}", text))
    return found


@pytest.mark.parametrize(("name", "text"), blocks(), ids=[name for name, _ in blocks()])
def test_block(name: str, text: str, tmp_path: Path) -> None:
    assert LIBRARY is not None
    (tmp_path / "norms.scan").write_text(LIBRARY.group(1), encoding="utf-8")
    lowered = analyse(text, source=name, root=tmp_path)
    verify(lowered.program)
    if name.startswith("language-"):
        assert lowered.warnings == ()


def test_language_names_every_keyword_and_function() -> None:
    from scanc.ir.functions import SEMIRINGS
    from scanc.semantics.builtins import FUNCTIONS, RULES

    page = (DOCS / "language.md").read_text(encoding="utf-8")
    for word in (*KEYWORDS, *FUNCTIONS, *RULES, *SEMIRINGS):
        assert re.search(rf"\b{word}\b", page), f"docs/language.md does not speak of {word}"


def test_every_code_is_listed() -> None:
    page = (DOCS / "errors.md").read_text(encoding="utf-8")
    for code, sentence in CODES.items():
        assert f"| {code} | {sentence} |" in page
