"""The intermediate representation: one time step as single-assignment instructions over named axes.

Grammar (one line per node; `*` is a tuple)::

    program = Program(name, level, semiring, axes: axis*, inputs: tensor*, params: tensor*,
                      states: state*, regions: region*, next: (state, value)*,
                      outputs: output*, totals: output*)
    axis    = Axis(name, size?, batch, like?)
    tensor  = Tensor(name, dims, type, pin?)
    state   = State(name, dims, type, init, public?)
    region  = Region(kind, instrs: instr*, states, recurrence?)
    instr   = Instr(name, op, args: value*, type)
    op      = Const(value) | Size(axis) | Map(fn) | Reduce(fn, axes) | Contract(semiring, axes)
            | Rename(pairs) | Broadcast(axes) | Index(axis, position) | Stack(axis) | Extremum(fn, axes)
            | Identity(rows, columns) | Matrix(fn, rows, columns)
            | Memory(state, axes, rows, columns, decays, writes, dual, against)
            | Recall(over, axes, decayed) | Meet(over, side, decayed, before, axes)
            | Delay(steps) | Conv(axis) | Ode(state, rule)          # the last three: level `typed` only

A *value* is a name.  Inputs, params, states and instructions share one name space; the name of a
state, used as an argument, is what the state held **before** the step.  `next` says what it holds
after the step.  `outputs` leave at every time step, `totals` are summed over time and batch (the
gradients of parameters in an adjoint program).

Axes are sets: the axes of a type stand in the order of `Program.axes` (the *canonical order*), never
twice, and values meet by name (`Map` broadcasts).  The order in which a caller lays out memory is
in `dims` alone: one entry per physical dimension, itself a tuple of axes where a merged axis is
taken apart, slow axis first.  A repeated axis `A[n,n]` is typed with a second axis `n_col` that is
`like` the first: rows `n`, columns `n_col`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from scanc.diagnostics.span import Span


class Kind(StrEnum):
    """What a value's elements are; widths are chosen at the call."""

    BOOL = "bool"
    INT = "int"
    REAL = "real"
    COMPLEX = "complex"


class Level(StrEnum):
    """How far a program has been lowered; `levels.py` says what is legal at each."""

    TYPED = "typed"
    CORE = "core"
    DISCRETE = "discrete"
    STAGED = "staged"
    CLASSIFIED = "classified"
    SCHEDULED = "scheduled"


@dataclass(frozen=True)
class TensorType:
    """The axes of a value, in canonical order, and the kind of its elements."""

    axes: tuple[str, ...]
    kind: Kind = Kind.REAL


@dataclass(frozen=True)
class Axis:
    """A named axis. `like` names the axis whose size it shares; `batch` axes are never contracted by `·`."""

    name: str
    size: int | None = None
    batch: bool = False
    like: str | None = None


Dims = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Tensor:
    """An input (with leading [B, T]) or a param (no leading dimension) as the caller lays it out."""

    name: str
    dims: Dims
    type: TensorType
    pin: str | None = None  # a torch dtype name ("float32"), where the spec fixes one
    span: Span | None = field(default=None, compare=False)


@dataclass(frozen=True)
class State:
    """A state (with leading [B]).

    `init` is a number or the name of a param.  `public` = (name, slot, count) says that callers see
    this state as `slot` of `count` in one stacked buffer [B, count, *dims] called `name` (`prev.x`,
    oldest first); without it they see it under its own name.
    """

    name: str
    dims: Dims
    type: TensorType
    init: float | complex | str = 0.0
    public: tuple[str, int, int] | None = None
    span: Span | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Output:
    """What leaves the program: a value under a name, with the axes in the order of `dims`."""

    name: str
    value: str
    dims: Dims
    span: Span | None = field(default=None, compare=False)


# --- operations --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Const:
    """A number; it has no axes."""

    value: bool | int | float | complex


@dataclass(frozen=True)
class Size:
    """The size of an axis, as a number known at the call."""

    axis: str


@dataclass(frozen=True)
class Map:
    """An elementwise function of `functions.TABLE`; arguments broadcast by axis name."""

    fn: str


