"""memorize: a matrix that is only read by contractions becomes a memory, of which no step is written down.

S = D·S + Σ x ⊗ y, with every decay on rows, on columns or on all, and every use of S or of its next value linear and
contracted over all rows or all columns.  Such a use is what the step recalls from the state before it, plus products of
its own step; then the state itself need not exist between two steps (theory, sections 1 and 2).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce

from scanc.analysis.affine import Affine, Factor, Form, Term, Top, affine_forms
from scanc.analysis.factors import Apart, Factors, Log, Parts, Splitter
from scanc.analysis.recurrence import facts, recurrence
from scanc.diagnostics.span import Span
from scanc.ir.build import Builder
from scanc.ir.nodes import Contract, Instr, Kind, Level, Map, Memory, Program, Recall, RegionKind, Side, State
from scanc.ir.rewrite import live, one_region, ordered, roots
from scanc.passes.base import Pass, Remark, Rewrite
from scanc.passes.stage import STAGE


def run(program: Program) -> Rewrite:
    if program.semiring != "real" or not any(_is_matrix(program, state) for state in program.states):
        return program, ()
    staged, _ = STAGE.run(program)
    known = facts(staged)
    remarks: list[Remark] = []
    for region in staged.regions:
        if region.kind is not RegionKind.LOOP or len(region.states) != 1:
            continue
        found = recurrence(known, region.states)
        if found.label != "outer product":
            continue
        state = next(state for state in program.states if state.name == region.states[0])
        try:
            program, remark = memorized(program, state, found.summary())
        except Apart as reason:
            remark = Remark("memorize", f"{state.name}: {reason}", applied=False, span=reason.span or state.span)
        remarks.append(remark)
    return program, tuple(remarks)


def _is_matrix(program: Program, state: State) -> bool:
    """Whether a state has several axes besides batch axes."""
    return sum(not program.axis(axis).batch for axis in state.type.axes) > 1


def memorized(program: Program, state: State, about: str) -> tuple[Program, Remark]:
    """The program with `state` as a memory; raises Apart with the reason where it cannot be one."""
    batch = tuple(axis.name for axis in program.axes if axis.batch and axis.name in state.type.axes)
    free = tuple(axis for axis in state.type.axes if axis not in batch)
    if state.type.kind is not Kind.REAL:
        raise Apart("only a real state becomes a memory so far")
    if (*batch, *free) != state.type.axes:
        raise Apart("its batch axes are not its first ones")
    reason = Apart("it has one axis")
    for cut in range(1, len(free)):
        try:
            return _Memorizing(program, state, batch, free[:cut], free[cut:], about).result()
        except Apart as error:
            reason = error
    raise reason


@dataclass
class _Memorizing:
    """The program with one state as a memory whose rows and columns are given."""

    program: Program
    state: State
    batch: tuple[str, ...]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    about: str
    taken: list[str] = field(default_factory=list)
    span: Span | None = None

    def __post_init__(self) -> None:
        self.next = self.program.next_of[self.state.name]
        self.builder = Builder.extending(self.program)
        self.made = {instr.name: instr for instr in self.program.instrs}
        self.single = all(self.program.axis(axis).size == 1 for axis in self.columns)
        self.splitter = Splitter(self.builder, self.made, self.rows, self.columns)

    def result(self) -> tuple[Program, Remark]:
        name = self.state.name
        if self.next == name:
            raise Apart("it never changes")
        self.memory, self.writes = self._memory()
        forms = affine_forms(self.program.instrs, [name, self.next], self.program.types, taken=self._take)
        for instr in self.program.instrs:
            if instr.op == Map("stop") and instr.args[0] in forms:
                raise Apart("`stop` stands between the state and what reads it", instr.span)
        for value, form in forms.items():
            if isinstance(form, Top):
                raise Apart(form.reason, form.span)
            if value in roots(replace(self.program, next=tuple(p for p in self.program.next if p[0] != name))):
                raise Apart("the state itself leaves the step", self.made[value].span if value in self.made else None)
        if not self.taken:
            raise Apart("nothing reads it")
        kept = [i for i in self.program.instrs if i.name not in forms and i.name not in self.taken]
        program = replace(
            self.program, next=tuple((s, self.memory if s == name else value) for s, value in self.program.next)
        )
        instrs = ordered([*kept, *self.builder.take()], [decl.name for decl in program.declared])
        axes = "; ".join(", ".join(axes) for axes in (self.rows, self.columns))
        spans = (self.made[value].span for value in self.taken)
        lines = sorted({span.line for span in spans if span is not None})
        where = f"line{'s' * (len(lines) > 1)} {', '.join(map(str, lines))}"
        text = f"{name}: a memory over ({axes}), read in {where}"
        return one_region(program, live(instrs, roots(program))), Remark("memorize", text, span=self.state.span)

    # --- what is written ---

    def _memory(self) -> tuple[str, Sequence[tuple[str, str]]]:
        """The memory, and the keys and values that it writes."""
        name = self.state.name
        form = affine_forms(self.program.instrs, [name], self.program.types).get(self.next)
        if not isinstance(form, Affine) or form.terms is None:
            raise Apart("its next value is no sum of few products")
        kept = form.reads(name)
        if len(kept) != 1 or kept[0].negative:
            raise Apart("its decay is no plain product")
        decays = self._decays(kept[0])
        written: list[Factors] = []
        for term in form.rest:
            sign = Factors([], [], [self.builder.const(-1.0)] if term.negative else [])
            written += [product.times(sign) for product in self._products(term)]
        if not all(product.rows and (product.columns or self.single) for product in written):
            raise Apart("what is written lacks a factor on one side")
        full = [self._write(product) for product in written]
        args = [value for _, value, _ in decays] + [factor for pair in full for factor in pair]
        acting = tuple((over, raw) for over, _, raw in decays)
        op = Memory(name, self.state.type.axes, self.rows, self.columns, acting, (True,) * len(full), about=self.about)
        return self.builder.add(op, *args, hint=f"{name}.memory", span=self.made[self.next].span), full

    def _decays(self, kept: Term) -> list[tuple[Side, str, bool]]:
        logs: dict[Side, list[Log]] = {"rows": [], "columns": [], "both": []}
        for factor in kept.factors:
            if factor.role != "value" or not self._is_home(factor.labels, kept):
                raise Apart("its decay is no plain product")
            for over, log in self.splitter.logs(factor.value):
                logs[over].append(log)
        beside: Side = "rows" if logs["rows"] else "columns"
        if logs["both"] and logs[beside] and not any(log.raw for log in (*logs["both"], *logs[beside])):
            logs[beside] += logs.pop("both")  # one decay of a side, and none of all
        found: list[tuple[Side, str, bool]] = []
        for over, parts in logs.items():
            if not parts:
                continue
            if any(part.raw for part in parts):
                values = [part.value if part.raw else self.builder.map("exp", part.value) for part in parts]
                value = self._product(values)
            else:
                value = reduce(lambda a, b: self.builder.map("add", a, b), (part.value for part in parts))
            side = {"rows": self.rows, "columns": self.columns, "both": ()}[over]
            found.append((over, self.builder.broadcast(value, side), any(part.raw for part in parts)))
        return found

    def _write(self, product: Factors) -> tuple[str, str]:
        """Key and value of a product, each with all axes of its side."""
        own = [*product.columns, *product.both] or [self.builder.const(1.0)]
        key, value = self._product(product.rows), self._product(own)
        return self.builder.broadcast(key, self.rows), self.builder.broadcast(value, self.columns)

    # --- what is recalled ---

    def _take(self, instr: Instr, form: Form) -> bool:
        """Builds the value of an instruction from what is recalled, if it has no axis of a side left."""
        axes = set(instr.type.axes)
        if isinstance(form, Top) or form.terms is None or (axes & set(self.rows) and axes & set(self.columns)):
            return False
        if self.single and axes & set(self.rows) and self._is_contracted(instr.name):
            return False
        self.span = instr.span
        parts = [(self._term(term), term.negative) for term in form.terms]
        total, negative = parts[0]
        total = self.builder.map("neg", total) if negative else total
        for part, minus in parts[1:]:
            total = self.builder.map("sub" if minus else "add", total, part)
        total = self.builder.broadcast(total, instr.type.axes)
        if self.builder.types[total] != instr.type:
            raise Apart("a read-out has another type than what it is made of", instr.span)
        last = self.builder.instrs.pop()
        assert last.name == total
        self.builder.append(replace(last, name=instr.name, span=instr.span))
        self.taken.append(instr.name)
        return True

    def _is_contracted(self, value: str) -> bool:
        """Whether all that reads a value contracts it over the rows: then that is what is recalled."""
        readers = [instr.op for instr in self.program.instrs if value in instr.args]
        leaves = value in roots(self.program)
        return not leaves and all(isinstance(op, Contract) and {*self.rows} <= {*op.axes} for op in readers)

    def _term(self, term: Term) -> str:
        if term.symbol is None:
            return self._sum([self._summed(product, term) for product in self._products(term)])
        out, labels = term.labels(), dict(term.reads)
        self._need_own_axes(labels, out)
        gone = {axis for axis, label in term.reads if out.get(axis) != label}
        over: Side = "rows" if gone >= set(self.rows) else "columns"
        mine, other = (self.rows, self.columns) if over == "rows" else (self.columns, self.rows)
        if not gone >= set(mine) or gone & set(self.batch) or (gone & set(other) and not gone >= set(other)):
            raise Apart("a read-out contracts only part of a side", self.span)
        asked: list[str] = []
        rest: list[str] = []
        for factor in term.factors:
            held = dict(factor.labels)
            touches = any(label in {labels[axis] for axis in mine} for label in held.values())
            if touches and not set(held) <= set(labels):
                raise Apart("a query has an axis that the state lacks", self.span)
            if any(labels.get(axis, label) != label for axis, label in held.items()):
                raise Apart("a read-out sums over an axis and has it again", self.span)
            if touches and set(held) & set(other):
                raise Apart("a query varies with both sides", self.span)
            value = self._factor(factor)
            (asked if touches else rest).append(value)
        query = self.builder.broadcast(self._product(asked or [self.builder.const(1.0)]), mine)
        found = self.builder.add(
            Recall(over, mine, term.symbol != self.state.name), self.memory, query, hint="recalled"
        )
        if term.symbol != self.state.name:  # the next value has what this step writes too
            for pair in self.writes:
                key, value = pair if over == "rows" else pair[::-1]
                found = self._sum([found, self._mul(self.builder.contract(query, key, mine), value)])
        known = {*labels.values(), *out.values()}
        if any(label not in known for factor in term.factors for _, label in factor.labels):
            raise Apart("a read-out sums over an axis that the state lacks", self.span)
        result, summed = self._product([found, *rest]), gone & set(other)
        return self.builder.reduce("sum", result, summed) if summed else result

    def _summed(self, product: Factors, term: Term) -> str:
        """A product of the step itself, summed over what the term's result lacks."""
        out = term.labels()
        labels: dict[str, int] = {}
        for factor in term.factors:
            for axis, label in factor.labels:
                if labels.setdefault(axis, label) != label or (axis not in self.state.type.axes and axis not in out):
                    raise Apart("a read-out sums over an axis that the state lacks", self.span)
        self._need_own_axes(labels, out)
        groups = []
        for values, axes in ((product.rows, self.rows), (product.columns, self.columns)):
            gone = [axis for axis in axes if axis not in labels or labels[axis] != out.get(axis)]
            if not values:
                if gone:
                    raise Apart("a read-out sums over an axis of nothing", self.span)
                continue
            if gone and len(values) > 1:
                groups.append(self.builder.contract(self._product(values[:-1]), values[-1], gone))
            else:
                groups.append(
                    self.builder.reduce("sum", values[0] if len(values) == 1 else self._product(values), gone)
                )
        return self._product([*groups, *product.both])

    def _need_own_axes(self, labels: Mapping[str, int], out: Mapping[str, int]) -> None:
        """Raises Apart if an axis goes on under another name."""
        if any(out.get(axis) != label and label in out.values() for axis, label in labels.items()):
            raise Apart("a read-out moves an axis of the state to another", self.span)

    def _products(self, term: Term) -> list[Factors]:
        """The products of a term without a state, as factors on rows, on columns and on neither."""
        found = [Factors([], [], [])]
        for factor in term.factors:
            if len({axis for axis, _ in factor.labels}) != len(factor.labels):
                raise Apart("a factor has an axis twice", self.span)
            value = self._factor(factor)
            parts: Parts = self.splitter.split(value) if factor.role == "value" else [self.splitter.leaf(value)]
            found = [a.times(b) for a in found for b in parts]
        return found

    def _factor(self, factor: Factor) -> str:
        """A factor as a value."""
        if factor.value and self.builder.types[factor.value].kind is Kind.COMPLEX:
            raise Apart("a factor is complex", self.span)
        match factor.role:
            case "value":
                return factor.value
            case "reciprocal":
                return self.builder.map("div", self.builder.const(1.0), factor.value)
            case "if" | "unless":  # a product with 0 would not keep back what is not finite
                raise Apart("a choice stands between the state and what reads it", self.span)
            case _:
                raise Apart("a read-out takes a slice or counts", self.span)

    def _is_home(self, labels: Iterable[tuple[str, int]], term: Term) -> bool:
        """Whether a factor's axes are those of the state."""
        own = dict(term.reads)
        return all(own.get(axis) == label for axis, label in labels)

    # --- arithmetic ---

    def _mul(self, a: str, b: str) -> str:
        return self.builder.map("mul", a, b, span=self.span)

    def _product(self, values: Sequence[str]) -> str:
        return reduce(self._mul, values)

    def _sum(self, values: Sequence[str]) -> str:
        return reduce(lambda a, b: self.builder.map("add", a, b, span=self.span), values)


MEMORIZE = Pass(
    "memorize",
    Level.DISCRETE,
    Level.DISCRETE,
    "Turns a matrix that is only read by contractions into a memory of keys and values.",
    run,
)
