"""Functions that torch lacks, or whose torch gradient is not the one that a spec means.

Every one is made of differentiable torch operations, so derivatives of any order exist, and each has the
limits that a recurrence needs: no `nan` where a limit exists (see `docs/language.md`, functions).
Arguments may be numbers where a tensor stands beside them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from scanc_runtime.matrices import matrix_exp as matrix_exp
from scanc_runtime.matrices import matrix_inverse as matrix_inverse
from scanc_runtime.matrices import matrix_phi1 as matrix_phi1

Dims = Sequence[int]
_NEAR = 1.0  # below this modulus phi1 and dphi1 are summed as series
_TERMS = 22


def sqrt(x: Tensor) -> Tensor:
    """√x with the gradient 1 / √max(4x, 1e-6), bounded at 0 (De et al., 2024, appendix A)."""
    if x.is_complex():
        return torch.sqrt(x)
    large = x >= 2.5e-7
    fixed = x.detach()
    near = torch.sqrt(torch.where(large, torch.zeros_like(fixed), fixed)) + 1e3 * (x - fixed)
    return torch.where(large, torch.sqrt(torch.where(large, x, torch.ones_like(x))), near)


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp x), for every x."""
    return -torch.nn.functional.logsigmoid(-x)


def expm1(z: Tensor) -> Tensor:
    """exp(z) - 1 without cancellation, also for complex z."""
    if not z.is_complex():
        return torch.expm1(z)
    x, y = z.real, z.imag
    real = torch.expm1(x) * torch.cos(y) - 2 * torch.sin(y / 2) ** 2
    return torch.complex(real, torch.exp(x) * torch.sin(y))


def phi1(z: Tensor) -> Tensor:
    """expm1(z) / z, 1 at 0."""
    far, small, large = _near_and_far(z)
    near = _series(small, [1 / math.factorial(n + 1) for n in range(_TERMS)])
    return torch.where(far, expm1(large) / large, near)


def dphi1(z: Tensor) -> Tensor:
    """The derivative of phi1."""
    far, small, large = _near_and_far(z)
    near = _series(small, [(n + 1) / math.factorial(n + 2) for n in range(_TERMS)])
    return torch.where(far, (torch.exp(large) - expm1(large) / large) / large, near)


