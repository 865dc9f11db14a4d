"""The user's text never becomes code; limits have clear errors; imports stay below their directory."""

from __future__ import annotations

import builtins
import keyword
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import triton.language
from language.support import agree, operator, refused

import scanc
from scanc.codegen.safety import check_source
from scanc.diagnostics.diagnostic import CompileError
from scanc.syntax.lexer import KEYWORDS

D = torch.float64
LANGUAGE = set(KEYWORDS)
PYTHON = sorted({*keyword.kwlist, *keyword.softkwlist, *dir(builtins)} - LANGUAGE)
MODULE = """
    torch triton tl math functools scanc scanc_runtime self operator step saved Spec AxisSpec TensorSpec StateSpec
    Operator SPEC FORWARD BACKWARD SEGMENTS Segments functions segment adjoint trace elements constants
    adjoint_constants call inputs params states outputs carry solver afters befores delayed gather last steps
    forward backward reverse save time sizes form grad_outputs grad_final kernel pid program_id B T b t i n
    x_ptr stride mask offsets CHUNKED SEQUENTIAL PARALLEL REAL LOG MAXPLUS __name__ __builtins__ __class__ _ __ ___
    d_h d_x dy_y h_2 t_2 c_2 c zero terms prev_x ode_h x_0 x_1 exp_x to_real_x size_d d_col n_mid
"""


@pytest.mark.parametrize("names", [PYTHON, sorted(MODULE.split())], ids=["python", "module"])
def test_names_of_the_host_languages_are_names_like_any_other(names: list[str]) -> None:
    """Each as an input, a param, a state, a local, an output and an axis at once, forty to a spec."""
    for start in range(0, len(names), 40):
        part = [name for name in names[start : start + 40] if name not in ("inf",)]
        _all_roles(part)


def _all_roles(names: list[str]) -> None:
    n = len(names)
    xs = {name: torch.randn(1, 3, dtype=D) for name in names}
    total = sum(xs.values())
    as_input = operator(f"input {', '.join(names)}\nresult = {' + '.join(names)}\noutput result")
    as_param = operator(f"input x9\nparam {', '.join(names)}\nresult = x9 * ({' + '.join(names)})\noutput result")
    lines = "\n".join(f"{name} = 0.5*{name} + x9" for name in names)
    as_state = operator(f"input x9\nstate {', '.join(names)}\n{lines}\noutput {', '.join(names)}")
    lines = "\n".join(f"{name} = {k + 1} * x9" for k, name in enumerate(names))
    as_local = operator(f"input x9\n{lines}\noutput {', '.join(names)}")
    for op in (as_input, as_param, as_state, as_local):
        check_source(op.code("torch"))
    x9, params = torch.randn(1, 3, dtype=D), [torch.randn((), dtype=D) for _ in names]
    h, states = torch.zeros(1, dtype=D), []
    for t in range(3):
        h = 0.5 * h + x9[:, t]
        states.append(h)
    for form in as_input.forms:
        torch.testing.assert_close(as_input(*xs.values(), form=form), total)
    for form in as_param.forms:
        torch.testing.assert_close(as_param(x9, *params, form=form), x9 * sum(params))
    for form in as_state.forms:
        leaf = x9.clone().requires_grad_()
        outs, final = as_state(leaf, return_state=True, form=form)
        assert list(final) == names
        for out in outs:
            torch.testing.assert_close(out, torch.stack(states, 1))
        (grad,) = torch.autograd.grad(sum(out.sum() for out in outs), leaf)
        torch.testing.assert_close(grad, n * torch.tensor([[1.75, 1.5, 1.0]], dtype=D))
    for form in as_local.forms:
        for k, out in enumerate(as_local(x9, form=form)):
            torch.testing.assert_close(out, (k + 1) * x9)
    _, state = as_state.step(x9[:, 0])
    assert list(state) == names


KERNEL = {name for name in dir(triton.language) if not name.startswith("__")}


