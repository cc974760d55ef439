"""How far a benchmark is, and how long the rest may take, from the cells that are done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from longstrand.benchmarks.cells import Cell
from longstrand.runtime import read_json


class Progress:
    """Counts the cells of one process and estimates what is left, from the times of finished cells (see `seconds_of`).

    Args:
        folder: of the run.
        cells: of this process, in order; some may have a result of an earlier command.
    """

    def __init__(self, folder: Path, cells: Sequence[Cell]) -> None:
        self._folder, self._cells = folder, list(cells)
        self._known: list[tuple[Cell, float]] = []
        self._missing = list(cells)

    def line(self, cell: Cell) -> str:
        """Say which cell is begun, how many there are, and how long it and the rest may take."""
        rows = "" if cell.num_train is None else f", {cell.num_train:,} rows"
        left = self.seconds_left()
        rest = "" if left is None else f", about {duration(left)} left"
        place = f"[{self._cells.index(cell) + 1}/{len(self._cells)}{rest}]"
        return f"{place} {cell.task}: {cell.arm.name}, seed {cell.seed}{rows}"

    def seconds_left(self) -> float | None:
        """Estimate the seconds of all cells without a result; None as long as one kind of cell was never seen."""
        missing = []
        for cell in self._missing:
            path = self._folder / cell.folder / "result.json"
            if path.exists():
                self._known.append((cell, read_json(path)["wall_seconds"]))
            else:
                missing.append(cell)
        self._missing = missing
        guesses = [seconds_of(cell, self._known) for cell in missing]
        known = [guess for guess in guesses if guess is not None]
        return sum(known) if len(known) == len(guesses) else None


def seconds_of(cell: Cell, known: Sequence[tuple[Cell, float]]) -> float | None:
    """Guess the time of a cell: the mean of its arm on its task, else of its arm, else of its kind; None if none is.

    For the same number of training rows, except that an arm's other numbers of rows are better than another arm.
    """

    def likeness(other: Cell) -> int:
        same = other.arm.name == cell.arm.name
        rows = other.num_train == cell.num_train
        if same and rows:
            return 4 if other.task == cell.task else 3
        return 2 if same else 1 if other.arm.kind == cell.arm.kind else 0

    scored = [(likeness(other), seconds) for other, seconds in known]
    best = max((score for score, _ in scored), default=0)
    return fmean(seconds for score, seconds in scored if score == best) if best else None


def duration(seconds: float) -> str:
    """Write a time in the largest unit that it fills: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
