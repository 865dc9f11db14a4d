"""Every bad program gives exactly the message that stands beside it (`--regenerate` writes them anew)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scanc.diagnostics.codes import CODES
from scanc.diagnostics.diagnostic import CompileError
from scanc.semantics.lower import lower

BAD = Path(__file__).parent / "bad"
PROGRAMS = sorted(BAD.glob("*.scan"))


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_message(path: Path, regenerate: bool) -> None:
    with pytest.raises(CompileError) as caught:
        lower(path.read_text(encoding="utf-8"), source=path.name, root=BAD)
    message = f"{caught.value}\n"
    expected = path.with_suffix(".expected")
    if regenerate:
        expected.write_text(message, encoding="utf-8")
    assert expected.exists(), f"{expected.name} is missing; run with --regenerate and read it"
    assert message == expected.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_no_internals(path: Path) -> None:
    message = path.with_suffix(".expected").read_text(encoding="utf-8")
    for word in ("Traceback", "Error(", "<class", "None", "LSQB", "TensorType", "n_col", "scanc."):
        assert word not in message
    assert set(re.findall(r"error\[(\w+)\]", message)) <= set(CODES)


def test_enough() -> None:
    assert len(PROGRAMS) >= 50


def test_every_code_is_pinned() -> None:
    messages = [path.with_suffix(".expected").read_text(encoding="utf-8") for path in PROGRAMS]
    pinned = {code for message in messages for code in re.findall(r"\[(E\d+)\]", message)}
    elsewhere = {
        "E0706", "E0707", "E0708",  # raised by passes
        "E0805", "E0901", "E0906",  # need files that no repository should hold; see tests/semantics
    }  # fmt: skip
    assert {code for code in CODES if code[0] == "E"} - pinned - elsewhere == set()


def test_no_expected_file_is_left_over() -> None:
    assert {path.stem for path in BAD.glob("*.expected")} == {path.stem for path in PROGRAMS}
