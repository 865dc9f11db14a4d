"""The affine normal form: what is affine, what is not and who is to blame, and what the terms hold."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace as Names

import pytest
from analysis.bodies import Value, program, stack

from scanc.analysis.affine import TERM_LIMIT, Affine, Form, Top, affine_forms
from scanc.analysis.structure import is_elementwise
from scanc.ir.nodes import Program

INPUTS = {"x": "i", "k": "i", "v": "j", "w": "i j", "flag": ":bool", "z": "i:complex"}


def form(make: Callable[[Names], Value], state: str = "i", semiring: str = "real") -> tuple[Form, Program]:
    made = program(lambda n: {"h": n.h, "y": make(n)}, states={"h": state}, inputs=INPUTS, semiring="real")
    return affine_forms(made.instrs, ["h"], made.types, semiring)[made.outputs[0].value], made


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda n: n.h * n.h, "the product of two values that depend on the state"),
        (lambda n: n.x / n.h, "a division by a value that depends on the state"),
        (lambda n: n.h.map("tanh"), "`tanh` of a value that depends on the state is not linear"),
        (lambda n: (n.h + n.x).map("exp") + n.h, "`exp` of a value that depends on the state is not linear"),
        (
            lambda n: n.h.map("gt", n.x).map("where", n.x, n.k),
            "`gt` of a value that depends on the state is not linear",
        ),
        (lambda n: n.h.map("maximum", n.h * 2.0), "`maximum` of two values that depend on the state"),
        (lambda n: n.h.sum("i", "max"), "`max` of a value that depends on the state is not linear"),
        (lambda n: n.h.dot(n.h, "i"), "the product of two values that depend on the state"),
        (lambda n: n.w.dot(n.h, "i", "log"), "a contraction over `log` is not linear over `real`"),
    ],
)
def test_the_blamed_operation_is_the_first_that_is_not_affine(make: Callable[[Names], Value], reason: str) -> None:
    found, made = form(make)
    assert isinstance(found, Top)
    assert found.reason == reason
    assert found.value in {instr.name for instr in made.instrs}


def test_real_part_is_linear_over_the_reals_only() -> None:
    found, _ = form(lambda n: n.h.map("real"), "i:complex")
    assert isinstance(found, Top)
    assert "only over the reals" in found.reason


@pytest.mark.parametrize("semiring", ["maxplus", "log", "minplus"])
def test_a_sum_is_a_product_of_the_other_semirings(semiring: str) -> None:
    found, _ = form(lambda n: n.h + n.x, semiring=semiring)
    assert isinstance(found, Affine)
    assert [len(term.factors) for term in found.reads("h")] == [1]
    assert found.rest == ()
    doubled, _ = form(lambda n: n.h + n.h, semiring=semiring)
    assert isinstance(doubled, Top)


def test_terms_stay_unmultiplied() -> None:
    """k (k·h) + x: the two keys do not share a label."""
    found, _ = form(lambda n: n.k * n.k.dot(n.h, "i") + n.x)
    assert isinstance(found, Affine)
    (term,) = found.reads("h")
    (read,), (written,) = (factor.labels for factor in term.factors)
    assert read[1] == dict(term.reads)["i"]
    assert written[1] == term.labels()["i"]
    assert read != written
    (rest,) = found.rest
    assert [factor.value for factor in rest.factors] == ["x"]


def test_a_sum_over_a_broadcast_axis_counts_it() -> None:
    found, _ = form(lambda n: n.h.over("j").sum("j"))
    assert isinstance(found, Affine)
    (term,) = found.reads("h")
    assert [factor.role for factor in term.factors] == ["count"]
    assert is_elementwise(term)


def test_slices_put_back_are_diagonal_and_swapped_ones_are_not() -> None:
    for order, expected in (((0, 1), True), ((1, 0), False)):
        found, _ = form(lambda n, order=order: stack("p", *(n.h.at("p", at) for at in order)), "i p")
        assert isinstance(found, Affine)
        assert [is_elementwise(term) for term in found.reads("h")] == [expected, expected]


def test_a_slice_of_a_stack_is_that_part_alone() -> None:
    found, _ = form(lambda n: stack("p", n.h, n.h * n.x).at("p", 0))
    assert isinstance(found, Affine)
    assert [[f.role for f in term.factors] for term in found.reads("h")] == [["at"]]


def test_too_many_terms_stay_affine_without_structure() -> None:
    def doubling(n: Names) -> Value:
        value = n.h
        for _ in range(TERM_LIMIT.bit_length()):
            value = value * n.x + value * n.k
        return value

    found, _ = form(doubling)
    assert found == Affine(None)
