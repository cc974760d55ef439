"""Bootstrap intervals of classification and regression metrics, vectorised over resamples.

Whole sequences are drawn with replacement. Every metric is computed from sums over sequences (cells of the confusion
matrix, counts by score bin, moments), so that one matrix product gives the sums of a block of resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import sparse
from scipy.stats import norm, rankdata
from scipy.stats import t as student

from longstrand.runtime import generator

Array = np.ndarray

MAX_BINS = 4096
"""Distinct scores that a resampled ROC or PR curve tells apart; more are joined by quantile (error below 1e-3)."""

_BLOCK_CELLS = 4_000_000


class Draws(Protocol):
    """Weights of units, draw by draw."""

    @property
    def num_units(self) -> int:
        """Return how many units there are."""

    @property
    def num_resamples(self) -> int:
        """Return how many draws."""

    def blocks(self) -> Iterator[Array]:
        """Give the weights in blocks: float64 (block, num_units)."""


def known_or_none(value: float) -> float | None:
    """Return a number, or None for NaN."""
    return None if np.isnan(value) else float(value)


def measure_draws(draws: Draws, measure: Callable[[Array], dict[str, Array]]) -> dict[str, Array]:
    """Apply a function to the weights of all draws, block by block: {metric: (num_resamples,)}; {} without draws.

    Args:
        draws: weights of units.
        measure: turns weights (block, num_units) into {metric: (block,)}.
    """
    blocks = [measure(weights) for weights in draws.blocks()]
    return {name: np.concatenate([block[name] for block in blocks]) for name in (blocks[0] if blocks else ())}


@dataclass(frozen=True)
class Resamples:
    """Draws of ``num_units`` independent units (sequences) with replacement.

    Attributes:
        num_units: sequences of the split.
        num_resamples: draws.
        seed: same seed, same draws, whatever the block size.
    """

    num_units: int
    num_resamples: int = 1000
    seed: int = 0

    def blocks(self) -> Iterator[Array]:
        """Give the multiplicities of the units in blocks: float64 (block, num_units), rows summing to num_units."""
        random, units = generator(self.seed, 0, "bootstrap"), self.num_units
        size = max(1, _BLOCK_CELLS // max(1, units))
        for start in range(0, self.num_resamples, size):
            rows = min(size, self.num_resamples - start)
            drawn = random.integers(0, units, (rows, units)) + units * np.arange(rows)[:, None]
            yield np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units).astype(np.float64)


SCALES = {"pearson": "fisher", "spearman": "fisher", "r2": "log", "mse": "log", "mae": "log"}
"""On which scale the error of a metric is about symmetric; all others have bounds and take Wilson's score interval."""

PRIOR_UNITS = 0.03
"""Units, worth one unit each, that a score interval adds: they keep it wide where resamples hardly vary."""


def interval(value: float, drawn: Array, metric: str, num_units: int) -> tuple[float, float]:
    """Return the 95 % interval of a metric: with the standard error of the resamples, on a scale that fits its bounds.

    Percentiles of resamples cover too little near a bound (measured: docs/STATISTICS.md). Metrics between 0 and 1, and
    Matthews correlations between -1 and 1, take Wilson's score interval of a share, with the number of units that
    would give a share this standard error; correlations are symmetric on Fisher's scale, errors and 1 - R2 on that of
    logarithms (delta method). Quantiles are Student's.

    Args:
        value: observed.
        drawn: resampled values; NaN (undefined resamples) are left out.
        metric: chooses the scale.
        num_units: independent units that the metric is made of (for areas under curves: of the rarer class).

    Returns:
        NaN twice if the value is undefined, or there are fewer than two units.
    """
    defined = drawn[~np.isnan(drawn)]
    if defined.size < 2 or np.isnan(value) or num_units < 2:
        return float("nan"), float("nan")
    error, scale = float(defined.std(ddof=1)), SCALES.get(metric, "share")
    quantile = float(student.ppf(0.975, num_units - 1))
    if scale == "fisher":
        inside = float(np.clip(value, -1 + 1e-9, 1 - 1e-9))
        ends = np.tanh(np.arctanh(inside) + np.array([-1, 1]) * quantile * error / (1 - inside**2))
    elif scale == "log":
        size = 1 - value if metric == "r2" else value
        factor = np.exp(quantile * error / size) if size > 0 else 1.0
        ends = 1 - size * np.array([factor, 1 / factor]) if metric == "r2" else size * np.array([1 / factor, factor])
    else:
        low, width = (-1.0, 2.0) if metric in ("mcc", "mean_mcc") else (0.0, 1.0)
        ends = low + width * _score_interval((value - low) / width, error / width, num_units, quantile)
    return float(min(ends[0], value)), float(max(ends[1], value))


