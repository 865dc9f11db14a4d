"""Axes: sizes, second axes, renaming, merged axes; precedence; `·` and `@`."""

from __future__ import annotations

import pytest
import torch
from language.support import agree, operator, refused
from scanc_runtime.errors import ArgumentError

# --- sizes ---


def test_size_is_a_number() -> None:
    agree(
        "axes d, w = 4\ninput x[d], k[w]\ny = x / size(d) + sum[w](k) * size(w) ^ 2\noutput y[d]",
        lambda v: {"y": v.x / 3 + v.k.sum(-1, keepdim=True) * 16},
        {"d": 3},
    )


def test_size_alone_is_a_whole_number() -> None:
    op = operator("axes d\ninput x[d]\nn = size(d)\nm = n * n\nr = n / 2\noutput n, m, r")
    x = torch.randn(2, 3, 5)
    for form in op.forms:
        n, m, r = op(x, form=form)
        assert n.dtype == torch.int64
        assert n.shape == (2, 3)
        assert n.unique().tolist() == [5]
        assert m.unique().tolist() == [25]
        assert r.unique().tolist() == [2.5]


def test_a_fixed_size_is_checked() -> None:
    op = operator("axes w = 4\ninput x[w]\ny = 2*x\noutput y[w]")
    assert op(torch.randn(1, 2, 4)).shape == (1, 2, 4)
    with pytest.raises(ArgumentError, match="w = 4"):
        op(torch.randn(1, 2, 3))


def test_an_axis_fixed_by_the_spec_may_belong_to_a_state_alone() -> None:
    agree(
        "axes n = 3\ninput x\nstate h[n]\nparam a[n]\nh = a*h + x\noutput h[n]",
        lambda v: {"h": v.a * v.h + v.x[:, None]},
    )
    op = operator("axes n = 3\ninput x\nstate h[n]\nh = 0.5*h + x\noutput h[n]")
    assert op(torch.randn(2, 4)).shape == (2, 4, 3)


def test_a_second_axis_of_the_same_size() -> None:
    def step(v):
        kk = v.k[:, :, None] * v.k[:, None]
        S = v.S + kk[..., None] * v.v[:, None, None]
        return {"S": S, "o": torch.einsum("bim,bimj->bj", v.q[:, :, None] * v.q[:, None], S) / 2}

    agree(
        "axes i, m = i, j\ninput q[i], k[i], v[j]\nstate S[i,m,j]\n"
        "S = S + k * rename[i=m](k) * v\no = (q * rename[i=m](q)) ·[i,m] S / 2\noutput o[j]",
        step,
        {"i": 3, "j": 2},
    )


def test_renaming_swaps_axes() -> None:
    agree(
        "axes i, m = i\ninput x[i]\nparam W[i,m]\nS = x * W\ny = sum[m](rename[i=m, m=i](S))\noutput y[i]",
        lambda v: {"y": (v.x[..., None] * v.W).sum(1)},
        {"i": 3},
    )


def test_a_second_axis_is_checked_for_its_size() -> None:
    op = operator("axes i, m = i\ninput x[i], y[m]\nz = x * y\noutput z[i,m]")
    assert op(torch.randn(1, 2, 3), torch.randn(1, 2, 3)).shape == (1, 2, 3, 3)
    with pytest.raises(ArgumentError):
        op(torch.randn(1, 2, 3), torch.randn(1, 2, 4))


def test_renaming_to_an_axis_of_another_size_is_an_error() -> None:
    assert "E0309" in refused("axes i, m\ninput x[i], y[m]\nz = rename[i=m](x)\noutput z[m]")


def test_a_chain_of_second_axes() -> None:
    agree(
        "axes i = 2, m = i, n = m\ninput x[i], y[n]\nz = rename[n=m](y) * x\nu = z ·[i] x\noutput z[i,m], u[m]",
        lambda v: {
            "z": v.x[:, :, None] * v.y[:, None],
            "u": (v.x * v.x).sum(-1, keepdim=True) * v.y,
        },
    )


# --- merged axes ---


def test_grouped_heads_g_is_slow() -> None:
    def step(v):
        S = torch.sigmoid(v.decay)[:, :, None, None] * v.S + v.k[..., None] * v.v[:, :, None]
        q = v.q.unflatten(1, (2, 3))
        return {"S": S, "o": torch.einsum("bgri,bgij->bgrj", q, S).flatten(1, 2)}

    agree(
        "batch g, r\naxes i, j\ninput q[g*r, i], k[g, i], v[g, j], decay[g]\nstate S[g, i, j]\n"
        "S = sigmoid(decay) * S + k * v\no = q · S\noutput o[g*r, j]",
        step,
        {"g": 2, "r": 3, "i": 2, "j": 2},
    )


