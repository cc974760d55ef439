"""Shared fixtures: the folder of real data (skips when absent), a cache of its own, two quiet threads."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

os.environ.setdefault("LONGSTRAND_CACHE", str(Path(tempfile.gettempdir()) / f"longstrand-tests-{os.getuid()}"))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Give the folder of golden outputs and real genomes, or skip."""
    from longstrand.runtime import data_root

    folder = data_root()
    if folder is None:
        pytest.skip("no data folder: set LONGSTRAND_DATA to the folder with golden/ and data/")
    return folder


LONGEST_FIRST = ("test_every_block_runs", "test_the_whole_path_and_its_resumption", "test_one_command_gives_the_whole")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest tests, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: not item.name.startswith(LONGEST_FIRST))
