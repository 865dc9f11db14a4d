"""Lowering the functions of the language that are more than one elementwise instruction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from scanc.diagnostics.diagnostic import fault
from scanc.diagnostics.span import Span
from scanc.ir.functions import SEMIRINGS, TABLE
from scanc.ir.nodes import Conv, Delay, Kind, Rename, Size
from scanc.semantics.products import single
from scanc.semantics.scope import Scope
from scanc.semantics.values import Role, Value
from scanc.syntax import ast, limits

if TYPE_CHECKING:
    from scanc.semantics.expressions import Expressions


def elementwise(low: Expressions, call: ast.Call, scope: Scope) -> Value:
    """A function of the IR's table."""
    _no_brackets(call)
    name = call.name.id
    args = [low.lower(arg, scope) for arg in low.arguments(call, TABLE[name].arity)]
    if name == "complex":
        for arg, value in zip(call.args, args, strict=True):
            _real(value, arg.span, "`complex` is made of two real numbers")
    return low.emitter.map(name, args, call.span)


# --- reductions ---


def reduction(low: Expressions, call: ast.Call, scope: Scope) -> Value:
    """`sum mean max min norm softmax logsumexp` with axes in brackets; max and min of two values without."""
    name = call.name.id
    if name in ("max", "min") and call.binders is None and len(call.args) == 2:
        pair = [low.lower(arg, scope) for arg in call.args]
        return low.emitter.map({"max": "maximum", "min": "minimum"}[name], pair, call.span, name)
    if call.binders is None:
        hint = f"name them: `{name}[i](x)`"
        if name in ("max", "min"):
            hint += f"; of two values: `{name}(a, b)`"
        raise fault("E0312", f"`{name}` needs the axes that it runs over", call.name.span, hint=hint)
    (arg,) = low.arguments(call, 1)
    value = low.lower(arg, scope)
    axes = _axes(low, call, value, arg.span, scope)
    if value.kind is Kind.COMPLEX and name not in ("sum", "mean", "norm"):
        raise fault(
            "E0401",
            f"`{name}` is not defined on complex numbers",
            call.span,
            "its argument is complex",
            hint="`real`, `imag` and `abs` give real numbers",
        )
    if name == "sum" and scope.algebra != "real":
        value = low.emitter.carrier(value, scope.algebra, arg.span)
        return low.emitter.reduce(SEMIRINGS[scope.algebra].reduce, value, axes, call.span)
    return _REDUCTIONS[name](low, value, axes, call.span)


def _axes(low: Expressions, call: ast.Call, value: Value, place: Span, scope: Scope) -> list[str]:
    """The axes in brackets, each of which the argument must have."""
    axes: list[str] = []
    for binder in call.binders or ():
        if binder.to is not None:
            raise fault(
                "E0312",
                f"`{call.name.text}` takes axes in its brackets",
                binder.axis.span,
                hint=f"write `{call.name.text}[{binder.axis.text}](…)`",
            )
        axis = low.axis(binder.axis, scope)
        if axis in axes:
            raise fault("E0308", f"axis `{binder.axis.text}` is named twice", binder.axis.span)
        if axis not in value.axes:
            notes: tuple[str, ...] = ()
            if any(axis == sliced for sliced, _ in scope.slices):
                notes = (f"inside `for {axis}` every value is its slice along `{axis}`",)
            raise fault(
                "E0305",
                f"the argument of `{call.name.text}` has no axis `{binder.axis.text}`",
                binder.axis.span,
                secondary=[(place, f"has {low.table.shown(value.axes)}")],
                notes=notes,
            )
        single(low, value, axis, binder.axis.span)
        axes.append(axis)
    if not axes:
        raise fault("E0312", f"`{call.name.text}` needs the axes that it runs over", call.name.span)
    return axes


def _sum(low: Expressions, value: Value, axes: list[str], span: Span) -> Value:
    return low.emitter.reduce("sum", value, axes, span)


def _mean(low: Expressions, value: Value, axes: list[str], span: Span) -> Value:
    emit = low.emitter
    count = emit.add(Size(axes[0]), [], span, hint=f"size_{axes[0]}")
    for axis in axes[1:]:
        count = emit.map("mul", [count, emit.add(Size(axis), [], span, hint=f"size_{axis}")], span)
    return emit.map("div", [_sum(low, value, axes, span), count], span)


def _norm(low: Expressions, value: Value, axes: list[str], span: Span) -> Value:
    emit = low.emitter
    if value.kind is Kind.COMPLEX:
        value = emit.map("real", [emit.map("mul", [value, emit.map("conj", [value], span)], span)], span)
    else:
        value = emit.map("mul", [value, value], span)
    return emit.map("sqrt", [_sum(low, value, axes, span)], span)


def _softmax(low: Expressions, value: Value, axes: list[str], span: Span) -> Value:
    """exp(x - max) / Σ: the shift takes no gradient, as the quotient does not depend on it."""
    emit = low.emitter
    top = emit.map("stop", [emit.reduce("max", value, axes, span)], span)
    weight = emit.map("expdiff", [value, top], span)
    return emit.map("div", [weight, _sum(low, weight, axes, span)], span)