@pytest.mark.parametrize("host", [{*PYTHON}, {*MODULE.split(), *KERNEL} - {*PYTHON}], ids=["python", "kernel"])
def test_names_in_kernels(host: set[str]) -> None:
    """What Triton modules would run is on the allow-list, whatever tensors, states, locals and axes are called."""
    names = sorted(host - LANGUAGE - {"inf", "x9"})
    for start in range(0, len(names), 24):
        part = names[start : start + 24]
        a, b, c, d = (part * 4)[:4] if len(part) > 3 else ("i", "j", "k", "l")
        listed, first = ", ".join(part), ", ".join(dict.fromkeys((a, b, c, d)))
        states = "\n".join(f"{name} = 0.5*{name} + x9" for name in part)
        locals_ = "\n".join(f"{name} = {k} * tanh(x9)" for k, name in enumerate(part))
        for text in (
            f"input x9\nstate {listed}\n{states}\noutput {listed}",
            f"input x9\n{locals_}\noutput {listed}",
            f"axes {first}\ninput x9[{a}], y9[{a},{b}], z9[{b},{c},{d}]\nu9 = x9*z9\nv9 = y9 · x9\n"
            f"output u9[{a},{b},{c},{d}], v9[{b}]",
        ):
            check_source(scanc.compile(f"scan spec\n{text}", target="triton").code("triton"))


@pytest.mark.parametrize(
    "name", ["lambda", "torch", "tl", "None", "__class__", "operator", "step", "print", "x", "B", "functions"]
)
def test_a_scan_and_an_axis_and_a_state_of_any_name(name: str) -> None:
    agree(
        f"scan {name}\naxes {name}\ninput x[{name}]\nparam a[{name},{name}]\nstate {name}_[{name}]\n"
        f"{name}_ = a @ {name}_ + x\noutput {name}_[{name}]"
        if name != "x"
        else "scan x\naxes x\ninput x[x]\nstate x_[x]\nx_ = 0.5*x_ + x\noutput x_[x]",
        (lambda v: {f"{name}_": v[f"{name}_"] @ v.a.T + v.x}) if name != "x" else (lambda v: {"x_": 0.5 * v.x_ + v.x}),
        {name: 2},
    )


@pytest.mark.parametrize("name", ["lambda", "torch", "print", "__class__", "operator"])
def test_functions_and_imports_of_any_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "lib.scan").write_text(f"def {name}({name}) = {name} * 2\n")
    (tmp_path / "main.scan").write_text(
        f'scan main\nimport "lib.scan" as {name}\ninput x\ndef {name}({name}) = {name} + 1\n'
        f"y = {name}.{name}({name}(x))\noutput y"
    )
    op = scanc.load(tmp_path / "main.scan", target="torch")
    x = torch.randn(1, 2, dtype=D)
    for form in op.forms:
        torch.testing.assert_close(op(x, form=form), (x + 1) * 2)


@pytest.mark.parametrize("name", sorted(LANGUAGE))
def test_keywords_of_the_language_are_no_names(name: str) -> None:
    assert "error" in refused(f"input {name}\ny = 1\noutput y")


@pytest.mark.parametrize(
    "name", ["x.y", "__class__.x", "x[0]", "x-y", "0x", "x'y", '"x"', "x y", "x\\y", "$x", "@x", "`x`"]
)
def test_what_is_no_name_is_no_name(name: str) -> None:
    assert "error" in refused(f"input {name}, z\ny = z\noutput y")


# --- hostile text ---

HOSTILE = [
    '"""', "'''", '"""\nimport os\n"""'.replace("\n", "\x0b"), "\\", "\\\\", "\\n import os", "\x00",
    "\x1b[31m", "\x0c",
    "\x0b", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\r", "\x7f", "\u202e", "\ufeff", "\ud7ff", "{}{0}%s%n",
    "# -*- coding: utf-7 -*-", "-*- coding: latin-1 -*-", "\N{FULLWIDTH LATIN SMALL LETTER X}", "🙂", "\u200b",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=[ascii(text) for text in HOSTILE])
def test_comments_never_reach_code(text: str) -> None:
    """What follows a line separator of Python or Unicode inside a comment would be a statement, were it one."""
    spec = (
        f"scan spec # {text}raise SystemExit('out')\n# {text}import os{text}\ninput x # {text}\n"
        f"y = 2*x # {text}x = (\noutput y"
    )
    op = scanc.compile(spec, target="torch")
    code = op.code("torch")
    check_source(code)
    x = torch.randn(1, 2)
    for form in op.forms:
        torch.testing.assert_close(op(x, form=form), 2 * x)
    for char in code:
        assert char == "\n" or char.isprintable() or char == " ", repr(char)
    for line in code.splitlines():
        if "SystemExit" in line or "import os" in line or "x = (" in line:
            assert line.lstrip().startswith("#") or " # " in line, line


