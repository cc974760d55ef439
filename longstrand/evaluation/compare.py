"""Paired differences: two models on the same test rows, or on the same tasks; what is seen, its interval, its p value.

`compare_predictions` asks about other test rows of one task: paired bootstrap for the interval, paired permutation test
for p. `compare_over_tasks` asks about other tasks of this kind: a hierarchical bootstrap draws tasks and, within each
drawn task, its seeds (Davison and Hinkley 1997, section 3.8), and p is of the sign test over tasks. It is too narrow
for fewer than about six tasks. For one task it is Student's interval over the seeds.

The permutation test asks whether the difference would be as large if the models were interchangeable. Under that
hypothesis each test sequence could as well have been answered the other way round. Every permutation swaps the answers
of the two models for a random half of the sequences (all seeds and all bases of a sequence together) and measures the
metric of both again; p is the share of permutations, the one that swaps nothing included, whose difference is at least
as large in either direction (approximate randomisation; Noreen 1989, Edgington and Onghena 2007). With few sequences
all swaps are tried, and p is exact. Metrics that only see the order of predictions (areas under curves, Spearman) or do
not see their scale (Pearson) would be blurred by swapping answers of models that use different scales. For these each
model's predictions are turned into ranks, or standardised, before they are swapped, which leaves the metrics of the
models as they are (Venkatraman and Begg 1996).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from longstrand.evaluation.bootstrap import known_or_none, paired_interval
from longstrand.evaluation.metrics import LOWER_IS_BETTER, Scores, primary_value, resampled
from longstrand.runtime import generator

NUM_DRAWS = 10_000
RELIABLE = 0.05
"""Highest p (corrected, where it is) of a difference that is called better or worse."""
Seeds = Mapping[object, float]


@dataclass(frozen=True)
class PairedDifference:
    """Ours minus theirs on the same rows or tasks; positive where ours is better, whatever the metric.

    Attributes:
        ours: value of the metric, mean over seeds (and tasks); None if undefined.
        theirs: likewise.
        difference: as observed: the difference of the two.
        low: lower end of its 95 % interval, None if there is nothing to take one from.
        high: upper end.
        p: two-sided p value that there is no difference.
        p_corrected: the same, corrected for the number of comparisons (`holm`), None if it was not.
        name: of the task, where this is one of several `parts`.
        each: differences seed by seed where seeds can be paired, else empty.
        parts: the tasks that this is the mean of.
    """

    ours: float | None
    theirs: float | None
    difference: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_corrected: float | None = None
    name: str = ""
    each: tuple[float, ...] = ()
    parts: tuple[PairedDifference, ...] = ()

    @property
    def verdict(self) -> str:
        """Return ``better``, ``worse`` or, where the test does not tell (p above 0.05, or none), ``unclear``."""
        p = self.p if self.p_corrected is None else self.p_corrected
        if p is None or p > RELIABLE or not self.difference:
            return "unclear"
        return "better" if self.difference > 0 else "worse"


def compare_predictions(
    ours: Sequence[Scores], theirs: Sequence[Scores], metric: str, *, num_resamples: int = 1000
) -> PairedDifference:
    """Compare two models, each trained with one or several seeds, on the same test rows.

    Every resample draws whole sequences once and measures all seeds of both on it; the difference is between the means
    over seeds. The interval (bias-corrected percentiles) holds for these seeds, and does not cover the choice of seeds.
    p is of `permutation_test`, which holds its level for any metric.
    """
    drawn = [
        np.mean([resampled(each, num_resamples=num_resamples, seed=0, metric=metric)[metric] for each in side], axis=0)
        for side in (ours, theirs)
    ]
    first, second = (float(np.mean([primary_value(scores, metric) for scores in side])) for side in (ours, theirs))
    sign = -1 if metric in LOWER_IS_BETTER else 1
    low, high = paired_interval(sign * (first - second), sign * (drawn[0] - drawn[1]))
    p = permutation_test(ours, theirs, metric, num_permutations=num_resamples, seed=0)
    values = [known_or_none(value) for value in (first, second, sign * (first - second), low, high, p)]
    return PairedDifference(values[0], values[1], values[2], values[3], values[4], values[5])


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct p values for several tests at once (Holm 1979); None stays and does not count."""
    known = sorted((value, index) for index, value in enumerate(p_values) if value is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for place, (value, index) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - place) * value))
        corrected[index] = largest
    return corrected


