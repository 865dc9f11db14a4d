"""Whatever the text, the front end answers with a program or with a CompileError that can be rendered."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scanc.diagnostics.diagnostic import CompileError
from scanc.ir.levels import verify
from scanc.semantics.lower import lower

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "docs" / "language.md").read_text(encoding="utf-8")
SPECS = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "examples").glob("*.scan"))]
SPECS += re.findall(r"```scan\n(.*?)```", PAGES, re.S)
SPECS += [path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests/diagnostics/bad").glob("[a-k]*.scan"))]
TOKENS = sorted({token for spec in SPECS for token in re.findall(r"\w+|[^\w\s]|\n", spec)} - {"1000000000"})


def compiles_or_says_why(text: str) -> None:
    try:
        program = lower(text, source="fuzz.scan", root=ROOT / "tests/diagnostics/bad")
    except CompileError as error:
        message = str(error)
    else:
        verify(program)
        return
    assert message.startswith("error[E")
    assert "_col" not in message or "_col" in text


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A valid spec with a few tokens removed, replaced, doubled or swapped."""
    tokens = re.findall(r"\w+|[^\w\s]|\s+", draw(st.sampled_from(SPECS)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(tokens) - 1))
        match draw(st.sampled_from(["remove", "replace", "insert", "swap", "character"])):
            case "remove" if len(tokens) > 1:
                del tokens[at]
            case "replace":
                tokens[at] = draw(st.sampled_from(TOKENS))
            case "insert":
                tokens.insert(at, draw(st.sampled_from(TOKENS)))
            case "swap":
                other = draw(st.integers(0, len(tokens) - 1))
                tokens[at], tokens[other] = tokens[other], tokens[at]
            case "character":
                tokens[at] += draw(st.characters())
    return "".join(tokens)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutated())
def test_mutated_specs(text: str) -> None:
    compiles_or_says_why(text)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(TOKENS), max_size=40))
def test_random_tokens(tokens: list[str]) -> None:
    compiles_or_says_why("scan s\naxes d\ninput x[d]\n" + " ".join(tokens))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_random_text(text: str) -> None:
    compiles_or_says_why(text)
