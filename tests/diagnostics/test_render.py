"""The renderer: places, columns of wide and tabbed text, several sources, missing sources."""

from __future__ import annotations

import pickle

from scanc_runtime.errors import did_you_mean

from scanc.diagnostics.diagnostic import CompileError, Diagnostic, Label, fault
from scanc.diagnostics.render import render
from scanc.diagnostics.span import Span


def span(text: str, part: str, source: str = "a.scan") -> Span:
    start = text.index(part)
    line = text.count("\n", 0, start) + 1
    return Span(start, start + len(part), line, start - (text.rfind("\n", 0, start) + 1) + 1, source)


def carets(rendered: str) -> list[str]:
    """What the carets and dashes of a rendering stand under."""
    found: list[str] = []
    source = ""
    for line in rendered.splitlines():
        head, bar, body = line.partition(" | ")
        if bar and head.strip().isdigit():
            source = body
        elif bar and body.strip() and body.strip()[0] in "^-":
            begin = len(body) - len(body.lstrip())
            mark = body.lstrip()[0]
            length = len(body.lstrip()) - len(body.lstrip().lstrip(mark))
            found.append(source[begin : begin + length])
    return found


def test_places() -> None:
    text = "one\ntwo three\nfour\nfive six"
    diagnostic = Diagnostic(
        "E0201", "headline", span(text, "six"), "label", (Label(span(text, "two"), "other"),), "do this", ("a note",)
    )
    rendered = render(diagnostic, {"a.scan": text})
    assert rendered.splitlines()[:2] == ["error[E0201]: headline", "  --> a.scan:4:6"]
    assert carets(rendered) == ["two", "six"]
    assert rendered.endswith("  = hint: do this\n  = note: a note")


def test_tabs_are_expanded() -> None:
    text = "\ta\t= wrong"
    assert carets(render(Diagnostic("E0201", "h", span(text, "wrong")), {"a.scan": text})) == ["wrong"]


def test_wide_and_combining_characters_take_their_columns() -> None:
    rendered = render(Diagnostic("E0201", "h", span("漢字 e\u0301 wrong", "wrong")), {"a.scan": "漢字 e\u0301 wrong"})
    assert rendered.splitlines()[-1] == "  | " + " " * 7 + "^^^^^"


def test_control_characters_do_not_reach_the_terminal() -> None:
    text = "a\x1b[31m\u202e wrong"
    rendered = render(Diagnostic("E0201", "h", span(text, "wrong", "x\x1b.scan")), {"x\x1b.scan": text})
    assert "\x1b" not in rendered
    assert "\u202e" not in rendered


def test_a_long_line_is_cut_around_the_mark() -> None:
    text = "x + " * 200 + "wrong" + " + x" * 200
    rendered = render(Diagnostic("E0201", "h", span(text, "wrong")), {"a.scan": text})
    assert carets(rendered) == ["wrong"]
    assert max(len(line) for line in rendered.splitlines()) < 130


def test_two_sources() -> None:
    texts = {"a.scan": "call wrong", "b.scan": "def wrong"}
    diagnostic = Diagnostic(
        "E0201", "h", span(texts["b.scan"], "wrong", "b.scan"), "", (Label(span(texts["a.scan"], "call"), "from"),)
    )
    rendered = render(diagnostic, texts)
    assert "--> b.scan:1:5" in rendered
    assert "::: a.scan:1:1" in rendered
    assert carets(rendered) == ["wrong", "call"]


def test_without_the_text_the_place_is_named() -> None:
    error = fault("E0201", "headline", span("a wrong", "wrong"), "label")
    assert str(error) == "error[E0201]: headline\n  --> a.scan:1:3\n  = label (line 1)"
    assert carets(str(error.with_sources({"a.scan": "a wrong"}))) == ["wrong"]


def test_a_span_beyond_the_text_is_no_error() -> None:
    assert "E0201" in render(Diagnostic("E0201", "h", Span(90, 95, 9, 5)), {"<spec>": "short"})


def test_suggestions() -> None:
    assert did_you_mean("sigmod", ["sigmoid", "sign"]) == "did you mean `sigmoid`?"
    assert did_you_mean("KEY", ["key", "kay"]) == "did you mean `key`?"
    assert did_you_mean("zzz", ["sigmoid"]) == ""


def test_errors_survive_pickling() -> None:
    error = fault("E0201", "headline", span("a wrong", "wrong"))
    assert isinstance(pickle.loads(pickle.dumps(error)), CompileError)