def compare_over_tasks(pairs: Mapping[str, tuple[Seeds, Seeds, bool]]) -> PairedDifference:
    """Compare two methods over tasks.

    Args:
        pairs: task to the values of both by seed, and whether lower values are better. Seeds are paired where both have
            the same ones; a method with a single value stands against every seed of the other.

    Raises:
        ValueError: there is no task, or a method without a value.
    """
    if not pairs or any(not side for ours, theirs, _ in pairs.values() for side in (ours, theirs)):
        raise ValueError("a difference needs at least one task and one value of each method.")
    tasks = tuple(_of_task(name, *pair) for name, pair in pairs.items())
    low, high = (tasks[0].low, tasks[0].high) if len(tasks) == 1 else _hierarchical(list(pairs.values()))
    ours, theirs, means = (
        np.array([getattr(task, key) for task in tasks], dtype=np.float64) for key in ("ours", "theirs", "difference")
    )
    first, second, difference = (float(values.mean()) for values in (ours, theirs, means))
    return PairedDifference(first, second, difference, low, high, sign_test(means), parts=tasks)


def _of_task(name: str, ours: Seeds, theirs: Seeds, lower: bool) -> PairedDifference:
    sign = -1 if lower else 1
    first, second = (float(np.mean(list(side.values()))) for side in (ours, theirs))
    each: np.ndarray = sign * _by_seed(ours, theirs)
    low, high = _student(sign, ours, theirs, each)
    return PairedDifference(first, second, sign * (first - second), low, high, name=name, each=tuple(map(float, each)))


def _by_seed(ours: Seeds, theirs: Seeds) -> np.ndarray:
    """Return differences seed by seed, (n,); empty where seeds cannot be paired."""
    if set(ours) == set(theirs):
        return np.array([ours[seed] - theirs[seed] for seed in ours])
    if len(ours) == 1 or len(theirs) == 1:
        spread: np.ndarray = np.array(list(ours.values())) - np.array(list(theirs.values()))
        return spread
    return np.empty(0)


def _student(sign: int, ours: Seeds, theirs: Seeds, each: np.ndarray) -> tuple[float | None, float | None]:
    from scipy import stats

    if len(each) == 1:
        return None, None
    if len(each) > 1:
        middle, spread, freedom = each.mean(), each.std(ddof=1) / math.sqrt(len(each)), len(each) - 1.0
    else:  # Welch
        sides = [sign * np.array(list(side.values())) for side in (ours, theirs)]
        parts = [side.var(ddof=1) / len(side) for side in sides]
        middle, spread = sides[0].mean() - sides[1].mean(), math.sqrt(sum(parts))
        below = sum(part**2 / (len(side) - 1) for part, side in zip(parts, sides))
        freedom = spread**4 / below if below else 1.0
    half = stats.t.ppf(0.975, freedom) * spread
    return float(middle - half), float(middle + half)


def _hierarchical(pairs: Sequence[tuple[Seeds, Seeds, bool]]) -> tuple[float, float]:
    """Draw tasks, and within each its seeds: the 2.5 and 97.5 percentiles of the mean difference."""
    random = generator(0, 0, "differences over tasks")
    drawn = np.stack([_seed_draws(*pair, random) for pair in pairs])
    chosen = random.integers(0, len(pairs), (len(pairs), NUM_DRAWS))
    # A task that is drawn twice takes its seeds from two different draws.
    place = (np.arange(NUM_DRAWS) + NUM_DRAWS // len(pairs) * np.arange(len(pairs))[:, None]) % NUM_DRAWS
    low, high = np.percentile(drawn[chosen, place].mean(axis=0), [2.5, 97.5])
    return float(low), float(high)


def _seed_draws(ours: Seeds, theirs: Seeds, lower: bool, random: np.random.Generator) -> np.ndarray:
    """Return mean differences of one task over drawn seeds, (NUM_DRAWS,); paired seeds are drawn together."""
    each = _by_seed(ours, theirs)
    sides = [each] if len(each) else [np.array(list(ours.values())), -np.array(list(theirs.values()))]
    total = np.zeros(NUM_DRAWS)
    for values in sides:
        total += values[random.integers(0, len(values), (NUM_DRAWS, len(values)))].mean(axis=1)
    return (-1 if lower else 1) * total


def sign_test(differences: np.ndarray) -> float:
    """Return how likely so uneven a split of ups and downs is by chance (two-sided); ties do not count."""
    from scipy.stats import binomtest

    ups, downs = int((differences > 0).sum()), int((differences < 0).sum())
    return float(binomtest(ups, ups + downs).pvalue) if ups + downs else 1.0


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
        random = generator(self.seed, 0, "swapped answers")
        size = max(1, _BLOCK_CELLS // max(1, self.num_units))
        for start in range(0, self.num_resamples, size):
            index = np.arange(start, min(start + size, self.num_resamples))[:, None]
            if self.is_exact:
                swapped = (index >> np.arange(self.num_sequences) & 1).astype(np.float64)
            else:
                drawn = random.integers(0, 2, (len(index), self.num_sequences))
                swapped = drawn.astype(np.float64) * np.minimum(index, 1.0)
            first = np.concatenate([1.0 - swapped, swapped], axis=1)
            yield 1.0 - first if self.other else first


def permutation_test(
    ours: Sequence[Scores], theirs: Sequence[Scores], metric: str, *, num_permutations: int = 1000, seed: int = 0
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
