"""A first call compiles its kernels side by side, later calls launch them without asking Triton what they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("script", ["compile_ahead.py", "rehearse_examples.py"])
def test_in_a_process_that_compiles(script: str, tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path / "triton"), "SCANC_CACHE_DIR": str(tmp_path / "scanc")}
    (tmp_path / "scanc").mkdir(mode=0o700)
    environment["PYTHONPATH"] = os.pathsep.join(str(ROOT / part) for part in ("", "runtime", "tests"))
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name(script))]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
