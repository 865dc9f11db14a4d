"""Instructions as statements of one function, or of the loop inside it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from scanc.codegen.expressions import Expr, Spelling, absorbed, number, spell
from scanc.codegen.names import Names
from scanc.codegen.torch.matrices import matrix_function
from scanc.codegen.torch.memories import Memories
from scanc.codegen.torch.spelling import COMPLEX, NUMBERS, identity
from scanc.codegen.torch.values import Lead, Value, aligned, contraction, dims_of, renamed
from scanc.codegen.writer import Writer
from scanc.ir.build import widest
from scanc.ir.functions import SEMIRINGS, TABLE
from scanc.ir.nodes import (
    Broadcast,
    Const,
    Contract,
    Extremum,
    Identity,
    Index,
    Instr,
    Kind,
    Map,
    Matrix,
    Meet,
    Memory,
    Op,
    Recall,
    Reduce,
    Rename,
    Size,
    Stack,
    TensorType,
)

_WIDE = (Kind.REAL, Kind.COMPLEX)


@dataclass
class Block:
    """A statement with statements under it."""

    header: str
    body: list[Statement]


Statement = tuple[str, str] | Block  # a line and its comment


def write(writer: Writer, statements: Iterable[Statement]) -> None:
    """Writes statements, blocks indented."""
    for statement in statements:
        if isinstance(statement, Block):
            with writer.block(statement.header):
                write(writer, statement.body)
        else:
            writer.line(*statement)


@dataclass(frozen=True)
class Dialect:
    """What differs between a segment's code and a step's.

    `number(value, kind)` spells a constant as a tensor, `dtype(kind)` a dtype, `size(axis)` an axis' size,
    `device` the device.  `memories` are those of a segment.
    """

    functions: Mapping[str, Spelling]
    reductions: Mapping[str, str]
    number: Callable[[Expr, Kind], Expr]
    dtype: Callable[[Kind], Expr]
    size: Callable[[str], Expr]
    device: Expr
    memories: Memories | None = None


@dataclass
class Scope:
    """The values that code at one place can use, and the statements written there so far.

    `find` gives a value that was not made here; `lead` names the leading dimensions of full values, a
    letter each.
    """

    dialect: Dialect
    names: Names
    types: Mapping[str, TensorType]
    lead: str
    find: Callable[[str], Value]
    canonical: Callable[[set[str]], tuple[str, ...]]
    suffix: str = ""
    statements: list[Statement] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)
    kept: list[tuple[str, ...]] = field(default_factory=list)  # the axes of every full value that got a name
    _pending: dict[str, Instr] = field(default_factory=dict)

    # --- values ---

    def value(self, name: str) -> Value:
        """The value called `name` in the IR: a name of this scope, or the expression of an absorbed instruction."""
        if name in self.values:
            return self.values[name]
        if name in self._pending:
            return self.express(self._pending[name])
        self.values[name] = self.find(name)
        return self.values[name]

    def tensor(self, name: str) -> Value:
        """The value as a tensor, if it is a number too."""
        value = self.value(name)
        if value.lead is Lead.NUMBER:
            return Value(self.dialect.number(value.expr, value.kind), (), value.kind, Lead.FIXED)
        return value

    def full(self, name: str) -> Expr:
        """The value with all leading dimensions and all of its type's axes."""
        value = self.tensor(name)
        if value.lead is Lead.FULL:
            return value.expr
        return Expr(f"call.timed({value.expr}, {len(value.axes)})")

    # --- statements ---

    def know(self, instrs: Iterable[Instr]) -> None:
        """Constants made elsewhere, which are written where they are read."""
        self._pending.update((i.name, i) for i in instrs if isinstance(i.op, Const | Size))

    def run(self, instrs: Iterable[Instr], kept: Collection[str], folded: Collection[str] = ()) -> None:
        """Writes a line for each instruction that is neither absorbed nor folded.

        `kept` values are read from outside of this run; `folded` ones are written by who reads them.
        """
        instrs = tuple(instrs)
        inlined = absorbed(instrs, kept)
        for instr in instrs:
            if instr.name in inlined or instr.name in folded:
                self._pending[instr.name] = instr
            else:
                self.emit(instr)

    def emit(self, instr: Instr) -> None:
        """Writes `name = expression`; what is but another name of a value gets no line."""
        if isinstance(instr.op, Memory):
            self._remember(instr, instr.op)
            return
        value = self.express(instr)
        if not value.named:
            comment = f"[{', '.join([*self.lead_of(value), *value.axes])}]"
            value = self.assign(instr.name, value, comment + (f"  (line {instr.span.line})" if instr.span else ""))
        self.values[instr.name] = value

    def _remember(self, instr: Instr, op: Memory) -> None:
        """A memory is no tensor: what it keeps of a step are its factors."""
        assert self.dialect.memories is not None
        identifier = self.names.of(instr.name + self.suffix)
        call = self.dialect.memories.memory(instr.name, op, instr.args, self._timed)
        comment = f"{', '.join(op.axes)}" + (f"  (line {instr.span.line})" if instr.span else "")
        self.statements.append((f"{identifier} = {call}", comment))
        self.values[instr.name] = Value(Expr(identifier), instr.type.axes, instr.type.kind, Lead.FULL)
        self.kept += [op.along("rows")] * 3 + [op.along("columns")] * 3

    def _timed(self, name: str) -> Value:
        """The value with all leading dimensions, and the axes that it has."""
        return replace(self.tensor(name), expr=self.full(name), lead=Lead.FULL)

    def assign(self, name: str, value: Value, comment: str = "") -> Value:
        """Writes an assignment and returns the named value."""
        identifier = self.names.of(name + self.suffix)
        self.statements.append((f"{identifier} = {value.expr}", comment))
        if value.lead is Lead.FULL:
            self.kept.append(value.axes)
        return replace(value, expr=Expr(identifier))

    def lead_of(self, value: Value) -> str:
        """The leading dimensions of a value, one letter each."""
        return self.lead if value.lead is Lead.FULL else ""

    # --- expressions ---

    def express(self, instr: Instr) -> Value:
        """The expression of one instruction."""
        axes, kind = instr.type.axes, instr.type.kind
        match instr.op:
            case Const(constant):
                return Value(number(constant, "torch.inf", "torch.nan"), (), kind, Lead.NUMBER)
            case Size(axis):
                return Value(self.dialect.size(axis), (), kind, Lead.NUMBER)
            case Map(fn):
                return self._map(fn, instr)
            case Contract(semiring, summed):
                return self._contract(semiring, summed, instr)
            case Recall() | Meet():
                return Value(self._recalled(instr.op, instr), axes, kind, Lead.FULL)
            case Rename(pairs):
                return renamed(self.tensor(instr.args[0]), dict(pairs), axes, self._leading(instr.args[0]))
            case Identity(rows, _):
                size, dtype, device = self.dialect.size(rows), self.dialect.dtype(kind), self.dialect.device
                return Value(Expr(f"torch.eye({size}, dtype={dtype}, device={device})"), axes, kind, Lead.FIXED)
            case Matrix():
                return self._matrix_function(instr.op, instr)
            case _:
                operands = [self.tensor(arg) for arg in instr.args]
                lead = max(value.lead for value in operands)
                return Value(self._shaped(instr.op, operands, instr, lead), axes, kind, lead)

    def _recalled(self, op: Recall | Meet, instr: Instr) -> Expr:
        memories = self.dialect.memories
        assert memories is not None
        memory = instr.args[0]
        if isinstance(op, Recall):
            return memories.recall(op, memory, self.value(memory).expr, self._timed(instr.args[1]))
        held = [self.value(name).expr for name in instr.args[:2]]
        return memories.meet(op, memory, held, [self._timed(name) for name in instr.args[2:]])

    def _shaped(self, op: Op, operands: list[Value], instr: Instr, lead: Lead) -> Expr:
        x = operands[0]
        match op:
            case Reduce(fn, summed):
                return self.reduce(fn, x, summed)
            case Extremum(fn, axes):
                dims = _tuple(dims_of(x, axes))
                return Expr(f"functions.is_first_{fn}({x.expr}, {dims})")
            case Broadcast(axes):
                keep = ["-1"] * len(self.lead_of(x))
                sizes = [self.dialect.size(axis).text if axis in axes else "-1" for axis in instr.type.axes]
                spread = replace(x, expr=aligned(x, instr.type.axes, x.lead))
                return self._expanded(spread, [*keep, *sizes])
            case Index(axis, position):
                behind = len(x.axes) - 1 - x.axes.index(axis)
                return x.suffixed(f"[{', '.join(['...', str(position), *[':'] * behind])}]")
            case Stack(axis):
                rest = tuple(a for a in instr.type.axes if a != axis)
                items = ", ".join(aligned(v, rest, lead).text for v in operands)
                if any(v.lead is not lead for v in operands):
                    items = f"*torch.broadcast_tensors({items})"
                return Expr(f"torch.stack(({items},), {instr.type.axes.index(axis) - len(instr.type.axes)})")
        raise AssertionError(f"{type(op).__name__} has no torch spelling")

    def _matrix_function(self, op: Matrix, instr: Instr) -> Value:
        operands = [self.tensor(arg) for arg in instr.args]
        kind = instr.type.kind
        alike = [v if v.kind is kind else replace(v, expr=self._converted(v, kind), kind=kind) for v in operands]
        value, held = matrix_function(op, alike, instr.type.axes, self.lead)
        if value.lead is Lead.FULL:
            self.kept += [value.axes] * held
        return value

    def _expanded(self, x: Value, sizes: list[str]) -> Expr:
        return x.suffixed(f".expand({', '.join(sizes)})")

    def reduce(self, fn: str, x: Value, axes: Iterable[str]) -> Expr:
        """A reduction over axes, which must be among those of `x`."""
        dims = dims_of(x, tuple(axes))
        form = self.dialect.reductions[fn]
        atom = x.suffixed("").text if form.startswith("{x}") else x.expr.text
        flat = str(dims[0]) if len(dims) == 1 else _tuple(dims)
        return Expr(form.format(x=atom, dims=flat, tuple=_tuple(dims)))

    def _contract(self, semiring: str, summed: tuple[str, ...], instr: Instr) -> Value:
        a, b = self.alike(self.tensor(instr.args[0]), self.tensor(instr.args[1]))
        axes, kind, lead = instr.type.axes, instr.type.kind, max(a.lead, b.lead)
        if semiring == "real":
            return Value(contraction(a, b, summed, axes, self.lead), axes, kind, lead)
        ring = SEMIRINGS[semiring]
        every = self.canonical({*a.axes, *b.axes})
        terms = spell(self.dialect.functions[ring.times], [aligned(a, every, lead), aligned(b, every, lead)])
        return Value(self.reduce(ring.reduce, Value(terms, every, kind, lead), summed), axes, kind, lead)

    def alike(self, a: Value, b: Value) -> tuple[Value, Value]:
        """Both in the wider kind of the two, as products of matrices want them."""
        kind = widest([a.kind, b.kind])
        a, b = (x if x.kind is kind else replace(x, expr=self._converted(x, kind), kind=kind) for x in (a, b))
        return a, b

    def _leading(self, name: str) -> int:
        return len(self.lead_of(self.value(name)))

    def _map(self, fn: str, instr: Instr) -> Value:
        operands = [self.value(arg) for arg in instr.args]
        kind, axes = instr.type.kind, instr.type.axes
        spelling = self.dialect.functions.get(fn)
        first = operands[0]
        if spelling is None and fn == "stop":
            return first
        if identity(fn, first.kind, kind) or (fn in ("to_real", "to_complex") and first.lead is Lead.NUMBER):
            return replace(first, kind=kind)
        if fn in ("to_real", "to_complex"):
            return replace(first, expr=self._converted(first, kind), kind=kind)
        if fn == "imag" and first.kind is not Kind.COMPLEX:
            zero = "0.0" if first.lead is Lead.NUMBER else f"torch.zeros_like({first.expr})"
            return replace(first, expr=Expr(zero))
        lead = max(value.lead for value in operands)
        if lead is Lead.NUMBER:
            keeps = fn == "complex" or first.kind is Kind.COMPLEX or kind not in _WIDE
            operands[0] = self._as_tensor(first, first.kind if keeps else kind)
            lead = Lead.FIXED
        operands = self._converted_all(fn, operands, kind)
        if fn in NUMBERS and any(value.lead is Lead.NUMBER for value in operands):
            spelling = NUMBERS[fn]
        elif fn in COMPLEX and any(value.kind is Kind.COMPLEX for value in operands):
            spelling = COMPLEX[fn]
        assert spelling is not None, fn
        expr = spell(spelling, [aligned(value, axes, lead) for value in operands])
        return Value(expr, axes, kind, lead)

    def _as_tensor(self, value: Value, kind: Kind) -> Value:
        return Value(self.dialect.number(value.expr, kind), (), kind, Lead.FIXED)

    def _converted(self, value: Value, kind: Kind) -> Expr:
        return value.suffixed(f".to({self.dialect.dtype(kind)})")

    def _converted_all(self, fn: str, operands: list[Value], kind: Kind) -> list[Value]:
        """Tensors brought to the result's kind where torch would choose another or has no gradient; choices get one."""
        at = 1 if fn == "where" else 0
        if fn == "where" and all(value.lead is Lead.NUMBER for value in operands[1:]):
            operands[1] = self._as_tensor(operands[1], kind)
        if fn == "where" and operands[0].lead is Lead.NUMBER:
            operands[0] = self._as_tensor(operands[0], Kind.BOOL)
        if kind is Kind.BOOL or TABLE[fn].result is Kind.BOOL:
            return operands
        wide = any(value.kind in _WIDE and value.lead is not Lead.NUMBER for value in operands[at:])
        converted = operands[:at]
        for value in operands[at:]:
            narrow = value.kind is Kind.BOOL or (value.kind is Kind.INT and kind in _WIDE and not wide) or fn == "where"
            if value.lead is not Lead.NUMBER and narrow and value.kind is not kind:
                value = replace(value, expr=self._converted(value, kind), kind=kind)
            converted.append(value)
        return converted


def _tuple(dims: list[int]) -> str:
    return f"({', '.join(map(str, dims))}{',' if len(dims) == 1 else ''})"
