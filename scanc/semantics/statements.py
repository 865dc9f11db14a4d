"""Lowering statements: assignments, `d/dt … discretize …`, and `for` blocks written out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from scanc_runtime.errors import did_you_mean

from scanc.diagnostics.diagnostic import fault
from scanc.diagnostics.span import Span
from scanc.ir.nodes import Kind, Ode, Stack, State
from scanc.semantics.builtins import RULES
from scanc.semantics.declarations import Declarations, check_name
from scanc.semantics.expressions import Expressions
from scanc.semantics.report import Report, Skip
from scanc.semantics.scope import Scope
from scanc.semantics.values import KIND_WORDS, Role, Value
from scanc.syntax import ast


class Statements:
    """Runs the statements of a spec over the table of values, top to bottom."""

    def __init__(self, decls: Declarations, expressions: Expressions, report: Report) -> None:
        self.decls = decls
        self.expressions = expressions
        self.values = expressions.values
        self.report = report
        self.assigned: dict[str, Span] = {}  # locals and states, where they were first assigned
        self._odes: dict[str, Span] = {}

    def run(self, statements: Sequence[ast.Statement], scope: Scope) -> None:
        """Lowers statements in order; a wrong one is reported and does not hide the next."""
        later = self.expressions.later
        for target in _targets(statements):
            if target.id not in self.decls.states:
                later.setdefault(target.id, target.span)
        for statement in statements:
            with self.report.catching():
                self._statement(statement, scope)

    def _statement(self, statement: ast.Statement, scope: Scope) -> None:
        match statement:
            case ast.Assign():
                self._assign(statement, scope)
            case ast.Ode():
                self._ode(statement, scope)
            case ast.For():
                self._for(statement, scope)

    # --- assignments ---

    def _assign(self, statement: ast.Assign, scope: Scope) -> None:
        target = statement.target
        state = self.decls.states.get(target.id)
        if state is not None:
            self.assigned.setdefault(target.id, target.span)
            value = self.expressions.lower(statement.value, scope)
            self._store(state, value, statement.value.span, scope)
            return
        self._check_target(target)
        self.assigned[target.id] = target.span
        self.values[target.id] = None
        value = self.expressions.lower(statement.value, scope)
        role = Role.BLOCK if scope.slices else Role.LOCAL
        name = self.expressions.emitter.builder.fresh(target.id) if scope.slices else target.id
        self.values[target.id] = self.expressions.emitter.named(value, name, target.span, role)

    def _check_target(self, target: ast.Name) -> None:
        decls = self.decls
        if target.id in decls.spans and target.id not in {**decls.inputs, **decls.params}:
            raise Skip
        if target.id in decls.spans:
            role = "input" if target.id in decls.inputs else "param"
            raise fault(
                "E0205",
                f"`{target.text}` is {'an' if role == 'input' else 'a'} {role} and cannot be assigned",
                target.span,
                secondary=[(decls.spans[target.id], "declared here")],
                hint="assign a local of another name",
            )
        check_name(target, decls.semiring, False)
        if target.id in self.assigned:
            raise fault(
                "E0203",
                f"local `{target.text}` is assigned twice",
                target.span,
                secondary=[(self.assigned[target.id], "first here")],
                hint=f"use another name, or declare a state: `state {target.text}[…]`",
            )

    def _store(self, state: State, value: Value, span: Span, scope: Scope) -> None:
        """`value` becomes what the state holds; its axes must be those of the state."""
        value = self._fit(state, value, span, scope)
        emitter = self.expressions.emitter
        fresh = emitter.builder.fresh(state.name)
        self.values[state.name] = emitter.named(value, fresh, span, Role.STATE)

    def _fit(self, state: State, value: Value, span: Span, scope: Scope) -> Value:
        """The value in the type of the state."""
        table = self.decls.table
        wanted = self._axes(state, scope)
        missing, extra = wanted - set(value.axes), set(value.axes) - wanted
        if missing or extra:
            parts = [f"lacks {table.shown(missing)}"] if missing else []
            parts += [f"has {table.shown(extra)} too many"] if extra else []
            raise fault(
                "E0302",
                f"the value of state `{state.name}` {' and '.join(parts)}",
                span,
                f"has {table.shown(value.axes)}",
                secondary=[(state.span, f"`{state.name}` has {table.shown(wanted)}")],
                hint=_axes_hint(state, value, missing, extra),
            )
        if self.decls.semiring != "real":
            return self.expressions.emitter.carrier(value, self.decls.semiring, span)
        order = list(KIND_WORDS)
        kind = state.type.kind
        if order.index(value.kind) > order.index(kind) or (kind is Kind.INT and value.kind is Kind.BOOL):
            hint = f"declare it as `: {KIND_WORDS[value.kind]}`"
            if value.kind is Kind.COMPLEX:
                hint += ", or take `real(…)`"
            raise fault(
                "E0403",
                f"state `{state.name}` is {KIND_WORDS[kind]}",
                span,
                f"this is {KIND_WORDS[value.kind]}",
                secondary=[(state.span, "declared here")],
                hint=hint,
            )
        return self.expressions.emitter.widen(value, kind, span)

    def _axes(self, state: State, scope: Scope) -> set[str]:
        """The axes of a state as the enclosing `for` blocks see it."""
        return set(state.type.axes) - {axis for axis, _ in scope.slices}

    # --- continuous time ---

    def _ode(self, statement: ast.Ode, scope: Scope) -> None:
        decls, low = self.decls, self.expressions
        name = statement.state
        state = decls.states.get(name.id)
        if state is None:
            hint = did_you_mean(name.id, decls.states) or f"declare it: `state {name.text}[…]`"
            raise fault("E0703", f"`{name.text}` is not a state", name.span, hint=hint)
        self.assigned.setdefault(name.id, name.span)
        if decls.semiring != "real":
            raise fault("E0705", f"`d/dt` does not exist over the semiring `{decls.semiring}`", statement.span)
        if state.type.kind in (Kind.BOOL, Kind.INT):
            raise fault(
                "E0705",
                f"state `{name.text}` is {state.type.kind} and does not change continuously",
                name.span,
                secondary=[(state.span, "declared here")],
            )
        if scope.slices:
            raise fault(
                "E0705",
                "`d/dt` cannot stand inside `for`",
                statement.span,
                hint="write it outside the block: axes are carried along anyway",
            )
        if name.id in self._odes:
            raise fault(
                "E0705",
                f"`{name.text}` has two lines with `d/dt`",
                name.span,
                secondary=[(self._odes[name.id], "first here")],
            )
        self._odes[name.id] = name.span
        settings = self._settings(statement, state, scope)
        current = low.find(name, scope)
        rhs = self._fit(state, low.lower(statement.rhs, scope), statement.rhs.span, scope)
        rule = statement.rule.id
        value = low.emitter.add(Ode(state.name, rule), [current, rhs, *settings], statement.span)
        self._store(state, value, statement.span, scope)

    def _settings(self, statement: ast.Ode, state: State, scope: Scope) -> list[Value]:
        """The settings of the rule: real, with axes of the state only."""
        rule, table = statement.rule, self.decls.table
        if rule.id not in RULES:
            listed = ", ".join(f"`{name}`" for name in RULES)
            raise fault(
                "E0701",
                f"there is no discretisation rule `{rule.text}`",
                rule.span,
                hint=did_you_mean(rule.id, RULES) or f"the rules are {listed}",
            )
        wanted = RULES[rule.id]
        if len(statement.settings) != len(wanted):
            raise fault(
                "E0702",
                f"`{rule.text}` takes {len(wanted)} setting{'s' * (len(wanted) > 1)}, got {len(statement.settings)}",
                rule.span,
                hint=f"write `{rule.text}({', '.join(wanted)})`",
            )
        values = []
        for expr in statement.settings:
            value = self.expressions.lower(expr, scope)
            extra = set(value.axes) - set(state.type.axes)
            if extra:
                raise fault(
                    "E0704",
                    f"a setting of `{rule.text}` has {table.shown(extra)}, which state `{state.name}` lacks",
                    expr.span,
                    f"has {table.shown(value.axes)}",
                    secondary=[(state.span, f"has {table.shown(state.type.axes)}")],
                )
            if value.kind is Kind.COMPLEX:
                raise fault("E0704", f"a setting of `{rule.text}` must be real", expr.span, "this is complex")
            values.append(self.expressions.emitter.widen(value, Kind.REAL, expr.span))
        return values

    # --- for ---

    def _for(self, statement: ast.For, scope: Scope) -> None:
        """The block once per index: a state with the axis is taken apart before and put together behind it."""
        axis = self._loop_axis(statement, scope)
        size = self.decls.table[axis].size
        assert size is not None
        locals_, states = self._split(statement, axis)
        whole = {name: self.values[name] for name in states}
        parts: dict[str, list[Value]] = {name: [] for name in states}
        before = len(self.report.errors)
        hidden = dict(self.expressions.later)
        for position in range(size):
            self.expressions.charge(statement.axis.span)
            inner = replace(scope, slices=(*scope.slices, (axis, position)))
            for name, value in whole.items():
                assert value is not None
                self.values[name] = self.expressions.sliced(value, inner, statement.axis.span)
            self.run(statement.body, inner)
            for name in states:
                part = self.values[name]
                assert part is not None
                parts[name].append(self.expressions.emitter.place(part, statement.span))
            for local in locals_:
                if self.assigned.get(local.id) == local.span:
                    del self.assigned[local.id]
                    self.values.pop(local.id, None)
            if len(self.report.errors) > before:
                break
        self.values.update(whole)
        self.expressions.later.clear()
        self.expressions.later.update(hidden)
        self.expressions.hidden.update((name.id, name.span) for name in locals_)
        if len(self.report.errors) > before:
            return
        emitter = self.expressions.emitter
        for name in states:
            joined = emitter.add(Stack(axis), parts[name], statement.span, hint=name)
            self.values[name] = replace(joined, role=Role.STATE, text=name)

    def _loop_axis(self, statement: ast.For, scope: Scope) -> str:
        table, name = self.decls.table, statement.axis
        axis = table.find(name)
        if any(axis == sliced for sliced, _ in scope.slices):
            raise fault("E0808", f"`for {name.text}` stands inside `for {name.text}`", name.span)
        if table[axis].size is None:
            raise fault(
                "E0311",
                f"axis `{name.text}` needs a fixed size, as `for` is written out over it",
                name.span,
                secondary=[(table.spans.get(axis), "declared here")],
                hint=f"fix it: `axes {name.text} = 2`",
            )
        return axis

    def _split(self, statement: ast.For, axis: str) -> tuple[list[ast.Name], list[str]]:
        """The locals that a block assigns, and the states with its axis that it assigns."""
        locals_: list[ast.Name] = []
        states: dict[str, None] = {}
        for target in _targets(statement.body, deep=True):
            if target.id not in self.decls.states:
                locals_.append(target)
            elif axis in self.decls.states[target.id].type.axes:
                states[target.id] = None
        return locals_, list(states)


def _targets(statements: Iterable[ast.Statement], deep: bool = False) -> Iterator[ast.Name]:
    """The names that statements assign; those inside `for` blocks too if `deep`."""
    for statement in statements:
        if isinstance(statement, ast.Assign):
            yield statement.target
        elif isinstance(statement, ast.For) and deep:
            yield from _targets(statement.body, deep)


def _axes_hint(state: State, value: Value, missing: set[str], extra: set[str]) -> str:
    """How to make the axes meet."""
    if missing and not value.axes:
        return f"nothing is broadcast into a state; for a constant write `0 * {state.name} + …`"
    if missing:
        axis = sorted(missing)[0]
        return f"nothing is broadcast into a state: multiply by a tensor with axis `{axis}`, or drop it from the state"
    axis = sorted(extra)[0]
    return f"contract or reduce axis `{axis}` (`a ·[{axis}] b`, `sum[{axis}](…)`), or give it to the state"
