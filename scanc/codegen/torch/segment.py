"""One function that runs (a part of) a classified program over the time steps of a segment."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from scanc.codegen.expressions import Expr, Level
from scanc.codegen.names import Names
from scanc.codegen.torch.liveness import Live
from scanc.codegen.torch.memories import Memories
from scanc.codegen.torch.scope import Block, Dialect, Scope, Statement
from scanc.codegen.torch.spelling import REDUCTIONS, VALUES
from scanc.codegen.torch.values import Lead, Value, aligned
from scanc.codegen.torch.writefirst import WriteFirst, write_first
from scanc.codegen.writer import WIDTH
from scanc.ir.nodes import Kind, Program, Region, RegionKind, Scan

RESERVED = frozenset(
    {"functions", "call", "inputs", "params", "constants", "states", "primals", "cotangents", "sizes", "reverse"}
    | {"steps", "gather", "last", "delayed", "befores", "afters", "Segments", "SEGMENTS", "SEQUENTIAL", "CHUNKED"}
    | {"PARALLEL", "REAL", "LOG", "MAXPLUS", "MINPLUS", "BOOL", "Decay", "Write", "meet", "ROWS", "COLUMNS", "BOTH"}
)
"""Words of the generated functions and of what their module imports."""

_ALGEBRAS = {"real": "REAL", "log": "LOG", "maxplus": "MAXPLUS", "minplus": "MINPLUS", "bool": "BOOL"}


def dialect(memories: Memories | None = None) -> Dialect:
    """How a segment spells what depends on the call."""
    dtypes = {
        Kind.REAL: "call.dtype",
        Kind.COMPLEX: "call.complex_dtype",
        Kind.INT: "torch.int64",
        Kind.BOOL: "torch.bool",
    }
    return Dialect(
        VALUES,
        REDUCTIONS,
        number=lambda expr, kind: Expr(f"call.number({expr}, {dtypes[kind]})"),
        dtype=lambda kind: Expr(dtypes[kind]),
        size=lambda axis: Expr(f'call.sizes["{axis}"]'),
        device=Expr("call.device"),
        memories=memories,
    )


@dataclass(frozen=True)
class Group:
    """A tuple among a function's arguments, and the IR values in it."""

    argument: str
    members: tuple[str, ...]
    lead: Lead


