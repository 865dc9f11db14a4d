"""Generated modules on disk, and how a module's text becomes a module.

An entry is a directory with the module's source and a JSON page that holds the source's hash.  It is
published whole, by one rename, under a lock per key.  The cache belongs to the user alone; one that
others can write is refused.  Whatever fails here warns, and the module is built uncached.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import linecache
import os
import shutil
import stat
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import platformdirs
from filelock import FileLock, Timeout

DIRECTORY = "SCANC_CACHE_DIR"  # the environment variable that moves the cache
_FORMAT = 1
_LOCK_SECONDS = 120.0


class CacheWarning(UserWarning):
    """The cache could not be used; nothing else is wrong."""


def versions() -> dict[str, str]:
    """The versions that generated code depends on, `none` for what is not installed."""
    return {name: _version(name) for name in ("scanc", "torch", "triton")}


def cache_key(fields: Mapping[str, str]) -> str:
    """The key of a module: a hash over everything that it depends on, versions included."""
    text = json.dumps({"format": str(_FORMAT), **versions(), **fields}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def cache_path() -> Path:
    """Where the cache is, if it is."""
    return Path(os.environ.get(DIRECTORY) or platformdirs.user_cache_dir("scanc", appauthor=False))


def cache_directory() -> Path | None:
    """The cache, made if need be, or None, with a warning, where it must not be used."""
    path = cache_path()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        wrong = _wrong(path)
    except OSError as error:
        wrong = f"cannot be made: {error}"
    if wrong:
        _warn(f"{path} {wrong}")
        return None
    return path


def _wrong(path: Path) -> str:
    """Why a directory must not be the cache; nothing if it may."""
    status = path.stat()
    if hasattr(os, "getuid") and status.st_uid != os.getuid():
        return "belongs to another user"
    if os.name == "posix" and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "can be written by others; `chmod 700` it"
    return ""


def find_source(fields: Mapping[str, str]) -> tuple[str, Path] | None:
    """The source for these key fields and its file, if it is cached; changes nothing and warns of nothing."""
    directory = cache_path()
    try:
        if _wrong(directory):
            return None
    except OSError:
        return None
    entry = directory / "modules" / cache_key(fields)
    source = _read(entry)
    return None if source is None else (source, entry / "module.py")


def cached_source(fields: Mapping[str, str], build: Callable[[], str]) -> tuple[str, Path | None]:
    """The source that `build` makes for these key fields, and its file if it is cached.

    Errors of `build` itself pass through.
    """
    directory = cache_directory()
    if directory is None:
        return build(), None
    key = cache_key(fields)
    entry = directory / "modules" / key
    source = _read(entry)
    if source is not None:
        return source, entry / "module.py"
    try:
        (directory / "modules").mkdir(mode=0o700, exist_ok=True)
        (directory / "locks").mkdir(mode=0o700, exist_ok=True)
        lock = FileLock(directory / "locks" / f"{key}.lock")
        lock.acquire(timeout=_LOCK_SECONDS)
    except (OSError, Timeout) as error:
        _warn(f"{directory}: {error}")
        return build(), None
    try:
        source = _read(entry)
        if source is None:
            source = build()
            _publish(entry, source, fields)
    finally:
        lock.release()
    return source, entry / "module.py" if _read(entry) == source else None


def load_module(source: str, name: str, path: Path | None = None) -> ModuleType:
    """Runs a module's source under `name`, which it has in `sys.modules` too.

    Its functions' source can be retrieved (Triton asks for it): from `path` if the text is there, else from
    `linecache`.  The caller has made sure that the source is safe to run.
    """
    filename = str(path) if path is not None else f"<{name}>"
    module = ModuleType(name)
    module.__file__ = filename
    if path is None:
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    else:
        linecache.checkcache(filename)
    code = compile(source, filename, "exec", dont_inherit=True)
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        exec(code, module.__dict__)
    except BaseException:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
        raise
    return module


def _read(entry: Path) -> str | None:
    """The source of an entry, or None if there is none that its hash vouches for."""
    try:
        meta = json.loads((entry / "meta.json").read_text(encoding="utf-8"))
        source = (entry / "module.py").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    intact = isinstance(meta, dict) and meta.get("format") == _FORMAT and meta.get("sha256") == _hash(source)
    return source if intact else None


def _publish(entry: Path, source: str, fields: Mapping[str, str]) -> None:
    """Writes the entry beside its place and moves it there at once; what stood there was damaged."""
    scratch = None
    try:
        scratch = Path(tempfile.mkdtemp(prefix=".new-", dir=entry.parent))
        hashes = {name: _hash(text) for name, text in fields.items()}
        meta = {"format": _FORMAT, "sha256": _hash(source), **versions(), "fields": hashes}
        (scratch / "module.py").write_text(source, encoding="utf-8")
        (scratch / "meta.json").write_text(json.dumps(meta, indent=1, sort_keys=True), encoding="utf-8")
        if entry.exists():
            damaged = Path(tempfile.mkdtemp(prefix=".old-", dir=entry.parent))
            os.rename(entry, damaged / "entry")
            shutil.rmtree(damaged, ignore_errors=True)
        os.rename(scratch, entry)
    except OSError as error:
        _warn(f"{entry}: {error}")
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _warn(text: str) -> None:
    warnings.warn(f"scanc builds uncached: {text}", CacheWarning, stacklevel=3)
