"""What `scanc tune` has measured: choices on disk, read at the first call that they fit.

A choice is a small JSON object; who asks for it knows what its entries mean and checks them.  It is kept under what
it depends on: the spec's digest, the kernel, sizes, dtype, the device's name, versions.  Each is one file below `tuned`
in the cache directory, under the cache's rules: the user's alone, published by one rename, a lock per key, a
warning where it fails.  Nothing is measured here; a spec that nobody tuned costs a look-up in a dictionary.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock, Timeout

from scanc_runtime.cache import CacheWarning, cache_directory, cache_key, cache_path

Choice = Mapping[str, Any]
_LOCK_SECONDS = 10.0
_MOST_BYTES = 1 << 16  # of a file that is read


class Key(NamedTuple):
    """What a choice depends on. `threads`: those of torch on a CPU, 0 elsewhere."""

    spec: str
    kernel: str
    sizes: tuple[tuple[str, int], ...]
    dtype: str
    device: torch.device
    threads: int

    def fields(self) -> dict[str, str]:
        """The same as text, the device by its name."""
        sizes = " ".join(f"{axis}={size}" for axis, size in self.sizes)
        where = f"{device_name(self.device)}, threads {self.threads}" if self.threads else device_name(self.device)
        return {"spec": self.spec, "kernel": self.kernel, "sizes": sizes, "dtype": self.dtype, "device": where}


def key(spec: str, kernel: str, sizes: Mapping[str, int], dtype: str, device: torch.device) -> Key:
    """The key of a kernel of the spec with digest `spec`."""
    threads = torch.get_num_threads() if device.type == "cpu" else 0
    return Key(spec, kernel, tuple(sizes.items()), dtype, device, threads)


def call_key(
    spec: str, forms: tuple[str, ...], batch: int, time: int, sizes: Mapping[str, int], dtype: torch.dtype,
    device: torch.device,
) -> Key:  # fmt: skip
    """The key of a whole call of a module with these forms; its choice has `form`, `chunk` (steps), or neither."""
    return key(spec, f"call {' '.join(forms)}", {"B": batch, "T": time, **sizes}, str(dtype), device)


def find(wanted: Key) -> Choice | None:
    """The choice for a key, if there is one; under `trying`, what is being tried."""
    if _tried is not None:
        return _tried.get(wanted.kernel)
    if wanted not in _known:
        _known[wanted] = _read(wanted)
    return _known[wanted]


def exists(spec: str) -> bool:
    """Whether there may be choices for a spec; `find` is only worth asking then."""
    if _tried is not None:
        return True
    found = _specs.get(spec)
    if found is None:
        found = _specs[spec] = spec.isalnum() and (cache_path() / "tuned" / spec).is_dir()
    return found


def store(wanted: Key, choice: Choice) -> Path | None:
    """Keeps a choice for this process and all later ones. Returns its file, or None, with a warning."""
    forget()
    directory = cache_directory()
    if directory is None:
        return None
    path = directory / "tuned" / wanted.spec / f"{_name(wanted)}.json"
    text = json.dumps({"fields": wanted.fields(), "choice": dict(choice)}, indent=1, sort_keys=True)
    scratch = None
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        (directory / "locks").mkdir(mode=0o700, exist_ok=True)
        with FileLock(directory / "locks" / f"tuned-{path.stem}.lock", timeout=_LOCK_SECONDS):
            descriptor, scratch = tempfile.mkstemp(prefix=".new-", dir=path.parent)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(scratch, path)
    except (OSError, Timeout) as error:
        if scratch is not None:
            with suppress(OSError):
                os.unlink(scratch)
        _warn(f"{path} is not written: {error}")
        return None
    return path


def forget() -> None:
    """Drops what was read, so that the next call reads it again."""
    global _generation
    _known.clear()
    _specs.clear()
    _generation += 1


def generation() -> int:
    """A number that changes whenever choices may have changed."""
    return _generation


@contextmanager
def trying(choices: Mapping[str, Choice]) -> Iterator[None]:
    """Within, these choices hold, by kernel, and no others: those on disk are not looked at."""
    global _tried, _generation
    before = _tried
    _tried, _generation = choices, _generation + 1
    try:
        yield
    finally:
        _tried, _generation = before, _generation + 1


@cache
def device_name(device: torch.device) -> str:
    """The name of the kind of device."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    if device.type != "cpu":
        return str(device.type)
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


_known: dict[Key, Choice | None] = {}
_specs: dict[str, bool] = {}
_tried: Mapping[str, Choice] | None = None
_generation = 0


def _name(wanted: Key) -> str:
    return cache_key({"what": "tuned", **wanted.fields()})


def _read(wanted: Key) -> Choice | None:
    directory = cache_directory() if exists(wanted.spec) else None
    if directory is None:
        return None
    path = directory / "tuned" / wanted.spec / f"{_name(wanted)}.json"
    try:
        with path.open(encoding="utf-8") as file:
            entry = json.loads(file.read(_MOST_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        _warn(f"{path} cannot be read: {error}")
        return None
    intact = isinstance(entry, dict) and entry.get("fields") == wanted.fields()
    if not intact or not isinstance(entry.get("choice"), dict):
        _warn(f"{path} is damaged")
        return None
    return dict(entry["choice"])


def _warn(text: str) -> None:
    warnings.warn(f"scanc goes without what was tuned: {text}", CacheWarning, stacklevel=4)
