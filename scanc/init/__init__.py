"""Initial values of state space models: HiPPO and its normal and diagonal parts, S4D, S5, the LRU, steps.

    import scanc

    Lambda = scanc.init.s4d_legs(64)          # [32], complex
    A, B = scanc.init.hippo("legt", 64, window=100.0)

All of them follow one convention: a system is x' = A x + B u, y = C x with A stable, as in S4; the HiPPO paper writes
x' = -A x + B u. `N` is the number of real states. Where A is real and diagonalised, one eigenvalue of each conjugate
pair is kept: N/2 complex states stand for N real ones, and y = 2 Re(C x).

Everything is computed in float64 on the CPU and rounded once. `dtype` is that of real results, or for complex results
either a complex dtype or a real one that stands for it; None is torch's default dtype. Wrong arguments raise
`ArgumentError`, which is a `ValueError`.
"""

from __future__ import annotations

from scanc.init.blocks import S5, s5
from scanc.init.diagonal import s4d_inv, s4d_legs, s4d_lin, s4d_real
from scanc.init.matrices import MEASURES, NPLR, hippo, nplr
from scanc.init.modes import DPLR, dplr
from scanc.init.ring import LRU, lru
from scanc.init.steps import log_step, step_bias

__all__ = [
    "DPLR",
    "LRU",
    "MEASURES",
    "NPLR",
    "S5",
    "dplr",
    "hippo",
    "log_step",
    "lru",
    "nplr",
    "s4d_inv",
    "s4d_legs",
    "s4d_lin",
    "s4d_real",
    "s5",
    "step_bias",
]
