"""`precision=`: what is asked holds, or the call is refused."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import scanc

GLA = (Path(__file__).parents[2] / "examples" / "gla.scan").read_text(encoding="utf-8")


@pytest.fixture
def _settings() -> Iterator[None]:
    """Torch's own settings are put back."""
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def tensors() -> list[torch.Tensor]:
    return [torch.randn(1, 5, 2, 3) for _ in range(3)] + [-torch.rand(1, 5, 2, 3)]


def refused(precision: str) -> bool:
    try:
        scanc.compile(GLA, target="torch", precision=precision)(*tensors())
    except scanc.ArgumentError:
        return True
    return False


@pytest.mark.usefixtures("_settings")
@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        ("highest", set()),
        ("high", {"ieee", "tf32x3"}),
        ("medium", {"ieee", "tf32x3", "tf32"}),
    ],
)
def test_torch_settings_that_allow_less_are_refused(setting: str, wanted: set[str]) -> None:
    torch.set_float32_matmul_precision(setting)
    assert {precision for precision in ("default", "ieee", "tf32x3", "tf32") if refused(precision)} == wanted


@pytest.mark.usefixtures("_settings")
def test_the_refusal_names_both_sides() -> None:
    torch.set_float32_matmul_precision("medium")
    operator = scanc.compile(GLA, target="torch", precision="ieee")
    with pytest.raises(scanc.ArgumentError, match="gla: torch may do float32 products in bf16 on cpu") as caught:
        operator(*tensors())
    assert caught.value.expected.startswith("at least ieee")


@pytest.mark.usefixtures("_settings")
def test_the_interpreter_multiplies_in_ieee_whatever_torch_does() -> None:
    given = tensors()
    wanted = scanc.compile(GLA)(*given, form="interpret")
    torch.set_float32_matmul_precision("medium")
    torch.testing.assert_close(scanc.compile(GLA, precision="ieee")(*given, form="interpret"), wanted, rtol=0, atol=0)


def test_unknown() -> None:
    with pytest.raises(scanc.ArgumentError, match="there is no precision 'iee'") as caught:
        scanc.compile(GLA, precision="iee")
    assert caught.value.expected == "one of default, ieee, tf32x3, tf32"
    assert caught.value.hint == "did you mean `ieee`?"


@pytest.mark.usefixtures("_settings")
def test_it_survives_pickling() -> None:
    operator = pickle.loads(pickle.dumps(scanc.compile(GLA, target="torch", precision="ieee")))
    torch.set_float32_matmul_precision("medium")
    with pytest.raises(scanc.ArgumentError, match="bf16"):
        operator(*tensors())


def test_the_generated_module_is_the_same() -> None:
    assert scanc.compile(GLA, precision="ieee").code("torch") == scanc.compile(GLA).code("torch")
