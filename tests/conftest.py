"""Shared fixtures: the folder of real data (skips when absent), a cache of its own, two quiet threads."""

from __future__ import annotations

import gc
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture
def folder_of_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder; `plan` takes its steps in this process, because one of its own starts in 8 s."""
    from longstrand.info import planning

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(planning, "measure_step", lambda *job: planning.run_step(*job[:4]))
    return tmp_path


FROM_SERVER = ("test_processes", "test_ecosystem", "training/test_pretrain", "inference/test_contigs", "test_writers",
               "cli/test_plan")  # fmt: skip
"""Files whose tests start processes from the server of `tests.part_toys`, which takes 10 s to start."""
LONGEST_FIRST = (*FROM_SERVER, "test_readme", "test_guide", "test_examples", "baselines/test_registry",
                 "benchmarks/test_run", "training/test_finetune")  # fmt: skip


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """End with the groups of tests that were skipped, and why."""
    reasons = Counter(str(report.longrepr[-1]) for report in terminalreporter.stats.get("skipped", []))
    for reason, number in sorted(reasons.items()):
        terminalreporter.write_line(f"skipped {number}: {reason.removeprefix('Skipped: ')}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that no worker is left alone with one at the end; files stay whole."""
    items.sort(key=lambda item: next((n for n, name in enumerate(LONGEST_FIRST) if name in str(item.path)), 99))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give all files that need the server of processes to one worker, so that one server is started."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "server" if any(name in nodeid for name in FROM_SERVER) else super()._split_scope(nodeid)

    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None
