"""Run folders that are served: their reports, and the names that models go by."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longstrand.errors import InputError, UsageError, one_of
from longstrand.runtime import model_folder, read_json, shipped_names

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class Run:
    """A run folder.

    Attributes:
        kind: what made it, as its report says, or ``model``.
        report: its page, or None.
    """

    kind: str
    report: Path | None

    def card(self, name: str) -> dict[str, Any]:
        """Say what it is."""
        return {"name": name, "kind": self.kind, "report": f"/v1/runs/{name}/report.html" if self.report else None}


def named(words: Iterable[str]) -> dict[str, str]:
    """Give names to folders: ``NAME=FOLDER``, or the name of the folder itself.

    Raises:
        UsageError: a name is taken twice, or holds other than letters, digits, points, ``_`` and ``-``.
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not equals:
            path = word
            name = (
                Path(word).expanduser().resolve().name if Path(word).expanduser().exists() else word.rsplit("/", 1)[-1]
            )
            name = re.sub(r"\.(fa|fasta|fna|gff3?|gtf)(\.gz|\.bgz)?$", "", name)
        if not NAME.fullmatch(name):
            raise UsageError(
                f"'{name}' is no name for an address; write NAME={path} with letters, digits, '.', '_', '-'."
            )
        if name in found:
            raise UsageError(f"two things are called '{name}'; name one of them: OTHER={path}.")
        found[name] = path
    return found


def models_and_runs(folders: dict[str, str]) -> tuple[dict[str, str], dict[str, Run]]:
    """Sort folders into models to load and runs to list; a run with a model is both.

    Raises:
        InputError: a folder is neither.
        CheckpointError: there is no such folder.
    """
    models: dict[str, str] = {}
    runs: dict[str, Run] = {}
    for name, text in folders.items():
        folder = Path(text).expanduser()
        page = folder / "report.html"
        if page.is_file():
            facts = folder / "report.json"
            kind = read_json(facts).get("kind", "run") if facts.is_file() else "run"
            runs[name] = Run(str(kind), page)
        is_model = text in shipped_names() or (model_folder(text) / "config.json").is_file()
        if is_model:
            models[name] = text
        elif name not in runs:
            raise InputError(f"{text}: holds neither a model (config.json) nor the report of a run (report.html).")
    return models, runs


def annotations_of(words: Iterable[str], genomes: dict[str, Path]) -> dict[str, Path]:
    """Say which annotation belongs to which genome: ``GENOME=FILE``, or the only genome.

    Raises:
        UsageError: it is not said, or there is no such genome.
    """
    found: dict[str, Path] = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not equals:
            if len(genomes) != 1:
                raise UsageError(f"say to which genome the annotation belongs: GENOME={word}.")
            name, path = next(iter(genomes)), word
        one_of(name, genomes, "genome")
        if name in found:
            raise UsageError(f"genome '{name}' has two annotations; one is read.")
        found[name] = Path(path).expanduser()
    return found
