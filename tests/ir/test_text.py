"""Printing and reading are inverse, and the verifier refuses what the grammar forbids."""

from __future__ import annotations

import pytest

from scanc.ir.levels import IllFormed, verify
from scanc.ir.printer import print_program
from scanc.ir.reader import Unreadable, read_program

TEXT = """program everything level discrete over real
axis h batch
axis i
axis w = 4
axis m like i
input q[h*i] : real[h, i]
input x[i] : real[i] pin float32
input b[] : bool[]
param A[m, i] : complex[i, m]
state S[h, i] : real[h, i] = -inf
state c[i] : real[i] = x0
state prev.x.0[i] : real[i] = 0.0 as prev.x 0 of 1
region step
  half = const{0.5}() : real[]
  yes = const{true}() : bool[]
  z = const{(1+2j)}() : complex[]
  n = size{i}() : int[]
  gate = mul(half, q) : real[h, i]
  S_2 = add(gate, S) : real[h, i]
  k = rename{i->m}(x) : real[m]
  both = contract.real{i, m}(A, A) : complex[]
  top = extremum.max{i}(x) : bool[i]
  all = reduce.sum{i}(q) : real[h]
  wide = broadcast{h}(x) : real[h, i]
  pile = stack{w}(x, x, x, x) : real[i, w]
  one = index{w, 2}(pile) : real[i]
  unit = identity{i, m}() : real[i, m]
  power = matrix.exp{i, m}(A) : complex[i, m]
  slope = matrix.phi1{i, m}(A, unit) : complex[i, m]
  M = memory{S; h, i, m; i; m; rows raw, both; decayed, before; dual against}(x, half, x, k, x, k) : real[h, i, m]
  asked = recall.columns{m; before}(M, k) : real[h, i]
  again = recall.rows{i}(M, x) : real[h, m]
  d_gate = meet.both{h; rows; 1; 1}(M, M, x, x, x, x, x, x) : real[h]
next S = S_2
next c = x
next prev.x.0 = x
output y[h, i] = S_2
total d.A[i] = one
"""

STAGED = """program ema level classified over real
axis d
input a[d] : real[d]
input x[d] : real[d]
state h[d] : real[d] = 0.0
region map
  b = mul(a, x) : real[d]
region scan of h : h_2 = a real b "diagonal, input-dependent"
next h = h_2
output y[d] = h_2
"""


@pytest.mark.parametrize("text", [TEXT.replace("= x0", "= 1.5"), STAGED])
def test_round_trip(text: str) -> None:
    program = read_program(text)
    verify(program)
    assert print_program(program) == text
    assert read_program(print_program(program)) == program


def test_unreadable_names_the_line() -> None:
    with pytest.raises(Unreadable, match=r"line 3: 'axis 4 x'"):
        read_program("program p level core over real\naxis d\naxis 4 x\n")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("b = mul(a, x)", "b = mul(a, z)", "z is used before it is defined"),
        ("b = mul(a, x) : real[d]", "b = mul(a, x) : real[]", "where the operation gives"),
        ("b = mul(a, x)", "a = mul(a, x)", "a is defined twice"),
        ("next h = h_2\n", "", "next lists every state once"),
        ("output y[d]", "output y[]", "output y has axes"),
        ("real b", "real c", "scan of h reads c"),
        ("level classified", "level staged", "no scan region at level staged"),
        ("state h[d] : real[d] = 0.0", "state h[d] : real[d] = a0", "begins at a0, no param"),
    ],
)
def test_verify_refuses(old: str, new: str, message: str) -> None:
    assert old in STAGED
    with pytest.raises(IllFormed, match=message):
        verify(read_program(STAGED.replace(old, new)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("matrix.exp{i, m}(A)", "matrix.sin{i, m}(A)", "no function of matrices sin"),
        ("matrix.exp{i, m}(A)", "matrix.exp{i, m}(k)", "the exp of a matrix over"),
        ("matrix.exp{i, m}(A)", "matrix.exp{i, i}(A)", "with rows and columns"),
        ("matrix.exp{i, m}(A) : complex", "matrix.exp{i, m}(A) : real", "where the operation gives"),
        ("axis m like i", "axis m = 4", "a matrix of i rows and 4 columns"),
    ],
)
def test_verify_refuses_of_matrices(old: str, new: str, message: str) -> None:
    assert old in TEXT
    with pytest.raises(IllFormed, match=message):
        verify(read_program(TEXT.replace(old, new)))
