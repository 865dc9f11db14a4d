"""Collecting diagnostics, so that one wrong statement does not hide the next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from scanc.diagnostics.diagnostic import CompileError, Diagnostic
from scanc.diagnostics.span import Span
from scanc.syntax import limits

_ONCE = ("E0201", "E0202", "E0301")


class Skip(Exception):
    """Raised on a use of a name that an earlier error left without a value; says nothing new."""


class Report:
    """The errors and warnings so far."""

    def __init__(self) -> None:
        self.errors: list[Diagnostic] = []
        self.warnings: list[Diagnostic] = []

    @contextmanager
    def catching(self) -> Iterator[None]:
        """Notes a CompileError raised inside and goes on behind the block; ends the work at too many."""
        try:
            yield
        except Skip:
            return
        except CompileError as error:
            self.note(error.diagnostics)
            if len(self.errors) >= limits.ERRORS:
                raise CompileError(self.errors) from None

    def note(self, diagnostics: Iterable[Diagnostic]) -> None:
        """Adds diagnostics; a name that is nowhere declared is reported at its first use only."""
        said = {error.headline for error in self.errors if error.code in _ONCE}
        self.errors += [d for d in diagnostics if d not in self.errors and d.headline not in said]

    def warn(self, code: str, headline: str, span: Span, hint: str = "") -> None:
        """Notes a warning; the program compiles all the same."""
        self.warnings.append(Diagnostic(code, headline, span, hint=hint, severity="warning"))

    def check(self) -> None:
        """Raises what was collected, in the order of the text."""
        if self.errors:
            raise CompileError(sorted(self.errors, key=lambda e: e.span.start if e.span is not None else -1))
