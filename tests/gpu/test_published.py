"""Published cases on a GPU: within the published tolerances, and beside the published kernels; prints table rows.

`-k gla` runs what concerns one operator; rows show with `-s`, if pytest runs in one process.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from gpu.measure import Row
from gpu.published import Problem
from gpu.published_cases import CASES, EDGES, Case
from gpu.published_peers import Missing

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

PEERED = [case for case in (*CASES, *EDGES) if case.peer]


@pytest.fixture(scope="module", autouse=True)
def header() -> Iterator[None]:
    print("\n| case | dtype | values | gradients | of the tolerance | peer's values | gradients | of what it allows |")
    print("|---|---|---|---|---|---|---|---|")
    yield
    print()


def line(ours: Row, shares: dict[str, float], theirs: Row | None = None) -> str:
    """A row of the table: errors, and the worst share of the published tolerance or of what a peer allows."""
    share = max(shares, key=lambda name: (shares[name] != shares[name], shares[name]))
    used = f"{shares[share]:.2f} {share}"
    rest = f"{theirs.values:.1e} | {theirs.gradients:.1e} | {used}" if theirs else "| |"
    left = "" if theirs else used
    return f"| {ours.name} | {ours.dtype} | {ours.values:.1e} | {ours.gradients:.1e} | {left} | {rest} |"


def within_tolerance(case: Case) -> None:
    problem = Problem(case, "cuda")
    found = problem.ours("triton")
    shares = problem.shares(found)
    print(line(problem.row(found), shares))
    assert all(share <= 1 for share in shares.values()), shares


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.label} {case.dtype_name}")
def test_published_tolerances(case: Case) -> None:
    within_tolerance(case)


@pytest.mark.parametrize("case", EDGES, ids=lambda case: f"{case.label} {case.dtype_name}")
def test_gates_that_keep_all_or_next_to_nothing(case: Case) -> None:
    within_tolerance(case)


@pytest.mark.parametrize("case", PEERED, ids=lambda case: f"{case.label} {case.dtype_name}")
def test_no_further_off_than_the_peer(case: Case) -> None:
    problem = Problem(case, "cuda")
    try:
        theirs = problem.peers()
    except Missing as missing:
        pytest.skip(str(missing))
    found = problem.ours("triton")
    shares = problem.shares_beside(found, theirs)
    print(line(problem.row(found), shares, problem.row(theirs)))
    assert all(share <= 1 for share in shares.values()), shares