class SegmentCode:
    """The statements of one segment function.

    `groups` are its tuple arguments, `folded` the instructions that totals write themselves.  After `regions`,
    values are to be had from `scope`, final states from `final`; `unpacking` gives the lines that take the used
    arguments apart.
    """

    def __init__(
        self,
        program: Program,
        part: Live,
        groups: Sequence[Group],
        states: Sequence[str],
        folded: Collection[str] = (),
    ) -> None:
        self.program = program
        self._write_first = write_first(program, part)
        skipped = {name for w in self._write_first.values() for name in (w.product, w.total, *w.between)}
        self._skipped = frozenset(skipped)
        self.folded = frozenset(folded) - skipped
        self.part = part
        self.groups = tuple(groups)
        self.states = tuple(states)
        self.types = program.types
        self.next_of = program.next_of
        self._members = {name: group for group in groups for name in group.members}
        self._used: set[str] = set()
        self._final: dict[str, Expr] = {}
        self.names = Names(RESERVED)
        for group in groups:
            for name in group.members:
                self.names.of(name)
        self._initial = {state: self.names.fresh(f"{state}_0") for state in states}
        for state in states:
            self.names.of(state)
        self._memories = Memories(self._memory_start)
        self.scope = self._scope("BL", self._argument)
        self.scope.know(program.instrs)

    def _scope(self, lead: str, find: Callable[[str], Value], suffix: str = "") -> Scope:
        canonical = lambda axes: self.program.canonical(axes)  # noqa: E731
        return Scope(dialect(self._memories), self.names, self.types, lead, find, canonical, suffix)

    # --- arguments ---

    def _argument(self, name: str) -> Value:
        """A value that the function is given."""
        group = self._members[name]
        self._used.add(name)
        type_ = self.types[name]
        return Value(Expr(self.names.of(name)), type_.axes, type_.kind, group.lead)

    def _memory_start(self, state: str) -> Expr:
        """What a memory begins with: a state of the function, or of a primal one among what it is given."""
        return Expr(self.start(state)) if state in self._initial else self._argument(state).expr

    def start(self, state: str) -> str:
        """The argument that holds what a state begins with."""
        self._used.add(state)
        return self._initial[state]

    def unpacking(self) -> list[Statement]:
        """`a, _, b = inputs` for each argument of which something is read."""
        lines: list[Statement] = []
        for group in self.groups:
            names = [self.names.of(name) if name in self._used else "_" for name in group.members]
            lines += _unpack(names, group.argument)
        lines += _unpack([self._initial[s] if s in self._used else "_" for s in self.states], "states")
        return lines

    # --- regions ---

    def regions(self) -> None:
        """Writes every region but `params`, whose values are arguments."""
        for region in self.part.regions:
            match region.kind:
                case RegionKind.PARAMS:
                    continue
                case RegionKind.MAP:
                    instrs = [instr for instr in region.instrs if instr.name not in self._skipped]
                    self.scope.run(instrs, list(self.part.read.elements()), self.folded)
                case RegionKind.LOOP:
                    self._loop(region)
                case RegionKind.SCAN:
                    self._scan(region)
                case RegionKind.DELAY:
                    self._delay(region)
                case RegionKind.MEMORY:
                    self._memory(region)
                case RegionKind.STEP:
                    raise AssertionError("a classified program has no step region")

    def final(self, state: str) -> Expr:
        """The state behind the last step."""
        return self._final[state]

    def _scan(self, region: Region) -> None:
        (state,), scan = region.states, region.scan
        assert scan is not None
        if state in self._write_first:
            self._scan_sums(state, scan, self._write_first[state])
            return
        terms = [self._term(name, state) for name in (scan.decay, scan.write)]
        algebra = _ALGEBRAS[scan.semiring]
        arguments = ", ".join([f'"{state}"', algebra, *(term.text for term in terms), self.start(state)])
        if self.part.read[state]:
            path = self._line(f"{state}_path", f"call.path({arguments})", state, "L+1")
            self._before(state, path)
            if self.part.read[scan.result]:
                behind = self._line(f"{state}_next", f"afters({path}, call.reverse)", state)
                self._bind(scan.result, behind, state)
            self._final[state] = Expr(f"last({path}, call.reverse)")
        else:
            name = self._line(f"{state}_next", f"call.after({arguments})", state)
            self._bind(scan.result, name, state)
            self._final[state] = Expr(f"last({name}, call.reverse)")

    def _scan_sums(self, state: str, scan: Scan, form: WriteFirst) -> None:
        decay, added = self._term(scan.decay, state), self._term(form.added, state)
        arguments = f"{decay}, {added}, {self.start(state)}"
        total = self.names.of(form.total)
        comment = f"{state.replace('.', '_')} + {added}: [{', '.join(['B', 'L', *self.types[state].axes])}]"
        self.scope.statements.append((f"{total} = call.sums({arguments})", comment))
        self.scope.kept.append(self.types[state].axes)
        self._bind(form.total, total, state)
        assert scan.decay is not None
        fixed = self.scope.tensor(scan.decay).lead is not Lead.FULL
        step = Expr(decay.at(Level.PRODUCT)) if fixed else Expr(f"last({decay}, call.reverse)")
        self._final[state] = Expr(f"{step} * last({total}, call.reverse)", Level.PRODUCT)

    def _term(self, name: str | None, state: str) -> Expr:
        if name is None:
            return Expr("None")
        value = self.scope.tensor(name)
        return aligned(value, self.types[state].axes, value.lead)

    def _delay(self, region: Region) -> None:
        (state,), scan = region.states, region.scan
        assert scan is not None
        assert scan.write is not None
        if self.part.read[state]:
            value = self.scope.full(scan.write)
            call = f"delayed({value}, {self.start(state)}, call.reverse)"
            path = self._line(f"{state}_path", call, state, "L+1")
            self._before(state, path)
        self._final[state] = Expr(f"last({self.scope.full(scan.write)}, call.reverse)")

    def _memory(self, region: Region) -> None:
        (state,), scan = region.states, region.scan
        assert scan is not None
        self._final[state] = Expr(f"{self.scope.value(scan.result).expr}.final()")

    def _before(self, state: str, path: str) -> None:
        """A name for the states before each step, which are a view of a path."""
        self._bind(state, self._line(state, f"befores({path}, call.reverse)", state, fixed=True), state)

    def _line(self, wish: str, text: str, state: str, length: str = "L", fixed: bool = False) -> str:
        name = self.names.of(wish) if fixed else self.names.fresh(wish)
        axes = self.types[state].axes
        self.scope.statements.append((f"{name} = {text}", f"[{', '.join(['B', length, *axes])}]"))
        self.scope.kept.append(axes)
        return name

    def _bind(self, value: str, name: str, like: str) -> None:
        type_ = self.types[like]
        self.scope.values[value] = Value(Expr(name), type_.axes, type_.kind, Lead.FULL)

    # --- loops ---

    def _loop(self, region: Region) -> None:
        """A Python loop over time: slices in, a list of slices out for each value that is read behind it."""
        slices: dict[str, str] = {}

        def outer(name: str) -> Value:
            value = self.scope.value(name)
            if value.lead is not Lead.FULL:
                return value
            if name not in slices:
                slices[name] = self.names.fresh(f"{name}_t")
            return Value(Expr(slices[name]), value.axes, value.kind, Lead.FULL)

        body = self._scope("B", outer, "_t")
        body.know(self.program.instrs)
        current = {state: self.names.fresh(f"{state}_t") for state in region.states}
        for state in region.states:
            type_ = self.types[state]
            body.values[state] = Value(Expr(current[state]), type_.axes, type_.kind, Lead.FULL)
        nexts = [self.next_of[state] for state in region.states]
        lists = self._collected(region)
        for name in lists:
            if name in region.states:
                body.statements.append((f"{lists[name]}.append({current[name]})", ""))
        inside = [*self.part.read.elements(), *nexts]
        body.run(region.instrs, inside)
        for instr in region.instrs:
            if instr.name in lists:
                body.statements.append((f"{lists[instr.name]}.append({body.value(instr.name).expr})", ""))
        targets = ", ".join(current.values())
        body.statements.append((f"{targets} = {', '.join(body.tensor(name).expr.text for name in nexts)}", ""))
        self._write_loop(region, body, slices, current, lists)

    def _collected(self, region: Region) -> dict[str, str]:
        """The list variable of each value of a loop that is read behind it."""
        made = [*region.states, *(instr.name for instr in region.instrs)]
        return {name: self.names.fresh(f"{name}_steps") for name in made if self.part.read[name]}

    def _write_loop(
        self, region: Region, body: Scope, slices: dict[str, str], current: dict[str, str], lists: dict[str, str]
    ) -> None:
        statements = self.scope.statements
        start = f"{', '.join(current.values())} = {', '.join(self.start(state) for state in region.states)}"
        statements.append((start, region.recurrence or ""))
        if lists:
            empties = ", ".join(["[]"] * len(lists))
            annotation = f"{', '.join(lists.values())} = {empties}"
            statements.append((annotation, ""))
        if slices:
            values = ", ".join(self.scope.value(name).expr.text for name in slices)
            target = ", ".join(slices.values())
            target = f"({target},)" if len(slices) == 1 else f"({target})" if len(target) > WIDTH // 2 else target
            header = f"for {target} in steps(call.reverse, {values}):"
        else:
            header = "for _ in range(call.length):"
        statements.append(Block(header, body.statements))
        for state, name in current.items():
            self._final[state] = Expr(name)
        for name, column in lists.items():
            type_ = self.types[name]
            value = Value(Expr(f"gather({column}, call.reverse)"), type_.axes, type_.kind, Lead.FULL)
            self.scope.values[name] = self.scope.assign(name, value, f"[{', '.join(['B', 'L', *type_.axes])}]")


def _unpack(names: Iterable[str], argument: str) -> list[Statement]:
    names = list(names)
    if all(name == "_" for name in names):
        return []
    return [(f"({names[0]},) = {argument}" if len(names) == 1 else f"{', '.join(names)} = {argument}", "")]
