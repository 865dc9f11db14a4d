"""Gradients of any order, torch.func, torch.compile and opcheck, on operators made by hand."""

from __future__ import annotations

import pytest
import torch
from scanc_runtime.dtypes import differentiable
from scanc_runtime.shapes import Shapes
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from runtime import fakes

B, T = 2, 3


def _ema():
    return [torch.rand(4).double(), torch.randn(B, T, 4).double()]


def _attention():
    return [torch.randn(shape).double() for shape in ((B, T, 3, 4), (B, T, 2, 3), (B, T, 5, 2))]


def _mixed():
    x, g = torch.randn(2, B, T, 4).double()
    code, keep = torch.randint(0, 3, (B, T, 4)), torch.rand(B, T) > 0.3
    return [x, g, code, keep, 0.3 * torch.randn(3, 3, dtype=torch.complex128), torch.randn(3).double()]


OPERATORS = {"ema": (fakes.ema(), _ema), "attention": (fakes.attention(), _attention), "mixed": (fakes.mixed(), _mixed)}
cases = pytest.mark.parametrize(
    ("name", "reverse"), [(name, reverse) for name in OPERATORS for reverse in (False, True)]
)


def smooth(tensor):
    return tensor.is_floating_point() or tensor.is_complex()


def case(name, reverse):
    """A function of all smooth results, its arguments, and where the smooth arguments are."""
    torch.manual_seed(0)
    operator, make = OPERATORS[name]
    arguments = [tensor.requires_grad_() if smooth(tensor) else tensor for tensor in make()]

    def run(*arguments):
        outputs, state = operator(*arguments, return_state=True, reverse=reverse)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return tuple(tensor for tensor in (*outputs, *state.values()) if smooth(tensor))

    return run, arguments, tuple(i for i, tensor in enumerate(arguments) if smooth(tensor))


def squares(tensors):
    return sum((tensor.abs() ** 2).sum() for tensor in tensors)


@cases
def test_first_and_second_order(name, reverse):
    run, arguments, _ = case(name, reverse)
    assert gradcheck(run, arguments)
    assert gradgradcheck(run, arguments, fast_mode=True)


@cases
def test_func_grad_twice(name, reverse):
    run, arguments, at = case(name, reverse)
    plain = [tensor.detach() for tensor in arguments]
    gradient = torch.func.grad(lambda *args: squares(run(*args)), argnums=at)
    expected = torch.autograd.grad(squares(run(*arguments)), [arguments[i] for i in at], create_graph=True)
    assert_close(gradient(*plain), tuple(tensor.detach() for tensor in expected))
    again = torch.func.grad(lambda *args: squares(gradient(*args)), argnums=at)(*plain)
    assert_close(again, torch.autograd.grad(squares(expected), [arguments[i] for i in at]))


def test_third_order():
    run, arguments, _ = case("attention", False)
    q = arguments[1].detach().requires_grad_()

    def second(q):
        (first,) = torch.autograd.grad(squares(run(arguments[0], q, arguments[2])), q, create_graph=True)
        return torch.autograd.grad(squares([first]), q, create_graph=True)[0]

    assert gradcheck(second, q, fast_mode=True)


@cases
def test_compile_in_one_graph(name, reverse):
    run, arguments, at = case(name, reverse)
    torch._dynamo.reset()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    results, expected = compiled(*arguments), run(*arguments)
    assert_close(results, expected)
    wanted = [arguments[i] for i in at]
    assert_close(torch.autograd.grad(squares(results), wanted), torch.autograd.grad(squares(expected), wanted))


def test_compile_with_symbolic_time():
    operator, _ = OPERATORS["ema"]
    torch._dynamo.reset()
    compiled = torch.compile(lambda a, x: operator(a, x), fullgraph=True, dynamic=True, backend="aot_eager")
    a = torch.rand(4, requires_grad=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for time in (3, 5, 8):
            x = torch.randn(2, time, 4)
            assert_close(compiled(a, x), operator(a, x))


@cases
@pytest.mark.parametrize("dense", [True, False])
def test_opcheck(name, reverse, dense):
    _, arguments, _ = case(name, reverse)
    operator = OPERATORS[name][0]
    primals = canonical(operator, [tensor.detach() for tensor in arguments])
    primals = [tensor.contiguous() if dense else tensor for tensor in primals]
    for save in (False, True):
        torch.library.opcheck(operator.raw.forward, (primals, "recurrent", reverse, save))
    results = operator.raw.forward(primals, "recurrent", reverse, True)
    decls = operator.spec.outputs + operator.spec.states
    cotangents = [
        torch.randn_like(tensor) for tensor, decl in zip(results, decls, strict=False) if differentiable(decl)
    ]
    torch.library.opcheck(operator.raw.backward, (primals, results[len(decls) :], cotangents, "recurrent", reverse))


def canonical(operator, arguments):
    """The tensors that reach the raw op."""
    caught = []
    run, operator._run = operator._run, lambda *args: caught.append(args) or run(*args)
    try:
        operator(*arguments)
    finally:
        del operator._run
    count = len(operator.spec.inputs + operator.spec.params)
    primals = Shapes(operator.spec).begun(caught[0][2])
    return [*primals[:count], *(state.clone() for state in primals[count:])]


def test_vmap_and_what_is_made_of_it():
    operator = OPERATORS["ema"][0]
    a, x = torch.rand(4).double(), torch.randn(3, B, T, 4).double()
    rows = [torch.func.grad(lambda a, x: squares([operator(a, x)]))(a, row) for row in x]
    per_sample = torch.func.vmap(torch.func.grad(lambda a, x: squares([operator(a, x)])), (None, 0))
    assert_close(per_sample(a, x), torch.stack(rows))
    assert torch.func.vmap(lambda row: operator(a, row))(x[:0]).shape == (0, B, T, 4)
    run = lambda a: squares([operator(a, x[0])])  # noqa: E731
    assert_close(torch.func.jacrev(run)(a), torch.autograd.functional.jacobian(run, a))
    assert_close(torch.func.jacrev(torch.func.jacrev(run))(a), torch.autograd.functional.hessian(run, a))
