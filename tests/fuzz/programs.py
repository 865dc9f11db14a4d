"""Hypothesis strategies of typed programs, with sizes: what property tests of passes and forms run on.

`cases()` gives programs of one to three states over the axes `h` (batch), `i`, `j`, `m` (like `i`) and `w` (of
fixed size).  Each state is written in one of the manners in `MANNERS`, from values that may read every
state as it was before the step or, where it comes earlier, after it.  All values stay bounded over time:
decays are below one in modulus, and a write that depends on a state passes through tanh.  Nothing is
discontinuous in a state, and no gradient is infinite.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from hypothesis import strategies as st

from scanc.interpreter import random_arguments
from scanc.ir.build import Builder
from scanc.ir.levels import verify
from scanc.ir.nodes import (
    Axis,
    Conv,
    Delay,
    Dims,
    Index,
    Kind,
    Level,
    Ode,
    Output,
    Program,
    Region,
    RegionKind,
    Rename,
    Size,
    Stack,
    State,
    Tensor,
    TensorType,
)

Arguments = dict[str, torch.Tensor]

RULES = ("zoh", "bilinear", "gbt", "euler", "backward_euler", "exp_trapezoid", "mamba", "dirac", "async")
MANNERS = ("diagonal", "delta", "gated by a state", "nonlinear", "delay", "log", "maxplus", "ode", "ode")
UNARY = ("tanh", "sigmoid", "softplus", "silu", "gelu", "relu", "sin", "cos", "abs", "neg", "erf", "logsigmoid")
BINARY = ("add", "sub", "mul", "maximum", "minimum", "logaddexp")


@dataclass(frozen=True)
class Case:
    """A program and what it is run on."""

    program: Program
    sizes: Mapping[str, int]
    batch: int
    time: int
    seed: int

    def arguments(
        self, dtype: torch.dtype = torch.float64, time: int | None = None
    ) -> tuple[Arguments, Arguments, Arguments]:
        """(inputs, params, initial) in the declared layout."""
        length = self.time if time is None else time
        return random_arguments(
            self.program, batch=self.batch, time=length, sizes=self.sizes, seed=self.seed, dtype=dtype
        )


@st.composite
def cases(
    draw: st.DrawFn,
    level: Level = Level.TYPED,
    manners: tuple[str, ...] = MANNERS,
    complex_states: bool = True,
    times: tuple[int, ...] = (0, 1, 2, 3, 5, 8),
) -> Case:
    """Programs at `level` (typed, core or discrete) with sizes of one to three, and a length of `times`."""
    size = st.integers(1, 3)
    sizes = {"h": draw(size), "i": draw(size), "j": draw(size)}
    program = _Maker(draw, level, manners, complex_states, taps=draw(st.integers(1, 3))).program()
    verify(program)
    used = {axis.name for axis in program.axes}
    return Case(
        program,
        {axis: n for axis, n in sizes.items() if axis in used},
        batch=draw(st.integers(1, 2)),
        time=draw(st.sampled_from(times)),
        seed=draw(st.integers(0, 2**16)),
    )


class _Maker:
    """Draws one program."""

    def __init__(
        self, draw: st.DrawFn, level: Level, manners: tuple[str, ...], complex_states: bool, taps: int
    ) -> None:
        self.draw = draw
        self.level = level
        self.manners = tuple(m for m in manners if m != "ode" or level in (Level.TYPED, Level.CORE))
        self.axes = (Axis("h", batch=True), Axis("i"), Axis("j"), Axis("m", like="i"), Axis("w", size=taps))
        self.taps = taps
        self.complex = complex_states and draw(st.integers(0, 4)) == 0
        kinds = st.sampled_from((Kind.REAL, Kind.COMPLEX)) if self.complex else st.just(Kind.REAL)
        subset = st.sets(st.sampled_from(("h", "i", "j")))

        def type_() -> TensorType:
            axes = draw(subset)
            return TensorType(tuple(a.name for a in self.axes if a.name in axes), draw(kinds))

        full = TensorType(("h", "i", "j"))
        inputs = {"x": full} | {f"x{n}": type_() for n in range(draw(st.integers(0, 3)))}
        if draw(st.integers(0, 3)) == 0:
            inputs["flag"] = TensorType(draw(st.sampled_from(((), ("h",)))), Kind.BOOL)
        params = {f"p{n}": type_() for n in range(draw(st.integers(1, 3)))}
        params["taps"] = TensorType(("i", "w"))
        self.inputs = {name: Tensor(name, self.dims(t, merge=name != "x"), t) for name, t in inputs.items()}
        self.params = {name: Tensor(name, self.dims(t), t) for name, t in params.items()}
        self.states = {}
        for n in range(draw(st.integers(1, 3))):
            self.states[f"s{n}"] = self.state(f"s{n}", type_())
        types = {name: d.type for name, d in (self.inputs | self.params | self.states).items()}
        self.builder = Builder(self.axes, types)
        self.stateful = set(self.states)
        self.noted = 0
        self.pool = [*types]

    # --- declarations ---

    def dims(self, type_: TensorType, merge: bool = True) -> Dims:
        """The axes in any order, now and then two of them merged."""
        order = self.draw(st.permutations(type_.axes))
        if merge and len(order) > 1 and self.draw(st.integers(0, 3)) == 0:
            return ((order[0], order[1]), *((axis,) for axis in order[2:]))
        return tuple((axis,) for axis in order)

    def state(self, name: str, type_: TensorType) -> State:
        fitting = [p.name for p in self.params.values() if p.type == type_]
        init: float | str = self.draw(st.sampled_from([0.0, 0.5, *fitting]))
        return State(name, self.dims(type_), type_, init)

    # --- the program ---

    def program(self) -> Program:
        next_ = []
        for name, state in self.states.items():
            manner = self.draw(st.sampled_from(self.manners))
            if state.type.kind is Kind.COMPLEX and manner in ("log", "maxplus"):
                manner = "diagonal"
            value = self.next_value(name, state.type, manner)
            assert self.type(value) == state.type, f"{manner}: {self.type(value)} for {state}"
            next_.append((name, self.keep(value)))
        outputs = []
        for n in range(self.draw(st.integers(1, 3))):
            value = self.any_value(("h", "i", "j"), depth=2)
            outputs.append(Output(f"y{n}", value, self.dims(self.type(value))))
        if self.draw(st.booleans()):
            name, value = self.draw(st.sampled_from(next_))
            outputs.append(Output("last", value, self.states[name].dims))
        region = Region(RegionKind.STEP, self.builder.take())
        return Program(
            "fuzz",
            self.level,
            "real",
            self.axes,
            tuple(self.inputs.values()),
            tuple(self.params.values()),
            tuple(self.states.values()),
            (region,),
            tuple(next_),
            tuple(outputs),
        )

    def next_value(self, name: str, type_: TensorType, manner: str) -> str:
        b = self.builder
        match manner:
            case "diagonal":
                return self.add(b.map("mul", self.decay(type_), name), self.write(type_), type_)
            case "gated by a state":
                gate = b.map("sigmoid", self.real(self.reading_a_state(type_.axes)))
                return self.add(b.map("mul", self.fit(gate, type_), name), self.write(type_), type_)
            case "delta":
                return self.delta(name, type_)
            case "nonlinear":
                mixed = b.map("add", name, self.any_value(type_.axes, depth=2))
                return self.fit(self.bounded(mixed if type_.kind is Kind.COMPLEX else self.real(mixed)), type_)
            case "delay":
                return self.fit(self.write(type_), type_)
            case "ode":
                return self.ode(name, type_)
            case _:
                decay = b.map("add", b.map("logsigmoid", self.fit(self.real(self.free(type_.axes)), type_)), name)
                return b.map("logaddexp" if manner == "log" else "maximum", decay, self.fit(self.write(type_), type_))

    def delta(self, name: str, type_: TensorType) -> str:
        """decay*S + beta*k*(v - k·S), the key of length at most one; without an axis to contract, `diagonal`."""
        b = self.builder
        axes = [axis for axis in type_.axes if axis in ("i", "j")]
        if not axes:
            return self.next_value(name, type_, "diagonal")
        axis = self.draw(st.sampled_from(axes))
        key = b.broadcast(b.map("tanh", self.real(self.free((axis,)))), (axis,))
        root = b.map("rsqrt", b.map("to_real", b.add(Size(axis))))
        key = b.map("mul", key, root, hint="key")
        rest = TensorType(tuple(a for a in type_.axes if a != axis), type_.kind)
        error = b.map("sub", self.fit(self.write(rest), rest), b.contract(key, name, [axis]))
        change = b.map("mul", b.map("mul", b.map("sigmoid", self.real(self.free(rest.axes))), key), error)
        kept = b.map("mul", self.decay(type_), name) if self.draw(st.booleans()) else name
        return self.add(kept, change, type_)

    def ode(self, name: str, type_: TensorType) -> str:
        b = self.builder
        rate = b.map("neg", b.map("softplus", self.real(self.free(type_.axes))), hint="rate")
        rhs = self.add(b.map("mul", rate, name), self.write(type_, states=False), type_)
        step = b.map("sigmoid", self.real(self.free(type_.axes)), hint="step")
        rule = self.draw(st.sampled_from(RULES))
        settings = [step]
        if rule in ("gbt", "exp_trapezoid", "async"):
            settings.append(b.map("sigmoid", self.real(self.free(()))))
        return b.add(Ode(name, rule), name, rhs, *settings, hint=name)

    # --- values of a wanted type ---

    def decay(self, type_: TensorType) -> str:
        """Below one in modulus, with some of the state's axes; complex for a complex state now and then."""
        b = self.builder
        modulus = b.map("sigmoid", self.real(self.free(type_.axes)), hint="decay")
        if self.draw(st.integers(0, 3)) == 0:
            modulus = b.map("exp", b.map("neg", b.map("softplus", self.real(self.free(type_.axes)))), hint="decay")
        if type_.kind is not Kind.COMPLEX or self.draw(st.booleans()):
            return modulus
        angle = self.real(self.free(type_.axes))
        return b.map("mul", modulus, b.map("complex", b.map("cos", angle), b.map("sin", angle)))

    def write(self, type_: TensorType, states: bool = True) -> str:
        """Axes and kind within those of the state; bounded if it depends on a state."""
        value = self.any_value(type_.axes, 2, states)
        if type_.kind is not Kind.COMPLEX:
            value = self.real(value)
        return self.bounded(value) if self.depends(value) else value

    def free(self, axes: tuple[str, ...]) -> str:
        """A value that reads no state."""
        return self.any_value(axes, depth=1, states=False)

    def reading_a_state(self, axes: tuple[str, ...]) -> str:
        seen = [s for s in self.states if "h" in axes or "h" not in self.type(s).axes]
        return self.within(self.draw(st.sampled_from(seen)), axes) if seen else self.free(axes)

    def bounded(self, value: str) -> str:
        b = self.builder
        if self.type(value).kind is Kind.COMPLEX:
            return b.map("complex", b.map("tanh", b.map("real", value)), b.map("tanh", b.map("imag", value)))
        return b.map("tanh", value)

    def real(self, value: str) -> str:
        if self.type(value).kind is Kind.COMPLEX:
            return self.builder.map(self.draw(st.sampled_from(("real", "imag", "abs"))), value)
        return value

    def fit(self, value: str, type_: TensorType) -> str:
        """A value with axes and kind within those of `type_`, brought to exactly that type."""
        value = self.builder.broadcast(value, type_.axes)
        if type_.kind is Kind.COMPLEX and self.type(value).kind is not Kind.COMPLEX:
            value = self.builder.map("to_complex", value)
        return value

    def add(self, a: str, c: str, type_: TensorType) -> str:
        return self.fit(self.builder.map("add", a, c, hint="next"), type_)

    def within(self, value: str, axes: tuple[str, ...]) -> str:
        """`value` with the axes that are not wanted reduced away."""
        extra = set(self.type(value).axes) - set(axes)
        if not extra:
            return value
        kinds = ("sum",) if self.type(value).kind is Kind.COMPLEX else ("sum", "max", "min", "logsumexp")
        return self.keep(self.builder.reduce(self.draw(st.sampled_from(kinds)), value, extra))

    # --- any value ---

    def type(self, value: str) -> TensorType:
        return self.builder.types[value]

    def depends(self, value: str) -> bool:
        """Whether the value reads a state."""
        for instr in self.builder.instrs[self.noted :]:
            if self.stateful.intersection(instr.args):
                self.stateful.add(instr.name)
        self.noted = len(self.builder.instrs)
        return value in self.stateful

    def keep(self, value: str) -> str:
        """Offers a value for reading."""
        self.pool.append(value)
        return value

    def leaf(self, axes: tuple[str, ...], states: bool) -> str:
        def legal(value: str) -> bool:
            type_ = self.type(value)
            readable = states or not self.depends(value)
            return readable and ("h" in axes or "h" not in type_.axes) and type_.kind is not Kind.BOOL

        return self.draw(st.sampled_from([value for value in self.pool if legal(value)]))

    def any_value(self, axes: tuple[str, ...], depth: int, states: bool = True) -> str:
        """A value with axes within `axes`, made in at most `depth` operations."""
        value = self.leaf(axes, states)
        for _ in range(self.draw(st.integers(0, depth))):
            value = self.keep(self.grow(value, axes, states))
        return self.within(value, axes)

    def grow(self, value: str, axes: tuple[str, ...], states: bool) -> str:
        b, type_ = self.builder, self.type(value)
        other = self.leaf(axes, states)
        both_real = Kind.COMPLEX not in (type_.kind, self.type(other).kind)
        kinds = ["binary", "contract", "unary", "positive"]
        kinds += ["past"] * (self.level is Level.TYPED) + ["flag"] * ("flag" in self.inputs and "h" in axes)
        kinds += ["rename"] * ("i" in type_.axes and "m" not in type_.axes) + ["stack"] * ("w" not in type_.axes)
        match self.draw(st.sampled_from(kinds)):
            case "unary" if type_.kind is Kind.COMPLEX:
                return b.map(self.draw(st.sampled_from(("neg", "conj", "real", "imag", "abs"))), value)
            case "unary":
                return b.map(self.draw(st.sampled_from(UNARY)), value)
            case "positive":
                real = self.real(value)
                positive = b.map("add", b.map("mul", real, real), b.const(1.0))
                return b.map(self.draw(st.sampled_from(("log", "sqrt", "rsqrt"))), positive)
            case "contract":
                shared = sorted(set(type_.axes) & set(self.type(other).axes) - {"h"})
                semiring = self.draw(st.sampled_from(("real", "real", "log", "maxplus") if both_real else ("real",)))
                return b.contract(value, other, shared, semiring) if shared else b.map("mul", value, other)
            case "rename":
                return b.add(Rename((("i", "m"),)), value)
            case "flag":
                return b.map("where", "flag", value, b.const(0.0))
            case "past":
                return self.past(axes)
            case "stack":
                second = b.map("neg", value)
                stacked = b.add(Stack("w"), *([value, second, value][: self.taps]))
                picked = b.add(Index("w", self.taps - 1), stacked)
                return b.map("mul", picked, b.reduce("sum", b.map("mul", stacked, self.weights(axes)), ["w"]))
            case _:
                return b.map(self.draw(st.sampled_from(BINARY if both_real else BINARY[:3])), value, other)

    def weights(self, axes: tuple[str, ...]) -> str:
        return "taps" if "i" in axes else self.builder.reduce("sum", "taps", ["i"])

    def past(self, axes: tuple[str, ...]) -> str:
        """`prev` or `conv` of an input or a local that reads no state, so that the past stays bounded."""
        declared = {*self.params, *self.states}
        sources = [v for v in self.pool if v not in declared and not self.depends(v)]
        sources = [v for v in sources if self.type(v).kind is not Kind.BOOL and "w" not in self.type(v).axes]
        sources = [v for v in sources if "h" in axes or "h" not in self.type(v).axes]
        if not sources:
            return self.free(axes)
        source = self.draw(st.sampled_from(sources))
        if self.draw(st.booleans()):
            return self.builder.add(Conv("w"), source, "taps")
        return self.builder.add(Delay(self.draw(st.integers(1, 3))), source)
