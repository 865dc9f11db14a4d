"""Calling: arguments in order or by name, states bare or in mappings, layouts, dtypes, forms."""

from __future__ import annotations

import pytest
import torch
from scanc_runtime import ArgumentError
from torch.testing import assert_close

from runtime import fakes

EMA, ATTENTION, MIXED = fakes.ema(), fakes.attention(), fakes.mixed()


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def ema_loop(a, x, h):
    rows = []
    for t in range(x.shape[1]):
        h = a * h + (1 - a) * x[:, t]
        rows.append(h)
    return torch.stack(rows, 1), h


def attention_arguments(dtype=torch.float32):
    shapes = ((2, 5, 3, 4), (2, 5, 2, 3), (2, 5, 5, 2))
    return [torch.randn(shape, dtype=dtype) for shape in shapes]


def mixed_arguments():
    return {
        "x": torch.randn(2, 5, 4),
        "g": torch.randn(2, 5, 4),
        "code": torch.randint(0, 3, (2, 5, 4)),
        "keep": torch.rand(2, 5) > 0.3,
        "A": 0.3 * torch.randn(3, 3, dtype=torch.complex64),
        "c0": torch.randn(3),
    }


def test_order_of_declaration_and_names():
    a, x = torch.rand(4), torch.randn(2, 6, 4)
    expected, last = ema_loop(a, x, torch.zeros(2, 4))
    for result in (EMA(a, x), EMA(a, x=x), EMA(x=x, a=a)):
        assert_close(result, expected)
    output, state = EMA(a, x, return_state=True)
    assert_close(output, expected)
    assert list(state) == ["h"]
    assert_close(state["h"], last)


def test_initial_state_bare_and_as_mapping():
    a, x, h = torch.rand(4), torch.randn(2, 6, 4), torch.randn(2, 4)
    expected, _ = ema_loop(a, x, h)
    assert_close(EMA(a, x, initial_state=h), expected)
    assert_close(EMA(a, x, initial_state={"h": h}), expected)
    assert_close(EMA(a, x, initial_state={}), EMA(a, x))


def test_a_split_sequence_is_the_whole():
    a, x = torch.rand(4), torch.randn(2, 6, 4)
    left, state = EMA(a, x[:, :2], return_state=True)
    right = EMA(a, x[:, 2:], initial_state=state)
    assert_close(torch.cat([left, right], 1), EMA(a, x))


def test_reverse_is_the_program_on_the_reversed_sequence():
    a, x = torch.rand(4), torch.randn(2, 6, 4)
    output, state = EMA(a, x, reverse=True, return_state=True)
    flipped, last = EMA(a, x.flip(1), return_state=True)
    assert_close(output, flipped.flip(1))
    assert_close(state["h"], last["h"])


def test_step_by_step_is_the_whole():
    q, k, v = attention_arguments()
    whole, last = ATTENTION(q, k, v, return_state=True)
    state, rows = None, []
    for t in range(5):
        row, state = ATTENTION.step(q[:, t], k[:, t], v=v[:, t], state=state)
        rows.append(row)
    assert_close(torch.stack(rows, 1), whole)
    assert set(state) == {"S", "prev.k"}
    for name, tensor in last.items():
        assert_close(state[name], tensor)


def test_layouts_and_hidden_buffers():
    q, k, v = attention_arguments()
    S = torch.randn(2, 5, 2, 3)  # [B, j, g, i]
    past = torch.randn(2, 2, 2, 3)  # [B, count, g, i]
    output, state = ATTENTION(q, k, v, initial_state={"S": S, "prev.k": past}, return_state=True)
    keys = torch.cat([past, k], 1)  # k two steps before stands at the same index
    rows = []
    for t in range(5):
        S = 0.9 * S + torch.einsum("bgi,bjg->bjgi", k[:, t] + 0.5 * keys[:, t], v[:, t])
        heads = q[:, t].unflatten(2, (2, 2))  # [B, i, g, r]
        rows.append(torch.einsum("bigr,bjgi->bjgr", heads, torch.tanh(S)).flatten(2))
    assert_close(output, torch.stack(rows, 1))
    assert_close(state["S"], S)
    assert_close(state["prev.k"], k[:, -2:])