def test_a_size_that_no_tensor_gives_alone_follows_by_division() -> None:
    op = operator("batch g, r\ninput q[g*r], k[g]\ny = q*k\nn = size(r)\noutput y[g*r], n")
    q, k = torch.randn(1, 2, 12), torch.randn(1, 2, 4)
    for form in op.forms:
        y, n = op(q, k, form=form)
        torch.testing.assert_close(y, q * k.repeat_interleave(3, -1))
        assert n.unique().tolist() == [3]
    with pytest.raises(ArgumentError, match="multiple of"):
        op(torch.randn(1, 2, 10), k)


def test_division_may_need_several_rounds() -> None:
    op = operator("axes a, b, c\ninput x[a*b*c], y[a*b], z[a]\nu = x*y*z\noutput u[a*b*c], y2[b]\ny2 = sum[a](y)")
    x, y, z = torch.randn(1, 2, 30), torch.randn(1, 2, 6), torch.randn(1, 2, 2)
    for form in op.forms:
        u, y2 = op(x, y, z, form=form)
        expected = (x.reshape(1, 2, 2, 3, 5) * y.reshape(1, 2, 2, 3, 1) * z.reshape(1, 2, 2, 1, 1)).flatten(2)
        torch.testing.assert_close(u, expected)
        torch.testing.assert_close(y2, y.reshape(1, 2, 2, 3).sum(2))


def test_merged_axes_of_params_states_and_outputs() -> None:
    """The state mapping has the declared layout, on the way in and on the way out."""
    op = operator(
        "axes g, r, i\ninput x[r*g], y[i]\nparam A[i, g*r], b[g]\nstate S[i*g, r]\nS = A*S + x*y*b\noutput S[r*i, g]"
    )
    x, y = torch.randn(2, 5, 8, dtype=torch.float64), torch.randn(2, 5, 3, dtype=torch.float64)
    A, b = torch.randn(3, 8, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    s0 = torch.randn(2, 6, 4, dtype=torch.float64)
    S = s0.reshape(2, 3, 2, 4)
    outs = []
    for t in range(5):
        xt = x[:, t].reshape(2, 1, 4, 2).transpose(2, 3)
        S = A.reshape(3, 2, 4) * S + xt * y[:, t, :, None, None] * b[:, None]
        outs.append(S.permute(0, 3, 1, 2).reshape(2, 12, 2))
    for form in op.forms:
        out, state = op(x, y, A, b, initial_state=s0, return_state=True, form=form)
        torch.testing.assert_close(out, torch.stack(outs, 1))
        torch.testing.assert_close(state["S"], S.reshape(2, 6, 4))


# --- broadcasting ---


def test_named_axes_broadcast() -> None:
    agree(
        "axes i, j\ninput k[i], v[j], s\ny = k * v + s - v / (1 + k*k)\noutput y[j,i]",
        lambda v: {
            "y": v.v[:, :, None] * v.k[:, None] + v.s[:, None, None] - v.v[:, :, None] / (1 + v.k[:, None] ** 2)
        },
        {"i": 2, "j": 3},
    )


def test_an_output_with_other_axes_than_its_value_is_an_error() -> None:
    assert "E0303" in refused("axes i, j\ninput x[i], y[j]\nz = x\noutput z[i,j]")
    assert "E0303" in refused("axes i, j\ninput x[i], y[j]\nz = x*y\noutput z[i]")


@pytest.mark.parametrize(
    "names", [("B", "T"), ("b", "t"), ("inputs", "n_col"), ("x", "y"), ("self", "time"), ("lambda", "None")]
)
def test_axes_may_have_any_name(names: tuple[str, str]) -> None:
    """Also those of the leading dimensions, and of tensors."""
    a, b = names
    agree(
        f"axes {a}, {b}\ninput x[{a}], y[{b}]\nparam A[{a},{b}], M[{b},{b}]\nstate S[{a},{b}]\nS = A*S + x*y\n"
        f"z = S @ M\n"
        f"n = size({a})\nu = z * n\noutput u[{a},{b}]",
        lambda v: (lambda S: {"S": S, "u": 2 * S @ v.M})(v.A * v.S + v.x[:, :, None] * v.y[:, None]),
        {a: 2, b: 3},
    )


# --- precedence ---


def scalar(expression: str, **values: float) -> float:
    """The value of an expression over scalar inputs a, b, c."""
    op = operator(f"input a, b, c\nr = {expression}\noutput r")
    tensors = [torch.full((1, 1), values.get(name, 0.0), dtype=torch.float64) for name in "abc"]
    found = {float(op(*tensors, form=form)) for form in op.forms}
    assert max(found) - min(found) < 1e-12, found
    return float(op(*tensors, form="interpret"))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("a^b^c", 2.0 ** (3.0**1.5)),
        ("-a^2", -4.0),
        ("(-a)^2", 4.0),
        ("a^-2", 0.25),
        ("a^-b^c", 2.0 ** -(3.0**1.5)),
        ("-a * b", -6.0),
        ("a * -b", -6.0),
        ("a - -b", 5.0),
        ("--a", 2.0),
        ("a - b - c", -2.5),
        ("a / b / c", 2 / 3 / 1.5),
        ("a / b * c", 2 / 3 * 1.5),
        ("a * b / c", 4.0),
        ("a + b * c", 6.5),
        ("(a + b) * c", 7.5),
        ("where(a + b > c * 2, 1, 0)", 1.0),
        ("where(a < b, a, b)", 2.0),
        ("where(a == a * 1, 1, 2)", 1.0),
        ("2 ^ 3 ^ 2 * a", 1024.0),
        ("-2 ^ 2 * a", -8.0),
        ("a - 2 ^ 2", -2.0),
        ("1 - a", -1.0),
        ("6 / a / b", 1.0),
    ],
)
def test_precedence_of_scalars(expression: str, expected: float) -> None:
    assert scalar(expression, a=2.0, b=3.0, c=1.5) == pytest.approx(expected, rel=1e-12)