def _extreme(fn: str) -> Callable[[Expressions, Value, list[str], Span], Value]:
    return lambda low, value, axes, span: low.emitter.reduce(fn, value, axes, span)


_REDUCTIONS: dict[str, Callable[[Expressions, Value, list[str], Span], Value]] = {
    "sum": _sum,
    "mean": _mean,
    "norm": _norm,
    "softmax": _softmax,
    "max": _extreme("max"),
    "min": _extreme("min"),
    "logsumexp": _extreme("logsumexp"),
}

# --- structure ---


def _where(low: Expressions, call: ast.Call, scope: Scope) -> Value:
    _no_brackets(call)
    test, first, second = low.arguments(call, 3)
    condition = low.condition(test, scope)
    pair = [low.lower(first, scope), low.lower(second, scope)]
    if scope.algebra != "real":
        pair = [low.emitter.carrier(v, scope.algebra, e.span) for v, e in zip(pair, (first, second), strict=True)]
    return low.emitter.map("where", [condition, *pair], call.span)


def _stop(low: Expressions, call: ast.Call, scope: Scope) -> Value:
    _no_brackets(call)
    (arg,) = low.arguments(call, 1)
    return low.emitter.map("stop", [low.lower(arg, scope)], call.span)


def _value(low: Expressions, call: ast.Call, scope: Scope) -> Value:
    _no_brackets(call)
    (arg,) = low.arguments(call, 1)
    return low.lower(arg, replace(scope, algebra="real"))


def _size(low: Expressions, call: ast.Call, scope: Scope) -> Value:
    _no_brackets(call)
    (arg,) = low.arguments(call, 1)
    if not isinstance(arg, ast.Ref):
        raise fault("E0312", "`size` takes the name of an axis", arg.span, hint="write `size(i)`")
    axis = low.axis(arg.name, scope)
    if axis in low.decls.unsized:
        raise fault(
            "E0310",
            f"the size of axis `{arg.name.text}` is not known at a call",
            arg.span,
            "no input and no param has this axis",
            hint=f"fix it: `axes {axis} = 16`",
        )
    return low.emitter.add(Size(axis), [], call.span, hint=f"size_{axis}")


def _polar(low: Expressions, call: ast.Call, scope: Scope) -> Value:
    _no_brackets(call)
    emit = low.emitter
    radius, angle = (low.lower(arg, scope) for arg in low.arguments(call, 2))
    for value, arg in zip((radius, angle), call.args, strict=True):
        _real(value, arg.span, "`polar` takes a radius and an angle")
    parts = [emit.map("mul", [radius, emit.map(fn, [angle], call.span)], call.span) for fn in ("cos", "sin")]
    return emit.map("complex", parts, call.span)


def _clamp(low: Expressions, call: ast.Call, scope: Scope) -> Value:
    _no_brackets(call)
    value, least, most = (low.lower(arg, scope) for arg in low.arguments(call, 3))
    inner = low.emitter.map("maximum", [value, least], call.span, "clamp")
    return low.emitter.map("minimum", [inner, most], call.span, "clamp")


def _rename(low: Expressions, call: ast.Call, scope: Scope) -> Value:
    if not call.binders or any(binder.to is None for binder in call.binders):
        raise fault("E0312", "`rename` needs pairs of axes", call.name.span, hint="write `rename[i=m](x)`")
    (arg,) = low.arguments(call, 1)
    value = low.lower(arg, scope)
    pairs: dict[str, str] = {}
    for binder in call.binders:
        assert binder.to is not None
        old, new = low.axis(binder.axis, scope), low.axis(binder.to, scope)
        if old in pairs or new in pairs.values():
            raise fault("E0309", "an axis is renamed twice", binder.axis.span)
        if old not in value.axes:
            raise fault(
                "E0305",
                f"the argument of `rename` has no axis `{binder.axis.text}`",
                binder.axis.span,
                secondary=[(arg.span, f"has {low.table.shown(value.axes)}")],
            )
        single(low, value, old, binder.axis.span)
        if low.table.size_class(old) != low.table.size_class(new):
            raise fault(
                "E0309",
                f"axes `{binder.axis.text}` and `{binder.to.text}` may have different sizes",
                binder.to.span,
                secondary=[(low.table.spans.get(new), "declared here")],
                hint=f"declare it with the other's size: `axes {new} = {old}`",
            )
        pairs[old] = new
    for binder in call.binders:
        assert binder.to is not None
        new = low.axis(binder.to, scope)
        if new in value.axes and new not in pairs:
            raise fault(
                "E0309",
                f"the value has axis `{binder.to.text}` already",
                binder.to.span,
                secondary=[(arg.span, f"has {low.table.shown(value.axes)}")],
            )
    moved = tuple((old, new) for old, new in pairs.items() if old != new)
    return low.emitter.add(Rename(moved), [value], call.span) if moved else value


# --- the past ---


