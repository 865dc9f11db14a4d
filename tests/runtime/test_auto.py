"""The form that `auto` is: by sizes where a module has one for few long sequences, on a GPU, in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from scanc_runtime import auto, tuned
from scanc_runtime.checks import Plan
from torch import Tensor

import scanc

EXAMPLES = Path(__file__).parents[2] / "examples"
MINGRU = scanc.load(EXAMPLES / "mingru.scan", target="triton")
FEW_AND_LONG = 1, auto.LONG, 64


@pytest.fixture(autouse=True)
def chip(monkeypatch: pytest.MonkeyPatch) -> None:
    """132 multiprocessors, wherever tensors are, and nothing tuned."""

    def multiprocessors(device: torch.device) -> int:
        return 132

    multiprocessors.__dict__.update(auto.multiprocessors.__dict__)  # what Dynamo sees
    monkeypatch.setattr(auto, "multiprocessors", multiprocessors)
    monkeypatch.setattr(tuned, "exists", lambda digest: False)


def plan(batch: int, time: int, sizes: dict[str, int], dtype: torch.dtype = torch.float32) -> Plan:
    return Plan(batch, time, sizes, dtype, dtype, torch.device("cuda"))


@pytest.mark.parametrize(
    ("batch", "time", "width", "form"),
    [
        (1, 1 << 20, 64, "parallel"),
        (1, 65536, 2048, "parallel"),
        (8, 4096, 2048, "chunked"),
        (64, 512, 2048, "chunked"),
        (2, 4096, 2048, "parallel"),
        (3, 4096, 2048, "chunked"),
        (1, auto.LONG, 1, "parallel"),
        (1, auto.LONG - 1, 1, "chunked"),
        (1, 1, 64, "recurrent"),
    ],
)
def test_few_long_sequences_take_one_pass(batch: int, time: int, width: int, form: str) -> None:
    operator = MINGRU.operator("triton")
    assert operator._auto(plan(batch, time, {"d": width})) == form
    assert operator._auto(plan(batch, time, {"d": width}, torch.float64)) == form.replace("parallel", "chunked")


@pytest.mark.parametrize(
    ("batch", "time", "form"),
    [(8, 4096, "parallel"), (16, 4096, "parallel"), (17, 4096, "chunked"), (64, 512, "chunked"), (64, 4096, "chunked")],
)
def test_light_steps_take_it_for_more_sequences(batch: int, time: int, form: str) -> None:
    light = scanc.compile(
        "scan gated\naxes d\ninput a[d], x[d]\nstate h[d]\nh = a*h + x\noutput h[d]\n", target="triton"
    )
    assert light.operator("triton")._auto(plan(batch, time, {"d": 2048})) == form


@pytest.mark.parametrize("name", ["gla", "gru", "lru", "selective_ssm"])
def test_modules_without_the_form_do_without(name: str) -> None:
    op = scanc.load(EXAMPLES / f"{name}.scan")
    sizes = {axis.name: axis.size or 2 for axis in op.spec.axes}
    assert op.operator("triton")._auto(plan(1, 1 << 20, sizes)) == auto.preferred(op.operator("triton").forms)
    assert "few long sequences" not in op.explain()


def test_the_torch_target_splits_in_chunks_at_any_size() -> None:
    operator = MINGRU.operator("torch")
    assert operator.long is None
    assert operator._auto(plan(*FEW_AND_LONG[:2], {"d": 64})) == "chunked"


def test_no_multiprocessors_no_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    cpu = Plan(*FEW_AND_LONG[:2], {"d": 64}, torch.float32, torch.float32, torch.device("cpu"))
    assert auto.multiprocessors(cpu.device) == 0
    assert MINGRU.operator("triton")._auto(cpu) == "chunked"


def test_all_axes_of_a_state_count() -> None:
    spec = scanc.compile("scan heads\nbatch n\naxes d\ninput x[n,d]\nstate h[n,d]\nh = h/2 + x\noutput h[n,d]\n")
    operator = spec.operator("triton")
    assert operator._auto(plan(1, 4096, {"n": 16, "d": 128})) == "parallel"
    assert operator._auto(plan(1, 4096, {"n": 512, "d": 128})) == "chunked"


def test_explain_says_when() -> None:
    assert "parallel: a scan over the associative operator, in one pass" in MINGRU.explain(form="parallel")
    assert "(auto for few long sequences in float32)" in MINGRU.explain()
    assert "form parallel" in MINGRU.explain(*tensors(*FEW_AND_LONG))
    assert "form chunked" in MINGRU.explain(*tensors(3, 40, 5))


def test_a_tuned_choice_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    given = tensors(*FEW_AND_LONG)
    with tuned.trying({f"call {' '.join(MINGRU.spec.forms)}": {"form": "recurrent"}}):
        monkeypatch.setattr(tuned, "exists", lambda digest: True)
        assert "form recurrent" in MINGRU.explain(*given)
    with tuned.trying({f"call {' '.join(MINGRU.spec.forms)}": {"form": "magic"}}):
        assert "form parallel" in MINGRU.explain(*given)


# --- short calls of memories ---

GLA = scanc.load(EXAMPLES / "gla.scan", target="triton")
STEPS = 64


def gla(batch: int, time: int, width: int = 128, dtype: torch.dtype = torch.float32) -> str:
    return GLA.operator("triton")._auto(plan(batch, time, {"h": 4, "i": width, "j": width}, dtype))


def test_short_calls_of_memories_walk_their_steps() -> None:
    assert GLA.operator("triton").short == ("recurrent", STEPS)
    assert [gla(2, time) for time in (1, 8, STEPS - 1, STEPS, 4096)] == ["recurrent"] * 3 + ["chunked"] * 2
    assert gla(2, 4096, dtype=torch.float64) == "recurrent"


def test_states_that_a_gpu_does_not_hold_at_once_are_walked_for_fewer_steps() -> None:
    waves = 1024 * 4 / 132  # a multiprocessor holds one state of 128 keys and 128 values
    assert gla(1024, int(STEPS / waves)) == "recurrent"
    assert gla(1024, int(STEPS / waves) + 1) == "chunked"
    assert gla(1024, STEPS - 1, width=16) == "recurrent"


def test_explain_says_which_calls_are_short() -> None:
    assert "(auto for less than 64 steps)" in GLA.explain()


# --- under torch.compile and torch.export ---


def tensors(batch: int, time: int, width: int) -> list[Tensor]:
    inputs = [torch.randn(batch, time, width) for _ in MINGRU.spec.inputs]
    return inputs + [torch.randn(width) for _ in MINGRU.spec.params]


def forms_in(graph: torch.fx.Graph) -> list[str]:
    return [str(node.args[1]) for node in graph.nodes if "scanc" in str(node.target) and node.op == "call_function"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dynamic", [False, True, None])
def test_a_compiled_call_chooses_as_any_other(dynamic: bool | None) -> None:
    found: list[str] = []

    def backend(module: torch.fx.GraphModule, given: Any) -> Any:
        found.extend(forms_in(module.graph))
        return module.forward

    torch._dynamo.reset()
    compiled = torch.compile(lambda *given: MINGRU(*given), fullgraph=True, backend=backend, dynamic=dynamic)
    times = auto.LONG, auto.LONG + 7, 100
    with torch.no_grad():
        for time in times:
            compiled(*(x.to("meta") for x in tensors(1, time, 64)))
    assert found[0] == "parallel"
    assert found[-1] == "chunked"
    assert len(found) == {False: 3, True: 2, None: 3}[dynamic]


class Module(torch.nn.Module):
    def forward(self, *given: Tensor) -> Any:
        return MINGRU(*given)


@pytest.mark.parametrize("strict", [True, False])
def test_what_is_exported_for_its_sizes_takes_their_form(strict: bool) -> None:
    exported = torch.export.export(Module(), tuple(tensors(*FEW_AND_LONG)), strict=strict)
    assert forms_in(exported.graph) == ["parallel"]


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(("least", "form"), [(2, "chunked"), (auto.LONG, "parallel")])
def test_what_is_exported_for_any_size_takes_one_form(strict: bool, least: int, form: str) -> None:
    time = torch.export.Dim("T", min=least, max=1 << 20)
    given = tuple(tensors(*FEW_AND_LONG))
    exported = torch.export.export(
        Module(), given, strict=strict, dynamic_shapes={"given": tuple({1: time} for _ in given)}
    )
    assert forms_in(exported.graph) == [form]


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_and_exported_calls_are_short_by_their_sizes(dynamic: bool) -> None:
    def given(time: int) -> list[Tensor]:
        return [torch.randn(2, time, 3, 5, device="meta") for _ in GLA.spec.inputs]

    found: list[str] = []

    def backend(module: torch.fx.GraphModule, _: Any) -> Any:
        found.extend(forms_in(module.graph))
        return module.forward

    torch._dynamo.reset()
    compiled = torch.compile(lambda *tensors: GLA(*tensors), fullgraph=True, backend=backend, dynamic=dynamic)
    with torch.no_grad():
        for time in (8, 100, 9):
            compiled(*given(time))
    assert found == ["recurrent", "chunked", *([] if dynamic else ["recurrent"])]

    class Call(torch.nn.Module):
        def forward(self, *tensors: Tensor) -> Any:
            return GLA(*tensors)

    time = torch.export.Dim("T", min=2, max=1 << 20)
    shapes = {"tensors": tuple({1: time} if dynamic else {} for _ in GLA.spec.inputs)}
    exported = torch.export.export(Call(), tuple(given(8)), dynamic_shapes=shapes)
    assert forms_in(exported.graph) == ["chunked" if dynamic else "recurrent"]
