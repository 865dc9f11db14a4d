"""The form `parallel`: one pass over memory with look-back, against the interpreter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache

import pytest
import torch
import triton
import triton.language as tl
from codegen_triton.support import DEVICE, Emitted, Results, by_interpreter, by_kernels, compare, cotangents, emit
from interpreter.specs import example, small_arguments
from scanc_runtime.errors import ArgumentError
from scanc_runtime.lookback import forced_lookback
from scanc_runtime.triton_scan import compose_both
from torch import Tensor

from scanc.semantics.lower import lower

EXAMPLES = ("ema", "mingru", "minlstm", "qrnn", "rg_lru")
GATED = "scan gated\naxes d\ninput a[d], x[d]\nstate h[d]\nh = a*h + x\noutput h[d]\n"
BODIES = {
    "gated": GATED,
    "two states, one reads the other's past": """
scan pair
axes d
input a[d], b[d], x[d], o[d]
param c[d]
state h[d], k[d]
y = o*(h + c*k)
h = sigmoid(a)*h + x
k = sigmoid(b)*k + c*x
output y[d]
""",
    "reads that are not linear": """
scan curved
axes d
input a[d], x[d]
param w[d]
state h[d]
h = sigmoid(a + w)*h + x
y = tanh(w*h)*h
output y[d], h[d]
""",
    "a sum": "scan total\naxes d\ninput x[d]\nstate h[d]\nh = h + x\noutput h[d]\n",
    "an input without axes, and a param": """
scan scalar
axes d
input g, x[d]
param w, b[d]
state h[d]
h = sigmoid(g*w)*h + b*x
output h[d]
""",
    "heads": """
scan heads
batch n
axes d
input g[n], x[n,d]
param w[n]
state h[n,d]
h = sigmoid(g + w)*h + x
output h[n,d]
""",
    "a write before the decay": (
        "scan early\naxes d\ninput a[d], x[d]\nstate h[d]\nh = sigmoid(a)*(h + x)\noutput h[d]\n"
    ),
    "a state that nothing changes": "scan kept\naxes d\ninput a[d], x[d]\nstate h[d]\ny = a*h + x\noutput y[d]\n",
    "a state that reads no input": (
        "scan alone\naxes d\ninput a[d], x[d]\nparam p[d]\nstate h[d]\nh = p*h + p\ny = a*h + x\noutput y[d]\n"
    ),
    "a reset": "scan reset\naxes d\ninput a[d], x[d]\nstate h[d]\nh = where(a > 0, h, 0) + x\noutput h[d]\n",
    "steps of a product": "scan part\naxes d\ninput z[d], x[d]\nstate h[d]\nh = h - sigmoid(z)*h + x\noutput h[d]\n",
    "a complex state with a real decay": (
        "scan turn\naxes d\ninput g[d], x[d]: complex\nstate z[d]: complex\nz = sigmoid(g)*z + x\noutput z[d]\n"
    ),
}
Maps = tuple[Tensor, ...]
SMALL = {"block": 8, "chunks": 4, "steps": 4, "group": 2}
NESTED = {"chunks": 2, "steps": 4, "group": 2, "nest": 2}


@cache
def emitted(name: str) -> Emitted:
    return emit(lower(BODIES[name]) if name in BODIES else example(name))


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Memory full of NaN, and tiles of 4 chunks of 4 steps in groups of 2."""
    monkeypatch.setenv("SCANC_POISON", "1")
    with forced_lookback(**SMALL):
        yield


def check(spec: Emitted, time: int, bound: float = 1e-5, **options: object) -> None:
    found = compare(spec, small_arguments(spec.program, time=time), form="parallel", **options)  # type: ignore[arg-type]
    assert all(error < bound for error in found.values()), found


@pytest.mark.parametrize(
    ("name", "reverse"), [*((name, False) for name in (*EXAMPLES, *BODIES)), ("gated", True), ("heads", True)]
)
def test_values_and_gradients(name: str, reverse: bool) -> None:
    check(emitted(name), 35, reverse=reverse)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["mingru", "rg_lru"])
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    check(emitted(name), 35, 3e-2, dtype=dtype)


@pytest.mark.parametrize("time", [0, 1, 4, 5, 16, 31, 33, 64])
def test_lengths(time: int) -> None:
    check(emitted("mingru"), time)


