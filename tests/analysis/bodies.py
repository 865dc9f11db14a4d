"""Step bodies written as Python expressions, and their Jacobian by probing the interpreter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace

import torch

from scanc.interpreter import interpret
from scanc.ir.build import Builder
from scanc.ir.levels import verify
from scanc.ir.nodes import (
    Axis,
    Contract,
    Index,
    Kind,
    Level,
    Output,
    Program,
    Region,
    RegionKind,
    Rename,
    Stack,
    State,
    Tensor,
    TensorType,
)

SIZES = {"h": 2, "i": 4, "j": 3, "m": 4, "r": 2, "p": 2, "n": 5, "n_col": 5}
_LIKE = {"m": "i", "n_col": "n"}
AXES = tuple(Axis(name, size, batch=name == "h", like=_LIKE.get(name)) for name, size in SIZES.items())


@dataclass(frozen=True)
class Value:
    """A value of a builder, with operators."""

    builder: Builder
    name: str

    def _map(self, fn: str, *others: Value | float) -> Value:
        names = [o.name if isinstance(o, Value) else self.builder.const(o) for o in others]
        return Value(self.builder, self.builder.map(fn, self.name, *names))

    def __add__(self, other: Value | float) -> Value:
        return self._map("add", other)

    def __sub__(self, other: Value | float) -> Value:
        return self._map("sub", other)

    def __mul__(self, other: Value | float) -> Value:
        return self._map("mul", other)

    def __truediv__(self, other: Value | float) -> Value:
        return self._map("div", other)

    def __neg__(self) -> Value:
        return self._map("neg")

    def map(self, fn: str, *others: Value | float) -> Value:
        return self._map(fn, *others)

    def dot(self, other: Value, axes: str, semiring: str = "real") -> Value:
        op = Contract(semiring, self.builder.canonical(axes.split()))
        return Value(self.builder, self.builder.add(op, self.name, other.name))

    def sum(self, axes: str, fn: str = "sum") -> Value:
        return Value(self.builder, self.builder.reduce(fn, self.name, axes.split()))

    def rename(self, old: str, new: str) -> Value:
        return Value(self.builder, self.builder.add(Rename(((old, new),)), self.name))

    def at(self, axis: str, position: int) -> Value:
        return Value(self.builder, self.builder.add(Index(axis, position), self.name))

    def over(self, axes: str) -> Value:
        return Value(self.builder, self.builder.broadcast(self.name, axes.split()))


def stack(axis: str, *parts: Value) -> Value:
    builder = parts[0].builder
    return Value(builder, builder.add(Stack(axis), *(part.name for part in parts)))


Body = Callable[[SimpleNamespace], Mapping[str, Value]]


def typed(text: str) -> TensorType:
    """`i j`, `i:complex`, `:bool`: axes and kind."""
    axes, _, kind = text.partition(":")
    return TensorType(tuple(axes.split()), Kind(kind or "real"))


def program(
    body: Body,
    *,
    states: Mapping[str, str],
    inputs: Mapping[str, str] | None = None,
    params: Mapping[str, str] | None = None,
    semiring: str = "real",
    level: Level = Level.DISCRETE,
) -> Program:
    """A program of one step; `body` returns the next value of each state and any further output."""

    def tensors(given: Mapping[str, str]) -> tuple[Tensor, ...]:
        return tuple(Tensor(n, tuple((a,) for a in typed(t).axes), typed(t)) for n, t in given.items())

    ins, pars = tensors(inputs or {"x": ""}), tensors(params or {})
    held = tuple(State(n, tuple((a,) for a in typed(t).axes), typed(t)) for n, t in states.items())
    builder = Builder(AXES, {d.name: d.type for d in (*ins, *pars, *held)})
    names = SimpleNamespace(**{d.name: Value(builder, d.name) for d in (*ins, *pars, *held)})
    results = {name: value.name for name, value in body(names).items()}
    following = tuple((s.name, results.pop(s.name)) for s in held)
    results = results or {f"{name}.out": value for name, value in following}
    outputs = tuple(Output(n, v, tuple((a,) for a in builder.types[v].axes)) for n, v in results.items())
    regions = (Region(RegionKind.STEP, builder.take()),)
    made = Program("body", level, semiring, AXES, ins, pars, held, regions, following, outputs)
    verify(made)
    return made


def draw(type_: TensorType, lead: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    shape = (*lead, *(SIZES[a] for a in type_.axes))
    if type_.kind is Kind.BOOL:
        return torch.rand(shape, generator=generator) < 0.5
    dtype = torch.complex128 if type_.kind is Kind.COMPLEX else torch.float64
    return torch.randn(shape, generator=generator, dtype=dtype)


def arguments(
    made: Program, time: int, seed: int = 0
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Random inputs (batch 1), params and initial states."""
    g = torch.Generator().manual_seed(seed)
    return (
        {t.name: draw(t.type, (1, time), g) for t in made.inputs},
        {t.name: draw(t.type, (), g) for t in made.params},
        {s.name: draw(s.type, (1,), g) for s in made.states},
    )


def outputs(made: Program, time: int = 5, seed: int = 0) -> dict[str, torch.Tensor]:
    """Outputs and final states on random data."""
    inputs, params, initial = arguments(made, time, seed)
    results, final = interpret(made, inputs, params, initial)
    return {**results, **{f"final {name}": x for name, x in final.items()}}
