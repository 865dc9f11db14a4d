"""The derivative of every operation, as a table: one entry an elementwise function, one case an operation.

A rule takes the cotangent `g` of the result, the result `y` and the arguments, and gives the cotangent
of each argument (None: no gradient).  Cotangents are PyTorch's for complex values:
dL/dRe + i dL/dIm, so a holomorphic f hands on g * conj(f').  Rules write plain arithmetic on `Sym`;
what they give may have more axes than the argument, or be complex where it is real: `fit` mends both.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from scanc.ir.build import Builder
from scanc.ir.functions import SEMIRINGS
from scanc.ir.nodes import (
    Broadcast,
    Const,
    Contract,
    Extremum,
    Instr,
    Kind,
    Map,
    Matrix,
    Reduce,
    Rename,
    TensorType,
)


class Sym:
    """A value under construction: arithmetic on it appends instructions to a builder."""

    def __init__(self, builder: Builder, name: str) -> None:
        self.builder = builder
        self.name = name

    @property
    def type(self) -> TensorType:
        """The type of the value."""
        return self.builder.types[self.name]

    @property
    def constant(self) -> bool | int | float | complex | None:
        """The number, where the value is one."""
        ops = (instr.op for instr in self.builder.instrs if instr.name == self.name)
        return next((op.value for op in ops if isinstance(op, Const)), None)

    def __call__(self, fn: str, *others: Sym | float) -> Sym:
        """`fn(self, *others)`, an elementwise function."""
        args = [self.name, *(self.lift(other).name for other in others)]
        return Sym(self.builder, self.builder.map(fn, *args, hint="t"))

    def lift(self, other: Sym | float) -> Sym:
        """The value itself, or a number as a value."""
        return other if isinstance(other, Sym) else Sym(self.builder, self.builder.const(other))

    def __add__(self, other: Sym | float) -> Sym:
        return self("add", other)

    def __sub__(self, other: Sym | float) -> Sym:
        return self("sub", other)

    def __mul__(self, other: Sym | float) -> Sym:
        return self("mul", other)

    def __truediv__(self, other: Sym | float) -> Sym:
        return self("div", other)

    def __rsub__(self, other: float) -> Sym:
        return self.lift(other) - self

    def __neg__(self) -> Sym:
        return self("neg")

    def conj(self) -> Sym:
        """The complex conjugate; of a real value the value itself."""
        return self("conj") if self.type.kind is Kind.COMPLEX else self

    def where(self, condition: Sym, other: Sym | float = 0.0) -> Sym:
        """self where the condition holds, else `other`."""
        return condition("where", self, other)


Grads = tuple[Sym | None, ...]
Rule = Callable[..., Grads]


def _abs(g: Sym, y: Sym, a: Sym) -> Grads:
    if a.type.kind is Kind.COMPLEX:
        return ((g * a / y.where(y("gt", 0.0), 1.0)),)
    return (g * a("sign"),)


def _sqrt(g: Sym, y: Sym, a: Sym) -> Grads:
    if a.type.kind is Kind.COMPLEX:
        return (g / (y * 2.0).conj(),)
    # Bounded near 0, as the RG-LRU needs (De et al., 2024, appendix A): at most 1000.
    return (g * (a * 4.0)("maximum", 1e-6)("rsqrt"),)


def _silu(g: Sym, y: Sym, a: Sym) -> Grads:
    s = a("sigmoid")
    return (g * (s * (a * (1.0 - s) + 1.0)),)


def _gelu(g: Sym, y: Sym, a: Sym) -> Grads:
    phi = ((a * a) * -0.5)("exp") * (1.0 / math.sqrt(2.0 * math.pi))
    cdf = ((a * (1.0 / math.sqrt(2.0)))("erf") + 1.0) * 0.5
    return (g * (cdf + a * phi),)


def _pow(g: Sym, y: Sym, a: Sym, b: Sym) -> Grads:
    slope = b * a("pow", b - 1.0)
    if b.constant in (None, 0.0):  # at 0 ^ 0 the product is 0 * inf
        slope = g.lift(0.0).where(b("eq", 0.0), slope)
    base = g * slope.conj()
    safe = a.where(a("ne", 0.0), 1.0)
    return base, g * (y * safe("log")).conj()


def _extreme(order: str) -> Rule:
    def rule(g: Sym, y: Sym, a: Sym, b: Sym) -> Grads:
        half = (g * 0.5).where(a("eq", b))
        return g.where(a(order, b), half), g.where(b(order, a), half)

    return rule


def _to_real(g: Sym, y: Sym, a: Sym) -> Grads:
    return (g,)


RULES: dict[str, Rule] = {
    "add": lambda g, y, a, b: (g, g),
    "sub": lambda g, y, a, b: (g, -g),
    "div": lambda g, y, a, b: (g / b.conj(), -(g * (y / b).conj())),
    "pow": _pow,
    "neg": lambda g, y, a: (-g,),
    "abs": _abs,
    "exp": lambda g, y, a: (g * y.conj(),),
    "expm1": lambda g, y, a: (g * (y + 1.0).conj(),),
    "log": lambda g, y, a: (g / a.conj(),),
    "log1p": lambda g, y, a: (g / (a + 1.0),),
    "phi1": lambda g, y, a: (g * a("dphi1").conj(),),
    "expdiff": lambda g, y, a, m: (g * y, -(g * y)),
    "logaddexp": lambda g, y, a, b: (g * a("expdiff", y), g * b("expdiff", y)),
    "sqrt": _sqrt,
    "rsqrt": lambda g, y, a: (g * (y * y * y) * -0.5,),
    "sigmoid": lambda g, y, a: (g * (y * (1.0 - y)),),
    "logsigmoid": lambda g, y, a: (g * (-a)("sigmoid"),),
    "softplus": lambda g, y, a: (g * a("sigmoid"),),
    "tanh": lambda g, y, a: (g * (1.0 - y * y),),
    "silu": _silu,
    "relu": lambda g, y, a: (g.where(a("gt", 0.0)),),
    "gelu": _gelu,
    "erf": lambda g, y, a: (g * (-(a * a))("exp") * (2.0 / math.sqrt(math.pi)),),
    "sin": lambda g, y, a: (g * a("cos"),),
    "cos": lambda g, y, a: (-(g * a("sin")),),
    "maximum": _extreme("gt"),
    "minimum": _extreme("lt"),
    "where": lambda g, y, c, a, b: (None, g.where(c), g.lift(0.0).where(c, g)),
    "complex": lambda g, y, a, b: (g("real"), g("imag")),
    "real": lambda g, y, a: (g("to_complex"),),
    "imag": lambda g, y, a: (g.lift(0.0)("complex", g),),
    "conj": lambda g, y, a: (g.conj(),),
    "to_real": _to_real,
    "to_complex": _to_real,
}
"""Functions without an entry (comparisons, sign, stop, …) pass no gradient; `mul` is in `cotangents`."""


def cotangents(builder: Builder, instr: Instr, g: str) -> tuple[str | None, ...]:
    """The cotangent of each argument of `instr`, fitted to the argument's type, given that of its value.

    `Index` and `Stack` are not here: their cotangents are gathered slice by slice in `differentiate`.
    """
    args, y = instr.args, instr.name
    if instr.op == Map("mul"):
        a, b = args
        return _product(builder, g, b, a), _product(builder, g, a, b)
    sym = Sym(builder, g)
    match instr.op:
        case Map(fn):
            if fn not in RULES:
                return (None,) * len(args)
            grads = RULES[fn](sym, Sym(builder, y), *(Sym(builder, a) for a in args))
            return tuple(
                fit(builder, grad.name, builder.types[arg]) if grad else None
                for grad, arg in zip(grads, args, strict=True)
            )
        case Contract(semiring, axes):
            return _contract(builder, semiring, axes, args, y, g)
        case Reduce(fn, axes):
            return (_reduce(builder, fn, axes, args[0], y, g),)
        case Rename(pairs):
            return (builder.add(Rename(tuple((new, old) for old, new in pairs)), g, hint=_d(args[0])),)
        case Broadcast(axes):
            return (builder.reduce("sum", g, axes, hint=_d(args[0])),)
        case Matrix():
            return _matrix_function(builder, instr.op, args, g)
        case _:
            return (None,) * len(args)


def fit(builder: Builder, grad: str, wanted: TensorType) -> str:
    """`grad` brought to a type: summed over the axes it has too many, spread over those it lacks, real if need be."""
    extra = set(builder.types[grad].axes) - set(wanted.axes)
    grad = builder.reduce("sum", grad, extra, hint=grad)
    if builder.types[grad].kind is Kind.COMPLEX and wanted.kind is not Kind.COMPLEX:
        grad = builder.map("real", grad, hint=grad)
    if wanted.kind is Kind.COMPLEX and builder.types[grad].kind is not Kind.COMPLEX:
        grad = builder.map("to_complex", grad, hint=grad)
    return builder.broadcast(grad, wanted.axes, hint=grad)


def _d(name: str) -> str:
    return f"d_{name}"


def _product(builder: Builder, g: str, factor: str, arg: str) -> str:
    """The cotangent g * conj(factor) of `arg`, contracted where both have an axis that `arg` lacks."""
    wanted = builder.types[arg]
    factor = Sym(builder, factor).conj().name
    both = set(builder.types[g].axes) & set(builder.types[factor].axes) - set(wanted.axes)
    product = builder.contract(g, factor, both, hint=_d(arg)) if both else builder.map("mul", g, factor, hint=_d(arg))
    return fit(builder, product, wanted)


def _matrix_function(builder: Builder, op: Matrix, args: tuple[str, ...], g: str) -> tuple[str | None, ...]:
    """<g, Dᵏf(z)[e₁, …]>: by eᵢ it is Dᵏf(zᴴ)[g, the other eᴴ], by z it is Dᵏ⁺¹f(zᴴ)[g, all eᴴ].

    Each term of f's power series is a product of matrices; a trace of one is cyclic in its factors (Higham,
    Functions of Matrices, 2008, chapter 3).
    """
    swap = Rename(((op.rows, op.columns), (op.columns, op.rows)))
    z, *directions = (builder.add(swap, Sym(builder, arg).conj().name, hint=f"{arg}.adjoint") for arg in args)
    found = [builder.add(op, z, g, *directions, hint=_d(args[0]))]
    for i, arg in enumerate(args[1:]):
        found.append(builder.add(op, z, g, *directions[:i], *directions[i + 1 :], hint=_d(arg)))
    return tuple(fit(builder, grad, builder.types[arg]) for grad, arg in zip(found, args, strict=True))


def _contract(
    builder: Builder, semiring: str, axes: tuple[str, ...], args: tuple[str, ...], y: str, g: str
) -> tuple[str | None, ...]:
    a, b = args
    if semiring == "real":
        return _product(builder, g, b, a), _product(builder, g, a, b)
    if semiring == "bool":
        return None, None
    terms = builder.map(SEMIRINGS[semiring].times, a, b, hint="terms")
    grad = _reduce(builder, SEMIRINGS[semiring].reduce, axes, terms, y, g)
    if grad is None:
        return None, None
    return fit(builder, grad, builder.types[a]), fit(builder, grad, builder.types[b])


def _reduce(builder: Builder, fn: str, axes: tuple[str, ...], arg: str, y: str, g: str) -> str | None:
    match fn:
        case "sum":
            return builder.broadcast(g, axes, hint=_d(arg))
        case "max" | "min":
            first = Sym(builder, builder.add(Extremum(fn, axes), arg, hint="first"))
            return Sym(builder, g).where(first).name
        case "logsumexp":
            return (Sym(builder, g) * Sym(builder, arg)("expdiff", Sym(builder, y))).name
        case _:
            return None
