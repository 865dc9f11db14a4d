"""What a syntax error is called: the terminals that the parser expected, in the user's words, and a hint."""

from __future__ import annotations

from collections.abc import Sequence

from scanc_runtime.errors import did_you_mean

from scanc.diagnostics.diagnostic import Diagnostic
from scanc.diagnostics.span import Span
from scanc.syntax.lexer import KEYWORDS, Lexeme

_EXPRESSION = {"NAME", "NUMBER", "MINUS", "LPAR"}
_OPERATORS = {"PLUS", "MINUS", "STAR", "SLASH", "CARET", "AT", "DOT", "COMPARE"}
_DECLARATIONS = {"SCAN", "AXES", "BATCH", "INPUT", "PARAM", "STATE", "OUTPUT", "DEF", "IMPORT"}
_STATEMENTS = {"NAME", "DDT", "FOR"}
_WORDS = {
    "NAME": "a name", "NUMBER": "a number", "STRING": 'a path in quotes "…"', "COMMA": "`,`", "COLON": "`:`",
    "EQUALS": "`=`", "MINUS": "`-`", "STAR": "`*`", "PERIOD": "`.`", "LPAR": "`(`", "RPAR": "`)`", "LSQB": "`[`",
    "RSQB": "`]`", "LBRACE": "`{`", "RBRACE": "`}`", "SEP": "the end of the line", "$END": "the end of the line",
    "DDT": "`d/dt`",
}  # fmt: skip
_ELSEWHERE = {
    "return": "what a scan returns is declared: `output y[d]`",
    "if": "a choice is an expression: `where(condition, a, b)`",
    "while": "a loop runs over an axis of fixed size: `for p { … }`",
    "let": "a local is assigned without a keyword: `name = …`",
    "var": "a local is assigned without a keyword: `name = …`",
    "axis": "axes are declared by `axes`",
}
_AMIDST = {
    "and": "multiply two conditions: `(a < b) * (b < c)`",
    "or": "add two conditions: `(a < b) + (b < c)`",
    "not": "write the opposite comparison, or swap the branches: `where(condition, b, a)`",
    "if": "a choice is an expression: `where(condition, a, b)`",
}


def explain(lexemes: Sequence[Lexeme], at: int, expected: set[str]) -> Diagnostic:
    """The diagnostic for the lexeme at `at` (the end of the text, if there is none) where `expected` were legal."""
    found = lexemes[at] if at < len(lexemes) else None
    before = lexemes[at - 1] if at > 0 else None
    span = _place(found, before)
    keyword = _keyword_as_name(lexemes, at, expected)
    if keyword is not None:
        headline = f"`{keyword.text}` is a keyword and cannot be a name"
        return Diagnostic("E0107", headline, keyword.span, hint="choose another name")
    headline = f"expected {_listed(expected)}, found {_found(found)}"
    return Diagnostic("E0106", headline, span, hint=_hint(lexemes, at, expected))


def _place(found: Lexeme | None, before: Lexeme | None) -> Span:
    """The offending lexeme; at the end of a line or of the text, the place just behind what stands there."""
    if found is not None and found.kind != "SEP":
        return found.span
    if before is None:
        return found.span if found is not None else Span(0, 0, 1, 1)
    last = before.span
    return Span(last.end, last.end + 1, last.line, last.column + last.end - last.start, last.source)


def _keyword_as_name(lexemes: Sequence[Lexeme], at: int, expected: set[str]) -> Lexeme | None:
    """The keyword that the user took for a name: here, or just before a `=`."""
    found = lexemes[at] if at < len(lexemes) else None
    before = lexemes[at - 1] if at > 0 else None
    if found is None or "NAME" not in expected:
        return None
    if found.text in KEYWORDS and not (expected & _DECLARATIONS):
        at_line_start = before is not None and before.kind == "SEP"
        declares = found.kind in _DECLARATIONS and (at_line_start or (before is not None and before.kind == "LBRACE"))
        return None if declares else found
    if found.kind == "EQUALS" and before is not None and before.text in KEYWORDS:
        return before
    return None


