"""The Triton target: generated kernels for the recurrent form of any body, forward and backward."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from scanc.codegen.torch.step import write_step
from scanc.codegen.triton.backward import backward_kernel, rerun, smooth
from scanc.codegen.triton.forward import forward_kernel
from scanc.codegen.triton.host import tiling, write_backward, write_carries, write_chunked, write_forward, write_saved
from scanc.codegen.triton.lookback import lookback
from scanc.codegen.triton.lookback_host import SEGMENTS as LOOKBACK_SEGMENTS
from scanc.codegen.triton.lookback_host import lookback_tiling, write_backward_parallel, write_forward_parallel
from scanc.codegen.triton.summary import summary
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
    "from scanc_runtime.tiling import Tiling",
)

_LOOKBACK_IMPORTS = (
    "from scanc_runtime import lookback",
    "from scanc_runtime import triton_scan as tlscan",
    "from scanc_runtime.lookback import LookbackTiling",
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
    ahead, back = summary(forward), summary(smooth(adjoint), [state.name for state in forward.states])
    chunked = ahead is not None and back is not None
    forward_text = forward_kernel(forward, schedule(forward), [state.name for state in saved], chunked)
    backward_text = backward_kernel(adjoint, forward, chunked)
    kernels = {"FORWARD": forward_text, "BACKWARD": backward_text}
    single = lookback(forward, adjoint)
    if ahead is not None and back is not None:
        for name, found in (("forward", ahead), ("backward", back)):
            text = forward_kernel(found.program, schedule(found.program), [], True, f"{name}_summary_kernel")
            kernels[f"{name.upper()}_SUMMARY"] = text
    lookback_segment = segment or LOOKBACK_SEGMENTS[single is not None and single.light]
    if segment is None:
        segment = SEGMENTS[max((len(tile) for tile in backward_text.past), default=0) > 1]

    out = Writer()
    write_step(out, discrete)
    out.blank(2)
    out.line(f"SEGMENT = {segment}", "steps between two saved states")
    for name, kernel in kernels.items():
        out.line(tiling(f"{name}_TILING", kernel, discrete))
    if single is not None:
        out.line(f"LOOKBACK_SEGMENT = {lookback_segment}", "the same, of the form parallel")
        for name, kernel in (("FORWARD", single.forward), ("BACKWARD", single.backward)):
            backward = name == "BACKWARD"
            out.line(lookback_tiling(f"{name}_LOOKBACK_TILING", kernel, single, discrete, backward=backward))
    for kernel in (*kernels.values(), *([single.forward, single.backward] if single else [])):
        out.blank(2)
        for line in kernel.source.splitlines():
            out.line(line) if line else out.blank()
    if ahead is not None and back is not None:
        for name, found in (("FORWARD", ahead), ("BACKWARD", back)):
            text, gradients = kernels[f"{name}_SUMMARY"], name == "BACKWARD"
            out.blank(2)
            write_carries(out, f"{name.lower()}_carries", f"{name}_SUMMARY_TILING", text, found, discrete, gradients)
    out.blank(2)
    write_forward(out, forward_text, discrete, kept)
    out.blank(2)
    write_backward(out, backward_text, discrete, kept, saved)
    if chunked:
        out.blank(2)
        write_chunked(out)
    out.blank(2)
    if single is not None:
        write_forward_parallel(out, single.forward, discrete, kept)
        out.blank(2)
        write_backward_parallel(out, single.backward, discrete, kept)
        out.blank(2)
    write_saved(out, kept, parallel=single is not None)
    out.blank(2)
    forms = ("recurrent", *(["chunked"] if chunked else []), *(["parallel"] if single else []))
    for way in ("forward", "backward"):
        functions = ", ".join(f'"{form}": {way}_{form}' for form in forms)
        out.line(f"{way.upper()} = {{{functions}}}")
    refused = tuple((form, why) for form, why in _REFUSED if form not in forms)
    imports = (*_IMPORTS, *(_LOOKBACK_IMPORTS if single else ()), *_step_imports(out.text()))
    return TritonFunctions(out.text(), imports, forms, refused)


def _step_imports(source: str) -> tuple[str, ...]:
    """What `step` needs besides torch."""
    words = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    lines = {"math": "import math", "functions": "from scanc_runtime import functions"}
    return tuple(line for word, line in lines.items() if word in words)


_REFUSED = (
    ("parallel", "the triton target splits the time instead: form chunked"),
    ("chunked", "a state is not a real scan of its own"),
)
