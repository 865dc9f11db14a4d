"""Where in a source text something stands."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """A stretch of one source: `start` and `end` are character offsets, `end` exclusive.

    `line` and `column` (both from 1) are those of `start`, `source` is the name of the text: a path or `<spec>`.
    """

    start: int
    end: int
    line: int
    column: int
    source: str = "<spec>"
