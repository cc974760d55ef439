"""Metrics of predictions with intervals; both come from the sums over sequences that `bootstrap` measures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn import metrics as sk

from longstrand.data.labelled import LabelledTable
from longstrand.data.targets import Task
from longstrand.evaluation import bootstrap
from longstrand.evaluation.bootstrap import Draws, Resamples, interval, measure_draws

Array = np.ndarray

CURVE_POINTS = 200
MAX_CURVES = 20

PRIMARY = {"single_label": "mcc", "multi_label": "mean_average_precision", "regression": "pearson", "token": "f1_macro"}
"""The metric that chooses the best checkpoint, by problem, unless the user names another one."""

METRICS: dict[str, tuple[str, ...]] = {
    "single_label": ("accuracy", "balanced_accuracy", "f1_macro", "mcc", "roc_auc", "average_precision"),
    "token": ("accuracy", "balanced_accuracy", "f1_macro", "mcc", "roc_auc", "average_precision"),
    "multi_label": ("mean_roc_auc", "mean_average_precision", "f1_macro", "f1_micro", "mean_mcc", "accuracy"),
    "regression": ("pearson", "spearman", "r2", "mse", "mae"),
}
"""The metrics that `evaluate` gives, by problem."""

LOWER_IS_BETTER = frozenset({"mse", "mae", "loss"})


@dataclass(frozen=True)
class Scores:
    """Targets and predictions of one split.

    Attributes:
        task: kind of problem and names of the outputs.
        targets: (n,) int class indices for single-label and token problems (negative = missing), else float
            (n, num_outputs) with NaN where missing. For token problems the bases of all sequences follow each other.
        values: float (n, num_outputs): class probabilities, label probabilities, or predicted numbers; NaN rows (bases
            past the truncation) are left out of every metric and counted.
        unit: (n,) number of the sequence of each row, for token problems; None means that each row is its own.
    """

    task: Task
    targets: Array
    values: Array
    unit: Array | None = None

    @classmethod
    def of(cls, table: LabelledTable, values: Any) -> Scores:
        """Join predictions with the targets of a table.

        Args:
            table: labelled rows; pieces of one sequence count as one unit.
            values: (n, num_outputs); for labels per base or bin an array (bases or bins, num_outputs) a row, or all of
                these below each other.
        """
        if isinstance(table.targets, np.ndarray):
            return cls(table.task, table.targets, np.asarray(values))
        parts = list(table.targets)
        targets, joined = np.concatenate(parts), np.concatenate(values) if isinstance(values, list) else values
        targets = targets.astype(np.int64) if table.task.problem == "token" else targets
        _, sequence = np.unique(table.raw.rows, return_inverse=True)
        return cls(table.task, targets, joined, np.repeat(sequence, [len(part) for part in parts]))

    @property
    def units(self) -> Array:
        """Return the number of the sequence of each row: int64 (n,)."""
        return np.arange(len(self.targets)) if self.unit is None else self.unit

    @property
    def num_units(self) -> int:
        """Return how many sequences there are, numbered from 0."""
        return int(self.units.max(initial=-1)) + 1

    @property
    def is_labelled(self) -> Array:
        """Return which rows have a target: bool (n,)."""
        known: Array = self.targets >= 0 if self.targets.ndim == 1 else ~np.isnan(self.targets).all(axis=1)
        return known

    @property
    def is_predicted(self) -> Array:
        """Return which rows the model predicted: bool (n,)."""
        found: Array = ~np.isnan(self.values).any(axis=1)
        return found

    def measurable(self) -> Scores:
        """Return the rows that have a target and a prediction."""
        both = self.is_labelled & self.is_predicted
        return Scores(self.task, self.targets[both], self.values[both], self.units[both])


def evaluate(scores: Scores, *, num_resamples: int = 1000, seed: int = 0, curves: bool = True) -> dict[str, Any]:
    """Compute all metrics of a split.

    Args:
        scores: targets and predictions.
        num_resamples: bootstrap resamples of the intervals; 0 leaves them out.
        seed: of the resamples.
        curves: also give the confusion matrix and ROC / PR curve points.

    Returns:
        ``problem``, ``primary`` (name of the main metric), ``num_evaluated``, ``num_not_predicted``,
        ``num_unlabelled``, ``undefined`` (classes or targets that means over classes leave out: no row, or every row,
        has them), ``metrics`` ({name: {value, low, high}}), ``per_class`` ({class or target: {name: value}}),
        ``constant_prediction`` (bool), and with ``curves``: ``confusion`` {classes, counts} and ``curves`` {class:
        {roc: {fpr, tpr}, pr: {recall, precision}, calibration: {predicted, observed, rows}}}. Values are NaN where a
        metric is undefined (one class, a constant target); a constant prediction has the correlation 0.
    """
    problem, kept = scores.task.problem, scores.measurable()
    report: dict[str, Any] = {
        "problem": problem,
        "primary": PRIMARY[problem],
        "num_evaluated": len(kept.targets),
        "num_not_predicted": int((scores.is_labelled & ~scores.is_predicted).sum()),
        "num_unlabelled": int((~scores.is_labelled).sum()),
        "num_resamples": num_resamples,
    }
    if len(kept.targets) == 0:
        return report | {"undefined": [], "metrics": {}, "per_class": {}, "constant_prediction": False}
    resamples = Resamples(scores.num_units, num_resamples, seed)
    if problem in ("single_label", "token"):
        report |= _evaluate_classes(kept, resamples, curves)
    elif problem == "multi_label":
        report |= _evaluate_labels(kept, resamples, curves)
    else:
        report |= _evaluate_numbers(kept, resamples)
    key = "pearson" if problem == "regression" else "roc_auc"
    report["undefined"] = [name for name, part in report["per_class"].items() if np.isnan(part.get(key, 0.0))]
    return report


def resampled(
    scores: Scores, *, num_resamples: int = 1000, seed: int = 0, metric: str | None = None, draws: Draws | None = None
) -> dict[str, Array]:
    """Compute every metric of `evaluate` on bootstrap resamples, for paired comparisons.

    Two models with predictions of the same rows get the same resamples (whole sequences, by ``seed``), so that the
    difference of their values is the paired bootstrap of the difference. With ``metric``, others may be left out.
    ``draws`` gives other weights than those of the bootstrap: an object with what `Resamples` has.

    Returns:
        {metric: (num_resamples,)}; NaN where a resample leaves a metric undefined.
    """
    resamples = draws or Resamples(scores.num_units, num_resamples, seed)
    kept, problem = scores.measurable(), scores.task.problem
    if problem in ("single_label", "token"):
        columns = _columns(len(scores.task.names)) if metric in (None, "roc_auc", "average_precision") else []
        return _resample_classes(kept, kept.values.argmax(axis=1), columns, resamples)
    if problem == "multi_label":
        found = _resample_labels(kept, resamples)
        return {_LABEL_NAMES.get(name, name): values for name, values in found.items()}
    drawn: dict[str, list[Array]] = {}
    for _, truth, predicted, unit in _numbers(kept):
        for name, values in _resample_numbers(truth, predicted, unit, resamples, metric).items():
            drawn.setdefault(name, []).append(values)
    return {name: _nanmean(np.stack(values)) for name, values in drawn.items()}


_LABEL_NAMES = {"roc_auc": "mean_roc_auc", "average_precision": "mean_average_precision"}


def primary_value(scores: Scores, metric: str) -> float:
    """Compute one metric without intervals or curves, for choosing checkpoints."""
    found = evaluate(scores, num_resamples=0, curves=False)["metrics"]
    return float(found[metric]["value"])


def _entry(name: str, value: float, drawn: Array | None, num_units: int) -> dict[str, float]:
    if drawn is None:
        return {"value": float(value)}
    low, high = interval(float(value), drawn, name, num_units)
    return {"value": float(value), "low": low, "high": high}


def _units_of_rarer(truth: Sequence[Array], unit: Sequence[Array], num_units: int) -> int:
    """Count the units of the rarer class, over all outputs: what an area under a curve is made of."""
    counts = [min(len(np.unique(unit[place][side])) for side in (yes, ~yes)) for place, yes in enumerate(truth)]
    return min(num_units, sum(counts))


def _columns(num_classes: int) -> list[int]:
    """Score columns that curves are drawn for: the second class of two, else each against the rest."""
    return [1] if num_classes == 2 else list(range(num_classes))


def _evaluate_classes(scores: Scores, resamples: Draws, curves: bool) -> dict[str, Any]:
    names = scores.task.names
    num_classes = len(names)
    called = scores.values.argmax(axis=1)
    truth = scores.targets.astype(np.int64)
    counts = _confusion(truth, called, num_classes)
    point = {name: values[0] for name, values in bootstrap.confusion_metrics(counts[None].astype(float)).items()}
    columns = _columns(num_classes)
    ranked = {column: _rank_metrics(truth == column, scores.values[:, column]) for column in columns}
    drawn = _resample_classes(scores, called, columns, resamples) if resamples.num_resamples else {}
    thresholded = ("accuracy", "balanced_accuracy", "f1_macro", "mcc")
    size = resamples.num_units
    entries = {name: _entry(name, point[name], drawn.get(name), size) for name in thresholded}
    size = _units_of_rarer([truth == column for column in columns], [scores.units] * len(columns), size)
    for position, name in enumerate(("roc_auc", "average_precision")):
        value = _mean([ranked[column][position] for column in columns])
        entries[name] = _entry(name, value, drawn.get(name), size)
    per_class = {}
    for number, name in enumerate(names):
        per_class[name] = {key: float(point[key][number]) for key in ("precision", "recall", "f1")}
        per_class[name]["num_true"] = int(counts[number].sum())
        per_class[name]["num_predicted"] = int(counts[:, number].sum())
        if number in ranked:
            per_class[name]["roc_auc"], per_class[name]["average_precision"] = ranked[number]
    num_called, num_true = (int((counts.sum(axis=axis) > 0).sum()) for axis in (0, 1))
    report = {"metrics": entries, "per_class": per_class, "constant_prediction": num_called == 1 and num_true > 1}
    if curves:
        report["confusion"] = {"classes": list(names), "counts": counts.tolist()}
        report["curves"] = {
            names[column]: _curve_points(truth == column, scores.values[:, column]) for column in columns[:MAX_CURVES]
        }
    return report


def _resample_classes(scores: Scores, called: Array, columns: list[int], resamples: Draws) -> dict[str, Array]:
    """Resampled metrics of a class problem: {name: (num_resamples,)}."""
    num_classes = len(scores.task.names)
    truth, unit = scores.targets.astype(np.int64), scores.units
    shape = {"num_units": resamples.num_units}
    cells = bootstrap.sum_over_units(unit, truth * num_classes + called, num_cells=num_classes**2, **shape)
    histograms = [_histograms(truth == k, scores.values[:, k], unit, resamples.num_units) for k in columns]

    def measure(weights: Array) -> dict[str, Array]:
        matrices = (cells.T @ weights.T).T.reshape(len(weights), num_classes, num_classes)
        block = {name: values for name, values in bootstrap.confusion_metrics(matrices).items() if values.ndim == 1}
        return block | (_rank_block(histograms, weights) if histograms else {})

    return measure_draws(resamples, measure)


def _evaluate_labels(scores: Scores, resamples: Draws, curves: bool) -> dict[str, Any]:
    names = scores.task.names
    known = ~np.isnan(scores.targets)
    truth, called = scores.targets > 0.5, scores.values >= 0.5
    per_class: dict[str, dict[str, float]] = {}
    confusions = []
    for number, name in enumerate(names):
        rows = known[:, number]
        counts = _confusion(truth[rows, number], called[rows, number], 2)
        confusions.append(counts)
        auc, precision = _rank_metrics(truth[rows, number], scores.values[rows, number])
        quality = bootstrap.confusion_metrics(counts[None].astype(float))
        per_class[name] = {
            "roc_auc": auc,
            "average_precision": precision,
            "f1": float(quality["f1"][0, 1]),
            "mcc": float(quality["mcc"][0]),
            "num_true": int(counts[1].sum()),
            "num_predicted": int(counts[:, 1].sum()),
        }
    point = _label_point(np.stack(confusions)[None].astype(float))
    drawn = _resample_labels(scores, resamples) if resamples.num_resamples else {}
    sides = [truth[rows, place] for place, rows in enumerate(known.T)]
    size = _units_of_rarer(sides, [scores.units[rows] for rows in known.T], resamples.num_units)
    entries = {
        title: _entry(title, _mean([part[name] for part in per_class.values()]), drawn.get(name), size)
        for name, title in _LABEL_NAMES.items()
    }
    entries |= {name: _entry(name, values[0], drawn.get(name), resamples.num_units) for name, values in point.items()}
    constant = len(truth) > 1 and bool((called == called[:1]).all()) and not bool((truth == truth[:1]).all())
    report: dict[str, Any] = {"metrics": entries, "per_class": per_class, "constant_prediction": constant}
    if curves:
        report["confusion"] = {
            "labels": list(names),
            "classes": ["no", "yes"],
            "counts": [counts.tolist() for counts in confusions],
        }
        report["curves"] = {
            name: _curve_points(truth[known[:, number], number], scores.values[known[:, number], number])
            for number, name in list(enumerate(names))[:MAX_CURVES]
        }
    return report


def _label_point(cells: Array) -> dict[str, Array]:
    """Metrics of thresholded labels from confusion matrices (block, labels, 2, 2)."""
    block, num_labels = cells.shape[:2]
    single = bootstrap.confusion_metrics(cells.reshape(-1, 2, 2))
    pooled = bootstrap.confusion_metrics(cells.sum(axis=1))
    return {
        "f1_macro": single["f1"][:, 1].reshape(block, num_labels).mean(axis=1),
        "f1_micro": pooled["f1"][:, 1],
        "mean_mcc": single["mcc"].reshape(block, num_labels).mean(axis=1),
        "accuracy": pooled["accuracy"],
    }


def _resample_labels(scores: Scores, resamples: Draws) -> dict[str, Array]:
    unit = scores.units
    known = ~np.isnan(scores.targets)
    histograms, cells = [], []
    for number in range(len(scores.task.names)):
        rows = known[:, number]
        truth, values = scores.targets[rows, number] > 0.5, scores.values[rows, number]
        histograms.append(_histograms(truth, values, unit[rows], resamples.num_units))
        cell = truth * 2 + (values >= 0.5)
        cells.append(bootstrap.sum_over_units(unit[rows], cell, num_units=resamples.num_units, num_cells=4))

    def measure(weights: Array) -> dict[str, Array]:
        matrices = np.stack([(table.T @ weights.T).T.reshape(-1, 2, 2) for table in cells], axis=1)
        return _label_point(matrices) | _rank_block(histograms, weights)

    return measure_draws(resamples, measure)


def _evaluate_numbers(scores: Scores, resamples: Draws) -> dict[str, Any]:
    per_target: dict[str, dict[str, float]] = {}
    drawn: dict[str, list[Array]] = {}
    for name, truth, predicted, unit in _numbers(scores):
        if len(truth):
            point = _number_metrics(truth, predicted, np.ones((1, len(truth))))
        else:
            point = dict.fromkeys(METRICS["regression"], np.full(1, np.nan))
        per_target[name] = {key: float(point[key][0]) for key in METRICS["regression"]} | {"num_evaluated": len(truth)}
        if len(truth) > 1:
            for key, values in _resample_numbers(truth, predicted, unit, resamples).items():
                drawn.setdefault(key, []).append(values)
    entries = {}
    for key in METRICS["regression"]:
        mean = _mean([values[key] for values in per_target.values()])
        resampled = _nanmean(np.stack(drawn[key])) if key in drawn else None
        entries[key] = _entry(key, mean, resampled, resamples.num_units)
    predictions = scores.values.astype(np.float64)
    spread, wanted = predictions.std(axis=0), np.nanstd(scores.targets, axis=0)
    constant = len(predictions) > 1 and bool((spread <= 1e-3 * wanted).all())
    return {"metrics": entries, "per_class": per_target, "constant_prediction": constant}


def _numbers(scores: Scores) -> Iterator[tuple[str, Array, Array, Array]]:
    """Give name, truth, prediction and unit of the known rows of each target."""
    for number, name in enumerate(scores.task.names):
        rows = ~np.isnan(scores.targets[:, number])
        truth, predicted = (values[rows, number].astype(np.float64) for values in (scores.targets, scores.values))
        yield name, truth, predicted, scores.units[rows]


def _resample_numbers(
    truth: Array, predicted: Array, unit: Array, resamples: Draws, metric: str | None = None
) -> dict[str, Array]:
    if len(unit) > resamples.num_units:
        return bootstrap.correlations_of_units(resamples, unit, truth, predicted)
    return measure_draws(resamples, lambda weights: _number_metrics(truth, predicted, weights[:, unit], metric))


def _number_metrics(truth: Array, predicted: Array, rows: Array, metric: str | None = None) -> dict[str, Array]:
    """Measure numbers with weights of rows (block, n): {metric: (block,)}; only Spearman, the slow one, is left out."""
    block = bootstrap.correlation_metrics(rows, truth, predicted)
    if metric in (None, "spearman"):
        block["spearman"] = bootstrap.spearman_of_resamples(rows, truth, predicted)
    return block


Histograms = tuple[Any, Any]


def _histograms(truth: Array, values: Array, unit: Array, num_units: int) -> Histograms:
    """Counts of positives and of negatives by unit and score bin (sparse)."""
    bins, num_bins = bootstrap.score_bins(values)
    shape = {"num_units": num_units, "num_cells": num_bins}
    positive, negative = truth.astype(bool), ~truth.astype(bool)
    return (
        bootstrap.sum_over_units(unit[positive], bins[positive], **shape),
        bootstrap.sum_over_units(unit[negative], bins[negative], **shape),
    )


def _rank_block(histograms: Sequence[Histograms], weights: Array) -> dict[str, Array]:
    """Mean ROC-AUC and average precision over outputs, for a block of resamples."""
    aucs, precisions = [], []
    for positive, negative in histograms:
        counts = (positive.T @ weights.T).T, (negative.T @ weights.T).T
        aucs.append(bootstrap.roc_auc_from_bins(*counts))
        precisions.append(bootstrap.average_precision_from_bins(*counts))
    return {"roc_auc": _nanmean(np.stack(aucs)), "average_precision": _nanmean(np.stack(precisions))}


def _confusion(truth: Array, called: Array, num_classes: int) -> Array:
    """Count rows by true and by predicted class: int64 (num_classes, num_classes)."""
    return np.bincount(truth * num_classes + called, minlength=num_classes**2).reshape(num_classes, num_classes)


def _rank_metrics(truth: Array, values: Array) -> tuple[float, float]:
    """ROC-AUC and average precision; NaN if only one class is there."""
    if truth.all() or not truth.any():
        return float("nan"), float("nan")
    bins, num_bins = bootstrap.score_bins(values, max_bins=len(values))
    counts = [np.bincount(bins[side], minlength=num_bins)[None].astype(float) for side in (truth, ~truth)]
    return float(bootstrap.roc_auc_from_bins(*counts)[0]), float(bootstrap.average_precision_from_bins(*counts)[0])


def _curve_points(truth: Array, values: Array) -> dict[str, dict[str, list[float]]]:
    """ROC and PR curves of at most `CURVE_POINTS` points each, and calibration; empty if undefined."""
    if truth.all() or not truth.any():
        return {"roc": {"fpr": [], "tpr": []}, "pr": {"recall": [], "precision": []}}
    fpr, tpr, _ = sk.roc_curve(truth, values)
    precision, recall, _ = sk.precision_recall_curve(truth, values)
    return {
        "roc": {"fpr": _thin(fpr), "tpr": _thin(tpr)},
        "pr": {"recall": _thin(recall[::-1]), "precision": _thin(precision[::-1])},
        "calibration": _calibration(truth, values),
    }


def groups_by_size(values: Array, groups: int) -> Array:
    """Number groups of about equal size from the lowest value to the highest (n,); equal values share one."""
    found = np.empty(len(values), dtype=np.int64)
    found[np.argsort(values, kind="stable")] = np.arange(len(values)) * min(groups, len(values)) // max(1, len(values))
    _, first = np.unique(values, return_index=True)
    return found[first][np.searchsorted(values[first], values)]


def _calibration(truth: Array, values: Array, groups: int = 10) -> dict[str, list[float]]:
    """Compare predicted probabilities with what is true, in groups from the lowest to the highest."""
    _, group, rows = np.unique(groups_by_size(values, groups), return_inverse=True, return_counts=True)
    sums = {"predicted": np.bincount(group, values), "observed": np.bincount(group, truth)}
    return {name: [round(float(one), 5) for one in each / rows] for name, each in sums.items()} | {
        "rows": rows.tolist()
    }


def _thin(points: Array) -> list[float]:
    chosen = np.unique(np.linspace(0, len(points) - 1, min(len(points), CURVE_POINTS)).round().astype(int))
    return [round(float(value), 5) for value in points[chosen]]


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if value == value]
    return float(np.mean(defined)) if defined else float("nan")


def _nanmean(values: Array) -> Array:
    """Mean over the first axis without NaN; NaN where all are."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=0)
    return np.where(count > 0, np.where(defined, values, 0).sum(axis=0) / np.maximum(count, 1), np.nan)
