"""Options that all tests share."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest
import torch
from hypothesis import settings
from quick import quicken

if not torch.cuda.is_available():  # before anything imports triton
    os.environ.setdefault("TRITON_INTERPRET", "1")
if os.environ.get("TRITON_INTERPRET") == "1" and find_spec("triton"):
    quicken()

# The same cases at each run, so that one commit has one result; `--hypothesis-profile=explore` draws others.
settings.register_profile("reproducible", derandomize=True)
settings.register_profile("explore", derandomize=False, print_blob=True)
settings.load_profile("reproducible")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regenerate", action="store_true", help="write the expected files anew instead of comparing")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what is marked `gpu` where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def regenerate(request: pytest.FixtureRequest) -> bool:
    """Whether expected files are to be written anew."""
    return bool(request.config.getoption("--regenerate"))
