"""What users hold: loading, targets, forms, explain and code."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from op.calls import EXAMPLES, NAMES, call, example
from scanc_runtime import cache
from torch.testing import assert_close

import scanc
from scanc.codegen.safety import UnsafeSource

EMA = "scan ema\naxes d\ninput x[d], a[d]\nstate h[d]\nh = a*h + x\noutput h[d]\n"


def tensors(dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, 5, 3, dtype=dtype), torch.rand(2, 5, 3, dtype=dtype)]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_the_interpreter_is_a_form(name, reverse):
    made = call(name, reverse=reverse)
    other = call(name, reverse=reverse, form="interpret")
    with torch.no_grad():
        assert_close(other.run(*made.tensors), made.run(*made.tensors))


@pytest.mark.parametrize("name", NAMES)
def test_steps_are_the_sequence(name):
    operator = example(name)
    made = call(name, time=4)
    names = operator.spec.inputs
    given = dict(zip([*(d.name for d in names), *(d.name for d in operator.spec.params)], made.tensors, strict=False))
    with torch.no_grad():
        whole, last = operator(**given, return_state=True)
        rows, state = [], None
        for t in range(4):
            now = {name: x[:, t] if name in {d.name for d in names} else x for name, x in given.items()}
            row, state = operator.step(**now, state=state)
            rows.append(row if isinstance(row, tuple) else (row,))
    whole = whole if isinstance(whole, tuple) else (whole,)
    for i, output in enumerate(whole):
        assert_close(torch.stack([row[i] for row in rows], 1), output)
    assert state.keys() == last.keys()
    for key in last:
        assert_close(state[key], last[key])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_interpreter_keeps_the_dtypes(dtype):
    operator = scanc.compile(EMA)
    one, state = operator(*tensors(dtype), return_state=True)
    other, other_state = operator(*tensors(dtype), return_state=True, form="interpret")
    assert one.dtype == other.dtype == dtype
    assert state["h"].dtype == other_state["h"].dtype
    assert_close(one, other)


def test_a_path_is_no_text_and_a_text_no_path():
    with pytest.raises(scanc.ArgumentError, match="load takes the path"):
        scanc.compile("layers/ema.scan")
    with pytest.raises(scanc.ArgumentError, match="compile takes a text"):
        scanc.load(EMA)
    with pytest.raises(scanc.ArgumentError, match="NoneType"):
        scanc.compile(None)


def test_load_and_compile_are_the_same(tmp_path):
    path = tmp_path / "ema.scan"
    path.write_text(EMA)
    assert_close(scanc.load(path)(*tensors()), scanc.compile(EMA)(*tensors()))
    assert_close(scanc.load(str(path), target="torch")(*tensors()), scanc.compile(EMA)(*tensors()))


def test_a_wrong_spec_is_found_when_it_is_loaded():
    with pytest.raises(scanc.CompileError, match="nothing"):
        scanc.compile(EMA.replace("a*h", "nothing*h"))


def test_a_wrong_target():
    with pytest.raises(scanc.ArgumentError, match=r"no target 'tritn'(.|\n)*did you mean `triton`"):
        scanc.compile(EMA, target="tritn")


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="kernels are interpreted")
def test_triton_wants_a_gpu():
    with pytest.raises(scanc.ArgumentError, match="Triton kernels run on a GPU, these tensors are on the CPU"):
        scanc.compile(EMA, target="triton")(*tensors())


def test_forms_classes_and_explanations():
    operator = scanc.compile(EMA, target="torch")
    assert operator.forms == ("recurrent", "chunked", "parallel", "interpret")
    ((states, label),) = operator.classes
    assert states == ("h",)
    assert "diagonal" in label
    text = operator.explain(*tensors())
    assert text.startswith(operator.explain().rstrip())
    assert "ema at B = 2, T = 5, d = 3: form chunked, computes in float32, returns float32 (target torch)" in text
    assert repr(operator) == "<scan ema from <spec>>"


def test_copies_and_pickles():
    operator = scanc.compile(EMA)
    expected = operator(*tensors())
    assert copy.deepcopy(operator) is operator
    assert_close(pickle.loads(pickle.dumps(operator))(*tensors()), expected)


def test_modules_are_cached(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.DIRECTORY, str(tmp_path / "cache"))
    first, again, other = scanc.compile(EMA), scanc.compile(EMA), scanc.compile(EMA + "# a comment\n")
    first.code("torch")
    monkeypatch.setattr(type(again.compiled), "module_source", None)  # a second generation would fail
    assert again.code("torch") == first.code("torch")
    with pytest.raises(TypeError):
        other.code("torch")


def test_a_cached_module_needs_no_compiler(tmp_path):
    program = f"""
