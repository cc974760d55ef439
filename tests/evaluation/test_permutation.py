"""The paired permutation test: exact by hand, level, seeds, sequences as units, scales of the models."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from longstrand.data.targets import Task
from longstrand.evaluation.compare import Swaps, permutation_test
from longstrand.evaluation.metrics import Scores, primary_value

TWO = Task("single_label", ("0", "1"), ("label",))
NUMBERS = Task("regression", ("y",), ("y",))


def right(*correct: int, unit: np.ndarray | None = None) -> Scores:
    """Make answers to rows of class 1, right where 1."""
    said = np.array([[1 - one, one] for one in correct], dtype=np.float32)
    return Scores(TWO, np.ones(len(correct), dtype=np.int64), said, unit)


def test_every_swap_by_hand() -> None:
    swaps = Swaps(2, 4, 0)
    assert swaps.is_exact and swaps.num_resamples == 4 and swaps.num_units == 4
    assert np.concatenate(list(swaps.blocks())).tolist() == [[1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 1], [0, 0, 1, 1]]
    assert np.concatenate(list(Swaps(2, 4, 0, True).blocks()))[1].tolist() == [1, 0, 0, 1]
    drawn = np.concatenate(list(Swaps(9, 300, 1).blocks()))
    assert drawn.shape == (301, 18) and drawn[0].tolist() == [1] * 9 + [0] * 9
    assert not Swaps(5000, 300, 1).is_exact and Swaps(5000, 300, 1).num_resamples == 301
    assert (drawn[:, :9] + drawn[:, 9:] == 1).all() and abs(drawn[1:, :9].mean() - 0.5) < 0.03


def test_p_by_hand() -> None:
    # Ours is right on all of four rows, theirs on none: only "no swap" and "all swapped" differ by as much, 2 of 16.
    assert permutation_test([right(1, 1, 1, 1)], [right(0, 0, 0, 0)], "accuracy") == 2 / 16
    # They differ on three rows, two for ours: sums of three signs that are 1 or more, or -1 or less: all.
    assert permutation_test([right(1, 1, 0, 1)], [right(0, 0, 1, 1)], "accuracy") == 1
    # Four rows differ, all for ours, one is equal: 2 of 16 again, whatever the fifth does.
    assert permutation_test([right(1, 1, 1, 1, 1)], [right(0, 0, 0, 0, 1)], "accuracy") == 2 / 16


def test_the_bases_of_a_sequence_are_swapped_together() -> None:
    unit = np.array([0, 0, 0, 1])
    # Two sequences: 4 swaps; differences 1, (1 - 3) / 4, (3 - 1) / 4, -1.
    assert permutation_test([right(1, 1, 1, 1, unit=unit)], [right(0, 0, 0, 0, unit=unit)], "accuracy") == 2 / 4


def test_seeds_count_alike_and_are_swapped_together() -> None:
    ours = [right(1, 1, 1, 1), right(1, 1, 1, 0)]
    theirs = [right(0, 0, 0, 0)]
    # Means over seeds by row: ours minus theirs 1, 1, 1 and 1/2; signs reach 3.5 / 4 twice of 16.
    assert permutation_test(ours, theirs, "accuracy") == 2 / 16
    assert permutation_test(theirs, ours, "accuracy") == 2 / 16
    assert permutation_test(ours, [*theirs, right(1, 0, 0, 0)], "accuracy") == pytest.approx(2 / 16)


def test_against_scipy_for_mean_errors() -> None:
    random = np.random.default_rng(0)
    truth = random.normal(size=(40, 1))
    ours, theirs = (Scores(NUMBERS, truth, truth + spread * random.normal(size=(40, 1))) for spread in (0.7, 1.0))
    errors = [(side.values - truth)[:, 0] ** 2 for side in (ours, theirs)]
    wanted = stats.permutation_test(
        errors, lambda a, b: a.mean() - b.mean(), permutation_type="samples", n_resamples=2000, random_state=1
    ).pvalue
    found = permutation_test([ours], [theirs], "mse", num_permutations=1200)
    assert 0.01 < wanted < 0.9 and found == pytest.approx(wanted, abs=0.04)
    assert found == permutation_test([ours], [theirs], "mse", num_permutations=1200)
    assert found != permutation_test([ours], [theirs], "mse", num_permutations=1200, seed=1)


@pytest.mark.parametrize("metric", ["pearson", "spearman"])
def test_another_scale_changes_nothing(metric: str) -> None:
    random = np.random.default_rng(2)
    truth = random.normal(size=(60, 1))
    ours, theirs = (Scores(NUMBERS, truth, truth + random.normal(size=(60, 1))) for _ in range(2))
    moved = Scores(NUMBERS, truth, 1000 + 50 * theirs.values)
    found = permutation_test([ours], [theirs], metric, num_permutations=200)
    assert found == permutation_test([ours], [moved], metric, num_permutations=200)
    assert permutation_test([ours], [ours], metric, num_permutations=50) == 1


def test_areas_under_curves_see_the_order_only() -> None:
    random = np.random.default_rng(3)
    truth = random.integers(0, 2, 200)
    signal = truth + random.normal(size=200)
    score = 1 / (1 + np.exp(-signal))
    noise = random.random(200)

    def scores(values: np.ndarray) -> Scores:
        return Scores(TWO, truth, np.stack([1 - values, values], axis=1))

    assert primary_value(scores(score), "roc_auc") == primary_value(scores(score / 100), "roc_auc")
    far = permutation_test([scores(score)], [scores(noise)], "roc_auc", num_permutations=200)
    assert far == permutation_test([scores(score / 100)], [scores(noise)], "roc_auc", num_permutations=200) == 1 / 201
    assert permutation_test([scores(score)], [scores(score / 100)], "roc_auc", num_permutations=50) == 1


def test_the_level_is_kept_with_few_sequences() -> None:
    random = np.random.default_rng(4)
    chances = []
    for _ in range(120):
        sides = [right(*(random.random(8) < 0.7).astype(int)) for _ in range(2)]
        chances.append(permutation_test([sides[0]], [sides[1]], "accuracy", num_permutations=256))
    assert np.mean(np.array(chances) <= 0.05) <= 0.1


def test_an_undefined_metric_has_no_p() -> None:
    flat = Scores(NUMBERS, np.ones((6, 1)), np.arange(6.0)[:, None])
    assert np.isnan(permutation_test([flat], [flat], "pearson"))