def _past(low: Expressions, call: ast.Call, arg: ast.Expr, scope: Scope) -> Value:
    """The input or local whose past is wanted, as it is outside any `for`."""
    name = call.name.text
    hint = "assign it to a local first"
    if not isinstance(arg, ast.Ref):
        raise fault("E0603", f"`{name}` takes the name of an input or of a local", arg.span, hint=hint)
    value = low.find(arg.name, scope)
    value = value.whole or value
    if value.role is Role.INPUT:
        return value
    if value.role is Role.LOCAL:
        if value.name != value.text:
            alias = replace(low.emitter.add(Rename(()), [value], arg.span), role=Role.RESULT)
            low.values[value.text] = value = low.emitter.named(alias, value.text, arg.span, Role.LOCAL)
        return value
    hints = {
        Role.STATE: f"a state holds its previous value until it is assigned: read `{arg.name.text}` before that line",
        Role.PARAM: "a param does not change over time",
        Role.BLOCK: "assign it to a local outside the `for` block",
    }
    raise fault(
        "E0603",
        f"`{name}` takes the name of an input or of a local",
        arg.span,
        f"`{arg.name.text}` is a {value.role}",
        hint=hints.get(value.role, hint),
    )


def _prev(low: Expressions, call: ast.Call, scope: Scope) -> Value:
    _no_brackets(call)
    if len(call.args) not in (1, 2):
        raise fault("E0206", f"`prev` takes 2 arguments, got {len(call.args)}", call.span, hint="write `prev(x, 1)`")
    steps = 1
    if len(call.args) == 2:
        count = call.args[1]
        if not isinstance(count, ast.Number) or not isinstance(count.value, int) or count.value < 1:
            raise fault(
                "E0406",
                "`prev` reaches back a whole number of steps, at least 1",
                count.span,
                hint="write it as a number: `prev(x, 1)`",
            )
        steps = count.value
        if steps > limits.DELAY:
            raise fault("E0907", f"`prev` reaches back at most {limits.DELAY} steps", count.span)
    value = _past(low, call, call.args[0], scope)
    key = (value.name, steps)
    if not scope.slices:
        return low.emitter.add(Delay(steps), [value], call.span, hint=f"{value.name}_{steps}_ago")
    if key not in low.delays:
        late = low.emitter.add(Delay(steps), [value], call.span, hint=f"{value.name}_{steps}_ago")
        low.delays[key] = replace(late, role=Role.LOCAL)  # kept, so nothing may rename it
    return low.sliced(low.delays[key], scope, call.span)


def _conv(low: Expressions, call: ast.Call, scope: Scope) -> Value:
    if call.binders is None or len(call.binders) != 1 or call.binders[0].to is not None:
        raise fault("E0312", "`conv` needs the axis of its taps", call.name.span, hint="write `conv[w](x, kernel)`")
    source, taps = low.arguments(call, 2)
    binder = call.binders[0]
    axis = low.axis(binder.axis, scope)
    size = low.table[axis].size
    if size is None:
        raise fault(
            "E0311",
            f"axis `{binder.axis.text}` needs a fixed size, as it counts the taps of `conv`",
            binder.axis.span,
            secondary=[(low.table.spans.get(axis), "declared here")],
            hint=f"fix it: `axes {axis} = 4`",
        )
    if size > limits.DELAY:
        raise fault("E0907", f"`conv` reaches back at most {limits.DELAY} steps", binder.axis.span)
    value = _past(low, call, source, scope)
    kernel = low.lower(taps, scope)
    if axis not in kernel.axes:
        raise fault(
            "E0305",
            f"the kernel of `conv` has no axis `{binder.axis.text}`",
            taps.span,
            f"has {low.table.shown(kernel.axes)}",
        )
    if axis in value.axes:
        raise fault("E0308", f"the signal of `conv` has the axis of the taps `{binder.axis.text}`", source.span)
    single(low, kernel, axis, binder.axis.span)
    emit = low.emitter
    pair = [emit.widen(v, Kind.REAL, call.span) if v.kind is not Kind.COMPLEX else v for v in (value, kernel)]
    if pair[0].name != value.name:
        raise fault(
            "E0603",
            "the signal of `conv` must be a floating-point tensor",
            source.span,
            f"this is {value.kind}",
            hint="assign it to a local as a real number first: `x * 1.0`",
        )
    return low.sliced(emit.add(Conv(axis), pair, call.span), scope, call.span)


def _no_brackets(call: ast.Call) -> None:
    if call.binders is not None:
        raise fault(
            "E0312",
            f"`{call.name.text}` takes no axes",
            call.span,
            hint=f"write `{call.name.text}(…)`: it works elementwise" if call.name.id in TABLE else "",
        )


def _real(value: Value, span: Span, why: str) -> None:
    if value.kind is Kind.COMPLEX:
        raise fault("E0401", why, span, "this is complex")


SPECIAL: dict[str, Callable[[Expressions, ast.Call, Scope], Value]] = {
    "where": _where,
    "stop": _stop,
    "value": _value,
    "size": _size,
    "polar": _polar,
    "clamp": _clamp,
    "rename": _rename,
    "prev": _prev,
    "conv": _conv,
}
