"""What the Triton target says of a form that it does not have: the state, its class, and what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from scanc.driver import compile_text

EXAMPLES = Path(__file__).parents[2] / "examples"
NOT_ITS_OWN = "not a real scan of its own"


def refused(text: str) -> dict[str, str]:
    """The reasons of `explain --form` for the forms that the Triton target lacks."""
    compiled = compile_text(text)
    found = {}
    for form in ("parallel", "chunked"):
        line = compiled.explain(form).splitlines()[1]
        assert line.startswith(f"triton target: {form}: ")
        if "not admitted: " in line:
            found[form] = line.split("not admitted: ")[1]
    return found


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gru", f"h: nonlinear, its Jacobian mixes d; {NOT_ITS_OWN}"),
        ("delta_rule", f"S: DPLR: diagonal plus rank 1 over i, input-dependent; {NOT_ITS_OWN}"),
        ("viterbi", f"p: dense over s over max-plus, input-dependent; {NOT_ITS_OWN}"),
        (
            "based",
            f"S0: identity; {NOT_ITS_OWN}: the gradient of S0 reads z0, z1, z2; "
            "nor a memory in products: a value beside z2 has several axes",
        ),
        (
            "hgrn",
            f"h: diagonal over d, input-dependent, growth possible; {NOT_ITS_OWN}: the next value of h.re reads h.im",
        ),
    ],
)
def test_chunked(name: str, reason: str) -> None:
    found = refused((EXAMPLES / f"{name}.scan").read_text(encoding="utf-8"))
    assert found == {
        "parallel": "the triton target walks the steps in order instead: form recurrent",
        "chunked": reason,
    }


def test_chunked_without_a_state() -> None:
    found = refused("scan plain\naxes d\ninput x[d]\ny = exp(x)\noutput y[d]\n")
    assert found["chunked"] == "no state is carried from step to step"


def test_parallel_points_to_chunked_where_there_is_one() -> None:
    found = refused((EXAMPLES / "gla.scan").read_text(encoding="utf-8"))
    assert found == {"parallel": "the triton target splits the time instead: form chunked"}
