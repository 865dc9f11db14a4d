"""Differentiable torch operations whose values and gradients have the limits that `functions.TABLE` names."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from scanc.interpreter.arithmetic import Arithmetic, Array, moved_last
from scanc.ir.nodes import Kind

Tensor = torch.Tensor


class _BoundedSqrt(torch.autograd.Function):
    """√x with the gradient g / √max(4x, 1e-6), which is what RG-LRU's √(1 - a²) needs at a = 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.sqrt(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grads[0] * torch.rsqrt(torch.clamp_min(4 * x, 1e-6))


def _broadcast(*xs: Tensor) -> Sequence[Tensor]:
    together: Sequence[Tensor] = torch.broadcast_tensors(*xs)  # type: ignore[no-untyped-call]
    return together


def _sqrt(x: Tensor) -> Tensor:
    if x.is_complex():
        return torch.sqrt(x)
    root: Tensor = _BoundedSqrt.apply(x)  # type: ignore[no-untyped-call]
    return root


def _expm1(z: Tensor) -> Tensor:
    if not z.is_complex():
        return torch.expm1(z)
    x, y = z.real, z.imag
    re = torch.expm1(x) * torch.cos(y) - 2 * torch.sin(y / 2) ** 2
    return torch.complex(re, torch.exp(x) * torch.sin(y))


def _series(z: Tensor, coefficients: Sequence[float]) -> Tensor:
    total = torch.zeros_like(z)
    for c in reversed(coefficients):
        total = total * z + c
    return total