@pytest.mark.parametrize(
    "layout",
    [
        {"chunks": 1, "steps": 4, "group": 1},
        {"chunks": 2, "steps": 8, "group": 4},
        {"chunks": 8, "steps": 4, "group": 16},
        NESTED,
        {"chunks": 1, "steps": 2, "group": 4, "nest": 2},
        {"chunks": 1, "steps": 2, "group": 2, "nest": 8},
        {"block": 2},
        {"block": 64},
    ],
)
def test_layouts(layout: dict[str, int]) -> None:
    with forced_lookback(**{**SMALL, **layout}):
        check(emitted("ema"), 53)


@pytest.mark.parametrize(("time", "reverse"), [(67, False), (96, True)])
@pytest.mark.parametrize("name", ["gated", "two states, one reads the other's past"])
def test_nests_of_groups(name: str, reverse: bool, time: int) -> None:
    with forced_lookback(**{**SMALL, **NESTED}):
        check(emitted(name), time, reverse=reverse)


def test_nests_of_groups_in_half_precision() -> None:
    with forced_lookback(**{**SMALL, **NESTED}):
        check(emitted("mingru"), 67, 3e-2, dtype=torch.bfloat16)


@pytest.mark.parametrize("steps", [1, 2, 8, 16])
def test_forward_saves_at_segments_whatever_its_steps(steps: int) -> None:
    spec = emitted("mingru")
    inputs, params, initial = small_arguments(spec.program, time=37)
    group = [tuple(x.float().to(DEVICE) for x in each.values()) for each in (inputs, params, initial)]
    *_, wanted = spec.module.FORWARD["recurrent"](*group, False, True)
    with forced_lookback(**{**SMALL, "steps": steps}):
        *_, saved = spec.module.FORWARD["parallel"](*group, False, True)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(saved, wanted, strict=True))


def test_the_chosen_layout() -> None:
    with forced_lookback():
        check(emit(example("mingru"), segment=None), 700)


def test_no_batch() -> None:
    spec = emitted("rg_lru")
    inputs, params, initial = small_arguments(spec.program, time=9)
    empty = {n: x[:0] for n, x in inputs.items()}, params, {n: x[:0] for n, x in initial.items()}
    found = compare(spec, empty, form="parallel")
    assert all(error == 0 for error in found.values()), found


