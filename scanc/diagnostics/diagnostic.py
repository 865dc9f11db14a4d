"""A diagnostic as data, and the one exception that carries diagnostics to the user."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from scanc.diagnostics.render import render_all
from scanc.diagnostics.span import Span

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Label:
    """A stretch of source and what is to be said of it."""

    span: Span
    text: str


@dataclass(frozen=True)
class Diagnostic:
    """What is wrong, where, why, and what to do.

    `code` is a key of `codes.CODES`.  `headline` speaks of the user's program only.  `span` is the
    smallest stretch that must change, `label` what was found there.  `secondary` points to other places
    that matter, `hint` says what to write instead, `notes` give background.  A diagnostic without a span
    speaks of the whole spec.
    """

    code: str
    headline: str
    span: Span | None = None
    label: str = ""
    secondary: tuple[Label, ...] = ()
    hint: str = ""
    notes: tuple[str, ...] = ()
    severity: Severity = "error"


class CompileError(Exception):
    """A spec that cannot be compiled; `str()` is the rendered text of its diagnostics.

    `sources` maps the names of sources to their texts.  Without a text the place is named but not shown.
    """

    def __init__(self, diagnostics: Iterable[Diagnostic], sources: Mapping[str, str] | None = None) -> None:
        self.diagnostics = tuple(diagnostics)
        self.sources = dict(sources or {})
        super().__init__(self.diagnostics)

    def __str__(self) -> str:
        return render_all(self.diagnostics, self.sources)

    def with_sources(self, sources: Mapping[str, str]) -> CompileError:
        """The same diagnostics, knowing the given texts as well."""
        return CompileError(self.diagnostics, {**self.sources, **sources})


def fault(
    code: str,
    headline: str,
    span: Span | None,
    label: str = "",
    *,
    secondary: Iterable[tuple[Span | None, str]] = (),
    hint: str = "",
    notes: Iterable[str] = (),
) -> CompileError:
    """A CompileError of one diagnostic, to be raised; secondary places without a span are left out."""
    labels = tuple(Label(place, text) for place, text in secondary if place is not None)
    return CompileError([Diagnostic(code, headline, span, label, labels, hint, tuple(notes))])
