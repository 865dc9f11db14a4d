"""From text to tokens: names and operators, brackets matched, newlines made into statement separators.

Newlines inside brackets, comments and blanks vanish.  A newline or `;` outside brackets becomes one SEP
between two statements.  Names carry their ASCII spelling as the token's value.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass

from scanc.diagnostics.diagnostic import Diagnostic, Label
from scanc.diagnostics.span import Span
from scanc.syntax import limits
from scanc.syntax.greek import GREEK, advice, describe, spell

_WORDS = (
    "scan", "over", "axes", "batch", "input", "param", "state", "output", "def", "import", "as", "for", "discretize",
    "dot",
)  # fmt: skip
KEYWORDS = {word: word.upper() for word in _WORDS}
_OPERATORS = {
    "<=": "COMPARE", ">=": "COMPARE", "==": "COMPARE", "!=": "COMPARE", "<": "COMPARE", ">": "COMPARE",
    "≤": "COMPARE", "≥": "COMPARE", "≠": "COMPARE", "=": "EQUALS", "+": "PLUS", "-": "MINUS", "*": "STAR",
    "/": "SLASH", "^": "CARET", "@": "AT", "·": "DOT", "⋅": "DOT", ".": "PERIOD", ",": "COMMA", ":": "COLON",
    "(": "LPAR", ")": "RPAR", "[": "LSQB", "]": "RSQB", "{": "LBRACE", "}": "RBRACE",
}  # fmt: skip
_ASCII = {"≤": "<=", "≥": ">=", "≠": "!=", "·": "dot", "⋅": "dot"}
_INSTEAD = {
    "**": "a power is written `^`",
    "&&": "multiply two conditions, or nest `where`",
    "||": "add two conditions, or nest `where`",
    "?": "a choice is an expression: `where(condition, a, b)`",
    "+=": "write `x = x + …`", "-=": "write `x = x - …`", "*=": "write `x = x * …`", "/=": "write `x = x / …`",
    "−": "write the ASCII minus `-`", "–": "write the ASCII minus `-`", "—": "write the ASCII minus `-`",
    "×": "write `*`", "∗": "write `*`", "÷": "write `/`", "•": "write `·` (U+00B7) or `dot`",
    "∙": "write `·` (U+00B7) or `dot`", "∞": "write `inf`", "∑": "write `sum[axis](…)`", "²": "write `^2`",
    "⊙": "write `*`", "⊗": "write `*`: axes that only one side has make an outer product", "⊕": "write `+`",
    "\\": "a statement goes on over lines inside brackets", "%": "comments begin with `#`",
    "'": "strings are written \"…\"", "!": "`not equal` is `!=`", "“": "strings are written \"…\"",
    "”": "strings are written \"…\"",
}  # fmt: skip
_CLOSER = {"(": ")", "[": "]", "{": "}"}
_NEWLINE = re.compile(r"\r?\n")
_BLANK = re.compile(r"[ \t\r]+|#[^\n]*")
_NAME = re.compile(f"[A-Za-z_{''.join(GREEK)}][A-Za-z0-9_{''.join(GREEK)}]*")
_NUMBER = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_STRING = re.compile(r'"[^"\n]*"')
_DDT = re.compile(r"d[ \t]*/[ \t]*dt(?![A-Za-z0-9_])")


@dataclass(frozen=True)
class Lexeme:
    """A token: its kind (a terminal of the grammar), its value, and its text in the source."""

    kind: str
    value: str | int | float
    text: str
    span: Span


class Lexer:
    """Makes the lexemes of one text; `errors` holds what was wrong on the way."""

    def __init__(self, text: str, source: str) -> None:
        self.text = text
        self.source = source
        self.errors: list[Diagnostic] = []
        self.out: list[Lexeme] = []
        self._open: list[Lexeme] = []
        self._at = 0
        self._line = 1
        self._line_start = 0

    def run(self) -> list[Lexeme]:
        """The lexemes of the text, without a separator at its end."""
        while self._at < len(self.text) and len(self.errors) < limits.ERRORS:
            self._next()
        for bracket in self._open:
            closer = _CLOSER[bracket.text]
            self.error("E0105", f"`{bracket.text}` is never closed", bracket.span, f"no `{closer}` follows")
        if self.out and self.out[-1].kind == "SEP":
            self.out.pop()
        return self.out

    def error(self, code: str, headline: str, span: Span, label: str = "", hint: str = "") -> None:
        """Notes what is wrong; the lexer goes on behind it."""
        self.errors.append(Diagnostic(code, headline, span, label, hint=hint))

    def _span(self, length: int) -> Span:
        return Span(self._at, self._at + length, self._line, self._at - self._line_start + 1, self.source)

    def _emit(self, kind: str, text: str, value: str | float) -> Lexeme:
        lexeme = Lexeme(kind, value, text, self._span(len(text)))
        self.out.append(lexeme)
        self._at += len(text)
        return lexeme

    def _next(self) -> None:
        text, at = self.text, self._at
        if found := _NEWLINE.match(text, at):
            if not self._open or self._open[-1].text == "{":
                self._separate(found.group())
            self._at = found.end()
            self._line += 1
            self._line_start = self._at
        elif found := _BLANK.match(text, at):
            self._at = found.end()
        elif self._starts_statement() and (found := _DDT.match(text, at)):
            self._emit("DDT", found.group(), "d/dt")
        elif found := _NAME.match(text, at):
            self._name(found.group())
        elif found := _NUMBER.match(text, at):
            self._number(found.group())
        elif text[at] == '"':
            self._string()
        elif text[at] == ";":
            self._separate(";")
            self._at += 1
        else:
            self._operator()

    def _starts_statement(self) -> bool:
        return not self.out or self.out[-1].kind in ("SEP", "LBRACE")

    def _separate(self, text: str) -> None:
        """A SEP, unless nothing stands before it."""
        if not self._starts_statement():
            self.out.append(Lexeme("SEP", text, text, self._span(1)))

    def _name(self, text: str) -> None:
        after = self._at + len(text)
        if after < len(self.text) and self.text[after].isalnum() and not self.text[after].isascii():
            self._letter(after)
            return
        if len(text) > limits.NAME_CHARS:
            self.error("E0903", f"a name is longer than {limits.NAME_CHARS} characters", self._span(len(text)))
        self._emit(KEYWORDS.get(text, "NAME"), text, spell(text))

    def _letter(self, at: int) -> None:
        """A letter that may not stand in a name; the whole word is passed over."""
        char = self.text[at]
        end = at + 1
        while end < len(self.text) and (self.text[end].isalnum() or self.text[end] == "_"):
            end += 1
        word = self.text[self._at : end]
        place = Span(at, at + 1, self._line, at - self._line_start + 1, self.source)
        self.error("E0102", f"the letter `{char}` cannot stand in a name", place, describe(char), advice(char))
        self._emit("NAME", word, "_")

    def _number(self, text: str) -> None:
        end = self._at + len(text)
        if word := _NAME.match(self.text, end):
            hint = f"write `{text} * {word.group()}`"
            if word.group() in ("i", "j"):
                hint += f", or `complex(0, {text})` for the imaginary number"
            self.error("E0103", "a name cannot begin with a digit", self._span(len(text + word.group())), hint=hint)
            self._emit("NUMBER", text + word.group(), 0)
            return
        value: int | float = 0
        if len(text) > limits.NUMBER_CHARS:
            self.error("E0903", f"a number has more than {limits.NUMBER_CHARS} characters", self._span(len(text)))
        elif text.isdigit():
            value = int(text)
            if value >= 2**53:
                self.error("E0103", "a whole number is too large", self._span(len(text)), hint=f"write `{text}.0`")
        else:
            value = float(text)
            if math.isinf(value):
                span = self._span(len(text))
                self.error("E0103", "a number is too large for a double", span, hint="write `inf` if that is meant")
        self._emit("NUMBER", text, value)

    def _string(self) -> None:
        if found := _STRING.match(self.text, self._at):
            self._emit("STRING", found.group(), found.group()[1:-1])
            return
        end = self.text.find("\n", self._at)
        length = (len(self.text) if end < 0 else end) - self._at
        self.error("E0104", "a string is not closed on its line", self._span(length), 'no `"` follows')
        self._emit("STRING", self.text[self._at : self._at + length], "")

    def _operator(self) -> None:
        two, one = self.text[self._at : self._at + 2], self.text[self._at]
        if two in _INSTEAD:
            self.error("E0101", f"`{two}` is not an operator here", self._span(2), hint=_INSTEAD[two])
            self._at += 2
            return
        text = two if two in _OPERATORS else one
        if text in _OPERATORS:
            lexeme = self._emit(_OPERATORS[text], text, _ASCII.get(text, text))
            self._bracket(lexeme)
        elif one.isalnum():
            self._letter(self._at)
        else:
            shown = one if one.isprintable() else f"U+{ord(one):04X}"
            hint = advice(one) if unicodedata.combining(one) else _INSTEAD.get(one, "")
            self.error("E0101", f"`{shown}` has no meaning here", self._span(1), describe(one), hint)
            self._at += 1

    def _bracket(self, lexeme: Lexeme) -> None:
        """Keeps the stack of open brackets; a bracket that closes nothing ends the reading."""
        if lexeme.text in _CLOSER:
            self._open.append(lexeme)
            if len(self._open) > limits.BRACKETS:
                self.error("E0902", f"more than {limits.BRACKETS} brackets are open at once", lexeme.span)
                self._stop()
        elif lexeme.text in _CLOSER.values():
            if not self._open:
                self.error("E0105", f"`{lexeme.text}` closes nothing", lexeme.span, "no bracket is open here")
                self._stop()
                return
            opened = self._open.pop()
            wanted = _CLOSER[opened.text]
            if wanted != lexeme.text:
                self.errors.append(
                    Diagnostic(
                        "E0105",
                        f"`{opened.text}` is not closed by `{lexeme.text}`",
                        lexeme.span,
                        f"expected `{wanted}`",
                        (Label(opened.span, "opened here"),),
                    )
                )
                self._stop()
            elif lexeme.text == "}" and len(self.out) > 1 and self.out[-2].kind == "SEP":
                del self.out[-2]

    def _stop(self) -> None:
        self._open.clear()
        self._at = len(self.text)
