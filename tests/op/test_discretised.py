"""Discretised systems in fp32, from |step·A| = 3 down to 1e-8 and at A = 0: six digits, gradients included."""

from __future__ import annotations

from functools import cache

import pytest
import torch

import scanc
from scanc.interpreter import random_arguments
from scanc.passes.discretize import RULES

SCALES = (0.0, 1e-8, 1e-6, 1e-4, 1e-2, 0.3, 1.0, 3.0)
"""Of step·A, one a channel: nothing of a channel touches another, and each is judged by itself."""

SETTINGS = {"gbt": "(step, alpha)", "exp_trapezoid": "(step, alpha)", "async": "(step, 2*alpha)"}
SPEC = """scan accurate
axes d, n
KEYWORD step[d], A[AXES]KIND, B[d,n]ALPHA
input x[d]
state h[d,n]KIND
d/dt h = RIGHT + B*x   discretize RULE
output h[d,n]
"""
FORMS = {"elementwise": ("d,n", "A*h"), "dense": ("d,n,n", "A @ h")}
CASES = [
    (target, keyword, form)
    for form in FORMS
    for keyword in ("param", "input")
    for target in ("torch", "triton")
    if (target, keyword, form) != ("triton", "input", "dense")
]


@cache
def compiled(target: str, keyword: str, form: str, rule: str, kind: str) -> scanc.ScanOperator:
    axes, right = FORMS[form]
    text = SPEC.replace("KEYWORD", keyword).replace("AXES", axes).replace("RIGHT", right)
    text = text.replace("RULE", rule + SETTINGS.get(rule, "(step)")).replace("KIND", f": {kind}" if kind else "")
    text = text.replace("ALPHA", ", alpha[d]" if rule in SETTINGS else "")
    return scanc.compile(text, target=target)  # type: ignore[arg-type]


def arguments(keyword: str, form: str, kind: str) -> dict[str, torch.Tensor]:
    """Positive numbers but for A, which lets states decay: no sum loses digits by itself."""
    generator = torch.Generator().manual_seed(5)
    batch, time, d, n = 2, 2, len(SCALES), 3
    lead = (batch, time) if keyword == "input" else ()

    def draw(*shape: int) -> torch.Tensor:
        return 0.5 + torch.rand(shape, generator=generator)

    step = draw(*lead, d) * torch.tensor([1.0, 1.0, 1e-3, 1e-2, 1e-1, 1.0, 1.0, 2.0])
    a = -draw(*lead, d, n, *([n] if form == "dense" else []))
    if kind == "complex":
        a = torch.complex(a, 2 * draw(*a.shape) - 2)
    # rows of equal signs would make a dense A nearly singular, and the norm of its exponential small
    a = a * torch.tensor([[1.0, -0.3, 0.2], [0.3, 1.0, -0.3], [-0.2, 0.3, 1.0]]) if form == "dense" else a
    scale = torch.tensor(SCALES) / step
    a = a * scale.reshape(*scale.shape, *([1] * (a.dim() - scale.dim())))
    given = {"step": step, "alpha": 0.4 * draw(*lead, d), "A": a, "B": draw(*lead, d, n), "x": draw(batch, time, d)}
    state = draw(batch, d, n)
    return {**given, "h": torch.complex(state, draw(batch, d, n)) if kind == "complex" else state}


def results(op: scanc.ScanOperator, given: dict[str, torch.Tensor], form: str) -> dict[str, torch.Tensor]:
    leaves = {name: x.clone().requires_grad_() for name, x in given.items()}
    if "alpha" not in op.spec.order:
        del leaves["alpha"]
    state = leaves.pop("h")
    initial = {"h": state}
    if "ode.h" in {s.name for s in op.spec.states}:
        before = (0.3 * state).detach().requires_grad_()
        initial["ode.h"] = before
    h = op(**leaves, initial_state=initial, form=form)
    weight = torch.linspace(1.0, 1.5, h.numel(), dtype=torch.float64).reshape(h.shape).to(h.dtype)
    loss = ((h * weight).real if h.is_complex() else h * weight).sum()
    grads = torch.autograd.grad(loss, [*leaves.values(), *initial.values()])
    return {"h": h.detach(), **{f"d.{name}": g for name, g in zip((*leaves, *initial), grads, strict=True)}}


