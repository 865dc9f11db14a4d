"""Layouts, types, states and regions: what `interpret` promises of any program."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from interpreter.specs import example, small_arguments

from scanc.interpreter import interpret
from scanc.ir.build import Builder
from scanc.ir.nodes import (
    Axis,
    Level,
    Output,
    Program,
    Region,
    RegionKind,
    Scan,
    State,
    Tensor,
    TensorType,
)
from scanc.semantics.lower import lower

LAYOUTS = """
scan layouts
batch g, r
axes  i, j
input q[g*r, i], v[j, g]
state S[j, i, g*r]
S = 0.5*S + q*v
output S[i, j*g, r]
"""


def test_merged_and_permuted_dimensions() -> None:
    spec = lower(LAYOUTS)
    rng = np.random.default_rng(0)
    g, r, i, j = 2, 3, 4, 5
    q, v, s = rng.normal(size=(1, 1, g * r, i)), rng.normal(size=(1, 1, j, g)), rng.normal(size=(1, j, i, g * r))
    outputs, final = interpret(spec, {"q": q, "v": v}, {}, {"S": s})
    by_name = np.einsum("gri,jg->jigr", q[0, 0].reshape(g, r, i), v[0, 0]) + 0.5 * s[0].reshape(j, i, g, r)
    np.testing.assert_allclose(final["S"][0], by_name.reshape(j, i, g * r))
    np.testing.assert_allclose(outputs["S"][0, 0], by_name.transpose(1, 0, 2, 3).reshape(i, j * g, r))


@pytest.mark.parametrize("name", ["gla", "lru", "mlstm", "hmm_forward", "conv_ema", "mamba2"])
@pytest.mark.parametrize(("batch", "time"), [(2, 0), (0, 3), (0, 0)])
def test_nothing_to_do(name: str, batch: int, time: int) -> None:
    spec = example(name)
    inputs, params, state = small_arguments(spec, batch=2, time=max(time, 1))
    inputs = {n: x[:batch, :time] for n, x in inputs.items()}
    state = {n: x[:batch] for n, x in state.items()}
    for groups in (
        (inputs, params, state),
        tuple({n: x.numpy() for n, x in g.items()} for g in (inputs, params, state)),
    ):
        outputs, final = interpret(spec, *groups)
        assert all(tuple(x.shape[:2]) == (batch, time) for x in outputs.values())
        for n, x in final.items():
            assert tuple(x.shape) == tuple(state[n].shape)
            if time == 0:
                np.testing.assert_array_equal(np.asarray(x), state[n].numpy())


def test_a_partial_initial_mapping_is_completed() -> None:
    spec = example("kalman")
    inputs, params, state = small_arguments(spec)
    partial = {"mean": state["mean"]}
    full = {**partial, "P": torch.ones_like(state["P"])}
    for a, b in zip(interpret(spec, inputs, params, partial), interpret(spec, inputs, params, full), strict=True):
        assert all(torch.equal(a[n], b[n]) for n in a)


def test_a_state_may_begin_at_a_param_and_teaches_it() -> None:
    spec = lower("scan s\naxes d\ninput x[d]\nparam h0[d]\nstate h[d] = h0\nh = 0.5*h + x\noutput h[d]\n")
    inputs, params, _ = small_arguments(spec, time=2, batch=3)
    leaf = params["h0"].requires_grad_()
    _, final = interpret(spec, inputs, params)
    (grad,) = torch.autograd.grad(final["h"].sum(), leaf)
    torch.testing.assert_close(grad, torch.full_like(leaf, 3 * 0.25))


def test_the_past_is_one_buffer_oldest_first() -> None:
    spec = lower("scan s\naxes d, w = 4\ninput x[d]\nparam k[d,w]\ny = conv[w](x, k) + prev(x, 2)\noutput y[d]\n")
    inputs, params, state = small_arguments(spec, time=5)
    assert list(state) == ["prev.x"]
    _, final = interpret(spec, inputs, params, state)
    torch.testing.assert_close(final["prev.x"], inputs["x"][:, -3:])
    _, short = interpret(spec, {"x": inputs["x"][:, :1]}, params, state)
    torch.testing.assert_close(short["prev.x"], torch.cat([state["prev.x"][:, 1:], inputs["x"][:, :1]], 1))


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        ((torch.bfloat16, torch.bfloat16), torch.float32),
        ((torch.float16, torch.float64), torch.float64),
        ((torch.float32, torch.float32), torch.float32),
    ],
)
def test_the_compute_type_is_the_widest_given(dtypes: tuple[torch.dtype, torch.dtype], expected: torch.dtype) -> None:
    spec = example("ema")
    inputs, params, _ = small_arguments(spec)
    outputs, final = interpret(spec, {"x": inputs["x"].to(dtypes[0])}, {"logit": params["logit"].to(dtypes[1])})
    assert outputs["h"].dtype == final["h"].dtype == expected


def test_unknown_missing_and_misshapen_arguments() -> None:
    spec = example("kalman")
    inputs, params, state = small_arguments(spec)
    with pytest.raises(ValueError, match="unknown \\['y'\\]"):
        interpret(spec, {**inputs, "y": inputs["x"]}, params)
    with pytest.raises(ValueError, match="missing \\['a'\\]"):
        interpret(spec, inputs, {n: x for n, x in params.items() if n != "a"})
    with pytest.raises(ValueError, match="no state is called Q"):
        interpret(spec, inputs, params, {"Q": state["P"]})
    with pytest.raises(ValueError, match="a: a dimension d of size 7"):
        interpret(spec, inputs, {**params, "a": torch.ones(7)})
    with pytest.raises(ValueError, match="state P has shape"):
        interpret(spec, inputs, params, {"P": state["P"][:1]})
    with pytest.raises(TypeError, match="complex"):
        interpret(spec, {"x": inputs["x"] + 0j}, params)


def test_totals_are_summed_over_time_and_batch() -> None:
    spec = example("ema")
    inputs, params, _ = small_arguments(spec, batch=3, time=4)
    value = spec.next_of["h"]
    summed = replace(
        spec,
        totals=(Output("d.x", "x", (("d",),)), Output("d.logit", "logit", (("d",),)), Output("d.h", value, (("d",),))),
    )
    outputs, _ = interpret(summed, inputs, params)
    torch.testing.assert_close(outputs["d.x"], inputs["x"].sum((0, 1)))
    torch.testing.assert_close(outputs["d.logit"], params["logit"] * 12)
    torch.testing.assert_close(outputs["d.h"], outputs["h"].sum((0, 1)))
    empty, _ = interpret(summed, {"x": inputs["x"][:, :0]}, params)
    assert torch.equal(empty["d.x"], torch.zeros_like(outputs["d.x"]))


@pytest.mark.parametrize("semiring", ["real", "log", "maxplus", "minplus"])
def test_scan_and_delay_regions(semiring: str) -> None:
    """s' = a ⊗ s ⊕ x, and z' = x: the values of regions at level `classified`."""
    axes = (Axis("d"),)
    type_ = TensorType(("d",))
    tensors = [Tensor(n, (("d",),), type_) for n in ("x", "a")]
    states = tuple(State(n, (("d",),), type_) for n in ("s", "z"))
    builder = Builder(axes, {d.name: type_ for d in (*tensors, *states)})
    rate = builder.map("neg", "a", hint="rate")
    params_region = Region(RegionKind.PARAMS, builder.take())
    builder.types["s_new"] = type_
    y = builder.map("add", builder.map("add", "s", "s_new"), "z")
    last = Region(RegionKind.MAP, builder.take())
    program = Program(
        "regions",
        Level.CLASSIFIED,
        semiring,
        axes,
        (tensors[0],),
        (tensors[1],),
        states,
        (
            params_region,
            Region(RegionKind.SCAN, (), ("s",), Scan(semiring, "s_new", rate, "x")),
            Region(RegionKind.DELAY, (), ("z",), Scan(semiring, "x", None, "x")),
            last,
        ),
        (("s", "s_new"), ("z", "x")),
        (Output("y", y, (("d",),)),),
    )
    rng = np.random.default_rng(1)
    x, a, s, z = rng.normal(size=(2, 4, 3)), rng.normal(size=3), rng.normal(size=(2, 3)), rng.normal(size=(2, 3))
    outputs, final = interpret(program, {"x": x}, {"a": a}, {"s": s, "z": z})
    combine = {
        "real": lambda h, v: -a * h + v,
        "log": lambda h, v: np.log(np.exp(h - a) + np.exp(v)),
        "maxplus": lambda h, v: np.maximum(h - a, v),
        "minplus": lambda h, v: np.minimum(h - a, v),
    }[semiring]
    for t in range(4):
        after = combine(s, x[:, t])
        np.testing.assert_allclose(outputs["y"][:, t], s + after + z, rtol=1e-12)
        s, z = after, x[:, t]
    np.testing.assert_allclose(final["s"], s, rtol=1e-12)
    np.testing.assert_allclose(final["z"], z)


def test_reachability_over_bool() -> None:
    spec = lower(
        "scan reach over bool\naxes s\ninput e[s]: bool\nparam A[s,s]: bool\nstate p[s]: bool\n"
        "p = (p @ A) + e\noutput p[s]\n"
    )
    rng = np.random.default_rng(2)
    e, a = rng.random((2, 5, 4)) < 0.2, rng.random((4, 4)) < 0.3
    outputs, _ = interpret(spec, {"e": e}, {"A": a})
    p = np.zeros((2, 4), bool)
    for t in range(5):
        p = (p.astype(int) @ a.astype(int) > 0) | e[:, t]
        np.testing.assert_array_equal(outputs["p"][:, t], p)
