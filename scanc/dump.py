"""`scanc explain --dump`: every stage of a compilation as a file."""

from __future__ import annotations

from pathlib import Path

from scanc.driver import TARGETS, Compiled


def write_stages(compiled: Compiled, directory: Path) -> list[Path]:
    """Writes the IR after each pass, the generated modules and the dependence graph; returns the files in order."""
    directory.mkdir(parents=True, exist_ok=True)
    texts = [
        *compiled.stages,
        *compiled.triton_stages,
        *((f"generated_{target}.py", compiled.module_source(target)) for target in TARGETS),
    ]
    dot, svg = compiled.graph
    texts += [("graph.dot", dot), ("graph.svg", svg)]
    for name, text in texts:
        (directory / name).write_text(text, encoding="utf-8")
    return [directory / name for name, _ in texts]