def test_partial_states_are_completed_from_numbers_and_params():
    arguments = mixed_arguments()
    h = torch.randn(2, 4, 3, dtype=torch.complex64)
    given = {"h": h, "m": arguments["c0"][None, :, None].expand(2, 3, 4), "s": torch.full((2, 4), 2.5)}
    (y, z, hit), state = MIXED(**arguments, initial_state={"h": h}, return_state=True)
    (y2, z2, hit2), state2 = MIXED(**arguments, initial_state=given, return_state=True)
    for one, other in zip((y, z, hit, *state.values()), (y2, z2, hit2, *state2.values()), strict=True):
        assert_close(one, other)
    assert z.shape == (2, 5, 3, 4)
    assert (z.dtype, hit.dtype) == (torch.complex64, torch.bool)
    assert list(state) == ["h", "m", "s"]


def test_a_param_as_initial_value_gets_its_gradient():
    arguments = mixed_arguments()
    c0 = arguments["c0"].requires_grad_()
    arguments["keep"] = torch.ones(2, 0, dtype=torch.bool)
    for name in ("x", "g", "code"):
        arguments[name] = arguments[name][:, :0]
    _, state = MIXED(**arguments, return_state=True)
    state["m"].sum().backward()
    assert_close(c0.grad, torch.full((3,), 8.0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype):
    a, x = torch.rand(4, dtype=torch.float32), torch.randn(2, 6, 4, dtype=dtype, requires_grad=True)
    output, state = EMA(a, x, return_state=True)
    assert output.dtype == dtype
    assert state["h"].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    output.float().sum().backward()
    assert x.grad.dtype == dtype
    again = EMA(a, x, initial_state={"h": state["h"].to(dtype)})
    assert again.dtype == dtype


def test_a_wide_param_widens_the_arithmetic_and_not_the_output():
    output, state = EMA(torch.rand(4, dtype=torch.float64), torch.randn(2, 6, 4), return_state=True)
    assert (output.dtype, state["h"].dtype) == (torch.float32, torch.float64)


def test_a_pinned_input_takes_no_part_in_promotion():
    arguments = {**mixed_arguments(), "x": torch.randn(2, 5, 4, dtype=torch.bfloat16)}
    assert MIXED(**arguments)[0].dtype == torch.bfloat16


def test_autocast_leaves_the_arithmetic_alone():
    q, k, v = attention_arguments()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ATTENTION(q, k, v), ATTENTION(q, k, v))
        inside = ATTENTION(q, k, v)
    assert torch.equal(inside, ATTENTION(q, k, v))


@pytest.mark.parametrize("shape", [(0, 6, 4), (2, 0, 4), (2, 6, 0), (1, 1, 1)])
def test_empty_and_single_sizes(shape):
    a = torch.rand(shape[-1], requires_grad=True)
    x, h = torch.randn(shape, requires_grad=True), torch.randn(shape[0], shape[2], requires_grad=True)
    output, state = EMA(a, x, initial_state=h, return_state=True)
    assert output.shape == shape
    if shape[1] == 0:
        assert_close(state["h"], h)
    (output.sum() + state["h"].sum()).backward()
    assert x.grad.shape == shape


def test_results_never_alias_arguments():
    a, x, h = torch.rand(4), torch.randn(2, 0, 4), torch.randn(2, 4)
    _, state = EMA(a, x, initial_state=h, return_state=True)
    state["h"].add_(1)
    assert_close(EMA(a, x, initial_state=h, return_state=True)[1]["h"], h)


def test_forms_agree():
    a, x = torch.rand(4), torch.randn(2, 6, 4)
    assert EMA.forms == ("recurrent", "chunked")
    assert_close(EMA(a, x, form="recurrent"), EMA(a, x, form="chunked"))
    with pytest.raises(ArgumentError, match="convolution': the decay depends on no input"):
        EMA(a, x, form="convolution")


def test_no_gradient_asked_none_saved(monkeypatch):
    a, x = torch.rand(4), torch.randn(2, 6, 4, requires_grad=True)
    with torch.no_grad():
        assert EMA(a, x).grad_fn is None
    assert EMA(a, x).grad_fn is not None
    assert EMA(a, x.detach()).grad_fn is None


def test_plan_text():
    a, x = torch.rand(4), torch.randn(2, 6, 4, dtype=torch.bfloat16)
    assert EMA.plan_text(a, x) == ("ema at B = 2, T = 6, d = 4: form chunked, computes in float32, returns bfloat16")
