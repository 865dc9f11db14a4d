"""How operators are called: arguments, states, dtypes, direction, forms, memory; outputs; sizes at their limits."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from language.support import agree, operator
from scanc_runtime.errors import ArgumentError

D = torch.float64
Tensor = torch.Tensor

GLA = (
    "scan gla\nbatch h\naxes i, j\ninput q[h,i], k[h,i], v[h,j]\ninput g[h,i]\nstate S[h,i,j]\n"
    "S = exp(g) * S + k * v\no = q · S\noutput o[h,j]"
)
CELL = "axes d\ninput x[d]\nparam a[d]\nstate h[d]\nh = tanh(a*h + x)\noutput h[d]"
TWO = "axes d\ninput x[d]\nparam a[d]\nstate u[d], w[d] = 1\nu = a*u + x\nw = w*0.5 + u\noutput w[d], u[d]"


def gla(batch: int = 2, time: int = 5, dtype: torch.dtype = D) -> list[Tensor]:
    q, k, v = (torch.randn(batch, time, 2, size, dtype=D) for size in (3, 3, 4))
    g = -torch.rand(batch, time, 2, 3, dtype=D)
    return [t.to(dtype) for t in (q, k, v, g)]


def gla_by_hand(q: Tensor, k: Tensor, v: Tensor, g: Tensor, S: Tensor | None = None) -> tuple[Tensor, Tensor]:
    S = torch.zeros(q.shape[0], 2, 3, 4, dtype=q.dtype) if S is None else S
    out = []
    for t in range(q.shape[1]):
        S = g[:, t].exp()[..., None] * S + k[:, t, ..., None] * v[:, t, :, None]
        out.append(torch.einsum("bhi,bhij->bhj", q[:, t], S))
    return torch.stack(out, 1), S


def forms(op) -> Iterator[str]:
    yield from ("auto", *op.forms)


# --- arguments ---


def test_arguments_in_declaration_order_or_by_name() -> None:
    op, tensors = operator(GLA), gla()
    expected, _ = gla_by_hand(*tensors)
    named = dict(zip("qkvg", tensors, strict=True))
    for form in forms(op):
        torch.testing.assert_close(op(*tensors, form=form), expected)
        torch.testing.assert_close(op(**named, form=form), expected)
        torch.testing.assert_close(op(tensors[0], g=tensors[3], k=tensors[1], v=tensors[2], form=form), expected)


def test_declaration_order_is_that_of_the_text_params_between_inputs_too() -> None:
    op = operator(
        "axes d\nparam a[d]\ninput x[d]\nstate h[d]\nparam b\nh = a*h + b*x\ninput y[d]\nz = h - y\noutput z[d]"
    )
    a, x, b, y = (
        torch.randn(2, dtype=D),
        torch.randn(1, 3, 2, dtype=D),
        torch.randn((), dtype=D),
        torch.randn(1, 3, 2, dtype=D),
    )
    h, expected = torch.zeros(1, 2, dtype=D), []
    for t in range(3):
        h = a * h + b * x[:, t]
        expected.append(h - y[:, t])
    for form in forms(op):
        torch.testing.assert_close(op(a, x, b, y, form=form), torch.stack(expected, 1))
    out, _ = op.step(a, x[:, 0], b, y[:, 0])
    torch.testing.assert_close(out, expected[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda op, q, k, v, g: op(q, k, v), "lacks `g`"),
        (lambda op, q, k, v, g: op(q, k, v, g, g), "takes 4 tensors, 5 were given"),
        (lambda op, q, k, v, g: op(q, k, v, g, q=q), "takes 4 tensors|got `q` twice"),
        (lambda op, q, k, v, g: op(q, k, v, gg=g), "no input or param `gg`"),
        (lambda op, q, k, v, g: op(q, k, v, g[..., :2]), "i = "),
        (lambda op, q, k, v, g: op(q, k, v, g[:, :3]), "number of time steps"),
        (lambda op, q, k, v, g: op(q, k, v, g[:1]), "batch size"),
        (lambda op, q, k, v, g: op(q, k, v, g[0]), "has 3 dimensions, not 4"),
        (lambda op, q, k, v, g: op(q, k, v, g.long()), "int64"),
        (lambda op, q, k, v, g: op(q, k, v, g.to(torch.complex128)), "complex128"),
        (lambda op, q, k, v, g: op(q, k, v, None), "not a tensor"),
        (lambda op, q, k, v, g: op(q, k, v, 1.0), "not a tensor"),
        (lambda op, q, k, v, g: op(q, k, v, g.numpy()), "not a tensor"),
        (lambda op, q, k, v, g: op(q, k, v, g, form="convolution"), "convolution"),
        (lambda op, q, k, v, g: op(q, k, v, g, form="chunkd"), "chunked"),
        (lambda op, q, k, v, g: op(q, k, v, g, initial_state={"T": q}), "no state `T`"),
        (lambda op, q, k, v, g: op(q, k, v, g, initial_state=q), "wrong size along axis h"),
        (lambda op, q, k, v, g: op(q, k, v, g, initial_state=[q]), "not a tensor|mapping"),
        (lambda op, q, k, v, g: op(q, k, v, g, initial_state={"S": None}), "not a tensor"),
        (lambda op, q, k, v, g: op(q, k, v, g, initial_state={1: q}), "no state"),
        (lambda op, q, k, v, g: op(q, k, v, g, cu_seqlens=q), "packed sequences"),
        (lambda op, q, k, v, g: op.step(q, k, v, g), "dimensions"),
        (lambda op, q, k, v, g: op.step(q[:, 0], k[:, 0], v[:, 0], g[:, 0], state={"x": q}), "no state"),
        (lambda op, q, k, v, g: op(), "lacks"),
        (lambda op, q, k, v, g: op(q, k, v, g.to("meta")), "device|meta"),
    ],
)
def test_wrong_calls_name_what_was_declared_and_what_came(call, message: str) -> None:
    with pytest.raises(ArgumentError, match=message) as caught:
        call(operator(GLA), *gla())
    assert isinstance(caught.value, (TypeError, ValueError))


def test_a_form_that_the_class_does_not_admit_names_the_reason() -> None:
    op = operator(CELL)
    with pytest.raises(ArgumentError, match="nonlinear"):
        op(torch.randn(1, 2, 3), torch.randn(3), form="parallel")


def test_tensors_named_like_options_are_taken_by_position() -> None:
    op = operator("axes d\ninput form[d], reverse[d], cu_seqlens[d], tensors[d]\nparam self, initial_state\n"
                  "y = form + 2*reverse + 3*cu_seqlens + 4*tensors + self + initial_state\noutput y[d]")  # fmt: skip
    a, b, c, e = (torch.randn(1, 2, 3, dtype=D) for _ in range(4))
    s, i = torch.randn((), dtype=D), torch.randn((), dtype=D)
    expected = a + 2 * b + 3 * c + 4 * e + s + i
    for form in forms(op):
        torch.testing.assert_close(op(a, b, c, e, s, i, form=form), expected)
    torch.testing.assert_close(op.step(a[:, 0], b[:, 0], c[:, 0], e[:, 0], s, i)[0], expected[:, 0])


def test_keywords_of_python_are_passed_by_name_through_a_mapping() -> None:
    op = operator("input λ, import_, None, self, tensors\ny = λ + None * self - import_ * tensors\noutput y")
    values = {name: torch.randn(1, 2, dtype=D) for name in ("lambda", "import_", "None", "self", "tensors")}
    expected = values["lambda"] + values["None"] * values["self"] - values["import_"] * values["tensors"]
    for form in forms(op):
        torch.testing.assert_close(op(**values, form=form), expected)


# --- states ---


def test_a_single_state_may_be_passed_bare() -> None:
    op, tensors = operator(GLA), gla()
    s0 = torch.randn(2, 2, 3, 4, dtype=D)
    expected, final = gla_by_hand(*tensors, s0)
    for form, start in itertools.product(forms(op), (s0, {"S": s0})):
        out, state = op(*tensors, initial_state=start, return_state=True, form=form)
        torch.testing.assert_close(out, expected)
        assert isinstance(state, dict)
        assert list(state) == ["S"]
        torch.testing.assert_close(state["S"], final)


def test_several_states_are_a_mapping_and_a_partial_one_is_completed() -> None:
    op = operator(TWO)
    x, a = torch.randn(2, 4, 3, dtype=D), torch.randn(3, dtype=D)
    u0 = torch.randn(2, 3, dtype=D)
    for form in forms(op):
        full = op(x, a, initial_state={"u": u0, "w": torch.ones(2, 3, dtype=D)}, form=form)
        partial = op(x, a, initial_state={"u": u0}, form=form)
        none = op(x, a, initial_state={}, form=form)
        torch.testing.assert_close(partial, full)
        torch.testing.assert_close(none, op(x, a, form=form))
        with pytest.raises(ArgumentError, match="2 states"):
            op(x, a, initial_state=u0, form=form)


def test_one_declared_and_one_hidden_state_are_two() -> None:
    op = operator("axes d\ninput x[d]\nstate h[d]\nh = 0.5*h + prev(x, 2)\noutput h[d]")
    x = torch.randn(2, 4, 3, dtype=D)
    _, state = op(x, return_state=True)
    assert {name: tuple(t.shape) for name, t in state.items()} == {"h": (2, 3), "prev.x": (2, 2, 3)}
    torch.testing.assert_close(state["prev.x"], x[:, -2:])
    with pytest.raises(ArgumentError, match="mapping"):
        op(x, initial_state=torch.zeros(2, 3, dtype=D))
    only = operator("axes d\ninput x[d]\ny = x - prev(x, 2)\noutput y[d]")
    past = torch.randn(2, 2, 3, dtype=D)
    for form in forms(only):
        torch.testing.assert_close(only(x, initial_state=past, form=form)[:, :2], x[:, :2] - past)


def test_the_state_handed_on_continues_the_sequence() -> None:
    for text, tensors in ((GLA, gla(time=7)), (TWO, None)):
        op = operator(text)
        if tensors is None:
            tensors, fixed = [torch.randn(2, 7, 3, dtype=D)], [torch.randn(3, dtype=D)]
        else:
            fixed = []
        for form, cut in itertools.product(forms(op), (0, 1, 3, 7)):
            whole, end = op(*tensors, *fixed, return_state=True, form=form)
            first, state = op(*[t[:, :cut] for t in tensors], *fixed, return_state=True, form=form)
            second, state = op(
                *[t[:, cut:] for t in tensors], *fixed, initial_state=state, return_state=True, form=form
            )
            whole, first, second = (out if isinstance(out, tuple) else (out,) for out in (whole, first, second))
            for w, a, b in zip(whole, first, second, strict=True):
                torch.testing.assert_close(torch.cat([a, b], 1), w)
            for name in end:
                torch.testing.assert_close(state[name], end[name])


def test_gradients_flow_through_the_final_state() -> None:
    op, tensors = operator(GLA), gla()
    s0, weight = torch.randn(2, 2, 3, 4, dtype=D), torch.randn(2, 2, 3, 4, dtype=D)
    leaves = [t.requires_grad_() for t in (*tensors, s0)]
    wanted = torch.autograd.grad((gla_by_hand(*leaves[:4], leaves[4])[1] * weight).sum(), leaves, allow_unused=True)
    for form in forms(op):
        _, state = op(*leaves[:4], initial_state=leaves[4], return_state=True, form=form)
        found = torch.autograd.grad((state["S"] * weight).sum(), leaves, allow_unused=True)
        for f, w in zip(found, wanted, strict=True):
            assert (w is not None) or f is None or not f.any()
            if w is not None:
                torch.testing.assert_close(f, w)


def test_step_takes_a_bare_state_and_returns_a_mapping() -> None:
    op, tensors = operator(GLA), gla(time=3)
    expected, final = gla_by_hand(*tensors)
    state: object = torch.zeros(2, 2, 3, 4, dtype=D)
    for t in range(3):
        out, state = op.step(*[x[:, t] for x in tensors], state=state)
        assert out.shape == (2, 2, 4)
        torch.testing.assert_close(out, expected[:, t])
    torch.testing.assert_close(state["S"], final)


# --- outputs ---


def test_outputs_in_declaration_order() -> None:
    op = operator("axes d\ninput x[d]\nstate h[d]\noutput h[d]\na = x + 1\noutput s, a[d]\ns = sum[d](x)\nh = h + x")
    x = torch.randn(2, 3, 2, dtype=D)
    for form in forms(op):
        result = op(x, form=form)
        assert isinstance(result, tuple)
        h, s, a = result
        torch.testing.assert_close(h, x.cumsum(1))
        torch.testing.assert_close(s, x.sum(-1))
        torch.testing.assert_close(a, x + 1)
        both, state = op(x, return_state=True, form=form)
        assert len(both) == 3
        assert list(state) == ["h"]


def test_a_state_as_output_is_its_value_at_the_end_of_the_step() -> None:
    agree(
        "axes d\ninput x[d]\nstate h[d]\nh = h + x\nmid = h\nh = h * 0.5\noutput h[d], mid[d]",
        lambda v: {"h": (v.h + v.x) * 0.5, "mid": v.h + v.x},
        {"d": 2},
    )


def test_outputs_that_are_inputs_params_or_numbers_under_another_name() -> None:
    """They have the shape of outputs and share no memory with an argument."""
    op = operator(
        "axes d\ninput x[d], n: int\nparam a[d]\nstate h[d]\nh = x\nu = x\nw = a\nc = 3\nm = n\n"
        "output u[d], w[d], c, m, h[d]"
    )
    x, n, a = torch.randn(2, 3, 4, dtype=D), torch.randint(5, (2, 3)), torch.randn(4, dtype=D)
    for form in forms(op):
        (u, w, c, m, h), state = op(x, n, a, return_state=True, form=form)
        torch.testing.assert_close(u, x)
        torch.testing.assert_close(w, a.expand(2, 3, 4))
        assert c.shape == (2, 3)
        assert c.unique().tolist() == [3]
        assert torch.equal(m, n)
        memory = {t.untyped_storage().data_ptr() for t in (x, n, a)}
        for name, out in {"u": u, "w": w, "m": m, "h": h, "state h": state["h"]}.items():
            assert out.untyped_storage().data_ptr() not in memory, (form, name)


def test_two_outputs_of_one_value_do_not_share_memory() -> None:
    op = operator("axes d\ninput x[d]\nstate h[d]\nh = h + x\na = h\nb = h\noutput a[d], b[d], h[d]")
    x = torch.randn(2, 3, 4, dtype=D)
    for form in forms(op):
        (a, b, h), state = op(x, return_state=True, form=form)
        kept = [t.clone() for t in (b, h, state["h"])]
        a.add_(1)
        for now, before in zip((b, h, state["h"]), kept, strict=True):
            assert torch.equal(now, before), form


def test_a_state_that_never_changes_is_returned_as_a_tensor_of_its_own() -> None:
    op = operator("axes d\ninput x[d]\nparam c0[d]\nstate h[d] = c0, f[d]\ny = h*x + f\noutput y[d]")
    x, c0 = torch.randn(2, 3, 4, dtype=D), torch.randn(4, dtype=D)
    f = torch.randn(2, 4, dtype=D)
    for form in forms(op):
        _, state = op(x, c0, initial_state={"f": f}, return_state=True, form=form)
        torch.testing.assert_close(state["h"], c0.expand(2, 4))
        torch.testing.assert_close(state["f"], f)
        memory = {t.untyped_storage().data_ptr() for t in (x, c0, f)}
        assert state["f"].untyped_storage().data_ptr() not in memory, form
        state["h"][0].add_(1)
        torch.testing.assert_close(state["h"][1], c0)


# --- dtypes ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_outputs_have_the_dtype_of_the_inputs_and_states_are_wide(dtype: torch.dtype) -> None:
    op, tensors = operator(GLA), gla(dtype=dtype)
    expected, final = gla_by_hand(*[t.double() for t in tensors])
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    for form in forms(op):
        leaves = [t.clone().requires_grad_() for t in tensors]
        out, state = op(*leaves, return_state=True, form=form)
        assert out.dtype == dtype
        assert state["S"].dtype == wide
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(out.double(), expected, rtol=4 * eps, atol=16 * eps)
        torch.testing.assert_close(state["S"].double(), final, rtol=1e-5, atol=1e-5)
        for leaf, grad in zip(leaves, torch.autograd.grad(out.sum() + state["S"].sum(), leaves), strict=True):
            assert grad.dtype == leaf.dtype
    out, state = op.step(*[t[:, 0] for t in tensors])
    assert (out.dtype, state["S"].dtype) == (dtype, wide)


def test_promotion_of_the_unpinned_inputs() -> None:
    op = operator("axes d\ninput x[d], y[d], g[d]: fp32, z: complex, n: int, b: bool\nparam a[d]\n"
        "r = x*y*g + a\nc = z * x\n"
                  "i = n + 1\nt = x > y\noutput r[d], c[d], i, t[d]")  # fmt: skip

    def dtypes(x: torch.dtype, y: torch.dtype, a: torch.dtype, z: torch.dtype, g: torch.dtype = torch.float32):
        shape = (1, 2, 3)
        tensors = [torch.randn(shape).to(x), torch.randn(shape).to(y), torch.randn(shape).to(g),
                   torch.randn(1, 2).to(z),
                   torch.randint(5, (1, 2)), torch.rand(1, 2) < 0.5, torch.randn(3).to(a)]  # fmt: skip
        found = {tuple(out.dtype for out in op(*tensors, form=form)) for form in forms(op)}
        assert len(found) == 1, found
        return found.pop()

    bf16, f16, f32, f64, c64, c128 = (
        torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.complex64, torch.complex128,
    )  # fmt: skip
    assert dtypes(f32, f32, f32, c64) == (f32, c64, torch.int64, torch.bool)
    assert dtypes(bf16, bf16, f32, c64)[:2] == (f32, c64)  # the complex input is fp32
    assert dtypes(f32, f32, f64, c64)[:2] == (f32, c64)  # params may be wider
    assert dtypes(f64, f32, f32, c64)[:2] == (f64, c128)
    assert dtypes(f32, f32, f32, c128)[:2] == (f64, c128)
    assert dtypes(bf16, f16, f32, c64)[:2] == (f32, c64)
    assert dtypes(f32, f32, f32, c64, f64)[:2] == (f32, c64)  # a pinned input does not promote


def test_params_may_be_wider_than_inputs_and_are_used_as_they_are() -> None:
    op = operator("axes d\ninput x[d]\nparam a[d]\nstate h[d]\nh = a*h + x\noutput h[d]")
    x, a = torch.randn(2, 5, 3), 1 - torch.rand(3, dtype=D) * 1e-9
    h, expected = torch.zeros(2, 3, dtype=D), []
    for t in range(5):
        h = a * h + x[:, t].double()
        expected.append(h)
    for form in forms(op):
        leaf = a.clone().requires_grad_()
        out, state = op(x, leaf, return_state=True, form=form)
        assert out.dtype == torch.float32
        assert state["h"].dtype == D
        torch.testing.assert_close(state["h"], h, rtol=1e-14, atol=1e-14)
        assert torch.equal(out, torch.stack(expected, 1).float()), form
        (grad,) = torch.autograd.grad(out.sum(), leaf)
        assert grad.dtype == D
    bf = operator(CELL)
    assert bf(x.bfloat16(), torch.randn(3)).dtype == torch.bfloat16


def test_pinned_inputs_take_no_part_in_promotion() -> None:
    op = operator("axes d\ninput x[d], g[d]: fp32\nstate h[d]\nh = exp(g)*h + x\noutput h[d]")
    x, g = torch.randn(2, 4, 3).bfloat16(), -torch.rand(2, 4, 3)
    for form in forms(op):
        out, state = op(x, g, return_state=True, form=form)
        assert (out.dtype, state["h"].dtype) == (torch.bfloat16, torch.float32)
        with pytest.raises(ArgumentError, match="pins it"):
            op(x, g.bfloat16(), form=form)
    assert op(x.double(), g).dtype == D
    only = operator("axes d\ninput x[d]: fp32\nstate h[d]\nh = 0.5*h + x\noutput h[d]")
    assert only(torch.randn(1, 2, 3)).dtype == torch.float32
    params = operator("input x\nparam a: fp64\nstate h\nh = a*h + x\noutput h")
    out, state = params(torch.randn(1, 3), torch.tensor(0.5, dtype=D), return_state=True)
    assert (out.dtype, state["h"].dtype) == (torch.float32, D)
    with pytest.raises(ArgumentError, match="float64"):
        params(torch.randn(1, 3), torch.tensor(0.5))


def test_states_that_are_narrower_are_widened_and_wider_ones_are_refused() -> None:
    op, tensors = operator(GLA), gla(dtype=torch.bfloat16)
    s0 = torch.randn(2, 2, 3, 4)
    for form in forms(op):
        _, state = op(*tensors, initial_state=s0.bfloat16(), return_state=True, form=form)
        assert state["S"].dtype == torch.float32
        with pytest.raises(ArgumentError, match="wider"):
            op(*tensors, initial_state=s0.double(), form=form)
    _, state = op(*gla(), initial_state=s0, return_state=True)
    assert state["S"].dtype == D


def test_arithmetic_is_wide_inside() -> None:
    """A sum of 4,096 small bf16 tokens, which bf16 arithmetic would lose."""
    op = operator("input x\nstate h\nh = h + x\noutput h")
    x = torch.full((1, 1025), 2.0**-8).bfloat16()
    for form in op.forms:
        assert op(x, form=form)[0, -1].item() == pytest.approx(1025 / 256, rel=1e-2)


def test_int_inputs_of_any_width_and_bools() -> None:
    op = operator("input n: int, b: bool\nstate c: int\nc = where(b, 0, c) + n\ny = c * 0.5\noutput c, y")
    for dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        n = torch.tensor([[1, 2, 100, 100, 100]]).to(dtype)
        b = torch.tensor([[False, True, False, False, False]])
        for form in forms(op):
            (c, y), state = op(n, b, return_state=True, form=form)
            assert c.tolist() == [[1, 2, 102, 202, 302]]
            assert (c.dtype, y.dtype, state["c"].dtype) == (torch.int64, torch.float32, torch.int64)
    with pytest.raises(ArgumentError):
        op(torch.randn(1, 2), torch.rand(1, 2) < 0.5)
    with pytest.raises(ArgumentError):
        op(torch.zeros(1, 2, dtype=torch.int64), torch.zeros(1, 2))


# --- direction ---


def test_reverse_runs_the_same_program_on_the_reversed_sequence() -> None:
    op, tensors = operator(GLA), gla()
    expected, final = gla_by_hand(*[t.flip(1) for t in tensors])
    s0 = torch.randn(2, 2, 3, 4, dtype=D)
    for form in forms(op):
        out, state = op(*tensors, reverse=True, return_state=True, form=form)
        torch.testing.assert_close(out, expected.flip(1))
        torch.testing.assert_close(state["S"], final)
        out = op(*tensors, initial_state=s0, reverse=True, form=form)
        torch.testing.assert_close(out[:, -1], gla_by_hand(*[t[:, -1:] for t in tensors], s0)[0][:, 0])


def test_reverse_of_the_past() -> None:
    """In reverse, the previous token is the next one in time."""
    op = operator("axes w = 2\ninput x\nparam k[w]\ny = prev(x, 2) + 10 * conv[w](x, k)\noutput y")
    x, k = torch.randn(1, 5, dtype=D), torch.randn(2, dtype=D)
    after = torch.cat([x, torch.zeros(1, 2, dtype=D)], 1)
    for form in forms(op):
        out, state = op(x, k, reverse=True, return_state=True, form=form)
        torch.testing.assert_close(out, after[:, 2:] + 10 * (k[1] * x + k[0] * after[:, 1:6]))
        torch.testing.assert_close(state["prev.x"], x[:, [1, 0]])


# --- gates and divisions ---


def test_growing_gates_take_the_exact_form() -> None:
    op = operator(GLA)
    q, k, v, g = gla(time=12)
    for gate in (g * 0 + 3.0, -g * 8, torch.where(torch.rand_like(g) < 0.5, g * 100, 5.0)):
        expected, _ = gla_by_hand(q, k, v, gate)
        for form in forms(op):
            found = op(q, k, v, gate, form=form)
            scale = expected.abs().amax(dim=1, keepdim=True).clamp_min(1.0)
            assert ((found - expected) / scale).abs().max() < 1e-10, form
            per_token = (found - expected).abs() / expected.abs().clamp_min(1.0)
            assert per_token.max() < 1e-8, form


def test_gates_of_zero_and_of_minus_infinity() -> None:
    op = operator(GLA)
    q, k, v, g = gla(time=6)
    g[:, 2] = -torch.inf
    g[:, 4] = 0
    expected, _ = gla_by_hand(q, k, v, g)
    for form in forms(op):
        leaves = [t.clone().requires_grad_() for t in (q, k, v, g)]
        out = op(*leaves, form=form)
        torch.testing.assert_close(out, expected)
        for grad in torch.autograd.grad(out.sum(), leaves):
            assert grad.isfinite().all(), form


def test_division_by_a_state_is_legal_and_nonlinear() -> None:
    text = (
        "axes d\ninput x[d]\nstate h[d] = 1, n = 1\nn = n + 0.1\nh = x / (h*h + n) + 0.5*h\ny = h / n\n"
        "output y[d], h[d]"
    )
    agree(
        text,
        lambda v: (lambda h: {"h": h, "n": v.n + 0.1, "y": h / (v.n + 0.1)[:, None]})(
            v.x / (v.h * v.h + (v.n + 0.1)[:, None]) + 0.5 * v.h
        ),
        {"d": 2},
        start={"h": 1.0, "n": 1.0},
        random_start=False,
    )
    assert "nonlinear" in operator(text).explain()


def test_a_normaliser_that_the_output_is_divided_by() -> None:
    op = operator(
        "axes i, j\ninput k[i], v[j]\nstate S[i,j], z[i]\nS = S + k*v\nz = z + k\no = (k · S) / (k · z)\noutput o[j]"
    )
    assert "parallel" in op.forms
    assert "chunked" in op.forms


# --- sizes ---


@pytest.mark.parametrize("text", [GLA, CELL, TWO, "axes d\ninput x[d]\nparam a[d]\ny = x*a\noutput y[d]"])
@pytest.mark.parametrize(("batch", "time"), [(2, 0), (0, 3), (0, 0), (1, 1)])
def test_empty_and_single_sequences(text: str, batch: int, time: int) -> None:
    op = operator(text)
    tensors = gla(batch, time) if text == GLA else [torch.randn(batch, time, 3, dtype=D), torch.randn(3, dtype=D)]
    for form, reverse in itertools.product(forms(op), (False, True)):
        leaves = [t.clone().requires_grad_() for t in tensors]
        result, state = op(*leaves, return_state=True, reverse=reverse, form=form)
        outputs = result if isinstance(result, tuple) else (result,)
        assert all(out.shape[:2] == (batch, time) for out in outputs)
        start = {"u": 0.0, "w": 1.0}
        if time == 0:
            for name, tensor in state.items():
                assert torch.equal(tensor, torch.full_like(tensor, start.get(name, 0.0))), (form, name)
        loss = sum(t.sum() for t in (*outputs, *state.values()))
        if loss.requires_grad:
            for leaf, grad in zip(leaves, torch.autograd.grad(loss, leaves, allow_unused=True), strict=True):
                assert grad is None or grad.shape == leaf.shape
                assert grad is None or grad.isfinite().all()


def test_an_empty_sequence_passes_the_gradient_of_the_state_on() -> None:
    op = operator(GLA)
    for form in forms(op):
        s0 = torch.randn(2, 2, 3, 4, dtype=D, requires_grad=True)
        tensors = [t.requires_grad_() for t in gla(time=0)]
        _, state = op(*tensors, initial_state=s0, return_state=True, form=form)
        assert torch.equal(state["S"], s0)
        (grad,) = torch.autograd.grad((state["S"] * 2).sum(), s0)
        assert torch.equal(grad, torch.full_like(s0, 2.0)), form


def test_a_param_that_begins_a_state_of_an_empty_sequence() -> None:
    op = operator("axes d\ninput x[d]\nparam c0[d]\nstate c[d] = c0\nc = c + x\noutput c[d]")
    for form in forms(op):
        c0 = torch.randn(3, dtype=D, requires_grad=True)
        _, state = op(torch.randn(2, 0, 3, dtype=D), c0, return_state=True, form=form)
        (grad,) = torch.autograd.grad(state["c"].sum(), c0)
        assert grad.tolist() == [2.0] * 3, form


@pytest.mark.parametrize("size", [0, 1])
def test_axes_of_size_zero_and_one(size: int) -> None:
    op = operator(GLA)
    for i, j in ((size, 2), (2, size), (size, size)):
        q, k, g = (torch.randn(2, 3, 1, i, dtype=D) for _ in range(3))
        v = torch.randn(2, 3, 1, j, dtype=D)
        S, expected = torch.zeros(2, 1, i, j, dtype=D), []
        for t in range(3):
            S = g[:, t].exp()[..., None] * S + k[:, t, ..., None] * v[:, t, :, None]
            expected.append(torch.einsum("bhi,bhij->bhj", q[:, t], S))
        for form in forms(op):
            leaves = [t.clone().requires_grad_() for t in (q, k, v, g)]
            out = op(*leaves, form=form)
            torch.testing.assert_close(out, torch.stack(expected, 1))
            grads = torch.autograd.grad(out.sum(), leaves)
            assert [grad.shape for grad in grads] == [leaf.shape for leaf in leaves]


def test_a_sum_over_an_axis_of_size_zero_is_the_zero_of_the_semiring() -> None:
    for semiring, zero in (("real", 0.0), ("log", -torch.inf), ("maxplus", -torch.inf), ("minplus", torch.inf)):
        op = operator(
            f"scan s over {semiring}\naxes n, m\ninput x[n], y[m]\na = sum[n](x)\nb = x · x\nc = a * y\n"
            f"output a, b, c[m]"
        )
        for form in forms(op):
            a, b, _ = op(torch.zeros(1, 2, 0, dtype=D), torch.zeros(1, 2, 3, dtype=D), form=form)
            assert a.tolist() == [[zero, zero]], (semiring, form)
            assert b.tolist() == [[zero, zero]], (semiring, form)


def test_sequences_around_chunk_lengths() -> None:
    op = operator(GLA)
    for time in (15, 16, 17, 63, 64, 65, 131):
        tensors = gla(1, time)
        expected, final = gla_by_hand(*tensors)
        for form in forms(op):
            out, state = op(*tensors, return_state=True, form=form)
            torch.testing.assert_close(out, expected)
            torch.testing.assert_close(state["S"], final)


# --- memory layout ---


def layouts(tensor: Tensor) -> Iterator[Tensor]:
    """The tensor's values in other strides."""
    yield tensor.transpose(0, -1).contiguous().transpose(0, -1)
    yield torch.stack([tensor, tensor], -1)[..., 0]
    yield torch.cat([tensor, tensor], -1)[..., : tensor.shape[-1]]
    yield tensor.flip(-1).flip(-1)[..., :]


