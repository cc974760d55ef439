"""A cache folder of its own for every test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from longstrand.runtime import cache_dir


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "cache"
    monkeypatch.setenv("LONGSTRAND_CACHE", str(folder))
    cache_dir.cache_clear()
    yield folder
    cache_dir.cache_clear()
