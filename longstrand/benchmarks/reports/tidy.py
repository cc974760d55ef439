"""Tidy tables of results: one line a measured cell, in a CSV that a person can read and a diff can show.

**The format.** A CSV with a header and at least the columns

- ``task``: what was asked, ``arm``: what answered (one line of a table),
- ``seed``: a whole number, or empty where no seed changes anything,
- ``metric``: name of the measure, ``value``: what was measured on the test rows; empty if undefined.

Any further column describes the cell: ``num_train`` (training rows; empty means all), or for other experiments
``length``, ``segments``, ``tokens``, ``layer``. A column whose cells are all numbers or empty counts as numeric.
Columns with a meaning of their own, all optional: ``group`` (baseline, model, control), ``valid`` (the measure on
validation rows: what choices may look at), ``low`` and ``high`` (95 % interval for other test rows), ``train_rows``,
``seconds``, ``trained_parameters``, ``storage_bytes``, ``peak_memory_bytes``, ``flags`` (why a cell is not to be
trusted).

``NAME.json`` beside ``NAME.csv`` (optional) says where the numbers come from. `longstrand.benchmarks.export` writes
both from benchmark runs; recipes write the same format with columns of their own through `write_tidy`.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from longstrand.errors import InputError, UsageError, nearest, one_of
from longstrand.evaluation.metrics import LOWER_IS_BETTER
from longstrand.runtime import read_json, write_atomically

REQUIRED = ("task", "arm", "seed", "metric", "value")
TEXTS = ("task", "arm", "metric", "group", "kind", "model", "init", "way", "flags", "data")
ALL = "all"
"""How an empty cell is named in a filter: ``num_train=all``."""
CHOSEN = {"best baseline": "baseline", "best model": "model", "best control": "control"}
"""Names that stand for another arm in each task: of a group the one with the best validation score."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Tidy:
    """A table of results.

    Attributes:
        name: of the experiment (the file without its ending).
        columns: in the order of the file.
        rows: column to value; float (None if empty) in numeric columns, else text.
        about: what ``NAME.json`` holds, or empty.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    def values(self, column: str) -> list[Any]:
        """List the different values of a column, in the order of the file."""
        return list(dict.fromkeys(row[column] for row in self.rows))

    def renamed(self, column: str, old: str, new: str) -> Tidy:
        """Give a value of a text column another name; ``*`` at the end of both stands for the rest of the word."""
        if column not in self.columns:
            return self
        start, end = old.removesuffix("*"), new.removesuffix("*")

        def name(word: Any) -> Any:
            if old.endswith("*") and isinstance(word, str) and word.startswith(start):
                return end + word[len(start) :]
            return new if word == old else word

        rows = tuple(row | {column: name(row[column])} for row in self.rows)
        return Tidy(self.name, self.columns, rows, self.about)


def open_tidy(folder: Path, name: str) -> Tidy:
    """Read ``NAME.csv`` of a folder of results.

    Raises:
        UsageError: there is no such experiment.
        InputError: the file is not a table of results.
    """
    known = sorted(path.stem for path in Path(folder).glob("*.csv"))
    if name not in known:
        there = f"known: {', '.join(known)}" if known else "the folder holds no CSV file"
        raise UsageError(f"unknown experiment '{name}' in {folder}{nearest(name, known)}; {there}.")
    return read_tidy(Path(folder) / f"{name}.csv")


def read_tidy(path: Path) -> Tidy:
    """Read a table of results and what stands beside it.

    Raises:
        InputError: a column is missing, a line has other columns, or a value is no number.
    """
    path = Path(path)
    try:
        lines = list(csv.reader(io.StringIO(path.read_text())))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not readable as CSV ({error}).") from None
    if len(lines) < 2:
        raise InputError(f"{path}: the table of results has no rows.")
    columns = tuple(lines[0])
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise InputError(f"{path}: no column '{missing[0]}'; a table of results needs {', '.join(REQUIRED)}.")
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(columns):
            raise InputError(f"{path}:{number}: {len(line)} cells under {len(columns)} columns.")
    numeric = {name for place, name in enumerate(columns) if _is_numeric(name, [line[place] for line in lines[1:]])}
    for name in ("seed", "value"):
        if name not in numeric:
            place = columns.index(name)
            number = next(number for number, line in enumerate(lines[1:], start=2) if _number(line[place]) is None)
            raise InputError(f"{path}:{number}: the {name} '{lines[number - 1][place]}' is not a number.")
    rows = tuple(
        {name: _value(cell) if name in numeric else cell for name, cell in zip(columns, line)} for line in lines[1:]
    )
    about = path.with_suffix(".json")
    return Tidy(path.stem, columns, rows, read_json(about) if about.exists() else {})


def _is_numeric(name: str, cells: Sequence[str]) -> bool:
    return name not in TEXTS and all(cell == "" or _number(cell) is not None for cell in cells)


def _number(cell: str) -> float | None:
    try:
        return float(cell) if cell else 0.0
    except ValueError:
        return None


def _value(cell: str) -> float | None:
    value = float(cell) if cell else math.nan
    return value if math.isfinite(value) else None


def write_tidy(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Write a table of results, rounded to five significant digits, in the order given.

    Args:
        path: of the CSV.
        rows: column to value; None and NaN become empty cells, a missing key too.
        columns: in their order; None: those of the first row.

    Raises:
        ValueError: a required column is missing, or there is no row.
    """
    if not rows:
        raise ValueError("a table of results needs at least one row.")
    names = list(columns or rows[0])
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise ValueError(f"a table of results needs the column '{missing[0]}'.")
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([[rounded(row.get(name)) for name in names] for row in rows])
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, target.getvalue())