def test_non_contiguous_arguments() -> None:
    op, tensors = operator(GLA), gla()
    s0 = torch.randn(2, 2, 3, 4, dtype=D)
    expected, final = gla_by_hand(*tensors, s0)
    for form, kind in itertools.product(forms(op), range(4)):
        moved = [list(layouts(t))[kind].requires_grad_() for t in (*tensors, s0)]
        out, state = op(*moved[:4], initial_state=moved[4], return_state=True, form=form)
        torch.testing.assert_close(out, expected)
        torch.testing.assert_close(state["S"], final)
        for grad in torch.autograd.grad(out.sum() + state["S"].sum(), moved):
            assert grad.isfinite().all()


def test_expanded_arguments_and_their_gradients() -> None:
    op = operator("axes d\ninput x[d], g[d]\nparam a[d]\nstate h[d]\nh = sigmoid(g)*h + a*x\noutput h[d]")
    x, g = torch.randn(2, 4, 1, dtype=D), torch.randn(1, 1, 3, dtype=D)
    a, s = torch.randn(1, dtype=D), torch.randn(1, 1, dtype=D)

    def run(call, leaves):
        x, g, a, s = leaves
        out = call(x.expand(2, 4, 3), g.expand(2, 4, 3), a.expand(3), s.expand(2, 3))
        return out, torch.autograd.grad((out * torch.arange(24.0, dtype=D).reshape(2, 4, 3)).sum(), leaves)

    def by_hand(x, g, a, h):
        out = []
        for t in range(4):
            h = torch.sigmoid(g[:, t]) * h + a * x[:, t]
            out.append(h)
        return torch.stack(out, 1)

    leaves = [t.requires_grad_() for t in (x, g, a, s)]
    expected, wanted = run(by_hand, leaves)
    for form in forms(op):
        out, grads = run(lambda x, g, a, s, f=form: op(x, g, a, initial_state=s, form=f), leaves)
        torch.testing.assert_close(out, expected)
        torch.testing.assert_close(grads, wanted)


