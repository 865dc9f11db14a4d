"""Specs as files."""

from __future__ import annotations

from pathlib import Path

from scanc.diagnostics.diagnostic import CompileError, Diagnostic
from scanc.syntax import limits


def read(path: Path) -> str:
    """The text of a file, as far as one is read; raises OSError, and CompileError where it is no UTF-8."""
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(limits.SOURCE_CHARS + 1)
    except UnicodeDecodeError as error:
        headline = f"the source is no UTF-8 text; it holds the byte 0x{error.object[error.start]:02X}"
        raise CompileError([Diagnostic("E0101", headline)], {str(path): ""}) from None
