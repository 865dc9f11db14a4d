"""Lines of Python: indentation, comments, and the folding of lines that are too long."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

WIDTH = 110
_INDENT = "    "
_OPEN, _CLOSE = "([{", ")]}"
_FEW = 6  # names in a list that get a line each
_LOOSEST_FIRST = (("or", "and"), ("<", "<=", ">", ">=", "==", "!="), ("|",), ("&",), ("+", "-"), ("*", "/", "//", "@"))


class Writer:
    """Collects lines of source text.

    ``line`` writes one statement, folded inside its brackets where it is longer than `width`; ``block`` indents
    what is written under it.
    """

    def __init__(self, width: int = WIDTH) -> None:
        self.width = width
        self._lines: list[str] = []
        self._depth = 0

    def line(self, text: str, comment: str = "") -> None:
        """One statement with a comment behind it, or above it where both do not fit."""
        room = self.width - len(_INDENT) * self._depth
        tail = f"  # {comment}" if comment else ""
        if len(text) + len(tail) <= room:
            self._put(text + tail)
            return
        if comment:
            self.comment(comment)
        for piece in fold(text, room):
            self._put(piece)

    def comment(self, text: str) -> None:
        """A line of comment; control characters in `text` become spaces."""
        self._put(f"# {''.join(c if c.isprintable() else ' ' for c in text)}".rstrip())

    def docstring(self, *paragraphs: str) -> None:
        """A docstring: one sentence, and further paragraphs below it."""
        first, *rest = (p.replace("\\", "\\\\").replace('"""', "'''") for p in paragraphs)
        if not rest:
            self._put(f'"""{first}"""')
            return
        self._put(f'"""{first}')
        for paragraph in rest:
            self.blank()
            for piece in paragraph.splitlines():
                self._put(piece)
        self._put('"""')

    def blank(self, count: int = 1) -> None:
        """Writes blank lines."""
        self._lines.extend([""] * count)

    @contextmanager
    def block(self, header: str) -> Iterator[None]:
        """Writes `header` (which ends in a colon) and indents what follows."""
        self.line(header)
        self._depth += 1
        yield
        self._depth -= 1

    def text(self) -> str:
        """Everything written, with one newline at the end."""
        return "\n".join(self._lines).rstrip("\n") + "\n"

    def _put(self, text: str) -> None:
        self._lines.append(f"{_INDENT * self._depth}{text}".rstrip())


def fold(text: str, room: int) -> list[str]:
    """`text` over several lines of at most `room` columns where its brackets, commas and operators allow it.

    The bracket that holds the right side is opened, as a formatter would: its contents indented below, one item a
    line where they do not fit on one.
    """
    if len(text) <= room or text.lstrip().startswith("#"):
        return [text]
    depths = _depths(text)
    start = _right_side(text, depths)
    if start and _splits(text[start:]):
        return _opened(text[:start] + "(", text[start:], ")", room)
    closers = [i for i in range(len(text)) if text[i] in _CLOSE and depths[i] == 0]
    if not closers:
        return [text]
    end = closers[-1]
    opener = max((i for i in range(end) if text[i] in _OPEN and depths[i] == 1), default=None)
    if opener is None or opener + 1 == end:
        return [text]
    return _opened(text[: opener + 1], text[opener + 1 : end], text[end:], room)


def _opened(head: str, body: str, tail: str, room: int) -> list[str]:
    inner = room - len(_INDENT)
    pieces = [body]
    if len(body) > inner:
        items = _splits(body)
        names = len(items) > _FEW and all(item.rstrip(",").isidentifier() for item in items[1:])
        pieces = _filled(items, inner) if names else [line for piece in items or [body] for line in fold(piece, inner)]
    opening = [head]
    if len(head) > room and head.startswith("for (") and ") in " in head:
        end = head.index(") in ")
        opening = _opened("for (", head[len("for (") : end], head[end:], room)
    return [*opening, *(_INDENT + piece for piece in pieces), tail]


def _filled(items: list[str], room: int) -> list[str]:
    """Items side by side, as many a line as fit."""
    lines = [items[0]]
    for item in items[1:]:
        if len(lines[-1]) + 1 + len(item) <= room:
            lines[-1] += f" {item}"
        else:
            lines.append(item)
    return lines


def _depths(text: str) -> list[int]:
    """The bracket depth behind every character; what stands in quotes is as deep as can be."""
    depths: list[int] = []
    depth, quote = 0, ""
    for char in text:
        if quote or char in "\"'":
            quote = (char if not quote else "") if not quote or char == quote else quote
            depths.append(len(text))
            continue
        depth += (char in _OPEN) - (char in _CLOSE)
        depths.append(depth)
    return depths


def _right_side(text: str, depths: list[int]) -> int:
    """Where the right side of an assignment or a `return` starts, else 0."""
    if text.startswith("return "):
        return len("return ")
    for i in range(1, len(text) - 1):
        if depths[i] == 0 and text[i : i + 2] == "= " and text[i - 1] not in "=!<>":
            return i + 2
    return 0


def _splits(text: str) -> list[str]:
    """`text` cut at its outermost commas, else before its loosest binary operators; nothing if it has neither."""
    depths = _depths(text)
    commas = [i for i in range(len(text)) if text[i] == "," and depths[i] == 0]
    if commas:
        items = [text[a:b].strip() for a, b in pairwise([0, *(i + 1 for i in commas), len(text)])]
        return [f"{item.rstrip(',')}," for item in items if item]
    for symbols in _LOOSEST_FIRST:
        cuts = [
            i
            for i in range(1, len(text))
            if depths[i] == 0 and text[i - 1] == " " and text[i:].split(" ", 1)[0] in symbols and " " in text[i:]
        ]
        if cuts:
            return [text[a:b].strip() for a, b in pairwise([0, *cuts, len(text)])]
    return []
