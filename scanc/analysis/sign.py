"""The interval lattice: between which bounds a value lies, whatever the inputs are.

It proves what the forms of a recurrence want to know of a decay: that `log a` is never positive,
that |a| ≤ 1, or that growth is possible.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from scanc.ir.nodes import (
    Broadcast,
    Const,
    Contract,
    Index,
    Instr,
    Kind,
    Map,
    Reduce,
    Rename,
    Size,
    Stack,
    TensorType,
)

_INF = math.inf


@dataclass(frozen=True)
class Interval:
    """Real values between `low` and `high`, both included."""

    low: float = -_INF
    high: float = _INF

    def __contains__(self, other: object) -> bool:
        return isinstance(other, Interval) and self.low <= other.low and other.high <= self.high


ANY = Interval()
UNIT = Interval(0.0, 1.0)


@dataclass(frozen=True)
class Bounds:
    """`real` bounds the value, or the real part of a complex one; `size` bounds its absolute value."""

    real: Interval = ANY
    size: Interval = Interval(0.0, _INF)


def bounds(
    instrs: Iterable[Instr], types: Mapping[str, TensorType], given: Mapping[str, Bounds] | None = None
) -> dict[str, Bounds]:
    """What is known of every value, `given` that which was known before; a name that is absent may be anything."""
    known = dict(given or {})
    defs: dict[str, Instr] = {}
    for instr in instrs:
        defs[instr.name] = instr
        args = [known.get(arg) or _unknown(types[arg]) for arg in instr.args]
        known[instr.name] = _bounds(instr, args, [types[arg] for arg in instr.args])
        radius = _radius(instr, defs)
        if radius is not None:
            size = (known.get(radius) or _unknown(types[radius])).size
            known[instr.name] = Bounds(Interval(-size.high, size.high), size)
    return known


def _radius(instr: Instr, defs: Mapping[str, Instr]) -> str | None:
    """r where the instruction is `complex(r cos t, r sin t)`: what its absolute value is."""
    if instr.op != Map("complex"):
        return None
    parts = [defs.get(arg) for arg in instr.args]
    if any(part is None or part.op != Map("mul") for part in parts):
        return None
    (r, cos), (s, sin) = (part.args for part in parts if part is not None)
    turned = [defs.get(arg) for arg in (cos, sin)]
    if r != s or [part.op if part else None for part in turned] != [Map("cos"), Map("sin")]:
        return None
    return r if len({part.args for part in turned if part is not None}) == 1 else None


def _unknown(type_: TensorType) -> Bounds:
    return _of(UNIT) if type_.kind is Kind.BOOL else Bounds()


def _of(real: Interval) -> Bounds:
    return Bounds(real, _abs(real))


def _bounds(instr: Instr, args: list[Bounds], types: list[TensorType]) -> Bounds:
    match instr.op:
        case Const(value):
            if isinstance(value, complex):
                return Bounds(Interval(value.real, value.real), Interval(abs(value), abs(value)))
            return _of(Interval(float(value), float(value)))
        case Size():
            return _of(Interval(0.0, _INF))
        case Rename() | Broadcast() | Index():
            return args[0]
        case Stack():
            return Bounds(_hull(*(a.real for a in args)), _hull(*(a.size for a in args)))
        case Reduce("max" | "min", _):
            return args[0]
        case Reduce("sum", _):
            return _of(_signs(args[0].real))
        case Contract("real", _) if instr.type.kind is not Kind.COMPLEX:
            return _of(_signs(_mul(args[0].real, args[1].real)))
        case Map(fn) if any(t.kind is Kind.COMPLEX for t in types) or fn == "complex":
            return _complex(fn, args, types)
        case Map("maximum" | "minimum" as fn):
            pick: Callable[..., float] = max if fn == "maximum" else min
            a, b = args[0].real, args[1].real
            return _of(Interval(pick(a.low, b.low), pick(a.high, b.high)))
        case Map("where"):
            return _of(_hull(args[1].real, args[2].real))
        case Map("mul") if instr.args[0] == instr.args[1]:
            return _of(_mul(args[0].size, args[0].size))
        case Map(fn) if fn in _RULES:
            return _of(_RULES[fn](*(a.real for a in args)))
        case _:
            return _unknown(instr.type)


def _complex(fn: str, args: list[Bounds], types: list[TensorType]) -> Bounds:
    """Functions of complex values: by absolute value, and by the real part where that is known."""
    match fn:
        case "complex":
            re, im = args[0].size, args[1].size
            return Bounds(args[0].real, Interval(max(re.low, im.low), math.hypot(re.high, im.high)))
        case "exp":
            size = _exp(args[0].real)
            return Bounds(Interval(-size.high, size.high), size)
        case "mul":
            size = _mul(args[0].size, args[1].size)
            mixed = any(t.kind is not Kind.COMPLEX for t in types)
            return Bounds(_mul(args[0].real, args[1].real) if mixed else Interval(-size.high, size.high), size)
        case "add" | "sub":
            real = _RULES[fn](args[0].real, args[1].real)
            return Bounds(real, Interval(0.0, args[0].size.high + args[1].size.high))
        case "neg":
            return Bounds(_neg(args[0].real), args[0].size)
        case "conj" | "stop" | "to_complex":
            return args[0]
        case "real":
            return _of(args[0].real)
        case "imag":
            return _of(Interval(-args[0].size.high, args[0].size.high))
        case "abs":
            return _of(args[0].size)
        case "where":
            return Bounds(_hull(args[1].real, args[2].real), _hull(args[1].size, args[2].size))
        case _:
            return Bounds()


# --- interval arithmetic; 0 * inf is 0, since infinite ends only stand for "unbounded" ---


def _times(a: float, b: float) -> float:
    return 0.0 if a == 0 or b == 0 else a * b


def _mul(a: Interval, b: Interval) -> Interval:
    ends = [_times(x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
    return Interval(min(ends), max(ends))


def _div(a: Interval, b: Interval) -> Interval:
    if b.low <= 0 <= b.high:
        return _signs(a) if b.low == 0 else _neg(_signs(a)) if b.high == 0 else ANY
    return _mul(a, Interval(1 / b.high, 1 / b.low))


def _add(a: Interval, b: Interval) -> Interval:
    return Interval(a.low + b.low, a.high + b.high)


def _neg(a: Interval) -> Interval:
    return Interval(-a.high, -a.low)


def _abs(a: Interval) -> Interval:
    low = 0.0 if a.low <= 0 <= a.high else min(abs(a.low), abs(a.high))
    return Interval(low, max(abs(a.low), abs(a.high)))


def _hull(*parts: Interval) -> Interval:
    return Interval(min(p.low for p in parts), max(p.high for p in parts))


def _signs(a: Interval) -> Interval:
    """What remains of an interval when values of it are added up."""
    return Interval(0.0 if a.low >= 0 else -_INF, 0.0 if a.high <= 0 else _INF)


def _rising(fn: Callable[[float], float]) -> Callable[[Interval], Interval]:
    return lambda a: Interval(fn(a.low), fn(a.high))


def _exp_at(x: float) -> float:
    return math.exp(x) if x < 700 else _INF


def _sigmoid_at(x: float) -> float:
    return 1 / (1 + _exp_at(-x))


def _softplus_at(x: float) -> float:
    return x if x > 700 else math.log1p(_exp_at(x))


def _sqrt_at(x: float) -> float:
    return math.sqrt(max(x, 0.0))


def _log_at(x: float) -> float:
    return math.log(x) if x > 0 else -_INF


_exp = _rising(_exp_at)

_RULES: dict[str, Callable[..., Interval]] = {
    "add": _add,
    "sub": lambda a, b: _add(a, _neg(b)),
    "mul": _mul,
    "div": _div,
    "neg": _neg,
    "abs": _abs,
    "sign": lambda a: Interval(-1.0 if a.low < 0 else 0.0, 1.0 if a.high > 0 else 0.0),
    "exp": _exp,
    "expm1": _rising(lambda x: math.expm1(x) if x < 700 else _INF),
    "log": _rising(_log_at),
    "log1p": _rising(lambda x: _log_at(1 + x)),
    "phi1": lambda a: Interval(1.0 if a.low >= 0 else 0.0, 1.0 if a.high <= 0 else _INF),
    "expdiff": lambda a, m: _exp(_add(a, _neg(m))) if a.high < _INF and m.low > -_INF else Interval(0.0, _INF),
    "logaddexp": lambda a, b: Interval(max(a.low, b.low), max(a.high, b.high) + math.log(2)),
    "sqrt": _rising(_sqrt_at),
    "rsqrt": lambda a: Interval(0.0, _INF),
    "sigmoid": _rising(_sigmoid_at),
    "logsigmoid": lambda a: Interval(-_softplus_at(-a.low), -_softplus_at(-a.high)),
    "softplus": _rising(_softplus_at),
    "tanh": _rising(math.tanh),
    "relu": _rising(lambda x: max(x, 0.0)),
    "silu": lambda a: Interval(0.0 if a.low >= 0 else -0.2785, max(a.high, 0.0)),
    "gelu": lambda a: Interval(0.0 if a.low >= 0 else -0.17, max(a.high, 0.0)),
    "erf": _rising(math.erf),
    "sin": lambda a: Interval(-1.0, 1.0),
    "cos": lambda a: Interval(-1.0, 1.0),
    "stop": lambda a: a,
    "real": lambda a: a,
    "conj": lambda a: a,
    "to_real": lambda a: a,
    "to_complex": lambda a: a,
}
