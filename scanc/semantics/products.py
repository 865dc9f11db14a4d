"""The products that contract: `·`, `·[axes]` and `@`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scanc.diagnostics.diagnostic import fault
from scanc.diagnostics.span import Span
from scanc.ir.nodes import Rename
from scanc.semantics.scope import Scope
from scanc.semantics.values import Value
from scanc.syntax import ast

if TYPE_CHECKING:
    from scanc.semantics.expressions import Expressions


def _sides(low: Expressions, expr: ast.Dot | ast.Binary, left: Value, right: Value) -> list[tuple[Span | None, str]]:
    """The axes of both operands, for a message."""
    return [
        (expr.left.span, f"has {low.table.shown(left.axes)}"),
        (expr.right.span, f"has {low.table.shown(right.axes)}"),
    ]


def dot(low: Expressions, expr: ast.Dot, left: Value, right: Value, scope: Scope) -> Value:
    """`left · right` over all axes that both sides have but batch axes, or over the named ones."""
    sides = _sides(low, expr, left, right)
    if expr.axes is not None:
        return _dot_named(low, expr, expr.axes, left, right, scope)
    both = set(left.axes) & set(right.axes)
    shared = {axis for axis in both if not low.table[axis].batch}
    if not shared:
        hint = "`*` multiplies elementwise and makes an outer product of axes that only one side has"
        label = f"only the batch axes {low.table.shown(both)} are shared" if both else "no axis is shared"
        raise fault(
            "E0304",
            "nothing to contract: the two sides share no axis",
            expr.mark,
            label,
            secondary=sides,
            hint=hint,
        )
    for axis, column in low.table.column.items():
        if axis in shared and (column in left.axes) != (column in right.axes):
            raise fault(
                "E0308",
                f"`·` cannot tell which of the two axes `{axis}` to contract",
                expr.mark,
                secondary=sides,
                hint="the product of a matrix and a vector is `A @ h`",
            )
    return low.emitter.contract(left, right, shared, scope.algebra, expr.span)


def _dot_named(
    low: Expressions, expr: ast.Dot, names: tuple[ast.Name, ...], left: Value, right: Value, scope: Scope
) -> Value:
    axes = []
    for name in names:
        axis = low.axis(name, scope)
        sides = _sides(low, expr, left, right)
        if axis in axes:
            raise fault("E0308", f"axis `{name.text}` is named twice", name.span)
        if low.table[axis].batch:
            raise fault(
                "E0306",
                f"`{name.text}` is a batch axis and is not contracted",
                name.span,
                secondary=[(low.table.spans.get(axis), "declared here")],
                hint="declare it under `axes`, or sum over it: `sum[" + name.text + "](a * b)`",
            )
        for value, where in ((left, "left"), (right, "right")):
            if axis not in value.axes:
                raise fault("E0305", f"the {where} side of `·` has no axis `{name.text}`", name.span, secondary=sides)
            single(low, value, axis, name.span)
        axes.append(axis)
    return low.emitter.contract(left, right, axes, scope.algebra, expr.span)


def single(low: Expressions, value: Value, axis: str, span: Span) -> None:
    """Refuses to name an axis that a value has twice."""
    if low.table.column.get(axis) in value.axes:
        raise fault(
            "E0308",
            f"the value has axis `{axis}` twice",
            span,
            hint=f"declare the second one apart: `axes m = {axis}`, `A[{axis},m]`; products are `A @ h` and `h @ A`",
        )


def matmul(low: Expressions, expr: ast.Binary, left: Value, right: Value, algebra: str) -> Value:
    """`A @ h` over the column axis of A, `h @ A` over its rows, `A @ B` through a third axis."""
    left_axes, right_axes = _matrix_axes(low, left), _matrix_axes(low, right)
    if len(left_axes) > 1 or len(right_axes) > 1:
        raise fault(
            "E0307",
            "`@` cannot tell which repeated axis to contract",
            expr.mark,
            secondary=_sides(low, expr, left, right),
        )
    axis = (left_axes or right_axes or [""])[0]
    if not axis or axis not in left.axes or axis not in right.axes:
        missing = "neither side has a repeated axis" if not axis else f"one side has no axis `{axis}`"
        raise fault(
            "E0307",
            "`@` needs a matrix such as `A[n,n]` and a value over the same axis",
            expr.mark,
            missing,
            secondary=_sides(low, expr, left, right),
            hint="`·` (or `dot`) contracts the axes that both sides have",
        )
    column, middle = low.table.column[axis], low.table.middle[axis]
    emit = low.emitter
    if left_axes and right_axes:
        left = emit.add(Rename(((column, middle),)), [left], expr.span)
        right = emit.add(Rename(((axis, middle),)), [right], expr.span)
        return emit.contract(left, right, [middle], algebra, expr.span)
    if left_axes:
        right = emit.add(Rename(((axis, column),)), [right], expr.span)
        return emit.contract(left, right, [column], algebra, expr.span)
    product = emit.contract(left, right, [axis], algebra, expr.span)
    return emit.add(Rename(((column, axis),)), [product], expr.span)


def _matrix_axes(low: Expressions, value: Value) -> list[str]:
    return [axis for axis, column in low.table.column.items() if axis in value.axes and column in value.axes]
