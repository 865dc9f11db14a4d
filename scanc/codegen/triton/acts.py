"""A program with memories as acts: programs that run one after the other, each with memories of the same axes.

What an act recalls with is known when it begins: it is made of inputs and of what earlier acts left.  Any other state,
such as a stabiliser, is an act of its own, which leaves what the state was before each step.  What a later act needs of
an earlier one is handed on through memory; what is made of that elementwise is made again where it is needed, if that
is less to store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import networkx as nx

from scanc.codegen.triton.recall_plan import NoRecall
from scanc.ir.build import Builder
from scanc.ir.nodes import Broadcast, Contract, Instr, Kind, Map, Meet, Memory, Output, Program, Recall, Tensor
from scanc.ir.rewrite import one_region
from scanc.passes.schedule import recompute

LATER = "later."
"""Prefix of the outputs of an act that later acts read."""
_SIZE, _NEVER = 64, 1 << 60  # of an axis, as far as what is stored is compared; what is not stored


@dataclass(frozen=True)
class Act:
    """A program whose states are memories; or that of one other state, which is `walked`.

    `marked`: the memories of which a later act reads the states that are written down now and then.
    """

    program: Program
    walked: bool
    marked: frozenset[str] = frozenset()


@dataclass
class _Act:
    """What an act leaves: recalls or a state, and outputs; its values have the given axes."""

    anchors: Sequence[str]
    axes: frozenset[str]
    walked: bool
    leaves: list[Output] = field(default_factory=list)
    totals: list[Output] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    marked: set[str] = field(default_factory=set)


def acts(program: Program) -> list[Act]:
    """The acts of a program, in order. Raises NoRecall."""
    return _Acts(program).result()


def with_states(primal: Program, adjoint: Program) -> Program:
    """The adjoint of a program with the states that it reads of that as states of its own. Raises NoRecall."""
    memories = {instr.op.state for instr in primal.instrs if isinstance(instr.op, Memory)}
    used = {arg for instr in adjoint.instrs for arg in instr.args}
    walked = recompute(primal, (state.name for state in primal.states if state.name in used))
    needed = {state.name for state in walked.states}
    if found := sorted(memories & needed):
        raise NoRecall(f"the gradient reads a state that {found[0]} goes into")
    builder = Builder.extending(adjoint)
    again: dict[str, str] = {}
    for instr in walked.instrs:
        again[instr.name] = builder.fresh(f"again.{instr.name}")
        builder.append(replace(instr, name=again[instr.name], args=tuple(again.get(arg, arg) for arg in instr.args)))
    pairs = tuple((name, again.get(value, value)) for name, value in walked.next)
    inputs = tuple(tensor for tensor in adjoint.inputs if tensor.name not in needed)
    whole = replace(adjoint, inputs=inputs, states=(*walked.states, *adjoint.states), next=(*pairs, *adjoint.next))
    return one_region(whole, [*builder.take(), *adjoint.instrs])


class _Acts:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.made = {instr.name: instr for instr in program.instrs}
        self.types = program.types
        self.acts = [_Act(anchors, self._axes_of(anchors[0]), anchors[0] not in self.made) for anchors in self._order()]
        self.home = {name: i for i, act in enumerate(self.acts) for name in act.anchors}
        self.reached: dict[str, frozenset[str]] = {}  # the axes of what a value is made of inputs with
        # the first act in which a value can be known; -1: it is made of inputs
        self.known: dict[str, int] = {name: i for name, i in self.home.items() if name not in self.made}
        for instr in program.instrs:
            if not isinstance(instr.op, Memory):
                self.known[instr.name] = self._when(instr)

    def _axes_of(self, anchor: str) -> frozenset[str]:
        if anchor not in self.made:
            return frozenset(self.types[anchor].axes)
        return self._axes_of_memory(self.made[anchor].args[0])

    def _axes_of_memory(self, name: str) -> frozenset[str]:
        memory = self.made[name].op
        assert isinstance(memory, Memory)
        return frozenset(memory.axes)

    def _when(self, instr: Instr) -> int:
        """The first act that has all that an instruction reads, and its axes."""
        if isinstance(instr.op, Recall):
            return self.home[instr.name]
        values = [arg for arg in instr.args if not self._is_memory(arg)]
        axes = frozenset(instr.type.axes).union(*(self.types[arg].axes for arg in values))
        reached = axes.union(*(self.reached.get(arg, frozenset()) for arg in values))
        if all(self.known.get(arg, -1) < 0 for arg in values) and any(reached <= act.axes for act in self.acts):
            self.reached[instr.name] = reached
            return -1
        first = max(map(self._first, values), default=0)
        if isinstance(instr.op, Meet):
            own = self._axes_of_memory(instr.args[0])
            fits = [i for i in range(first, len(self.acts)) if own == self.acts[i].axes]
            if not fits:
                raise NoRecall("a decay's gradient is known later than all that is recalled of its memory")
            return fits[0]
        return self._fitting(axes, first)

    def _first(self, name: str) -> int:
        """The first act that can compute a value."""
        if self.known.get(name, -1) >= 0:
            return self.known[name]
        axes = self.reached.get(name, frozenset(self.types[name].axes))
        return self._fitting(axes, 0)

    def _fitting(self, axes: frozenset[str], first: int) -> int:
        """The first act, from one on, whose axes are enough; else one that walks, which may have any."""
        rest = range(first, len(self.acts))
        fits = [i for i in rest if axes <= self.acts[i].axes] or [i for i in rest if self.acts[i].walked]
        return min(fits, default=first)

    def _is_memory(self, name: str) -> bool:
        return name in self.made and isinstance(self.made[name].op, Memory)

    def result(self) -> list[Act]:
        for output in self.program.outputs:
            self.acts[self._first(output.value)].leaves.append(output)
        for total in self.program.totals:
            self.acts[self._first(total.value)].totals.append(total)
        first: dict[str, _Act] = {}
        for act in self.acts:
            for name in act.anchors:
                first.setdefault(name if act.walked else self.made[name].args[0], act)
        for state, value in self.program.next:
            own = first.get(state) or first.get(value)
            if own is None:
                raise NoRecall(f"nothing is recalled of {state}")
            own.states.append(state)
        programs = [self._program(i) for i in range(len(self.acts) - 1, -1, -1)]
        pairs = zip(programs[::-1], self.acts, strict=True)
        return [Act(program, act.walked, frozenset(act.marked)) for program, act in pairs]

    def _program(self, act: int) -> Program:
        """The program of an act; earlier acts are told what they hand on to it."""
        own = self.acts[act]
        anchors = [self.program.next_of[own.anchors[0]]] if own.walked else own.anchors
        instrs, handed = self._needed(act, [*anchors, *(o.value for o in (*own.leaves, *own.totals))])
        for name in handed:
            earlier = self.acts[self._first(name)].leaves
            if all(output.name != LATER + name for output in earlier):
                earlier.append(Output(LATER + name, name, tuple((axis,) for axis in self.types[name].axes)))
        read = set() if own.walked else {self.made[name].args[0] for name in own.anchors}
        for memory in (arg for instr in instrs if isinstance(instr.op, Meet) for arg in instr.args[:2]):
            if memory not in read:
                self._earlier(memory, act).marked.add(memory)
        if any(self.types[name].kind is not Kind.REAL for name in handed):
            raise NoRecall("what is no real number goes on to what recalls")
        types = ((name, self.types[name]) for name in handed)
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

    def _earlier(self, memory: str, act: int) -> _Act:
        """An act before another that recalls from a memory. Raises NoRecall."""
        for each in self.acts[:act]:
            if not each.walked and memory in {self.made[name].args[0] for name in each.anchors}:
                return each
        raise NoRecall("a decay's gradient is known earlier than what is recalled of its memory")

    def _needed(self, act: int, wanted: Sequence[str]) -> tuple[list[Instr], list[str]]:
        """The instructions of an act, and what it reads of earlier ones."""
        scores = self._scores(act)

        def crosses(name: str) -> bool:
            return name not in scores and (self._is_foreign(name, act) or -1 < self.known[name] < act)

        _, crossing = self._walk(wanted, crosses)
        kept = self._kept({name for name in crossing if not self._is_foreign(name, act)})
        needed, handed = self._walk(wanted, lambda name: self._is_foreign(name, act) or name in kept)
        return [instr for instr in self.program.instrs if instr.name in needed], sorted(handed)

    def _scores(self, act: int) -> set[str]:
        """Products of queries and their own steps' keys, which an act has anyway."""
        pairs: list[set[str]] = []
        for name in () if self.acts[act].walked else self.acts[act].anchors:
            recall = self.made[name]
            memory = self.made[recall.args[0]]
            assert isinstance(memory.op, Memory)
            pairs += [{recall.args[1], key} for key in memory.args[len(memory.op.decays) :]]
        return {i.name for i in self.made.values() if isinstance(i.op, Contract) and {*i.args} in pairs}

    def _walk(self, wanted: Sequence[str], stops: Callable[[str], bool]) -> tuple[set[str], set[str]]:
        """What `wanted` values are made of, as far as nothing stops; and what stopped."""
        needed, stopped = set[str](), set[str]()
        pending = list(wanted)
        while pending:
            name = pending.pop()
            if name in needed or name in stopped or not (name in self.made or name in self.home):
                continue
            if not self._is_memory(name) and stops(name):
                stopped.add(name)
                continue
            needed.add(name)
            pending += self.made[name].args if name in self.made else ()
        return needed, stopped

    def _is_foreign(self, name: str, act: int) -> bool:
        """Whether a value is made of inputs, but with axes that the memories of an act lack."""
        return self.known[name] < 0 and self._first(name) < act and not self.reached[name] <= self.acts[act].axes

    def _kept(self, wanted: set[str]) -> set[str]:
        """What to keep of earlier acts so that `wanted` values can be made of it.

        As few numbers as there can be, and what is made last of them; numbers of each step alone do not count.
        """
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
            instr = self.made.get(name)
            args = instr.args if instr is not None and isinstance(instr.op, Map | Broadcast) else ()
            known = [arg for arg in args if self.known.get(arg, -1) >= 0]
            if not known:
                graph.add_edge("recalled", (name, "in"))
                continue
            graph.add_edges_from(((arg, "out"), (name, "in")) for arg in known)
            pending += known
        _, (_, behind) = nx.minimum_cut(graph, "recalled", "wanted")  # of several the one that is nearest to the end
        return {name for name in seen if (name, "out") in behind and (name, "in") not in behind}

    def _size(self, name: str) -> int:
        type_ = self.types[name]
        if type_.kind is not Kind.REAL:  # what is compared is handed on, not the answer
            return _NEVER
        own = sum(not self.program.axis(axis).batch for axis in type_.axes)
        return int(_SIZE**own) if own else 0

    def _order(self) -> list[Sequence[str]]:
        """The anchors of each act: a state, or all recalls of one kind of memory that can be together, small first."""
        memories = {instr.op.state for instr in self.made.values() if isinstance(instr.op, Memory)}
        walked = [state.name for state in self.program.states if state.name not in memories]
        needs: dict[str, frozenset[str]] = {name: frozenset({name}) for name in walked}  # what comes before a value
        recalls: dict[str, tuple[tuple[str, ...], ...]] = {}
        for name, instr in self.made.items():
            needs[name] = frozenset[str]().union(*(needs.get(arg, frozenset()) for arg in instr.args))
            if isinstance(instr.op, Recall):
                memory = self.made[instr.args[0]].op
                assert isinstance(memory, Memory)
                recalls[name] = memory.axes, memory.rows, memory.columns
                needs[name] |= {name}

        def size(kind: tuple[tuple[str, ...], ...]) -> int:
            return sum(self.program.axis(axis).size != 1 for axis in kind[0])

        done: set[str] = set()
        found: list[Sequence[str]] = []
        while len(done) < len(recalls) + len(walked):
            states = [s for s in walked if s not in done and needs.get(self.program.next_of[s], set()) <= {*done, s}]
            kinds: dict[tuple[tuple[str, ...], ...], list[str]] = {}
            for name, kind in recalls.items():
                if name not in done:
                    kinds.setdefault(kind, []).append(name)
            ready = {kind: [name for name in names if needs[name] <= {*done, name}] for kind, names in kinds.items()}
            whole = [kind for kind, names in kinds.items() if len(ready[kind]) == len(names)]
            begun = whole or [kind for kind, names in ready.items() if names]
            if not states and not begun:
                raise NoRecall("states beside memories depend on one another")
            found.append(states[:1] or ready[min(begun, key=size)])
            done |= {*found[-1]}
        return found