def run(
    gates: Tensor, x: Tensor, h: Tensor, given: Tensor, final: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    found = by_kernels(
        emitted("gated"), {"a": gates, "x": x}, {}, {"h": h}, {"h": given}, {"h": final}, False, "parallel"
    )
    return found.values, found.gradients


@pytest.mark.parametrize("gate", [0.0, 1.0, 1.5, -1.0])
def test_gates_at_their_limits(gate: float) -> None:
    gates = torch.full((1, 67, 3), gate)
    gates[:, 20] = 0.0
    inputs = {"a": gates, "x": torch.randn(1, 67, 3)}
    found = compare(emitted("gated"), (inputs, {}, {"h": torch.randn(1, 3)}), form="parallel")
    assert all(error < 1e-5 for error in found.values()), found


@pytest.mark.parametrize("log_gate", [0.0, -1e-6, -20.0, -1e4, -torch.inf])
def test_log_gates(log_gate: float) -> None:
    spec = emit(lower(GATED.replace("a*h", "exp(a)*h")))
    gates = torch.randn(1, 67, 3) - 1
    gates[:, 10:40] = log_gate
    inputs = {"a": gates, "x": torch.randn(1, 67, 3)}
    found = compare(spec, (inputs, {}, {"h": torch.randn(1, 3)}), form="parallel")
    assert all(error < 1e-5 for error in found.values()), found


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_nothing_carried_stays_nothing_though_decays_overflow() -> None:
    """Gates above 1 whose product is infinite, a reset among them, and inputs that only begin at the end."""
    gates, x = torch.full((1, 96, 3), 1e3), torch.zeros(1, 96, 3)
    gates[:, 40] = 0.0
    x[:, 94:] = torch.randn(2, 3)
    given = torch.zeros(1, 96, 3)
    given[:, :2] = torch.randn(2, 3)
    values, gradients = run(gates, x, torch.zeros(1, 3), given, torch.zeros(1, 3))
    assert all(found.isfinite().all() for found in (*values.values(), *gradients.values()))
    assert torch.equal(values["h"][:, :94], torch.zeros(1, 94, 3))
    assert torch.equal(values["h"][:, 94:95], x[:, 94:95])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("at", [5, 16, 40])
def test_a_token_that_is_not_finite_reaches_only_what_follows(bad: float, at: int) -> None:
    gates, x = torch.rand(1, 67, 3), torch.randn(1, 67, 3)
    clean, _ = run(gates, x, torch.randn(1, 3) * 0 + 1, torch.randn(1, 67, 3), torch.randn(1, 3))
    for tensor in (gates, x):
        held = tensor[:, at].clone()
        tensor[:, at] = bad
        dirty, _ = run(gates, x, torch.ones(1, 3), torch.randn(1, 67, 3), torch.randn(1, 3))
        tensor[:, at] = held
        assert torch.equal(dirty["h"][:, :at], clean["h"][:, :at])
        assert not dirty["h"][:, at:].isfinite().any()


@pytest.mark.parametrize("layout", [{}, NESTED])
def test_two_runs_are_bitwise_equal(layout: dict[str, int]) -> None:
    with forced_lookback(**{**SMALL, **layout}):
        first, second = two_runs()
    for a, b in ((first.values, second.values), (first.gradients, second.gradients)):
        assert all(torch.equal(x, b[name]) for name, x in a.items())


def two_runs() -> tuple[Results, Results]:
    spec = emitted("rg_lru")
    inputs, params, initial = ({n: x.float() for n, x in g.items()} for g in small_arguments(spec.program, time=67))
    plain = by_interpreter(spec.program, inputs, params, initial, {}, {}, False)
    given, final = cotangents(spec.program, plain.values)
    given, final = ({n: x.float() for n, x in g.items()} for g in (given, final))
    first, second = (by_kernels(spec, inputs, params, initial, given, final, False, "parallel") for _ in range(2))
    return first, second


def test_states_are_read_as_they_lie_in_memory() -> None:
    spec = emitted("gated")
    inputs, params, initial = small_arguments(spec.program, time=35)
    turned = {"h": torch.randn(initial["h"].shape[1], initial["h"].shape[0], dtype=torch.float64).T}
    found = compare(spec, (inputs, params, turned), form="parallel")
    assert all(error < 1e-5 for error in found.values()), found


def test_fp64_is_refused() -> None:
    spec = emitted("ema")
    group = [tuple(each.values()) for each in small_arguments(spec.program, time=5)]
    with pytest.raises(ArgumentError, match="form parallel carries states in 32 bits"):
        spec.module.FORWARD["parallel"](*group, False, False)


@pytest.mark.parametrize("name", ["gru", "lru", "hgrn", "delta_rule", "viterbi", "gla", "selective_ssm"])
def test_other_recurrences_are_not_admitted(name: str) -> None:
    assert "parallel" not in emitted(name).functions.forms


@triton.jit
def composed(out, a, b, c, d, e, f, g, h, n: tl.constexpr):
    at = tl.arange(0, n)
    first = tl.load(a + at), tl.load(b + at), tl.load(c + at), tl.load(d + at)
    second = tl.load(e + at), tl.load(f + at), tl.load(g + at), tl.load(h + at)
    found = compose_both(*first, *second)
    for k in tl.static_range(4):
        tl.store(out + k * n + at, found[k])


def in_tree_order(parts: Sequence[Maps], combine: Callable[..., tuple[Tensor, ...]]) -> Maps:
    """The combination of all, halves first, as a GPU takes it; Triton's interpreter folds from one end."""
    if len(parts) == 1:
        return parts[0]
    half = len(parts) // 2
    return combine(*in_tree_order(parts[:half], combine), *in_tree_order(parts[half:], combine))


def test_combines_agree_in_tree_order() -> None:
    generator = torch.Generator().manual_seed(3)
    decays, writes = (torch.randn(11, 16, generator=generator, dtype=torch.float64) for _ in range(2))
    decays[4], writes[:2] = 0.0, 0.0
    h = start = torch.randn(16, generator=generator, dtype=torch.float64)
    states = [start]
    for decay, write in zip(decays, writes, strict=True):
        h = decay * h + write
        states.append(h)

    def combine(*parts: Tensor) -> tuple[Tensor, ...]:
        out = torch.empty(4, 16, dtype=torch.float64, device=DEVICE)
        composed[(1,)](out, *(part.contiguous().to(DEVICE) for part in parts), n=16)
        return tuple(out.cpu())

    one, zero = torch.ones(16).double(), torch.zeros(16).double()
    parts = [(decay, write, one, zero) for decay, write in zip(decays, writes, strict=True)]
    product, end, inner, before = in_tree_order(parts, combine)
    assert torch.allclose(product * start + end, states[-1], rtol=1e-12)
    assert torch.allclose(inner * start + before, states[-2], rtol=1e-12)
