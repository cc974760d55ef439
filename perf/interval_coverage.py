"""How often does a 95 % interval hold the true value? Simulated test sets, the intervals of `evaluate`.

    python perf/interval_coverage.py [--sets 400] [--resamples 300]

Every line draws test sets of one kind anew and counts how often the interval of a metric holds its true value, beside
the plain percentiles of the same resamples. Scores are normal (the area under the ROC curve is known exactly), numbers
are bivariate normal, sequences with many bases have a share of right answers of their own (beta). True values that
have no formula are means over many sets.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
from scipy import stats

from longstrand.data.targets import Task
from longstrand.evaluation.metrics import Scores, evaluate, resampled

CLASSES, NUMBERS = Task("single_label", ("no", "yes"), ("label",)), Task("regression", ("y",), ("y",))
Draw = Callable[[np.random.Generator], Scores]


def ranked(area: float, num_rows: int, num_positive: int, random: np.random.Generator) -> Scores:
    """Draw scores with a known area under the ROC curve."""
    truth = (np.arange(num_rows) < num_positive).astype(np.int64)
    apart = np.sqrt(2) * stats.norm.ppf(area)
    yes = stats.norm.cdf(random.normal(size=num_rows) + apart * (truth - 0.5))
    return Scores(CLASSES, truth, np.stack([1 - yes, yes], axis=1))


def correlated(correlation: float, num_rows: int, random: np.random.Generator) -> Scores:
    """Draw pairs of numbers with a known correlation."""
    truth, noise = random.normal(size=(2, num_rows, 1))
    return Scores(NUMBERS, truth, correlation * truth + np.sqrt(1 - correlation**2) * noise)


def right(share: float, num_rows: int, random: np.random.Generator, per_unit: int = 1) -> Scores:
    """Draw answers that are right with a known probability, which varies between units of several rows."""
    truth = random.integers(0, 2, num_rows * per_unit)
    shares = random.beta(8 * share, 8 * (1 - share), num_rows) if per_unit > 1 else np.full(num_rows, share)
    unit = np.repeat(np.arange(num_rows), per_unit)
    called = np.where(random.random(len(truth)) < shares[unit], truth, 1 - truth)
    return Scores(CLASSES, truth, np.eye(2)[called] * 0.8 + 0.1, unit)


KINDS: dict[str, tuple[Draw, dict[str, float | None]]] = {
    "100 rows, 50 positive, area 0.98": (partial(ranked, 0.98, 100, 50),
                                         {"roc_auc": 0.98, "average_precision": None, "mcc": None}),
    "300 rows, 30 positive, area 0.95": (partial(ranked, 0.95, 300, 30), {"roc_auc": 0.95, "average_precision": None}),
    "300 rows, 30 positive, area 0.98": (partial(ranked, 0.98, 300, 30), {"roc_auc": 0.98, "average_precision": None}),
    "60 numbers, correlation 0.8": (partial(correlated, 0.8, 60), {"pearson": 0.8, "r2": 0.6, "mse": 0.4, "spearman":
                                    6 / np.pi * np.arcsin(0.4)}),
    "60 numbers, correlation 0.95": (partial(correlated, 0.95, 60), {"pearson": 0.95}),
    "100 rows, 95 % right": (partial(right, 0.95, 100), {"accuracy": 0.95, "mcc": None, "f1_macro": None}),
    "40 sequences of 25 bases, 85 % right": (partial(right, 0.85, 40, per_unit=25), {"accuracy": 0.85, "mcc": None}),
}  # fmt: skip


def main() -> None:
    """Print one line for each kind of test set and metric."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=400)
    parser.add_argument("--resamples", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print("| test set | metric | true | interval | percentiles | mean width |\n|---|---|---:|---:|---:|---:|")
    for kind, (draw, truths) in KINDS.items():
        random = np.random.default_rng(given.seed)
        true = {name: value for name, value in truths.items() if value is not None}
        if len(true) < len(truths):
            many = [evaluate(draw(random), num_resamples=0, curves=False)["metrics"] for _ in range(600)]
            true |= {name: float(np.mean([one[name]["value"] for one in many])) for name in truths if name not in true}
        hits: dict[str, list[tuple[bool, bool, float]]] = {name: [] for name in truths}
        for _ in range(given.sets):
            scores = draw(random)
            more = {"num_resamples": given.resamples, "seed": int(random.integers(2**31))}
            found, drawn = evaluate(scores, curves=False, **more)["metrics"], resampled(scores, **more)
            for name in truths:
                low, high = np.nanquantile(drawn[name], [0.025, 0.975])
                ours = found[name]["low"], found[name]["high"]
                hits[name].append((ours[0] <= true[name] <= ours[1], low <= true[name] <= high, ours[1] - ours[0]))
        for name, rows in hits.items():
            means = np.mean(np.array(rows, dtype=float), axis=0)
            print(
                f"| {kind} | {name} | {true[name]:.3f} | {means[0]:.3f} | {means[1]:.3f} | {means[2]:.3f} |", flush=True
            )


if __name__ == "__main__":
    main()
