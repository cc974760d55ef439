"""Do probabilities mean what they say? Reliability, expected calibration error, and the temperature that mends it.

Rows are sorted by the probability that was said and cut into bins of equal size; in each bin the mean probability
stands beside the share of rows in which it was right. Of two classes the second one's probability counts, of more the
highest one's, of labels every label's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from longstrand.errors import InputError
from longstrand.evaluation.bootstrap import Resamples, interval
from longstrand.evaluation.metrics import Scores, groups_by_size
from longstrand.runtime import generator

BINS = 10
DRAWS = 200
"""Sets of labels drawn from the probabilities themselves, for the error of a model that is calibrated."""
RANGE = (-4.0, 4.0)
"""Natural logarithm of the temperatures that are searched."""


def statements(scores: Scores) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """List what was said with a probability: probability, whether it holds, number of the sequence; each (n,)."""
    kept = scores.measurable()
    values, targets, units = kept.values.astype(np.float64), kept.targets, kept.units
    if scores.task.problem == "multi_label":
        known = ~np.isnan(targets)
        return values[known], targets[known] > 0.5, np.broadcast_to(units[:, None], known.shape)[known]
    if values.shape[1] == 2:
        return values[:, 1], targets == 1, units
    return values.max(1), values.argmax(1) == targets, units


def calibration(scores: Scores, *, num_resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Measure how far probabilities are from the shares of rows in which they are right.

    Args:
        scores: class or label probabilities with targets.
        num_resamples: bootstrap resamples (of sequences) of the interval; 0 leaves it out.
        seed: of the resamples.

    Returns:
        ``ece`` {value, low, high}: mean distance over bins, weighted by their rows; ``ece_if_calibrated``: its mean for
        labels drawn from these probabilities, below which no model of so many rows can be told from a calibrated one.
        Empty for regression, or without rows.
    """
    if scores.task.problem == "regression":
        return {}
    said, right, units = statements(scores)
    if not len(said):
        return {}
    bins = groups_by_size(said, BINS)
    size, number = int(bins.max()) + 1, scores.num_units
    gaps = _sums(units, bins, right - said, number, size)
    value = float(np.abs(gaps.sum(0)).sum() / len(said))
    entry: dict[str, float] = {"value": value}
    if num_resamples:
        rows = _sums(units, bins, np.ones(len(said)), number, size).sum(1)
        drawn = np.concatenate([
            np.abs(weights @ gaps).sum(1) / np.maximum(weights @ rows, 1)
            for weights in Resamples(number, num_resamples, seed).blocks()
        ])  # fmt: skip
        low, high = interval(value, drawn, "ece", number)
        entry |= {"low": low, "high": high}
    random = generator(seed, 0, "calibration")
    null = [np.abs(np.bincount(bins, (random.random(len(said)) < said) - said, size)).sum() for _ in range(DRAWS)]
    return {"ece": entry, "ece_if_calibrated": float(np.mean(null) / len(said))}


def _sums(units: np.ndarray, bins: np.ndarray, values: np.ndarray, num_units: int, num_bins: int) -> np.ndarray:
    """Add up values by unit and bin, (num_units, num_bins)."""
    cells = np.bincount(units * num_bins + bins, values, minlength=num_units * num_bins)
    return cells.reshape(num_units, num_bins)


def fit_temperature(logits: np.ndarray, scores: Scores) -> float:
    """Find the number that logits are divided by for the smallest log loss (Guo et al. 2017).

    Args:
        logits: (n, num_outputs), as they were before they became probabilities.
        scores: with the targets of the same rows.

    Returns:
        Above 1: the model was too sure. The calls do not change.

    Raises:
        InputError: no row has a target and a prediction, or the calls are all right (or all wrong), so that no
            temperature is best.
    """
    labels = scores.task.problem == "multi_label"
    known = scores.is_labelled & ~np.isnan(logits).any(1)
    z, targets = logits[known].astype(np.float64), scores.targets[known]
    if not len(z):
        raise InputError("no row has a label and a prediction, so no temperature can be fitted.")

    def loss(log_temperature: float) -> float:
        scaled = z / np.exp(log_temperature)
        if labels:
            return float(np.nanmean(np.logaddexp(0, scaled) - targets * scaled))
        return float((np.logaddexp.reduce(scaled, 1) - scaled[np.arange(len(scaled)), targets]).mean())

    best = float(minimize_scalar(loss, bounds=RANGE, method="bounded", options={"xatol": 1e-4}).x)
    if min(map(loss, RANGE)) <= loss(best) + 1e-9:
        raise InputError(
            "these rows have no best temperature: the model is right (or wrong) wherever it is sure; give other "
            "validation rows, or more."
        )
    return float(np.exp(best))
