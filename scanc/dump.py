"""`scanc explain --dump`: every stage of a compilation as a file."""

from __future__ import annotations

import re
from pathlib import Path

from scanc.driver import Compiled

_STAGE = re.compile(r"\d\d_[a-z_]+\.ir")


def write_stages(compiled: Compiled, directory: Path) -> list[Path]:
    """Writes the IR after each pass, the generated modules and the dependence graph; returns the files in order.

    The stages of an earlier dump in the same directory are removed; all other files stay.
    """
    directory.mkdir(parents=True, exist_ok=True)
    texts = [
        *compiled.stages,
        *compiled.triton_stages,
        *((f"generated_{target}.py", compiled.module_source(target)) for target in compiled.targets),
    ]
    dot, svg = compiled.graph
    texts += [("graph.dot", dot), ("graph.svg", svg)]
    for earlier in directory.iterdir():
        if _is_stage(earlier):
            earlier.unlink()
    for name, text in texts:
        (directory / name).write_text(text, encoding="utf-8")
    return [directory / name for name, _ in texts]


def _is_stage(file: Path) -> bool:
    """Whether a file is one that `write_stages` wrote: by its name, and by its first word."""
    if not _STAGE.fullmatch(file.name) or not file.is_file():
        return False
    with file.open("rb") as text:
        return text.read(8) == b"program "
