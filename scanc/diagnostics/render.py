"""The only caret renderer: diagnostics and source texts in, plain text out."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from scanc.diagnostics.span import Span

if TYPE_CHECKING:
    from scanc.diagnostics.diagnostic import Diagnostic

TAB = 4
WIDTH = 110  # columns of source that are shown of one line


def render_all(diagnostics: Iterable[Diagnostic], sources: Mapping[str, str]) -> str:
    """Every diagnostic, a blank line between two."""
    return "\n\n".join(render(diagnostic, sources) for diagnostic in diagnostics)


def render(diagnostic: Diagnostic, sources: Mapping[str, str]) -> str:
    """One diagnostic as text: headline, place, marked source lines, hint and notes.

    Where nothing is marked, the place is the first source.
    """
    marks = []
    if diagnostic.span is not None:
        marks.append((diagnostic.span, diagnostic.label, "^"))
    marks += [(label.span, label.text, "-") for label in diagnostic.secondary]
    gutter = len(str(max((span.line for span, _, _ in marks), default=0)))
    pad = " " * gutter
    out = [f"{diagnostic.severity}[{diagnostic.code}]: {diagnostic.headline}"]
    by_source: dict[str, list[tuple[Span, str, str]]] = {}
    for mark in marks:
        by_source.setdefault(mark[0].source, []).append(mark)
    for position, (source, group) in enumerate(by_source.items()):
        first = group[0][0]
        out.append(f"{pad} {'-->' if position == 0 else ':::'} {_printable(source)}:{first.line}:{first.column}")
        out += _excerpt(group, sources.get(source), pad)
    if not marks:
        out += [f"{pad} --> {_printable(source)}" for source in list(sources)[:1]]
    out += [f"{pad} = hint: {line}" for line in diagnostic.hint.splitlines()]
    out += [f"{pad} = note: {note}" for note in diagnostic.notes]
    return "\n".join(out)


def _excerpt(marks: list[tuple[Span, str, str]], text: str | None, pad: str) -> list[str]:
    """The marked lines of one source in their order, each with its carets below."""
    if text is None:
        return [f"{pad} = {label} (line {span.line})" for span, label, _ in marks if label]
    lines = text.split("\n")
    out = [f"{pad} |"]
    shown = 0
    for number in sorted({span.line for span, _, _ in marks}):
        if shown and number > shown + 1:
            out.append(f"{pad} ...")
        shown = number
        here = [mark for mark in marks if mark[0].line == number]
        out += _line(number, lines[number - 1] if number <= len(lines) else "", here, pad)
    return out


def _line(number: int, line: str, marks: list[tuple[Span, str, str]], pad: str) -> list[str]:
    """A source line and one row of carets per mark, the primary one first."""
    first = min(span.column - 1 for span, _, _ in marks)
    low = max(0, min(first - WIDTH // 2, len(line) - WIDTH)) if _columns(line) > WIDTH else 0
    visible = line[low : low + WIDTH]
    cut = "…" if low else ""
    tail = "…" if low + WIDTH < len(line) else ""
    out = [f"{number:>{len(pad)}} | {cut}{_printable(visible)}{tail}".rstrip()]
    for span, label, mark in marks:
        begin = max(span.column - 1 - low, 0)
        end = max(begin + (span.end - span.start), begin + 1)
        indent = _columns(visible[:begin]) + len(cut)
        length = max(_columns(visible[begin:end]), 1)
        out.append(f"{pad} | {' ' * indent}{mark * length} {label}".rstrip())
    return out


def _printable(text: str) -> str:
    """The text with tabs expanded and control characters replaced, so that it cannot steer a terminal."""
    out = []
    for char in text:
        if char == "\t":
            out.append(" " * TAB)
        elif unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
            out.append("\N{REPLACEMENT CHARACTER}")
        else:
            out.append(char)
    return "".join(out)


def _columns(text: str) -> int:
    """How many terminal columns the printed text takes."""
    total = 0
    for char in _printable(text):
        if unicodedata.combining(char):
            continue
        total += 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1
    return total
