"""How functions of matrices are spelled in torch, which has matrices in the last two dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from scanc.codegen.expressions import Expr
from scanc.codegen.torch.values import Lead, Value, aligned, reordered
from scanc.ir.nodes import Matrix


def matrix_function(op: Matrix, operands: Sequence[Value], axes: tuple[str, ...], leading: str) -> tuple[Value, int]:
    """The value with the given axes, and how many of its size the call holds at once.

    `operands` are of one kind; `leading` names the leading dimensions of full ones.  A call holds a few matrices of
    twice the size, and twice as many for each direction.
    """
    matrix = (op.rows, op.columns)
    order = (*(axis for axis in axes if axis not in matrix), *matrix)
    lead, kind = max(value.lead for value in operands), operands[0].kind
    given = []
    for value in operands:
        own = tuple(axis for axis in order if axis in value.axes)
        turned = reordered(value, own, len(leading) if value.lead is Lead.FULL else 0)
        given.append(aligned(replace(value, expr=turned, axes=own), order, lead).text)
    result = Value(Expr(f"functions.matrix_{op.fn}({', '.join(given)})"), order, kind, lead)
    back = reordered(result, axes, len(leading) if lead is Lead.FULL else 0)
    return replace(result, expr=back, axes=axes), 16 * 2 ** (len(operands) - 1)
