"""The Triton target: generated kernels, forward and backward, in up to three forms.

recurrent, of any body: a kernel walks the steps in order with the states in registers.
chunked, where every state is a real scan of its own, and the gradient of every state one that needs no state: the time
is shared out between programs.  One kernel summarises each chunk (`summary`), a carry over the summaries gives the
states that each chunk begins with, and the kernels of the recurrent form then walk all chunks side by side.
parallel, where every state and its gradient are real scans of their own over one axis: the time is shared out in one
pass over memory (`lookback`).
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

from scanc_runtime.tiling import SPREAD

from scanc.codegen.torch.step import write_step
from scanc.codegen.triton.backward import backward_kernel, rerun, smooth
from scanc.codegen.triton.forward import forward_kernel
from scanc.codegen.triton.host import (
    PARALLEL,
    write_backward,
    write_carries,
    write_chunked,
    write_forward,
    write_saved,
)
from scanc.codegen.triton.lookback import lookback
from scanc.codegen.triton.recall_plan import NoRecall
from scanc.codegen.triton.scenes import (
    Scene,
    backward_scenes,
    forward_scenes,
    write_backward_memories,
    write_forward_memories,
)
from scanc.codegen.triton.summary import NoSummary, Summary, summary
from scanc.codegen.triton.tilings import LOOKBACK_SEGMENTS, SEGMENTS, lookback_tiling, tiling
from scanc.codegen.triton.walk import Walk
from scanc.codegen.writer import Writer
from scanc.ir.nodes import Program
from scanc.passes.schedule import schedule

_LONG = SPREAD[0], 8.0
"""Programs per multiprocessor up to which one pass with the time shared out is taken: any, and where a step is light.

A light step is worked through twice in the time that its rows take to come: it was no slower up to there.
"""

_SHORT = "recurrent", 64
"""The steps of a memory from which products pay for their launches.

