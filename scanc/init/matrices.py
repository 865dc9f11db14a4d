"""HiPPO: systems whose state holds the coefficients of the input's history in an orthonormal basis.

A measure says how much each moment of the past counts. With f_t the history up to time t, the state is
c_n(t) = <f_t, g_n>, the projection onto basis functions g_n that are orthonormal under the measure, and
f_t is close to the sum of c_n g_n. The four measures and their bases, s = t - x being the age of a moment x:

legs    uniform over all of [0, t]; Legendre polynomials. x' = (A x + B u) / t: the time-varying system.
        As a time-invariant system x' = A x + B u it is uniform in the time e^-s: exponentially warped polynomials.
legt    uniform over the last `window`; Legendre polynomials.
lagt    e^-s, as tilted by `alpha` and `beta`; Laguerre polynomials.
fout    uniform over the last `window`; cosines and sines of whole periods.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from scanc_runtime.errors import ArgumentError, did_you_mean
from torch import Tensor

from scanc.init.arguments import count, even, real_dtype, whole, within


class NPLR(NamedTuple):
    """A real system whose matrix is normal plus low rank: A = S - P Pᵀ.

    `S` [N, N] is normal, a multiple of the identity plus an antisymmetric matrix; `P` [N, r] has a column for each
    term of the low rank, r = 1 (two for legt); `B` [N].
    """

    S: Tensor
    P: Tensor
    B: Tensor


class Terms(NamedTuple):
    """A [N, N] and B [N] of a measure; P [N, r], with which A + P Pᵀ is `real` times I plus an antisymmetric matrix."""

    A: Tensor
    B: Tensor
    P: Tensor
    real: float


def hippo(
    measure: str,
    N: int,
    *,
    window: float | None = None,
    alpha: float | None = None,
    beta: float | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """The HiPPO matrices A [N, N] and B [N] of a measure, real, for x' = A x + B u.

    From HiPPO (Gu et al., 2020, arXiv:2008.07669), theorems 1 and 2 and appendices D.1 to D.3, all in orthonormal
    bases, and with the sign of S4 (A is stable); fout from How to Train Your HiPPO (Gu et al., 2022,
    arXiv:2206.12037), S4-FouT. Row n, column k:

    legs    A = -√((2n+1)(2k+1)) for n > k, -(n+1) for n = k, 0 for n < k;  B = √(2n+1).
    legt    A = -√((2n+1)(2k+1)) a / window with a = 1 for n >= k and (-1)^(k-n) for n < k;  B = √(2n+1) / window.
            The Legendre memory unit is the same system in another scaling of its states.
    lagt    A = -(l_k/l_n) a with a = 1 for n > k, (1+beta)/2 for n = k, 0 for n < k;
            B = binom(n+alpha, n) / (l_n √ζ), with l_n² = Γ(n+alpha+1)/n! and ζ = Γ(1-alpha) beta^(alpha-1).
            Its basis is √ζ s^alpha e^(-(1-beta)s/2) L_n(s)/l_n, L_n the Laguerre polynomials of order alpha,
            orthonormal under s^-alpha e^(-beta s)/ζ.
    fout    States in pairs, cos(2πms/window) and sin(2πms/window) for m = 0 … N/2-1: with r the vector of √2 at
            cosines, 1 at the constant, 0 at sines, A = R - (2/window) r rᵀ and B = (2/window) r, where R turns pair m
            at the rate 2πm/window. The sine of frequency 0 is a state that stays 0; without it, this is the
            paper's matrix.

    Args:
        measure: legs, legt, lagt or fout.
        N: number of states; even for fout.
        window: legt, fout: the length of time that is remembered; 1 when silent.
        alpha: lagt: order of the polynomials, in (-1, 1); 0 when silent.
        beta: lagt: rate at which the measure forgets, positive; 1 when silent, which is the measure without tilt.
        dtype: of the result; None is torch's default.

    Raises:
        ArgumentError: an unknown measure, an option that the measure does not have, a size or number out of range.
    """
    dtype = real_dtype(dtype)
    terms = measured(measure, N, {"window": window, "alpha": alpha, "beta": beta})
    return terms.A.to(dtype), terms.B.to(dtype)


def nplr(
    measure: str, N: int, *, window: float | None = None, beta: float | None = None, dtype: torch.dtype | None = None
) -> NPLR:
    """The HiPPO matrices as a normal matrix minus a low rank, A = S - P Pᵀ, real: (S [N, N], P [N, r], B [N]).

    S4 (Gu et al., 2021, arXiv:2111.00396), theorem 1 and appendix C.1. S is c I plus an antisymmetric matrix:

    legs    c = -1/2, P = √(n+1/2); S is HiPPO-N, the normal part.
    legt    c = 0, P two columns: √((2n+1)/window) at even n, and at odd n.
    lagt    c = -beta/2, P = √½; of alpha = 0 only, since other orders scale the states, and S would not be normal.
    fout    c = 0, P = √(2/window) r, r as in `hippo`.

    Arguments and errors are those of `hippo`.
    """
    dtype = real_dtype(dtype)
    A, B, P, real = measured(measure, N, {"window": window, "beta": beta})
    S = real * torch.eye(N, dtype=torch.float64, device="cpu") + (A - A.mT) / 2
    return NPLR(S.to(dtype), P.to(dtype), B.to(dtype))


def measured(measure: str, N: int, options: dict[str, float | None]) -> Terms:
    """The terms of a measure in float64; options that are None take their defaults."""
    if measure not in _BUILDERS:
        allowed = ", ".join(MEASURES)
        raise ArgumentError(
            f"'{measure}' is no measure", expected=f"one of {allowed}", hint=did_you_mean(str(measure), MEASURES)
        )
    whole("N", N)
    build, defaults = _BUILDERS[measure]
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in defaults:
            having = [other for other, (_, known) in _BUILDERS.items() if name in known]
            raise ArgumentError(f"{measure} has no {name}", hint=f"{name} is an option of {', '.join(having)}")
    return build(N, **{**defaults, **given})


def _legs(N: int) -> Terms:
    n = count(N)
    root = (2 * n + 1).sqrt()
    A = -torch.tril(root[:, None] * root, -1) - torch.diag(n + 1)
    return Terms(A, root, root[:, None] / math.sqrt(2), -0.5)


def _legt(N: int, window: float) -> Terms:
    within("window", window, 0, math.inf)
    n = count(N)
    root = (2 * n + 1).sqrt()
    alternating = 1 - 2 * (n % 2)
    signs = torch.tril(torch.ones_like(root[:, None] * root)) + torch.triu(alternating[:, None] * alternating, 1)
    A = -root[:, None] * root * signs / window
    P = torch.stack([root * (n % 2 == 0), root * (n % 2 == 1)], dim=-1) / math.sqrt(window)
    return Terms(A, root / window, P, 0.0)


def _lagt(N: int, alpha: float, beta: float) -> Terms:
    within("alpha", alpha, -1, 1)
    within("beta", beta, 0, math.inf)
    n = count(N)
    ones = torch.ones_like(n)
    log_norm = (torch.lgamma(n + alpha + 1) - torch.lgamma(n + 1)) / 2
    log_zeta = math.lgamma(1 - alpha) + (alpha - 1) * math.log(beta)
    boundary = torch.exp(2 * log_norm - math.lgamma(alpha + 1))  # binom(n + alpha, n), the polynomials at age 0
    scaled = torch.exp(log_norm - log_norm[:, None])
    A = -scaled * torch.tril(torch.ones_like(scaled), -1) - torch.diag(ones) * (1 + beta) / 2
    B = boundary * torch.exp(-log_norm - log_zeta / 2)
    return Terms(A, B, ones[:, None] / math.sqrt(2), -beta / 2)


def _fout(N: int, window: float) -> Terms:
    even(N, "fout has a sine for each cosine")
    within("window", window, 0, math.inf)
    boundary = torch.zeros_like(count(N))  # the basis at age 0
    boundary[::2] = math.sqrt(2)
    boundary[0] = 1
    turns = torch.zeros_like(count(N - 1))
    turns[::2] = count(N // 2) * 2 * math.pi / window
    A = torch.diag(turns, -1) - torch.diag(turns, 1) - (2 / window) * boundary[:, None] * boundary
    return Terms(A, 2 / window * boundary, math.sqrt(2 / window) * boundary[:, None], 0.0)


_BUILDERS: dict[str, tuple[Callable[..., Terms], dict[str, float]]] = {
    "legs": (_legs, {}),
    "legt": (_legt, {"window": 1.0}),
    "lagt": (_lagt, {"alpha": 0.0, "beta": 1.0}),
    "fout": (_fout, {"window": 1.0}),
}

MEASURES = tuple(_BUILDERS)
"""The measures that `hippo`, `nplr` and `dplr` know."""
