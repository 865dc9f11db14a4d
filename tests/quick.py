"""Triton's interpreter in less time: what it does anew at every call is done once, and scans take whole rows.

Every operation stays the interpreter's own.  Parts of a version of Triton that differ from those known here are left as
they are: tests then take longer, and say the same.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

_KNOWN = {"_patch_lang": "e5beeba74ada4829", "generic_scan": "625569e90b9eda9a", "_get_np_dtype": "8f20d41e3207891a"}
_replaced: list[tuple[Any, str, Callable[..., Any], Callable[..., Any]]] = []


def quicken() -> None:
    """Replaces the slow parts that are known."""
    from triton.runtime import interpreter

    if _replaced:
        return
    for owner, name, replacement in (
        (interpreter, "_patch_lang", _patching_once),
        (interpreter, "_get_np_dtype", _looking_up),
        (getattr(interpreter, "ScanOps", None), "generic_scan", lambda _: _scan_of_rows),
    ):
        part = getattr(owner, name, None)
        if part is not None and _digest(part) == _KNOWN[name]:
            _replaced.append((owner, name, part, replacement(interpreter)))
            setattr(owner, name, _replaced[-1][3])


@contextmanager
def as_delivered() -> Iterator[int]:
    """Within, the interpreter is Triton's own; how many parts had been replaced."""
    for owner, name, part, _ in _replaced:
        setattr(owner, name, part)
    try:
        yield len(_replaced)
    finally:
        for owner, name, _, replacement in _replaced:
            setattr(owner, name, replacement)


def _digest(function: Callable[..., Any]) -> str:
    return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16]


def _patching_once(interpreter: ModuleType) -> Callable[..., Any]:
    """A launch patches the language; the interpreter would again at each call of a device function within."""
    patch, tl = interpreter._patch_lang, interpreter.tl
    in_force: set[str] = set()

    class Scope(interpreter._LangPatchScope):  # type: ignore[name-defined, misc]
        def restore(self) -> None:
            super().restore()
            in_force.clear()

    def patch_lang(fn: Any) -> Any:
        seen = {lang.__name__ for lang in (tl, tl.core) if any(value is lang for value in fn.__globals__.values())}
        if seen and seen <= in_force:
            return Scope()
        scope = patch(fn)
        scope.__class__ = Scope
        in_force.update(seen)
        return scope

    return patch_lang


def _looking_up(interpreter: ModuleType) -> Callable[..., Any]:
    """The interpreter builds its table of dtypes at each look."""
    find, tl = interpreter._get_np_dtype, interpreter.tl
    found: dict[Any, Any] = {}

    def get_np_dtype(of: Any) -> Any:
        scalar = of.element_ty if isinstance(of, tl.block_type) else of
        if isinstance(scalar, tl.pointer_type):
            return find(scalar)
        if scalar not in found:
            found[scalar] = find(scalar)
        return found[scalar]

    return get_np_dtype


def _scan_of_rows(self: Any, input: Any) -> list[Any]:
    """Combines whole rows along the axis, in the same order; the interpreter does element by element."""
    given = [np.moveaxis(each.handle.data, self.axis, 0) for each in input]
    found = [np.array(each) for each in given]
    for k in range(1, len(found[0])):
        before = [self.to_tensor(each[k - 1], of.dtype) for each, of in zip(found, input, strict=True)]
        here = [self.to_tensor(each[k], of.dtype) for each, of in zip(given, input, strict=True)]
        combined = self.combine_fn.fn(*before, *here)
        for each, row in zip(found, combined if isinstance(combined, tuple) else (combined,), strict=True):
            each[k] = row.handle.data.reshape(each[k].shape)
    return [self.to_tensor(np.moveaxis(each, 0, self.axis), of.dtype) for each, of in zip(found, input, strict=True)]
