"""From Lark's parse tree to the syntax tree, without recursion."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lark import Token, Tree
from lark.visitors import Transformer_NonRecursive

from scanc.diagnostics.diagnostic import fault
from scanc.diagnostics.span import Span
from scanc.syntax import ast, limits
from scanc.syntax.lexer import Lexeme


@dataclass(frozen=True)
class _Part:
    """What a rule gives that is no node of its own: a bracket and its entries."""

    span: Span
    names: tuple[ast.Name, ...] = ()
    dims: tuple[tuple[ast.Name, ...], ...] = ()
    binders: tuple[ast.Binder, ...] = ()
    exprs: tuple[ast.Expr, ...] = ()


def build(tree: Tree[Any], lexemes: Iterable[Lexeme]) -> tuple[ast.Item, ...]:
    """The items of a parsed source; raises CompileError where an expression is nested too deeply."""
    items: tuple[ast.Item, ...] = _Build({lexeme.span.start: lexeme for lexeme in lexemes}).transform(tree)
    for expr in expressions(items):
        _check_depth(expr)
    return items


def expressions(items: Iterable[ast.Item]) -> Iterable[ast.Expr]:
    """The expressions that stand directly in the given items."""
    for item in items:
        match item:
            case ast.Tensors():
                yield from (tensor.init for tensor in item.tensors if tensor.init is not None)
            case ast.Def():
                yield item.body
            case ast.Assign():
                yield item.value
            case ast.Ode():
                yield from (item.rhs, *item.settings)
            case ast.For():
                yield from expressions(item.body)


def _check_depth(expr: ast.Expr) -> None:
    level: list[ast.Expr] = [expr]
    for _ in range(limits.NESTING):
        level = [child for parent in level for child in ast.children(parent)]
        if not level:
            return
    hint = "assign a part of it to a local"
    raise fault("E0902", f"an expression is nested more than {limits.NESTING} levels deep", level[0].span, hint=hint)


def _join(first: Span, last: Span) -> Span:
    return Span(first.start, last.end, first.line, first.column, first.source)


class _Build(Transformer_NonRecursive):  # type: ignore[type-arg]
    """One method per rule; tokens are still lexemes' starts, so every child has a span."""

    def __init__(self, lexemes: dict[int, Lexeme]) -> None:
        super().__init__(visit_tokens=False)
        self._lexemes = lexemes

    def _lexeme(self, token: Token) -> Lexeme:
        assert token.start_pos is not None
        return self._lexemes[token.start_pos]

    def _span(self, child: Any) -> Span:
        span: Span = self._lexeme(child).span if isinstance(child, Token) else child.span
        return span

    def _whole(self, children: Sequence[Any]) -> Span:
        present = [child for child in children if child is not None and child != ()]
        return _join(self._span(present[0]), self._span(present[-1]))

    def _name(self, token: Token) -> ast.Name:
        lexeme = self._lexeme(token)
        return ast.Name(str(lexeme.value), lexeme.text, lexeme.span)

    def _names(self, children: Sequence[Any]) -> tuple[ast.Name, ...]:
        return tuple(self._name(child) for child in children if isinstance(child, Token) and child.type == "NAME")

    def _number(self, token: Token) -> ast.Number:
        lexeme = self._lexeme(token)
        assert not isinstance(lexeme.value, str)
        return ast.Number(lexeme.value, lexeme.span)

    # --- items ---

    def start(self, children: list[Any]) -> tuple[ast.Item, ...]:
        return tuple(child for child in children if child is not None and not isinstance(child, Token))

    def scan(self, children: list[Any]) -> ast.Scan:
        _, name, _, semiring = children
        return ast.Scan(self._name(name), self._name(semiring) if semiring is not None else None, self._whole(children))

    def axes(self, children: list[Any]) -> ast.Axes:
        axes = tuple(child for child in children if isinstance(child, ast.AxisDecl))
        return ast.Axes(children[0].type == "BATCH", axes, self._whole(children))

    def axis(self, children: list[Any]) -> ast.AxisDecl:
        name, _, size = children
        what: ast.Number | ast.Name | None = None
        if size is not None:
            what = self._number(size) if size.type == "NUMBER" else self._name(size)
        return ast.AxisDecl(self._name(name), what, self._whole(children))

    def tensors(self, children: list[Any]) -> ast.Tensors:
        tensors = tuple(child for child in children if isinstance(child, ast.TensorDecl))
        return ast.Tensors(children[0].type.lower(), tensors, self._whole(children))

    def tensor(self, children: list[Any]) -> ast.TensorDecl:
        name, depends, dims, _, type_, _, init = children
        return ast.TensorDecl(
            self._name(name),
            None if depends is None else depends.names,
            None if dims is None else dims.dims,
            None if type_ is None else self._name(type_),
            init,
            self._whole(children),
        )

    def formal(self, children: list[Any]) -> ast.TensorDecl:
        name, dims = children
        return ast.TensorDecl(self._name(name), dims=None if dims is None else dims.dims, span=self._whole(children))

    def depends(self, children: list[Any]) -> _Part:
        return _Part(self._whole(children), names=self._names(children))

    def dims(self, children: list[Any]) -> _Part:
        dims = tuple(child.names for child in children if isinstance(child, _Part))
        return _Part(self._whole(children), dims=dims)

    def dim(self, children: list[Any]) -> _Part:
        return _Part(self._whole(children), names=self._names(children))

    def define(self, children: list[Any]) -> ast.Def:
        formals = tuple(child for child in children[:-1] if isinstance(child, ast.TensorDecl))
        return ast.Def(self._name(children[1]), formals, children[-1], self._whole(children))

    def bring(self, children: list[Any]) -> ast.Import:
        _, path, _, name = children
        lexeme = self._lexeme(path)
        return ast.Import(str(lexeme.value), self._name(name), lexeme.span, self._whole(children))

    # --- statements ---

    def assign(self, children: list[Any]) -> ast.Assign:
        target, _, value = children
        return ast.Assign(self._name(target), value, self._whole(children))

    def ode(self, children: list[Any]) -> ast.Ode:
        _, state, _, rhs, _, rule, settings = children
        given = () if settings is None else settings.exprs
        return ast.Ode(self._name(state), rhs, self._name(rule), given, self._whole(children))

    def loop(self, children: list[Any]) -> ast.For:
        body = tuple(child for child in children if isinstance(child, ast.Assign | ast.Ode | ast.For))
        return ast.For(self._name(children[1]), body, self._whole(children))

    # --- expressions ---

    def binary(self, children: list[Any]) -> ast.Binary:
        left, mark, right = children
        lexeme = self._lexeme(mark)
        return ast.Binary(str(lexeme.value), left, right, self._whole(children), lexeme.span)

    def dot(self, children: list[Any]) -> ast.Dot:
        left, mark, axes, right = children
        named = None if axes is None else axes.names
        return ast.Dot(left, right, named, self._whole(children), self._span(mark))

    def negative(self, children: list[Any]) -> ast.Negative:
        return ast.Negative(children[1], self._whole(children))

    def number(self, children: list[Any]) -> ast.Number:
        return self._number(children[0])

    def ref(self, children: list[Any]) -> ast.Ref:
        return ast.Ref(self._name(children[0]))

    def group(self, children: list[Any]) -> ast.Expr:
        inner: ast.Expr = children[1]
        span = self._whole(children)
        if isinstance(inner, ast.Ref):
            return ast.Ref(replace(inner.name, span=span))
        return replace(inner, span=span)

    def call(self, children: list[Any]) -> ast.Call:
        first, _, second, binders, arguments = children
        space, name = (None, first) if second is None else (self._name(first), second)
        given = None if binders is None else binders.binders
        return ast.Call(space, self._name(name), given, arguments.exprs, self._whole(children))

    def binders(self, children: list[Any]) -> _Part:
        binders = tuple(child.binders[0] for child in children if isinstance(child, _Part))
        return _Part(self._whole(children), binders=binders)

    def binder(self, children: list[Any]) -> _Part:
        axis, _, to = children
        entry = ast.Binder(self._name(axis), None if to is None else self._name(to))
        return _Part(self._whole(children), binders=(entry,))

    def names(self, children: list[Any]) -> _Part:
        return _Part(self._whole(children), names=self._names(children))

    def arguments(self, children: list[Any]) -> _Part:
        exprs = tuple(child for child in children if child is not None and not isinstance(child, Token))
        return _Part(self._whole(children), exprs=exprs)