def rounded(value: Any, digits: int = 5) -> Any:
    """Round a float to significant digits and write it shortly; whole numbers and text stay.

    Example:
        >>> rounded(0.123456789), rounded(1234567.8), rounded(None)
        ('0.12346', '1234568', '')
    """
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if not isinstance(value, float):
        return value
    if abs(value) >= 10**digits:
        return str(round(value))
    return f"{value:.{digits}g}"


def lower_is_better(metric: str) -> bool:
    """Say whether smaller values of a metric are better: losses, errors, bits and times."""
    words = metric.lower().replace("-", "_").split("_")
    return metric in LOWER_IS_BETTER or bool({"loss", "error", "bits", "perplexity", "seconds"} & set(words))


def select(tidy: Tidy, filters: Mapping[str, Sequence[str]], *, free: Collection[str] = ()) -> Tidy:
    """Keep the rows whose columns have one of the values asked for.

    Without a filter on ``num_train`` only cells with all training rows stay, unless it is in ``free``.

    Args:
        tidy: the table.
        filters: column to values as text; ``*`` stands for any letters, ``all`` for an empty cell.
        free: columns that the caller varies.

    Raises:
        UsageError: a column or a value does not occur, or nothing is left.
    """
    wanted = dict(filters)
    if "num_train" in tidy.columns and "num_train" not in wanted and "num_train" not in free:
        wanted["num_train"] = (ALL,) if any(row["num_train"] is None for row in tidy.rows) else ("*",)
    rows = list(tidy.rows)
    for column, choices in wanted.items():
        one_of(column, tidy.columns, f"column of {tidy.name}")
        known = list(dict.fromkeys(as_text(row[column]) for row in tidy.rows))
        matched = {text for choice in choices for text in _matching(choice, known, column, tidy.name)}
        rows = [row for row in rows if as_text(row[column]) in matched]
    if not rows:
        asked = ", ".join(f"{column}={';'.join(choices)}" for column, choices in wanted.items())
        raise UsageError(f"{tidy.name} has no row with {asked}.")
    return Tidy(tidy.name, tidy.columns, tuple(rows), tidy.about)


def _matching(choice: str, known: Sequence[str], column: str, name: str) -> list[str]:
    if "*" in choice:
        pattern = choice.replace("[", "[[]").replace("?", "[?]")
        found = [text for text in known if fnmatchcase(text, pattern)]
        if found:
            return found
    return [one_of(choice, known, f"{column} of {name}")]


def as_text(value: Any) -> str:
    """Write a value as a filter names it: numbers shortly, an empty cell as ``all``.

    Example:
        >>> as_text(4096.0), as_text(None), as_text("gue/tf_0")
        ('4096', 'all', 'gue/tf_0')
    """
    if value is None or value == "":
        return ALL
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else f"{value:.5g}"
    return str(value)


def seeds_of(rows: Iterable[Row], keys: Sequence[str], column: str = "value") -> dict[tuple[Any, ...], dict[Any, Any]]:
    """Group rows: {values of ``keys``: {seed: value of ``column``}}; undefined values are left out.

    Raises:
        UsageError: two rows have the same keys and seed, so that a filter is missing.
    """
    groups: dict[tuple[Any, ...], dict[Any, Any]] = {}
    first: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        key = tuple(row[name] for name in keys)
        members = groups.setdefault(key, {})
        if (*key, row["seed"]) in first:
            other = first[*key, row["seed"]]
            apart = [name for name in row if name not in IGNORED and row[name] != other[name]]
            what = ", ".join(map(as_text, (*key, row["seed"])))
            if not apart:
                raise UsageError(f"the table holds two lines for the same cell ({what}).")
            raise UsageError(
                f"several rows for {what}: they differ in {', '.join(apart)}; "
                f"choose, for example {apart[0]}={as_text(other[apart[0]])}."
            )
        first[*key, row["seed"]] = row
        if row[column] is not None:
            members[row["seed"]] = row[column]
    return {key: members for key, members in groups.items() if members}


IGNORED = frozenset(
    {"value", "valid", "valid_sd", "test", "low", "high", "seconds", "flags", "peak_memory_bytes", "chosen"}
    | {"storage_bytes", "trained_parameters", "train_rows", "test_rows", "wall_seconds"}
)
"""Columns that are measured, or follow from the others: two rows that differ only there are the same cell twice."""


def choose_by_validation(tidy: Tidy, group: str) -> dict[str, str]:
    """Name for each task the arm of a group with the best mean validation score; the test rows choose nothing.

    Raises:
        UsageError: the table has no groups or no validation scores, or a task no arm of the group.
    """
    for column in ("group", "valid"):
        if column not in tidy.columns:
            raise UsageError(f"{tidy.name} has no column '{column}', so the best {group} cannot be chosen.")
    rows = [row for row in tidy.rows if row["group"] == group]
    found = seeds_of(rows, ("task", "arm"), "valid")
    metrics = {row["task"]: row["metric"] for row in rows}
    chosen: dict[str, tuple[float, str]] = {}
    for (task, arm), seeds in found.items():
        score = sum(seeds.values()) / len(seeds) * (-1 if lower_is_better(metrics[task]) else 1)
        if task not in chosen or score > chosen[task][0]:
            chosen[task] = (score, arm)
    absent = [task for task in tidy.values("task") if task not in chosen]
    if absent:
        raise UsageError(f"{tidy.name} has no {group} with a validation score in the task '{absent[0]}'.")
    return {task: arm for task, (_, arm) in chosen.items()}
