"""The grammar: precedence, separators, every construct, spans, and errors that do not hide each other."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from scanc.diagnostics.diagnostic import CompileError
from scanc.semantics.lower import lower
from scanc.syntax import ast, limits
from scanc.syntax.files import read
from scanc.syntax.greek import GREEK, spell
from scanc.syntax.parser import parse


def shown(expr: ast.Expr) -> str:
    """An expression with every bracket written."""
    match expr:
        case ast.Number(value):
            return str(value)
        case ast.Ref(name):
            return name.id
        case ast.Negative(operand):
            return f"(-{shown(operand)})"
        case ast.Binary(op, left, right):
            return f"({shown(left)} {op} {shown(right)})"
        case ast.Dot(left, right, axes):
            named = "" if axes is None else f"[{','.join(axis.id for axis in axes)}]"
            return f"({shown(left)} dot{named} {shown(right)})"
        case ast.Call(space, name, binders, args):
            head = f"{space.id}.{name.id}" if space else name.id
            if binders is not None:
                head += f"[{','.join(b.axis.id + (f'={b.to.id}' if b.to else '') for b in binders)}]"
            return f"{head}({', '.join(map(shown, args))})"


def expression(text: str) -> str:
    (item,) = parse(f"y = {text}").items
    assert isinstance(item, ast.Assign)
    return shown(item.value)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("a + b * c", "(a + (b * c))"),
        ("a * b + c", "((a * b) + c)"),
        ("a - b - c", "((a - b) - c)"),
        ("a / b / c", "((a / b) / c)"),
        ("a / b * c", "((a / b) * c)"),
        ("x * q·S", "(x * (q dot S))"),
        ("q · S * x", "((q dot S) * x)"),
        ("a / b @ c", "(a / (b @ c))"),
        ("a · b · c", "((a dot b) dot c)"),
        ("A @ B @ h", "((A @ B) @ h)"),
        ("A @ h · C", "((A @ h) dot C)"),
        ("-a · b", "((-a) dot b)"),
        ("q · -k", "(q dot (-k))"),
        ("-a * b", "((-a) * b)"),
        ("-x ^ 2", "(-(x ^ 2))"),
        ("x ^ -2", "(x ^ (-2))"),
        ("a ^ b ^ c", "(a ^ (b ^ c))"),
        ("x ^ -y ^ z", "(x ^ (-(y ^ z)))"),
        ("--a", "(-(-a))"),
        ("a - -b", "(a - (-b))"),
        ("a + b < c * d", "((a + b) < (c * d))"),
        ("(a + b) * c", "((a + b) * c)"),
        ("((a))", "a"),
        ("C ·[n] h", "(C dot[n] h)"),
        ("C dot[n,m] h", "(C dot[n,m] h)"),
        ("q dot S", "(q dot S)"),
        ("q ⋅ S", "(q dot S)"),
        ("a ≤ b", "(a <= b)"),
        ("a ≥ b", "(a >= b)"),
        ("a ≠ b", "(a != b)"),
        ("a == b", "(a == b)"),
        ("f(x)", "f(x)"),
        ("f()", "f()"),
        ("f[i](x, y)", "f[i](x, y)"),
        ("rename[i=m, m=i](k)", "rename[i=m,m=i](k)"),
        ("norms.l2[j](v) + 1", "(norms.l2[j](v) + 1)"),
        ("1 + .5 + 2. + 1e-6 + 1.5E+3", "((((1 + 0.5) + 2.0) + 1e-06) + 1500.0)"),
        ("d / dt", "(d / dt)"),
    ],
)
def test_precedence(text: str, meaning: str) -> None:
    assert expression(text) == meaning


def test_random_expressions_print_and_parse_back() -> None:
    """An expression printed with every bracket parses to itself."""
    rng = random.Random(0)

    def make(depth: int) -> str:
        if depth == 0:
            return rng.choice(["a", "b", "λ", "2", "0.5"])
        kind = rng.randrange(4)
        if kind == 0:
            return f"-{make(depth - 1)}"
        if kind == 1:
            return f"f[i]({make(depth - 1)}, {make(depth - 1)})"
        op = rng.choice(["+", "-", "*", "/", "^", "@", "·", "dot[i]", "dot"])
        left, right = make(depth - 1), make(depth - 1)
        return f"({left}) {op} {right}" if kind == 2 else f"{left} {op} ({right})"

    for _ in range(300):
        once = expression(make(rng.randrange(5)))
        assert expression(once) == once


def test_separators_comments_and_brackets() -> None:
    plain = parse("a = 1\nb = (c + d)\n").items
    assert parse("\n\n# comment\na = 1;; b = (c # inside\n + \r\n d)  # end\n\n;").items == plain
    assert parse("\ufeffa = 1; b = (c + d)").items == plain
    assert parse("").items == ()
    assert parse("# nothing\n").items == ()


def test_statements() -> None:
    ode, loop = parse("d / dt h = A*h + x  discretize gbt(step, 0.5)\nfor p {\n\n u = k; S = u\n for q { }\n}").items
    assert isinstance(ode, ast.Ode)
    assert (ode.state.id, ode.rule.id, [shown(e) for e in ode.settings]) == ("h", "gbt", ["step", "0.5"])
    assert isinstance(loop, ast.For)
    assert [type(s) for s in loop.body] == [ast.Assign, ast.Assign, ast.For]


def test_declarations() -> None:
    text = (
        "scan m over log\naxes i, w = 4, m = i; batch h\ninput q[g*r, i]: fp32, B(x, z)[n], s\n"
        'param A[n,n]: complex\nstate c[d] = -c0\noutput o[h], y\ndef l2(x[i], y) = x*y\nimport "a/b.scan" as ab'
    )
    scan, axes, batch, inputs, params, states, outputs, define, bring = parse(text).items
    assert isinstance(scan, ast.Scan)
    assert scan.semiring is not None
    assert (scan.name.id, scan.semiring.id) == ("m", "log")
    assert isinstance(axes, ast.Axes)
    assert isinstance(batch, ast.Axes)
    assert (axes.batch, batch.batch) == (False, True)
    sizes = [axis.size for axis in axes.axes]
    assert sizes[0] is None
    assert isinstance(sizes[1], ast.Number)
    assert isinstance(sizes[2], ast.Name)
    assert isinstance(inputs, ast.Tensors)
    q, b, s = inputs.tensors
    assert q.dims is not None
    assert [[axis.id for axis in dim] for dim in q.dims] == [["g", "r"], ["i"]]
    assert q.type is not None
    assert q.type.id == "fp32"
    assert b.depends is not None
    assert [name.id for name in b.depends] == ["x", "z"]
    assert (s.dims, s.depends, s.type, s.init) == (None, None, None, None)
    assert isinstance(params, ast.Tensors)
    assert isinstance(states, ast.Tensors)
    assert isinstance(outputs, ast.Tensors)
    assert [item.role for item in (inputs, params, states, outputs)] == ["input", "param", "state", "output"]
    init = states.tensors[0].init
    assert init is not None
    assert shown(init) == "(-c0)"
    assert isinstance(define, ast.Def)
    assert [p.name.id for p in define.params] == ["x", "y"]
    assert isinstance(bring, ast.Import)
    assert (bring.path, bring.name.id) == ("a/b.scan", "ab")


def test_spans_cover_what_was_written() -> None:
    text = "scan s\ninput q[h, i]: fp32\ny = (a + b)·c\n"
    _, inputs, assign = parse(text, "s.scan").items
    assert isinstance(inputs, ast.Tensors)
    assert isinstance(assign, ast.Assign)
    span = inputs.tensors[0].span
    assert text[span.start : span.end] == "q[h, i]: fp32"
    assert (span.line, span.column, span.source) == (2, 7, "s.scan")
    value = assign.value
    assert isinstance(value, ast.Dot)
    assert text[value.span.start : value.span.end] == "(a + b)·c"
    assert text[value.left.span.start : value.left.span.end] == "(a + b)"
    assert text[value.mark.start : value.mark.end] == "·"


def test_greek_names_are_spelled_out() -> None:
    assert [spell(name) for name in ("Δ", "Δt", "λ_max", "xΔ", "αβ", "α0", "a_λ")] == [
        "Delta", "Delta_t", "lambda_max", "x_Delta", "alpha_beta", "alpha0", "a_lambda",
    ]  # fmt: skip
    for letter, name in GREEK.items():
        assert spell(letter) == name
        assert name.isascii()
    assert len(set(GREEK.values())) == len(GREEK) == 23 + 10


def test_every_wrong_statement_is_reported() -> None:
    with pytest.raises(CompileError) as caught:
        parse("a = = 1\nb = 2\nfor p {\n  c = (d e)\n  f = 1\n}\ng = 1 +\nh h\n")
    lines = [error.span.line for error in caught.value.diagnostics if error.span is not None]
    assert lines == [1, 4, 7, 8]


def test_limits() -> None:
    with pytest.raises(CompileError, match="E0901"):
        parse("#" * (limits.SOURCE_CHARS + 1))
    deep = "y = " + "f(" * (limits.NESTING - 1) + "x" + ")" * (limits.NESTING - 1)
    parse(deep)
    with pytest.raises(CompileError, match="E0902"):
        parse(deep.replace("x", "f(x)"))
    for text in ("y = " + "-" * 50_000 + "x", "y = x" + " + x" * 20_000, "y = " + "(" * 50_000):
        with pytest.raises(CompileError, match="E0902"):
            parse(text)


def test_what_concerns_the_whole_source_names_it() -> None:
    with pytest.raises(CompileError) as caught:
        lower("#" * (limits.SOURCE_CHARS + 1), source="long.scan")
    assert str(caught.value).splitlines()[1] == "  --> long.scan"


@pytest.mark.parametrize("text", [b"scan a\n# \xff\n", "scan a\n".encode("utf-16")])
def test_a_file_that_is_no_text(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.scan"
    path.write_bytes(text)
    with pytest.raises(CompileError) as caught:
        read(path)
    assert str(caught.value).splitlines() == [
        "error[E0101]: the source is no UTF-8 text; it holds the byte 0xFF",
        f"  --> {path}",
    ]


def test_no_more_of_a_file_is_read_than_a_spec_may_have() -> None:
    with pytest.raises(CompileError, match="E0901"):
        parse(read(Path("/dev/zero")))