def _near_and_far(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where |z| is large, z with those places at 0, and z with all others at 1."""
    far = z.detach().abs() >= _NEAR
    return far, torch.where(far, torch.zeros_like(z), z), torch.where(far, z, torch.ones_like(z))


def _series(z: Tensor, coefficients: Sequence[float]) -> Tensor:
    total = torch.full_like(z, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * z + coefficient
    return total


def expdiff(a: Tensor | float, m: Tensor | float) -> Tensor:
    """exp(a - m), and 0 wherever a is -inf."""
    a, m = _pair(a, m)
    gone = a == -math.inf
    return torch.where(gone, 0.0, torch.exp(torch.where(gone, 0.0, a) - torch.where(gone, 0.0, m)))


def logaddexp(a: Tensor | float, b: Tensor | float) -> Tensor:
    """log(exp a + exp b); where both are -inf, -inf with gradient 0.

    The second derivative of torch's own is no number where one of the two is -inf.
    """
    a, b = _pair(a, b)
    fixed = a.detach()
    gone = torch.isinf(fixed) & (fixed == b)
    a, b = torch.where(gone, 0.0, a), torch.where(gone, 0.0, b)
    first = a >= b
    high, low = torch.where(first, a, b), torch.where(first, b, a)
    return torch.where(gone, fixed, high + softplus(low - high))


def maximum(a: Tensor | float, b: Tensor | float) -> Tensor:
    """The larger one; a tie splits the gradient."""
    return torch.maximum(*_pair(a, b))


def minimum(a: Tensor | float, b: Tensor | float) -> Tensor:
    """The smaller one; a tie splits the gradient."""
    return torch.minimum(*_pair(a, b))


def power(a: Tensor | float, b: Tensor | float) -> Tensor:
    """a ^ b."""
    return torch.pow(*_pair(a, b))


def join(re: Tensor | float, im: Tensor | float) -> Tensor:
    """re + i im."""
    parts = torch.broadcast_tensors(*_pair(re, im))  # type: ignore[no-untyped-call]
    return torch.complex(*parts)


def _pair(a: Tensor | float, b: Tensor | float) -> tuple[Tensor, Tensor]:
    """Both as tensors of the tensor's dtype."""
    if not isinstance(a, Tensor):
        assert isinstance(b, Tensor)
        return torch.full((), a, dtype=b.dtype, device=b.device), b
    if not isinstance(b, Tensor):
        return a, torch.full((), b, dtype=a.dtype, device=a.device)
    return a, b


# --- reductions: over several dimensions at once, the gradient of a tie to the lowest index ---------------


def highest(x: Tensor, dims: Dims) -> Tensor:
    """`largest` where no gradient is taken."""
    return x.amax(tuple(dims)) if x.numel() else largest(x, dims)


def lowest(x: Tensor, dims: Dims) -> Tensor:
    """`smallest` where no gradient is taken."""
    return x.amin(tuple(dims)) if x.numel() else smallest(x, dims)


def largest(x: Tensor, dims: Dims) -> Tensor:
    """The maximum over `dims`; -inf of nothing."""
    rows = _rows(x, dims)
    if not rows.shape[-1]:
        return rows.new_full(rows.shape[:-1], -math.inf)
    return torch.gather(rows, -1, rows.detach().argmax(-1, keepdim=True)).squeeze(-1)


def smallest(x: Tensor, dims: Dims) -> Tensor:
    """The minimum over `dims`; inf of nothing."""
    rows = _rows(x, dims)
    if not rows.shape[-1]:
        return rows.new_full(rows.shape[:-1], math.inf)
    return torch.gather(rows, -1, rows.detach().argmin(-1, keepdim=True)).squeeze(-1)


def logsumexp(x: Tensor, dims: Dims) -> Tensor:
    """log Σ exp x over `dims`; a row of -inf gives -inf and passes no gradient."""
    rows = _rows(x, dims)
    if not rows.shape[-1]:
        return rows.new_full(rows.shape[:-1], -math.inf)
    top = rows.detach().amax(-1)
    top = torch.where(top == -math.inf, 0.0, top)
    total = torch.exp(rows - top[..., None]).sum(-1)
    gone = total == 0
    return torch.where(gone, -math.inf, torch.log(torch.where(gone, 1.0, total)) + top)


def is_first_max(x: Tensor, dims: Dims) -> Tensor:
    """True at the lowest index of the maximum over `dims`, False elsewhere."""
    return _mark(x, dims, torch.Tensor.argmax)


def is_first_min(x: Tensor, dims: Dims) -> Tensor:
    """True at the lowest index of the minimum over `dims`, False elsewhere."""
    return _mark(x, dims, torch.Tensor.argmin)


def _last(x: Tensor, dims: Dims) -> tuple[list[int], int]:
    """The order of dimensions that puts `dims` last, and how many others there are."""
    gone = [dim % x.dim() for dim in dims]
    rest = [dim for dim in range(x.dim()) if dim not in gone]
    return rest + gone, len(rest)


def _rows(x: Tensor, dims: Dims) -> Tensor:
    order, rest = _last(x, dims)
    return x.permute(order).flatten(rest)


def _mark(x: Tensor, dims: Dims, best: Callable[[Tensor, int], Tensor]) -> Tensor:
    order, _ = _last(x, dims)
    moved = x.permute(order)
    rows = _rows(x.detach(), dims)
    if not rows.shape[-1]:
        return torch.zeros_like(x, dtype=torch.bool)
    mask = torch.arange(rows.shape[-1], device=x.device) == best(rows, -1)[..., None]
    return mask.reshape(moved.shape).permute([order.index(dim) for dim in range(x.dim())])
