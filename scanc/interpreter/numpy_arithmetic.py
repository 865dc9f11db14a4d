"""NumPy in float64 and complex128."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from scanc.interpreter.arithmetic import Arithmetic, Array, moved_last
from scanc.ir.nodes import Kind

_DTYPES: dict[Kind, Any] = {
    Kind.BOOL: np.bool_,
    Kind.INT: np.int64,
    Kind.REAL: np.float64,
    Kind.COMPLEX: np.complex128,
}


def _sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1.0 + e)


def _logsigmoid(x: Array) -> Array:
    return np.minimum(x, 0.0) - np.log1p(np.exp(-np.abs(x)))


_erf = np.vectorize(math.erf, otypes=[np.float64])


def _logaddexp(a: Array, b: Array) -> Array:
    high, low = np.maximum(a, b), np.minimum(a, b)
    return np.where(high == -np.inf, -np.inf, high + np.log1p(np.exp(low - high)))


def _expdiff(a: Array, m: Array) -> Array:
    gone = np.isneginf(a)
    return np.where(gone, 0.0, np.exp(np.where(gone, 0.0, a - m)))


def _series(z: Array, coefficients: Sequence[float]) -> Array:
    total = np.zeros_like(z)
    for c in reversed(coefficients):
        total = total * z + c
    return total


def _phi1(z: Array) -> Array:
    far = np.abs(z) >= 1.0
    w = np.where(far, z, 1.0)
    near = _series(np.where(far, 0.0, z), [1.0 / math.factorial(n + 1) for n in range(20)])
    return np.where(far, np.expm1(w) / w, near)


def _dphi1(z: Array) -> Array:
    far = np.abs(z) >= 1.0
    w = np.where(far, z, 1.0)
    near = _series(np.where(far, 0.0, z), [(n + 1) / math.factorial(n + 2) for n in range(20)])
    return np.where(far, (np.exp(w) - np.expm1(w) / w) / w, near)


def _complex(re: Array, im: Array) -> Array:
    out = np.empty(np.broadcast_shapes(re.shape, im.shape), np.complex128)
    out.real, out.imag = re, im
    return out


def _identity(x: Array) -> Array:
    return x


class NumpyArithmetic(Arithmetic):
    """The operations in numpy."""

    functions: ClassVar[Mapping[str, Callable[..., Array]]] = {
        "add": np.add,
        "sub": np.subtract,
        "mul": np.multiply,
        "div": np.divide,
        "pow": np.power,
        "neg": np.negative,
        "abs": np.abs,
        "sign": np.sign,
        "exp": np.exp,
        "exp2": np.exp2,
        "expm1": np.expm1,
        "log": np.log,
        "log1p": np.log1p,
        "phi1": _phi1,
        "dphi1": _dphi1,
        "expdiff": _expdiff,
        "logaddexp": _logaddexp,
        "sqrt": np.sqrt,
        "rsqrt": lambda x: 1.0 / np.sqrt(x),
        "sigmoid": _sigmoid,
        "logsigmoid": _logsigmoid,
        "softplus": lambda x: -_logsigmoid(-x),
        "tanh": np.tanh,
        "silu": lambda x: x * _sigmoid(x),
        "relu": lambda x: np.maximum(x, np.zeros_like(x)),
        "gelu": lambda x: 0.5 * x * (1.0 + _erf(x / math.sqrt(2.0))),
        "erf": _erf,
        "sin": np.sin,
        "cos": np.cos,
        "maximum": np.maximum,
        "minimum": np.minimum,
        "where": np.where,
        "lt": np.less,
        "le": np.less_equal,
        "gt": np.greater,
        "ge": np.greater_equal,
        "eq": np.equal,
        "ne": np.not_equal,
        "and": np.logical_and,
        "or": np.logical_or,
        "not": np.logical_not,
        "complex": _complex,
        "real": np.real,
        "imag": np.imag,
        "conj": np.conj,
        "hypot": np.hypot,
        "atan2": np.arctan2,
        "to_real": _identity,
        "to_complex": _identity,
        "stop": _identity,
    }

    def map(self, fn: str, *args: Array) -> Array:
        with np.errstate(all="ignore"):
            return super().map(fn, *args)

    def array(self, value: Any, kind: Kind) -> Array:
        if np.iscomplexobj(value) and kind is not Kind.COMPLEX:
            raise TypeError(f"a complex array where one of kind {kind} is expected")
        return np.asarray(value).astype(_DTYPES[kind])

    def full(self, shape: Sequence[int], value: Any, kind: Kind) -> Array:
        return np.full(tuple(shape), value, _DTYPES[kind])

    def reduce(self, fn: str, x: Array, dims: Sequence[int]) -> Array:
        axis = tuple(dims)
        match fn:
            case "sum":
                return np.sum(x, axis=axis)
            case "max":
                return np.max(x, axis=axis, initial=-np.inf) if x.size == 0 else np.max(x, axis=axis)
            case "min":
                return np.min(x, axis=axis, initial=np.inf) if x.size == 0 else np.min(x, axis=axis)
            case "any":
                return np.any(x, axis=axis)
            case "all":
                return np.all(x, axis=axis)
            case "logsumexp":
                top = np.max(x, axis=axis, keepdims=True, initial=-np.inf)
                top = np.where(np.isneginf(top), 0.0, top)
                with np.errstate(divide="ignore"):
                    return np.log(np.sum(np.exp(x - top), axis=axis)) + np.squeeze(top, axis)
        raise ValueError(f"no reduction {fn}")

    def extremum(self, fn: str, x: Array, dims: Sequence[int]) -> Array:
        order, inverse = moved_last(x.ndim, dims)
        moved = np.transpose(x, order)
        rows = moved.reshape(*moved.shape[: x.ndim - len(dims)], math.prod(x.shape[d] for d in dims))
        best = np.argmax(rows, axis=-1) if fn == "max" else np.argmin(rows, axis=-1)
        mask = np.arange(rows.shape[-1]) == best[..., None]
        return np.transpose(mask.reshape(moved.shape), inverse)

    def transpose(self, x: Array, order: Sequence[int]) -> Array:
        return np.transpose(x, order)

    def expand(self, x: Array, shape: Sequence[int]) -> Array:
        return np.broadcast_to(x, tuple(shape))

    def stack(self, xs: Sequence[Array], dim: int) -> Array:
        return np.stack(np.broadcast_arrays(*xs), axis=dim)

    def identity(self, n: int) -> Array:
        return np.eye(n)

    def inverse(self, x: Array) -> Array:
        return np.linalg.inv(x)

    def solve(self, a: Array, b: Array) -> Array:
        solution: Array = np.linalg.solve(a, b[..., None])[..., 0]
        return solution
