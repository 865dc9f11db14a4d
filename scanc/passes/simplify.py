"""simplify: constants folded, units dropped, equals merged, sums of products contracted, the unread removed.

Every rule holds for all finite and non-finite values (so `0 * x` stays), and one walk, arguments
before uses, applies them all: each rule sees arguments that are already simple.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from scanc.ir.build import Builder
from scanc.ir.nodes import Broadcast, Const, Contract, Instr, Kind, Level, Map, Op, Program, Reduce, Rename
from scanc.ir.rewrite import live, one_region, rewrite, roots
from scanc.passes.base import Pass, Remark, Rewrite

_FOLD: dict[str, Callable[..., float]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "neg": operator.neg,
    "exp": math.exp,
    "log": math.log,
    "sqrt": math.sqrt,
}
_IDENTITY = {"to_real": Kind.REAL, "to_complex": Kind.COMPLEX}


def run(program: Program) -> Rewrite:
    rule = _Rules(program)
    simple = rewrite(program, rule)
    kept = live(simple.instrs, roots(simple))
    if simple is program and len(kept) == len(tuple(program.instrs)):
        return program, ()
    before = len(tuple(program.instrs))
    return one_region(simple, kept), (Remark("simplify", f"{before} instructions became {len(kept)}"),)


class _Rules:
    """The rewrite rules, with what has been built so far to look arguments up in."""

    def __init__(self, program: Program) -> None:
        self.seen: dict[tuple[Op, tuple[str, ...]], str] = {}
        self.defined: dict[str, Instr] = {}
        self.sizes = {axis.name: axis.size for axis in program.axes}
        self.uses = Counter(arg for instr in program.instrs for arg in instr.args)
        self.uses.update(roots(program))

    def __call__(self, instr: Instr, builder: Builder) -> str | None:
        known = self.seen.get((_key(instr.op), instr.args))
        if known is not None:
            return known
        value = self._unit(instr, builder) or self._fold(instr, builder) or self._structure(instr, builder)
        for new in builder.instrs[len(self.defined) :]:
            self._remember(new)
        if value is None:
            self._remember(instr)
        return value

    def _remember(self, instr: Instr) -> None:
        self.defined[instr.name] = instr
        self.seen.setdefault((_key(instr.op), instr.args), instr.name)

    def _constant(self, name: str) -> bool | int | float | complex | None:
        instr = self.defined.get(name)
        return instr.op.value if instr and isinstance(instr.op, Const) else None

    def _unit(self, instr: Instr, builder: Builder) -> str | None:
        """x + 0, x - 0, x * 1, x / 1, x ^ 1, --x, conversions to the same kind."""
        if not isinstance(instr.op, Map):
            return None
        match instr.op.fn, instr.args:
            case "add" | "mul" as fn, (a, b):
                unit = 0 if fn == "add" else 1
                if self._constant(b) == unit and builder.types[a] == instr.type:
                    return a
                if self._constant(a) == unit and builder.types[b] == instr.type:
                    return b
            case "sub" | "div" | "pow" as fn, (a, b):
                if self._constant(b) == (0 if fn == "sub" else 1) and builder.types[a] == instr.type:
                    return a
            case "neg" | "conj" as fn, (a,):
                inner = self.defined.get(a)
                if inner and inner.op == Map(fn):
                    return inner.args[0]
            case fn, (a,) if fn in _IDENTITY and builder.types[a].kind is _IDENTITY[fn]:
                return a
        return None

    def _fold(self, instr: Instr, builder: Builder) -> str | None:
        """A function of real constants, where the result is finite."""
        if not isinstance(instr.op, Map) or instr.op.fn not in _FOLD or instr.type.kind is not Kind.REAL:
            return None
        values = [self._constant(arg) for arg in instr.args]
        if any(value is None or isinstance(value, complex) for value in values):
            return None
        try:
            folded = float(_FOLD[instr.op.fn](*values))
        except (ValueError, OverflowError):
            return None
        return builder.const(folded, hint=instr.name, span=instr.span) if math.isfinite(folded) else None

    def _structure(self, instr: Instr, builder: Builder) -> str | None:
        """Sums of products become contractions; broadcasts under elementwise work and rename chains vanish."""
        match instr.op:
            case Reduce("sum", axes):
                inner = self.defined.get(instr.args[0])
                if inner and inner.op == Map("mul") and self.uses[inner.name] == 1:
                    return self._sum_of_product(instr, inner, axes, builder)
                if all(self.sizes[axis] == 1 for axis in axes):
                    return self._without(instr.args[0], axes, builder)
            case Map() if len(instr.args) > 1:
                return self._map_of_broadcast(instr, builder)
            case Contract("real", axes) if all(self.sizes[axis] == 1 for axis in axes):
                return self._product_of_one(instr, axes, builder)
            case Rename(pairs):
                inner = self.defined.get(instr.args[0])
                if inner and isinstance(inner.op, Rename) and _inverse(inner.op.pairs) == frozenset(pairs):
                    return inner.args[0]
        return None

    def _sum_of_product(self, instr: Instr, product: Instr, axes: tuple[str, ...], builder: Builder) -> str | None:
        a, b = product.args
        has_a, has_b = set(builder.types[a].axes), set(builder.types[b].axes)
        both = has_a & has_b & set(axes)
        if not both or instr.type.kind not in (Kind.REAL, Kind.COMPLEX):
            return None
        a = builder.reduce("sum", a, set(axes) - has_b, hint=a, span=instr.span)
        b = builder.reduce("sum", b, set(axes) - has_a, hint=b, span=instr.span)
        return builder.contract(a, b, both, hint=instr.name, span=instr.span)

    def _without(self, value: str, axes: tuple[str, ...], builder: Builder) -> str | None:
        """What was broadcast over axes of size one, before it was."""
        made = self.defined.get(value)
        if made is None or not isinstance(made.op, Broadcast) or not {*axes} <= {*made.op.axes}:
            return None
        return builder.broadcast(made.args[0], set(made.op.axes) - {*axes}, hint=value)

    def _product_of_one(self, instr: Instr, axes: tuple[str, ...], builder: Builder) -> str | None:
        bare = [self._without(arg, axes, builder) for arg in instr.args]
        if bare == [None, None]:
            return None
        a, b = (bared or builder.reduce("sum", arg, axes) for arg, bared in zip(instr.args, bare, strict=True))
        return builder.map("mul", a, b, hint=instr.name, span=instr.span)

    def _map_of_broadcast(self, instr: Instr, builder: Builder) -> str | None:
        args = list(instr.args)
        for i, arg in enumerate(args):
            inner = self.defined.get(arg)
            if inner and isinstance(inner.op, Broadcast):
                bare = [*args[:i], inner.args[0], *args[i + 1 :]]
                if builder.infer(instr.op, bare).axes == instr.type.axes:
                    args = bare
        if tuple(args) == instr.args:
            return None
        return builder.add(instr.op, *args, hint=instr.name, span=instr.span)


def _key(op: Op) -> Op:
    """Constants of different type compare equal in Python (1 == 1.0 == True); here they must not."""
    return replace(op, value=f"{type(op.value).__name__} {op.value!r}") if isinstance(op, Const) else op  # type: ignore[arg-type]


def _inverse(pairs: tuple[tuple[str, str], ...]) -> frozenset[tuple[str, str]]:
    return frozenset((new, old) for old, new in pairs)


def simplify(level: Level) -> Pass:
    """The pass at one level: what it does is the same at every level with a single region."""
    return Pass(
        "simplify",
        level,
        level,
        "Rewrites instructions into fewer and simpler ones with the same values.",
        run,
    )
