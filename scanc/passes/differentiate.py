"""differentiate: the adjoint of one step, as a program that runs in reversed time (theory: generic rule).

For (s', y) = F(s, x, p) the adjoint step takes λ' = dL/ds' (its state), dL/dy and the primal state s
(as an input under the state's own name), computes F's values again, and walks them backwards to
λ = dL/ds (its next state), dL/dx (its outputs) and its share of dL/dp (its totals).

Of a memory there is no primal state: the adjoint step has the same memory, against its own time, and a dual one of
cotangents, to which every query writes itself and the cotangent of what it recalled.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import reduce

from scanc.ir.build import Builder
from scanc.ir.nodes import (
    Const,
    Index,
    Instr,
    Kind,
    Level,
    Meet,
    Memory,
    Output,
    Program,
    Recall,
    Side,
    Stack,
    State,
    Tensor,
    TensorType,
)
from scanc.ir.rewrite import live, one_region, roots
from scanc.passes.derivatives import cotangents, fit

DIFFERENTIABLE = (Kind.REAL, Kind.COMPLEX)


def differentiate(program: Program) -> Program:
    """The adjoint program of a discrete program; its parts are named in the module's docstring.

    Names: `dy.<output>` for the cotangent that comes in, `d.<name>` for those of inputs, params and states.
    """
    primal = tuple(Tensor(s.name, s.dims, s.type, span=s.span) for s in program.states)
    given = tuple(Tensor(f"dy.{o.name}", o.dims, program.types[o.value], span=o.span) for o in program.outputs)
    states = tuple(State(f"d.{s.name}", s.dims, s.type, 0.0, span=s.span) for s in program.states)
    inputs = (*program.inputs, *primal, *given)
    declared: tuple[Tensor | State, ...] = (*inputs, *program.params, *states)
    builder = Builder(program.axes, {decl.name: decl.type for decl in declared})
    for instr in program.instrs:
        builder.append(replace(instr, op=replace(instr.op, against=True)) if isinstance(instr.op, Memory) else instr)

    flow = _Cotangents(builder)
    for output in program.outputs:
        flow.add(output.value, f"dy.{output.name}")
    for state, value in program.next:
        flow.add(value, f"d.{state}")
    for instr in reversed(tuple(program.instrs)):
        flow.through(instr)

    adjoint = Program(
        name=f"{program.name}.adjoint",
        level=Level.DISCRETE,
        semiring="real",
        axes=program.axes,
        inputs=inputs,
        params=program.params,
        states=states,
        regions=(),
        next=tuple((f"d.{s.name}", flow.total(s.name)) for s in program.states),
        outputs=tuple(Output(f"d.{t.name}", flow.total(t.name), t.dims, t.span) for t in _smooth(program.inputs)),
        totals=tuple(Output(f"d.{t.name}", flow.total(t.name), t.dims, t.span) for t in _smooth(program.params)),
    )
    return one_region(adjoint, live(builder.take(), roots(adjoint)))


def _smooth(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor for tensor in tensors if tensor.type.kind in DIFFERENTIABLE)


@dataclass(frozen=True)
class Recalled:
    """What was asked of a memory: the query and its gradient, what was recalled and its cotangent."""

    op: Recall
    query: str
    gradient: str
    value: str
    cotangent: str

    def written(self) -> tuple[str, str]:
        """The factors, on rows and on columns, of what the dual memory takes on."""
        return (self.query, self.cotangent) if self.op.over == "rows" else (self.cotangent, self.query)

    def pair(self, side: Side) -> tuple[str, str]:
        """A factor on a side, and its gradient."""
        return (self.query, self.gradient) if self.op.over == side else (self.cotangent, self.value)


def opposite(side: Side) -> Side:
    """The other side of a matrix."""
    return "columns" if side == "rows" else "rows"


class _Cotangents:
    """What has flowed back to each value so far: whole contributions, and slices along a fixed axis."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.whole: dict[str, list[str]] = defaultdict(list)
        self.slices: dict[str, dict[tuple[str, int], list[str]]] = defaultdict(lambda: defaultdict(list))
        self.recalled: dict[str, list[Recalled]] = defaultdict(list)

    def add(self, value: str, grad: str) -> None:
        if self.builder.types[value].kind in DIFFERENTIABLE:
            self.whole[value].append(grad)

    def through(self, instr: Instr) -> None:
        """Hands the cotangent of an instruction's value on to its arguments."""
        if instr.type.kind not in DIFFERENTIABLE or not (instr.name in self.whole or instr.name in self.slices):
            return
        first_new = len(self.builder.instrs)
        g = "" if isinstance(instr.op, Memory) else self.total(instr.name)
        match instr.op:
            case Memory():
                self._dual(instr, instr.op)
            case Recall():
                self._recall(instr, instr.op, g)
            case Index(axis, position):
                self.slices[instr.args[0]][axis, position].append(g)
            case Stack(axis):
                for position, arg in enumerate(instr.args):
                    self.add(arg, self.builder.add(Index(axis, position), g, hint=f"d_{arg}"))
            case _:
                for arg, grad in zip(instr.args, cotangents(self.builder, instr, g), strict=True):
                    if grad is not None:
                        self.add(arg, grad)
        for i, new in enumerate(self.builder.instrs[first_new:], first_new):
            self.builder.instrs[i] = replace(new, span=instr.span)

    def _recall(self, instr: Instr, op: Recall, g: str) -> None:
        memory, query = instr.args
        made = next(i.op for i in self.builder.instrs if i.name == memory)
        assert isinstance(made, Memory)
        other = opposite(op.over)
        gradient = self.builder.add(Recall(other, made.side(other), op.decayed), memory, g, hint=f"d_{query}")
        self.recalled[memory].append(Recalled(op, query, gradient, instr.name, g))
        self.add(query, fit(self.builder, gradient, self.builder.types[query]))

    def _dual(self, instr: Instr, op: Memory) -> None:
        """The memory of cotangents, and what is recalled of it for the decays and the factors of the primal one."""
        recalled = self.recalled[instr.name]
        count = len(op.decays)
        factors = [factor for one in recalled for factor in one.written()]
        dual_op = replace(
            op, state=f"d.{op.state}", writes=tuple(one.op.decayed for one in recalled), dual=True, against=False
        )
        dual = self.builder.add(dual_op, *instr.args[:count], *factors, hint=f"d.{instr.name}")
        self.whole[op.state] = [dual]
        written: dict[Side, list[tuple[str, str]]] = {"rows": [], "columns": []}
        for x, y in zip(instr.args[count::2], instr.args[count + 1 :: 2], strict=True):
            pairs: tuple[tuple[Side, str, str], ...] = (("rows", x, y), ("columns", y, x))
            for side, value, query in pairs:
                across = opposite(side)
                gradient = self.builder.add(Recall(across, op.side(across)), dual, query, hint=f"d_{value}")
                written[side].append((value, gradient))
                self.add(value, fit(self.builder, gradient, self.builder.types[value]))
        for (over, _), decay in zip(op.decays, instr.args, strict=False):
            # Of what decays all, either side will do: that of the queries, whose gradients are recalled anyway.
            along: Side = over if over != "both" else recalled[0].op.over if recalled else "rows"
            ordered = sorted(recalled, key=lambda one: not one.op.decayed)
            given = [*(one.pair(along) for one in ordered), *written[along]]
            decayed = sum(one.op.decayed for one in recalled)
            meet = Meet(over, along, decayed, len(recalled) - decayed, op.along(over))
            gradient = self.builder.add(meet, instr.name, dual, *(v for pair in given for v in pair), hint=f"d_{decay}")
            self.add(decay, fit(self.builder, gradient, self.builder.types[decay]))

    def total(self, value: str) -> str:
        """The sum of what flowed back to `value`, of its own type; a zero if nothing did."""
        wanted = self.builder.types[value]
        parts = [*self.whole.get(value, ()), *self._stacked(value, wanted)]
        if not parts:
            return fit(self.builder, self.builder.const(0.0, hint="zero"), wanted)
        total = self._sum(parts, value)
        self.whole[value] = [total]
        self.slices.pop(value, None)
        return total

    def _sum(self, parts: Iterable[str], value: str) -> str:
        return reduce(lambda total, part: self.builder.map("add", total, part, hint=f"d_{value}"), parts)

    def _stacked(self, value: str, wanted: TensorType) -> list[str]:
        """The slices that flowed back, laid along their axis with zeros between."""
        stacked = []
        slices = self.slices.get(value, {})
        for axis in sorted({axis for axis, _ in slices}):
            size = next(a.size for a in self.builder.axes if a.name == axis)
            assert size is not None, "only axes of fixed size are indexed"
            part = TensorType(tuple(a for a in wanted.axes if a != axis), wanted.kind)
            zero: str | None = None
            rows = []
            for position in range(size):
                found = slices.get((axis, position))
                if found is None:
                    zero = zero or fit(self.builder, self.builder.add(Const(0.0), hint="zero"), part)
                    rows.append(zero)
                else:
                    rows.append(self._sum(found, value))
            stacked.append(self.builder.add(Stack(axis), *rows, hint=f"d_{value}"))
        return stacked
