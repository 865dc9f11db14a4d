"""The adjoint program against autograd through the interpreter."""

from __future__ import annotations

import pytest
import torch

from scanc.interpreter import interpret, random_arguments
from scanc.ir.functions import TABLE
from scanc.ir.levels import verify
from scanc.ir.nodes import Level, Program
from scanc.ir.reader import read_program
from scanc.passes.derivatives import RULES
from scanc.passes.differentiate import differentiate
from scanc.passes.simplify import run as simplify

from .adjoint_support import gradients_by_adjoint, gradients_by_autograd

GATED_DELTA = """
program gated_delta level discrete over real
axis h batch
axis i
axis j
input k[h, i] : real[h, i]
input v[h, j] : real[h, j]
input g[h] : real[h]
param u[i] : real[i]
state S[h, i, j] : real[h, i, j] = 0.0
region step
  decay = exp(g) : real[h]
  S_1 = mul(decay, S) : real[h, i, j]
  seen = contract.real{i}(k, S_1) : real[h, j]
  error = sub(v, seen) : real[h, j]
  write = mul(k, error) : real[h, i, j]
  S_2 = add(S_1, write) : real[h, i, j]
  uk = mul(u, k) : real[h, i]
  o = contract.real{i}(uk, S_2) : real[h, j]
  top = reduce.max{j}(o) : real[h]
  o_2 = sub(o, top) : real[h, j]
next S = S_2
output o[h, j] = o_2
"""

ELMAN = """
program elman level discrete over real
axis n
axis n_col like n
axis m
input x[m] : real[m]
param W[m, n] : real[n, m]
param U[n, n_col] : real[n, n_col]
state h[n] : real[n] = 0.0
region step
  hc = rename{n->n_col}(h) : real[n_col]
  a = contract.real{n_col}(U, hc) : real[n]
  b = contract.real{m}(W, x) : real[n]
  c = add(a, b) : real[n]
  h_2 = tanh(c) : real[n]
next h = h_2
output y[n] = h_2
"""

SLICES = """
program slices level discrete over real
axis p = 3
axis d
input x[p, d] : real[p, d]
state s[p, d] : real[p, d] = 0.0
region step
  x_0 = index{p, 0}(x) : real[d]
  x_2 = index{p, 2}(x) : real[d]
  s_0 = index{p, 0}(s) : real[d]
  s_1 = index{p, 1}(s) : real[d]
  a = mul(x_0, s_1) : real[d]
  b = add(x_2, s_0) : real[d]
  t = tanh(b) : real[d]
  s_next = stack{p}(a, t, x_0) : real[p, d]
  y = logaddexp(a, b) : real[d]
next s = s_next
output y[d] = y
"""

LOGSUM = """
program forward_algorithm level discrete over log
axis n
axis n_col like n
input e[n] : real[n]
param A[n, n_col] : real[n, n_col]
state f[n] : real[n] = 0.0
region step
  moved = contract.log{n}(f, A) : real[n_col]
  back = rename{n_col->n}(moved) : real[n]
  f_2 = add(back, e) : real[n]
  z = reduce.logsumexp{n}(f_2) : real[]
next f = f_2
output z[] = z
"""


def check(program: Program, sizes: dict[str, int], time: int = 5, dtype: torch.dtype = torch.float64) -> None:
    """Both ways to every gradient agree, also after simplify."""
    verify(program)
    adjoint = differentiate(program)
    verify(adjoint)
    inputs, params, initial = random_arguments(program, batch=2, time=time, sizes=sizes, dtype=dtype)
    outputs, final = interpret(program, inputs, params, initial)
    given = {n: torch.randn_like(y) for n, y in outputs.items()}
    last = {n: torch.randn_like(s) for n, s in final.items()}
    expected = gradients_by_autograd(program, inputs, params, initial, given, last)
    for version in (adjoint, simplify(adjoint)[0]):
        verify(version)
        got = gradients_by_adjoint(program, version, inputs, params, initial, given, last)
        assert got.keys() == expected.keys()
        for name, grad in expected.items():
            torch.testing.assert_close(got[name], grad, rtol=1e-9, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        (GATED_DELTA, {"h": 2, "i": 3, "j": 4}),
        (ELMAN, {"n": 3, "m": 2}),
        (SLICES, {"d": 3}),
        (LOGSUM, {"n": 3}),
    ],
    ids=["gated_delta", "elman", "slices", "logsum"],
)
def test_programs(text: str, sizes: dict[str, int]) -> None:
    check(read_program(text), sizes)


def _one_function(fn: str, kind: str) -> Program:
    """y = fn(c * s, x, …) over one axis, with the function's first argument depending on a state."""
    arity = TABLE[fn].arity
    names = ["a", *[f"x_{i}" for i in range(1, arity)]]
    inputs = "\n".join(f"input {n}[d] : {kind}[d]" for n in names)
    lines = [f"  s_2 = add(a, s) : {kind}[d]"]
    args = ["s_2", *names[1:]]
    if fn == "where":
        lines.append("  cond = gt(s_2, x_1) : bool[d]")
        args[0] = "cond"
    if fn in ("log", "sqrt", "rsqrt", "log1p", "pow") and kind == "real":
        lines += [
            f"  s_sq = mul(s_2, s_2) : {kind}[d]",
            "  one = const{1.5}() : real[]",
            f"  pos = add(s_sq, one) : {kind}[d]",
        ]
        args[0] = "pos"
    result = {"complex": "complex", "abs": "real", "real": "real", "imag": "real"}.get(fn, kind)
    lines.append(f"  y = {fn}({', '.join(args)}) : {result}[d]")
    body = "\n".join(lines)
    return read_program(
        f"program p level discrete over real\naxis d\n{inputs}\nstate s[d] : {kind}[d] = 0.0\nregion step\n{body}\n"
        "next s = s_2\noutput y[d] = y\n"
    )


UNARY_REAL = sorted(f for f in (*RULES, "mul") if f not in ("conj", "to_complex", "to_real", "real", "imag"))


@pytest.mark.parametrize("fn", UNARY_REAL)
def test_each_function(fn: str) -> None:
    check(_one_function(fn, "real"), {"d": 4})


@pytest.mark.parametrize(
    "fn", sorted(f for f in (*RULES, "mul") if TABLE[f].complex_ok and f not in ("to_complex", "where"))
)
def test_each_complex_function(fn: str) -> None:
    check(_one_function(fn, "complex"), {"d": 4})


def test_level_is_kept() -> None:
    assert differentiate(read_program(ELMAN)).level is Level.DISCRETE
