"""The Triton target: generated kernels for the recurrent form of any body, forward and backward."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from scanc.codegen.torch.step import write_step
from scanc.codegen.triton.backward import backward_kernel, rerun
from scanc.codegen.triton.forward import forward_kernel
from scanc.codegen.triton.host import tiling, write_backward, write_forward, write_saved
from scanc.codegen.writer import Writer
from scanc.ir.nodes import Program
from scanc.passes.schedule import schedule

SEGMENTS = 16, 32
"""Steps between two saved states, of one axis and of more: they take a 16th of two inputs in bf16, and twice them."""

_IMPORTS = (
    "import triton",
    "import triton.language as tl",
    "from scanc_runtime import launch",
    "from scanc_runtime import triton_math as tlmath",
)


@dataclass(frozen=True)
class TritonFunctions:
    """Part of a module: `source` defines the kernels, `step`, FORWARD and BACKWARD (form → function), and `saved`."""

    source: str
    imports: tuple[str, ...]
    forms: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]


def emit_functions(
    forward: Program, adjoint: Program, discrete: Program, segment: int | None = None
) -> TritonFunctions:
    """The functions of a module from the fused forward and adjoint programs.

    `discrete` is the program before `realify`: its tensors are the user's. `segment`: the steps between two saved
    states, a power of two.
    """
    again = rerun(adjoint, forward)
    saved = again.states if again else ()
    kept = [state for state in discrete.states if {f"{state.name}.re", state.name} & {s.name for s in saved}]
    forward_text = forward_kernel(forward, schedule(forward), [state.name for state in saved])
    backward_text = backward_kernel(adjoint, forward)
    if segment is None:
        segment = SEGMENTS[max((len(tile) for tile in backward_text.past), default=0) > 1]

    out = Writer()
    write_step(out, discrete)
    out.blank(2)
    out.line(f"SEGMENT = {segment}", "steps between two saved states")
    out.line(tiling("FORWARD_TILING", forward_text, discrete))
    out.line(tiling("BACKWARD_TILING", backward_text, discrete))
    for kernel in (forward_text, backward_text):
        out.blank(2)
        for line in kernel.source.splitlines():
            out.line(line) if line else out.blank()
    out.blank(2)
    write_forward(out, forward_text, discrete, kept)
    out.blank(2)
    write_backward(out, backward_text, discrete, kept, saved)
    out.blank(2)
    write_saved(out, kept)
    out.blank(2)
    out.line('FORWARD = {"recurrent": forward_recurrent}')
    out.line('BACKWARD = {"recurrent": backward_recurrent}')
    return TritonFunctions(out.text(), (*_IMPORTS, *_step_imports(out.text())), ("recurrent",), _REFUSED)


def _step_imports(source: str) -> tuple[str, ...]:
    """What `step` needs besides torch."""
    words = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    lines = {"math": "import math", "functions": "from scanc_runtime import functions"}
    return tuple(line for word, line in lines.items() if word in words)


_REFUSED = (
    ("parallel", "the triton target has the recurrent form alone so far"),
    ("chunked", "the triton target has the recurrent form alone so far"),
)
