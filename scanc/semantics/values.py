"""What a name or an expression stands for while a spec is lowered."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from scanc.diagnostics.span import Span
from scanc.ir.nodes import Kind, TensorType


class Role(StrEnum):
    """Where a value comes from, in the user's words."""

    INPUT = "input"
    PARAM = "param"
    STATE = "state"
    LOCAL = "local"
    BLOCK = "local of the `for` block"
    RESULT = "result"


Literal = bool | int | float


@dataclass(frozen=True)
class Value:
    """A typed value of the IR.

    A literal has no instruction until it meets an operand that decides its kind.  `whole` is the value of
    which this one is a slice, inside `for`.
    """

    name: str
    type: TensorType
    role: Role = Role.RESULT
    text: str = ""
    span: Span | None = None
    literal: Literal | None = None
    whole: Value | None = None

    @property
    def kind(self) -> Kind:
        """The kind of the value's elements."""
        return self.type.kind

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes of the value, in canonical order."""
        return self.type.axes


def literal(value: Literal) -> Value:
    """A number of the spec as a value; its kind is settled where it meets another."""
    kind = {bool: Kind.BOOL, int: Kind.INT, float: Kind.REAL}[type(value)]
    return Value("", TensorType((), kind), literal=value)


KIND_WORDS = {Kind.BOOL: "bool", Kind.INT: "int", Kind.REAL: "real", Kind.COMPLEX: "complex"}
