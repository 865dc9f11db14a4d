"""Operators of these tests are cached where nobody else looks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scanc_runtime import cache


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(cache.DIRECTORY, str(tmp_path_factory.mktemp("cache") / "scanc"))
        yield
