"""Metrics and their intervals, by hand and against scikit-learn and scipy on explicit resamples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from longstrand.data.targets import Task
from longstrand.evaluation import bootstrap
from longstrand.evaluation.bootstrap import Resamples, interval, paired_interval
from longstrand.evaluation.metrics import LOWER_IS_BETTER, METRICS, PRIMARY, Scores, evaluate, primary_value, resampled

TWO = Task("single_label", ("no", "yes"), ("label",))
THREE = Task("single_label", ("a", "b", "c"), ("label",))


def one_hot(called: list[int], num_classes: int) -> np.ndarray:
    return np.eye(num_classes, dtype=np.float32)[called]


def test_two_classes_by_hand() -> None:
    # 6 rows: truth 0 0 0 1 1 1, score of 'yes' .1 .6 .2 .9 .4 .8: calls 0 1 0 1 0 1
    yes = np.array([0.1, 0.6, 0.2, 0.9, 0.4, 0.8])
    report = evaluate(Scores(TWO, np.array([0, 0, 0, 1, 1, 1]), np.stack([1 - yes, yes], axis=1)), num_resamples=50)
    value = {name: entry["value"] for name, entry in report["metrics"].items()}
    assert value["accuracy"] == pytest.approx(4 / 6)
    assert value["mcc"] == pytest.approx(1 / 3)  # (2*2 - 1*1) / (3*3)
    assert value["f1_macro"] == pytest.approx(2 / 3)
    assert value["roc_auc"] == pytest.approx(8 / 9)  # 9 pairs, one inverted (.6 > .4)
    assert value["average_precision"] == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert report["confusion"] == {"classes": ["no", "yes"], "counts": [[2, 1], [1, 2]]}
    assert report["per_class"]["yes"]["recall"] == pytest.approx(2 / 3)
    assert report["per_class"]["no"]["num_true"] == 3
    assert report["num_evaluated"] == 6
    assert not report["constant_prediction"]
    assert all(entry["low"] <= entry["value"] <= entry["high"] for entry in report["metrics"].values())


def test_three_classes_agree_with_scikit_learn() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 3, 41)
    values = random.dirichlet([1, 1, 1], 41)
    report = evaluate(Scores(THREE, truth, values), num_resamples=0)
    called = values.argmax(axis=1)
    found = {name: entry["value"] for name, entry in report["metrics"].items()}
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(truth, called))
    assert found["f1_macro"] == pytest.approx(sk.f1_score(truth, called, average="macro"))
    assert found["mcc"] == pytest.approx(sk.matthews_corrcoef(truth, called))
    assert found["roc_auc"] == pytest.approx(sk.roc_auc_score(truth, values, multi_class="ovr", average="macro"))
    assert "low" not in report["metrics"]["mcc"]
    assert set(report["curves"]) == {"a", "b", "c"}


@pytest.mark.parametrize("seed", range(4))
def test_resampled_metrics_agree_with_explicit_resampling(seed: int) -> None:
    random = np.random.default_rng(seed)
    n = 23
    truth, score = random.integers(0, 2, n), np.round(random.random(n), 1)  # many ties
    drawn = random.integers(0, n, (7, n))
    weights = np.stack([np.bincount(rows, minlength=n) for rows in drawn]).astype(float)
    bins, num_bins = bootstrap.score_bins(score)
    positive, negative = (
        np.stack([np.bincount(bins, weights=row * (truth == kind), minlength=num_bins) for row in weights])
        for kind in (1, 0)
    )
    aucs = bootstrap.roc_auc_from_bins(positive, negative)
    precisions = bootstrap.average_precision_from_bins(positive, negative)
    for number, rows in enumerate(drawn):
        assert aucs[number] == pytest.approx(sk.roc_auc_score(truth[rows], score[rows]))
        assert precisions[number] == pytest.approx(sk.average_precision_score(truth[rows], score[rows]))


def test_resampled_correlations_agree_with_explicit_resampling() -> None:
    random = np.random.default_rng(3)
    n = 19
    truth = np.round(random.normal(5, 2, n), 1)
    predicted = np.round(truth + random.normal(0, 2, n), 1)
    drawn = random.integers(0, n, (5, n))
    weights = np.stack([np.bincount(rows, minlength=n) for rows in drawn]).astype(float)
    found = bootstrap.correlation_metrics(weights, truth, predicted)
    found["spearman"] = bootstrap.spearman_of_resamples(weights, truth, predicted)
    for number, rows in enumerate(drawn):
        a, b = truth[rows], predicted[rows]
        assert found["pearson"][number] == pytest.approx(stats.pearsonr(a, b).statistic)
        assert found["spearman"][number] == pytest.approx(stats.spearmanr(a, b).statistic)
        assert found["r2"][number] == pytest.approx(sk.r2_score(a, b))
        assert found["mse"][number] == pytest.approx(sk.mean_squared_error(a, b))
        assert found["mae"][number] == pytest.approx(sk.mean_absolute_error(a, b))


def test_resampled_confusion_metrics_agree_with_scikit_learn() -> None:
    random = np.random.default_rng(5)
    for _ in range(20):
        truth, called = random.integers(0, 3, 11), random.integers(0, 3, 11)
        cells = sk.confusion_matrix(truth, called, labels=range(4))[None].astype(float)  # class 3 never occurs
        found = bootstrap.confusion_metrics(cells)
        assert found["mcc"][0] == pytest.approx(sk.matthews_corrcoef(truth, called))
        assert found["f1_macro"][0] == pytest.approx(sk.f1_score(truth, called, average="macro"))
        assert found["accuracy"][0] == pytest.approx(sk.accuracy_score(truth, called))


def test_many_scores_are_binned_without_changing_the_area() -> None:
    random = np.random.default_rng(1)
    truth = random.integers(0, 2, 30_000)
    score = random.normal(truth, 1.0)
    bins, num_bins = bootstrap.score_bins(score, max_bins=512)
    assert num_bins <= 512
    positive, negative = (np.bincount(bins[truth == kind], minlength=num_bins)[None].astype(float) for kind in (1, 0))
    assert bootstrap.roc_auc_from_bins(positive, negative)[0] == pytest.approx(sk.roc_auc_score(truth, score), abs=1e-4)


def test_intervals_by_hand() -> None:
    """Wilson's interval of a share, Fisher's of a correlation, and logarithms of an error, computed apart."""
    from scipy.stats import t as student

    right = np.zeros(60, int)
    report = evaluate(Scores(TWO, right, one_hot([0] * 57 + [1] * 3, 2)), num_resamples=2000)["metrics"]["accuracy"]
    wilson = stats.binomtest(57, 60).proportion_ci(method="wilson")
    assert report["low"] == pytest.approx(wilson.low, abs=0.006) and report["high"] == pytest.approx(
        wilson.high, abs=0.004
    )
    error, quantile = 0.05, student.ppf(0.975, 39)
    drawn = np.array([-error, error] * 20) / np.std([-error, error] * 20, ddof=1) * error
    low, high = interval(0.8, drawn + 0.8, "pearson", 40)
    half = quantile * error / (1 - 0.8**2)
    assert (low, high) == pytest.approx((math.tanh(math.atanh(0.8) - half), math.tanh(math.atanh(0.8) + half)))
    low, high = interval(0.3, drawn + 0.3, "mse", 40)
    assert low * high == pytest.approx(0.3**2) and high / 0.3 == pytest.approx(math.exp(quantile * error / 0.3))
    assert interval(0.7, drawn + 0.7, "r2", 40) == pytest.approx((1 - high, 1 - low))
    assert all(math.isnan(end) for end in interval(0.5, drawn, "mcc", 1) + interval(float("nan"), drawn, "mcc", 9))


def test_a_perfect_model_has_an_interval_and_a_constant_one_has_none() -> None:
    truth = np.arange(40) % 2
    perfect = evaluate(Scores(TWO, truth, one_hot(truth.tolist(), 2)), num_resamples=30)["metrics"]
    for name in ("accuracy", "roc_auc", "mcc"):
        assert perfect[name]["high"] == 1 and 0.6 < perfect[name]["low"] < 0.95
    # of 20 rows of the rarer class nothing was missed: 1 - Wilson's lower end is t^2 / (20 + t^2)
    quantile = stats.t.ppf(0.975, 19)
    assert perfect["roc_auc"]["low"] == pytest.approx(20 / (20 + quantile**2))
    majority = evaluate(Scores(TWO, truth, one_hot([1] * 40, 2)), num_resamples=30)["metrics"]["mcc"]
    assert (majority["low"], majority["value"], majority["high"]) == (0, 0, 0)


def test_the_scale_of_the_targets_does_not_matter() -> None:
    random = np.random.default_rng(0)
    truth, said = random.normal(size=(50, 1)), random.normal(size=(50, 1))
    task = Task("regression", ("u",), ("u",))
    reports = [
        evaluate(Scores(task, truth * size + 3 * size, (truth + said) * size), num_resamples=50)["metrics"]
        for size in (1.0, 1e-9)
    ]
    for name in ("pearson", "spearman", "r2"):
        assert reports[1][name] == pytest.approx(reports[0][name], rel=1e-6) and reports[0][name]["low"] < 1
    assert reports[1]["mse"]["low"] == pytest.approx(reports[0]["mse"]["low"] * 1e-18, rel=1e-6)


def test_same_seed_same_interval_and_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(2)
    scores = Scores(THREE, random.integers(0, 3, 30), random.dirichlet([1, 1, 1], 30))
    first = evaluate(scores, num_resamples=40, seed=7)["metrics"]
    monkeypatch.setattr(bootstrap, "_BLOCK_CELLS", 90)
    assert evaluate(scores, num_resamples=40, seed=7)["metrics"] == first
    assert evaluate(scores, num_resamples=40, seed=8)["metrics"] != first


def test_bases_of_a_sequence_are_drawn_together() -> None:
    """Two sequences, one all right and one all wrong: with two units hardly anything is known."""
    task = Task("token", ("x", "y"), ("labels",))
    targets, unit = np.array([0, 0, 1, 0, 1, 1]), np.array([0, 0, 0, 1, 1, 1])
    values = one_hot([0, 0, 1, 1, 0, 0], 2)
    entry = evaluate(Scores(task, targets, values, unit), num_resamples=200)["metrics"]["accuracy"]
    assert entry["value"] == 0.5 and entry["low"] < 0.02 and entry["high"] > 0.98


def test_missing_and_unpredicted_bases_are_left_out_and_counted() -> None:
    task = Task("token", ("x", "y"), ("labels",))
    values = one_hot([0, 1, 1, 0, 0], 2)
    values[3] = np.nan
    report = evaluate(Scores(task, np.array([0, 1, -100, 1, 1]), values, np.array([0, 0, 0, 1, 1])), num_resamples=10)
    assert report["num_evaluated"] == 3
    assert (report["num_not_predicted"], report["num_unlabelled"]) == (1, 1)
    assert report["metrics"]["accuracy"]["value"] == pytest.approx(2 / 3)


def test_multi_label_with_missing_cells() -> None:
    task = Task("multi_label", ("p", "q"), ("p", "q"))
    targets = np.array([[1, 0], [0, np.nan], [1, 1], [0, 0]], dtype=np.float32)
    values = np.array([[0.9, 0.2], [0.1, 0.99], [0.4, 0.8], [0.3, 0.6]], dtype=np.float32)
    report = evaluate(Scores(task, targets, values), num_resamples=20)
    assert report["per_class"]["p"]["roc_auc"] == 1.0
    assert report["per_class"]["q"]["roc_auc"] == 1.0
    assert report["per_class"]["q"]["num_predicted"] == 2
    value = {name: entry["value"] for name, entry in report["metrics"].items()}
    assert value["mean_average_precision"] == 1.0
    assert value["accuracy"] == pytest.approx(5 / 7)  # p: 3 of 4 right, q: 2 of 3
    # p: one of two found, no false call: F1 2/3. q: one right, one false call: F1 2/3
    assert value["f1_macro"] == pytest.approx(2 / 3)
    assert report["confusion"]["counts"] == [[[2, 0], [1, 1]], [[1, 1], [0, 1]]]


def test_regression_of_two_targets_with_missing_cells() -> None:
    task = Task("regression", ("u", "v"), ("u", "v"))
    targets = np.array([[1, 2], [2, np.nan], [3, 4], [4, 9]], dtype=np.float32)
    values = np.array([[1, 1], [2, 5], [3, 2], [5, 3]], dtype=np.float32)
    report = evaluate(Scores(task, targets, values), num_resamples=20)
    assert report["per_class"]["u"]["mse"] == pytest.approx(0.25)
    assert report["per_class"]["v"]["num_evaluated"] == 3
    assert report["per_class"]["v"]["spearman"] == pytest.approx(1.0)
    assert report["metrics"]["mse"]["value"] == pytest.approx((0.25 + (1 + 4 + 36) / 3) / 2)
    assert report["metrics"]["r2"]["value"] == pytest.approx(
        (sk.r2_score(targets[:, 0], values[:, 0]) + sk.r2_score([2, 4, 9], [1, 2, 3])) / 2
    )


@pytest.mark.parametrize(
    ("task", "targets", "values"),
    [
        (TWO, np.array([0, 1, 0]), one_hot([1, 1, 1], 2)),
        (Task("regression", ("u",), ("u",)), np.array([[1.0], [2.0], [4.0]]), np.full((3, 1), 2.5)),
        (Task("multi_label", ("p", "q"), ("p",)), np.array([[1.0, 0], [0, 1], [1, 1]]), np.full((3, 2), 0.2)),
    ],
)
def test_constant_prediction_is_flagged(task: Task, targets: np.ndarray, values: np.ndarray) -> None:
    report = evaluate(Scores(task, targets, values), num_resamples=10)
    assert report["constant_prediction"]


def test_a_constant_answer_counts_as_no_correlation() -> None:
    one = Scores(Task("regression", ("a",), ("a",)), np.array([[1.0], [2.0], [4.0]]), np.full((3, 1), 6.0))
    assert evaluate(one, num_resamples=20)["metrics"]["pearson"]["value"] == 0.0
    targets = np.array([[1.0, 5.0], [2.0, 4.0], [4.0, 9.0]])
    values = np.stack([targets[:, 0], np.full(3, 6.0)], axis=1)
    report = evaluate(Scores(Task("regression", ("a", "b"), ("a", "b")), targets, values), num_resamples=20)
    assert report["metrics"]["pearson"]["value"] == pytest.approx(0.5)
    assert report["per_class"]["b"]["spearman"] == 0.0 and not report["constant_prediction"]


def test_one_class_only_is_no_constant_prediction_and_has_no_area() -> None:
    report = evaluate(Scores(TWO, np.array([1, 1, 1]), one_hot([1, 1, 1], 2)), num_resamples=10)
    assert not report["constant_prediction"]
    assert math.isnan(report["metrics"]["roc_auc"]["value"])
    assert math.isnan(report["metrics"]["roc_auc"]["low"])
    assert report["curves"]["yes"]["roc"]["fpr"] == [] and report["undefined"] == ["yes"]


def test_nothing_to_evaluate() -> None:
    report = evaluate(Scores(TWO, np.array([1]), np.full((1, 2), np.nan)), num_resamples=10)
    assert report["num_evaluated"] == 0
    assert report["num_not_predicted"] == 1
    assert report["metrics"] == {}


def test_curves_are_thinned_and_end_in_the_corners() -> None:
    random = np.random.default_rng(0)
    yes = random.random(3000)
    scores = Scores(TWO, (random.random(3000) < yes).astype(int), np.stack([1 - yes, yes], axis=1))
    roc = evaluate(scores, num_resamples=0)["curves"]["yes"]["roc"]
    assert len(roc["fpr"]) <= 200
    assert (roc["fpr"][0], roc["tpr"][0], roc["fpr"][-1], roc["tpr"][-1]) == (0, 0, 1, 1)


def test_names_and_primary_metric() -> None:
    for problem, primary in PRIMARY.items():
        task = Task(problem, ("a", "b"), ("c",))  # type: ignore[arg-type]
        assert primary in METRICS[task.problem]
    assert "mse" in LOWER_IS_BETTER
    assert primary_value(Scores(TWO, np.array([0, 1]), one_hot([0, 1], 2)), "mcc") == 1.0


def test_interval_of_a_difference() -> None:
    drawn = np.array([np.nan, *range(101)], dtype=float)
    assert paired_interval(50, drawn) == pytest.approx((2.5, 97.5))
    assert paired_interval(80, drawn)[1] == pytest.approx(99.97, abs=0.1) and paired_interval(80, drawn)[0] > 30
    assert all(math.isnan(value) for value in paired_interval(0.5, np.array([np.nan])))


def test_resamples_draw_with_replacement() -> None:
    weights = np.concatenate(list(Resamples(13, 300, seed=1).blocks()))
    assert weights.shape == (300, 13)
    assert (weights.sum(axis=1) == 13).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(13), abs=0.25)
    assert weights.var() == pytest.approx(12 / 13, abs=0.1)


@pytest.mark.parametrize("problem", ["single_label", "multi_label", "regression"])
def test_resampled_values_are_those_of_the_intervals(problem: str) -> None:
    random = np.random.default_rng(0)
    if problem == "single_label":
        targets, values = random.integers(0, 3, 40), random.dirichlet(np.ones(3), 40)
        task = Task("single_label", ("a", "b", "c"), ("l",))
    else:
        targets = random.integers(0, 2, (40, 2)).astype(np.float32)
        targets[::5, 0] = np.nan
        values, task = random.random((40, 2)), Task(problem, ("a", "b"), ("a", "b"))  # type: ignore[arg-type]
    values[3] = np.nan
    scores = Scores(task, targets, values)
    found = evaluate(scores, num_resamples=50, seed=4)["metrics"]
    drawn = resampled(scores, num_resamples=50, seed=4)
    assert set(found) == set(drawn)
    for name, entry in found.items():
        assert entry["low"] <= entry["value"] <= entry["high"] and entry["high"] - entry["low"] < 8 * drawn[name].std()
        alone = resampled(scores, num_resamples=50, seed=4, metric=name)[name]
        assert np.array_equal(alone, drawn[name], equal_nan=True)


def test_correlations_of_units_are_those_of_their_rows():
    random = np.random.default_rng(0)
    unit = np.repeat(np.arange(80), 5)
    truth, said = random.normal(size=400) + unit / 40, random.normal(size=400) + unit / 30
    resamples = Resamples(80, 40, 3)
    found = bootstrap.correlations_of_units(resamples, unit, truth, said)
    (weights,) = resamples.blocks()
    rows = weights[:, unit]
    for name, expected in bootstrap.correlation_metrics(rows, truth, said).items():
        np.testing.assert_allclose(found[name], expected, atol=1e-9)
    exact = bootstrap.spearman_of_resamples(rows, truth, said)
    assert found["spearman"].shape == (40,) and np.abs(found["spearman"] - exact).max() < 0.03


def test_numbers_per_bin_pearson_by_track_over_all_bins():
    task = Task("regression", ("a", "b", "flat"), ("a", "b", "flat"), "columns", bin_bases=4)
    targets = np.array([[0, 3, 1], [1, 2, 1], [2, np.nan, 1], [5, 0, 1]], dtype=np.float32)
    values = np.array([[0, 0, 0], [2, 1, 1], [4, 9, 0], [10, 3, 1]], dtype=np.float32)
    found = evaluate(Scores(task, targets, values, np.array([0, 0, 1, 1])), num_resamples=50)
    assert found["per_class"]["a"]["pearson"] == pytest.approx(1) and found["per_class"]["b"]["num_evaluated"] == 3
    assert found["per_class"]["b"]["pearson"] == pytest.approx(-1) and np.isnan(found["per_class"]["flat"]["pearson"])
    assert found["metrics"]["pearson"]["value"] == pytest.approx(0)  # the mean of the tracks that have one
    assert found["num_evaluated"] == 4 and not np.isnan(found["metrics"]["pearson"]["low"])