def test_lone_surrogates_in_a_comment() -> None:
    text = "scan spec\ninput x # \ud800\ny = 2*x\noutput y"
    try:
        op = scanc.compile(text, target="torch")
    except CompileError:
        return
    assert op(torch.ones(1, 1)).item() == 2


@pytest.mark.parametrize("text", HOSTILE, ids=[ascii(text) for text in HOSTILE])
@pytest.mark.parametrize(
    "place", ["input x{}\ny = x\noutput y", "input x\ny = x{}\noutput y", "input x\ny = x {} + 1\noutput y"]
)
def test_hostile_characters_outside_comments_are_errors_or_blanks(text: str, place: str) -> None:
    try:
        op = scanc.compile("scan spec\n" + place.format(text), target="torch")
    except CompileError as error:
        message = str(error)
        assert message.startswith("error[E")
        assert "\x1b" not in message
        assert "\u202e" not in message
    else:
        assert text in ("\r", "# -*- coding: utf-7 -*-", "\ufeff") or not text.strip(), ascii(text)
        assert op(torch.ones(1, 1)).item() in (1, 2)


@pytest.mark.parametrize("text", HOSTILE, ids=[ascii(text) for text in HOSTILE])
def test_hostile_strings_are_no_paths(text: str, tmp_path: Path) -> None:
    file = tmp_path / "spec.scan"
    body = f'scan spec\nimport "{text}.scan" as m\ninput x\ny = m.f(x)\noutput y'
    file.write_bytes(body.encode("utf-8", "surrogatepass"))
    with pytest.raises(CompileError) as caught:
        scanc.load(file, target="torch")
    assert "\x1b" not in str(caught.value)


