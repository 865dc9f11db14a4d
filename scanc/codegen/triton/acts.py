"""A program with memories as acts: programs that run one after the other, each with memories of the same axes.

What an act recalls with is known when it begins: it is made of inputs and of what earlier acts recalled.  What a later
act needs of an earlier one is handed on through memory; what is made of that elementwise is made again where it is
needed, if that is less to store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import networkx as nx

from scanc.codegen.triton.recall_plan import NoRecall
from scanc.ir.nodes import Broadcast, Instr, Map, Meet, Memory, Output, Program, Recall, Tensor
from scanc.ir.rewrite import one_region

LATER = "later."
"""Prefix of the outputs of an act that later acts read."""
_SIZE = 64  # of an axis, as far as what is stored is compared


@dataclass
class _Act:
    """What is recalled in an act, the axes of its memories, what leaves it, and which states it computes."""

    recalls: Sequence[str]
    axes: frozenset[str]
    leaves: list[Output] = field(default_factory=list)
    totals: list[Output] = field(default_factory=list)
    states: list[str] = field(default_factory=list)


def acts(program: Program) -> list[Program]:
    """The acts of a program whose states are memories, in order. Raises NoRecall."""
    return _Acts(program).result()


class _Acts:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.made = {instr.name: instr for instr in program.instrs}
        self.types = program.types
        self.acts = [_Act(recalls, self._axes_of(recalls[0])) for recalls in _order(program, self.made)]
        self.home = {name: i for i, act in enumerate(self.acts) for name in act.recalls}
        self.reached: dict[str, frozenset[str]] = {}  # the axes of what a value is made of inputs with
        self.known: dict[str, int] = {}  # the first act in which a value can be known; -1: it is made of inputs
        for instr in program.instrs:
            if not isinstance(instr.op, Memory):
                self.known[instr.name] = self._when(instr)

    def _axes_of(self, recall: str) -> frozenset[str]:
        memory = self.made[self.made[recall].args[0]].op
        assert isinstance(memory, Memory)
        return frozenset(memory.axes)

    def _when(self, instr: Instr) -> int:
        """The first act that has all that an instruction reads, and its axes."""
        if isinstance(instr.op, Recall):
            return self.home[instr.name]
        values = [arg for arg in instr.args if not self._is_memory(arg)]
        axes = frozenset(instr.type.axes).union(*(self.types[arg].axes for arg in values))
        if all(self.known.get(arg, -1) < 0 for arg in values):
            self.reached[instr.name] = axes.union(*(self.reached.get(arg, frozenset()) for arg in values))
            return -1
        first = max(map(self._first, values))
        return next((i for i in range(first, len(self.acts)) if axes <= self.acts[i].axes), first)

    def _first(self, name: str) -> int:
        """The first act that can compute a value."""
        if self.known.get(name, -1) >= 0:
            return self.known[name]
        axes = self.reached.get(name, frozenset(self.types[name].axes))
        return next((i for i, act in enumerate(self.acts) if axes <= act.axes), 0)

    def _is_memory(self, name: str) -> bool:
        return name in self.made and isinstance(self.made[name].op, Memory)

    def result(self) -> list[Program]:
        for output in self.program.outputs:
            self.acts[self._first(output.value)].leaves.append(output)
        for total in self.program.totals:
            self.acts[self._first(total.value)].totals.append(total)
        recalled = [(self.made[name].args[0], act) for act in self.acts for name in act.recalls]
        for state, memory in self.program.next:
            act = next((act for name, act in recalled if name == memory), None)
            if act is None:
                raise NoRecall(f"nothing is recalled of {state}")
            act.states.append(state)
        return [self._program(i) for i in range(len(self.acts) - 1, -1, -1)][::-1]

    def _program(self, act: int) -> Program:
        """The program of an act; earlier acts are told what they hand on to it."""
        own = self.acts[act]
        instrs, handed = self._needed(act, [*own.recalls, *(o.value for o in (*own.leaves, *own.totals))])
        for name in handed:
            earlier = self.acts[self._first(name)].leaves
            if all(output.name != LATER + name for output in earlier):
                earlier.append(Output(LATER + name, name, tuple((axis,) for axis in self.made[name].type.axes)))
        read = {self.made[name].args[0] for name in own.recalls}
        for instr in instrs:
            if isinstance(instr.op, Meet) and not {*instr.args[:2]} <= read:
                raise NoRecall("a decay's gradient is known later than what it is made of")
        types = ((name, self.made[name].type) for name in handed)
        inputs = tuple(Tensor(name, tuple((axis,) for axis in type_.axes), type_) for name, type_ in types)
        program = replace(
            self.program,
            inputs=(*self.program.inputs, *inputs),
            states=tuple(state for state in self.program.states if state.name in own.states),
            next=tuple(pair for pair in self.program.next if pair[0] in own.states),
            outputs=tuple(own.leaves),
            totals=tuple(own.totals),
        )
        return one_region(program, instrs)

    def _needed(self, act: int, wanted: Sequence[str]) -> tuple[list[Instr], list[str]]:
        """The instructions of an act, and what it reads of earlier ones."""
        _, crossing = self._walk(wanted, lambda name: self._is_foreign(name, act) or -1 < self.known[name] < act)
        kept = self._kept({name for name in crossing if not self._is_foreign(name, act)})
        needed, handed = self._walk(wanted, lambda name: self._is_foreign(name, act) or name in kept)
        return [instr for instr in self.program.instrs if instr.name in needed], sorted(handed)

    def _walk(self, wanted: Sequence[str], stops: Callable[[str], bool]) -> tuple[set[str], set[str]]:
        """What `wanted` values are made of, as far as nothing stops; and what stopped."""
        needed, stopped = set[str](), set[str]()
        pending = list(wanted)
        while pending:
            name = pending.pop()
            if name in needed or name in stopped or name not in self.made:
                continue
            if not self._is_memory(name) and stops(name):
                stopped.add(name)
                continue
            needed.add(name)
            pending += self.made[name].args
        return needed, stopped

    def _is_foreign(self, name: str, act: int) -> bool:
        """Whether a value is made of inputs, but with axes that the memories of an act lack."""
        return self.known[name] < 0 and self._first(name) < act and not self.reached[name] <= self.acts[act].axes

    def _kept(self, wanted: set[str]) -> set[str]:
        """What to keep of earlier acts so that `wanted` values can be made of it: as few numbers as there can be."""
        graph = nx.DiGraph()
        graph.add_nodes_from(("recalled", "wanted"))
        pending, seen = list(wanted), set[str]()
        for name in wanted:
            graph.add_edge((name, "out"), "wanted")
        while pending:
            name = pending.pop()
            if name in seen:
                continue
            seen.add(name)
            graph.add_edge((name, "in"), (name, "out"), capacity=self._size(name))
            instr = self.made[name]
            known = [arg for arg in instr.args if not self._is_memory(arg) and self.known.get(arg, -1) >= 0]
            if not isinstance(instr.op, Map | Broadcast) or not known:
                graph.add_edge("recalled", (name, "in"))
                continue
            graph.add_edges_from(((arg, "out"), (name, "in")) for arg in known)
            pending += known
        _, (_, behind) = nx.minimum_cut(graph, "recalled", "wanted")
        return {name for name in seen if (name, "out") in behind and (name, "in") not in behind}

    def _size(self, name: str) -> int:
        axes = self.made[name].type.axes
        return int(_SIZE ** sum(not self.program.axis(axis).batch for axis in axes))


def _order(program: Program, made: dict[str, Instr]) -> list[Sequence[str]]:
    """The recalls of each act: as many of one kind of memory as can be together, small memories first."""

    def size(kind: tuple[tuple[str, ...], ...]) -> int:
        return sum(program.axis(axis).size != 1 for axis in kind[0])

    recalls: dict[str, Memory] = {}
    needs: dict[str, frozenset[str]] = {}  # what must be recalled before a value is known
    for name, instr in made.items():
        needs[name] = frozenset[str]().union(*(needs.get(arg, frozenset()) for arg in instr.args))
        if isinstance(instr.op, Recall):
            memory = made[instr.args[0]].op
            assert isinstance(memory, Memory)
            recalls[name] = memory
            needs[name] |= {name}
    done: set[str] = set()
    found: list[Sequence[str]] = []
    while len(done) < len(recalls):
        kinds: dict[tuple[tuple[str, ...], ...], list[str]] = {}
        for name, memory in recalls.items():
            if name not in done:
                kinds.setdefault((memory.axes, memory.rows, memory.columns), []).append(name)
        ready = {kind: [name for name in names if needs[name] <= {*done, name}] for kind, names in kinds.items()}
        whole = [kind for kind, names in kinds.items() if len(ready[kind]) == len(names)]
        kind = min(whole or [kind for kind, names in ready.items() if names], key=size)
        found.append(ready[kind])
        done |= {*ready[kind]}
    return found
