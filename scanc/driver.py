"""The whole compiler on one screen: a call per stage, with what goes in and what comes out above it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from scanc.codegen import torch as torch_target
from scanc.codegen import triton as triton_target
from scanc.codegen.module import assemble
from scanc.ir.nodes import Program
from scanc.passes.differentiate import differentiate
from scanc.passes.pipeline import SIMPLIFY, TO_CLASSIFIED, TO_DISCRETE, TO_SCHEDULED, Trace, run
from scanc.passes.realify import REALIFY
from scanc.semantics.lower import lower

TARGETS = ("torch", "triton")


@dataclass(frozen=True)
class Compiled:
    """A spec, lowered: `discrete` is one step, `forward` and `adjoint` say how it is repeated."""

    text: str
    source: str
    typed: Program
    discrete: Program
    adjoint: Program
    trace: Trace

    @property
    def name(self) -> str:
        return self.typed.name

    @property
    def digest(self) -> str:
        """Names this spec among all others: twelve hex digits of its text."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]

    def module_source(self, target: str) -> str:
        """The generated module for `torch` or `triton`."""
        return _generate(self, target)


def compile_text(text: str, *, source: str = "<spec>", root: Path | None = None) -> Compiled:
    """Compiles the text of a spec as far as its own adjoint; `Compiled.module_source` goes on from there.

    `source` names the text in messages, `root` is the directory that imports may not leave.
    Raises CompileError with every diagnostic found.
    """
    trace = Trace()
    # text → typed: names, axes and types are known
    typed = trace.record("typed", lower(text, source=source, root=root))
    # typed → discrete: one step in plain arithmetic
    discrete = run(TO_DISCRETE, typed, trace)
    # discrete → discrete: the step's vector-Jacobian product, for reversed time
    adjoint = run(SIMPLIFY, trace.record("differentiate", differentiate(discrete)), trace)
    return Compiled(text, source, typed, discrete, adjoint, trace)