def test_a_generated_module_runs_no_line_of_its_spec(tmp_path: Path) -> None:
    """Read by Python itself, with an encoding declaration among the comments."""
    spec = "# -*- coding: utf-7 -*-\nscan spec\n# +AAo-import os, sys; sys.exit(3)\ninput x\ny = 2*x\noutput y"
    file = tmp_path / "module.py"
    file.write_text(scanc.compile(spec, target="torch").code("torch"), encoding="utf-8")
    run = [sys.executable, "-c", "import module; print('alive')"]
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(scanc.__file__).parents[1] / 'runtime'}"}
    done = subprocess.run(run, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "alive", done.stderr


# --- numbers ---


@pytest.mark.parametrize(
    "number",
    ["1" * 40, "9" * 41, "1e400", "1e-400", "0" * 39 + "1", "9007199254740993", "1_000", "0x10", "1e", "1e+", "1.2.3",
     "٣", "１", "1j", "nan", "1e5000", "." , "1" + "0" * 5000, "1e" + "9" * 30],
)  # fmt: skip
def test_numbers_are_finite_and_reprinted_or_refused(number: str) -> None:
    text = f"scan spec\ninput x\ny = x * {number}\noutput y"
    try:
        op = scanc.compile(text, target="torch")
    except CompileError as error:
        assert str(error).startswith("error[E")  # noqa: PT017
        assert len(str(error)) < 20_000  # noqa: PT017
        return
    value = op(torch.ones(1, 1, dtype=D)).item()
    assert value == float(number)


def test_numbers_in_sizes_and_depths() -> None:
    for text in (
        "axes d = 0\ninput x[d]\ny = x\noutput y[d]",
        "axes d = 1.5\ninput x[d]\ny = x\noutput y[d]",
        "axes d = -1\ninput x[d]\ny = x\noutput y[d]",
        "input x\ny = prev(x, 1000000)\noutput y",
        "axes w = 1000000\ninput x\nparam k[w]\ny = conv[w](x, k)\noutput y",
        "axes p = 100000000\ninput x\nstate s\nfor p { s = s + x }\noutput s",
    ):
        assert "error[E" in refused(text)


# --- limits ---


@pytest.mark.parametrize(
    "expression",
    [
        "(" * 150 + "x" + ")" * 150,
        "(" * 5000 + "x" + ")" * 5000,
        "-" * 5000 + "x",
        "exp(" * 120 + "x" + ")" * 120,
        "x" + "^x" * 5000,
        "x" + " + x" * 15_000,
        "x" + " * (x" * 190 + ")" * 190,
        "where(x > 0, " * 150 + "x" + ", 1)" * 150,
    ],
    ids=["parentheses", "many parentheses", "signs", "calls", "powers", "sums", "products", "wheres"],
)
def test_deep_nesting_is_an_error_or_works(expression: str) -> None:
    text = f"scan spec\ninput x\ny = {expression}\noutput y"
    try:
        op = scanc.compile(text, target="torch")
        op(torch.ones(1, 1, dtype=D))
    except CompileError as error:
        assert "E090" in str(error)  # noqa: PT017


def test_a_long_sum_of_lines_works() -> None:
    body = "\n".join(f"u{k + 1} = u{k} + x" for k in range(300))
    op = operator(f"input x\nu0 = x\n{body}\noutput u300")
    for form in op.forms:
        assert op(torch.ones(1, 1, dtype=D), form=form).item() == 301


def test_functions_that_double_are_bounded() -> None:
    body = "\n".join(f"def f{k + 1}(x) = f{k}(x) + f{k}(x)" for k in range(60))
    assert "E090" in refused(f"input x\ndef f0(x) = x\n{body}\ny = f60(x)\noutput y")


def test_loops_that_multiply_are_bounded() -> None:
    axes = ", ".join(f"p{k} = 99" for k in range(8))
    body = "".join(f"for p{k} {{ " for k in range(8)) + "s = s + x" + " }" * 8
    assert "E090" in refused(f"axes {axes}\ninput x\nstate s\n{body}\noutput s")


def test_many_axes() -> None:
    names = [f"a{k}" for k in range(33)]
    assert "E0904" in refused(f"axes {', '.join(names)}\ninput x[a0]\ny = x\noutput y[a0]")
    many = ", ".join(names[:20])
    op = operator(f"axes {many}\ninput x[{many}]\nstate h[{many}]\nh = 0.5*h + x\ny = sum[{many}](h)\noutput y")
    x = torch.randn(1, 3, *[1] * 20, dtype=D)
    for form in op.forms:
        assert op(x, form=form).shape == (1, 3)


def test_a_contraction_over_many_axes() -> None:
    """More axes than einsum has letters for, if each took one."""
    first = ", ".join(f"a{k}" for k in range(15))
    second = ", ".join(f"b{k}" for k in range(15))
    op = operator(
        f"axes {first}, {second}, c\ninput x[{first},c], y[{second},c]\nz = x · y\n"
        f"w = sum[{first},{second}](z)\noutput w"
    )
    x, y = torch.randn(1, 1, *[1] * 15, 2, dtype=D), torch.randn(1, 1, *[1] * 15, 2, dtype=D)
    for form in op.forms:
        torch.testing.assert_close(op(x, y, form=form).squeeze(), (x * y).sum())


def test_long_sources_and_names() -> None:
    assert "E0901" in refused("input x\ny = x\noutput y\n" + "#" * 100_001)
    assert "E0903" in refused(f"input {'x' * 65}\ny = 1\noutput y")
    long = "x" * 64
    op = operator(f"input {long}\ny = {long}\noutput y")
    assert op(torch.ones(1, 1)).item() == 1
    greek = "Δ" * 64
    op = operator(f"input {greek}\ny = {greek} * 2\noutput y")
    assert op(torch.ones(1, 1)).item() == 2


def test_bad_kinds_of_text() -> None:
    for text in ("", "\n", "#", "scan", "scan x", "\x00", "scan x\n" + "\n" * 1000, "}", "scan x\ninput x\noutput x"):
        with pytest.raises(CompileError):
            scanc.compile(text)


# --- imports ---


def importing(tmp_path: Path, path: str) -> str:
    root = tmp_path / "root"
    root.mkdir(exist_ok=True)
    (tmp_path / "secret.scan").write_text("def f(x) = x\n")
    (root / "in.scan").write_text("def f(x) = 2 * x\n")
    (root / "main.scan").write_text(f'scan main\nimport "{path}" as m\ninput x\ny = m.f(x)\noutput y')
    with pytest.raises(CompileError) as caught:
        scanc.load(root / "main.scan", target="torch")
    return str(caught.value)


@pytest.mark.parametrize(
    "path",
    ["../secret.scan", "in.scan/../../secret.scan", "./../secret.scan", "a/../../secret.scan", "..",
     "../root/../secret.scan",
     "..\\secret.scan", "~/secret.scan", "file:///secret.scan", "//secret.scan", "in.scan\\..\\..\\secret.scan", "",
     ".scan",
     "/etc/passwd", "/dev/stdin.scan", "main.scan", "in.scan ", "in.py", "%2e%2e/secret.scan"],
)  # fmt: skip
def test_imports_that_leave_their_directory(path: str, tmp_path: Path) -> None:
    assert "error[E08" in importing(tmp_path, path)


def test_absolute_imports(tmp_path: Path) -> None:
    assert "E0804" in importing(tmp_path, str(tmp_path / "secret.scan"))
    assert "E0804" in importing(tmp_path, str(tmp_path / "root" / "in.scan"))


def test_symlinks_that_leave_the_directory(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.scan").write_text("def f(x) = x\n")
    (root / "link.scan").symlink_to(tmp_path / "secret.scan")
    (root / "up").symlink_to(tmp_path)
    for path in ("link.scan", "up/secret.scan"):
        assert "E0804" in importing(tmp_path, path)


def test_a_nested_import_stays_below_its_own_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "top.scan").write_text("def f(x) = x\n")
    (tmp_path / "sub" / "lib.scan").write_text('import "../top.scan" as t\ndef g(x) = t.f(x)\n')
    (tmp_path / "main.scan").write_text('scan main\nimport "sub/lib.scan" as l\ninput x\ny = l.g(x)\noutput y')
    with pytest.raises(CompileError, match="E0804"):
        scanc.load(tmp_path / "main.scan", target="torch")


def test_circles_long_files_and_special_files(tmp_path: Path) -> None:
    main = tmp_path / "main.scan"
    main.write_text('scan main\nimport "a.scan" as a\ninput x\ny = a.f(x)\noutput y')
    (tmp_path / "a.scan").write_text('import "b.scan" as b\ndef f(x) = b.f(x)\n')
    (tmp_path / "b.scan").write_text('import "a.scan" as a\ndef f(x) = a.f(x)\n')
    with pytest.raises(CompileError, match="E0806"):
        scanc.load(main, target="torch")
    (tmp_path / "a.scan").write_text("def f(x) = x\n" + "#" * 500_000)
    with pytest.raises(CompileError, match="E0901"):
        scanc.load(main, target="torch")
    (tmp_path / "a.scan").write_bytes(b"def f(x) = x # \xff\xfe")
    with pytest.raises(CompileError, match="E0805"):
        scanc.load(main, target="torch")
    (tmp_path / "a.scan").unlink()
    (tmp_path / "a.scan").mkdir()
    with pytest.raises(CompileError, match="E0805"):
        scanc.load(main, target="torch")
    (tmp_path / "a.scan").rmdir()
    (tmp_path / "a.scan").symlink_to("a.scan")
    with pytest.raises(CompileError, match="E08"):
        scanc.load(main, target="torch")


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "main.scan").write_text('scan main\nimport "a.scan" as a\ninput x\ny = a.f(x)\noutput y')
    os.mkfifo(tmp_path / "a.scan")
    code = (
        "import sys; from pathlib import Path; from scanc.semantics.lower import lower\n"
        "root = Path(sys.argv[1]); lower((root / 'main.scan').read_text(), source='main.scan', root=root)"
    )
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            [str(p) for p in (Path(scanc.__file__).parents[1], Path(scanc.__file__).parents[1] / "runtime")]
        ),
    }
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=env, capture_output=True, text=True, timeout=60
    )
    assert "E0805" in done.stderr


def test_a_text_without_a_file_cannot_import() -> None:
    assert "E0804" in refused('import "in.scan" as m\ninput x\ny = m.f(x)\noutput y')


def test_long_pasts_have_many_hidden_states() -> None:
    """More tensors than the schema of a torch op holds."""
    op = operator("axes d, w = 40\ninput x[d]\nparam k[w]\ny = conv[w](x, k) + prev(x, 256)\noutput y[d]")
    x, k = torch.randn(1, 300, 1, dtype=D), torch.randn(40, dtype=D)
    padded = torch.cat([torch.zeros(1, 256, 1, dtype=D), x], 1)
    expected = padded[:, :300] + sum(k[39 - t] * padded[:, 256 - t : 556 - t] for t in range(40))
    leaf = x.clone().requires_grad_()
    out, state = op(leaf, k, return_state=True)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(state["prev.x"], x[:, -256:])
    (grad,) = torch.autograd.grad(out.sum(), leaf)
    assert grad[0, 0].item() == pytest.approx((k.sum() + 1).item())
