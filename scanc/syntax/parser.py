"""From text to syntax tree; what the grammar refuses becomes diagnostics in the user's words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedInput, UnexpectedToken
from lark.lexer import Lexer as LarkLexer

from scanc.diagnostics.diagnostic import CompileError, Diagnostic, fault
from scanc.syntax import ast, limits
from scanc.syntax.lexer import Lexeme, Lexer
from scanc.syntax.mistakes import explain
from scanc.syntax.tree import build


class _Given(LarkLexer):
    """Hands on the tokens that `lexer.py` made."""

    def __init__(self, conf: object) -> None:
        pass

    def lex(self, lexer_state: Any, parser_state: Any = None) -> Iterator[Token]:
        yield from lexer_state


@cache
def _grammar() -> Lark:
    text = Path(__file__).with_name("scan.lark").read_text(encoding="utf-8")
    return Lark(text, parser="lalr", lexer=_Given, maybe_placeholders=True, keep_all_tokens=True)


def parse(text: str, source: str = "<spec>") -> ast.Module:
    """The syntax tree of one source; raises CompileError with every syntax error that was found."""
    if len(text) > limits.SOURCE_CHARS:
        raise fault("E0901", f"the source is too long; at most {limits.SOURCE_CHARS} characters are read", None)
    text = text.removeprefix("\ufeff")
    if (lone := re.search("[\ud800-\udfff]", text)) is not None:
        raise fault("E0101", f"the source holds half a character, U+{ord(lone.group()):04X}; it is no UTF-8 text", None)
    lexer = Lexer(text, source)
    lexemes = lexer.run()
    errors = list(lexer.errors)
    if any(error.code in ("E0105", "E0902") for error in errors):
        raise CompileError(errors, {source: text})
    tree, wrong = _parse(lexemes)
    lines = {error.span.line for error in errors if error.span is not None}
    errors += [error for error in wrong if error.span is None or error.span.line not in lines]
    errors = [error for i, error in enumerate(errors) if not _said(error, errors[:i])]
    if errors or tree is None:
        raise CompileError(sorted(errors, key=_place), {source: text})
    try:
        items = build(tree, lexemes)
    except CompileError as error:
        raise error.with_sources({source: text}) from None
    return ast.Module(items, source, text)


def _said(error: Diagnostic, before: list[Diagnostic]) -> bool:
    """Whether a wrong letter or a keyword was reported where it stood first."""
    return error.code in ("E0102", "E0107") and error.headline in {other.headline for other in before}


def _place(error: Diagnostic) -> int:
    return 0 if error.span is None else error.span.start


def _parse(lexemes: list[Lexeme]) -> tuple[Tree[Any] | None, list[Diagnostic]]:
    """The parse tree, or the errors: a statement that does not parse is left out and the rest read on."""
    errors: list[Diagnostic] = []
    while True:
        tokens = [_token(lexeme) for lexeme in lexemes]
        try:
            return _grammar().parse(tokens), errors
        except UnexpectedToken as error:
            at = next((i for i, token in enumerate(tokens) if token is error.token), len(tokens))
            errors.append(explain(lexemes, at, set(error.accepts or error.expected)))
        except UnexpectedInput as error:  # pragma: no cover - the lexer makes only known terminals
            raise AssertionError("the lexer made a terminal that the grammar lacks") from error
        if len(errors) >= limits.ERRORS:
            return None, errors
        lexemes = _without_statement(lexemes, at)
        if not lexemes:
            return None, errors


def _token(lexeme: Lexeme) -> Token:
    span = lexeme.span
    return Token(lexeme.kind, lexeme.text, span.start, span.line, span.column, span.line, end_pos=span.end)


def _without_statement(lexemes: list[Lexeme], at: int) -> list[Lexeme]:
    """The lexemes without the statement that the one at `at` stands in (the one before, at a separator)."""
    begin = min(at, len(lexemes) - 1)
    if lexemes[begin].kind in ("SEP", "RBRACE") and begin > 0:
        begin -= 1
    end = at if lexemes[begin].kind == "LBRACE" else max(at, begin + 1)
    while begin > 0 and lexemes[begin - 1].kind not in ("SEP", "LBRACE", "RBRACE"):
        begin -= 1
    depth = 0
    while end < len(lexemes):
        kind = lexemes[end].kind
        if depth == 0 and kind in ("SEP", "RBRACE"):
            break
        depth += {"LBRACE": 1, "RBRACE": -1}.get(kind, 0)
        end += 1
    if end < len(lexemes) and lexemes[end].kind == "SEP":
        end += 1
    elif begin > 0 and lexemes[begin - 1].kind == "SEP":
        begin -= 1
    return lexemes[:begin] + lexemes[end:]
