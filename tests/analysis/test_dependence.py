"""Dependence between values and between states, on programs built by hand."""

from scanc.analysis.dependence import Component, Varies, state_components, state_graph, varies
from scanc.ir.build import Builder
from scanc.ir.nodes import Axis, Level, Output, Program, Region, RegionKind, State, Tensor, TensorType

D = TensorType(("d",))


def build() -> Program:
    """A gate read by an EMA, two states that rotate into each other, a two-step shift register and a clock."""
    inputs = (Tensor("x", (("d",),), D),)
    params = (Tensor("a", (("d",),), D),)
    states = tuple(State(name, (("d",),), D) for name in ("late", "later", "re", "im", "ema", "clock"))
    axes = (Axis("d"),)
    b = Builder(axes, {t.name: t.type for t in (*inputs, *params, *states)})
    gate = b.map("sigmoid", "a", hint="gate")
    one = b.const(1.0, hint="one")
    clock = b.map("add", "clock", one, hint="clock_next")
    ema = b.map("add", b.map("mul", gate, "ema", hint="held"), "re", hint="ema_next")
    re = b.map("sub", "re", "im", hint="re_next")
    im = b.map("add", re, "im", hint="im_next")
    y = b.map("mul", ema, "x", hint="y")
    following = (
        ("late", "x"), ("later", "late"), ("re", re), ("im", im), ("ema", ema), ("clock", clock),
    )  # fmt: skip
    return Program(
        "mixed", Level.DISCRETE, "real", axes, inputs, params, states, (Region(RegionKind.STEP, b.take()),), following,
        (Output("y", y, (("d",),)),),
    )  # fmt: skip


def test_components_come_in_a_solvable_order() -> None:
    assert state_components(build()) == (
        Component(("late",), False),
        Component(("later",), False),
        Component(("re", "im"), True),
        Component(("ema",), True),
        Component(("clock",), True),
    )


def test_edges_go_from_the_state_that_is_read() -> None:
    assert set(state_graph(build()).edges) == {
        ("late", "later"), ("re", "re"), ("im", "re"), ("re", "im"), ("im", "im"), ("re", "ema"), ("ema", "ema"),
        ("clock", "clock"),
    }  # fmt: skip


def test_varies_names_the_most() -> None:
    table = varies(build())
    assert [table[v] for v in ("one", "gate", "x", "y")] == [Varies.CONST, Varies.PARAM, Varies.INPUT, Varies.STATE]
