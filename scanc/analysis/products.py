"""State-free values as sums of products of factors on few axes: what makes a write an outer product.

`k[i] * v[j]` is a product of a factor on i and one on j; `exp(delta[d] * A[d,n])` is one factor on
two axes, and no matrix product can be made of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scanc.analysis.affine import Term
from scanc.analysis.structure import Rank
from scanc.ir.functions import SEMIRINGS
from scanc.ir.nodes import Broadcast, Const, Contract, Instr, Map, Rename, TensorType

_LIMIT = 64  # products beyond which a sum is taken as one factor
_SAME = ("stop", "to_real", "to_complex", "conj")


@dataclass(frozen=True)
class Leaf:
    """A value that is not taken apart further, and the state axes that it varies on."""

    value: str
    axes: frozenset[str]


@dataclass(frozen=True)
class Product:
    """The product of `leaves`, summed over `internal` axes that join leaves on different state axes."""

    leaves: tuple[Leaf, ...]
    internal: tuple[str, ...] = ()

    @property
    def separable(self) -> bool:
        """Whether every factor varies on one state axis at most."""
        return all(len(leaf.axes) <= 1 for leaf in self.leaves)

    def along(self, axis: str) -> frozenset[str]:
        """The factors on one axis: what tells its vector from others."""
        return frozenset(leaf.value for leaf in self.leaves if axis in leaf.axes)


@dataclass(frozen=True)
class Algebra:
    """Which Map functions count as a sum and as a product."""

    plus: frozenset[str]
    times: frozenset[str]
    contract: str | None


def algebra(semiring: str) -> Algebra:
    """What adds, multiplies and contracts in a semiring, as names of the IR."""
    rules = SEMIRINGS[semiring]
    if semiring == "real":
        return Algebra(frozenset({"add", "sub"}), frozenset({"mul", "div"}), "real")
    times = {rules.times} | ({"sub"} if rules.times == "add" else set())
    return Algebra(frozenset({rules.plus}), frozenset(times), semiring)


_EXPONENT = Algebra(frozenset(), frozenset({"add", "sub"}), None)  # exp of a sum is a product


class Expansion:
    """Expands values of one program, given the definitions and types of its values."""

    def __init__(self, defs: Mapping[str, Instr], types: Mapping[str, TensorType]) -> None:
        self.defs = defs
        self.types = types

    def term(self, term: Term, axes: frozenset[str], rules: Algebra) -> tuple[Product, ...]:
        """The products of a term's factors, over the state axes of its result."""
        position = {label: axis for axis, label in term.out if axis in axes}
        products: tuple[Product, ...] = (Product(()),)
        for factor in term.factors:
            over = {axis: position[label] for axis, label in factor.labels if label in position}
            if factor.role in ("value", "reciprocal"):
                parts = self.value(factor.value, over, rules)
                if factor.role == "reciprocal" and len(parts) > 1:
                    parts = (self._leaf(factor.value, over),)
            else:
                parts = (Product((Leaf(f"{factor.role} {factor.value}", frozenset(over.values())),)),)
            products = _times(products, parts)
        joining = _joining(term, position)
        return tuple(Product(p.leaves, p.internal + joining) for p in products)

    def value(self, value: str, over: Mapping[str, str], rules: Algebra) -> tuple[Product, ...]:
        """The products of `value`; `over` takes its axes to state axes, as far as they are any."""
        leaf = self._leaf(value, over)
        instr = self.defs.get(value)
        if instr is None or leaf.separable:
            return (leaf,)
        parts = self._parts(instr, over, rules)
        return parts if parts is not None and len(parts) <= _LIMIT else (leaf,)

    def _leaf(self, value: str, over: Mapping[str, str]) -> Product:
        return Product((Leaf(value, frozenset(over[axis] for axis in self.types[value].axes if axis in over)),))

    def _parts(self, instr: Instr, over: Mapping[str, str], rules: Algebra) -> tuple[Product, ...] | None:
        args = instr.args
        match instr.op:
            case Map(fn) if fn in rules.plus:
                return self.value(args[0], over, rules) + self.value(args[1], over, rules)
            case Map(fn) if fn in rules.times:
                right = self.value(args[1], over, rules)
                if len(right) > 1 and fn in ("div", "sub"):
                    right = (self._leaf(args[1], over),)
                return _times(self.value(args[0], over, rules), right)
            case Map("neg") if "sub" in rules.plus | rules.times:
                return self.value(args[0], over, rules)
            case Map(fn) if fn in _SAME:
                return self.value(args[0], over, rules)
            case Map("where"):
                return self._where(args, over, rules)
            case Map("exp") if rules.contract == "real":
                return self.value(args[0], over, _EXPONENT)
            case Rename(pairs):
                back = {to: source for source, to in pairs}
                return self.value(args[0], {back.get(axis, axis): state for axis, state in over.items()}, rules)
            case Broadcast():
                return self.value(args[0], over, rules)
            case Contract(semiring, axes) if semiring == rules.contract:
                inner = {axis: state for axis, state in over.items() if axis not in axes}
                both = _times(self.value(args[0], inner, rules), self.value(args[1], inner, rules))
                return tuple(Product(p.leaves, p.internal + axes) for p in both)
            case _:
                return None

    def _where(self, args: tuple[str, ...], over: Mapping[str, str], rules: Algebra) -> tuple[Product, ...] | None:
        """A choice between a value and zero is a product with the condition."""
        condition, *branches = args
        zeros = [self._is_zero(branch, rules) for branch in branches]
        if zeros.count(True) != 1:
            return None
        return _times((self._leaf(condition, over),), self.value(branches[zeros.index(False)], over, rules))

    def _is_zero(self, value: str, rules: Algebra) -> bool:
        instr = self.defs.get(value)
        zero = SEMIRINGS[rules.contract].zero if rules.contract else None
        if instr is not None and isinstance(instr.op, Broadcast):
            return self._is_zero(instr.args[0], rules)
        return instr is not None and isinstance(instr.op, Const) and instr.op.value == zero


def _times(a: tuple[Product, ...], b: tuple[Product, ...]) -> tuple[Product, ...]:
    return tuple(Product(x.leaves + y.leaves, x.internal + y.internal) for x in a for y in b)


def _joining(term: Term, position: Mapping[int, str]) -> tuple[str, ...]:
    """The summed axes of a term that join factors on different state axes."""
    touched: dict[tuple[str, int], set[frozenset[str]]] = {}
    for factor in term.factors:
        states = frozenset(position[label] for _, label in factor.labels if label in position)
        for axis, label in factor.labels:
            if label not in position and states:
                touched.setdefault((axis, label), set()).add(states)
    carried = {label for _, label in term.out}
    return tuple(axis for (axis, label), sets in touched.items() if len(sets) > 1 and label not in carried)


def rank(products: tuple[Product, ...], axes: tuple[str, ...]) -> Rank:
    """A bound on the rank of a sum of separable products: no more than the distinct vectors of any axis."""
    wide = tuple(p.internal for p in products if p.internal)
    plain = [p for p in products if not p.internal]
    count = min(len({p.along(axis) for p in plain}) for axis in axes)
    return Rank(((),) * count + wide)
