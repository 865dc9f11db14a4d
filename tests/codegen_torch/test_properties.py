"""Generated programs in every form, and what must hold of any spec: segments, dtypes, strides, splits."""

import math

import pytest
import torch
from codegen_torch.modules import Module, compiled, example, generated, gradients, module_of, oracle, smooth
from codegen_torch.test_examples import agree
from fuzz.programs import Case, cases
from hypothesis import HealthCheck, given, settings
from scanc_runtime import segments

FEW = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
MIXED = ("gla", "selective_ssm", "gru", "mlstm", "lru", "gated_conv", "delta_rule", "hmm_forward")


@FEW
@given(cases())
def test_generated_programs(case: Case) -> None:
    module = module_of(case.program)
    inputs, params, states = case.arguments()
    for form in module.operator.forms:
        for reverse in (False, True):
            expected, expected_grads = oracle(module, inputs, params, states, reverse)
            results, grads = generated(module, inputs, params, states, reverse, form)
            for name, value in expected.items():
                torch.testing.assert_close(results[name], value.to(results[name].dtype), rtol=1e-8, atol=1e-8)
            for name, value in expected_grads.items():
                scale = 1 + float(value.abs().max()) if value.numel() else 1.0
                torch.testing.assert_close(grads[name] / scale, value / scale, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", MIXED)
@pytest.mark.parametrize("reverse", [False, True])
def test_many_segments(name: str, reverse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A budget so small that every segment has the least length."""
    monkeypatch.setattr(segments, "_BUDGET", 1)
    monkeypatch.setattr(segments, "_SHORTEST", 4)
    module = example(name)
    for form in module.operator.forms:
        for time in (4, 5, 11):
            agree(module, form, reverse=reverse, time=time)


@pytest.mark.parametrize("name", MIXED)
def test_half_precision(name: str) -> None:
    """Within a few roundings of what the interpreter makes of the same bf16 inputs."""
    module = example(name)
    inputs, params, states = module.arguments(time=20)
    half = {n: t.to(torch.bfloat16) if t.is_floating_point() else t for n, t in inputs.items()}
    single = {n: t.to(torch.complex64 if t.is_complex() else torch.float32) for n, t in {**params, **states}.items()}
    wide = {n: t.double() if t.is_floating_point() else t for n, t in half.items()}
    expected, grads = oracle(module, wide, *({n: _wide(single[n]) for n in group} for group in (params, states)), False)
    for form in module.operator.forms:
        given_params, given_states = ({n: single[n] for n in group} for group in (params, states))
        results, got = generated(module, half, given_params, given_states, False, form)
        for name_, value in expected.items():
            if not name_.startswith("final.") and value.is_floating_point():
                assert results[name_].dtype == torch.bfloat16
            _near(results[name_], value, 2e-2)
        for name_, value in grads.items():
            _near(got[name_], value, 3e-2)


def _wide(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.complex128 if x.is_complex() else torch.float64)


def _near(result: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    finite = torch.isfinite(expected)
    error = (_wide(result)[finite] - expected[finite]).abs()
    assert bool((error <= tolerance * (1 + expected[finite].abs().max() if finite.any() else 1)).all())


@pytest.mark.parametrize("name", MIXED)
def test_strided_inputs(name: str) -> None:
    module = example(name)
    inputs, params, states = module.arguments(time=9)
    strided = {n: torch.stack([t, t], -1)[..., 0] for n, t in inputs.items()}
    transposed = {n: t.transpose(0, 1).contiguous().transpose(0, 1) for n, t in inputs.items()}
    for form in module.operator.forms:
        plain = module.operator(**inputs, **params, initial_state=states, form=form)
        for variant in (strided, transposed):
            again = module.operator(**variant, **params, initial_state=states, form=form)
            torch.testing.assert_close(again, plain, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", MIXED)
def test_results_share_no_memory_with_arguments(name: str) -> None:
    module = example(name)
    inputs, params, states = module.arguments(time=3)
    for form in module.operator.forms:
        outputs, final = module.operator(**inputs, **params, initial_state=states, form=form, return_state=True)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        given = {t.untyped_storage().data_ptr() for t in (*inputs.values(), *params.values(), *states.values())}
        places = [t.untyped_storage().data_ptr() for t in (*outputs, *final.values())]
        assert not given & set(places)


@pytest.mark.parametrize("name", MIXED)
@pytest.mark.parametrize("cut", [1, 13, 19])
def test_splitting_a_sequence(name: str, cut: int) -> None:
    module = example(name)
    inputs, params, states = module.arguments(time=20)
    for form in module.operator.forms:
        whole, final = module.operator(**inputs, **params, initial_state=states, return_state=True, form=form)
        head, tail = ({n: t[:, part] for n, t in inputs.items()} for part in (slice(0, cut), slice(cut, 20)))
        first, state = module.operator(**head, **params, initial_state=states, return_state=True, form=form)
        second, last = module.operator(**tail, **params, initial_state=state, return_state=True, form=form)
        pairs = zip(*(x if isinstance(x, tuple) else (x,) for x in (first, second, whole)), strict=True)
        for a, b, expected in pairs:
            torch.testing.assert_close(torch.cat([a, b], 1), expected, rtol=1e-9, atol=1e-10)
        for key, value in final.items():
            torch.testing.assert_close(last[key], value, rtol=1e-9, atol=1e-10)


def gated(gates: torch.Tensor) -> tuple[Module, dict[str, torch.Tensor]]:
    module = compiled("scan gated\naxes d\ninput x[d], g[d]\nstate h[d]\nh = exp(g)*h + x\noutput h[d]\n")
    return module, {"x": torch.randn(gates.shape, dtype=gates.dtype), "g": gates}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_gates(dtype: torch.dtype) -> None:
    """From growing through none to forgetting all: finite wherever the naive loop is, gradients too."""
    torch.manual_seed(0)
    values = torch.tensor([0.0, -1e-6, -20.0, -1e4, -math.inf, 0.1], dtype=dtype)
    module, inputs = gated(values[torch.randint(0, 6, (2, 120, 8))])
    states = {"h": torch.randn(2, 8, dtype=dtype)}
    wide = {n: t.double() for n, t in inputs.items()}
    expected, expected_grads = oracle(module, wide, {}, {"h": states["h"].double()}, False)
    for form in module.operator.forms:
        results, grads = generated(module, inputs, {}, states, False, form)
        for pairs in ((results, expected), (grads, expected_grads)):
            for name, value in pairs[1].items():
                assert bool(torch.isfinite(value).all())
                assert bool(torch.isfinite(pairs[0][name]).all()), f"{form}: {name}"
                error = (pairs[0][name].double() - value).abs().max() / (1 + value.abs().max())
                assert error < (1e-5 if dtype == torch.float32 else 1e-12), f"{form}: {name}"


def test_growth_past_the_largest_number() -> None:
    """Gates that overflow while the state is 0 leave it finite, as in the naive loop."""
    gates = torch.full((1, 64, 4), 60.0)
    gates[:, 20:] = -0.5
    module, inputs = gated(gates)
    inputs["x"][:, :20] = 0.0
    for form in module.operator.forms:
        results, _ = generated(module, inputs, {}, {}, False, form)
        assert bool(torch.isfinite(results["h"]).all()), form


@pytest.mark.parametrize("name", ["gla", "lru", "mlstm", "gru", "hmm_forward", "viterbi", "rg_lru"])
def test_derivatives_of_the_step(name: str) -> None:
    """One step through `step` and torch has the gradients that the adjoint program has."""
    module = example(name)
    inputs, params, states = module.arguments(time=1)
    expected = generated(module, inputs, params, states, False, "recurrent")[1]
    tensors = smooth({**inputs, **params, **{f"state.{n}": t for n, t in states.items()}})
    spec = module.operator.spec
    if any(
        decl.public or any(len(g) > 1 for g in decl.dims)
        for decl in (*spec.inputs, *spec.states)
        if hasattr(decl, "public")
    ):
        pytest.skip("the step takes canonical tensors")
    namespace: dict = {}
    exec(compile(module.source, "generated", "exec"), namespace)
    order = {
        decl.name: [sum(decl.dims, ()).index(axis) for axis in decl.axes]
        for decl in (*spec.inputs, *spec.params, *spec.states)
    }
    given_inputs = [tensors[d.name][:, 0].permute(0, *(1 + i for i in order[d.name])) for d in spec.inputs]
    given_params = [tensors[d.name].permute(order[d.name]) for d in spec.params]
    given_states = [tensors[f"state.{d.name}"].permute(0, *(1 + i for i in order[d.name])) for d in spec.states]
    outputs, final = namespace["step"](*given_inputs, *given_params, *given_states)
    results = {}
    for decl, value in zip((*spec.outputs, *spec.states), (*outputs, *final), strict=True):
        lead = 1
        flat = [decl.axes.index(axis) for axis in sum(decl.dims, ())]
        value = value.permute(0, *(lead + i for i in flat))
        is_state = decl in spec.states
        results[f"final.{decl.name}" if is_state else decl.name] = value if is_state else value[:, None]
    got = gradients(results, tensors)
    for key, value in expected.items():
        torch.testing.assert_close(got[key], value, rtol=1e-8, atol=1e-9, msg=key)
