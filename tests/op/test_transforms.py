"""Every example under what torch does to operators: gradients of any order, torch.func, torch.compile, opcheck."""

from __future__ import annotations

import pytest
import torch
from op.calls import NAMES, call, example, is_smooth, loss
from scanc_runtime.dtypes import differentiable
from scanc_runtime.shapes import Shapes
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.testing import assert_close

examples = pytest.mark.parametrize("name", NAMES)


@examples
def test_first_and_second_order(name):
    made = call(name, batch=1)
    assert gradcheck(made.run, made.tensors)
    assert gradgradcheck(made.run, made.tensors, fast_mode=True)


@examples
def test_first_and_second_order_in_reverse(name):
    made = call(name, batch=1, seed=1, reverse=True)
    assert gradcheck(made.run, made.tensors, fast_mode=True)
    assert gradgradcheck(made.run, made.tensors, fast_mode=True)


@examples
def test_func_grad(name):
    made = call(name)
    plain = [tensor.detach() for tensor in made.tensors]
    gradient = torch.func.grad(lambda *tensors: loss(made.run(*tensors)), argnums=made.smooth)
    expected = grad(loss(made.run(*made.tensors)), [made.tensors[i] for i in made.smooth])
    assert_close(gradient(*plain), expected)


@examples
def test_compile_in_one_graph(name):
    compare_compiled(name, "aot_eager")


@pytest.mark.parametrize("name", ["gla", "lru"])
def test_inductor(name):
    compare_compiled(name, "inductor")


def compare_compiled(name: str, backend: str, **options: str) -> None:
    made = call(name, **options)
    torch._dynamo.reset()
    results = torch.compile(made.run, fullgraph=True, backend=backend)(*made.tensors)
    expected = made.run(*made.tensors)
    assert_close(results, expected)
    wanted = [made.tensors[i] for i in made.smooth]
    assert_close(grad(loss(results), wanted), grad(loss(expected), wanted))


@examples
@pytest.mark.parametrize("dense", [True, False], ids=["contiguous", "permuted"])
def test_opcheck(name, dense):
    operator = example(name).operator("torch")
    spec = operator.spec
    made = call(name)
    primals = canonical(operator, made)
    if not dense:
        primals = [tensor.mT.contiguous().mT if tensor.dim() > 1 else tensor for tensor in primals]
    decls = spec.outputs + spec.states
    for form in operator.forms:
        torch.library.opcheck(operator.raw.forward, (primals, form, False, False))
        torch.library.opcheck(operator.raw.forward, (primals, form, True, True))
        results = operator.raw.forward(primals, form, True, True)
        pairs = zip(results, decls, strict=False)
        cotangents = [torch.randn_like(tensor) for tensor, decl in pairs if differentiable(decl)]
        torch.library.opcheck(operator.raw.backward, (primals, results[len(decls) :], cotangents, form, True))


def canonical(operator, made):
    """The tensors of a call as they reach the raw op."""
    caught = []
    run, operator._run = operator._run, lambda *args: caught.append(args) or run(*args)
    try:
        with torch.no_grad():
            made.run(*made.tensors)
    finally:
        del operator._run
    primals = Shapes(operator.spec).begun(caught[0][2])
    return [tensor.detach().clone(memory_format=torch.contiguous_format) for tensor in primals]


@pytest.mark.parametrize("form", ["recurrent", "chunked", "parallel", "interpret"])
def test_forms_agree_in_gradients(form):
    one, other = call("gla", form="recurrent"), call("gla", form=form)
    wanted = [one.tensors[i] for i in one.smooth]
    expected = grad(loss(one.run(*one.tensors)), wanted)
    assert_close(grad(loss(other.run(*other.tensors)), [other.tensors[i] for i in other.smooth]), expected)


def test_a_cold_operator_compiles():
    """Nothing but torch.compile has called it: its module is generated while Dynamo traces."""
    from op.calls import EXAMPLES

    import scanc

    cold = scanc.load(EXAMPLES / "ema.scan")
    tensors = [tensor.detach() for tensor in call("ema").tensors if is_smooth(tensor)][: len(cold.spec.order)]
    torch._dynamo.reset()
    fresh = scanc.load(EXAMPLES / "ema.scan")
    compiled = torch.compile(lambda *args: fresh(*args), fullgraph=True, backend="aot_eager")
    assert_close(compiled(*tensors), cold(*tensors))


def test_a_tensor_may_come_twice():
    operator = example("gla")
    torch._dynamo.reset()
    x, g = torch.randn(2, 5, 2, 4, requires_grad=True), -torch.rand(2, 5, 2, 4)
    compiled = torch.compile(lambda x, g: operator(x, x, x, g), fullgraph=True, backend="aot_eager")
    expected = operator(x, x, x, g)
    assert_close(compiled(x, g), expected)
    assert_close(grad(compiled(x, g).sum(), x), grad(expected.sum(), x))


class Mixer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scan = example("gla")
        self.mix = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        return self.scan(self.mix(x), x, x, g)


@pytest.mark.parametrize("strict", [True, False])
def test_export_with_symbolic_time(strict):
    mixer, x, g = Mixer(), torch.randn(2, 5, 2, 4), -torch.rand(2, 5, 2, 4)
    time = torch.export.Dim("T", min=2, max=1024)
    exported = torch.export.export(mixer, (x, g), strict=strict, dynamic_shapes={"x": {1: time}, "g": {1: time}})
    for steps in (5, 3):
        assert_close(exported.module()(x[:, :steps], g[:, :steps]), mixer(x[:, :steps], g[:, :steps]))


def test_meta_tensors():
    x = torch.randn(2, 5, 2, 4, device="meta")
    output, state = example("gla")(x, x, x, x, return_state=True)
    assert (output.shape, output.device.type, state["S"].shape) == ((2, 5, 2, 4), "meta", (2, 2, 4, 4))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("target", ["torch", "triton"])
@examples
def test_on_a_gpu(name, target):
    """There, torch runs backward in threads of its own."""
    made = call(name, batch=1, target=target, device="cuda")
    assert gradcheck(made.run, made.tensors, fast_mode=True)
    assert gradgradcheck(made.run, made.tensors, fast_mode=True)
    plain = [tensor.detach() for tensor in made.tensors]
    gradient = torch.func.grad(lambda *tensors: loss(made.run(*tensors)), argnums=made.smooth)
    assert_close(gradient(*plain), grad(loss(made.run(*made.tensors)), [made.tensors[i] for i in made.smooth]))
    compare_compiled(name, "aot_eager", target=target, device="cuda")
