"""The training examples: what the probe finds, the mixer, and whole runs of the scripts in small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import char_lm
import pytest
import sequential_digits
import torch
import typer
from mixer import Gate, Mixer, UnsuitedSpec, check_suited, default_sizes
from probe import Probe, choose_gates
from typer.testing import CliRunner

import scanc

EXAMPLES = Path(__file__).parents[2] / "examples"
WIDTH = 16


def example(name: str) -> Any:
    return scanc.load(EXAMPLES / f"{name}.scan", target="torch")


SPECS = sorted(path.stem for path in EXAMPLES.glob("*.scan"))


@pytest.mark.parametrize("name", SPECS)
def test_every_example_can_be_a_mixer(name: str) -> None:
    """Whole sequences and single tokens agree, and every weight gets a finite gradient."""
    torch.manual_seed(0)
    operator = example(name)
    sizes = default_sizes(operator.spec, WIDTH)
    mixer = Mixer(WIDTH, operator, sizes, choose_gates(operator, sizes))
    x = torch.randn(2, 7, WIDTH)
    whole = mixer(x)
    whole.square().sum().backward()
    state, tokens = None, []
    for t in range(7):
        token, state = mixer.step(x[:, t], state)
        tokens.append(token)
    torch.testing.assert_close(torch.stack(tokens, 1), whole, rtol=1e-3, atol=1e-3)
    for parameter_name, parameter in mixer.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


@pytest.mark.parametrize(
    ("name", "activations"),
    [
        ("gla", {"g": "logsigmoid"}),
        ("mission", {"A": "sigmoid"}),
        ("retnet", {"log_gamma": "logsigmoid"}),
        ("selective_ssm", {"delta": "identity", "A": "logsigmoid", "bias": "identity"}),
        ("gated_delta_rule", {"k": "unit", "g": "logsigmoid", "beta": "sigmoid"}),
        ("linear_attention", {}),
        ("gated_conv", {}),
    ],
)
def test_the_probe_finds_what_a_paper_says(name: str, activations: dict[str, str]) -> None:
    operator = example(name)
    gates = choose_gates(operator, default_sizes(operator.spec, 64))
    assert {tensor: gate.activation for tensor, gate in gates.items()} == activations


@pytest.mark.parametrize("name", ["gla", "mission", "gru", "mingru", "lru", "ema", "qrnn"])
def test_states_survive_a_step_nearly_whole(name: str) -> None:
    operator = example(name)
    sizes = default_sizes(operator.spec, 64)
    gates = choose_gates(operator, sizes)
    with torch.no_grad():
        assert 0.9 < Probe(operator, sizes).survival(gates) < 1


def test_raw_features_make_a_log_decay_explode() -> None:
    operator = example("gla")
    probe = Probe(operator, default_sizes(operator.spec, WIDTH))
    assert not probe.bounded({})
    assert probe.bounded({"g": Gate("logsigmoid")})


def test_given_activations_are_kept() -> None:
    operator = example("gla")
    sizes = default_sizes(operator.spec, WIDTH)
    gates = choose_gates(operator, sizes, {"g": "logsigmoid", "k": "unit"})
    assert (gates["g"].activation, gates["k"].activation) == ("logsigmoid", "unit")
    with pytest.raises(ValueError, match="keep the states of gla bounded"):
        choose_gates(operator, sizes, {"g": "identity"})
    with pytest.raises(UnsuitedSpec, match=r"'g' is real; its activation can be .*, not 'disk'"):
        choose_gates(operator, sizes, {"g": "disk"})


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("ema", {"d": 64}),
        ("gla", {"h": 4, "i": 16, "j": 16}),
        ("selective_ssm", {"d": 64, "n": 16}),
        ("gru", {"d": 64, "d_col": 64}),
        ("gated_conv", {"d": 64, "w": 7}),
        ("mamba2", {"g": 2, "r": 2, "p": 16, "n": 16}),
    ],
)
def test_sizes_follow_from_the_widest_output(name: str, sizes: dict[str, int]) -> None:
    assert default_sizes(example(name).spec, 64) == sizes


@pytest.mark.parametrize(
    ("declarations", "message"),
    [
        ("input x[d], n[d]: int\nstate h[d]\nh = h + x*n\noutput h[d]", "wants int values"),
        ("input x[d], m[d]: bool\nstate h[d]\nh = where(m, x, h)\noutput h[d]", "wants bool values"),
        ("input x[d]\nstate h[d]\nh = h + x\nbig = h > 1\noutput big[d]", "nothing trains"),
    ],
)
def test_unsuited_specs_are_named(declarations: str, message: str) -> None:
    operator: Any = scanc.compile(f"scan odd\naxes d\n{declarations}\n", target="torch")
    with pytest.raises(UnsuitedSpec, match=message):
        check_suited(operator.spec)


def run(main: Any, *arguments: str) -> Any:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


TINY = ("--width", "16", "--layers", "1", "--target", "torch", "--device", "cpu")


def test_char_lm_learns_writes_and_draws(tmp_path: Path) -> None:
    text, curve = tmp_path / "text.txt", tmp_path / "curve.png"
    text.write_text("the cat sat on the mat. " * 400)
    result = run(char_lm.main, str(EXAMPLES / "mingru.scan"), "--text", str(text), "--tokens", "chars", "--steps", "60",
                 "--batch", "4", "--context", "24", "--write", "48", "--curve", str(curve), *TINY)  # fmt: skip
    assert result.exit_code == 0, result.output
    before, after = (float(x) for x in result.output.split("on held-out text ")[1].split()[0:3:2])
    assert after < 0.5 * before
    assert "the" in result.output.split("written through step()")[1]
    assert curve.read_bytes().startswith(b"\x89PNG")


def test_the_text_by_default_is_the_same_on_every_run() -> None:
    text = char_lm.standard_library()
    assert text == char_lm.standard_library()
    assert 1_000_000 < len(text) <= char_lm.MOST_TEXT


def test_digits(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    curve = tmp_path / "curve.png"
    result = run(sequential_digits.main, str(EXAMPLES / "mingru.scan"), "--steps", "12", "--batch", "16", "--curve",
                 str(curve), *TINY)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "accuracy on 360 unseen digits" in result.output
    assert curve.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing.scan",), "missing.scan"),
        ((str(EXAMPLES / "ema.scan"), "--size", "z=3"), "the axes of ema are d"),
        ((str(EXAMPLES / "ema.scan"), "--activation", "z=tanh"), "no input or param z"),
        ((str(EXAMPLES / "ema.scan"), "--activation", "logit=cube"), "its activation can be"),
        ((str(EXAMPLES / "ema.scan"), "--text", "missing.txt"), "missing.txt"),
        ((str(EXAMPLES / "ema.scan"), "--form", "magic"), "magic"),
        ((str(EXAMPLES / "ema.scan"), "--target", "magic"), "magic"),
        ((str(EXAMPLES / "ema.scan"), "--device", "abacus"), "abacus"),
    ],
)
def test_user_faults_are_messages(arguments: tuple[str, ...], message: str) -> None:
    result = run(char_lm.main, *TINY, *arguments, "--steps", "1")
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.gpu
def test_char_lm_trains_on_a_gpu(tmp_path: Path) -> None:
    curve = tmp_path / "curve.png"
    result = run(char_lm.main, str(EXAMPLES / "gla.scan"), "--device", "cuda", "--steps", "30", "--curve", str(curve))
    assert result.exit_code == 0, result.output
    before, after = (float(x) for x in result.output.split("on held-out text ")[1].split()[0:3:2])
    assert after < 0.8 * before
