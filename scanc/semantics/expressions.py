"""Lowering expressions: names, arithmetic in the semiring in force, contractions, calls."""

from __future__ import annotations

from dataclasses import replace

from scanc_runtime.errors import did_you_mean

from scanc.diagnostics.diagnostic import CompileError, Label, fault
from scanc.diagnostics.span import Span
from scanc.ir.functions import SEMIRINGS
from scanc.ir.nodes import Index, Kind
from scanc.semantics import calls, products
from scanc.semantics.builtins import ELEMENTWISE, FUNCTIONS, OVER_SEMIRING, REDUCTIONS
from scanc.semantics.declarations import Declarations
from scanc.semantics.emit import Emitter
from scanc.semantics.report import Skip
from scanc.semantics.scope import Scope, find_function, formal_axes
from scanc.semantics.values import Literal, Role, Value, literal
from scanc.syntax import ast, limits

_ARITHMETIC = {
    "+": "add", "-": "sub", "*": "mul", "/": "div", "^": "pow",
    "<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne",
}  # fmt: skip


CALLS_SHOWN = 3  # of a chain of calls, besides the outermost


class Expressions:
    """Lowers expressions over the values known so far.

    `values` maps a name to its present value, None where an earlier error left it without one; `used`
    collects the names that were read; `later` are those that a later line assigns, `hidden` those that were
    local to a `for` block.
    """

    def __init__(self, decls: Declarations, emitter: Emitter, values: dict[str, Value | None]) -> None:
        self.decls = decls
        self.table = decls.table
        self.emitter = emitter
        self.values = values
        self.used: set[str] = set()
        self.later: dict[str, Span] = {}
        self.hidden: dict[str, Span] = {}
        self.delays: dict[tuple[str, int], Value] = {}
        self._slices: dict[tuple[str, str, int], Value] = {}
        self._fuel = limits.EXPRESSIONS

    def charge(self, span: Span) -> None:
        """Counts one more expression or loop step of the program as written out."""
        self._fuel -= 1
        if self._fuel < 0:
            raise fault(
                "E0905",
                f"functions and loops written out, the program has more than {limits.EXPRESSIONS} expressions",
                span,
            )

    def lower(self, expr: ast.Expr, scope: Scope) -> Value:
        """The value of an expression."""
        self.charge(expr.span)
        scope = replace(scope, depth=scope.depth + 1)
        if scope.depth > limits.NESTING:
            raise fault(
                "E0902",
                f"functions written out, an expression is nested more than {limits.NESTING} levels deep",
                expr.span,
                hint="assign a part of it to a local",
            )
        match expr:
            case ast.Number(value):
                return literal(value)
            case ast.Ref(name):
                return self.sliced(self.find(name, scope), scope, expr.span)
            case ast.Negative():
                return self._negative(expr, scope)
            case ast.Binary("@"):
                return products.matmul(self, expr, *self._pair(expr, scope), scope.algebra)
            case ast.Binary():
                return self._binary(expr, scope)
            case ast.Dot():
                return products.dot(self, expr, *self._pair(expr, scope), scope)
            case ast.Call():
                return self._call(expr, scope)

    # --- names ---

    def find(self, name: ast.Name, scope: Scope) -> Value:
        """What a name stands for, before any slicing."""
        if scope.values is not None:
            return self._parameter(name, scope)
        if name.id in self.values:
            self.used.add(name.id)
            value = self.values[name.id]
            if value is None:
                raise Skip
            return value
        if (constant := _constant(name.id, scope)) is not None:
            return literal(constant)
        if name.id in self.later:
            raise fault(
                "E0204",
                f"`{name.text}` is read before it is assigned",
                name.span,
                secondary=[(self.later[name.id], "assigned here")],
                hint=f"a value that is kept from step to step is a state: `state {name.text}[…]`",
            )
        if name.id in FUNCTIONS or name.id in scope.space.defs:
            raise fault(
                "E0201",
                f"`{name.text}` is a function",
                name.span,
                "its arguments are missing",
                hint=f"write `{name.text}(…)`",
            )
        if name.id in self.hidden:
            raise fault(
                "E0201",
                f"`{name.text}` is local to a `for` block",
                name.span,
                "unknown outside",
                secondary=[(self.hidden[name.id], "assigned here")],
                hint="a state carries a value out of the block",
            )
        known = [key for key, value in self.values.items() if value is not None]
        hint = did_you_mean(name.id, known)
        if not hint and name.id in self.table:
            hint = f"`{name.text}` is an axis; its size is `size({name.text})`"
        if not hint and name.id == "pi":
            hint = "write the number, 3.141592653589793"
        raise fault("E0201", f"`{name.text}` is not declared", name.span, "unknown name", hint=hint)

    def _parameter(self, name: ast.Name, scope: Scope) -> Value:
        assert scope.values is not None
        if name.id in scope.values:
            return scope.values[name.id]
        if (constant := _constant(name.id, scope)) is not None:
            return literal(constant)
        item = scope.calls[-1]
        hint = did_you_mean(name.id, scope.values)
        if not hint and name.id in self.values:
            hint = f"hand it in as an argument: `def {item.name.text}(…, {name.text})`"
        raise fault(
            "E0802", f"`{name.text}` is not a parameter of `{item.name.text}`", name.span, "unknown name", hint=hint
        )

    def sliced(self, value: Value, scope: Scope, span: Span) -> Value:
        """The slice of a value that the enclosing `for` blocks see."""
        for axis, position in scope.slices:
            if axis not in value.axes:
                continue
            if self.table.column.get(axis) in value.axes:
                raise fault("E0808", f"a `for` over axis `{axis}` cannot slice a value that has the axis twice", span)
            key = (value.name, axis, position)
            if key not in self._slices:
                cut = self.emitter.add(Index(axis, position), [value], span, hint=f"{value.name}_{axis}{position}")
                whole = value.whole or value
                role = Role.LOCAL if value.role is Role.RESULT else value.role  # kept, so nothing may rename it
                self._slices[key] = replace(cut, role=role, text=value.text, span=value.span, whole=whole)
            value = self._slices[key]
        return value

    def axis(self, name: ast.Name, scope: Scope) -> str:
        """The axis that a name in brackets stands for."""
        if scope.axes is None:
            return self.table.find(name)
        if name.id not in scope.axes:
            item = scope.calls[-1]
            hint = did_you_mean(name.id, scope.axes)
            raise fault(
                "E0301",
                f"`{name.text}` is not an axis of the parameters of `{item.name.text}`",
                name.span,
                hint=hint or f"name it in the head: `def {item.name.text}(x[{name.text}])`; rename at the call",
            )
        return scope.axes[name.id]

    # --- arithmetic ---

    def _negative(self, expr: ast.Negative, scope: Scope) -> Value:
        operand = self.lower(expr.operand, scope)
        if operand.literal is not None and not operand.name:
            return literal(-operand.literal)
        if scope.algebra != "real":
            raise _outside(f"`-` does not exist in the semiring `{scope.algebra}`", expr.span, "-x")
        return self.emitter.map("neg", [operand], expr.span, "-")

    def _binary(self, expr: ast.Binary, scope: Scope) -> Value:
        left, right = self.lower(expr.left, scope), self.lower(expr.right, scope)
        emit = self.emitter
        if scope.algebra == "real":
            fn = _ARITHMETIC[expr.op]
            return emit.map(fn, [left, right], expr.span, expr.op)
        if expr.op not in "+*":
            raise _outside(f"`{expr.op}` does not exist in the semiring `{scope.algebra}`", expr.mark, f"a {expr.op} b")
        left = emit.carrier(left, scope.algebra, expr.left.span)
        right = emit.carrier(right, scope.algebra, expr.right.span)
        return (emit.plus if expr.op == "+" else emit.times)(left, right, scope.algebra, expr.span)

    def _pair(self, expr: ast.Dot | ast.Binary, scope: Scope) -> tuple[Value, Value]:
        left, right = self.lower(expr.left, scope), self.lower(expr.right, scope)
        if scope.algebra != "real":
            left = self.emitter.carrier(left, scope.algebra, expr.left.span)
            right = self.emitter.carrier(right, scope.algebra, expr.right.span)
        return left, right

    # --- calls ---

    def _call(self, expr: ast.Call, scope: Scope) -> Value:
        found = find_function(expr, scope.space)
        if found is not None:
            return self._inline(expr, found[0], replace(scope, space=found[1]), scope)
        name = expr.name.id
        if scope.values is None and name in self.decls.depends:
            return self._input(expr, scope)
        if scope.values is None and name in self.values and self.values[name] is None:
            raise Skip
        if name not in FUNCTIONS:
            raise self._no_function(expr, scope)
        if scope.algebra != "real" and name not in OVER_SEMIRING:
            raise _outside(
                f"`{expr.name.text}` is not an operation of the semiring `{scope.algebra}`",
                expr.name.span,
                f"{expr.name.text}(x)",
            )
        if name in calls.SPECIAL:
            return calls.SPECIAL[name](self, expr, scope)
        if name in REDUCTIONS:
            return calls.reduction(self, expr, scope)
        assert name in ELEMENTWISE
        return calls.elementwise(self, expr, scope)

    def _input(self, expr: ast.Call, scope: Scope) -> Value:
        """`A(x)` where `input A(x)` is declared: the tensor A."""
        declared = self.decls.depends[expr.name.id]
        given = [arg.name.id if isinstance(arg, ast.Ref) else None for arg in expr.args]
        written = f"{expr.name.text}({', '.join(name.text for name in declared)})"
        if given != [name.id for name in declared] or expr.binders is not None:
            raise fault(
                "E0207",
                f"`{expr.name.text}` is declared as `{written}`",
                expr.span,
                secondary=[(self.decls.spans.get(expr.name.id), "declared here")],
                hint=f"write `{written}` or `{expr.name.text}`",
            )
        return self.lower(ast.Ref(expr.name), scope)

    def _no_function(self, expr: ast.Call, scope: Scope) -> CompileError:
        name = expr.name
        if scope.values is None and name.id in self.values:
            value = self.values[name.id]
            role = value.role if value is not None else Role.LOCAL
            product = f"multiply with `*`: `{name.text} * …`"
            first = expr.args[0].name.id if expr.args and isinstance(expr.args[0], ast.Ref) else name.id
            if role is Role.INPUT and first in self.decls.inputs and first != name.id:
                product += f"; declare `input {name.text}({first})` to write it so"
            article = "an" if role is Role.INPUT else "a"
            return fault(
                "E0207",
                f"`{name.text}` is {article} {role}, not a function",
                name.span,
                secondary=[(self.decls.spans.get(name.id), "declared here")],
                hint=product,
            )
        hint = did_you_mean(name.id, [*FUNCTIONS, *scope.space.defs])
        if not hint:
            owners = [space for space, inner in scope.space.imports.items() if name.id in inner.defs]
            hint = f"write `{owners[0]}.{name.text}`" if owners else ""
        return fault("E0202", f"there is no function `{name.text}`", name.span, hint=hint)

    def _inline(self, expr: ast.Call, item: ast.Def, inner: Scope, outer: Scope) -> Value:
        """The body of a function with its parameters standing for the arguments."""
        if any(item is call for call in outer.calls):
            raise fault(
                "E0801",
                f"function `{item.name.text}` calls itself",
                expr.name.span,
                secondary=[(item.name.span, "defined here")],
            )
        if len(expr.args) != len(item.params):
            raise fault(
                "E0206",
                f"`{item.name.text}` takes {_count(len(item.params), 'argument')}, got {len(expr.args)}",
                expr.span,
                secondary=[(item.name.span, "defined here")],
            )
        axes = self._bind(expr, item, outer)
        values = {}
        for param, arg in zip(item.params, expr.args, strict=True):
            value = self.lower(arg, outer)
            for name in (name for dim in param.dims or () for name in dim):
                if axes[name.id] not in value.axes:
                    raise fault(
                        "E0305",
                        f"the argument of `{item.name.text}` has no axis `{axes[name.id]}`",
                        arg.span,
                        f"has {self.table.shown(value.axes)}",
                        secondary=[(param.span, f"`{param.name.text}` has axis `{name.text}`")],
                        hint=f"bind the axis: `{item.name.text}[i](…)`" if expr.binders is None else "",
                    )
            values[param.name.id] = value
        scope = replace(inner, values=values, axes=axes, calls=(*outer.calls, item))
        try:
            return self.lower(item.body, scope)
        except CompileError as error:
            label = Label(expr.span, f"in this call of `{item.name.text}`")
            raise CompileError(replace(d, secondary=_called(d.secondary, label)) for d in error.diagnostics) from None

    def _bind(self, expr: ast.Call, item: ast.Def, scope: Scope) -> dict[str, str]:
        """What each axis of a function's parameters stands for in this call."""
        formal = formal_axes(item)
        defined = [(item.name.span, "defined here")]
        if expr.binders is None:
            missing = [axis for axis in formal if axis not in (self.table if scope.axes is None else scope.axes)]
            if missing:
                raise fault(
                    "E0803",
                    f"axis `{missing[0]}` of `{item.name.text}` is not bound",
                    expr.name.span,
                    secondary=defined,
                    hint=f"say what it stands for: `{item.name.text}[i](…)`",
                )
            return {axis: axis if scope.axes is None else scope.axes[axis] for axis in formal}
        for binder in expr.binders:
            if binder.to is not None:
                raise fault(
                    "E0312",
                    "the axes of a function are bound by position",
                    binder.axis.span,
                    hint=f"write `{item.name.text}[{binder.to.text}](…)`",
                )
        if len(expr.binders) != len(formal):
            raise fault(
                "E0803",
                f"`{item.name.text}` has {_count(len(formal), 'axis')}, got {len(expr.binders)}",
                expr.span,
                secondary=defined,
            )
        bound = [self.axis(binder.axis, scope) for binder in expr.binders]
        for position, axis in enumerate(bound):
            if axis in bound[:position]:
                raise fault(
                    "E0803", f"axis `{axis}` is bound twice", expr.binders[position].axis.span, secondary=defined
                )
        return dict(zip(formal, bound, strict=True))

    def arguments(self, expr: ast.Call, count: int) -> tuple[ast.Expr, ...]:
        """The arguments of a call, of which there must be `count`."""
        if len(expr.args) != count:
            raise fault(
                "E0206", f"`{expr.name.text}` takes {_count(count, 'argument')}, got {len(expr.args)}", expr.span
            )
        return expr.args

    def condition(self, expr: ast.Expr, scope: Scope) -> Value:
        """A bool value."""
        value = self.lower(expr, scope)
        if value.kind is not Kind.BOOL:
            raise fault(
                "E0402",
                "a condition must be bool",
                expr.span,
                f"this is {value.kind}",
                hint="compare: `x > 0`" if value.kind is not Kind.COMPLEX else "compare its `abs`",
            )
        return value


def _called(labels: tuple[Label, ...], call: Label) -> tuple[Label, ...]:
    """The labels with one more call; of a long chain of calls the innermost and the outermost stay."""
    return (*labels[:CALLS_SHOWN], call)


def _constant(name: str, scope: Scope) -> Literal | None:
    if name == "inf":
        return float("inf")
    if name in ("zero", "one"):
        value: Literal = getattr(SEMIRINGS[scope.algebra], name)
        return value
    return None


def _outside(headline: str, span: Span, example: str) -> CompileError:
    return fault("E0502", headline, span, hint=f"ordinary arithmetic stands inside `value(…)`: `value({example})`")


def _count(number: int, noun: str) -> str:
    plural = {"axis": "axes"}.get(noun, f"{noun}s")
    return f"{number} {noun if number == 1 else plural}"
