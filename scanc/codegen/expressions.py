"""Expressions of generated Python: text with its precedence, and how functions are spelled.

A target brings a table from function names to spellings (`Infix`, `Prefix`, `Call`, `Suffix`); what is shared is
where parentheses go, how numbers are printed, and which instructions need no line of their own.
"""

from __future__ import annotations

import cmath
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from scanc.ir.nodes import Const, Instr, Map, Size


class Level(IntEnum):
    """How tightly an expression's outermost operator binds."""

    COMPARE = 1
    OR = 2
    AND = 3
    SUM = 4
    PRODUCT = 5
    UNARY = 6
    POWER = 7
    ATOM = 8


@dataclass(frozen=True)
class Expr:
    """A piece of source text, and how tightly its outermost operator binds."""

    text: str
    level: Level = Level.ATOM

    def at(self, level: Level) -> str:
        """The text, in parentheses if it binds less tightly than `level`."""
        return self.text if self.level >= level else f"({self.text})"

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Infix:
    """`a + b`.  Operators of one level are taken from the left, and so kept in the order of the spec.

    A sum with a negated term is written, and is, a difference.
    """

    symbol: str
    level: Level

    def __call__(self, a: Expr, b: Expr) -> Expr:
        if self.symbol == "+" and b.text.startswith("-") and b.level in (Level.UNARY, Level.PRODUCT):
            return Infix("-", self.level)(a, Expr(b.text[1:], b.level))
        tighter = Level(self.level + 1)
        left = a.at(tighter if self.level in (Level.POWER, Level.COMPARE) else self.level)
        return Expr(f"{left} {self.symbol} {b.at(tighter)}", self.level)


@dataclass(frozen=True)
class Prefix:
    """`-a`; of a product, the negated first factor, which is the same number."""

    symbol: str
    level: Level = Level.UNARY

    def __call__(self, a: Expr) -> Expr:
        if self.symbol == "-" and a.level is Level.PRODUCT and not a.text.startswith("-"):
            return Expr(f"-{a}", Level.PRODUCT)
        return Expr(f"{self.symbol}{a.at(Level(self.level + 1))}", self.level)


@dataclass(frozen=True)
class Call:
    """`f(a, b)`"""

    function: str

    def __call__(self, *args: Expr) -> Expr:
        return Expr(f"{self.function}({', '.join(arg.text for arg in args)})")


@dataclass(frozen=True)
class Suffix:
    """`a.real`, `a.detach()`"""

    suffix: str

    def __call__(self, a: Expr) -> Expr:
        return Expr(f"{a.at(Level.ATOM)}{self.suffix}")


Spelling = Infix | Prefix | Call | Suffix

ARITHMETIC: Mapping[str, Spelling] = {
    "add": Infix("+", Level.SUM),
    "sub": Infix("-", Level.SUM),
    "mul": Infix("*", Level.PRODUCT),
    "div": Infix("/", Level.PRODUCT),
    "neg": Prefix("-"),
    "lt": Infix("<", Level.COMPARE),
    "le": Infix("<=", Level.COMPARE),
    "gt": Infix(">", Level.COMPARE),
    "ge": Infix(">=", Level.COMPARE),
    "eq": Infix("==", Level.COMPARE),
    "ne": Infix("!=", Level.COMPARE),
    "and": Infix("&", Level.AND),
    "or": Infix("|", Level.OR),
    "not": Prefix("~"),
}
"""What every target writes with Python's own operators."""


def spell(spelling: Spelling, args: Sequence[Expr]) -> Expr:
    """`spelling` applied to expressions."""
    return spelling(*args)


def number(value: bool | int | float | complex, infinity: str = 'float("inf")', nan: str = 'float("nan")') -> Expr:
    """A constant as Python source; `infinity` and `nan` are the target's words for what has no literal."""
    if isinstance(value, complex):
        if not cmath.isfinite(value):
            parts = (number(part, infinity, nan).text for part in (value.real, value.imag))
            return Expr(f"complex({', '.join(parts)})")
        return Expr(repr(value) if repr(value).startswith("(") else f"({value!r})")
    if isinstance(value, bool | int) or math.isfinite(value):
        negative = not isinstance(value, bool) and repr(value).startswith("-")
        return Expr(repr(value), Level.UNARY if negative else Level.ATOM)
    if math.isnan(value):
        return Expr(nan)
    return Expr(infinity) if value > 0 else Expr(f"-{infinity}", Level.UNARY)


_TEMPORARY = re.compile(r"t|c|zero|terms|.*_\d+")
_LONGEST_TREE = 5


def temporary(name: str) -> bool:
    """Whether a pass made this name up: nobody misses it."""
    return _TEMPORARY.fullmatch(name) is not None


def absorbed(instrs: Iterable[Instr], kept: Collection[str]) -> frozenset[str]:
    """The instructions of one run that need no line: constants, and small temporaries read once in the same run.

    `kept` are the values that are read from outside of the run (each reading counts).
    """
    instrs = tuple(instrs)
    uses = Counter(arg for instr in instrs for arg in instr.args)
    uses.update(kept)
    readers = {arg: instr for instr in instrs for arg in instr.args}
    size: dict[str, int] = {}
    found: set[str] = set()
    for instr in instrs:
        if isinstance(instr.op, Const | Size):
            found.add(instr.name)
            continue
        size[instr.name] = 1 + sum(size[arg] for arg in instr.args if arg in found and arg in size)
        if (
            isinstance(instr.op, Map)
            and temporary(instr.name)
            and uses[instr.name] == 1
            and instr.name in readers
            and size[instr.name] <= _LONGEST_TREE
        ):
            found.add(instr.name)
    return frozenset(found)
