"""The sections of a report as plain values: what a page shows and what its ``report.json`` holds.

Every section has a ``title`` and ``explain``, what the reader sees and how to read it. `longstrand.report.page` turns
sections into HTML; nothing here draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Cell = str | int | float | bool | None
Evaluation = Mapping[str, Any]
"""What `longstrand.evaluation.metrics.evaluate` returns."""

# What each metric means, in one sentence that needs no statistics course.
GLOSSARY: dict[str, tuple[str, str]] = {
    "accuracy": ("accuracy", "share of calls that are right."),
    "balanced_accuracy": ("balanced accuracy", "mean over the classes of the share found; guessing gives 1 / classes."),
    "f1": ("F1", "balance of finding all positives and calling few false ones; 1 is perfect, 0 the worst."),
    "f1_macro": ("F1, mean over classes", "balance of finding each class and calling few others so; 1 is perfect."),
    "f1_micro": ("F1, all labels pooled", "balance of finding all labels and calling few false ones; 1 is perfect."),
    "mcc": ("Matthews correlation", "agreement of call and truth: 1 is perfect, 0 is guessing, -1 is always wrong."),
    "mean_mcc": ("Matthews correlation, mean over labels", "agreement of call and truth: 1 is perfect, 0 is guessing."),
    "roc_auc": ("area under ROC", "how often a random positive scores above a random negative; guessing gives 0.5."),
    "mean_roc_auc": ("area under ROC, mean over labels", "how often a positive outscores a negative; guessing: 0.5."),
    "average_precision": ("average precision", "share of right calls over all thresholds; guessing: positives' share."),
    "mean_average_precision": ("average precision, mean over labels", "share of right calls over all thresholds."),
    "precision": ("precision", "share of the positive calls that are right."),
    "recall": ("recall", "share of the positives that were found."),
    "pearson": ("Pearson correlation", "linear agreement of prediction and measurement; 1 is perfect, 0 is none."),
    "spearman": ("Spearman correlation", "agreement in the order of prediction and measurement; 1 is perfect."),
    "r2": ("R squared", "share of the variation that the prediction explains; predicting the mean gives 0."),
    "mse": ("mean squared error", "mean squared distance of prediction and measurement; smaller is better."),
    "mae": ("mean absolute error", "mean distance of prediction and measurement, in its unit; smaller is better."),
    "loss": ("loss", "mean surprise about the right answer, in nats; smaller is better."),
}


def metric_title(name: str) -> str:
    """Return the full name of a metric, or the name itself."""
    return GLOSSARY.get(name.removeprefix("test_"), (name.replace("_", " "), ""))[0]


def metric_meaning(name: str) -> str:
    """Return the sentence that explains a metric, or an empty string."""
    return GLOSSARY.get(name.removeprefix("test_"), ("", ""))[1]


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
        style: ``points`` adds markers; ``faint`` and ``dashed`` are thinner.
        low, high: a band around the line, or empty.
        colour: a number of the palette; None: the next one.

    Raises:
        ValueError: x and y have different lengths.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: Literal["line", "points", "faint", "dashed"] = "line"
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
class Point:
    """A named point of a group; without x above zero, or without y, it is in the table only."""

    name: str
    group: str
    x: float | None
    y: float | None


@dataclass(frozen=True)
class Points(Section):
    """Points over a logarithmic axis; ``table`` as in `Curves`."""

    points: Sequence[Point]
    x_label: str
    y_label: str
    table: tuple[Sequence[str], Sequence[Sequence[Cell]]] | None = None


@dataclass(frozen=True)
class Grid(Section):
    """A table of scores, shaded within each column from the worst to the best; the best is bold.

    Attributes:
        rows: name of a row to its scores, one a column; None where there is none.
        lower: for each column whether lower is better.

    Raises:
        ValueError: a row has another number of scores than there are columns.
    """

    columns: Sequence[str]
    rows: Mapping[str, Sequence[float | None]]
    lower: Sequence[bool]

    def __post_init__(self) -> None:
        if any(len(scores) != len(self.columns) for scores in [*self.rows.values(), self.lower]):
            raise ValueError(f"a row of '{self.title}' has not {len(self.columns)} scores.")


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
class Confusion(Section):
    """How often each true class (row of ``counts``) was called each class (column)."""

    counts: Sequence[Sequence[int]]
    classes: Sequence[str]


@dataclass(frozen=True)
class RankedModel:
    """The curves of one model on one class, with the areas under them."""

    name: str
    fpr: Sequence[float]
    tpr: Sequence[float]
    recall: Sequence[float]
    precision: Sequence[float]
    roc_auc: float
    average_precision: float


@dataclass(frozen=True)
class Ranking(Section):
    """ROC and precision-recall curves; ``prevalence`` is the share of positives."""

    models: Sequence[RankedModel]
    prevalence: float


@dataclass(frozen=True)
class TokenLengths(Section):
    """How a tokenizer cuts DNA: length in bases to number of tokens, and the longest tokens with their counts."""

    bases: Mapping[int, int]
    longest: Sequence[tuple[str, int]]

    @property
    def mean(self) -> float:
        """Bases per token."""
        return sum(length * count for length, count in self.bases.items()) / max(1, sum(self.bases.values()))


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


def confusion(title: str, counts: Sequence[Sequence[int]], classes: Sequence[str]) -> Confusion:
    """Make the section on right and wrong calls."""
    explain = (
        "Each row is a true class, each column a call; the diagonal holds the right calls. "
        "The percentage is the share of the row: a perfect model shows 100 % on the diagonal."
    )
    return Confusion(title, explain, [[int(count) for count in row] for row in counts], classes)


def ranking(title: str, evaluations: Mapping[str, Evaluation], *, positive: str) -> Ranking:
    """Put the curves of several models on one test set into one picture.

    Args:
        title: heading.
        evaluations: model name to its evaluation with ``curves`` {class: {roc, pr}} and ``per_class``.
        positive: the class whose curves are drawn.

    Raises:
        ValueError: a model has no curves for this class.
    """
    models = []
    for name, evaluation in evaluations.items():
        curves = evaluation.get("curves", {}).get(positive)
        if not curves or not curves["roc"]["fpr"]:
            raise ValueError(f"'{name}' has no curves for the class '{positive}': the test set needs both classes.")
        areas = {key: float(evaluation["per_class"][positive][key]) for key in ("roc_auc", "average_precision")}
        models.append(RankedModel(name, **curves["roc"], **curves["pr"], **areas))
    per_class = next(iter(evaluations.values()))["per_class"]
    total = sum(entry["num_true"] for entry in per_class.values())
    explain = (
        f"The positives are '{positive}'. Left: a lower threshold finds more positives but also calls more negatives "
        "positive. Right: the share of right calls, for each share of positives found. Dashed: guessing."
    )
    return Ranking(title, explain, models, per_class[positive]["num_true"] / max(1, total))


def token_lengths(bases: Mapping[int, int], longest: Sequence[tuple[str, int]]) -> TokenLengths:
    """Make the section on how a tokenizer cuts DNA; see `TokenLengths`."""
    mean = TokenLengths("", "", bases, longest).mean
    explain = (
        f"The model reads tokens, not single bases: here one token covers {mean:.2f} bases on average, "
        f"so 512 tokens cover about {512 * mean:,.0f} bases. Long tokens are frequent words, mostly repeats."
    )
    return TokenLengths("How the tokenizer cuts DNA", explain, bases, longest)


def provenance_table(provenance: Mapping[str, Any], **files: Any) -> Table:
    """List what made the results: command, versions, machine, data fingerprints."""
    explain = "With the command, the data and the versions below, anyone can repeat these results."
    return Table("Where this comes from", explain, ["what", "value"], flatten({**files, **provenance}))


def flatten(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """List ``(dotted name, text)`` of a nested dictionary; lists are joined by spaces, None and "" are left out."""
    if isinstance(value, Mapping):
        return [pair for key in value for pair in flatten(value[key], f"{prefix}.{key}" if prefix else str(key))]
    text = " ".join(map(str, value)) if isinstance(value, list | tuple) else "" if value is None else str(value)
    return [(prefix, text)] if text else []
