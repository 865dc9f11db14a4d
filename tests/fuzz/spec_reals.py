"""Texts of specs over the reals."""

from __future__ import annotations

from collections.abc import Iterable

from fuzz.spec_texts import Maker, Text
from hypothesis import strategies as st

RULES = {
    "zoh": 0, "bilinear": 0, "gbt": 1, "euler": 0, "backward_euler": 0, "mamba": 0, "dirac": 0, "exp_trapezoid": 1,
    "async": 1,
}  # fmt: skip
SMOOTH = ("tanh", "sigmoid", "softplus", "silu", "gelu", "relu", "sin", "cos", "logsigmoid", "stop", "sq", "half")
ORDER = ("h", "i", "j", "m", "w", "p")
NUMBERS = ("0", "1", "0.5", "-2", "2", "0.25")


class Real(Maker):
    """Specs over the reals."""

    MANNERS = (
        "diagonal", "diagonal", "write first", "sum", "number", "input", "nothing", "itself", "nonlinear", "matrix",
        "delta", "ode", "dense ode", "extremum", "reset", "swap", "twice", "loop", "local", "constant", "number itself",
    )  # fmt: skip

    def tensors(self) -> None:
        draw = self.draw
        self.complex = self.chance(3)
        if not self.chance(3):
            self.declare("input", "x", "hij")  # so that every size is known
        for role, most in (("input", 3), ("param", 2)):
            least = 1 if role == "input" else 0
            if role == "input" and self.chance(40):
                least = most = 0
            for n in range(draw(st.integers(least, most))):
                kind = self.one_of("real", "real", "real", "int", "bool", *(("complex",) * 2 if self.complex else ()))
                kind = "real" if n == 0 else kind
                self.declare(role, f"{role[0]}{n}", self.some_axes(), kind)
        for n in range(draw(st.integers(0, 3))):
            kind = self.one_of("real", *("complex",) * self.complex, *(("int", "bool") if self.chance(4) else ()))
            axes = self.some_axes()
            self.declare("state", f"s{n}", axes, kind, self.init(axes, kind))

    def init(self, axes: frozenset[str], kind: str) -> str:
        if kind == "bool":
            return ""
        if kind == "int":
            return self.one_of("", " = 1")
        params = [self.known[n] for n in self.names("param")]
        fitting = [p.text for p in params if p.axes == axes and p.kind in (kind, "real")]
        return self.one_of("", "", " = 0.5", " = -1", *(f" = {n}" for n in fitting))

    def statements(self) -> None:
        if self.chance(4):
            self.functions.append(f"def f(x, y) = {self.one_of('tanh(x) * y + 1', 'x', '1')}")
        locals_ = [f"y{n}" for n in range(self.draw(st.integers(0, 3)))]
        for name in self.draw(st.permutations([*self.names("state"), *locals_])) or ["y0"]:
            if name in self.known and self.roles[name] == "state":
                self.change(name)
            elif self.chance(4):
                self.local(name, self.leaf())
            else:
                self.local(name, self.expr(3))

    # --- states ---

    def change(self, name: str) -> None:
        state = self.known[name]
        if state.kind in ("int", "bool"):
            self.discrete(name, state)
            return
        manner = self.one_of(*self.MANNERS)
        write = self.within(state, self.expr(2))
        decay = self.within(Text("", state.axes), self.expr(1))
        gate = f"sigmoid({decay.text})"
        if state.kind == "complex" and self.chance(2):
            gate = f"polar({gate}, {self.within(Text('', state.axes), self.expr(1)).text})"
        exact = [n for n, v in self.known.items() if v == Text(n, state.axes, state.kind) and n != name]
        bounded = self.bounded(write)
        match manner:
            case "diagonal":
                body = f"{gate} * {name} + {bounded}"
            case "write first":
                body = f"{gate} * ({name} + {bounded})"
            case "sum":
                body = f"{name} + {bounded}"
            case "number":
                body = f"{self.one_of('0.5', '-0.5', '0', '1')} * {name} {self.one_of('+', '-')} {bounded}"
            case "input" | "local" if exact:
                body = self.one_of(*exact)
            case "nothing":
                return
            case "itself":
                body = name
            case "number itself":
                body = f"0.5 * {name}"
            case "constant" if not state.axes:
                body = self.one_of(*NUMBERS)
            case "nonlinear" if state.kind == "real":
                body = f"tanh({name} + {bounded})"
            case "matrix" if "i" in state.axes:
                self.matrix()
                body = f"0.5 * ({self.one_of(f'A @ {name}', f'{name} @ A')}) + {bounded}"
            case "delta" if "i" in state.axes and state.kind == "real":
                key = self.key()
                rest = self.within(Text("", state.axes - {"i"}), write)
                self.lines.append(f"{name} = {name} + sigmoid({rest.text}) * {key} * ({rest.text} - {key} · {name})")
                return
            case "ode":
                rule = self.one_of(*RULES)
                settings = [f"sigmoid({decay.text})", "0.5"][: 1 + RULES[rule]]
                body = f"-softplus({decay.text}) * {name} + {bounded}"
                self.lines.append(f"d/dt {name} = {body} discretize {rule}({', '.join(settings)})")
                return
            case "dense ode" if "i" in state.axes:
                self.matrix()
                rule, step = self.one_of(*RULES), self.one_of("0.5", f"sigmoid({decay.text})")
                coupled = self.one_of(f"A @ {name}", f"{name} @ A", f"sum[i]({name}) * 0.2", f"A @ ({gate} * {name})")
                body = f"{self.one_of('', f'-{gate} * {name} + ', f'-{name} - ')}0.5 * ({coupled}) + {bounded}"
                self.lines.append(
                    f"d/dt {name} = {body} discretize {rule}({', '.join([step, '0.5'][: 1 + RULES[rule]])})"
                )
                return
            case "extremum" if state.kind == "real":
                body = f"{self.one_of('max', 'min')}({name}, {bounded})"
            case "reset" if self.conditions(state.axes):
                body = f"where({self.condition(state.axes)}, {self.one_of('0', bounded)}, {gate} * {name} + {bounded})"
            case "swap" if exact and any(self.roles[n] == "state" for n in exact):
                other = self.one_of(*(n for n in exact if self.roles[n] == "state"))
                held = f"held{len(self.lines)}"
                self.local(held, state)
                self.lines += [f"{name} = {other}", f"{other} = {held}"]
                return
            case "twice":
                self.lines.append(f"{name} = 0.5 * {name}")
                self.local(f"between{len(self.lines)}", state)
                body = f"{name} + {bounded}"
            case "loop" if "p" not in state.axes:
                self.loop(name, state)
                return
            case _:
                body = f"{gate} * {name} + {bounded}"
        self.lines.append(f"{name} = {body}")

    def discrete(self, name: str, state: Text) -> None:
        condition = self.condition(state.axes)
        if state.kind == "bool":
            # A comparison of scalars and a tile are no bool together in Triton's interpreter; on the chip they are.
            both = [f"{name} + {condition}", f"{condition} * {name}"] if condition in self.known else []
            body = self.one_of(*both, f"where({condition}, {name}, {condition})", name)
        else:
            reset = f"where({condition}, 0, {name}) + 1"
            body = self.one_of(reset, f"{name} + 1", f"where({condition}, {name}, 2)")
        self.lines.append(f"{name} = {body}")

    def loop(self, name: str, state: Text) -> None:
        turn = f"v{len(self.lines)}"
        axes = state.axes & {"i"} if self.chance(2) else frozenset[str]()
        self.declare("input", turn, axes | {"p"})
        held = f"u{len(self.lines)}"
        body = self.one_of(
            f"{held} = tanh({turn}) * 2\n    {name} = sigmoid({turn}) * {name} + {held}",
            f"{name} = 0.5 * {name} + {turn}",
            f"{name} = {name}",
        )
        self.lines.append(f"for p {{\n    {body}\n}}")

    def bounded(self, write: Text) -> str:
        if write.kind == "complex":
            return f"complex(tanh(real({write.text})), tanh(imag({write.text})))"
        return write.text if write.text in self.names("input", "param") else f"tanh({write.text})"

    def within(self, state: Text, value: Text) -> Text:
        """The value with its axes and kind brought within those of a state."""
        extra = sorted(value.axes - state.axes)
        text, kind = value.text, value.kind
        if kind == "complex" and state.kind != "complex":
            text, kind = f"{self.one_of('real', 'imag', 'abs')}({text})", "real"
        if extra:
            text = f"sum[{', '.join(extra)}]({text})"
        return Text(text, value.axes & state.axes, kind)

    # --- expressions ---

    def matrix(self) -> None:
        if "A" not in self.roles:
            self.roles["A"] = "matrix"
            self.declared.append("param A[i, i]")

    def key(self) -> str:
        if "key" not in self.known:
            self.declare("input", "key", "i")
        return "tanh(key) * 0.5"

    def leaf(self) -> Text:
        names = [n for n in self.known if n != "key"]
        if self.chance(8):
            return Text(self.one_of(*NUMBERS, "size(i)"), frozenset())
        if not names:
            return Text("0.5", frozenset())
        return self.known[self.one_of(*names)]

    def numeric(self, value: Text) -> Text:
        """Not bool or int: a number times it."""
        return Text(f"(0.5 * {value.text})", value.axes) if value.kind in ("bool", "int") else value

    def conditions(self, axes: frozenset[str]) -> list[str]:
        given = [n for n in self.names("input", "param") if self.known[n].axes <= axes]
        return [n for n in given if self.known[n].kind != "complex"]

    def condition(self, axes: frozenset[str]) -> str:
        found = self.conditions(axes)
        if not found:
            return "(size(i) > 1)"
        name = self.one_of(*found)
        if self.known[name].kind == "bool":
            return name
        if self.known[name].kind == "int":
            return f"({name} {self.one_of('==', '!=', '<', '>=')} {self.one_of('1', '2')})"
        others = [n for n in found if self.known[n].kind == "real"]
        return f"({name} {self.one_of('<', '<=', '>', '>=')} {self.one_of('0', '0.25', *others)})"

    def axes_of(self, names: Iterable[str]) -> frozenset[str]:
        return frozenset(axis for name in names if name in self.known for axis in self.known[name].axes)

    def expr(self, depth: int) -> Text:
        value = self.numeric(self.leaf())
        for _ in range(self.draw(st.integers(0, depth))):
            value = self.grow(value)
        if len(value.axes) > 3:
            extra = sorted(value.axes)[3:]
            value = Text(f"sum[{', '.join(extra)}]({value.text})", value.axes - set(extra), value.kind)
        return value

    def grow(self, a: Text) -> Text:
        other = self.numeric(self.leaf())
        summable = sorted((a.axes & other.axes) - {"h"})
        kind = "complex" if "complex" in (a.kind, other.kind) else "real"
        both = a.axes | other.axes
        choices = ["binary", "binary", "unary", "unary", "where", "past", "call"]
        choices += ["contract"] * 2 * bool(summable) + ["reduce"] * bool(a.axes) + ["softmax"] * bool(a.axes - {"h"})
        choices += ["rename"] * ("i" in a.axes and "m" not in a.axes) + ["back"] * ("m" in a.axes and "i" not in a.axes)
        choices += ["matrix"] * ("i" in a.axes) + ["complex"] * (self.complex and a.kind == "real")
        match self.one_of(*choices):
            case "binary":
                op = self.one_of("+", "-", "*", "/", "max", "min")
                if op == "/":
                    below = self.within(Text("", frozenset(ORDER)), other).text
                    return Text(f"({a.text} / (1 + {below} ^ 2))", both, a.kind)
                if op in ("max", "min") and kind == "real":
                    return Text(f"{op}({a.text}, {other.text})", both)
                op = "-" if op in ("max", "min") else op
                return Text(f"({a.text} {op} {other.text})", both, kind)
            case "unary" if a.kind == "complex":
                fn = self.one_of("real", "imag", "conj", "abs", "-")
                return Text(f"{fn}({a.text})", a.axes, "complex" if fn in ("conj", "-") else "real")
            case "unary":
                fn = self.one_of(*SMOOTH, "abs", "sign", "-", "clamp", "sqrt", "log", "exp")
                spelled = {
                    "sq": f"({a.text})^2", "half": f"0.5 * ({a.text})", "clamp": f"clamp({a.text}, -1, 0.7)",
                    "sqrt": f"sqrt(1 + ({a.text})^2)", "log": f"log1p(({a.text})^2)", "exp": f"exp(tanh({a.text}))",
                }  # fmt: skip
                return Text(f"({spelled.get(fn, f'{fn}({a.text})')})", a.axes)
            case "where":
                condition = self.condition(frozenset(ORDER))
                axes = self.axes_of(condition.strip("()").split())
                return Text(f"where({condition}, {a.text}, {other.text})", both | axes, kind)
            case "contract":
                if self.chance(2):
                    axis = self.one_of(*summable)
                    return Text(f"({a.text} ·[{axis}] {other.text})", both - {axis}, kind)
                return Text(f"({a.text} · {other.text})", both - set(summable), kind)
            case "reduce":
                axes = self.draw(st.sets(st.sampled_from(sorted(a.axes)), min_size=1))
                fn = self.one_of("sum", "mean") if a.kind == "complex" else self.one_of(
                    "sum", "mean", "max", "min", "logsumexp", "norm"
                )  # fmt: skip
                return Text(f"{fn}[{', '.join(sorted(axes))}]({a.text})", a.axes - axes, a.kind)
            case "softmax" if a.kind == "real":
                return Text(f"softmax[{self.one_of(*sorted(a.axes - {'h'}))}]({a.text})", a.axes)
            case "rename":
                return Text(f"rename[i=m]({a.text})", a.axes - {"i"} | {"m"}, a.kind)
            case "back":
                return Text(f"rename[m=i]({a.text})", a.axes - {"m"} | {"i"}, a.kind)
            case "matrix":
                self.matrix()
                return Text(self.one_of(f"(A @ {a.text})", f"({a.text} @ A)"), a.axes, a.kind)
            case "complex":
                return Text(f"complex({a.text}, {a.text} * 0.5)", a.axes, "complex")
            case "past":
                sources = [n for n in self.names("input", "local") if self.known[n].kind in ("real", "complex")]
                if not sources:
                    return a
                source = self.known[self.one_of(*sources)]
                joined = "complex" if "complex" in (a.kind, source.kind) else "real"
                if self.chance(3) and "w" not in source.axes:
                    if "taps" not in self.known:
                        self.declare("param", "taps", "w")
                    return Text(f"({a.text} + conv[w]({source.text}, taps))", a.axes | source.axes, joined)
                past = f"prev({source.text}, {self.one_of('1', '2', '3')})"
                return Text(f"({a.text} - {past})", a.axes | source.axes, joined)
            case "call" if self.functions and kind == "real":
                constant, first = self.functions[0].endswith("= 1"), self.functions[0].endswith("= x")
                return Text(f"f({a.text}, {other.text})", frozenset() if constant else a.axes if first else both)
            case _:
                return Text(f"(-{a.text})", a.axes, a.kind)
