"""The paired permutation test of two models: would the difference be as large if the models were interchangeable?

Under that hypothesis each test sequence could as well have been answered the other way round. Every permutation swaps
the answers of the two models for a random half of the sequences (all seeds and all bases of a sequence together) and
measures the metric of both again; p is the share of permutations, the one that swaps nothing included, whose difference
is at least as large in either direction (approximate randomisation; Noreen 1989, Edgington and Onghena 2007). With few
sequences all swaps are tried, and p is exact.

Metrics that only see the order of predictions (areas under curves, Spearman) or do not see their scale (Pearson) would
be blurred by swapping answers of models that use different scales. For these each model's predictions are turned into
ranks, or standardised, before they are swapped, which leaves the metrics of the models as they are (Venkatraman and
Begg 1996).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from longstrand.evaluation.metrics import Scores, resampled
from longstrand.runtime import generator

ORDERED = frozenset({"roc_auc", "average_precision", "mean_roc_auc", "mean_average_precision", "spearman"})
_BLOCK_CELLS = 4_000_000
_CLOSE = 1e-9


@dataclass(frozen=True)
class Swaps:
    """Which of both answers a model has for each sequence: draws for `longstrand.evaluation.metrics.resampled`.

    Units 0 to n - 1 are the answers of the first model, n to 2 n - 1 those of the second. The first draw swaps nothing.

    Attributes:
        num_sequences: n.
        num_permutations: random swaps; all 2 ** n if those are no more.
        seed: of the swaps.
        other: give what is left for the second model.
    """

    num_sequences: int
    num_permutations: int
    seed: int
    other: bool = False

    @property
    def is_exact(self) -> bool:
        """Whether every swap is tried."""
        return self.num_sequences < 64 and 2**self.num_sequences <= self.num_permutations

    @property
    def num_units(self) -> int:
        """Answers of both models."""
        return 2 * self.num_sequences

    @property
    def num_resamples(self) -> int:
        """Draws, the one without a swap included."""
        return 2**self.num_sequences if self.is_exact else self.num_permutations + 1

    def blocks(self) -> Iterator[np.ndarray]:
        """Give the weights (0 or 1) of the units in blocks: float64 (block, 2 n)."""
        size = max(1, _BLOCK_CELLS // max(1, self.num_units))
        for start in range(0, self.num_resamples, size):
            swapped = np.stack([self._draw(index) for index in range(start, min(start + size, self.num_resamples))])
            first = np.concatenate([1.0 - swapped, swapped], axis=1)
            yield 1.0 - first if self.other else first

    def _draw(self, index: int) -> np.ndarray:
        if self.is_exact:
            return np.array([index >> place & 1 for place in range(self.num_sequences)], dtype=np.float64)
        if index == 0:
            return np.zeros(self.num_sequences)
        return generator(self.seed, index, "swapped answers").integers(0, 2, self.num_sequences).astype(np.float64)


def permutation_test(
    ours: Sequence[Scores],
    theirs: Sequence[Scores],
    metric: str,
    *,
    num_permutations: int = 1000,
    seed: int = 0,
) -> float:
    """Give the two-sided p value of the difference of two models on the same test rows.

    Args:
        ours: one for each seed of the first model.
        theirs: of the second. Each seed counts alike, also if the numbers differ (a baseline may have one): seeds are
            paired in turn.
        metric: to compare by; the difference is between means over seeds.
        num_permutations: random swaps.
        seed: of the swaps.

    Returns:
        p, at least 1 / (permutations + 1); NaN where the metric is undefined for the answers as they are.
    """
    num_pairs = math.lcm(len(ours), len(theirs))
    total: np.ndarray | float = 0.0
    for place in range(num_pairs):
        joined, num_sequences = _joined(ours[place % len(ours)], theirs[place % len(theirs)], metric)
        sides = [
            resampled(joined, metric=metric, draws=Swaps(num_sequences, num_permutations, seed, other))[metric]
            for other in (False, True)
        ]
        total = total + (sides[0] - sides[1]) / num_pairs
    difference = np.abs(np.asarray(total))
    if np.isnan(difference[0]):
        return float("nan")
    known = difference[~np.isnan(difference)]
    return float((known >= difference[0] - _CLOSE).mean())


def _joined(ours: Scores, theirs: Scores, metric: str) -> tuple[Scores, int]:
    """Put the answers of two models below each other: the scores, and the number of sequences."""
    units = [np.arange(len(side.targets)) if side.unit is None else side.unit for side in (ours, theirs)]
    num_sequences = 1 + max(int(unit.max()) for unit in units)
    values = np.concatenate([_comparable(side.values, metric) for side in (ours, theirs)])
    targets = np.concatenate([ours.targets, theirs.targets])
    unit = np.concatenate([units[0], units[1] + num_sequences])
    return replace(ours, targets=targets, values=values, unit=unit), num_sequences


def _comparable(values: np.ndarray, metric: str) -> np.ndarray:
    """Put the predictions of a model on a scale that the other one shares; the metric of the model stays what it is."""
    if metric not in ORDERED and metric != "pearson":
        return values
    from scipy.stats import rankdata

    known = ~np.isnan(values).any(axis=1)
    changed = np.full(values.shape, np.nan)
    if metric == "pearson":
        spread = values[known].std(axis=0)
        changed[known] = (values[known] - values[known].mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    else:
        changed[known] = rankdata(values[known], axis=0) / max(1, known.sum())
    return changed