def test_one_tensor_for_several_arguments() -> None:
    op = operator(GLA)
    _, k, v, g = gla()
    for form in forms(op):
        leaf = k.clone().requires_grad_()
        (grad,) = torch.autograd.grad(op(leaf, leaf, v, g, form=form).sum(), leaf)
        twice = [k.clone().requires_grad_(), k.clone().requires_grad_()]
        parts = torch.autograd.grad(gla_by_hand(*twice, v, g)[0].sum(), twice)
        torch.testing.assert_close(grad, parts[0] + parts[1])


def test_arguments_are_not_changed() -> None:
    for text, tensors in ((GLA, gla()), (TWO, [torch.randn(2, 4, 3, dtype=D), torch.randn(3, dtype=D)])):
        op = operator(text)
        before = [t.clone() for t in tensors]
        for form in forms(op):
            leaves = [t.requires_grad_() for t in tensors]
            result = op(*leaves, form=form)
            torch.autograd.grad(sum(t.sum() for t in (result if isinstance(result, tuple) else (result,))), leaves)
            for now, then in zip(tensors, before, strict=True):
                assert torch.equal(now, then)


def test_unused_inputs_and_params_have_gradient_zero() -> None:
    op = operator(
        "axes d\ninput x[d], unused[d], n: int\nparam a[d], idle, C[d]: complex\nstate h[d]\nh = a*h + x\noutput h[d]"
    )
    x, u, n = torch.randn(2, 3, 4, dtype=D), torch.randn(2, 3, 4, dtype=D), torch.zeros(2, 3, dtype=torch.int64)
    a, idle, C = torch.randn(4, dtype=D), torch.randn((), dtype=D), torch.randn(4, dtype=torch.complex128)
    for form in forms(op):
        leaves = [t.clone().requires_grad_() for t in (x, u, a, idle, C)]
        out = op(leaves[0], leaves[1], n, *leaves[2:], form=form)
        grads = torch.autograd.grad(out.sum(), leaves, allow_unused=True)
        assert grads[0].abs().sum() > 0
        for i in (1, 3, 4):
            assert grads[i] is None or not grads[i].any()


