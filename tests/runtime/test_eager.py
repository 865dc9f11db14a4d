"""Calls around the dispatcher: the same results, only where nothing needs to see the op, and nothing kept alive."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from scanc_runtime import ArgumentError, eager, launch, operator
from scanc_runtime.eager import is_plain
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from runtime import fakes

OPERATORS = {"ema": fakes.ema(), "attention": fakes.attention(), "mixed": fakes.mixed()}
EMA = OPERATORS["ema"]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def arguments(name):
    if name == "ema":
        return [torch.rand(4), torch.randn(2, 6, 4)]
    if name == "attention":
        return [torch.randn(shape) for shape in ((2, 5, 3, 4), (2, 5, 2, 3), (2, 5, 5, 2))]
    code, keep = torch.randint(0, 3, (2, 5, 4)), torch.rand(2, 5) > 0.3
    A = 0.3 * torch.randn(3, 3, dtype=torch.complex64)
    return [torch.randn(2, 5, 4), torch.randn(2, 5, 4), code, keep, A, torch.randn(3)]


def everything(name, tensors):
    """All results of a call with gradients, and the gradients; those that nothing reads are None."""
    leaves = [x.clone().requires_grad_(x.is_floating_point() or x.is_complex()) for x in tensors]
    outputs, state = OPERATORS[name](*leaves, return_state=True)
    results = [*(outputs if isinstance(outputs, tuple) else (outputs,)), *state.values()]
    smooth = [x for x in results if x.requires_grad]
    generator = torch.Generator().manual_seed(1)
    cotangents = [torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in smooth]
    wanted = [x for x in leaves if x.requires_grad]
    return [x.detach() for x in results], torch.autograd.grad(smooth, wanted, cotangents, allow_unused=True)


@pytest.mark.parametrize("name", OPERATORS)
def test_both_ways_agree_bitwise(name, monkeypatch):
    tensors = arguments(name)
    assert is_plain(tensors)
    around = everything(name, tensors), OPERATORS[name](*tensors)
    monkeypatch.setattr(operator, "is_plain", lambda tensors: False)
    through = everything(name, tensors), OPERATORS[name](*tensors)
    assert_close(around, through, rtol=0, atol=0)


def test_a_torch_without_what_is_asked_takes_the_dispatcher(monkeypatch):
    tensors = arguments("ema")
    monkeypatch.setattr(eager, "_ABLE", False)
    assert not is_plain(tensors)
    assert EMA(*tensors).shape == tensors[1].shape


class _Watch:
    """What torch shows a mode."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def note(self, function, args, kwargs):
        self.seen.append(str(function))
        return function(*args, **(kwargs or {}))


class _Dispatches(_Watch, TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return self.note(function, args, kwargs)


class _Functions(_Watch, TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        return self.note(function, args, kwargs)


@pytest.mark.parametrize("mode", [_Dispatches, _Functions])
def test_modes_see_the_op(mode):
    a, x = arguments("ema")
    x.requires_grad_()
    with mode() as watch:
        EMA(a, x.detach())
        y = EMA(a, x)
    assert watch.seen.count("scanc.ema_fake_forward.default") == 2
    with _Dispatches() as watch:
        torch.autograd.grad(y.sum(), x)
    assert "scanc.ema_fake_backward.default" in watch.seen


def test_profilers_see_the_op():
    a, x = arguments("ema")
    with torch.profiler.profile() as profile:
        EMA(a, x)
    assert "scanc::ema_fake_forward" in {event.key for event in profile.key_averages()}


class _Kind(torch.Tensor):
    pass


def test_what_is_plain():
    x, z = torch.randn(3, 4), torch.randn(3, 4, dtype=torch.complex64)
    with torch.inference_mode():
        inference = torch.randn(3)
        assert is_plain((x, inference))
    for tensor in (x, z, x.mT, x.expand(2, 3, 4), torch.nn.Parameter(x), x.clone().requires_grad_(), inference, x > 0):
        assert is_plain((x, tensor))
    lazy = z.conj(), z.conj().imag, torch._efficientzerotensor(3)
    for tensor in (*lazy, x.as_subclass(_Kind), x.to("meta"), x.to_sparse()):
        assert not is_plain((x, tensor))
    assert not torch.func.vmap(lambda row: torch.tensor(is_plain((row,))))(x).any()
    assert not torch.func.grad(lambda x: x.sum() * is_plain((x,)))(x).any()


def test_lazy_negations_are_written_out():
    a, x = arguments("ema")
    lazy = torch.complex(x, -x).conj().imag
    assert lazy.is_neg()
    assert_close(EMA(a, lazy), EMA(a, x))


def test_tangents_flow():
    a, x = arguments("ema")
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(EMA(a, forward_ad.make_dual(x, torch.ones_like(x)))).tangent
    assert_close(tangent, EMA(a, torch.ones_like(x)))


@pytest.mark.parametrize("name", OPERATORS)
def test_results_may_be_changed_in_place(name):
    leaves = [x.requires_grad_() if x.is_floating_point() else x for x in arguments(name)]
    outputs = OPERATORS[name](*leaves)
    outputs = [x for x in (outputs if isinstance(outputs, tuple) else (outputs,)) if x.requires_grad]
    expected = torch.autograd.grad(sum(3 * x.real.sum() for x in outputs), leaves[0], retain_graph=True)[0]
    for tensor in outputs:
        tensor.mul_(3)
    assert_close(torch.autograd.grad(sum(x.real.sum() for x in outputs), leaves[0])[0], expected)


def test_backward_compiles():
    a, x = arguments("ema")
    x.requires_grad_()
    expected = torch.autograd.grad(EMA(a, x).square().sum(), x)[0]
    torch._dynamo.reset()
    loss = EMA(a, x).square().sum()
    with torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager", fullgraph=True)):
        loss.backward()
    assert_close(x.grad, expected)


def test_a_plan_does_not_hide_what_is_wrong():
    a, x = arguments("ema")
    for _ in range(2):
        EMA(a, x)
        with pytest.raises(ArgumentError, match="wrong size along axis d"):
            EMA(a[:3], x)
        with pytest.raises(ArgumentError, match="is not a tensor"):
            EMA(a, x.numpy())
        with pytest.raises(ArgumentError, match="has dtype int64"):
            EMA(a, x.long())


def test_nothing_stays_alive_and_plans_are_bounded():
    a, x = arguments("ema")
    x.requires_grad_()
    y = EMA(a, x, initial_state=torch.randn(2, 4))
    known = launch.Call(EMA.spec, [x, a, torch.randn(2, 4)])
    torch.autograd.grad(y.sum(), x)
    left = [weakref.ref(tensor) for tensor in (a, x, y)]
    del a, x, y, known
    gc.collect()
    assert [ref() for ref in left] == [None] * 3
    for time in range(300):
        EMA(torch.rand(4), torch.randn(1, time, 4))
        call = launch.Call(EMA.spec, [torch.randn(1, time, 4), torch.rand(4), torch.rand(1, 4)])
        assert (call.batch, call.time, call.sizes["d"]) == (1, time, 4)
    assert len(EMA._plans) <= 256
    assert len(launch._known[id(EMA.spec)]._signatures) <= 256