def _score_interval(share: float, error: float, num_units: int, quantile: float) -> Array:
    """Return Wilson's interval of a share between 0 and 1 with a standard error."""
    if error == 0 and 0 < share < 1:
        return np.array([share, share])
    prior = PRIOR_UNITS / num_units
    units = (share * (1 - share) + prior) / (error**2 + prior / num_units)
    reach = quantile**2 / units
    half = quantile * np.sqrt(share * (1 - share) / units + reach / (4 * units))
    ends: Array = (share + reach / 2 + np.array([-half, half])) / (1 + reach)
    return ends


def paired_interval(value: float, drawn: Array) -> tuple[float, float]:
    """Return the 95 % interval of a difference: percentiles of its resamples, corrected for bias (Efron 1987).

    NaN (undefined resamples) are left out; NaN twice if nothing is left.
    """
    defined = drawn[~np.isnan(drawn)]
    if defined.size == 0 or np.isnan(value):
        return float("nan"), float("nan")
    below = ((defined < value).mean() + (defined <= value).mean()) / 2
    room = 1 / (2 * defined.size)
    shift = 2 * norm.ppf(np.clip(below, room, 1 - room))
    low, high = np.quantile(defined, norm.cdf(shift + norm.ppf([0.025, 0.975])))
    return float(min(low, value)), float(max(high, value))


def sum_over_units(unit: Array, cell: Array, *, num_units: int, num_cells: int) -> sparse.csr_matrix:
    """Count items by unit and cell: sparse float64 (num_units, num_cells)."""
    ones = np.ones(len(unit), dtype=np.float64)
    return sparse.csr_matrix((ones, (unit, cell)), shape=(num_units, num_cells))


def score_bins(scores: Array, max_bins: int = MAX_BINS) -> tuple[Array, int]:
    """Number scores by rank: ``(int64 (n,) bin of each, ascending; number of bins)``; equal scores share a bin."""
    distinct, bins = np.unique(scores, return_inverse=True)
    if len(distinct) > max_bins:
        edges = np.unique(np.quantile(scores, np.linspace(0, 1, max_bins + 1)[1:-1]))
        bins = np.searchsorted(edges, scores, side="right")
        return bins, len(edges) + 1
    return bins, len(distinct)


def roc_auc_from_bins(positive: Array, negative: Array) -> Array:
    """ROC-AUC of resamples from counts by score bin, both (block, bins) ascending; ties count half, else NaN."""
    num_positive, num_negative = positive.sum(axis=1), negative.sum(axis=1)
    negative_below = np.cumsum(negative, axis=1) - negative
    ordered = (positive * (negative_below + negative / 2)).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(num_positive * num_negative > 0, ordered / (num_positive * num_negative), np.nan)


def average_precision_from_bins(positive: Array, negative: Array) -> Array:
    """Average precision of resamples from counts by score bin, both (block, bins) ascending; NaN without positives."""
    hits = np.cumsum(positive[:, ::-1], axis=1)
    called = hits + np.cumsum(negative[:, ::-1], axis=1)
    num_positive = hits[:, -1]
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(called > 0, hits / called, 0.0)
        total = (precision * positive[:, ::-1]).sum(axis=1)
        return np.where(num_positive > 0, total / num_positive, np.nan)


def confusion_metrics(cells: Array) -> dict[str, Array]:
    """Compute metrics of confusion matrices.

    Args:
        cells: counts (block, num_classes, num_classes), true class by predicted class.

    Returns:
        ``accuracy``, ``balanced_accuracy``, ``f1_macro``, ``mcc`` (0 when undefined, as scikit-learn), each (block,);
        ``precision``, ``recall``, ``f1``, each (block, num_classes) (0 where undefined). Macro means go over classes
        that occur as truth or prediction.
    """
    correct = np.diagonal(cells, axis1=1, axis2=2)
    true, called, total = cells.sum(axis=2), cells.sum(axis=1), cells.sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = np.where(true > 0, correct / true, 0.0)
        precision = np.where(called > 0, correct / called, 0.0)
        f1 = np.where(true + called > 0, 2 * correct / (true + called), 0.0)
        covariance = correct.sum(axis=1) * total - (true * called).sum(axis=1)
        spread = np.sqrt((total**2 - (true**2).sum(axis=1)) * (total**2 - (called**2).sum(axis=1)))
        mcc = np.where(spread > 0, covariance / spread, 0.0)
        occurs, is_true = (true + called) > 0, true > 0
        f1_macro = (f1 * occurs).sum(axis=1) / occurs.sum(axis=1)
        balanced = (recall * is_true).sum(axis=1) / is_true.sum(axis=1)
        accuracy = correct.sum(axis=1) / total
    return {
        "accuracy": accuracy,
        "balanced_accuracy": balanced,
        "f1_macro": f1_macro,
        "mcc": mcc,
        "precision": precision,
        "recall": recall,
        "f1": f1,
    }


