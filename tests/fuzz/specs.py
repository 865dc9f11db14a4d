"""Hypothesis strategies of spec texts, over the whole language: what both targets are run on.

A text has a few tensors of each role over the axes `h` (batch), `i`, `j`, `m` (like `i`), `w` and `p` (of fixed size),
and statements in any order that the language allows: states that nothing changes or reads, outputs that are inputs,
params, numbers or states, before or after they are written.  Values stay bounded over time, and conditions compare
what a caller gives, so that no rounding decides them.  A few texts are wrong, which the compiler has to say.
"""

from __future__ import annotations

from fuzz.spec_reals import Real
from fuzz.spec_semirings import Semiring
from hypothesis import strategies as st


@st.composite
def specs(draw: st.DrawFn) -> str:
    """The text of a spec."""
    semiring = draw(st.sampled_from(("real",) * 6 + ("log", "maxplus", "minplus", "bool")))
    return (Real(draw) if semiring == "real" else Semiring(draw, semiring)).spec()
