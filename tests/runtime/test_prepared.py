"""What is made of params ahead of the recurrence: in float64, handed on in the dtype of the call, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from scanc_runtime.ahead import here
from scanc_runtime.prepared import Prepared
from scanc_runtime.spec import AxisSpec, Spec, TensorSpec
from torch import Tensor

Seen = list[tuple[str, torch.dtype]]


def spec(*params: TensorSpec) -> Spec:
    axes = (AxisSpec("n"),)
    return Spec("prepared", "0", axes, (TensorSpec("x", (("n",),), ("n",)),), params, (), (), ("recurrent",))


def prepared() -> tuple[Prepared, Seen]:
    """The functions take a² of the caller's a, and his count as it is."""
    count = TensorSpec("count", (), (), kind="int")
    outer, inner = (spec(TensorSpec(name, (("n",),), ("n",)), count) for name in ("a", "squared"))
    seen: Seen = []

    def prepare(a: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(("prepare", a.dtype))
        return a * a, count

    def pull_back(a: Tensor, count: Tensor, grad: Tensor) -> tuple[Tensor]:
        seen.append(("pull back", grad.dtype))
        return (2 * a * grad,)

    return Prepared(outer, inner, prepare, pull_back), seen


def forward(inputs: Any, params: Any, states: Any, reverse: bool, save: bool, final: bool = True) -> Any:
    assert (reverse, save, final) == (False, True, False)
    return (inputs[0] * params[0],), (), ()


def backward(inputs: Any, params: Any, states: Any, saved: Any, grads: Any, final: Any, reverse: bool) -> Any:
    return (grads[0] * params[0],), ((grads[0] * inputs[0]).sum((0, 1)),), ()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_params_and_their_gradients(dtype: torch.dtype) -> None:
    made, seen = prepared()
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    ahead: Callable[..., Any] = made.forward({"recurrent": forward})["recurrent"]
    behind: Callable[..., Any] = made.backward({"recurrent": backward})["recurrent"]
    torch.manual_seed(0)
    x, a, count = torch.randn(2, 3, 4).to(dtype), torch.randn(4).to(dtype), torch.tensor(3, dtype=torch.int32)
    ((y,), _, _) = ahead((x,), (a, count), (), False, True, final=False)
    assert y.dtype == torch.promote_types(dtype, compute)
    torch.testing.assert_close(y, x * a.to(compute) ** 2)
    dy = torch.randn_like(y)
    (dx,), (da,), _ = behind((x,), (a, count), (), (), (dy,), (), False)
    torch.testing.assert_close(dx, dy * a.to(compute) ** 2)
    torch.testing.assert_close(da, 2 * a.double() * (dy * x).sum((0, 1)).double())
    assert seen == [("prepare", torch.float64)] * 2 + [("pull back", torch.float64)]


def test_a_rehearsal_ends_with_the_kernels() -> None:
    """Its gradients have no memory: nothing is made of them."""
    made, seen = prepared()
    behind: Callable[..., Any] = made.backward({"recurrent": backward})["recurrent"]
    x, a, count = torch.randn(2, 3, 4), torch.randn(4), torch.tensor(3)
    here.rehearsal = []
    try:
        behind((x,), (a, count), (), (), (torch.randn(2, 3, 4),), (), False)
    finally:
        here.rehearsal = None
    assert [what for what, _ in seen] == ["prepare"]