def correlation_metrics(weights: Array, truth: Array, predicted: Array) -> dict[str, Array]:
    """Pearson, R2, mean squared and absolute error of resamples by weighted moments (NaN for an empty resample).

    Args:
        weights: multiplicities (block, n).
        truth: (n,).
        predicted: (n,).
    """
    return _from_sums(weights @ _moment_columns(truth, predicted))


def correlations_of_units(resamples: Draws, unit: Array, truth: Array, predicted: Array) -> dict[str, Array]:
    """The metrics of `correlation_metrics`, and Spearman, when a unit (sequence) has many rows (bins).

    Rows are added up by unit first, so that a resample costs what its units cost, not its rows. Spearman is the
    correlation of the ranks in the whole sample: ranking every resample anew would change them little, and cost much.

    Args:
        resamples: draws of the units.
        unit: (n,) unit of each row.
        truth: (n,).
        predicted: (n,).

    Returns:
        {metric: (num_resamples,)}; NaN where undefined.
    """
    ranked = [rankdata(values) for values in (truth, predicted)]
    sums = [_sums_of_units(unit, _moment_columns(*pair), resamples.num_units) for pair in ((truth, predicted), ranked)]
    return measure_draws(
        resamples,
        lambda weights: _from_sums(weights @ sums[0]) | {"spearman": _from_sums(weights @ sums[1])["pearson"]},
    )


def _sums_of_units(unit: Array, columns: Array, num_units: int) -> Array:
    """Add up rows (n, m) by unit: (num_units, m)."""
    return np.stack([np.bincount(unit, column, minlength=num_units) for column in columns.T], axis=1)


def is_constant(values: Array) -> bool:
    """Return whether values differ by no more than the rounding of float64, whatever their scale."""
    return len(values) < 2 or bool(np.ptp(values) <= 1e-12 * np.abs(values).max())


def _moment_columns(truth: Array, predicted: Array) -> Array:
    """Return what has to be added up for `_from_sums`: (n, 9); both sides as deviations in units of their own."""
    scaled = []
    for values in (truth, predicted):
        scaled.append(np.zeros(len(values)) if is_constant(values) else (values - values.mean()) / values.std())
    error, square = truth - predicted, np.full(len(truth), truth.var())
    products = [scaled[0] ** 2, scaled[1] ** 2, scaled[0] * scaled[1]]
    return np.stack([np.ones(len(truth)), *scaled, *products, error**2, np.abs(error), square], axis=1)


def _from_sums(sums: Array) -> dict[str, Array]:
    """Return Pearson, R2, mean squared and absolute error from the sums (block, 9) of `_moment_columns`.

    Of a constant truth correlations and R2 are undefined (NaN); a constant prediction has the correlation 0.
    """
    total = np.where(sums[:, 0] > 0, sums[:, 0], np.nan)
    mean_t, mean_p, mean_tt, mean_pp, mean_tp, mse, mae, square = (sums[:, 1:] / total[:, None]).T
    var_t, var_p = mean_tt - mean_t**2, mean_pp - mean_p**2
    with np.errstate(invalid="ignore", divide="ignore"):
        pearson = np.where(var_p > 1e-12, (mean_tp - mean_t * mean_p) / np.sqrt(var_t * var_p), 0.0)
        pearson = np.where(var_t > 1e-12, pearson, np.nan)
        r2 = np.where(var_t > 1e-12, 1 - mse / (var_t * square), np.nan)
    return {"pearson": pearson, "r2": r2, "mse": mse, "mae": mae}


def spearman_of_resamples(weights: Array, truth: Array, predicted: Array) -> Array:
    """Spearman correlation of resamples: Pearson of mid-ranks within each resample; (block,)."""
    ranks = [_weighted_ranks(weights, values) for values in (truth, predicted)]
    total = np.where(weights.any(axis=1), weights.sum(axis=1), np.nan)
    first, second = (rank - ((weights * rank).sum(axis=1) / total)[:, None] for rank in ranks)
    covariance = (weights * first * second).sum(axis=1)
    spreads = [(weights * rank**2).sum(axis=1) for rank in (first, second)]
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.where(spreads[1] > 1e-9, covariance / np.sqrt(spreads[0] * spreads[1]), 0.0)
        return np.where(spreads[0] > 1e-9, found, np.nan)


def _weighted_ranks(weights: Array, values: Array) -> Array:
    """Mid-ranks of all items within each resample: (block, n)."""
    bins, num_bins = score_bins(values, max_bins=len(values))
    counts = sum_over_units(np.arange(len(values)), bins, num_units=len(values), num_cells=num_bins)
    by_bin = (counts.T @ weights.T).T
    middle = np.cumsum(by_bin, axis=1) - by_bin / 2
    ranks: Array = middle[:, bins]
    return ranks
