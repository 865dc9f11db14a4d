"""What of the published cases can be seen without a GPU: they fit their specs, and the measures are right."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from math import inf, isnan, nan
from types import ModuleType
from typing import Any

import pytest
import torch
from gpu.published import Problem
from gpu.published_cases import CASES, EDGES, FP32, Case
from gpu.published_peers import PEERS, Missing, load
from gpu.published_suites import SUITES
from gpu.published_tolerances import Close, Ratio, share_beside
from torch import Tensor

import scanc

ALL = (*CASES, *EDGES)


def small(case: Case) -> Case:
    """A case in fp32 that takes a moment on a CPU, with its own gates."""
    sizes = {"batch": 2, "time": 19, "heads": min(case.heads, 2), "keys": 4, "values": 6}
    return replace(case, **sizes, groups=min(case.groups, 2), dtype=FP32)


@pytest.mark.parametrize("case", {str(small(case)): small(case) for case in ALL}.values(), ids=str)
def test_torch_keeps_the_published_tolerances(case: Case) -> None:
    problem = Problem(case, "cpu")
    found = problem.ours("torch")
    assert set(found) == set(problem.wanted)
    assert {x.dtype for x in problem.wanted.values()} == {torch.float64}
    row, shares = problem.row(found), problem.shares(found)
    assert 0 < row.values < 1e-6
    assert 0 < row.gradients < 1e-5
    assert problem.missed(shares) == (set(), set())
    assert problem.line(found, shares).startswith(f"| {case.label} | float32 | ")
    assert problem.shares_beside({"output": found["output"] * 1.01}, {"output": found["output"]})["output"] > 1


def test_every_operator_has_cases_and_one_beside_its_peer() -> None:
    assert {case.suite for case in ALL} == set(SUITES) == set(PEERS) == {case.suite for case in ALL if case.peer}
    assert len({str(case) for case in ALL}) == len(ALL)


@pytest.mark.parametrize("suite", ["gla", "based", "hgrn"])
def test_a_result_that_is_known_to_be_coarse_is_so_in_16_bits_only(suite: str) -> None:
    case = small(next(case for case in CASES if case.suite == suite))
    shares = {"output": 0.5, "d g": nan, "d q": 1.5}
    known = {"d g"} if suite == "gla" else set()
    assert Problem(case, "cpu").missed(shares) == (set(), {"d g", "d q"})
    assert Problem(replace(case, dtype=torch.bfloat16), "cpu").missed(shares) == (known, {"d g", "d q"} - known)


def test_shares_of_tolerances() -> None:
    wanted = torch.tensor([3.0, -4.0], dtype=torch.float64)
    assert Ratio(0.1).share(wanted * 1.05, wanted) == pytest.approx(0.5)
    assert Ratio(0.1).share(wanted + 1e-7, wanted) == 0
    assert Close(0.1, 0.2).share(wanted + 0.25, wanted) == pytest.approx(0.5)
    assert isnan(Ratio(0.1).share(wanted * nan, wanted))
    assert isnan(Close(0.1, 0.2).share(wanted * nan, wanted))


def test_the_worst_slice_counts_beside_a_peer() -> None:
    wanted = torch.randn(4, 300, 3, dtype=torch.float64)
    theirs, ours = (wanted * 1.01).float(), (wanted * 1.003).float()
    ours[:, :, 1] = wanted[:, :, 1] * 1.03
    assert share_beside(ours, theirs, wanted, 2) == pytest.approx(2, rel=1e-3)
    assert share_beside(ours, theirs * nan, wanted, 2) == 0
    assert share_beside(ours, theirs * inf, wanted, 2) == 0
    assert isnan(share_beside(ours * nan, theirs, wanted, 2))
    assert share_beside((wanted * (1 + 2**-10)).half(), wanted.half(), wanted, 2) > 1
    assert share_beside(wanted.half(), wanted, wanted, 2) < 0.6


def spelled(suite: str) -> Callable[..., Any]:
    """What a peer computes, called as it is, and computed by the torch target."""
    op = scanc.compile(SUITES[suite].spec, target="torch")

    def gla(*, scale: float, initial_state: Tensor, output_final_state: bool, **tensors: Tensor) -> Any:
        output, final = op(**tensors, initial_state=initial_state, return_state=output_final_state)
        return output * scale, final["S"]

    def ssd(x: Tensor, dt: Tensor, A: Tensor, *, chunk_size: int, initial_states: Tensor, **rest: Any) -> Any:
        assert rest.pop("dt_softplus")
        assert rest.pop("return_final_states")
        given = {"x": x, "delta": dt, "log_A": torch.log(-A), "bias": rest.pop("dt_bias"), **rest}
        output, final = op(**given, initial_state=initial_states.transpose(-1, -2), return_state=True)
        return output, final["h"].transpose(-1, -2)

    def selective(u: Tensor, delta: Tensor, z: Tensor, B: Tensor, C: Tensor, **rest: Any) -> Any:
        assert rest.pop("delta_softplus")
        assert rest.pop("return_last_state")
        assert {x.shape for x in (u, delta, z)} == {(2, 6, 19)}
        turned = {"u": u.mT, "delta": delta.mT, "z": z.mT, "B": B.permute(0, 3, 1, 2), "C": C.permute(0, 3, 1, 2)}
        output, final = op(**turned, bias=rest.pop("delta_bias"), **rest, return_state=True)
        return output.mT, final["h"]

    return {"gla": gla, "ssd": ssd, "selective_scan": selective}[suite]


@pytest.mark.parametrize("suite", ["gla", "ssd", "selective_scan"])
def test_a_peer_gets_what_it_wants_and_gives_gradients_of_ours(suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType(PEERS[suite].module)
    setattr(module, PEERS[suite].function, spelled(suite))
    monkeypatch.setitem(sys.modules, PEERS[suite].module, module)
    problem = Problem(small(next(case for case in CASES if case.suite == suite)), "cpu")
    found, theirs = problem.ours("torch"), problem.peers()
    shares = problem.shares_beside(found, theirs)
    assert set(shares) == set(problem.wanted)
    assert problem.missed(shares) == (set(), set())
    assert problem.line(found, shares, theirs).count("|") == 8


def test_a_peer_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PEERS["hgrn"].module, None)
    with pytest.raises(Missing, match=r"fla\.ops\.hgrn: "):
        load("hgrn")
