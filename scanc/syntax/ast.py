"""The syntax tree: frozen, with a span on every node that equality ignores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from scanc.diagnostics.span import Span

NOWHERE = Span(0, 0, 1, 1)


@dataclass(frozen=True)
class Name:
    """`id` is the name in ASCII (Greek spelled out), `text` as the user wrote it."""

    id: str
    text: str = field(compare=False)
    span: Span = field(default=NOWHERE, compare=False)


# --- expressions -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Number:
    """A literal number, which is never negative."""

    value: int | float
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class Ref:
    """A name that stands for its value."""

    name: Name

    @property
    def span(self) -> Span:
        """The place of the name."""
        return self.name.span


@dataclass(frozen=True)
class Negative:
    """`-operand`."""

    operand: Expr
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class Binary:
    """`op` is one of + - * / ^ @ < <= > >= == !=; `mark` is the span of the operator."""

    op: str
    left: Expr
    right: Expr
    span: Span = field(default=NOWHERE, compare=False)
    mark: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class Dot:
    """`left · right`, over `axes` where they are named (`·[n]`)."""

    left: Expr
    right: Expr
    axes: tuple[Name, ...] | None = None
    span: Span = field(default=NOWHERE, compare=False)
    mark: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class Binder:
    """An entry of `name[…](…)`: an axis, or `axis=to`."""

    axis: Name
    to: Name | None = None


@dataclass(frozen=True)
class Call:
    """`space.name[binders](args)`."""

    space: Name | None
    name: Name
    binders: tuple[Binder, ...] | None
    args: tuple[Expr, ...]
    span: Span = field(default=NOWHERE, compare=False)


Expr = Number | Ref | Negative | Binary | Dot | Call


def children(expr: Expr) -> tuple[Expr, ...]:
    """The direct parts of an expression, in reading order."""
    match expr:
        case Negative(operand):
            return (operand,)
        case Binary(_, left, right) | Dot(left, right):
            return (left, right)
        case Call():
            return expr.args
    return ()


# --- declarations ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scan:
    """`scan name` or `scan name over semiring`."""

    name: Name
    semiring: Name | None
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class AxisDecl:
    """`size` is a number, or the axis whose size it shares."""

    name: Name
    size: Number | Name | None = None
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class Axes:
    """An `axes` or `batch` line."""

    batch: bool
    axes: tuple[AxisDecl, ...]
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class TensorDecl:
    """`name(depends)[dims]: type = init`; `dims` None means no brackets."""

    name: Name
    depends: tuple[Name, ...] | None = None
    dims: tuple[tuple[Name, ...], ...] | None = None
    type: Name | None = None
    init: Expr | None = None
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class Tensors:
    """An `input`, `param`, `state` or `output` line."""

    role: str
    tensors: tuple[TensorDecl, ...]
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class Def:
    """`def name(params) = body`."""

    name: Name
    params: tuple[TensorDecl, ...]
    body: Expr
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class Import:
    """`import "path" as name`."""

    path: str
    name: Name
    path_span: Span = field(default=NOWHERE, compare=False)
    span: Span = field(default=NOWHERE, compare=False)


# --- statements --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Assign:
    """`target = value`."""

    target: Name
    value: Expr
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class Ode:
    """`d/dt state = rhs discretize rule(settings)`."""

    state: Name
    rhs: Expr
    rule: Name
    settings: tuple[Expr, ...]
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class For:
    """`for axis { body }`."""

    axis: Name
    body: tuple[Statement, ...]
    span: Span = field(default=NOWHERE, compare=False)


Statement = Assign | Ode | For
Item = Scan | Axes | Tensors | Def | Import | Assign | Ode | For


@dataclass(frozen=True)
class Module:
    """One source file; `source` is its name and `text` its text."""

    items: tuple[Item, ...]
    source: str = field(default="<spec>", compare=False)
    text: str = field(default="", compare=False, repr=False)


def declared(items: Iterable[Item]) -> Iterator[tuple[str, TensorDecl]]:
    """Every declared tensor with its role (`input`, `param`, `state` or `output`)."""
    for item in items:
        if isinstance(item, Tensors):
            for decl in item.tensors:
                yield item.role, decl
