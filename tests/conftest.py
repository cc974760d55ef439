"""Shared fixtures: the folder of real data (skips when absent), a cache of its own, two quiet threads."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Iterator
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


DRAWN = ("report", "demo", "test_examples", "test_benchmark_document")
"""Folders and files whose tests draw real pictures; pages of all other tests have empty ones, which cost nothing."""


@pytest.fixture(scope="module", autouse=True)
def pictures(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave the drawing of pictures out, except in the tests of pictures."""
    with pytest.MonkeyPatch.context() as patch:
        if not any(name in (request.path.stem, request.path.parent.name) for name in DRAWN):
            patch.setattr("longstrand.report.plots.to_svg", lambda *_, **__: "<svg></svg>")
            for name in ("curves", "forest", "ranking"):
                patch.setattr(f"longstrand.report.plots.draw_{name}", lambda *_, **__: None)
        yield


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """Let the garbage collector, which every training run calls, pass over what was imported: 0.3 s each time."""
    gc.freeze()


LONGEST_FIRST = ("test_guide", "test_readme", "test_examples", "test_processes", "demo/test_run", "benchmarks/test_run")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that no worker is left alone with one at the end; files stay whole."""
    items.sort(key=lambda item: not any(name in str(item.path) for name in LONGEST_FIRST))
