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


LONGEST_FIRST = ("test_readme", "test_examples", "test_processes", "demo/test_run", "benchmarks/test_run")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that no worker is left alone with one at the end; files stay whole."""
    items.sort(key=lambda item: not any(name in str(item.path) for name in LONGEST_FIRST))