@dataclass(frozen=True)
class Reduce:
    """`sum`, `max`, `min`, `logsumexp`, `any` or `all` over axes of the argument."""

    fn: str
    axes: tuple[str, ...]


@dataclass(frozen=True)
class Contract:
    """⊕ over `axes` of a ⊗ b, in a semiring of `functions.SEMIRINGS`; other axes broadcast."""

    semiring: str
    axes: tuple[str, ...]


@dataclass(frozen=True)
class Rename:
    """Moves a value from axis to axis: pairs (from, to), applied at once."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Broadcast:
    """Adds axes that the argument lacks."""

    axes: tuple[str, ...]


@dataclass(frozen=True)
class Index:
    """The slice of the argument at one position of an axis."""

    axis: str
    position: int


@dataclass(frozen=True)
class Stack:
    """The arguments, each without `axis`, laid along it in order."""

    axis: str


@dataclass(frozen=True)
class Extremum:
    """A 0/1 mask (kind bool) of the argument's shape: true at the lowest index of the `max` or `min` over axes."""

    fn: str
    axes: tuple[str, ...]


@dataclass(frozen=True)
class Identity:
    """The matrix that is one where two axes of one size have the same position, and zero elsewhere."""

    rows: str
    columns: str


@dataclass(frozen=True)
class Matrix:
    """A function of `functions.MATRICES` of a square matrix with rows and columns along two axes of one size.

    args = (z, directions…), each with both axes, all others broadcast.  With k directions it is the k-th Fréchet
    derivative of the function at z, linear and symmetric in them: so derivatives of every order are of this kind.
    """

    fn: str
    rows: str
    columns: str


@dataclass(frozen=True)
class Delay:
    """The argument (an input or a local) as it was `steps` time steps ago."""

    steps: int


@dataclass(frozen=True)
class Conv:
    """Causal convolution of args[0] over time with taps args[1] along `axis`; the last tap meets the present."""

    axis: str


@dataclass(frozen=True)
class Ode:
    """The next value of `state` under d/dt state = rhs, discretised by `rule`.

    args = (current, rhs, *settings): the value of the state where the statement stands, the right side
    computed from it, and the rule's settings in order (`zoh(step)`, `gbt(step, alpha)`, …).
    """

    state: str
    rule: str


Side = Literal["rows", "columns", "both"]


@dataclass(frozen=True)
class Memory:
    """A state D·S + Σ x ⊗ y of which no value between two steps is written down, read by `Recall` and `Meet` alone.

    args = (a value for each of `decays`, then x and y of each write).  `axes` are those of the state, `rows` and
    `columns` those of its two sides.  `decays`: what each acts on, and whether it is the decay itself or its logarithm.
    `writes`: of each write of a `dual` memory, whether the query that it comes from saw its own step's decay.  `about`
    is the class of the state, in words.

    A dual memory holds cotangents: what decays it comes behind the write, and belongs to the step that was taken
    before.  `against`: it runs against the time of its program.
    """

    state: str
    axes: tuple[str, ...]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    decays: tuple[tuple[Side, bool], ...]
    writes: tuple[bool, ...]
    dual: bool = False
    against: bool = False
    about: str = field(default="", compare=False)

    def side(self, over: Side) -> tuple[str, ...]:
        """The axes of a side; of both, none."""
        return {"rows": self.rows, "columns": self.columns, "both": ()}[over]

    def along(self, over: Side) -> tuple[str, ...]:
        """The state's axes but for those of the other side; of both, its batch axes."""
        return tuple(axis for axis in self.axes if axis not in {*self.rows, *self.columns} - {*self.side(over)})


@dataclass(frozen=True)
class Recall:
    """args = (memory, query): the state before the step, contracted with the query over the axes of a side.

    `decayed`: after the decay of its own step (never of a dual memory), and before anything is written.
    """

    over: Side
    axes: tuple[str, ...]
    decayed: bool = True


