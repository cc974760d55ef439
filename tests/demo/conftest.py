"""A small simulation made once."""

from __future__ import annotations

import pytest

from longstrand.demo.simulate import Simulation, write_simulation


@pytest.fixture(scope="session")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    return write_simulation(tmp_path_factory.mktemp("simulation"), seed=5, num_bases=240_000, num_rows=(60, 20, 400))
