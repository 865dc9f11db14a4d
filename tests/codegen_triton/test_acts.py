"""Memories beside vectors, stabilisers and one another, in acts, against the interpreter in fp64."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from codegen_triton.support import DEVICE
from scanc_runtime import recall, walk
from scanc_runtime.recall import forced_recall
from torch import Tensor

import scanc
from scanc.codegen.triton.acts import acts
from scanc.driver import compile_text
from scanc.interpreter import random_arguments

EXAMPLES = Path(__file__).parents[2] / "examples"
SIZES = {"h": 2, "i": 5, "j": 18, "m": 7}
HEAD = "scan s\nbatch h\naxes i, j\ninput q[h,i], k[h,i], v[h,j], f[h], g[h,i]\nparam w[h], b[h]\nstate S[h,i,j]"
STEPS = {
    "smoothed keys": ", c[h,i]\nc = sigmoid(g)*c + k\nS = exp(-f*f)*S + c*v\no = q·S",
    "a delayed key": "\nS = exp(-f*f)*S + (k + w*prev(k, 1))*v\no = q·S",
    "a delayed gate": "\nS = sigmoid(prev(f, 2))*S + k*v\no = q·S",
    "a running maximum": ", m[h] = -inf\nt = max(m - 0.3, f + b)\n"
    "S = exp(m - 0.3 - t)*S + exp(f - t)*k*v\nm = t\no = q·S",
    "a running minimum": ", m[h] = inf\nt = min(m + 0.1, f + b)\nS = exp(-abs(t))*S + k*v\nm = t\no = q·S",
    "a smoothed output": ", e[h,j]\nS = exp(-f*f)*S + k*v\ne = 0.9*e + q·S\no = e",
    "a summed gate": ", c[h]\nc = c*sigmoid(w) + f\nS = exp(-abs(c))*S + k*v\no = q·S*sigmoid(c)",
    "a vector read elementwise": ", z[h,i]\nz = exp(-f*f)*z + k\nS = exp(-f*f)*S + k*v\no = (q*z)·S",
    "decays of rows, normalised": ", z[h,i]\nz = sigmoid(g)*z + softplus(k)\nS = sigmoid(g)*S + softplus(k)*v\n"
    "o = softplus(q)·S / (softplus(q)·z + 1)",
    "decays of all and of rows": "\nS = exp(-f*f)*exp(-g*g)*S + k*v\no = q·S",
    "a key of params": "\nS = exp(-f*f)*S + w*v*softplus(g)\no = (q*b)·S",
}
SPECS = {name: f"{HEAD}{body}\noutput o[h,j]" for name, body in STEPS.items()}
WIDE = HEAD.replace("i, j", "i, j, m", 1).replace("g[h,i]", "g[h,i], x[h,m]") + ", R[h,i,m]\n"
SPECS["memories of different axes"] = (
    f"{WIDE}S = exp(-g*g)*S + k*v\nR = exp(-f*f)*R + k*x\no = q·S\np = q·R\noutput o[h,j], p[h,m]"
)
SPECS |= {
    name: (EXAMPLES / f"{name}.scan").read_text(encoding="utf-8") for name in ("linear_attention", "mlstm", "gsa")
}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "STRETCH", 32)
    monkeypatch.setattr(walk, "_MOST", 16)
    monkeypatch.setenv("SCANC_POISON", "1")


def results(
    operator: scanc.ScanOperator, form: str, dtype: torch.dtype, time: int, **options: bool
) -> Iterator[Tensor]:
    """Outputs, final states, and the gradients of inputs, params and initial states."""
    inputs, params, initial = random_arguments(operator.compiled.typed, batch=2, time=time, sizes=SIZES, seed=1)
    tensors = {n: x.to(DEVICE, dtype).requires_grad_() for n, x in {**inputs, **params}.items()}
    states = {n: x.to(DEVICE, dtype).requires_grad_() for n, x in initial.items()}
    begin = states if options.pop("begins", True) else None
    y, final = operator(**tensors, initial_state=begin, return_state=True, form=form, **options)
    found = [*(y if isinstance(y, tuple) else [y]), *final.values()]
    generator = torch.Generator().manual_seed(2)
    given = [torch.randn(x.shape, generator=generator).to(DEVICE, x.dtype) for x in found]
    yield from found
    leaves = [*tensors.values(), *(states.values() if begin else ())]
    for leaf, gradient in zip(leaves, torch.autograd.grad(found, leaves, given, allow_unused=True), strict=True):
        yield torch.zeros_like(leaf) if gradient is None else gradient


def close(text: str, time: int, segments: int | None = None, **options: bool) -> None:
    operator = scanc.compile(text, target="triton")
    with forced_recall(steps=16, block=16, segments=segments):
        found = list(results(operator, "chunked", torch.float32, time, **options))
    for ours, right in zip(found, results(operator, "interpret", torch.float64, time, **options), strict=True):
        scale = 1 + float(right.abs().max())
        torch.testing.assert_close(ours.double(), right, rtol=1e-4, atol=2e-5 * scale)


@pytest.mark.parametrize("text", SPECS.values(), ids=SPECS.keys())
def test_values_and_gradients(text: str) -> None:
    close(text, 37)
    close(text, 3, begins=False)


@pytest.mark.parametrize("name", ["smoothed keys", "decays of rows, normalised", "mlstm", "gsa"])
def test_backwards_and_in_segments(name: str) -> None:
    close(SPECS[name], 70, 2, reverse=True)


def test_a_module_is_the_same_whatever_was_asked_before() -> None:
    asked, fresh = compile_text(SPECS["mlstm"]), compile_text(SPECS["mlstm"])
    assert asked._recalled is not None
    assert asked.triton_stages == fresh.triton_stages
    assert asked.explain() == fresh.explain()
    assert asked.module_source("triton") == fresh.module_source("triton")
    assert asked.triton_stages == fresh.triton_stages


def test_small_memories_come_first_and_hand_on_numbers_of_each_step() -> None:
    forward, _ = compile_text(SPECS["mlstm"])._recalled or (None, None)
    assert forward is not None
    found = acts(forward)
    assert [act.walked for act in found] == [True, False, False]
    assert [[state.name for state in act.program.states] for act in found] == [["m"], ["n"], ["C"]]
    assert all(len(act.program.types[o.value].axes) == 1 for act in found[:2] for o in act.program.outputs)


@pytest.mark.parametrize(
    "body",
    {
        "a gradient of what is not read": "S = exp(-f*f)*S + k*v\no = q·S\noutput o[h,j]",
        "a gate of a contraction": "a = u·x\nS = exp(-a*a)*S + k*v\no = q·S\noutput o[h,j]",
        "an output": "S = exp(-f*f)*S + k*v\no = q·S\np = f*x\noutput o[h,j], p[h,m]",
    }.items(),
    ids=lambda case: case[0],
)
def test_axes_that_no_memory_has(body: tuple[str, str]) -> None:
    head = HEAD.replace("i, j", "i, j, m", 1).replace("g[h,i]", "g[h,i], x[h,m]").replace("param ", "param u[h,m], ")
    close(f"{head}\n{body[1]}", 37)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("\nS = exp(-f*f)*S + k*v\nm = tanh(m + f)\no = q·S*m", "m, a state beside a memory, is no scan"),
        (
            ", n[h]\nl = m\nm = 0.5*n + f\nn = w*l\nS = exp(-n*n)*S + k*v\no = q·S",
            "states beside memories depend on one",
        ),
    ],
)
def test_what_is_declined_says_why(body: str, reason: str) -> None:
    operator = scanc.compile(f"{HEAD}, m[h]{body}\noutput o[h,j]", target="triton")
    with pytest.raises(scanc.ArgumentError, match=reason):
        list(results(operator, "chunked", torch.float32, 3))


@pytest.mark.parametrize("name", ["launch", "recall", "tlmath", "tlwalk", "WalkTiling"])
def test_a_tensor_may_be_named_as_a_module_is(name: str) -> None:
    text = SPECS["a running maximum"].replace("q[h,i]", f"{name}[h,i]").replace("q·S", f"{name}·S")
    close(text, 3)
