"""What the compiler makes of the examples, to the byte: `pytest tests/golden --regenerate` writes it anew.

A change of a golden file is read in review like a change of code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from scanc.driver import Compiled, compile_text
from scanc.targets import TARGETS

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
MODULES = (
    *("conv_ema", "dense_lti", "ema", "gated_delta_rule", "gla", "gru", "hmm_forward", "lru", "mlstm"),
    "selective_ssm",
)
TO_KERNELS = ("ema", "lru")
STEP_BY_STEP = ("conv_ema", "dense_lti", "gated_delta_rule", "gla", "lstm", "mlstm", "selective_ssm")


def compiled(name: str) -> Compiled:
    path = EXAMPLES / f"{name}.scan"
    return compile_text(path.read_text(encoding="utf-8"), source=path.name, root=path.parent)


def same(golden: Path, text: str, regenerate: bool) -> None:
    """`text` is what the golden file holds. A missing file fails."""
    if regenerate:
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(text, encoding="utf-8")
    assert golden.exists(), f"{golden} is missing; --regenerate writes it"
    assert text == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", MODULES)
def test_modules(name: str, target: str, regenerate: bool) -> None:
    source = compiled(name).module_source(target)
    same(HERE / "modules" / f"{name}_{target}.py", source, regenerate)
    assert compiled(name).module_source(target) == source, "the same spec gives the same bytes"


@pytest.mark.parametrize("name", STEP_BY_STEP)
def test_ir_after_every_pass(name: str, regenerate: bool) -> None:
    same_stages(HERE / "ir" / name, compiled(name).stages, regenerate)


@pytest.mark.parametrize("name", TO_KERNELS)
def test_ir_on_the_way_to_the_kernels(name: str, regenerate: bool) -> None:
    same_stages(HERE / "ir_triton" / name, compiled(name).triton_stages, regenerate)


def same_stages(folder: Path, stages: Sequence[tuple[str, str]], regenerate: bool) -> None:
    """The folder holds these stages, and no other."""
    for file, text in stages:
        same(folder / file, text, regenerate)
    assert sorted(p.name for p in folder.iterdir()) == sorted(file for file, _ in stages)
