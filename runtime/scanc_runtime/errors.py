"""What goes wrong at a call, as exceptions that name the spec's declaration."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ScanError(Exception):
    """Anything that a generated operator refuses to do."""


class ArgumentError(ScanError, TypeError, ValueError):
    """A call whose arguments do not fit the spec.

    It is data first: `headline` says what is wrong, `declared` is the declaration in the spec that it
    concerns, `expected` and `got` are the two sides, `hint` what to do.  `str()` renders all of it.
    """

    def __init__(self, headline: str, *, declared: str = "", expected: str = "", got: str = "", hint: str = "") -> None:
        self.headline = headline
        self.declared = declared
        self.expected = expected
        self.got = got
        self.hint = hint
        rows = [("declared", declared), ("expected", expected), ("got", got), ("hint", hint)]
        super().__init__("\n".join([headline, *(f"  {label:<8}  {text}" for label, text in rows if text)]))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint at the known name that was most likely meant by `name`; empty if none is near enough."""
    names = sorted(set(known))
    close = [key for key in names if key.lower() == name.lower()]
    close = close or difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean `{close[0]}`?" if close else ""
