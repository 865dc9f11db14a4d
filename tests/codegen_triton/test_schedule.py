"""Which axes are shared out between programs, and what becomes of sums over them."""

from __future__ import annotations

import pytest
from codegen_triton.support import fused
from interpreter.specs import example

from scanc.codegen.triton.backward import rerun
from scanc.ir.nodes import Program
from scanc.passes.differentiate import differentiate
from scanc.passes.pipeline import SIMPLIFIED, TO_DISCRETE, Trace, run
from scanc.passes.schedule import SCHEDULE, Schedule, recompute, schedule
from scanc.semantics.lower import lower


def both(typed: Program) -> tuple[Program, Program]:
    """The fused forward and adjoint programs."""
    discrete = run(TO_DISCRETE, typed, Trace())
    return fused(discrete), fused(run(SIMPLIFIED, differentiate(discrete), Trace()))


def plans(name: str) -> tuple[Schedule, Schedule]:
    forward, adjoint = both(example(name))
    return schedule(forward), schedule(adjoint, whole_states=False, alongside=rerun(adjoint, forward))


@pytest.mark.parametrize(
    ("name", "grid", "free", "summed", "full"),
    [
        ("ema", (), ("d",), (), ()),
        ("gla", ("h",), ("j",), ("i",), ()),
        ("delta_rule", ("h",), ("j",), (), ("i",)),
        ("selective_ssm", (), ("d",), ("n",), ()),
        ("gru", (), (), (), ("d", "d_col")),
    ],
)
def test_forward(
    name: str, grid: tuple[str, ...], free: tuple[str, ...], summed: tuple[str, ...], full: tuple[str, ...]
) -> None:
    plan, _ = plans(name)
    assert (plan.grid, plan.free, plan.summed, plan.full) == (grid, free, summed, full)


def test_backward_prefers_the_axis_that_leaves_fewer_partial_sums() -> None:
    _, plan = plans("gla")
    assert plan.split == ("i", "j")  # i costs d v alone, j costs d q, d k and d g


def test_a_partial_sum_may_be_a_state_of_the_adjoint() -> None:
    """A write summed over j feeds a decaying state without j: its cotangent stays a share per program."""
    text = """scan shared
axes i, j
input x[i,j], g[i], r[i]
state n[i], S[i,j]
n = exp(g) * n + r
S = exp(g) * S + x * n
y = sum[i](S)
output y[j]
"""
    forward, adjoint = both(lower(text))
    plan = schedule(adjoint, whole_states=False, alongside=rerun(adjoint, forward))
    assert "j" in plan.split
    assert "j" in plan.partial_over("d.n")
    assert "j" not in schedule(adjoint).split


def test_recompute_keeps_what_the_states_need() -> None:
    forward, _ = both(example("mlstm"))
    part = recompute(forward, ["m"])
    assert [state.name for state in part.states] == ["m"]
    assert not part.outputs
    assert len(list(part.instrs)) < len(list(forward.instrs))


def test_the_pass_says_what_it_found() -> None:
    forward, _ = both(example("gla"))
    same, (remark,) = SCHEDULE.run(forward)
    assert same is forward
    assert remark.text == "one program per h; blocks of j, i"