With all gradients they take some ten launches more than the one that walks the steps each way.  A launch keeps the host
for 15 to 50 µs and the GPU for 2 to 4; a step that is walked takes it .5 to 1 µs forward, and two to three times that
backward.  So walking is done first up to a hundred steps and more where the host is waited for, and up to ten or twenty
where it is not, as in a CUDA graph.
"""

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

_WALK_IMPORTS = (
    "from scanc_runtime import triton_walk as tlwalk",
    "from scanc_runtime.walk import WalkTiling",
)

_MEMORY_IMPORTS = ("from scanc_runtime import recall", "from scanc_runtime.recall import RecallTiling")


@dataclass(frozen=True)
class TritonFunctions:
    """Part of a module: `source` defines the kernels, `step`, FORWARD and BACKWARD (form → function), and `saved`."""

    source: str
    imports: tuple[str, ...]
    forms: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]
    long: tuple[str, float] | None
    narrow: tuple[str, ...] = ()
    short: tuple[str, int] | None = None


def emit_functions(
    forward: Program,
    adjoint: Program,
    discrete: Program,
    segment: int | None = None,
    classes: Mapping[str, str] | None = None,
    remembered: tuple[Program, Program] | None = None,
    whole: Program | None = None,
) -> TritonFunctions:
    """The functions of a module from the fused forward and adjoint programs.

    `discrete` is the program before `realify`: its tensors are the user's. `segment`: the steps between two saved
    states, a power of two.  `classes`: what `classify` calls each state, for the reasons of refusals.  `remembered`:
    the program and its adjoint with matrices as memories, if there are any.  `whole`: the program with what is made of
    params ahead of the recurrence, if anything is.
    """
    again = rerun(adjoint, forward)
    saved = again.states if again else ()
    names = {state.name for state in saved}
    kept = [s for s in discrete.states if names.intersection((s.name, f"{s.name}.re", f"{s.name}.im"))]
    recalls, no_products = _memories(remembered)
    summaries, why = ({}, "") if recalls else _summaries(forward, smooth(adjoint), classes or {})
    chunked = bool(summaries)
    forward_text = forward_kernel(forward, schedule(forward), [state.name for state in saved], chunked)
    backward_text = backward_kernel(adjoint, forward, chunked)
    kernels = {"FORWARD": forward_text, "BACKWARD": backward_text}
    for name, found in summaries.items():
        text = forward_kernel(found.program, schedule(found.program), [], True, f"{name}_summary_kernel")
        kernels[f"{name.upper()}_SUMMARY"] = text
    single = lookback(forward, adjoint)
    lookback_segment = segment or LOOKBACK_SEGMENTS[single is not None and single.light]
    if segment is None:
        segment = SEGMENTS[not backward_text.folds and max((len(tile) for tile in backward_text.past), default=0) > 1]

    out = Writer()
    write_step(out, whole or discrete)
    out.blank(2)
    out.line(f"SEGMENT = {segment}", "steps between two saved states")
    for name, kernel in kernels.items():
        out.line(tiling(f"{name}_TILING", kernel, discrete))
    if single is not None:
        out.line(f"{PARALLEL.segment} = {lookback_segment}", "the same, of the form parallel")
        for way, kernel in (("forward", single.forward), ("backward", single.backward)):
            out.line(lookback_tiling(way, kernel, single, discrete))
    scenes = [scene.kernels for scene in chain(*recalls)]
    for each in scenes:
        for line in each.tilings(discrete.name):
            out.line(line)
    others = [
        *([single.forward, single.backward] if single else []),
        *(k for each in scenes for k in each.all),
    ]
    for kernel in (*kernels.values(), *others):
        out.blank(2)
        for line in kernel.source.splitlines():
            out.line(line) if line else out.blank()
    for name, found in summaries.items():
        tiles = f"{name.upper()}_SUMMARY"
        out.blank(2)
        write_carries(
            out, f"{name}_carries", f"{tiles}_TILING", kernels[tiles], found, discrete, gradients=name == "backward"
        )
    out.blank(2)
    write_forward(out, forward_text, discrete, kept)
    out.blank(2)
    write_backward(out, backward_text, discrete, kept, saved)
    if chunked:
        out.blank(2)
        write_chunked(out)
    if recalls and remembered is not None:
        out.blank(2)
        write_forward_memories(out, recalls[0], remembered[0], discrete)
        out.blank(2)
        write_backward_memories(out, recalls[1], *remembered, discrete)
    out.blank(2)
    if single is not None:
        write_forward(out, single.forward, discrete, kept, PARALLEL)
        out.blank(2)
        write_backward(out, single.backward, discrete, kept, form=PARALLEL)
        out.blank(2)
    write_saved(out, kept, parallel=single is not None, memories=bool(recalls))
    out.blank(2)
    forms = ("recurrent", *(["chunked"] if chunked or recalls else []), *(["parallel"] if single else []))
    for way in ("forward", "backward"):
        functions = ", ".join(f'"{form}": {way}_{form}' for form in forms)
        out.line(f"{way.upper()} = {{{functions}}}")
    refused = [*([] if single else [_NO_PARALLEL["chunked" in forms]])]
    refused += [] if "chunked" in forms else [("chunked", "; ".join(filter(None, (why, no_products))))]
    walks = _WALK_IMPORTS if any(isinstance(each, Walk) for each in scenes) else ()
    own = (*(_LOOKBACK_IMPORTS if single else ()), *(_MEMORY_IMPORTS if recalls else ()), *walks)
    long = ("parallel", _LONG[single.light]) if single else None
    narrow = ("chunked",) if recalls else ()
    imports = (*_IMPORTS, *own, *_step_imports(out.text()))
    return TritonFunctions(out.text(), imports, forms, tuple(refused), long, narrow, _SHORT if recalls else None)


def _memories(remembered: tuple[Program, Program] | None) -> tuple[list[list[Scene]], str]:
    """The acts of a program's memories, forward and backward; none, and the reason, where they have no kernels."""
    if remembered is None:
        return [], ""
    try:
        return [forward_scenes(remembered[0]), backward_scenes(*remembered)], ""
    except NoRecall as error:
        return [], f"nor a memory in products: {error}"


def _step_imports(source: str) -> tuple[str, ...]:
    """What `step` needs besides torch."""
    words = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    lines = {"math": "import math", "functions": "from scanc_runtime import functions"}
    return tuple(line for word, line in lines.items() if word in words)


def _summaries(forward: Program, adjoint: Program, classes: Mapping[str, str]) -> tuple[dict[str, Summary], str]:
    """The summaries of the step and of its adjoint; none, and the reason, where a state has none."""
    try:
        ahead = summary(forward)
    except NoSummary as error:
        return {}, _reason(error, {}, classes)
    try:
        back = summary(adjoint, [state.name for state in forward.states])
    except NoSummary as error:
        return {}, _reason(error, {state.name: state.name.removeprefix("d.") for state in adjoint.states}, classes)
    return {"forward": ahead, "backward": back}, ""


def _reason(error: NoSummary, primals: Mapping[str, str], classes: Mapping[str, str]) -> str:
    """Why there is no chunked form: the state, its class, and what is missing.

    `primals`: whose gradient each state is, if the error is about the adjoint.
    """
    if error.state is None:
        return "no state is carried from step to step"
    name = primals.get(error.state.name, error.state.name)
    public = name.removesuffix(".re").removesuffix(".im")
    what = f"{public}: {classes[public]}" if public in classes else public
    reason = f"{what}; not a real scan of its own"
    if not error.reads:
        return reason
    others = sorted(f"the gradient of {primals[other]}" if other in primals else other for other in error.reads)
    return f"{reason}: the {'gradient' if primals else 'next value'} of {name} reads {', '.join(others)}"


_NO_PARALLEL = {
    True: ("parallel", "the triton target splits the time instead: form chunked"),
    False: ("parallel", "the triton target walks the steps in order instead: form recurrent"),
}
