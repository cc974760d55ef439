"""Paired differences: of predictions on the same rows, and over tasks and seeds; by hand and against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from longstrand.data.targets import Task
from longstrand.evaluation.compare import PairedDifference, compare_over_tasks, compare_predictions, holm
from longstrand.evaluation.metrics import Scores


def scores(right: np.ndarray) -> Scores:
    """Two classes; the model is right where told."""
    truth = np.arange(len(right)) % 2
    said = np.where(right, truth, 1 - truth)
    return Scores(Task("single_label", ("0", "1"), ("l",)), truth, np.eye(2)[said] * 0.8 + 0.1)


def test_two_models_on_the_same_rows() -> None:
    random = np.random.default_rng(0)
    base = random.random(200) < 0.7
    better = base | (random.random(200) < 0.5)
    found = compare_predictions([scores(better)], [scores(base)], "accuracy", num_resamples=400)
    assert found.difference == pytest.approx(better.mean() - base.mean(), abs=1e-12)  # as observed
    assert (found.ours, found.theirs) == pytest.approx((better.mean(), base.mean()))
    assert found.low is not None and found.low > 0 and found.p == pytest.approx(1 / 401) and found.verdict == "better"
    turned = compare_predictions([scores(base)], [scores(better)], "accuracy", num_resamples=400)
    assert turned.difference == pytest.approx(-found.difference) and turned.verdict == "worse"
    same = compare_predictions([scores(base)], [scores(base)], "accuracy", num_resamples=400)
    assert (same.difference, same.p, same.verdict) == (0, 1, "unclear")
    both = compare_predictions([scores(base), scores(better)], [scores(base)], "mcc", num_resamples=40)
    half = compare_predictions([scores(better)], [scores(base)], "mcc", num_resamples=40)
    assert both.difference == pytest.approx(half.difference / 2)


def test_errors_are_turned_around_and_undefined_is_none() -> None:
    task = Task("regression", ("u",), ("u",))
    truth = np.arange(30.0)[:, None]
    near, far, flat = truth + 1, truth + 3 * (-1) ** truth, np.full_like(truth, 2)
    sides = [[Scores(task, truth, said)] for said in (near, far, flat)]
    assert compare_predictions(sides[0], sides[1], "mse", num_resamples=50).difference == pytest.approx(9 - 1)
    constant = [[Scores(task, np.full_like(truth, 5), said)] for said in (near, far)]
    found = compare_predictions(*constant, "pearson", num_resamples=50)
    assert (found.difference, found.low, found.p, found.verdict) == (None, None, None, "unclear")


def test_a_verdict_needs_the_test() -> None:
    assert PairedDifference(0.9, 0.1, 0.8, 0.5, 0.9, p=0.06).verdict == "unclear"
    assert PairedDifference(0.9, 0.1, 0.8, 0.5, 0.9, p=0.02).verdict == "better"
    assert PairedDifference(0.9, 0.1, 0.8, 0.5, 0.9, p=0.02, p_corrected=0.08).verdict == "unclear"
    assert PairedDifference(0.9, 0.1, 0.8).verdict == "unclear"


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, None]) == [pytest.approx(0.03), pytest.approx(0.06), pytest.approx(0.06), None]
    assert holm([0.6, 0.9]) == [1.0, 1.0]


def test_one_task_is_students_interval() -> None:
    ours, theirs = {0: 0.7, 1: 0.9, 2: 0.8}, {0: 0.5, 1: 0.6, 2: 0.7}
    found = compare_over_tasks({"t": (ours, theirs, False)})
    expected = stats.ttest_rel(list(ours.values()), list(theirs.values())).confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.difference == pytest.approx(0.2) and found.parts[0].each == pytest.approx((0.2, 0.3, 0.1))
    other = {5: 0.5, 6: 0.6}
    welch = stats.ttest_ind(list(ours.values()), list(other.values()), equal_var=False).confidence_interval()
    found = compare_over_tasks({"t": (ours, other, False)})
    assert (found.low, found.high) == pytest.approx((welch.low, welch.high)) and found.parts[0].each == ()
    alone = compare_over_tasks({"t": ({0: 1.0}, {0: 3.0}, True)})
    assert (alone.difference, alone.low, alone.p) == (2.0, None, 1.0)


def test_several_tasks() -> None:
    tasks = {f"t{number}": ({0: number + 1.0, 1: number + 1.2}, {7: float(number)}, False) for number in range(6)}
    found = compare_over_tasks(tasks)
    assert found.difference == pytest.approx(1.1) and found.p == pytest.approx(2 / 2**6)
    assert found.low is not None and found.high is not None and 1.0 <= found.low < 1.1 < found.high <= 1.2
    assert [part.name for part in found.parts] == list(tasks) and found.parts[3].each == pytest.approx((1.0, 1.2))
    with pytest.raises(ValueError, match="at least one task"):
        compare_over_tasks({})