def by_channel(name: str, x: torch.Tensor, keyword: str, form: str) -> torch.Tensor:
    """[d, everything else]"""
    behind = {"d.A": 2 if form == "dense" else 1, "d.step": 0, "d.alpha": 0, "d.x": 0}.get(name, 1)
    return x.movedim(x.dim() - 1 - behind, 0).flatten(1) if x.dim() > 1 else x[:, None]


@pytest.mark.parametrize("kind", ["", "complex"], ids=["real", "complex"])
@pytest.mark.parametrize("rule", sorted(RULES))
@pytest.mark.parametrize(("target", "keyword", "form"), CASES)
def test_six_digits(target: str, keyword: str, form: str, rule: str, kind: str) -> None:
    op = compiled(target, keyword, form, rule, kind)
    given = arguments(keyword, form, kind)
    wide = {name: x.to(torch.complex128 if x.is_complex() else torch.float64) for name, x in given.items()}
    expected, got = results(op, wide, "interpret"), results(op, given, "recurrent")
    assert expected.keys() == got.keys()
    if rule == "gbt":  # by alpha the decay's slope is z², the difference of two of z: it has digits of z alone
        del expected["d.alpha"]
    for name, value in expected.items():
        near, far = by_channel(name, got[name].to(value.dtype), keyword, form), by_channel(name, value, keyword, form)
        size = far.abs().amax(1)
        error = (near - far).abs().amax(1) / torch.where(size > 0, size, 1.0)
        # a long step's own gradient is what two terms of its size leave of each other: A exp(z) h, exp(z) u
        limits = [1e-5 if name == "d.step" and scale > 1 else 2e-6 if scale > 1 else 1e-6 for scale in SCALES]
        rows = zip(SCALES, error.tolist(), limits, strict=True)
        wrong = {scale: f"{e:.1e}" for scale, e, limit in rows if not e < limit}
        assert not wrong, f"{name} at |step·A| = {wrong}"


def op_of(text: str, target: str = "torch") -> scanc.ScanOperator:
    return scanc.compile(text, target=target)  # type: ignore[arg-type]


DENSE = """scan dense
axes d, n
input x[d]STEP
param A[n,n]KIND, B[n], C[d,n], rate[d]
state h[d,n]KIND
d/dt h = A @ h - rate*h + B*x   discretize RULE
y = C ·[n] h
output y[d]KIND
"""


def dense(rule: str, *, varying: bool = False, kind: str = "", target: str = "torch") -> scanc.ScanOperator:
    step = "softplus(delta)" if varying else "exp(rate)"
    text = DENSE.replace("RULE", rule + SETTINGS.get(rule, "(step)")).replace("alpha", "0.4").replace("step", step)
    text = text.replace("STEP", ", delta[d]" if varying else "").replace("output y[d]KIND", "output y[d]")
    return op_of(text.replace("KIND", f": {kind}" if kind else ""), target)


def leaves_of(
    op: scanc.ScanOperator, time: int = 3, batch: int = 2
) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    inputs, params, states = random_arguments(op.compiled.typed, batch=batch, time=time, sizes={"d": 2, "n": 3}, seed=3)
    tensors = {**inputs, **params}
    return [tensors[name].requires_grad_() for name in op.spec.order], {
        n: s.requires_grad_() for n, s in states.items()
    }


