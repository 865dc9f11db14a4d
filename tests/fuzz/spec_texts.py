"""What spec texts are made of: expressions with their axes, and the declarations around statements."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from hypothesis import strategies as st


@dataclass(frozen=True)
class Text:
    """An expression: its text, axes and kind."""

    text: str
    axes: frozenset[str]
    kind: str = "real"


class Maker:
    """Draws the declarations of one spec; what its statements are is up to subclasses."""

    over = ""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.known: dict[str, Text] = {}
        self.lines: list[str] = []
        self.declared: list[str] = []
        self.made: list[str] = []  # what an output can be
        self.roles: dict[str, str] = {}
        self.functions: list[str] = []
        self.taps = draw(st.integers(1, 3))

    def spec(self) -> str:
        self.tensors()
        self.statements()
        outputs = ", ".join(f"{name}{self.brackets(self.known[name].axes)}" for name in self.outputs())
        text = "\n".join([*self.declared, *self.functions, *self.lines, f"output {outputs}"])
        written = {"i": "i", "j": "j", "m": "m = i", "w": f"w = {self.taps}", "p": "p = 2"}
        axes = [line for axis, line in written.items() if axis in self.used()]
        head = [f"scan fuzz{self.over}"] + (["batch h"] if "h" in self.used() else [])
        return "\n".join([*head, *([f"axes {', '.join(axes)}"] if axes else []), text, ""])

    def used(self) -> set[str]:
        found = {axis for value in self.known.values() for axis in value.axes} | {"i"}
        return found | {"m" for line in self.lines if "i=m" in line}

    def one_of(self, *choices: str) -> str:
        return self.draw(st.sampled_from(choices))

    def chance(self, one_in: int) -> bool:
        return self.draw(st.integers(1, one_in)) == 1

    def some_axes(self, among: str = "hij") -> frozenset[str]:
        return frozenset(self.draw(st.sets(st.sampled_from(among), max_size=2)))

    def brackets(self, axes: Collection[str]) -> str:
        """The axes of a declaration in any order, now and then two of them merged."""
        order = self.draw(st.permutations(sorted(axes)))
        if len(order) == 2 and self.chance(6):
            order = ["*".join(order)]
        return f"[{', '.join(order)}]" if order else ""

    def declare(self, role: str, name: str, axes: Iterable[str], kind: str = "real", init: str = "") -> None:
        self.known[name] = Text(name, frozenset(axes), kind)
        self.roles[name] = role
        type_ = f": {kind}" if kind != "real" and not (self.over and kind == "bool") else ""
        if role != "state" and kind == "real" and not self.over and self.chance(12):
            type_ = f": {self.one_of('fp32', 'fp64', 'bf16')}"
        self.declared.append(f"{role} {name}{self.brackets(axes)}{type_}{init}")

    def names(self, *roles: str) -> list[str]:
        return [name for name, role in self.roles.items() if role in roles]

    def local(self, name: str, value: Text) -> None:
        self.lines.append(f"{name} = {value.text}")
        self.known[name] = Text(name, value.axes, value.kind)
        self.roles[name] = "local"
        self.made.append(name)

    def outputs(self) -> list[str]:
        found = [name for name in (*self.made, *self.names("state")) if name in self.known]
        return self.draw(st.lists(st.sampled_from(found), min_size=1, max_size=3, unique=True))

    def tensors(self) -> None:
        raise NotImplementedError

    def statements(self) -> None:
        raise NotImplementedError