def _found(found: Lexeme | None) -> str:
    if found is None:
        return "the end of the text"
    if found.kind == "SEP":
        return "`;`" if found.text == ";" else "the end of the line"
    return f"`{found.text}`"


def _listed(expected: set[str]) -> str:
    """The expected terminals as a short list."""
    words: list[str] = []
    left = set(expected)
    if left >= _DECLARATIONS:
        words.append("a declaration or a statement")
        left -= _DECLARATIONS | _STATEMENTS | {"SEP", "$END"}
    elif left >= _STATEMENTS:
        words.append("a statement")
        left -= _STATEMENTS
    if left >= _EXPRESSION:
        words.append("an expression")
        left -= _EXPRESSION
    if "PLUS" in left:
        words.append("an operator")
        left -= _OPERATORS | {"LSQB", "LPAR", "PERIOD"}
    named = {_WORDS.get(kind, f"`{kind.lower()}`") for kind in left}
    words += sorted(named)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _hint(lexemes: Sequence[Lexeme], at: int, expected: set[str]) -> str:
    found = lexemes[at] if at < len(lexemes) else None
    kind = "SEP" if found is None else found.kind
    before = lexemes[at - 1] if at > 0 else None
    first = before is not None and _first_of_line(lexemes, at - 1)
    in_expression = "PLUS" in expected
    if first and before is not None and before.kind == "NAME" and "EQUALS" in expected:
        if kind == "SLASH" and at + 1 < len(lexemes) and lexemes[at + 1].text == "dt" and before.text[0] == "d":
            return f"a derivative is written `d/dt {before.text[1:] or 'h'} = …`"
        return _statement_hint(before, kind)
    if kind == "SEP" and "DISCRETIZE" in expected:
        return "a line with `d/dt` ends in a rule: `d/dt h = A*h + B*x  discretize zoh(step)`"
    if kind == "SEP" and expected >= _EXPRESSION:
        return "a statement goes on over lines inside brackets: `y = (a +` … `b)`"
    if kind == "SEP" and "AS" in expected:
        return 'an import has a name: `import "norms.scan" as norms`'
    if kind == "EQUALS" and in_expression:
        return "`==` compares two values"
    if kind == "COMPARE" and in_expression:
        return "comparisons are not chained; multiply two of them: `(a < b) * (b < c)`"
    if expected == {"LPAR"} and before is not None and before.kind == "RSQB":
        return "a tensor is used by its bare name, axes meet by name; a function has its arguments after its axes"
    if expected == {"LPAR", "LSQB"} and before is not None and before.text == "T" and lexemes[at - 2].kind == "PERIOD":
        return "`h @ A` is the product with the transpose of `A`"
    if kind == "LBRACE" and in_expression:
        return "a state's name holds its previous value until it is assigned; of other tensors, write `prev(x, 1)`"
    if in_expression and found is not None and before is not None:
        amidst = _AMIDST.get(found.text) or (before.text == "not" and _AMIDST["not"])
        if amidst:
            return amidst
    if kind in ("NAME", "NUMBER", "LPAR") and in_expression:
        return "a product is written `*`, a contraction `·` or `dot`"
    if kind == "STRING":
        return 'a string stands in an import only: `import "norms.scan" as norms`'
    if kind in _DECLARATIONS and not expected & _DECLARATIONS:
        return "declarations stand on lines of their own, outside `for`"
    return ""


def _first_of_line(lexemes: Sequence[Lexeme], at: int) -> bool:
    return at == 0 or lexemes[at - 1].kind in ("SEP", "LBRACE")


def _statement_hint(before: Lexeme, kind: str) -> str:
    """A line that begins with a name which no `=` follows."""
    if before.text in _ELSEWHERE:
        return _ELSEWHERE[before.text]
    if kind == "LSQB":
        return f"axes are declared once, not at an assignment: `{before.text} = …`"
    if kind == "COLON":
        return "types stand in declarations only; a local takes the type of its value"
    meant = did_you_mean(before.text, KEYWORDS) if kind == "NAME" else ""
    return meant or "a statement is `name = expression`"
