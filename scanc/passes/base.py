"""What a pass is: a named value with a level in, a level out and a one-sentence contract."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scanc.diagnostics.span import Span
from scanc.ir.nodes import Level, Program


@dataclass(frozen=True)
class Remark:
    """What a pass did (`applied`) or declined to do, and why, in a sentence that `explain` shows."""

    source: str  # the pass
    text: str
    applied: bool = True
    span: Span | None = None


Rewrite = tuple[Program, tuple[Remark, ...]]


@dataclass(frozen=True)
class Pass:
    """`run` takes a program at level `before` and returns one at `after`; unchanged means the same object."""

    name: str
    before: Level
    after: Level
    contract: str
    run: Callable[[Program], Rewrite]