def test_only_some_arguments_want_gradients() -> None:
    op, tensors = operator(GLA), gla()
    leaves = [t.requires_grad_() for t in tensors]
    wanted = torch.autograd.grad(gla_by_hand(*leaves)[0].sum(), leaves)
    for form, one in itertools.product(forms(op), range(4)):
        mixed = [t.detach().clone().requires_grad_(i == one) for i, t in enumerate(tensors)]
        (grad,) = torch.autograd.grad(op(*mixed, form=form).sum(), mixed[one])
        torch.testing.assert_close(grad, wanted[one])


def test_no_gradients_under_no_grad() -> None:
    op = operator(GLA)
    with torch.no_grad():
        out = op(*[t.requires_grad_() for t in gla()])
    assert not out.requires_grad
    with torch.inference_mode():
        assert op(*gla()).shape == (2, 5, 2, 4)


def test_double_backward() -> None:
    op = operator("axes d\ninput x[d], g[d]\nparam a[d]\nstate h[d]\nh = sigmoid(g)*h + a*x\noutput h[d]")
    leaves = [torch.randn(s, dtype=D, requires_grad=True) for s in ((1, 3, 2), (1, 3, 2), (2,))]
    for form in op.forms:
        assert torch.autograd.gradgradcheck(lambda *t, f=form: op(*t, form=f), leaves)


# --- explain and code ---


def test_explain_speaks_of_structure_before_a_call_and_of_values_with_tensors() -> None:
    op = operator(GLA)
    text = op.explain()
    assert "S" in text
    assert "diagonal" in text or "elementwise" in text or "linear" in text
    for form in set(op.forms) - {"interpret"}:
        assert form in text
    with pytest.raises(ArgumentError, match="chunked"):
        op.explain(form="chunkd")
    assert "not admitted" in op.explain(form="convolution")
    with_tensors = op.explain(*gla())
    assert with_tensors.startswith(text.rstrip())
    assert "T = 5" in with_tensors


def test_code_is_the_generated_module() -> None:
    op = operator(GLA)
    code = op.code()
    assert code == op.code("torch")
    compile(code, "module", "exec")
    assert "# S = exp(g) * S + k * v" in code


def test_a_compiled_text_twice_is_the_same_bytes() -> None:
    import scanc

    assert scanc.compile(GLA, target="torch").code() == scanc.compile(GLA, target="torch").code()
