"""Miniature benchmark data: random DNA by seed, tables as they are released, and a plain task to write them with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from longstrand.benchmarks.tasks.task import BenchmarkTask
from longstrand.data.labelled_files import RawTable, make_rows
from longstrand.runtime import generator


def dna(count: int, num_bases: int, seed: int = 0) -> list[str]:
    """Give ``count`` random sequences."""
    codes = generator(seed, 0, "toy DNA").integers(0, 4, size=(count, num_bases))
    return ["".join("ACGT"[code] for code in row) for row in codes]


def rows(sequences: Sequence[str], labels: Sequence[Any], **more: Any) -> RawTable:
    """Make a table in memory."""
    return make_rows(sequences, {"label": [str(label) for label in labels]}, source="toy", **more)


def write_csv(path: Path, sequences: Sequence[str], labels: Sequence[Any], header: str = "sequence,label") -> Path:
    """Write a table of sequences and labels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [header, *(f"{text},{label}" for text, label in zip(sequences, labels))]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_fasta(path: Path, entries: dict[str, str]) -> Path:
    """Write FASTA with one line an entry."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f">{title}\n{sequence}\n" for title, sequence in entries.items()))
    return path


def plain_task(**changes: Any) -> BenchmarkTask:
    """Give a task that builds nothing, for functions that only look at its facts."""

    def build(*_: Any) -> Any:
        raise AssertionError("not to be built")

    values = {"id": "toy/task", "title": "toy", "files": (), "build": build, "split_rule": "by hand", **changes}
    return BenchmarkTask(**values)
