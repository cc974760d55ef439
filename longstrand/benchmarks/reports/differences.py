"""Differences between two arms over tasks and seeds: mean, interval, how many tasks go which way.

Over several tasks the interval is a hierarchical bootstrap: tasks are drawn with replacement, and within each drawn
task its seeds (Davison and Hinkley 1997, section 3.8), so it speaks of other tasks of this kind and not only of these.
It is too narrow for fewer than about six tasks. For one task it is Student's interval over the seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from longstrand.runtime import generator

NUM_DRAWS = 10_000
Seeds = Mapping[Any, float]


@dataclass(frozen=True)
class TaskDifference:
    """Two arms on one task; differences are positive where the first is better.

    Attributes:
        task: its id.
        ours: mean over seeds.
        against: likewise of the other arm.
        mean: of the difference.
        each: differences seed by seed if both arms have the same seeds or one has a single one, else empty.
        low: lower end of Student's 95 % interval over seeds, or None where an arm and its seeds give none.
        high: upper end.
    """

    task: str
    ours: float
    against: float
    mean: float
    each: tuple[float, ...]
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Difference:
    """Two arms over all tasks.

    Attributes:
        tasks: one difference each.
        mean: over tasks.
        low: lower end of the 95 % interval, None if there is neither a second task nor a second seed.
        high: upper end.
        p: of the two-sided sign test over tasks (ties left out); 1 if all tie.
    """

    tasks: tuple[TaskDifference, ...]
    mean: float
    low: float | None
    high: float | None
    p: float

    @property
    def num_up(self) -> int:
        """Tasks where the first arm is better."""
        return sum(task.mean > 0 for task in self.tasks)

    @property
    def num_down(self) -> int:
        """Tasks where it is worse."""
        return sum(task.mean < 0 for task in self.tasks)


def compare(pairs: Mapping[str, tuple[Seeds, Seeds, bool]]) -> Difference:
    """Compare two arms over tasks.

    Args:
        pairs: task to the values of both arms by seed, and whether lower values are better.

    Raises:
        ValueError: there is no task, or an arm without a value.
    """
    if not pairs or any(not side for ours, against, _ in pairs.values() for side in (ours, against)):
        raise ValueError("a difference needs at least one task and one value of each arm.")
    tasks = tuple(_of_task(name, *pair) for name, pair in pairs.items())
    means = np.array([task.mean for task in tasks])
    if len(tasks) == 1:
        low, high = tasks[0].low, tasks[0].high
    else:
        low, high = _bootstrap(list(pairs.values()))
    return Difference(tasks, float(means.mean()), low, high, sign_test(means))


def _of_task(name: str, ours: Seeds, against: Seeds, lower: bool) -> TaskDifference:
    sign = -1 if lower else 1
    first, second = np.mean(list(ours.values())), np.mean(list(against.values()))
    each = sign * _paired(ours, against)
    low, high = _student(sign, ours, against, each)
    return TaskDifference(
        name, float(first), float(second), float(sign * (first - second)), tuple(map(float, each)), low, high
    )


def _paired(ours: Seeds, against: Seeds) -> np.ndarray:
    """Give differences seed by seed, (n,); an arm with a single value stands against every seed of the other."""
    if set(ours) == set(against):
        return np.array([ours[seed] - against[seed] for seed in ours])
    if len(ours) == 1 or len(against) == 1:
        return np.array(list(ours.values())) - np.array(list(against.values()))
    return np.empty(0)


def _student(sign: int, ours: Seeds, against: Seeds, each: np.ndarray) -> tuple[float | None, float | None]:
    from scipy import stats

    if len(each) > 1:
        half = stats.t.ppf(0.975, len(each) - 1) * each.std(ddof=1) / math.sqrt(len(each))
        return float(each.mean() - half), float(each.mean() + half)
    if len(each) == 1:
        return None, None
    sides = [sign * np.array(list(side.values())) for side in (ours, against)]
    parts = [side.var(ddof=1) / len(side) for side in sides]
    if sum(parts) == 0:
        same = float(sides[0].mean() - sides[1].mean())
        return same, same
    freedom = sum(parts) ** 2 / sum(part**2 / (len(side) - 1) for part, side in zip(parts, sides))
    half = stats.t.ppf(0.975, freedom) * math.sqrt(sum(parts))
    middle = sides[0].mean() - sides[1].mean()
    return float(middle - half), float(middle + half)


def _bootstrap(pairs: Sequence[tuple[Seeds, Seeds, bool]]) -> tuple[float, float]:
    """Draw tasks, and within each its seeds: the 2.5 and 97.5 percentiles of the mean difference."""
    random = generator(0, 0, "differences over tasks")
    drawn = np.stack([_seed_draws(*pair, random) for pair in pairs])
    chosen = random.integers(0, len(pairs), (len(pairs), NUM_DRAWS))
    # A task that is drawn twice takes its seeds from two different draws.
    place = (np.arange(NUM_DRAWS) + NUM_DRAWS // len(pairs) * np.arange(len(pairs))[:, None]) % NUM_DRAWS
    means = drawn[chosen, place].mean(axis=0)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _seed_draws(ours: Seeds, against: Seeds, lower: bool, random: np.random.Generator) -> np.ndarray:
    """Mean differences of one task over drawn seeds, (NUM_DRAWS,); seeds that both arms have are drawn together."""
    sign = -1 if lower else 1
    each = _paired(ours, against)
    sides = [each] if len(each) else [np.array(list(ours.values())), -np.array(list(against.values()))]
    total = np.zeros(NUM_DRAWS)
    for values in sides:
        total += values[random.integers(0, len(values), (NUM_DRAWS, len(values)))].mean(axis=1)
    return sign * total


def sign_test(differences: np.ndarray) -> float:
    """Two-sided sign test: how likely so uneven a split of ups and downs is by chance; ties do not count."""
    from scipy.stats import binomtest

    ups, downs = int((differences > 0).sum()), int((differences < 0).sum())
    return float(binomtest(ups, ups + downs).pvalue) if ups + downs else 1.0
