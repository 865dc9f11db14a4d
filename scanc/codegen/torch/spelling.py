"""How the functions of the IR are spelled in torch.

`VALUES` serves code that runs without gradients; `SMOOTH` code that torch differentiates, where torch's own
gradient is not the one that a spec means.  `NUMBERS` replaces an entry where a Python number stands among the
arguments, `COMPLEX` where a complex tensor does.
"""

from __future__ import annotations

from collections.abc import Mapping

from scanc.codegen.expressions import ARITHMETIC, Call, Infix, Level, Spelling, Suffix
from scanc.ir.nodes import Kind


def identity(fn: str, argument: Kind, result: Kind) -> bool:
    """Whether a function leaves values of the argument's kind as they are."""
    return (fn in ("to_real", "to_complex", "real") and argument is result) or (
        fn == "conj" and argument is not Kind.COMPLEX
    )


VALUES: Mapping[str, Spelling] = {
    **ARITHMETIC,
    "pow": Infix("**", Level.POWER),
    "abs": Call("torch.abs"),
    "sign": Call("torch.sign"),
    "exp": Call("torch.exp"),
    "exp2": Call("torch.exp2"),
    "expm1": Call("torch.expm1"),
    "log": Call("torch.log"),
    "log1p": Call("torch.log1p"),
    "phi1": Call("functions.phi1"),
    "dphi1": Call("functions.dphi1"),
    "expdiff": Call("functions.expdiff"),
    "logaddexp": Call("torch.logaddexp"),
    "sqrt": Call("torch.sqrt"),
    "rsqrt": Call("torch.rsqrt"),
    "sigmoid": Call("torch.sigmoid"),
    "logsigmoid": Call("torch.nn.functional.logsigmoid"),
    "softplus": Call("functions.softplus"),
    "tanh": Call("torch.tanh"),
    "silu": Call("torch.nn.functional.silu"),
    "relu": Call("torch.nn.functional.relu"),
    "gelu": Call("torch.nn.functional.gelu"),
    "erf": Call("torch.erf"),
    "sin": Call("torch.sin"),
    "cos": Call("torch.cos"),
    "maximum": Call("torch.maximum"),
    "minimum": Call("torch.minimum"),
    "where": Call("torch.where"),
    "complex": Call("torch.complex"),
    "real": Suffix(".real"),
    "imag": Suffix(".imag"),
    "conj": Suffix(".conj_physical()"),
}

SMOOTH: Mapping[str, Spelling] = {
    **VALUES,
    "logaddexp": Call("functions.logaddexp"),
    "sqrt": Call("functions.sqrt"),
    "stop": Suffix(".detach()"),
}

NUMBERS: Mapping[str, Spelling] = {
    "logaddexp": Call("functions.logaddexp"),
    "maximum": Call("functions.maximum"),
    "minimum": Call("functions.minimum"),
    "complex": Call("functions.join"),
    "pow": Call("functions.power"),
}

COMPLEX: Mapping[str, Spelling] = {"expm1": Call("functions.expm1")}

REDUCTIONS: Mapping[str, str] = {
    "sum": "{x}.sum({dims})",
    "max": "functions.highest({x}, {tuple})",
    "min": "functions.lowest({x}, {tuple})",
    "logsumexp": "torch.logsumexp({x}, {dims})",
    "any": "{x}.any({dims})",
    "all": "{x}.all({dims})",
}

SMOOTH_REDUCTIONS: Mapping[str, str] = {
    **REDUCTIONS,
    "max": "functions.largest({x}, {tuple})",
    "min": "functions.smallest({x}, {tuple})",
    "logsumexp": "functions.logsumexp({x}, {tuple})",
}