@pytest.mark.parametrize(("rule", "varying"), [(rule, v) for rule in sorted(RULES) for v in (False, True)])
def test_gradients_of_both_orders(rule: str, varying: bool) -> None:
    op = dense(rule, varying=varying)
    tensors, states = leaves_of(op)

    def run(*given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y, last = op(
            *given[: len(tensors)],
            initial_state=dict(zip(states, given[len(tensors) :], strict=True)),
            return_state=True,
        )
        return (y, *last.values())

    everything = (*tensors, *states.values())
    assert torch.autograd.gradcheck(run, everything)
    assert torch.autograd.gradgradcheck(run, everything)


@pytest.mark.parametrize("target", ["torch", "triton"])
@pytest.mark.parametrize("kind", ["", "complex"], ids=["real", "complex"])
@pytest.mark.parametrize("rule", sorted(RULES))
def test_dense_systems_of_params(rule: str, kind: str, target: str) -> None:
    """Values, final states and gradients, in reverse too, against the interpreter; `step` one token at a time."""
    op = dense(rule, kind=kind, target=target)
    for how in ({}, {"reverse": True}):
        tensors, states = leaves_of(op, time=7)
        found = []
        for form in ("interpret", "auto"):
            y, last = op(*tensors, initial_state=states, return_state=True, form=form, **how)
            loss = y.square().real.sum() + sum(s.abs().square().sum() for s in last.values())
            found.append([y, *last.values(), *torch.autograd.grad(loss, [*tensors, *states.values()])])
        for expected, got in zip(*found, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-10)
    tensors, states = leaves_of(op, time=4)
    whole, last = op(*tensors, initial_state=states, return_state=True)
    state: dict[str, torch.Tensor] = states
    for t in range(4):
        now = [x[:, t] if name == "x" else x for name, x in zip(op.spec.order, tensors, strict=True)]
        y, state = op.step(*now, state=state)
        torch.testing.assert_close(y, whole[:, t], rtol=1e-9, atol=1e-10)
    for name, value in last.items():
        torch.testing.assert_close(state[name], value, rtol=1e-9, atol=1e-10)


def test_matrices_of_params_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once a step, nor once a sequence; and backward takes one derivative of each."""
    op = dense("zoh")
    tensors, states = leaves_of(op, time=9)
    op(*tensors, initial_state=states)
    shapes = []
    exponential = torch.linalg.matrix_exp
    monkeypatch.setattr(torch.linalg, "matrix_exp", lambda z: shapes.append(tuple(z.shape)) or exponential(z))
    y = op(*tensors, initial_state=states)
    assert sorted(shapes) == [(2, 3, 3), (2, 6, 6)]  # exp, and φ₁ in a block of twice the size
    shapes.clear()
    y.sum().backward()
    assert sorted(shapes) == [(2, 3, 3), (2, 6, 6), (2, 6, 6), (2, 6, 6)]  # the derivative of φ₁ takes none


def test_a_step_of_the_input_takes_all_steps_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    op = dense("mamba", varying=True)
    tensors, states = leaves_of(op, time=9)
    shapes = []
    exponential = torch.linalg.matrix_exp
    monkeypatch.setattr(torch.linalg, "matrix_exp", lambda z: shapes.append(tuple(z.shape)) or exponential(z))
    with torch.no_grad():
        op(*tensors, initial_state=states)
    assert shapes == [(2, 9, 2, 3, 3)]


def test_kernels_are_refused_where_a_matrix_varies_in_time() -> None:
    with pytest.raises(scanc.CompileError) as caught:
        dense("zoh", varying=True, target="triton").code()
    assert (
        str(caught.value)
        == """\
error[E0708]: dense: the Triton target has no functions of matrices that vary in time
  --> <spec>:6:1
  |
6 | d/dt h = A @ h - rate*h + B*x   discretize zoh(softplus(delta))
  | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ this matrix differs from step to step
  = hint: target='torch' or 'auto' runs it, on GPUs too; with A and the step as params there are kernels"""
    )


def test_auto_takes_torch_where_a_matrix_varies_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert dense("zoh", target="auto").target == "triton"
    varying = dense("zoh", varying=True, target="auto")
    assert varying.target == "torch"
    assert "the torch target runs it, on GPUs too" in varying.explain()
