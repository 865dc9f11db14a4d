"""Memories on tensor cores: values and every gradient against fp64, at every layout that sizes and dtypes lead to.

Triton has miscompiled gated kernels on Hopper, so no choice goes unchecked; two runs must be the same to the bit.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

import scanc

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

EXAMPLES = Path(__file__).parents[2] / "examples"
EXAMPLE = ("gla", "rwkv6", "mamba2", "retnet", "linear_attention", "mlstm", "gsa")
GATE = """scan gate
batch h
axes i, j
input q[h,i], k[h,i], v[h,j], g[h]: fp32
state S[h,i,j]
S = exp(g)*S + k*v
o = q · S
output o[h,j]
"""
SPECS = {name: (EXAMPLES / f"{name}.scan").read_text(encoding="utf-8") for name in EXAMPLE}
SPECS |= {"gate": GATE, "linear": GATE.replace(", g[h]: fp32", "").replace("exp(g)*", "")}
SPECS["both sides"] = GATE.replace("g[h]: fp32", "g[h,i], r[h,j]").replace("exp(g)", "exp(-abs(g)/9 - abs(r)/9)")
TOLERANCE = {torch.float32: (2e-6, 1e-5), torch.bfloat16: (6e-3, 1e-2), torch.float16: (6e-3, 1e-2)}
"""Of values and gradients, and of gradients of decays, in the 2-norm."""
DIVIDED = {"linear_attention": 8e-3, "gsa": 8e-3}
"""Of values and gradients in 16 bits, where what is recalled is divided by, or a softmax of it recalls again."""
DECAYS = {"g", "r", "w", "delta", "ig", "fg", "a"}
PARAMS = {"log_A", "bias", "log_gamma"}
"""Params of decays: their gradients are small differences of what is summed over batch and time."""
SHORT = [(333, 3, 64, 64), (200, 2, 128, 128), (150, 2, 256, 256), (100, 2, 48, 200), (90, 1, 256, 32), (33, 2, 5, 20)]
"""Steps, heads, keys, values."""
LONG = (8200, 2, 128, 128)  # shared out between programs


def arguments(name: str, size: tuple[int, ...], dtype: torch.dtype, strong: bool) -> dict[str, Tensor]:
    """Random tensors as models have them; `strong`: one head forgets faster than can be tilted, one at times."""
    time, heads, keys, values = size
    generator = torch.Generator("cuda").manual_seed(1)

    def draw(*dims: int) -> Tensor:
        return torch.randn(2, time, *dims, generator=generator, device="cuda")

    def param(*dims: int) -> Tensor:
        return torch.randn(*dims, generator=generator, device="cuda")

    if name == "mamba2":
        found = {"x": draw(heads, values), "delta": draw(heads), "B": draw(1, keys) / 8, "C": draw(1, keys) / 8}
        found = {key: x.to(dtype) for key, x in found.items()}
        return found | {"log_A": 0.5 * param(heads), "D": param(heads), "bias": param(heads) - 3}
    query = "r" if name == "rwkv6" else "q"
    found = {query: draw(heads, keys) * keys**-0.5, "k": draw(heads, keys), "v": draw(heads, values)}
    found = {key: x.to(dtype) for key, x in found.items()}
    if name == "gla":
        found["g"] = (logsigmoid(draw(heads, keys)) / 16).to(dtype)
    elif name == "gate":
        found["g"] = logsigmoid(draw(heads) + 3)
    elif name == "rwkv6":
        found |= {"w": (draw(heads, keys) - 3).to(dtype), "u": 0.1 * param(heads, keys)}
    elif name == "retnet":
        found["log_gamma"] = logsigmoid(param(heads) + 3)
    elif name == "mlstm":
        found |= {"ig": draw(heads).to(dtype), "fg": (draw(heads) + 3).to(dtype)}
    elif name == "gsa":
        found["a"] = draw(heads, min(64, values)).to(dtype)
    elif name == "both sides":
        found |= {"g": draw(heads, keys).to(dtype), "r": draw(heads, values).to(dtype)}
    if strong and "g" in found:
        found["g"][:, :, 0] *= 500
        found["g"][1, 20:30, -1] = -torch.inf
    return found


def close(name: str, size: tuple[int, ...], dtype: torch.dtype, strong: bool = False) -> None:
    given = {key: x.requires_grad_() for key, x in arguments(name, size, dtype, strong).items()}
    wide = {key: x.detach().double().requires_grad_() for key, x in given.items()}
    wanted = scanc.compile(SPECS[name], target="torch")(**wide, form="chunked")
    cotangent = torch.randn(wanted.shape, device="cuda").to(dtype)
    expected = [wanted, *torch.autograd.grad(wanted, list(wide.values()), cotangent.double())]
    operator = scanc.compile(SPECS[name], target="triton")
    runs = []
    for _ in range(2):
        value = operator(**given, form="chunked")
        runs.append([value, *torch.autograd.grad(value, list(given.values()), cotangent.to(value.dtype))])
    for key, once, again, right in zip(["", *given], *runs, expected, strict=True):
        assert torch.equal(once, again), key
        error = float((once.double() - right).norm() / right.norm())
        bound = TOLERANCE[dtype][key in DECAYS and name != "linear"]
        if dtype != torch.float32 and key not in DECAYS:
            bound = DIVIDED.get(name, bound)
        if key in PARAMS:
            bound = 1e-3 if dtype == torch.float32 else 2e-2
        assert error < bound, (key, error)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("size", SHORT, ids=str)
@pytest.mark.parametrize("name", SPECS)
def test_sizes(name: str, size: tuple[int, ...], dtype: torch.dtype) -> None:
    close(name, size, dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("name", SPECS)
def test_few_long_sequences(name: str, dtype: torch.dtype) -> None:
    close(name, LONG, dtype)


@pytest.mark.parametrize("size", [SHORT[0], LONG], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["gla", "gate", "both sides"])
def test_decays_that_leave_nothing(name: str, dtype: torch.dtype, size: tuple[int, ...]) -> None:
    close(name, size, dtype, strong=True)
