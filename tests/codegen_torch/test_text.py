"""Names, lines and expressions of generated code."""

import ast
import math

import pytest

from scanc.codegen.expressions import ARITHMETIC, Call, Expr, Level, number, spell
from scanc.codegen.names import Names
from scanc.codegen.writer import Writer, fold


def test_names_are_legal_unique_and_stable() -> None:
    names = Names(["call"])
    asked = ["d.h", "d_h", "prev.x.0", "lambda", "torch", "tl", "len", "call", "step", "2x", "h"]
    given = [names.of(name) for name in asked]
    assert given == ["d_h", "d_h_2", "prev_x_0", "lambda_", "torch_", "tl_", "len_", "call_2", "step_", "v2x", "h"]
    assert [names.of(name) for name in asked] == given
    assert names.fresh("h") == "h_2"
    assert names.fresh("torch") == "torch_2"


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "1.0"), (-0.5, "-0.5"), (True, "True"), (3, "3"), (-0.0, "-0.0"), (1j, "(1j)"), (1 - 2j, "(1-2j)")],
)
def test_numbers(value: complex, text: str) -> None:
    assert number(value).text == text
    assert eval(text) == value


def test_numbers_without_a_literal() -> None:
    assert number(-math.inf, "math.inf") == Expr("-math.inf", Level.UNARY)
    assert number(math.nan, nan="math.nan").text == "math.nan"
    assert number(complex(0, math.inf), "inf").text == "complex(0.0, inf)"


def test_parentheses_stand_where_they_must() -> None:
    a, b, c = Expr("a"), Expr("b"), Expr("c")

    def f(name: str, *args: Expr) -> Expr:
        return spell(ARITHMETIC[name], args)

    assert f("mul", f("add", a, b), c).text == "(a + b) * c"
    assert f("add", f("mul", a, b), c).text == "a * b + c"
    assert f("sub", a, f("sub", b, c)).text == "a - (b - c)"
    assert f("sub", f("sub", a, b), c).text == "a - b - c"
    assert f("div", a, f("mul", b, c)).text == "a / (b * c)"
    assert f("mul", a, f("neg", b)).text == "a * -b"
    assert f("neg", f("add", a, b)).text == "-(a + b)"
    assert f("neg", f("neg", a)).text == "-(-a)"
    assert f("neg", f("mul", a, b)).text == "-a * b"
    assert f("add", a, f("neg", b)).text == "a - b"
    assert f("add", a, f("neg", f("add", b, c))).text == "a - (b + c)"
    assert f("and", f("lt", a, b), f("not", c)).text == "(a < b) & ~c"
    assert f("lt", f("lt", a, b), c).text == "(a < b) < c"
    assert Call("torch.exp")(f("add", a, b)).text == "torch.exp(a + b)"


LONG = [
    "x = torch.where(condition_number_one, alpha_alpha + beta_beta * gamma_gamma, delta_delta)",
    "x = alpha_alpha_alpha * beta_beta_beta + gamma_gamma_gamma * delta_delta_delta - epsilon_epsilon",
    "return (alpha_alpha_alpha, beta_beta_beta, gamma_gamma_gamma), (delta_delta_delta, epsilon_epsilon)",
    'x = torch.einsum("aaaaaa, bbbbbb -> cccccc", alpha_alpha_alpha, beta_beta_beta[..., None, None])',
    "FORWARD = {'recurrent': SEGMENTS.forward(SEQUENTIAL), 'chunked': SEGMENTS.forward(CHUNKED)}",
    "x = (alpha_alpha_alpha == beta_beta_beta) & (gamma_gamma_gamma != delta_delta_delta) | epsilon_epsilon",
]


@pytest.mark.parametrize("text", LONG)
def test_folded_lines_mean_the_same(text: str) -> None:
    lines = fold(text, 60)
    assert len(lines) > 1
    assert max(map(len, lines)) <= 60
    wrap = "def f():\n {}".format
    folded = "\n".join(lines).replace("\n", "\n ")
    assert ast.dump(ast.parse(wrap(folded))) == ast.dump(ast.parse(wrap(text)))


def test_long_loop_headers() -> None:
    names = ", ".join(f"value_number_{i}" for i in range(9))
    header = f"for ({names}) in steps(call.reverse, {names}):"
    lines = fold(header, 60)
    assert max(map(len, lines)) <= 60
    assert ast.dump(ast.parse("\n".join([*lines, "    x"]))) == ast.dump(ast.parse(f"{header}\n    x"))


def test_blocks_comments_and_docstrings() -> None:
    writer = Writer(40)
    with writer.block("def f(x):"):
        writer.docstring('Doubles """ x.')
        writer.line("y = x + x", "[B, d]")
        writer.line("return y + a_rather_long_name", "[B, d]")
    writer.comment("a\x00b\tc")
    assert writer.text() == (
        "def f(x):\n"
        '    """Doubles \'\'\' x."""\n'
        "    y = x + x  # [B, d]\n"
        "    # [B, d]\n"
        "    return y + a_rather_long_name\n"
        "# a b c\n"
    )
