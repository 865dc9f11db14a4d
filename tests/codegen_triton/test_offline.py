"""Generated kernels compile for chips that are not there: in a process of their own, without Triton's interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPILLED = 96  # bytes of a thread: what folded backward kernels spill in their masked tail, once per sequence
GOLDEN = ("ema", "gla", "gated_delta_rule", "gru", "selective_ssm")
TWICE = 1  # ema has look-back kernels too


def compiled(names: tuple[str, ...], target: str) -> tuple[list[dict[str, object]], str]:
    """What `compile_offline.py` printed for some examples, and its stderr."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(str(ROOT / part) for part in ("", "runtime", "tests"))
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("compile_offline.py")), target, *names]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    return [json.loads(line) for line in result.stdout.splitlines()], result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_golden_kernels_compile(target: str) -> None:
    found, stderr = compiled(GOLDEN, target)
    assert not stderr
    assert len(found) == 2 * (len(GOLDEN) + TWICE)
    for usage in found:
        print(usage)
        assert int(str(usage["spilled"])) <= SPILLED, usage
        assert 0 < int(str(usage["registers"])) <= (512 if target == "gfx942" else 255)
