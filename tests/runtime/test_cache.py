"""The disk cache: whole entries, the owner's alone, never in the way."""

from __future__ import annotations

import inspect
import json
import os
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from scanc_runtime import cache

SOURCE = "def double(x):\n    return 2 * x\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cache.DIRECTORY, str(tmp_path / "cache"))
    return tmp_path / "cache"


class Build:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        return SOURCE


def test_an_entry_is_built_once(home):
    build = Build()
    for _ in range(2):
        source, path = cache.cached_source({"spec": "a"}, build)
        assert source == SOURCE == path.read_text()
    assert build.calls == 1
    assert home.stat().st_mode & 0o777 == 0o700
    assert [entry.name for entry in (home / "modules").iterdir()] == [cache.cache_key({"spec": "a"})]
    meta = json.loads((path.parent / "meta.json").read_text())
    assert set(meta) == {"format", "sha256", "scanc", "torch", "triton", "fields"}


def test_at_once_is_still_once(home):
    build = Build()

    def slowly() -> str:
        time.sleep(0.1)
        return build()

    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda _: cache.cached_source({"spec": "a"}, slowly), range(4)))
    assert build.calls == 1
    assert len(set(results)) == 1


def test_the_key_holds_versions_and_every_field(monkeypatch):
    keys = {cache.cache_key(fields) for fields in ({"a": "1"}, {"a": "2"}, {"b": "1"}, {"a": "1", "b": "1"})}
    monkeypatch.setattr(cache, "versions", lambda: {"torch": "0"})
    assert len(keys | {cache.cache_key({"a": "1"})}) == 5


@pytest.mark.parametrize("damage", ["source", "meta", "gone", "format"])
def test_a_damaged_entry_is_built_anew(home, damage):
    build = Build()
    _, path = cache.cached_source({"spec": "a"}, build)
    meta = path.with_name("meta.json")
    if damage == "source":
        path.write_text(SOURCE + "import os\n")
    elif damage == "meta":
        meta.write_text("{")
    elif damage == "gone":
        meta.unlink()
    else:
        meta.write_text("[]")
    assert cache.cached_source({"spec": "a"}, build) == (SOURCE, path)
    assert path.read_text() == SOURCE
    assert build.calls == 2
    assert len(list((home / "modules").iterdir())) == 1


def test_a_directory_that_others_can_write_is_refused(home):
    home.mkdir()
    home.chmod(0o777)
    with pytest.warns(cache.CacheWarning, match="can be written by others"):
        assert cache.cached_source({"spec": "a"}, Build()) == (SOURCE, None)
    assert not list(home.iterdir())


def test_a_directory_of_another_user_is_refused(home, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.warns(cache.CacheWarning, match="belongs to another user"):
        assert cache.cached_source({"spec": "a"}, Build()) == (SOURCE, None)


def test_a_directory_that_cannot_be_made_is_no_hindrance(home):
    home.write_text("a file stands there")
    with pytest.warns(cache.CacheWarning, match="cannot be made"):
        assert cache.cached_source({"spec": "a"}, Build()) == (SOURCE, None)


def test_a_failed_write_is_no_hindrance(home, monkeypatch):
    def full(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr(cache.os, "rename", full)
    with pytest.warns(cache.CacheWarning, match="no space"):
        assert cache.cached_source({"spec": "a"}, Build()) == (SOURCE, None)
    assert not list((home / "modules").iterdir())


def test_errors_of_the_build_pass_through(home):
    def fails() -> str:
        raise KeyError("build")

    with pytest.raises(KeyError):
        cache.cached_source({"spec": "a"}, fails)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache.cached_source({"spec": "a"}, Build())[0] == SOURCE


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_loaded_module_can_show_its_source(home, on_disk):
    path = cache.cached_source({"spec": "a"}, Build())[1] if on_disk else None
    module = cache.load_module(SOURCE, f"scanc_test_{on_disk}", path)
    assert module.double(4) == 8
    assert inspect.getsource(module.double) == SOURCE


def test_a_module_that_fails_is_not_left_behind():
    import sys

    with pytest.raises(ZeroDivisionError):
        cache.load_module("1 / 0", "scanc_test_fails")
    assert "scanc_test_fails" not in sys.modules
