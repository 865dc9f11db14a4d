"""The functions of the language by name."""

from __future__ import annotations

ELEMENTWISE = (
    "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "sigmoid", "logsigmoid", "tanh", "silu", "relu", "gelu",
    "softplus", "sin", "cos", "abs", "sign", "real", "imag", "conj", "complex",
)  # fmt: skip
REDUCTIONS = ("sum", "mean", "max", "min", "norm", "softmax", "logsumexp")
STRUCTURAL = ("where", "stop", "rename", "prev", "conv", "size", "value", "polar", "clamp")
FUNCTIONS = frozenset((*ELEMENTWISE, *REDUCTIONS, *STRUCTURAL))

# what a scan over a semiring may use outside `value(…)`
OVER_SEMIRING = frozenset(("sum", "where", "stop", "rename", "prev", "value"))

RULES: dict[str, tuple[str, ...]] = {
    "zoh": ("step",),
    "bilinear": ("step",),
    "gbt": ("step", "alpha"),
    "euler": ("step",),
    "backward_euler": ("step",),
    "exp_trapezoid": ("step", "lambda"),
    "mamba": ("step",),
    "dirac": ("step",),
    "async": ("step", "dt"),
}
