"""The sections of a report as plain values: what a page shows and what its ``report.json`` holds.

Every section has a ``title`` and ``explain``, what the reader sees and how to read it. `longstrand.report.page` turns
sections into HTML; nothing here draws.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import yaml

from longstrand.runtime import fingerprint_file

Cell = str | int | float | bool | Mapping[str, Any] | None
"""A value, or ``value`` and some of: ``note``, ``colour`` (of a dot), ``shade`` (0 to 1), ``bold``, ``link``."""
Evaluation = Mapping[str, Any]
"""What `longstrand.evaluation.metrics.evaluate` returns."""


@cache
def glossary() -> dict[str, list[str]]:
    """Read what each metric means: its full name and one sentence."""
    return yaml.safe_load(resources.files("longstrand.report").joinpath("metrics.yaml").read_text())


@cache
def _texts() -> dict[str, str]:
    return yaml.safe_load(resources.files("longstrand.report").joinpath("texts.yaml").read_text())


def text(name: str, **values: Any) -> str:
    """Return what a reader is told about a section (``texts.yaml``), with values filled in."""
    return _texts()[name].format_map(values)


def metric_title(name: str) -> str:
    """Return the full name of a metric, or the name itself."""
    return glossary().get(name.removeprefix("test_"), [name.replace("_", " "), ""])[0]


def metric_meaning(name: str) -> str:
    """Return the sentence that explains a metric, or an empty string."""
    return glossary().get(name.removeprefix("test_"), ["", ""])[1]


@dataclass(frozen=True)
class Section:
    """A heading and how to read what follows; alone it is a paragraph."""

    title: str
    explain: str


@dataclass(frozen=True)
class Table(Section):
    """A table; every row has one cell a column. None is shown as a dash."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Line:
    """A named line.

    Attributes:
        x: places, ascending.
        y: heights, as many.
        style: ``points`` adds markers; ``dots`` draws them alone; ``faint`` and ``dashed`` are thinner.
        low, high: a band around the line, or empty.
        colour: a number of the palette; None: the next one.

    Raises:
        ValueError: x and y have different lengths.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: Literal["line", "points", "dots", "faint", "dashed"] = "line"
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    colour: int | None = None

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ValueError(f"line '{self.name}' has {len(self.x)} x but {len(self.y)} y values.")


@dataclass(frozen=True)
class Curves(Section):
    """Lines over a common axis, with dashed horizontal ``references`` (name to height) and the numbers as a table.

    ``table`` (columns, rows) replaces the ends of each line in the table under the picture.
    """

    lines: Sequence[Line]
    x_label: str
    y_label: str
    references: Mapping[str, float] = field(default_factory=dict)
    log: bool = False
    table: tuple[Sequence[str], Sequence[Sequence[Cell]]] | None = None


@dataclass(frozen=True)
class Boxes(Section):
    """Boxes side by side, with numbers as a table (columns, rows) under the picture.

    Attributes:
        boxes: name to five numbers: low end, quartile, median, quartile, high end.
        y_label: what they measure, with its unit.
        table: columns and rows.
    """

    boxes: Mapping[str, Sequence[float]]
    y_label: str
    table: tuple[Sequence[str], Sequence[Sequence[Cell]]]


@dataclass(frozen=True)
class MetricRow:
    """A metric of a model: mean over seeds, ends of its 95 % interval, values of the single seeds."""

    model: str
    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    seeds: Sequence[float] = ()


@dataclass(frozen=True)
class Metrics(Section):
    """The table of all metrics and the dot plot of the ``main`` one.

    ``groups``: model to the kind it belongs to; a kind has one colour. Empty: each model has its own.

    Raises:
        ValueError: no row has the main metric.
    """

    rows: Sequence[MetricRow]
    main: str
    groups: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not any(row.metric == self.main for row in self.rows):
            raise ValueError(f"no row has the metric '{self.main}'; there are {sorted({r.metric for r in self.rows})}.")


@dataclass(frozen=True)
class Ranking(Section):
    """ROC and precision-recall curves.

    Attributes:
        models: name to ``fpr``, ``tpr``, ``recall``, ``precision`` (lists), ``roc_auc`` and ``average_precision``.
        prevalence: share of positives.
    """

    models: Mapping[str, Mapping[str, Any]]
    prevalence: float


@dataclass(frozen=True)
class Commands(Section):
    """Commands to copy, each with what it does: (what, command)."""

    commands: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Report:
    """A whole report. ``facts`` are further values of ``report.json`` that the page does not show."""

    title: str
    sections: Sequence[Section]
    subtitle: str = ""
    summary: Sequence[str] = ()
    warnings: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


def metric_rows(model: str, evaluations: Sequence[Evaluation]) -> list[MetricRow]:
    """Average the evaluations of one model, one per seed: a row a metric, with the mean of value and interval ends."""
    rows = []
    for name in evaluations[0]["metrics"]:
        entries = [evaluation["metrics"][name] for evaluation in evaluations]
        value, low, high = (_mean([entry.get(key) for entry in entries]) for key in ("value", "low", "high"))
        rows.append(MetricRow(model, name, value, low, high, [entry["value"] for entry in entries]))
    return rows


def _mean(values: Sequence[float | None]) -> float | None:
    known = [float(value) for value in values if value is not None and value == value]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def confusion(title: str, counts: Sequence[Sequence[int]], classes: Sequence[str]) -> Table:
    """Tabulate how often each true class (row) was called each class (column), shaded by the share of the row."""
    explain = text("confusion")
    rows = []
    for name, line in zip(classes, counts):
        shares = [count / max(1, sum(line)) for count in line]
        cells = [{"value": int(count), "note": f"{100 * s:.0f} %", "shade": s} for count, s in zip(line, shares)]
        rows.append([name, *cells])
    return Table(title, explain, ["true \\ predicted", *classes], rows)


def grid(
    title: str, explain: str, columns: Sequence[str], rows: Mapping[str, Sequence[float | None]], lower: Sequence[bool]
) -> Table:
    """Tabulate scores, shaded within each column from the worst to the best; the best is bold.

    Args:
        title: heading.
        explain: how to read it.
        columns: heads of the scores.
        rows: name of a row to its scores, one a column; None where there is none.
        lower: for each column whether lower is better.
    """
    signs = [-1 if each else 1 for each in lower]
    known = [[sign * score for score in scores if score is not None]
             for sign, scores in zip(signs, zip(*rows.values(), strict=True))]  # fmt: skip
    lines = []
    for name, scores in rows.items():
        cells: list[Cell] = [name]
        for score, sign, column in zip(scores, signs, known, strict=True):
            share = 0.0 if score is None else (sign * score - min(column)) / ((max(column) - min(column)) or 1.0)
            best = score is not None and sign * score == max(column)
            cells.append({"value": score, "shade": round(share * share, 3), "bold": best})
        lines.append(cells)
    return Table(title, explain, ["", *columns], lines)


def ranking(title: str, evaluations: Mapping[str, Evaluation], *, positive: str) -> Ranking:
    """Put the curves of several models on one test set into one picture.

    Args:
        title: heading.
        evaluations: model name to its evaluation with ``curves`` {class: {roc, pr}} and ``per_class``.
        positive: the class whose curves are drawn.

    Raises:
        ValueError: a model has no curves for this class.
    """
    models = {}
    for name, evaluation in evaluations.items():
        curves = evaluation.get("curves", {}).get(positive)
        if not curves or not curves["roc"]["fpr"]:
            raise ValueError(f"'{name}' has no curves for the class '{positive}': the test set needs both classes.")
        areas = {key: float(evaluation["per_class"][positive][key]) for key in ("roc_auc", "average_precision")}
        models[name] = {**curves["roc"], **curves["pr"], **areas}
    per_class = next(iter(evaluations.values()))["per_class"]
    total = sum(entry["num_true"] for entry in per_class.values())
    explain = text("ranking", positive=positive)
    return Ranking(title, explain, models, per_class[positive]["num_true"] / max(1, total))


def histogram(
    title: str, explain: str, values: Mapping[str, npt.ArrayLike], x_label: str, *, bins: int | None = None
) -> Curves:
    """Draw how numbers spread, one line a name over common bins, with percentiles as the table; NaN is left out.

    Raises:
        ValueError: there is no number at all.
    """
    kept = {name: np.asarray(array, dtype=np.float64).ravel() for name, array in values.items()}
    kept = {name: array[np.isfinite(array)] for name, array in kept.items()}
    kept = {name: array for name, array in kept.items() if len(array)}
    if not kept:
        raise ValueError(f"'{title}' has no number to draw.")
    low, high = min(array.min() for array in kept.values()), max(array.max() for array in kept.values())
    bins = bins or int(np.clip(np.sqrt(max(map(len, kept.values()))), 8, 40))
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    middle = ((edges[1:] + edges[:-1]) / 2).tolist()
    lines = [Line(name, middle, (np.histogram(array, edges)[0] / len(array)).tolist()) for name, array in kept.items()]
    shares = (1, 5, 25, 50, 75, 95, 99)
    rows = [[name, len(array), *np.percentile(array, shares).tolist()] for name, array in kept.items()]
    table = (["", "number", *(f"{share} %" for share in shares)], rows)
    return Curves(title, explain, lines, x_label, "share", table=table)


def calibration(title: str, evaluations: Mapping[str, Evaluation], *, positive: str) -> Curves | None:
    """Draw the share of true positives against the predicted probability, for the models that have both.

    Args:
        title: heading.
        evaluations: model name to its evaluation, whose ``curves`` hold ``calibration`` {predicted, observed, rows}.
        positive: the class.

    Returns:
        None if no model has the numbers (fewer rows than bins).
    """
    drawn = {name: found.get("curves", {}).get(positive, {}).get("calibration") for name, found in evaluations.items()}
    known = {name: found for name, found in drawn.items() if found and len(found["predicted"]) > 1}
    if not known:
        return None
    lines = [Line(name, found["predicted"], found["observed"], "points") for name, found in known.items()]
    lines.append(Line("perfect", [0.0, 1.0], [0.0, 1.0], "dashed", colour=3))
    rows = [
        [name, *cells]
        for name, found in known.items()
        for cells in zip(found["rows"], found["predicted"], found["observed"])
    ]
    table = (["model", "rows", "mean predicted probability", "share of true positives"], rows)
    labels = {"x_label": f"predicted probability of '{positive}'", "y_label": "share that is true"}
    return Curves(title, text("calibration"), lines, **labels, table=table)


def files_table(paths: Sequence[Path], *, folder: Path, longest: int = 60) -> Table:
    """List files with their sizes and hashes, as links from a page in ``folder``; folders are listed file by file."""
    found = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    found = [file for file in found if file.is_file() and file.name not in ("report.html", "report.json")]
    rows: list[list[Cell]] = []
    for file in found[:longest]:
        link = Path(os.path.relpath(file, folder)).as_posix()
        size = file.stat().st_size
        rows.append([{"value": link, "link": link}, size, fingerprint_file(file).removeprefix("sha256:")])
    left = f" The first {longest} of {len(found):,} files." if len(found) > longest else ""
    return Table("Files", f"What was written; the hash tells whether a copy is complete.{left}",
                 ["file", "bytes", "SHA-256"], rows)  # fmt: skip


def provenance_table(provenance: Mapping[str, Any], **files: Any) -> Table:
    """List what made the results: command, versions, machine, data fingerprints."""
    explain = "With the command, the data and the versions below, anyone can repeat these results."
    rows = [(name.replace(".", ": ", 1), value) for name, value in flatten({**files, **provenance})]
    return Table("Where this comes from", explain, ["what", "value"], rows)


def flatten(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """List ``(dotted name, text)`` of a nested dictionary; lists are joined by spaces, None and "" are left out."""
    if isinstance(value, Mapping):
        return [pair for key in value for pair in flatten(value[key], f"{prefix}.{key}" if prefix else str(key))]
    text = " ".join(map(str, value)) if isinstance(value, list | tuple) else "" if value is None else str(value)
    return [(prefix, text)] if text else []
