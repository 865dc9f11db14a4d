"""A compiler from recurrences to differentiable PyTorch operators.

    import scanc

    gla = scanc.load("gla.scan")     # or scanc.compile(text)
    o = gla(q, k, v, g)
    A, B = scanc.init.hippo("legs", 64)

Everything is imported at its first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scanc_runtime.errors import ArgumentError

    from scanc import init
    from scanc.diagnostics.diagnostic import CompileError
    from scanc.op import ScanOperator, compile, load

    __version__: str

__all__ = ["ArgumentError", "CompileError", "ScanOperator", "__version__", "compile", "init", "load"]

_HOMES = {
    "ArgumentError": "scanc_runtime.errors",
    "CompileError": "scanc.diagnostics.diagnostic",
    "ScanOperator": "scanc.op",
    "compile": "scanc.op",
    "load": "scanc.op",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name == "init":
        return importlib.import_module("scanc.init")
    if name not in _HOMES:
        raise AttributeError(f"module 'scanc' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("scanc")
    except metadata.PackageNotFoundError:  # a source tree that is not installed
        return "unknown"
