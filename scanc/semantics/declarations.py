"""The declared tensors of a spec, checked: inputs, params, states and outputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from scanc_runtime.errors import did_you_mean

from scanc.diagnostics.diagnostic import fault
from scanc.diagnostics.span import Span
from scanc.ir.functions import SEMIRINGS
from scanc.ir.nodes import Dims, Kind, State, Tensor, TensorType
from scanc.semantics.axes import AxisTable, unknown_sizes
from scanc.semantics.builtins import FUNCTIONS
from scanc.semantics.report import Report
from scanc.syntax import ast

_TYPES: dict[str, tuple[Kind, str | None]] = {
    "real": (Kind.REAL, None),
    "complex": (Kind.COMPLEX, None),
    "bool": (Kind.BOOL, None),
    "int": (Kind.INT, None),
    "fp16": (Kind.REAL, "float16"),
    "bf16": (Kind.REAL, "bfloat16"),
    "fp32": (Kind.REAL, "float32"),
    "fp64": (Kind.REAL, "float64"),
}
_ALIASES = {"float32": "fp32", "float64": "fp64", "float16": "fp16", "bfloat16": "bf16", "float": "real",
            "double": "fp64", "half": "fp16", "complex64": "complex", "complex128": "complex", "int32": "int",
            "int64": "int"}  # fmt: skip


@dataclass
class Declarations:
    """Everything that a spec declares, by name in the order of declaration."""

    name: str
    semiring: str
    table: AxisTable
    inputs: dict[str, Tensor] = field(default_factory=dict)
    params: dict[str, Tensor] = field(default_factory=dict)
    states: dict[str, State] = field(default_factory=dict)
    outputs: dict[str, ast.TensorDecl] = field(default_factory=dict)
    depends: dict[str, tuple[ast.Name, ...]] = field(default_factory=dict)
    spans: dict[str, Span] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)  # names as the user wrote them
    unsized: set[str] = field(default_factory=set)  # axes whose size a call does not give


def declare(items: Iterable[ast.Item], header: ast.Scan, table: AxisTable, report: Report) -> Declarations:
    """Checks every declaration; what is wrong is reported and left out."""
    items = tuple(items)
    semiring = "real"
    with report.catching():
        semiring = _semiring(header)
    made = Declarations(header.name.id, semiring, table)
    for role, decl in ast.declared(items):
        with report.catching():
            _Declare(made, role, decl).run()
    for role, decl in ast.declared(items):
        if role == "state" and decl.name.id in made.states:
            with report.catching():
                _initial(made, decl)
    tensors = (*made.inputs.values(), *made.params.values())
    made.unsized = unknown_sizes(table, (tensor.dims for tensor in tensors))
    if not report.errors:
        with report.catching():
            _check_sizes(made)
    return made


def _semiring(header: ast.Scan) -> str:
    if header.semiring is None:
        return "real"
    if header.semiring.id not in SEMIRINGS:
        listed = ", ".join(f"`{name}`" for name in SEMIRINGS)
        raise fault(
            "E0501",
            f"there is no semiring `{header.semiring.text}`",
            header.semiring.span,
            hint=did_you_mean(header.semiring.id, SEMIRINGS) or f"the semirings are {listed}",
        )
    return header.semiring.id


class _Declare:
    """One declaration on its way into the table."""

    def __init__(self, made: Declarations, role: str, decl: ast.TensorDecl) -> None:
        self.made, self.role, self.decl = made, role, decl

    def run(self) -> None:
        decl, made = self.decl, self.made
        name = decl.name
        if self.role == "output":
            self._output()
            return
        check_name(name, made.semiring, decl.depends is not None)
        if name.id in made.spans:
            spelled = (
                () if name.text == made.texts[name.id] else (f"Greek letters are spelled out: both are `{name.id}`",)
            )
            raise fault(
                "E0203",
                f"`{name.text}` is declared twice",
                name.span,
                secondary=[(made.spans[name.id], "first here")],
                notes=spelled,
            )
        made.texts[name.id] = name.text
        made.spans[name.id] = decl.span
        if decl.depends is not None:
            if self.role != "input":
                raise fault(
                    "E0604",
                    f"a {self.role} depends on no input",
                    decl.depends[0].span,
                    hint=f"declare it as an input, or write `{self.role} {name.text}{_brackets(decl)}`",
                )
            made.depends[name.id] = decl.depends
        dims = made.table.dims(decl)
        kind, pin = self._type()
        type_ = TensorType(_canonical(made.table, dims), kind)
        if self.role == "state":
            zero = SEMIRINGS[made.semiring].zero
            init = float(zero) if kind in (Kind.REAL, Kind.COMPLEX) or made.semiring == "bool" else 0.0
            made.states[name.id] = State(name.id, dims, type_, init, span=decl.span)
            return
        if decl.init is not None:
            raise fault(
                "E0604",
                f"{_a(self.role)} has no initial value",
                decl.init.span,
                hint="only states begin with a value of their own",
            )
        store = made.inputs if self.role == "input" else made.params
        store[name.id] = Tensor(name.id, dims, type_, pin, decl.span)

    def _output(self) -> None:
        decl, made = self.decl, self.made
        if decl.name.id in made.outputs:
            raise fault(
                "E0203",
                f"output `{decl.name.text}` is declared twice",
                decl.name.span,
                secondary=[(made.outputs[decl.name.id].span, "first here")],
            )
        if decl.type is not None:
            raise fault(
                "E0405",
                "an output has no declared type",
                decl.type.span,
                hint="it has the type of its value, in the width of the inputs",
            )
        if decl.init is not None:
            raise fault(
                "E0604",
                "an output is declared by name and axes only",
                decl.init.span,
                hint=f"assign it on a line of its own: `{decl.name.text} = …`",
            )
        if decl.depends is not None:
            raise fault(
                "E0604",
                "an output is declared by name and axes only",
                decl.depends[0].span,
                hint=f"write `output {decl.name.text}{_brackets(decl)}`",
            )
        made.outputs[decl.name.id] = decl

    def _type(self) -> tuple[Kind, str | None]:
        decl, made = self.decl, self.made
        if decl.type is None:
            return SEMIRINGS[made.semiring].kind, None
        if decl.type.id not in _TYPES:
            meant = _ALIASES.get(decl.type.id)
            listed = ", ".join(f"`{name}`" for name in _TYPES)
            hint = f"write `{meant}`" if meant else did_you_mean(decl.type.id, _TYPES) or f"the types are {listed}"
            raise fault("E0405", f"there is no type `{decl.type.text}`", decl.type.span, hint=hint)
        kind, pin = _TYPES[decl.type.id]
        if self.role == "state" and pin is not None:
            raise fault(
                "E0405",
                "the width of a state cannot be fixed",
                decl.type.span,
                hint="states are fp32, or fp64 if an input or a param is",
            )
        wanted = SEMIRINGS[made.semiring].kind
        if self.role == "state" and made.semiring != "real" and kind is not wanted:
            raise fault("E0503", f"a state over the semiring `{made.semiring}` is {wanted}", decl.type.span)
        return kind, pin


def check_name(name: ast.Name, semiring: str, callable_: bool) -> None:
    """Names that the language needs for itself."""
    if name.id == "inf" or (semiring != "real" and name.id in ("zero", "one")):
        raise fault("E0208", f"`{name.text}` is a constant of the language", name.span, hint="choose another name")
    if callable_ and name.id in FUNCTIONS:
        raise fault("E0208", f"`{name.text}` is a function of the language", name.span, hint="choose another name")


def _initial(made: Declarations, decl: ast.TensorDecl) -> None:
    """Sets the initial value of a state that declares one."""
    if decl.init is None:
        return
    state = made.states[decl.name.id]
    number = _number(decl.init, made.semiring)
    init: float | str = _param(made, decl, decl.init) if number is None else number
    if number is not None and not _fits(number, state.type.kind):
        raise fault(
            "E0404",
            f"the initial value does not fit state `{decl.name.text}`",
            decl.init.span,
            f"`{decl.name.text}` is {state.type.kind}",
        )
    made.states[decl.name.id] = State(state.name, state.dims, state.type, init, span=state.span)


def _fits(number: float, kind: Kind) -> bool:
    """Whether a state of this kind can hold the number."""
    if kind is Kind.BOOL:
        return number in (0, 1)
    return kind is not Kind.INT or (number.is_integer() and abs(number) < 2**63)


def _number(expr: ast.Expr, semiring: str) -> float | None:
    """The number that an initial value spells out, or None."""
    match expr:
        case ast.Number(value):
            return float(value)
        case ast.Negative(operand):
            inner = _number(operand, semiring)
            return None if inner is None else -inner
        case ast.Ref(name) if name.id == "inf":
            return float("inf")
        case ast.Ref(name) if name.id in ("zero", "one"):
            return float(getattr(SEMIRINGS[semiring], name.id))
    return None


def _param(made: Declarations, decl: ast.TensorDecl, init: ast.Expr) -> str:
    state = made.states[decl.name.id]
    if not isinstance(init, ast.Ref):
        raise fault(
            "E0404", "an initial value is a number or a param", init.span, hint="declare a param for it: `param c0[…]`"
        )
    name = init.name
    if name.id not in made.params:
        hint = did_you_mean(name.id, made.params) or f"declare it: `param {name.text}{_brackets(decl)}`"
        raise fault(
            "E0404", "an initial value is a number or a param", name.span, f"`{name.text}` is not a param", hint=hint
        )
    param = made.params[name.id]
    if set(param.type.axes) != set(state.type.axes):
        raise fault(
            "E0404",
            f"the initial value has other axes than state `{decl.name.text}`",
            name.span,
            f"has {made.table.shown(param.type.axes)}",
            secondary=[(state.span, f"has {made.table.shown(state.type.axes)}"), (param.span, "declared here")],
        )
    if param.type.kind is not state.type.kind and not (
        param.type.kind is Kind.REAL and state.type.kind is Kind.COMPLEX
    ):
        raise fault(
            "E0404",
            f"the initial value has another type than state `{decl.name.text}`",
            name.span,
            f"is {param.type.kind}",
            secondary=[(state.span, f"is {state.type.kind}")],
        )
    return param.name


def _check_sizes(made: Declarations) -> None:
    """Every axis of a tensor gets its size from a number, an input or a param."""
    tensors: list[Tensor | State] = [*made.inputs.values(), *made.params.values()]
    for decl in (*tensors, *made.states.values()):
        for dim in decl.dims:
            lost = [axis for axis in dim if axis in made.unsized and axis in made.table]
            if lost and len(dim) > 1:
                raise fault(
                    "E0310",
                    f"the sizes of the merged axes {made.table.shown(lost)} cannot be told apart",
                    decl.span,
                    hint=f"fix one: `axes {lost[-1]} = 4`, or use it in another input or param",
                )
            if lost:
                raise fault(
                    "E0310",
                    f"the size of axis `{lost[0]}` is not known at a call",
                    decl.span,
                    "no input and no param has this axis",
                    secondary=[(made.table.spans[lost[0]], "declared here")],
                    hint=f"fix it: `axes {lost[0]} = 16`, or give it the size of another: `axes {lost[0]} = i`",
                )


def _canonical(table: AxisTable, dims: Dims) -> tuple[str, ...]:
    own = {axis for dim in dims for axis in dim}
    return tuple(axis.name for axis in table.axes if axis.name in own)


def _brackets(decl: ast.TensorDecl) -> str:
    return "" if not decl.dims else "[" + ",".join("*".join(name.text for name in dim) for dim in decl.dims) + "]"


def _a(role: str) -> str:
    return f"an {role}" if role[0] in "aeiou" else f"a {role}"
