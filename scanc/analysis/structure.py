"""The structure of an affine transition, read off its terms: theory's table of axis classes.

Per term, an axis of the state whose label is the same before and after is kept (identity or
diagonal).  Otherwise the labels before and after are joined only through factors: if removing a few
summed labels cuts every path between them, the term has the rank of what was removed; if one factor
holds both, it is dense.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal

import networkx as nx

from scanc.analysis.affine import Factor, Term

Transition = Literal["delay", "identity", "scalar", "diagonal", "shift", "dplr", "dense", "nonlinear"]


@dataclass(frozen=True)
class Rank:
    """A bound on a rank: the sum over `parts` of the products of the sizes of their axes; () counts 1."""

    parts: tuple[tuple[str, ...], ...]

    def of(self, sizes: Mapping[str, int]) -> int:
        """The bound for given sizes of axes."""
        return sum(prod(sizes[axis] for axis in part) for part in self.parts)

    def __str__(self) -> str:
        plain = sum(1 for part in self.parts if not part)
        symbolic = ["·".join(f"size({axis})" for axis in part) for part in self.parts if part]
        return " + ".join([str(plain)] * bool(plain or not symbolic) + symbolic)


@dataclass(frozen=True)
class Structure:
    """What a transition does: `acts` are the non-batch state axes that it does not merely carry along."""

    transition: Transition
    acts: tuple[str, ...] = ()
    rank: Rank | None = None


def structure(terms: tuple[Term, ...] | None, axes: tuple[str, ...], batch: frozenset[str]) -> Structure:
    """The structure of `⊕ terms` on a state with `axes`; terms None (too many to keep) counts as dense."""
    free = tuple(axis for axis in axes if axis not in batch)
    if terms is None:
        return Structure("dense", free)
    if not terms:
        return Structure("delay")
    kept = [term for term in terms if is_elementwise(term)]
    moving = [term for term in terms if not is_elementwise(term)]
    acts = {axis for term in kept for axis in diagonal_axes(term)} | {a for term in moving for a in moved_axes(term)}
    acting = tuple(axis for axis in free if axis in acts)
    if not moving:
        if len(kept) == 1 and not kept[0].factors and not kept[0].negative:
            return Structure("identity")
        return Structure("diagonal", acting) if acting else Structure("scalar")
    if not kept and all(_is_shift(term) for term in moving):
        return Structure("shift", acting)
    cuts = [_cut(term) for term in moving]
    if any(cut is None for cut in cuts):
        return Structure("dense", acting)
    return Structure("dplr", acting, _rank([cut for cut in cuts if cut is not None]))


def is_elementwise(term: Term) -> bool:
    """Whether each element of the result depends on its own element of the symbol alone."""
    return dict(term.reads) == term.labels()


def diagonal_axes(term: Term) -> set[str]:
    """The axes on which an elementwise term's coefficient varies."""
    held = {label for factor in term.factors for _, label in factor.labels}
    return {axis for axis, label in term.reads if label in held}


def moved_axes(term: Term) -> set[str]:
    """The axes along which a term carries the symbol's elements to others."""
    out = term.labels()
    return {axis for axis, label in term.reads if out.get(axis) != label}


def _is_shift(term: Term) -> bool:
    """Whether a term takes one slice to a later position of the same axis, unchanged."""
    if len(moved := moved_axes(term)) != 1 or term.negative or len(term.factors) != 2:
        return False
    (axis,) = moved
    at = {f.labels[0][1]: f.position for f in term.factors if f.role == "at"}
    source, target = at.get(dict(term.reads)[axis]), at.get(term.labels()[axis])
    return source is not None and target is not None and source < target


@dataclass(frozen=True)
class _Cut:
    """A low-rank term: what was summed over, and what stands on either side, to tell equal vectors by."""

    axes: tuple[str, ...]
    before: frozenset[_Side]
    behind: frozenset[_Side]


_Side = tuple[str, str, int, tuple[str, ...]]


def _cut(term: Term) -> _Cut | None:
    """The narrowest sum between the labels before and after; None if one factor, or a label, joins them."""
    out = term.labels()
    sources = {label for axis, label in term.reads if out.get(axis) != label}
    sinks = {out[axis] for axis, label in term.reads if out.get(axis) != label}
    carried = {label for axis, label in term.reads if out.get(axis) == label}
    if sources & sinks:  # an axis taken to another one
        return None
    graph = nx.Graph()
    graph.add_nodes_from(("before", "behind"))
    names: dict[int, str] = {}
    for position, factor in enumerate(term.factors):
        for axis, label in factor.labels:
            if label not in carried:
                names[label] = axis
                graph.add_edge(_node(label, sources, sinks), ("factor", position))
    widened = _split_factors(graph)
    if widened is None:
        return None
    summed = nx.minimum_node_cut(widened, "before", "behind") if nx.has_path(widened, "before", "behind") else set()
    left = widened.copy()
    left.remove_nodes_from(summed)
    sides = (nx.node_connected_component(left, end) for end in ("before", "behind"))
    before, behind = (_side(term.factors, side, graph) for side in sides)
    return _Cut(tuple(sorted(names[label] for label in summed)), before, behind)


def _node(label: int, sources: set[int], sinks: set[int]) -> int | str:
    return "before" if label in sources else "behind" if label in sinks else label


def _split_factors(graph: nx.Graph) -> nx.Graph | None:
    """Labels joined wherever a factor holds both; None if a factor holds a label before and one behind."""
    joined = nx.Graph()
    joined.add_nodes_from(node for node in graph if not isinstance(node, tuple))
    for node in graph:
        if isinstance(node, tuple):
            labels = sorted(graph[node], key=str)
            joined.add_edges_from((a, b) for i, a in enumerate(labels) for b in labels[i + 1 :])
    return None if joined.has_edge("before", "behind") else joined


def _side(factors: tuple[Factor, ...], side: Iterable[int | str], graph: nx.Graph) -> frozenset[_Side]:
    held = set(side)
    return frozenset(
        (f.value, f.role, f.position, tuple(axis for axis, _ in f.labels))
        for position, f in enumerate(factors)
        if ("factor", position) in graph and held.intersection(graph["factor", position])
    )


def _rank(cuts: list[_Cut]) -> Rank:
    """Terms that share the vector on one side add up to one: no more than the distinct vectors of either side."""
    wide = tuple(cut.axes for cut in cuts if cut.axes)
    plain = [cut for cut in cuts if not cut.axes]
    count = min(len({cut.before for cut in plain}), len({cut.behind for cut in plain}))
    return Rank(((),) * count + wide)
