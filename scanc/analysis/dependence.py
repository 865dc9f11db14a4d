"""Who reads whom: values within a step, states across steps, and what a value can vary with.

The graphs are derived from a program when asked for; nothing is stored in the nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import networkx as nx

from scanc.ir.nodes import Program


class Varies(IntEnum):
    """The most that a value depends on; each includes the ones before it."""

    CONST = 0
    PARAM = 1
    INPUT = 2
    STATE = 3


@dataclass(frozen=True)
class Component:
    """States whose next values need one another's previous values.

    `cyclic` is false for one state whose next value does not read the state: a pure delay.
    """

    states: tuple[str, ...]
    cyclic: bool


def value_graph(program: Program) -> nx.DiGraph:
    """Edges from each value to those computed from it within one step; a state stands for its previous value.

    Nodes carry `kind`: input, param, state or value.
    """
    graph = nx.DiGraph()
    graph.add_nodes_from((tensor.name for tensor in program.inputs), kind="input")
    graph.add_nodes_from((tensor.name for tensor in program.params), kind="param")
    graph.add_nodes_from((state.name for state in program.states), kind="state")
    for region in program.regions:
        for instr in region.instrs:
            graph.add_node(instr.name, kind="value")
            graph.add_edges_from((arg, instr.name) for arg in instr.args)
        scan = region.scan
        if scan is not None and scan.result != scan.write:  # a delay or a memory hands on a value that is there
            graph.add_node(scan.result, kind="value")
            reads = (region.states[0], scan.decay, scan.write)
            graph.add_edges_from((arg, scan.result) for arg in reads if arg is not None)
    return graph


def state_graph(program: Program) -> nx.DiGraph:
    """Edges j → i where the next value of state i reads the previous value of state j."""
    values = value_graph(program)
    states = {state.name for state in program.states}
    graph = nx.DiGraph()
    graph.add_nodes_from(state.name for state in program.states)
    for state, following in program.next:
        read = nx.ancestors(values, following) | {following}
        graph.add_edges_from((source, state) for source in states & read)
    return graph


def state_components(program: Program) -> tuple[Component, ...]:
    """The strongly connected components of the state graph in an order in which they can be solved.

    Components that do not depend on one another keep the order of declaration.
    """
    graph = state_graph(program)
    position = {state.name: i for i, state in enumerate(program.states)}
    condensed = nx.condensation(graph)
    members = {node: sorted(condensed.nodes[node]["members"], key=position.__getitem__) for node in condensed}
    order = nx.lexicographical_topological_sort(condensed, key=lambda node: position[members[node][0]])
    return tuple(
        Component(tuple(states), len(states) > 1 or graph.has_edge(states[0], states[0]))
        for states in (members[node] for node in order)
    )


def varies(program: Program) -> dict[str, Varies]:
    """What each value depends on at most: nothing, params, inputs or states."""
    table: dict[str, Varies] = {}
    table.update((tensor.name, Varies.PARAM) for tensor in program.params)
    table.update((tensor.name, Varies.INPUT) for tensor in program.inputs)
    table.update((state.name, Varies.STATE) for state in program.states)
    for region in program.regions:
        for instr in region.instrs:
            table[instr.name] = max((table[arg] for arg in instr.args), default=Varies.CONST)
        if region.scan is not None:
            table[region.scan.result] = Varies.STATE
    return table