def _near_and_far(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where |z| >= 1, `z` with those places at 0, and `z` with all other places at 1."""
    far = z.detach().abs() >= 1
    return far, torch.where(far, torch.zeros_like(z), z), torch.where(far, z, torch.ones_like(z))


def _phi1(z: Tensor) -> Tensor:
    far, small, large = _near_and_far(z)
    near = _series(small, [1.0 / math.factorial(n + 1) for n in range(22)])
    return torch.where(far, _expm1(large) / large, near)


def _dphi1(z: Tensor) -> Tensor:
    far, small, large = _near_and_far(z)
    near = _series(small, [(n + 1) / math.factorial(n + 2) for n in range(22)])
    return torch.where(far, (torch.exp(large) - _expm1(large) / large) / large, near)


def _expdiff(a: Tensor, m: Tensor) -> Tensor:
    a, m = _broadcast(a, m)
    gone = torch.isneginf(a)
    zero = torch.zeros_like(a)
    return torch.where(gone, zero, torch.exp(torch.where(gone, zero, a) - torch.where(gone, zero, m)))


def _logaddexp(a: Tensor, b: Tensor) -> Tensor:
    a, b = _broadcast(a, b)
    gone = torch.isinf(a) & (a == b)
    limit, zero = a.detach(), torch.zeros_like(a)
    a, b = torch.where(gone, zero, a), torch.where(gone, zero, b)
    high, low = torch.where(a < b, b, a), torch.where(a < b, a, b)
    total = high + torch.log1p(torch.exp(low - high))  # torch.logaddexp: one -inf makes its second derivative nan
    return torch.where(gone, limit, total)


def _logsumexp(x: Tensor) -> Tensor:
    """Over the last dimension; a row of -inf gives -inf and passes no gradient."""
    if x.shape[-1] == 0:
        return x.new_full(x.shape[:-1], -math.inf)
    top = x.detach().amax(-1)
    top = torch.where(torch.isneginf(top), torch.zeros_like(top), top)
    total = torch.exp(x - top[..., None]).sum(-1)
    gone = total == 0
    logarithm = torch.log(torch.where(gone, torch.ones_like(total), total)) + top
    return torch.where(gone, torch.full_like(total, -math.inf), logarithm)


def _real(z: Tensor) -> Tensor:
    return z.real if z.is_complex() else z


def _imag(z: Tensor) -> Tensor:
    return z.imag if z.is_complex() else torch.zeros_like(z)


def _complex(re: Tensor, im: Tensor) -> Tensor:
    return torch.complex(*_broadcast(re, im))


def _away_from_zero(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where (a, b) is zero, and a, b with those places moved to (0, 1) so that no gradient is 0/0 there."""
    a, b = _broadcast(a, b)
    zero = (a == 0) & (b == 0)
    return zero, torch.where(zero, torch.zeros_like(a), a), torch.where(zero, torch.ones_like(b), b)


def _hypot(a: Tensor, b: Tensor) -> Tensor:
    zero, a, b = _away_from_zero(a, b)
    return torch.where(zero, torch.zeros_like(a), torch.hypot(a, b))


def _atan2(a: Tensor, b: Tensor) -> Tensor:
    zero, a, b = _away_from_zero(a, b)
    return torch.where(zero, torch.zeros_like(a), torch.atan2(a, b))


def _identity(x: Tensor) -> Tensor:
    return x


class TorchArithmetic(Arithmetic):
    """`dtype` is that of reals: float32 or float64."""

    functions: ClassVar[Mapping[str, Callable[..., Array]]] = {
        "add": torch.add,
        "sub": torch.sub,
        "mul": torch.mul,
        "div": torch.div,
        "pow": torch.pow,
        "neg": torch.neg,
        "abs": torch.abs,
        "sign": torch.sign,
        "exp": torch.exp,
        "exp2": torch.exp2,
        "expm1": _expm1,
        "log": torch.log,
        "log1p": torch.log1p,
        "phi1": _phi1,
        "dphi1": _dphi1,
        "expdiff": _expdiff,
        "logaddexp": _logaddexp,
        "sqrt": _sqrt,
        "rsqrt": torch.rsqrt,
        "sigmoid": torch.sigmoid,
        "logsigmoid": F.logsigmoid,
        "softplus": lambda x: F.softplus(x, threshold=60),
        "tanh": torch.tanh,
        "silu": F.silu,
        "relu": torch.relu,
        "gelu": F.gelu,
        "erf": torch.erf,
        "sin": torch.sin,
        "cos": torch.cos,
        "maximum": torch.maximum,
        "minimum": torch.minimum,
        "where": torch.where,
        "lt": torch.lt,
        "le": torch.le,
        "gt": torch.gt,
        "ge": torch.ge,
        "eq": torch.eq,
        "ne": torch.ne,
        "and": torch.logical_and,
        "or": torch.logical_or,
        "not": torch.logical_not,
        "complex": _complex,
        "real": _real,
        "imag": _imag,
        "conj": torch.conj_physical,
        "hypot": _hypot,
        "atan2": _atan2,
        "to_real": _identity,
        "to_complex": _identity,
        "stop": torch.Tensor.detach,
    }

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self.device = device
        self.dtypes = {
            Kind.BOOL: torch.bool,
            Kind.INT: torch.int64,
            Kind.REAL: dtype,
            Kind.COMPLEX: dtype.to_complex(),
        }

    def array(self, value: Any, kind: Kind) -> Array:
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(value)
        if isinstance(value, Tensor):
            if value.is_complex() and kind is not Kind.COMPLEX:
                raise TypeError(f"a complex tensor where one of kind {kind} is expected")
            return value.to(self.device, self.dtypes[kind])
        return torch.tensor(value, dtype=self.dtypes[kind], device=self.device)

    def full(self, shape: Sequence[int], value: Any, kind: Kind) -> Array:
        return torch.full(tuple(shape), value, dtype=self.dtypes[kind], device=self.device)

    def reduce(self, fn: str, x: Array, dims: Sequence[int]) -> Array:
        order, _ = moved_last(x.dim(), dims)
        rows = x.permute(order).flatten(x.dim() - len(dims))
        match fn:
            case "sum":
                return rows.sum(-1, dtype=x.dtype)
            case "max" | "min":
                if rows.shape[-1] == 0:
                    return x.new_full(rows.shape[:-1], -math.inf if fn == "max" else math.inf)
                best = rows.max(-1) if fn == "max" else rows.min(-1)
                return torch.gather(rows, -1, best.indices[..., None])[..., 0]
            case "logsumexp":
                return _logsumexp(rows)
            case "any":
                return rows.any(-1)
            case "all":
                return rows.all(-1)
        raise ValueError(f"no reduction {fn}")

    def extremum(self, fn: str, x: Array, dims: Sequence[int]) -> Array:
        order, inverse = moved_last(x.dim(), dims)
        moved = x.detach().permute(order)
        rows = moved.flatten(x.dim() - len(dims))
        best = rows.max(-1).indices if fn == "max" else rows.min(-1).indices
        mask = torch.arange(rows.shape[-1], device=x.device) == best[..., None]
        return mask.reshape(moved.shape).permute(inverse)

    def transpose(self, x: Array, order: Sequence[int]) -> Array:
        return x.permute(tuple(order))

    def expand(self, x: Array, shape: Sequence[int]) -> Array:
        return x.expand(tuple(shape))

    def stack(self, xs: Sequence[Array], dim: int) -> Array:
        return torch.stack(list(_broadcast(*xs)), dim)

    def identity(self, n: int) -> Array:
        return torch.eye(n, dtype=self.dtypes[Kind.REAL], device=self.device)

    def inverse(self, x: Array) -> Array:
        return torch.linalg.inv(x)

    def solve(self, a: Array, b: Array) -> Array:
        return torch.linalg.solve(a, b.unsqueeze(-1)).squeeze(-1)