def test_products_bind_tighter_than_multiplication() -> None:
    head = "axes i\ninput x[i], q[i], S[i]\n"
    for written in ("x * q·S", "x * q dot S", "x * (q·S)", "q·S * x", "q dot S * x"):
        agree(f"{head}y = {written}\noutput y[i]", lambda v: {"y": v.x * (v.q * v.S).sum(-1, keepdim=True)}, {"i": 3})
    agree(f"{head}y = -q·S\noutput y", lambda v: {"y": -(v.q * v.S).sum(-1)}, {"i": 3})
    agree(f"{head}y = q·S^2\noutput y", lambda v: {"y": (v.q * v.S**2).sum(-1)}, {"i": 3})
    agree(f"{head}y = x + q·S / 2\noutput y[i]", lambda v: {"y": v.x + (v.q * v.S).sum(-1, keepdim=True) / 2}, {"i": 3})


def test_products_go_from_the_left() -> None:
    agree(
        "axes i, j\ninput x[i], W[i,j], z[j]\ny = x · W · z\noutput y",
        lambda v: {"y": torch.einsum("bi,bij,bj->b", v.x, v.W, v.z)},
        {"i": 2, "j": 3},
    )
    agree(
        "axes n\ninput h[n]\nparam A[n,n], M[n,n]\ny = A @ M @ h\nz = h @ A @ M\nw = h @ A · h\noutput y[n], z[n], w",
        lambda v: {
            "y": v.h @ (v.A @ v.M).T,
            "z": v.h @ v.A @ v.M,
            "w": torch.einsum("bi,ij,bj->b", v.h, v.A, v.h),
        },
        {"n": 3},
    )


def test_comparisons_are_not_chained() -> None:
    assert "E01" in refused("input a, b, c\nr = where(a < b < c, 1, 0)\noutput r")


@pytest.mark.parametrize(("symbol", "ascii_"), [("≤", "<="), ("≥", ">="), ("≠", "!=")])
def test_every_unicode_operator_has_an_ascii_spelling(symbol: str, ascii_: str) -> None:
    compare = {"≤": torch.le, "≥": torch.ge, "≠": torch.ne}[symbol]
    values = torch.tensor([[0.0, 1.0, 2.0]], dtype=torch.float64)
    for spelling in (symbol, ascii_):
        agree(
            f"input a\nr = a {spelling} 1\noutput r",
            lambda v: {"r": compare(v.a, 1.0)},
            given={"a": values},
        )


# --- contraction ---


