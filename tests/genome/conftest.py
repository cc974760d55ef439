"""A cache folder of its own for every test that asks for one, and a small simulation made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from longstrand.genome.simulate import Simulation, write_simulation
from longstrand.runtime import cache_dir


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "cache"
    monkeypatch.setenv("LONGSTRAND_CACHE", str(folder))
    cache_dir.cache_clear()
    yield folder
    cache_dir.cache_clear()


@pytest.fixture(scope="session")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    return write_simulation(tmp_path_factory.mktemp("simulation"), seed=5, num_bases=240_000, num_contigs=4)
