"""The elementwise functions, the functions of matrices and the semirings of the IR, as tables.

Each function's meaning is fixed here in words and by the interpreter; its derivative stands in
`passes/derivatives.py`, its spelling for a target in `codegen`.  Limits count: `expdiff(-inf, m)` is 0
for every m, `logaddexp(-inf, -inf)` is -inf, `phi1(0)` is 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from scanc.ir.nodes import Kind


@dataclass(frozen=True)
class Function:
    """`arity` arguments; `result` is the kind of the result, None where it is the widest of the arguments'.

    `complex_ok`: complex arguments are legal.  `order` functions compare and need real arguments.
    """

    arity: int
    result: Kind | None = None
    complex_ok: bool = False
    doc: str = ""


TABLE: dict[str, Function] = {
    # arithmetic
    "add": Function(2, complex_ok=True, doc="a + b"),
    "sub": Function(2, complex_ok=True, doc="a - b"),
    "mul": Function(2, complex_ok=True, doc="a * b"),
    "div": Function(2, complex_ok=True, doc="a / b; int and bool arguments give real"),
    "pow": Function(2, complex_ok=True, doc="a ^ b"),
    "neg": Function(1, complex_ok=True, doc="-a"),
    "abs": Function(1, Kind.REAL, complex_ok=True, doc="|a|; gradient 0 at 0"),
    "sign": Function(1, doc="-1, 0 or 1"),
    # exponentials and their safe relatives
    "exp": Function(1, Kind.REAL, complex_ok=True),
    "exp2": Function(1, Kind.REAL, doc="2 ^ a; made by powers alone"),
    "expm1": Function(1, Kind.REAL, complex_ok=True, doc="exp(a) - 1 without cancellation"),
    "log": Function(1, Kind.REAL, complex_ok=True),
    "log1p": Function(1, Kind.REAL, doc="log(1 + a) without cancellation"),
    "phi1": Function(1, Kind.REAL, complex_ok=True, doc="expm1(a) / a, 1 at 0"),
    "dphi1": Function(1, Kind.REAL, complex_ok=True, doc="the derivative of phi1, by series near 0"),
    "expdiff": Function(2, Kind.REAL, doc="exp(a - m), and 0 wherever a is -inf"),
    "logaddexp": Function(2, Kind.REAL, doc="log(exp a + exp b); -inf if both are"),
    "sqrt": Function(1, Kind.REAL, complex_ok=True, doc="gradient bounded near 0"),
    "rsqrt": Function(1, Kind.REAL, doc="1 / sqrt(a)"),
    # activations
    "sigmoid": Function(1, Kind.REAL),
    "logsigmoid": Function(1, Kind.REAL, doc="log(sigmoid(a)) without overflow"),
    "softplus": Function(1, Kind.REAL, doc="log(1 + exp a) without overflow"),
    "tanh": Function(1, Kind.REAL),
    "silu": Function(1, Kind.REAL, doc="a * sigmoid(a)"),
    "relu": Function(1, doc="max(a, 0), gradient 0 at 0"),
    "gelu": Function(1, Kind.REAL, doc="a * Phi(a), the exact form"),
    "erf": Function(1, Kind.REAL),
    "sin": Function(1, Kind.REAL),
    "cos": Function(1, Kind.REAL),
    # order and choice
    "maximum": Function(2, doc="a tie splits the gradient"),
    "minimum": Function(2, doc="a tie splits the gradient"),
    "where": Function(3, complex_ok=True, doc="where(condition, a, b)"),
    "lt": Function(2, Kind.BOOL),
    "le": Function(2, Kind.BOOL),
    "gt": Function(2, Kind.BOOL),
    "ge": Function(2, Kind.BOOL),
    "eq": Function(2, Kind.BOOL, complex_ok=True),
    "ne": Function(2, Kind.BOOL, complex_ok=True),
    "and": Function(2, Kind.BOOL),
    "or": Function(2, Kind.BOOL),
    "not": Function(1, Kind.BOOL),
    # complex numbers
    "complex": Function(2, Kind.COMPLEX, doc="re + i im, of two reals"),
    "real": Function(1, Kind.REAL, complex_ok=True),
    "imag": Function(1, Kind.REAL, complex_ok=True),
    "conj": Function(1, complex_ok=True),
    "hypot": Function(2, Kind.REAL, doc="sqrt(a^2 + b^2) without overflow; made by realify alone"),
    "atan2": Function(2, Kind.REAL, doc="the angle of b + i a; made by realify alone"),
    # conversions and gradients
    "to_real": Function(1, Kind.REAL, doc="bool or int to real: 0/1 or the number"),
    "to_complex": Function(1, Kind.COMPLEX, complex_ok=True),
    "stop": Function(1, complex_ok=True, doc="the argument; no gradient passes"),
}

MATRICES: dict[str, str] = {
    "exp": "Σ zⁿ / n!",
    "phi1": "Σ zⁿ / (n + 1)!, which needs no inverse of z",
    "inverse": "z⁻¹; not finite where there is none",
}
"""The functions of a square matrix as a whole, and their meaning."""

REDUCTIONS: tuple[str, ...] = ("sum", "max", "min", "logsumexp", "any", "all")


@dataclass(frozen=True)
class Semiring:
    """`plus` and `times` are Map functions, `reduce` the Reduce function of `plus`; `zero` and `one` their units."""

    plus: str
    times: str
    reduce: str
    zero: float | bool
    one: float | bool
    kind: Kind = Kind.REAL


SEMIRINGS: dict[str, Semiring] = {
    "real": Semiring("add", "mul", "sum", 0.0, 1.0),
    "log": Semiring("logaddexp", "add", "logsumexp", float("-inf"), 0.0),
    "maxplus": Semiring("maximum", "add", "max", float("-inf"), 0.0),
    "minplus": Semiring("minimum", "add", "min", float("inf"), 0.0),
    "bool": Semiring("or", "and", "any", False, True, Kind.BOOL),
}
