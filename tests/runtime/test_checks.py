"""Every wrong call says which declaration it meets, what was expected and what came."""

from __future__ import annotations

import pytest
import torch
from runtime.test_call import attention_arguments, mixed_arguments
from scanc_runtime import ArgumentError
from torch import randn

from runtime import fakes

EMA, ATTENTION, MIXED = fakes.ema(), fakes.attention(), fakes.mixed()
A, X = torch.rand(4), randn(2, 6, 4)


def message(function, *args, **named) -> str:
    with pytest.raises(ArgumentError) as caught:
        function(*args, **named)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, ValueError)
    return str(caught.value)


CASES = {
    "missing": (
        lambda: EMA(A),
        """ema lacks `x`
  declared  input x[d]  (line 3)
  expected  ema(a, x)
  got       a""",
    ),
    "extra": (
        lambda: EMA(A, X, X),
        """ema takes 2 tensors, 3 were given
  expected  ema(a, x)
  hint      options such as initial_state and form are passed by name""",
    ),
    "twice": (
        lambda: EMA(A, X, a=A),
        """ema got `a` twice: by position and by name
  declared  param a[d]  (line 4)""",
    ),
    "unknown": (
        lambda: MIXED(X, X, cod=X),
        """mixed has no input or param `cod`
  expected  mixed(x, g, code, keep, A, c0)
  hint      did you mean `code`?""",
    ),
    "no tensor": (
        lambda: EMA(A, [1.0]),
        """ema: `x` is not a tensor
  declared  input x[d]  (line 3)
  expected  a tensor [B, T, d]
  got       list""",
    ),
    "sparse": (
        lambda: EMA(A, X.to_sparse()),
        """ema: `x` is not dense
  declared  input x[d]  (line 3)
  expected  a dense tensor [B, T, d]
  got       a tensor of layout torch.sparse_coo
  hint      tensor.to_dense()""",
    ),
    "nested": (
        lambda: EMA(A, torch.nested.nested_tensor([X[0], X[1, :3]])),
        """ema: `x` is not dense
  declared  input x[d]  (line 3)
  expected  a dense tensor [B, T, d]
  got       a nested tensor
  hint      tensor.to_padded_tensor(0.0)""",
    ),
    "an option of the whole": (
        lambda: EMA.step(A, X[:, 0], initial_stat=X[:, 0]),
        """ema has no input or param `initial_stat`
  expected  ema(a, x)""",
    ),
    "rank": (
        lambda: EMA(A, randn(6, 4)),
        """ema: `x` has 2 dimensions, not 3
  declared  input x[d]  (line 3)
  expected  shape [B, T, d]
  got       shape [6, 4]""",
    ),
    "rank of step": (
        lambda: EMA.step(A, X),
        """ema: `x` has 3 dimensions, not 2
  declared  input x[d]  (line 3)
  expected  shape [B, d]
  got       shape [2, 6, 4]
  hint      inputs of `step` have no time dimension""",
    ),
    "axis size": (
        lambda: EMA(torch.rand(5), X),
        """ema: `a` has the wrong size along axis d
  declared  param a[d]  (line 4)
  expected  d = 4, from `x` [B, T, d] = [2, 6, 4]
  got       d = 5 in [d] = [5]""",
    ),
    "time": (
        lambda: ATTENTION(*attention_arguments()[:2], randn(2, 4, 5, 2)),
        """attention: `q` and `v` differ in the number of time steps T
  declared  input v[j,g]  (line 3)
  expected  T = 5, from `q` [B, T, i, g*r] = [2, 5, 3, 4]
  got       T = 4 in [B, T, j, g] = [2, 4, 5, 2]""",
    ),
    "batch of a state": (
        lambda: EMA(A, X, initial_state=randn(3, 4)),
        """ema: `x` and `h` differ in the batch size B
  declared  state h[d]  (line 5)
  expected  B = 2, from `x` [B, T, d] = [2, 6, 4]
  got       B = 3 in [B, d] = [3, 4]""",
    ),
    "merged": (
        lambda: ATTENTION(randn(2, 5, 3, 7), *attention_arguments()[1:]),
        """attention: `q` has the wrong size along the merged axes g*r
  declared  input q[i,g*r]  (line 3)
  expected  a multiple of g = 2, from `k` [B, T, g, i] = [2, 5, 2, 3]
  got       g*r = 7 in [B, T, i, g*r] = [2, 5, 3, 7]""",
    ),
    "fixed size": (
        lambda: MIXED(**{**mixed_arguments(), "c0": randn(4)}),
        """mixed: `c0` has the wrong size along axis n
  declared  param c0[n]  (line 4)
  expected  n = 3, from the spec
  got       n = 4 in [n] = [4]""",
    ),
    "like": (
        lambda: MIXED(**{**mixed_arguments(), "A": randn(3, 2, dtype=torch.complex64)}),
        """mixed: `A` has the wrong size along axis n_col
  declared  param A[n,n_col]  (line 4)
  expected  n_col = 3, from the spec
  got       n_col = 2 in [n, n_col] = [3, 2]
  hint      n_col has the size of n""",
    ),
    "integer for real": (
        lambda: EMA(A, torch.ones(2, 6, 4, dtype=torch.int64)),
        """ema: `x` has dtype int64
  declared  input x[d]  (line 3)
  expected  float32 or bfloat16 or float16 or float64
  got       int64""",
    ),
    "real for complex": (
        lambda: MIXED(**{**mixed_arguments(), "A": randn(3, 3)}),
        """mixed: `A` has dtype float32
  declared  param A[n,n_col]  (line 4)
  expected  complex64 or complex128
  got       float32""",
    ),
    "narrower than its pin": (
        lambda: MIXED(**{**mixed_arguments(), "g": randn(2, 5, 4).half()}),
        """mixed: `g` has dtype float16
  declared  input g[d]  (line 3)
  expected  float32 or wider, as the spec pins it
  got       float16""",
    ),
    "device": (
        lambda: EMA(A.to("meta"), X),
        """ema: `a` is on meta, `x` on cpu
  declared  param a[d]  (line 4)
  expected  all tensors on one device
  got       meta and cpu""",
    ),
    "wide state": (
        lambda: EMA(A, X, initial_state=randn(2, 4).double()),
        """ema: the state `h` is wider than the arithmetic of this call
  declared  state h[d]  (line 5)
  expected  float32 or narrower, as no input or param is float64
  got       float64""",
    ),
    "bare state of several": (
        lambda: ATTENTION(*attention_arguments(), initial_state=randn(2, 5, 2, 3)),
        """attention has 2 states, so its state is a mapping from name to tensor
  expected  {"S": …, "prev.k": …}
  got       Tensor""",
    ),
    "unknown state": (
        lambda: ATTENTION(*attention_arguments(), initial_state={"prev_k": randn(2, 2, 2, 3)}),
        """attention has no state `prev_k`
  expected  one of `S`, `prev.k`
  hint      did you mean `prev.k`?""",
    ),
    "depth of a buffer": (
        lambda: ATTENTION(*attention_arguments(), initial_state={"prev.k": randn(2, 3, 2, 3)}),
        """attention: the buffer `prev.k` holds 2 past values, oldest first
  declared  state prev.k.0[g,i]  (line 5)
  expected  shape [B, 2, g, i]
  got       shape [2, 3, 2, 3]""",
    ),
    "unknown form": (
        lambda: EMA(A, X, form="chunk"),
        """ema has no form 'chunk'
  expected  one of auto, recurrent, chunked
  hint      did you mean `chunked`?""",
    ),
    "refused form": (
        lambda: ATTENTION(*attention_arguments(), form="chunked"),
        """attention does not admit form 'chunked': the step is nonlinear in S
  expected  one of auto, recurrent""",
    ),
    "form of no target": (
        lambda: ATTENTION(*attention_arguments(), form="convolution"),
        """attention does not admit form 'convolution': no target has it so far
  expected  one of auto, recurrent""",
    ),
    "option misspelled": (
        lambda: EMA(A, X, return_states=True),
        """ema has no input or param `return_states`
  expected  ema(a, x)
  hint      did you mean `return_state`?""",
    ),
    "packed": (
        lambda: EMA(A, X, cu_seqlens=torch.tensor([0, 6])),
        """ema: packed sequences come later; cu_seqlens is not taken yet
  hint      pad to [B, T, …], or call once per sequence""",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_message(case):
    call, expected = CASES[case]
    assert message(call) == expected


def test_a_seen_shape_is_still_checked_for_all_else():
    EMA(A, X)
    assert "wrong size" in message(EMA, torch.rand(3), X)
    assert "dtype" in message(EMA, A.bool(), X)
    EMA(A, X)


def test_a_size_that_no_tensor_gives():
    spec = fakes.ema().spec
    op = fakes.operator(
        type(spec)(
            name="free",
            digest="fake",
            axes=fakes.axes("d n"),
            inputs=spec.inputs,
            params=(),
            states=(fakes.tensor(type(spec.states[0]), "state", "h", "d,n", "d n", 5, init=1.0),),
            outputs=(fakes.tensor(type(spec.outputs[0]), "output", "y", "d", "d n", 7),),
            forms=("recurrent",),
        ),
        lambda x, h: ((h.sum(-1),), (h * x.unsqueeze(-1),)),
    )
    assert op(X, initial_state=randn(2, 4, 3)).shape == (2, 6, 4)
    assert "the size of axis n follows from no tensor of this call" in message(op, X)
