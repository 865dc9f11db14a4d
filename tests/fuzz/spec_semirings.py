"""Texts of specs over the other semirings."""

from __future__ import annotations

from fuzz.spec_texts import Maker, Text
from hypothesis import strategies as st


class Semiring(Maker):
    """Specs over another semiring."""

    def __init__(self, draw: st.DrawFn, semiring: str) -> None:
        super().__init__(draw)
        self.over = f" over {semiring}"
        self.kind = "bool" if semiring == "bool" else "real"

    def tensors(self) -> None:
        if not self.chance(3):
            self.declare("input", "x", "hij", self.kind)
        for n in range(self.draw(st.integers(1, 3))):
            self.declare("input", f"i{n}", self.some_axes(), self.kind)
        for n in range(self.draw(st.integers(0, 2))):
            self.declare("param", f"p{n}", self.some_axes(), self.kind)
        if self.chance(2):
            self.declared.append("param A[i, i]")
            self.roles["A"] = "matrix"
        for n in range(self.draw(st.integers(1, 3))):
            axes = self.some_axes()
            fitting = [name for name in self.names("param") if self.known[name].axes == axes]
            init = self.one_of("", "", " = one", *(f" = {name}" for name in fitting))
            self.declare("state", f"s{n}", axes, self.kind, init)

    def statements(self) -> None:
        names = self.draw(st.permutations([*self.names("state"), "y0", "y1"][: self.draw(st.integers(2, 5))]))
        for name in names:
            if self.roles.get(name) != "state":
                self.local(name, self.expr(2))
                continue
            axes = self.known[name].axes
            write, decay = self.fit(self.expr(1), axes), self.fit(self.expr(1), axes)
            bodies = [f"{decay} * {name} + {write}", f"{name} + {write}", f"{decay} * {name}", name]
            bodies += [f"{decay} * ({name} + {write})"]
            if "A" in self.roles and "i" in axes:
                bodies += [f"({name} @ A) * {decay} + {write}", f"A @ {name}"]
            bodies += [n for n, v in self.known.items() if v.axes == axes and n != name]
            if self.chance(8):
                continue
            self.lines.append(f"{name} = {self.one_of(*bodies)}")
        if not self.names("state", "local"):
            self.local("y", self.expr(2))

    def fit(self, value: Text, axes: frozenset[str]) -> str:
        extra = sorted(value.axes - axes)
        return f"sum[{', '.join(extra)}]({value.text})" if extra else value.text

    def leaf(self) -> Text:
        if self.chance(10):
            return Text(self.one_of("zero", "one"), frozenset())
        return self.known[self.one_of(*self.known)]

    def expr(self, depth: int) -> Text:
        value = self.leaf()
        for _ in range(self.draw(st.integers(0, depth))):
            value = self.grow(value)
        return value

    def grow(self, a: Text) -> Text:
        other = self.leaf()
        both = a.axes | other.axes
        summable = sorted((a.axes & other.axes) - {"h"})
        choices = ["add", "mul", "value", "prev"] + ["contract"] * 2 * bool(summable) + ["sum"] * bool(a.axes)
        choices += ["matrix"] * ("i" in a.axes and "A" in self.roles)
        choices += ["rename"] * ("i" in a.axes and "m" not in a.axes)
        match self.one_of(*choices):
            case "mul":
                return Text(f"({a.text} * {other.text})", both)
            case "contract":
                return Text(f"({a.text} · {other.text})", both - set(summable))
            case "sum":
                axes = self.draw(st.sets(st.sampled_from(sorted(a.axes)), min_size=1))
                return Text(f"sum[{', '.join(sorted(axes))}]({a.text})", a.axes - axes)
            case "value":
                return Text(f"value({a.text})" if self.kind == "bool" else f"value(tanh({a.text}))", a.axes)
            case "matrix":
                return Text(f"({a.text} @ A)", a.axes)
            case "rename":
                return Text(f"rename[i=m]({a.text})", a.axes - {"i"} | {"m"})
            case "prev" if self.names("input"):
                source = self.known[self.one_of(*self.names("input"))]
                return Text(f"({a.text} + prev({source.text}, 2))", a.axes | source.axes)
            case _:
                return Text(f"({a.text} + {other.text})", both)