def test_dot_contracts_all_shared_axes_batch_axes_aside() -> None:
    agree(
        "batch h\naxes i, j\ninput a[h,i,j], c[h,i,j]\nr = a · c\noutput r[h]",
        lambda v: {"r": (v.a * v.c).sum((-1, -2))},
        {"h": 2, "i": 3, "j": 2},
    )


@pytest.mark.parametrize("dot", ["·", "dot"])
def test_dot_contracts_exactly_the_named_axes(dot: str) -> None:
    agree(
        f"batch h\naxes i, j\ninput a[h,i,j], c[h,i,j]\nr = a {dot}[j] c\ns = a {dot}[i,j] c\noutput r[h,i], s[h]",
        lambda v: {"r": (v.a * v.c).sum(-1), "s": (v.a * v.c).sum((-1, -2))},
        {"h": 2, "i": 3, "j": 2},
    )


@pytest.mark.parametrize(
    ("declared", "expression"),
    [("axes i, j\ninput a[i], c[j]", "a · c"), ("batch h\ninput a[h], c[h]", "a · c"), ("input a, c", "a · c")],
)
def test_a_contraction_without_a_shared_axis_is_an_error(declared: str, expression: str) -> None:
    assert "E0304" in refused(f"{declared}\nr = {expression}\noutput r")


def test_a_contraction_over_an_axis_that_one_side_lacks_is_an_error() -> None:
    assert "E0305" in refused("axes i, j\ninput a[i,j], c[j]\nr = a ·[i] c\noutput r[j]")


def test_contraction_with_a_constant_factor_inside() -> None:
    agree(
        "axes i\ninput a[i], c[i]\nr = (2 * a) · (c + 1)\noutput r",
        lambda v: {"r": (2 * v.a * (v.c + 1)).sum(-1)},
        {"i": 3},
    )


def test_contractions_of_ints_and_bools_count() -> None:
    agree(
        "axes i\ninput n[i]: int, m[i]: int, b[i]: bool, x[i]\nr = n · m\ns = b · x\nt = b · b\nu = n · x\n"
        "output r, s, t, u",
        lambda v: {
            "r": (v.n * v.m).sum(-1),
            "s": (v.b * v.x).sum(-1),
            "t": v.b.sum(-1).double(),
            "u": (v.n * v.x).sum(-1),
        },
        {"i": 4},
    )


# --- @ ---


def test_the_first_axis_of_a_matrix_is_the_row() -> None:
    agree(
        "axes n\ninput h[n], x[n]\nparam A[n,n]\ny = A @ h\nz = h @ A\noutput y[n], z[n]",
        lambda v: {"y": v.h @ v.A.T, "z": v.h @ v.A},
        {"n": 3},
    )


def test_a_matrix_may_depend_on_time_and_on_a_batch_axis() -> None:
    agree(
        "batch h\naxes n, d\ninput A[h,n,n], x[h,n,d]\nstate s[h,n,d]\ns = A @ s + x\ny = s @ A\n"
        "output y[h,n,d], s[h,n,d]",
        lambda v: (lambda s: {"s": s, "y": torch.einsum("bhnd,bhnm->bhmd", s, v.A)})(
            torch.einsum("bhnm,bhmd->bhnd", v.A, v.s) + v.x
        ),
        {"h": 2, "n": 2, "d": 2},
    )


def test_a_matrix_state() -> None:
    agree(
        "axes n\ninput k[n], v[n], q[n]\nstate M[n,n]\nparam A[n,n]\nM = A @ M @ A + 0.1*M\nM = M * k\n"
        "y = M @ q\noutput y[n], M[n,n]",
        lambda v: (lambda M: {"M": M, "y": torch.einsum("bnm,bm->bn", M, v.q)})(
            (v.A @ v.M @ v.A + 0.1 * v.M) * v.k[:, :, None]
        ),
        {"n": 2},
    )


def test_matmul_needs_a_repeated_axis() -> None:
    assert "E0307" in refused("axes m, n\ninput h[n]\nparam A[m,n]\ny = A @ h\noutput y[m]")
    assert "E0308" in refused("axes n\ninput h[n]\nparam A[n,n]\ny = A · h\noutput y[n]")


def test_a_dense_recurrence() -> None:
    agree(
        "axes n\ninput x\nparam A[n,n], Bm[n], C[n]\nstate h[n]\nh = A @ h + Bm*x\ny = C · h\noutput y",
        lambda v: (lambda h: {"h": h, "y": h @ v.C})(v.h @ v.A.T + v.Bm * v.x[:, None]),
        {"n": 3},
    )