import sys, torch, scanc
op = scanc.compile({EMA!r}, target="torch")
print(op(torch.ones(1, 3, 2), torch.ones(1, 3, 2)).sum().item(), op.name, "scanc.driver" in sys.modules)
assert "diagonal" in op.classes[0][1] and "scanc.driver" in sys.modules
"""
    environment = {**os.environ, cache.DIRECTORY: str(tmp_path / "cache")}
    command = [sys.executable, "-c", program]
    runs = [subprocess.run(command, env=environment, capture_output=True, text=True, check=True) for _ in range(2)]
    assert [run.stdout for run in runs] == ["12.0 ema True\n", "12.0 ema False\n"]


def test_a_cached_module_is_not_taken_for_another(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.DIRECTORY, str(tmp_path / "cache"))
    (tmp_path / "spec.scan").write_text(EMA.replace("a*h", "f.gate(a)*h").replace("axes", 'import "f.scan" as f\naxes'))
    found = []
    for gate in ("sigmoid", "tanh"):
        (tmp_path / "f.scan").write_text(f"def gate(x) = {gate}(x)\n")
        found.append(scanc.load(tmp_path / "spec.scan", target="torch").code())
    assert "sigmoid" in found[0]
    assert "tanh" in found[1]
    scanc.compile(EMA, target="torch").code()
    (tmp_path / "f.scan").unlink()
    with pytest.raises(scanc.CompileError):
        scanc.load(tmp_path / "spec.scan", target="torch")
    with pytest.raises(scanc.CompileError):
        scanc.compile(EMA.replace("output h", "output k"), target="torch")


def test_what_the_cache_must_not_be_is_no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.DIRECTORY, str(tmp_path / "cache"))
    scanc.compile(EMA, target="torch").code()
    assert scanc.compile(EMA, target="torch")._sources
    (tmp_path / "cache").chmod(0o777)
    open_to_all = scanc.compile(EMA, target="torch")
    assert not open_to_all._sources
    with pytest.warns(cache.CacheWarning, match="can be written by others"):
        open_to_all.code()


def test_what_is_generated_is_checked_before_it_is_cached(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.DIRECTORY, str(tmp_path / "cache"))
    operator = scanc.compile(EMA, target="torch")
    monkeypatch.setattr(type(operator.compiled), "module_source", lambda *_: "import os\n")
    for _ in range(2):
        with pytest.raises(UnsafeSource, match="`import os` is not allowed"):
            operator(*tensors())
    assert not list((tmp_path / "cache" / "modules").iterdir())


def test_a_module_stands_alone(tmp_path):
    """What `code` gives runs where the compiler is not."""
    (tmp_path / "ops.py").write_text(scanc.compile(EMA).code("torch"))
    program = f"""
import sys
sys.path[:0] = [{str(tmp_path)!r}, {str(Path(scanc.__file__).parents[1] / "runtime")!r}]
sys.modules["scanc"] = None
import torch
from ops import ema
x = torch.ones(1, 3, 2, requires_grad=True)
y, state = ema(x, 0.5 * torch.ones(1, 3, 2), return_state=True)
y.sum().backward()
assert y[0, :, 0].tolist() == [1.0, 1.5, 1.75] and x.grad[0, :, 0].tolist() == [1.75, 1.5, 1.0]
"""
    subprocess.run([sys.executable, "-I", "-c", program], check=True, cwd=tmp_path)


def test_the_public_names_are_lazy():
    program = "import sys, scanc; scanc.__version__; assert 'torch' not in sys.modules; assert 'load' in dir(scanc)"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=EXAMPLES.parent)
