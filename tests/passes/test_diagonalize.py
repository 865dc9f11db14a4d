"""diagonalize leaves every program as it is, and speaks of dense time-invariant transitions alone."""

from __future__ import annotations

import pytest

from scanc.passes.desugar import DESUGAR
from scanc.passes.diagonalize import DIAGONALIZE
from scanc.semantics.lower import lower

SPEC = """scan s
axes n
input x[n]
param A[n,n], a[n]
state h[n]
h = {}
output h[n]
"""


@pytest.mark.parametrize(
    ("step", "place"),
    [
        ("A @ h + x", "A @ h"),
        ("h @ A + a*h", "h @ A"),
        ("tanh(A @ h + x)", None),
        ("x * (A @ h)", None),
        ("a*h + A @ x", None),
        ("h - a*(a·h) + x", None),
    ],
)
def test_remark(step: str, place: str | None) -> None:
    text = SPEC.format(step)
    core, _ = DESUGAR.run(lower(text, source="s.scan"))
    result, remarks = DIAGONALIZE.run(core)
    assert result is core
    spans = [remark.span for remark in remarks]
    assert [text[span.start : span.end] for span in spans if span] == ([place] if place else [])
    assert all(not remark.applied and remark.text.startswith("h: ") for remark in remarks)
