"""Random specs with a matrix as state, in products of queries, keys and values, against the interpreter in fp64."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from codegen_triton.support import DEVICE
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scanc_runtime import recall
from scanc_runtime.recall import forced_recall
from torch import Tensor

import scanc

SIZES = {"h": 2, "g": 1, "r": 2}
TENSORS = {"q": "i", "k": "i", "v": "j", "s": "", "a": "", "b": "i", "c": "j", "z": "j"}
PARAMS = {"u": "i", "w": "", "D": ""}
DECAYS = [
    "", "exp(-a*a)*", "sigmoid(a)*", "exp(-s*s - a*a)*", "exp(-abs(w))*", "exp(-abs(b))*", "exp(-exp(b - 1))*",
    "sigmoid(b)*", "exp(-abs(c))*", "exp(-abs(b) - abs(c))*",
]  # fmt: skip
KEYS = ["k", "softplus(k)", "-k", "k*s", "k*u", "sigmoid(k)*s"]
QUERIES = ["q", "tanh(q)", "q*s", "q*u"]
VALUES = ["v", "silu(v)", "v*z", "s*v"]
BEHIND = ["", "*sigmoid(z)", " + D*v", " + w"]


@st.composite
def texts(draw: st.DrawFn) -> str:
    """A spec: any key, query, value and decay, read behind the step, before it, or with a bonus; heads in groups."""
    key, query, value = (draw(st.sampled_from(choices)) for choices in (KEYS, QUERIES, VALUES))
    decay, behind = draw(st.sampled_from(DECAYS)), draw(st.sampled_from(BEHIND))
    groups = draw(st.booleans())
    heads = "g, r" if groups else "h"
    shared = draw(st.sampled_from(["", "k", "qk"])) if groups else ""
    step = f"S = {decay}S + ({key})*({value})"
    bonus = f" + u*({key})*({value})" if draw(st.booleans()) else ""
    read = f"o = (({query}) · (S{bonus})){behind}"
    body = [step, read] if draw(st.booleans()) and not bonus else [read, step]
    names = {*re.findall(r"\b[a-zA-Z]\b", " ".join(body))}
    inputs = ", ".join(
        f"{name}[{', '.join(filter(None, ('g' if name in shared else heads, own)))}]"
        for name, own in TENSORS.items()
        if name in names
    )
    params = ", ".join(
        f"{name}[{', '.join(filter(None, (heads, own)))}]" for name, own in PARAMS.items() if name in names
    )
    head = ["scan s", f"batch {heads}", "axes i, j", f"input {inputs}", *([f"param {params}"] if params else [])]
    return "\n".join([*head, f"state S[{heads}, i, j]", *body, f"output o[{heads}, j]"])


@pytest.fixture(autouse=True, scope="module")
def short_stretches() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recall, "STRETCH", 32)
        yield


@given(
    text=texts(),
    sides=st.tuples(st.sampled_from([3, 5, 17]), st.sampled_from([2, 8, 18])),
    time=st.sampled_from([5, 33, 70]),
    segments=st.sampled_from([None, 2, 3]),
    reverse=st.booleans(),
    begins=st.booleans(),
)
@settings(max_examples=9, deadline=None)
def test_products(
    text: str, sides: tuple[int, int], time: int, segments: int | None, reverse: bool, begins: bool
) -> None:
    operator = scanc.compile(text, target="triton")
    assume("RecallTiling" in operator.code())
    sizes = SIZES | dict(zip("ij", sides, strict=True))
    generator = torch.Generator().manual_seed(time)

    def draw(decl: Any, lead: tuple[int, ...]) -> Tensor:
        return 0.7 * torch.randn(*lead, *(sizes[axis] for axis in decl.axes), generator=generator).to(DEVICE)

    spec = operator.operator("triton").spec
    drawn = {decl.name: draw(decl, (2, time)) for decl in spec.inputs} | {d.name: draw(d, ()) for d in spec.params}
    start = draw(spec.states[0], (2,)) if begins else None
    with forced_recall(steps=16, segments=segments):
        found = results(operator, drawn, start, reverse, torch.float32, "chunked")
    for name, (ours, right) in zip(
        ["o", "S", *drawn, "start"], zip(found, wanted(operator, drawn, start, reverse), strict=True), strict=False
    ):
        error = (ours.double() - right).norm() / (right.norm() + 1e-6)
        assert error < 5e-4 or (ours.double() - right).abs().max() < 1e-5, name


def wanted(operator: Any, drawn: dict[str, Tensor], start: Tensor | None, reverse: bool) -> list[Tensor]:
    return results(operator, drawn, start, reverse, torch.float64, "interpret")


def results(
    operator: Any, drawn: dict[str, Tensor], start: Tensor | None, reverse: bool, dtype: torch.dtype, form: str
) -> list[Tensor]:
    """The output, the final state, and the gradients of all."""
    given = {name: x.to(dtype).requires_grad_() for name, x in drawn.items()}
    state = None if start is None else {"S": start.to(dtype).requires_grad_()}
    value, final = operator(**given, initial_state=state, return_state=True, reverse=reverse, form=form)
    generator = torch.Generator().manual_seed(7)
    flows = [torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x) for x in (value, final["S"])]
    leaves = [*given.values(), *(state or {}).values()]
    return [value, final["S"], *torch.autograd.grad([value, final["S"]], leaves, flows)]