@dataclass(frozen=True)
class Meet:
    """args = (memory, dual memory, pairs…): the gradient of a decay or its logarithm, as the memory has it; of `axes`.

    The pairs are a factor of `side` and its gradient: of queries of states with the decay of their step (`decayed`),
    then without it (`before`), then of what was written (theory, section 2).
    """

    over: Side
    side: Side
    decayed: int
    before: int
    axes: tuple[str, ...]


Op = (
    Const
    | Size
    | Map
    | Reduce
    | Contract
    | Rename
    | Broadcast
    | Index
    | Stack
    | Extremum
    | Identity
    | Matrix
    | Memory
    | Recall
    | Meet
    | Delay
    | Conv
    | Ode
)


@dataclass(frozen=True)
class Instr:
    """`name = op(args) : type`; `span` is the place in the spec that it comes from."""

    name: str
    op: Op
    args: tuple[str, ...]
    type: TensorType
    span: Span | None = field(default=None, compare=False)


class RegionKind(StrEnum):
    """How a region is executed.

    `step`: everything, not yet split.  `params`: once per call.  `map`: any time step by itself.  `loop`: one
    step after the other.  `scan`: next = decay ⊗ state ⊕ write, elementwise.  `delay`: next = write.  `memory`: next is
    what a memory holds behind the last step; no other value of the state exists.
    """

    STEP = "step"
    PARAMS = "params"
    MAP = "map"
    LOOP = "loop"
    SCAN = "scan"
    DELAY = "delay"
    MEMORY = "memory"


@dataclass(frozen=True)
class Scan:
    """next = decay ⊗ state ⊕ write over one state; `result` is the name of the next value.

    `decay` None is the semiring's one, `write` None its zero.  Both may have fewer axes than the state,
    never more.  In a `delay` or `memory` region nothing of the state goes into the next value: `result` and `write`
    are the same, already computed, value.
    """

    semiring: str
    result: str
    decay: str | None
    write: str | None


@dataclass(frozen=True)
class Region:
    """A run of instructions that is executed in one manner.

    A `loop`, `scan` or `delay` region computes the next values of `states`; a `map` region behind it may
    read both the state (what it held before the step) and its next value.  A `scan`, `delay` or `memory` region
    has one state and no instruction: `scan` names values computed in earlier regions.
    """

    kind: RegionKind
    instrs: tuple[Instr, ...]
    states: tuple[str, ...] = ()
    scan: Scan | None = None
    recurrence: str | None = None  # the class that `classify` found, in words


@dataclass(frozen=True)
class Program:
    """One time step; the module's docstring has the grammar, `levels.py` what is legal at which level."""

    name: str
    level: Level
    semiring: str
    axes: tuple[Axis, ...]
    inputs: tuple[Tensor, ...]
    params: tuple[Tensor, ...]
    states: tuple[State, ...]
    regions: tuple[Region, ...]
    next: tuple[tuple[str, str], ...]
    outputs: tuple[Output, ...]
    totals: tuple[Output, ...] = ()

    @property
    def declared(self) -> tuple[Tensor | State, ...]:
        """Inputs, params and states: the values that no instruction makes."""
        return (*self.inputs, *self.params, *self.states)

    @property
    def instrs(self) -> Iterator[Instr]:
        """Every instruction, in an order in which it can be executed."""
        for region in self.regions:
            yield from region.instrs

    @property
    def next_of(self) -> dict[str, str]:
        """The name of each state's next value."""
        return dict(self.next)

    @property
    def types(self) -> dict[str, TensorType]:
        """The type of every value, those of inputs, params and states included."""
        table = {decl.name: decl.type for decl in self.declared}
        table.update((instr.name, instr.type) for instr in self.instrs)
        for region in self.regions:
            if region.kind is RegionKind.SCAN and region.scan is not None:
                table[region.scan.result] = table[region.states[0]]
        return table

    def axis(self, name: str) -> Axis:
        """The axis of a name."""
        return next(axis for axis in self.axes if axis.name == name)

    def canonical(self, axes: set[str] | frozenset[str]) -> tuple[str, ...]:
        """The given axes in canonical order."""
        return tuple(axis.name for axis in self.axes if axis.name in axes)
