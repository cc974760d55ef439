"""A small simulation made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from longstrand.demo.simulate import write_simulation


@pytest.fixture(scope="session")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulation")
    write_simulation(folder, seed=5, num_bases=240_000, num_rows=(60, 20, 400))
    return folder
