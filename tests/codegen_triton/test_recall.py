"""Kernels of memories in Triton's interpreter against the interpreter in fp64: values and every gradient."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from codegen_triton.support import DEVICE
from scanc_runtime import recall, recall_segments
from scanc_runtime.recall import forced_recall
from scanc_runtime.spec import TensorSpec
from torch import Tensor

from scanc.codegen.triton.recall_host import memories, write_backward_memories, write_forward_memories
from scanc.codegen.triton.recall_plan import NoRecall, plan
from scanc.codegen.writer import Writer
from scanc.driver import Compiled, compile_text
from scanc.interpreter import interpret, random_arguments
from scanc.passes.differentiate import differentiate
from scanc.passes.pipeline import SIMPLIFIED, TO_REMEMBERED, Trace, run

EXAMPLES = Path(__file__).parents[2] / "examples"
HEAD = "batch h\naxes i, j\ninput q[h,i], k[h,i], v[h,j], f[h], g[h,i], r[h,j]\nparam w[h], u[h,i]\nstate S[h,i,j]\n"
SPECS = {
    "no decay": "S = S + k*v\no = q · S",
    "a gate": "S = exp(f)*S + k*v\no = q · S",
    "a gate of an activation": "S = sigmoid(f - w)*S + k*v\no = q · S",
    "a gate, read before": "o = q · S\nS = exp(-f*f)*S + k*v",
    "factors of each step": "S = exp(-f*f)*S + f*k*v\no = (q*f) · S",
    "read before, with a bonus": "o = q · (S + u*k*v)\nS = S + k*v",
    "a bonus of factors, decays of rows": "o = q · (S + k*(f*v))\nS = exp(-abs(g))*S + k*f*v",
    "features": "S = S + softplus(k)*v\no = softplus(q) · S",
    "read over columns": "S = exp(-f*f)*S + k*v\np = S · v\no = sum[i](p)*v",
    "decays of rows": "S = exp(-abs(g))*S + k*v\no = q · S",
    "decays of columns": "S = exp(-abs(r))*S + k*v\no = q · S",
    "decays of both sides": "S = exp(-abs(g) - abs(r))*S + k*v\no = q · S",
    "decays of rows, read before": "o = q · (S + u*k*v)\nS = exp(-exp(g))*S + k*v",
    "a skip and an output gate": "S = exp(-f*f)*S + k*v\no = (q · S + w*v)*sigmoid(f)",
}
SHARED_OUT = [
    "no decay",
    "a gate",
    "a gate of an activation",
    "read before, with a bonus",
    "read over columns",
    "decays of rows",
    "decays of columns",
    "decays of rows, read before",
]


@cache
def module(text: str, folder: Path) -> tuple[Compiled, ModuleType]:
    """The module of a spec, with the functions of its memories behind the others."""
    compiled = compile_text(text)
    program = run(TO_REMEMBERED, compiled.discrete, Trace())
    adjoint = run(SIMPLIFIED, differentiate(program), Trace())
    forward, backward = memories(program, "forward"), memories(adjoint, "backward")
    out = Writer()
    acts = (*forward, *backward)
    for kernel in (kernel for act in acts for kernel in act.all):
        out.blank(2)
        for line in kernel.source.splitlines():
            out.line(line) if line else out.blank()
    for line in (line for act in acts for line in act.tilings(program.name)):
        out.line(line)
    write_forward_memories(out, forward, program, program)
    write_backward_memories(out, backward, program, adjoint, program)
    imports = "\nfrom scanc_runtime import recall\nfrom scanc_runtime.recall import RecallTiling\n"
    path = folder / f"memory_{compiled.digest}.py"
    path.write_text(compiled.module_source("triton") + imports + out.text())
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return compiled, found


def canonical(decl: TensorSpec, tensor: Tensor, lead: int, sizes: dict[str, int]) -> Tensor:
    flat = [axis for group in decl.dims for axis in group]
    tensor = tensor.reshape(*tensor.shape[:lead], *[sizes[axis] for axis in flat])
    order = [*range(lead), *(lead + flat.index(axis) for axis in decl.axes)]
    return tensor.permute(order).contiguous()


def compare(
    text: str,
    folder: Path,
    time: int,
    reverse: bool,
    sizes: dict[str, int] | None = None,
    change: Callable[[dict[str, Tensor]], None] | None = None,
    segments: int | None = None,
) -> None:
    compiled, made = module(text, folder)
    spec = made.SPEC
    free = [axis for axis in compiled.typed.axes if axis.size is None and axis.like is None]
    sizes = sizes or {axis.name: 2 + 3 * i for i, axis in enumerate(free)}
    inputs, params, states = random_arguments(compiled.typed, batch=2, time=time, sizes=sizes, seed=0)
    if change is not None:
        change(inputs)
    groups = ((spec.inputs, inputs, 2), (spec.params, params, 0), (spec.states, states, 1))
    order = [(decl, given[decl.name], lead) for decls, given, lead in groups for decl in decls]
    leaves = {decl.name: tensor.double().requires_grad_() for decl, tensor, _ in order}
    named = [{decl.name: leaves[decl.name] for decl in decls} for decls, _, _ in groups]
    outputs, final = interpret(compiled.typed, *named, reverse=reverse)
    values = {**outputs, **final}
    given = {name: torch.randn_like(value) for name, value in values.items()}
    wanted = torch.autograd.grad(list(values.values()), list(leaves.values()), list(given.values()), allow_unused=True)

    def primals(decls: Any, tensors: dict[str, Tensor], lead: int) -> tuple[Tensor, ...]:
        return tuple(canonical(decl, tensors[decl.name].float(), lead, sizes).to(DEVICE) for decl in decls)

    arguments = [primals(decls, given, lead) for decls, given, lead in groups]
    with forced_recall(steps=16, block=16, segments=segments):
        found, ends, saved = made.forward_chunked(*arguments, reverse, True)
        cotangents = primals(spec.outputs, given, 2), primals(spec.states, given, 1)
        gradients = made.backward_chunked(*arguments, saved, *cotangents, reverse)
    pairs = [(values[d.name], f, d, 2) for d, f in zip(spec.outputs, found, strict=True)]
    pairs += [(values[d.name], f, d, 1) for d, f in zip(spec.states, ends, strict=True)]
    flat = [gradient for group in gradients for gradient in group]
    for (decl, tensor, lead), gradient, ours in zip(order, wanted, flat, strict=True):
        pairs.append((torch.zeros_like(tensor) if gradient is None else gradient, ours, decl, lead))
    for expected, ours, decl, lead in pairs:
        right = canonical(decl, expected.detach().double(), lead, sizes)
        torch.testing.assert_close(ours.cpu().double(), right, rtol=1e-4, atol=2e-5 * (1 + float(right.abs().max())))


@pytest.fixture(autouse=True)
def short_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "STRETCH", 32)
    monkeypatch.setenv("SCANC_POISON", "1")


@pytest.mark.parametrize("body", SPECS.values(), ids=SPECS.keys())
def test_values_and_gradients(body: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    text = f"scan s\n{HEAD}{body}\noutput o[h,j]"
    folder = tmp_path_factory.getbasetemp()
    compare(text, folder, 37, False)
    compare(text, folder, 16, True)


TWO = {
    "of rows, apart": "S = exp(-abs(g))*S + k*v\nR = exp(-abs(q))*R + q*v",
    "of rows, the same": "S = exp(-abs(g))*S + k*v\nR = exp(-abs(g))*R + q*v",
    "of all": "S = exp(-f*f)*S + k*v\nR = exp(-w*w)*R + q*v",
    "of all and of rows": "S = exp(-f*f)*S + k*v\nR = exp(-abs(g))*R + q*v",
}


@pytest.mark.parametrize("body", TWO.values(), ids=TWO.keys())
def test_two_memories(body: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    text = f"scan s\n{HEAD}state R[h,i,j]\n{body}\no = q·S + k·R\noutput o[h,j]"
    compare(text, tmp_path_factory.getbasetemp(), 40, False, {"h": 2, "i": 5, "j": 8})


def strong(inputs: dict[str, Tensor]) -> None:
    """Decays of one head that no tilt can hold, of another that are none, or leave nothing."""
    inputs["g"][:, :, 0] *= 40
    inputs["g"][:, 5::7, 1] = 0
    inputs["g"][1, 11, 2, 0] = -torch.inf


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    "body", ["S = exp(-abs(g))*S + k*v\no = q · S", "o = q · (S + u*k*v)\nS = exp(-abs(g) - abs(r))*S + k*v"]
)
def test_decays_that_leave_nothing(body: str, reverse: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    text = f"scan s\n{HEAD}{body}\noutput o[h,j]"
    sizes = {"h": 4, "i": 5, "j": 8}
    compare(text, tmp_path_factory.getbasetemp(), 45, reverse, sizes, strong)
    compare(text, tmp_path_factory.getbasetemp(), 45, reverse, sizes, strong, segments=2)


@pytest.mark.parametrize("body", SHARED_OUT)
def test_segments(body: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    text = f"scan s\n{HEAD}{SPECS[body]}\noutput o[h,j]"
    folder = tmp_path_factory.getbasetemp()
    compare(text, folder, 70, False, segments=3)
    compare(text, folder, 37, True, segments=2)


def test_more_segments_than_are_read_ahead(tmp_path_factory: pytest.TempPathFactory) -> None:
    text = f"scan s\n{HEAD}{SPECS['a gate']}\noutput o[h,j]"
    compare(text, tmp_path_factory.getbasetemp(), 260, False, segments=16)
    compare(text, tmp_path_factory.getbasetemp(), 5, True, segments=16)


@pytest.mark.parametrize(
    ("programs", "time", "expected", "span"),
    [(16, 32768, 8, 4096), (16, 4000, 1, 4096), (24, 32768, 5, 6656), (70, 32768, 1, 32768), (1, 5000, 20, 256)],
)
def test_as_many_segments_as_there_is_room_for(
    programs: int, time: int, expected: int, span: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recall_segments, "multiprocessors", lambda _: 132)
    call: Any = SimpleNamespace(batch=1, time=time, device=None)
    found = recall_segments.segments(call, programs, 256)
    assert (found.chunks, found.span) == (expected, span)
    assert found.times == {"T": time, "segments": expected, "span": span}


@pytest.mark.parametrize("reverse", [False, True])
def test_segments_of_an_absent_state(reverse: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    text = f"scan s\n{HEAD}{SPECS['a gate of an activation']}\noutput o[h,j]"
    compiled, made = module(text, tmp_path_factory.getbasetemp())
    inputs, params, states = random_arguments(compiled.typed, batch=1, time=90, sizes={"h": 2, "i": 3, "j": 5}, seed=0)
    given = tuple(tuple(x.float().to(DEVICE) for x in group.values()) for group in (inputs, params))
    nothing = tuple(torch.zeros_like(x).float().to(DEVICE) for x in states.values())
    with forced_recall(steps=16, segments=3):
        found = [made.forward_chunked(*given, start, reverse, False) for start in ((None,), (None,), nothing)]
    alone = made.forward_chunked(*given, (None,), reverse, False)
    for (value,), (end,), _ in found[1:]:
        assert torch.equal(value, found[0][0][0])
        assert torch.equal(end, found[0][1][0])
    torch.testing.assert_close(found[0], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")
def test_growth_behind_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A segment's growth may overflow where there is no state to grow."""
    text = "scan s\naxes i, j\ninput q[i], k[i], v[j], f\nstate S[i,j]\nS = exp(f)*S + k*v\no = q · S\noutput o[j]"
    _, made = module(text, tmp_path_factory.getbasetemp())
    x, f = torch.zeros(1, 96, 4, device=DEVICE), torch.full((1, 96), 4.0, device=DEVICE)
    with forced_recall(steps=16, segments=3):
        (value,), (end,), _ = made.forward_chunked((x, x, x, f), (), (None,), False, False)
    assert not value.any()
    assert not end.any()


@pytest.mark.parametrize("name", ["mamba2", "linear_attention_plain", "gla", "rwkv6", "retnet", "hgrn2"])
def test_examples(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    text = (EXAMPLES / f"{name}.scan").read_text()
    compare(text, folder, 70, False)
    compare(text, folder, 33, True, segments=2)


@pytest.mark.parametrize("name", ["mlstm"])
def test_what_has_no_such_kernels(name: str) -> None:
    compiled = compile_text((EXAMPLES / f"{name}.scan").read_text())
    with pytest.raises(NoRecall):
        plan(run(TO_REMEMBERED, compiled.discrete, Trace()))
