"""Operators made by hand: a step in plain torch, a loop for forward, and torch's own gradient for backward."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
from scanc_runtime import AxisSpec, Operator, Spec, StateSpec, TensorSpec
from scanc_runtime.dtypes import differentiable, value_dtype
from scanc_runtime.shapes import Arity, Shapes


def operator(spec: Spec, step) -> Operator:
    """An operator whose forward saves the states before each step, as [T, B, *axes] each."""
    arity, shapes = Arity(spec), Shapes(spec)

    def loop(inputs, params, states, reverse):
        compute = shapes.compute_dtype([*inputs, *params])
        decls = spec.inputs, spec.params
        inputs, params = (
            [t.to(value_dtype(d.kind, compute)) for t, d in zip(group, ds, strict=True)]
            for group, ds in zip((inputs, params), decls, strict=True)
        )
        time = inputs[0].shape[1]
        rows, before = [], []
        for t in reversed(range(time)) if reverse else range(time):
            before.append(states)
            outputs, states = step(*(x[:, t] for x in inputs), *params, *states)
            rows.append(outputs)
        if reverse:
            rows.reverse()
        outputs = tuple(torch.stack(column, 1) for column in zip(*rows, strict=True))
        if not rows:
            empty = shapes.results([*inputs, *params, *states])[: len(spec.outputs)]
            outputs = tuple(inputs[0].new_zeros(shape, dtype=dtype) for shape, dtype in empty)
        return outputs, tuple(states), before

    def forward(inputs, params, states, reverse, save):
        outputs, final, before = loop(inputs, params, states, reverse)
        saved = tuple(torch.stack(column) for column in zip(*before, strict=True)) if save and before else ()
        if save and not before:
            saved = tuple(state.new_zeros((0, *state.shape)) for state in states)
        return outputs, tuple(t.clone() for t in final), saved

    def backward(*args):
        # Kernels run below autograd, which this one needs once more: a new thread has it.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(gradients, *args).result()

    def gradients(inputs, params, states, saved, grad_outputs, grad_final, reverse):
        assert len(saved) == len(spec.states)
        assert all(s.shape[0] == inputs[0].shape[1] for s in saved)
        primals = [t.detach() for t in (*inputs, *params, *states)]
        smooth = [primals[i].requires_grad_() for i in arity.grads]
        with torch.enable_grad():
            outputs, final, _ = loop(*arity.split(primals), reverse)
            results = [*outputs, *final]
            smooth_results = [results[i] for i in arity.cotangents]
            cotangents = [c.to(r.dtype) for c, r in zip((*grad_outputs, *grad_final), smooth_results, strict=True)]
            live = [(r, c) for r, c in zip(smooth_results, cotangents, strict=True) if r.requires_grad]
            grads = torch.autograd.grad(
                [r for r, _ in live], smooth, [c for _, c in live], allow_unused=True, materialize_grads=True
            )
        counts = [sum(map(differentiable, group)) for group in (spec.inputs, spec.params, spec.states)]
        a, b = counts[0], counts[0] + counts[1]
        return tuple(grads[:a]), tuple(grads[a:b]), tuple(grads[b:])

    def saved(form, batch, time, sizes):
        return tuple(((time, batch, *(sizes[a] for a in s.axes)), s.kind) for s in spec.states)

    forms = dict.fromkeys(spec.forms, forward)
    return Operator(spec, step=step, forward=forms, backward=dict.fromkeys(spec.forms, backward), saved=saved)


def dims(text: str) -> tuple[tuple[str, ...], ...]:
    """`h,g*r` as (("h",), ("g", "r"))."""
    return tuple(tuple(group.split("*")) for group in text.split(",") if group)


def tensor(cls, keyword: str, name: str, axes: str, order: str, line: int, **rest):
    groups = dims(axes)
    flat = {axis for group in groups for axis in group}
    declared = f"{keyword} {name}[{axes}]" if axes else f"{keyword} {name}"
    return cls(name, groups, tuple(a for a in order.split() if a in flat), declared=declared, line=line, **rest)


def axes(text: str) -> tuple[AxisSpec, ...]:
    return tuple(AxisSpec(name) for name in text.split())


def ema() -> Operator:
    """h = a*h + (1-a)*x."""
    spec = Spec(
        name="ema",
        digest="fake",
        axes=axes("d"),
        inputs=(tensor(TensorSpec, "input", "x", "d", "d", 3),),
        params=(tensor(TensorSpec, "param", "a", "d", "d", 4),),
        states=(tensor(StateSpec, "state", "h", "d", "d", 5),),
        outputs=(tensor(TensorSpec, "output", "h", "d", "d", 7),),
        forms=("recurrent", "chunked"),
        refused=(("convolution", "the decay depends on no input, but FFT comes later"),),
        order=("a", "x"),
    )

    def step(x, a, h):
        h = a * h + (1 - a) * x
        return (h,), (h,)

    return operator(spec, step)


def attention() -> Operator:
    """Linear attention with grouped heads, a declared layout that is not canonical, and a kept buffer of x.

    canonical order: g r i j.
    """
    order = "g r i j"
    spec = Spec(
        name="attention",
        digest="fake",
        axes=axes(order),
        inputs=(
            tensor(TensorSpec, "input", "q", "i,g*r", order, 3),
            tensor(TensorSpec, "input", "k", "g,i", order, 3),
            tensor(TensorSpec, "input", "v", "j,g", order, 3),
        ),
        params=(),
        states=(
            tensor(StateSpec, "state", "S", "j,g,i", order, 4),
            tensor(StateSpec, "state", "prev.k.0", "g,i", order, 5, public=("prev.k", 0, 2)),
            tensor(StateSpec, "state", "prev.k.1", "g,i", order, 5, public=("prev.k", 1, 2)),
        ),
        outputs=(tensor(TensorSpec, "output", "o", "j,g*r", order, 8),),
        forms=("recurrent",),
        refused=(("chunked", "the step is nonlinear in S"),),
    )

    def step(q, k, v, S, k0, k1):
        # q [B,g,r,i], k [B,g,i], v [B,g,j], S [B,g,i,j]
        S = 0.9 * S + (k + 0.5 * k0).unsqueeze(-1) * v.unsqueeze(-2)
        o = torch.einsum("bgri,bgij->bgrj", q, torch.tanh(S))
        return (o,), (S, k1, k)

    return operator(spec, step)


def mixed() -> Operator:
    """Complex, int and bool tensors, two states (one from a param, one from a number), three outputs."""
    order = "d n n_col"
    spec = Spec(
        name="mixed",
        digest="fake",
        axes=(AxisSpec("d"), AxisSpec("n", size=3), AxisSpec("n_col", like="n")),
        inputs=(
            tensor(TensorSpec, "input", "x", "d", order, 3),
            tensor(TensorSpec, "input", "g", "d", order, 3, pin="float32"),
            tensor(TensorSpec, "input", "code", "d", order, 3, kind="int"),
            tensor(TensorSpec, "input", "keep", "", order, 3, kind="bool"),
        ),
        params=(
            tensor(TensorSpec, "param", "A", "n,n_col", order, 4, kind="complex"),
            tensor(TensorSpec, "param", "c0", "n", order, 4),
        ),
        states=(
            tensor(StateSpec, "state", "h", "d,n", order, 5, kind="complex"),
            tensor(StateSpec, "state", "m", "n,d", order, 5, init="c0"),
            tensor(StateSpec, "state", "s", "d", order, 5, init=2.5),
        ),
        outputs=(
            tensor(TensorSpec, "output", "y", "d", order, 8),
            tensor(TensorSpec, "output", "z", "n,d", order, 8, kind="complex"),
            tensor(TensorSpec, "output", "hit", "d", order, 8, kind="bool"),
        ),
        forms=("recurrent",),
    )

    def step(x, g, code, keep, A, c0, h, m, s):
        # x, g, code [B,d]; keep [B]; A [n,n_col]; h, m [B,d,n]; s [B,d]
        h = torch.einsum("nk,bdk->bdn", A, h) + x.unsqueeze(-1)
        m = torch.where(keep[:, None, None], torch.sigmoid(g).unsqueeze(-1) * m + h.real * c0, m)
        s = s * 0.5 + x * code
        return (m.sum(-1) + s, h * m, s > 0), (h, m, s)

    return operator(spec, step)
