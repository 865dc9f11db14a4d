"""The store of tuned choices: found by what they depend on, kept as the cache keeps things, never in the way."""

from __future__ import annotations

import json
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from scanc_runtime import cache, scans, segments, tuned
from torch.testing import assert_close

import scanc

EMA = "scan ema\naxes d\ninput x[d], g[d]\nstate h[d]\nh = sigmoid(g)*h + x\noutput h[d]\n"
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv(cache.DIRECTORY, str(tmp_path / "cache"))
    tuned.forget()
    return tmp_path / "cache"


def key(spec: str = "abc123", kernel: str = "k", dtype: str = "fp32", **sizes: int) -> tuned.Key:
    return tuned.key(spec, kernel, sizes or {"d": 4}, dtype, CPU)


def test_what_is_stored_is_found_by_a_later_process(home: Path) -> None:
    assert not tuned.exists("abc123")
    path = tuned.store(key(), {"chunk": 7})
    assert path is not None
    assert path.parent == home / "tuned" / "abc123"
    assert path.stat().st_mode & 0o077 == 0
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    tuned.forget()
    assert tuned.exists("abc123")
    assert tuned.find(key()) == {"chunk": 7}
    tuned.store(key(), {"chunk": 9})
    assert tuned.find(key()) == {"chunk": 9}


def test_another_spec_kernel_size_dtype_thread_count_or_version_is_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    tuned.store(key(), {"chunk": 7})
    others = [key("abc124"), key(kernel="l"), key(d=5), key(d=4, e=4), key(dtype="bf16"), key()._replace(threads=99)]
    assert [tuned.find(other) for other in others] == [None] * len(others)
    assert tuned.find(key()) is not None
    tuned.forget()
    monkeypatch.setattr(cache, "_version", lambda name: "0.0")
    assert tuned.find(key()) is None


def test_nothing_is_made_where_nothing_was_tuned(home: Path) -> None:
    assert not tuned.exists("abc123")
    assert tuned.find(key()) is None
    assert not home.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"choice": {}}', '{"fields": {}, "choice": {"chunk": 3}}'])
def test_a_damaged_file_is_a_warning(text: str) -> None:
    path = tuned.store(key(), {"chunk": 7})
    assert path is not None
    path.write_text(text)
    with pytest.warns(cache.CacheWarning, match="goes without what was tuned"):
        assert tuned.find(key()) is None


def test_a_directory_that_others_can_write_is_not_read(home: Path) -> None:
    tuned.store(key(), {"chunk": 7})
    home.chmod(0o777)
    tuned.forget()
    with pytest.warns(cache.CacheWarning, match="can be written by others"):
        assert tuned.find(key()) is None
    with pytest.warns(cache.CacheWarning):
        assert tuned.store(key(), {"chunk": 8}) is None


def test_writers_at_once_leave_one_whole_file() -> None:
    with ThreadPoolExecutor(4) as threads:
        paths = set(threads.map(lambda n: tuned.store(key(), {"chunk": n}), range(12)))
    (path,) = paths
    assert path is not None
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert json.loads(path.read_text())["choice"]["chunk"] in range(12)


def test_a_trial_holds_alone_and_ends() -> None:
    tuned.store(key(), {"chunk": 7})
    with tuned.trying({"k": {"chunk": 2}}):
        assert tuned.find(key("never stored")) == {"chunk": 2}
        assert tuned.find(key(kernel="other")) is None
    assert tuned.find(key()) == {"chunk": 7}


def stored(choice: tuned.Choice, x: torch.Tensor) -> scanc.ScanOperator:
    """An operator for whose calls with `x` a choice is stored."""
    op = scanc.compile(EMA, target="torch")
    batch, time, width = x.shape
    spec = op.spec
    tuned.store(tuned.call_key(spec.digest, spec.forms, batch, time, {"d": width}, torch.float32, x.device), choice)
    return op


def test_a_call_takes_the_tuned_form_and_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, g = torch.randn(2, 40, 3, requires_grad=True), torch.randn(2, 40, 3)
    op = stored({"form": "parallel"}, x)
    assert "form parallel" in op.explain(x, g)
    assert "form chunked" in op.explain(x[:, :39], g[:, :39])
    stored({"chunk": 5}, x)
    steps: list[int] = []
    monkeypatch.setattr(segments, "chunks_of", lambda n: (steps.append(n), scans.chunks_of(n))[1])
    chosen, plain = op(x, g), op(x, g, form="recurrent")
    assert_close(chosen, plain)
    dy = torch.randn_like(x)
    assert_close(*(torch.autograd.grad(y, x, dy)[0] for y in (chosen, plain)))
    assert steps == [5, 5]  # forward and backward


@pytest.mark.parametrize("choice", [{"form": "magic"}, {"form": 3}, {"chunk": -1}, {"chunk": "many"}, {"more": []}, {}])
def test_a_choice_that_makes_no_sense_is_not_taken(choice: tuned.Choice) -> None:
    x = torch.randn(2, 40, 3)
    op = stored(choice, x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_close(op(x, x), op(x, x, form="interpret"))
    assert "form chunked" in op.explain(x, x)


def test_a_compiled_call_chooses_by_itself() -> None:
    x = torch.randn(2, 40, 3)
    op = stored({"form": "parallel"}, x)
    compiled = torch.compile(lambda x: op(x, x), fullgraph=True, backend="eager")
    assert_close(compiled(x), op(x, x))
