"""Baselines of numbers per bin: means and features by hand, a planted motif, missing numbers, strands, pieces."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from longstrand.baselines import bins
from longstrand.baselines.bins import BinKmerRegression, _Ridge, bin_features, fit_means
from longstrand.baselines.cnn import PIECE_BASES, CnnBaseline, Training, in_pieces, inputs
from longstrand.baselines.networks import Basenji, pool_sizes
from longstrand.baselines.onehot import UNKNOWN, digits_of
from longstrand.baselines.registry import BaselineSettings, baselines_for, fit_baseline, kind_of
from longstrand.data.labelled import LabelledTable
from longstrand.data.labelled_files import RawTable
from longstrand.data.targets import Task
from longstrand.errors import UsageError
from longstrand.evaluation.metrics import Scores, evaluate
from longstrand.genome.sequence import reverse_complement

NAN = float("nan")


def joined(values: Any) -> np.ndarray:
    """Put the arrays of rows below each other."""
    return np.concatenate(values) if isinstance(values, list) else values


def make(texts: list[str], targets: list[object], bin_bases: int) -> LabelledTable:
    values = [np.array(rows, dtype=np.float32) for rows in targets]
    names = tuple("abc"[: values[0].shape[1]])
    task = Task("regression", names, names, "columns", names, "", bin_bases)
    return LabelledTable(RawTable("toy", list(range(1, len(texts) + 1)), texts, {}), task, values)


def motif_table(num_rows: int, seed: int, *, shuffled: bool = False) -> LabelledTable:
    """Rows of 6 or 8 bins of 20 bases; TGACGTCA in a bin raises its first number, and the second of its neighbours."""
    random = np.random.default_rng(seed)
    texts, targets = [], []
    for row in range(num_rows):
        number = 8 if row % 3 else 6
        letters = random.choice(list("ACGT"), number * 20)
        values = random.random((number, 2)).astype(np.float32)
        for place in np.flatnonzero(random.random(number) < 0.3):
            start = place * 20 + int(random.integers(0, 12))
            letters[start : start + 8] = list("TGACGTCA")
            values[place, 0] += 4
            values[max(0, place - 1) : place + 2, 1] += 2
        values[random.random(number) < 0.1, 0] = NAN
        texts.append("".join(letters))
        targets.append(random.permutation(values) if shuffled else values)
    return make(texts, targets, 20)


def test_means_by_hand() -> None:
    table = make(["A" * 6, "C" * 6, "G" * 2], [[[1], [2], [6]], [[3], [NAN], [0]], [[9]]], 2)
    whole = fit_means(table)
    np.testing.assert_allclose(whole.mean, [21 / 6])
    assert [part.tolist() for part in whole.predict(["ACGT", "AC"])] == [[[3.5], [3.5]], [[3.5]]]
    placed = fit_means(table, by_place=True)
    np.testing.assert_allclose(placed.by_place, [[2], [11 / 2], [3]])  # the single bin lies in the middle
    np.testing.assert_allclose(placed.predict(["ACGTAC"])[0], [[2], [5.5], [3]])
    np.testing.assert_allclose(placed.predict(["A" * 10])[0], [[3.5], [2], [5.5], [3], [3.5]])
    np.testing.assert_allclose(placed.predict(["AC"])[0], [[5.5]])
    both = fit_means(table, by_place=True, both_strands=True)
    np.testing.assert_allclose(both.by_place, [[2.5], [5.5], [2.5]])


def test_means_need_bins() -> None:
    with pytest.raises(ValueError, match="numbers per bin"):
        fit_means(LabelledTable(RawTable("t", [1], ["A"], {}), Task("regression", ("a",), ("a",)), np.zeros((1, 1))))


def test_features_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bins, "BLOCKS", ((1, 0, 0), (2, -1, -1), (1, 0, 2)))
    found = bin_features("ACGGNTTT", 2)  # bins AC GG NT TT
    assert found[:, :4].tolist() == [[1, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1], [0, 0, 0, 2]]
    pairs = found[:, 4:20]  # 2-mers that begin in the bin before: AC CG | GG | TT
    assert [np.flatnonzero(row).tolist() for row in pairs] == [[], [1, 6], [10], [15]]
    assert found[:, 20:].tolist() == [[1, 1, 2, 1], [0, 0, 2, 3], [0, 0, 0, 3], [0, 0, 0, 2]]


def test_ridge_agrees_with_scikit_learn_track_by_track() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(50, 4)).astype(np.float32)
    targets = random.normal(size=(50, 3)).astype(np.float32)
    targets[:7, 1] = NAN
    weights, offset = _Ridge(features, targets).solve(2.0)
    for column in range(3):
        known = ~np.isnan(targets[:, column])
        other = Ridge(alpha=2.0).fit(features[known], targets[known, column])
        np.testing.assert_allclose(weights[:, column], other.coef_, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(offset[column], other.intercept_, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "loss"), [("kmer-bins", "squared"), ("cnn-basenji", "counts")])
def test_a_planted_motif_is_found(name: str, loss: str) -> None:
    setting = BaselineSettings(cnn=Training(epochs=4), bin_loss=loss)
    train, valid, test = (motif_table(rows, seed) for seed, rows in enumerate((150, 40, 40)))
    said = fit_baseline(name, train, valid, setting).predict(test.sequences)
    unit = np.repeat(np.arange(40), [len(values) for values in test.targets])
    found = evaluate(Scores(test.task, np.concatenate(list(test.targets)), joined(said), unit), num_resamples=20)
    assert min(part["pearson"] for part in found["per_class"].values()) > 0.6
    assert [len(values) for values in said] == [len(values) for values in test.targets]


def test_nothing_is_found_in_shuffled_bins() -> None:
    train, valid, test = (motif_table(rows, seed, shuffled=True) for seed, rows in enumerate((100, 30, 40)))
    said = joined(fit_baseline("kmer-bins", train, valid).predict(test.sequences))
    found = evaluate(Scores(test.task, np.concatenate(list(test.targets)), said), num_resamples=0)
    assert abs(found["per_class"]["a"]["pearson"]) < 0.25


def test_both_strands_are_one_prediction() -> None:
    train = motif_table(30, 0)
    setting = BaselineSettings(both_strands=True, cnn=Training(epochs=1))
    for name in ("kmer-bins", "cnn-basenji", "place"):
        model = fit_baseline(name, train, train, setting)
        text = train.sequences[1]
        turned = model.predict([reverse_complement(text)])[0]
        np.testing.assert_allclose(model.predict([text])[0], turned[::-1], atol=1e-4)


def test_no_prediction_depends_on_its_batch() -> None:
    train = motif_table(20, 0)
    model = CnnBaseline("basenji", Training(epochs=1)).fit(train)
    together = model.predict(train.sequences)
    for row in (0, 1):
        np.testing.assert_allclose(model.predict([train.sequences[row]])[0], together[row], atol=1e-5)


def test_rungs_of_bins() -> None:
    assert baselines_for("bins") == ["majority", "place", "kmer-bins", "cnn-basenji"] and "place" not in baselines_for(
        "regression"
    )
    table = motif_table(4, 0)
    assert kind_of(table.task) == "bins" and kind_of(replace(table.task, bin_bases=None)) == "regression"
    with pytest.raises(UsageError, match="unknown baseline for bins problems 'kmer'"):
        fit_baseline("kmer", table)


def test_poolings_multiply_to_the_bin() -> None:
    for size in (1, 7, 20, 31, 100, 128, 1000):
        assert int(np.prod(pool_sizes(size))) == size
    network = Basenji(3, 20).eval()
    digits = np.full((2, 60), UNKNOWN + 1, dtype=np.uint8)
    digits[0], digits[1, :20] = digits_of("ACGTA" * 12), digits_of("ACGTA" * 4)
    with torch.no_grad():
        assert network(*inputs(digits, "cpu")).shape == (2, 3, 3)


def test_long_sequences_are_cut_into_equal_pieces_to_train_on() -> None:
    size = PIECE_BASES // 4
    text = "ACGT" * (6 * size // 4)
    targets = [np.arange(12, dtype=np.float32).reshape(6, 2), np.full((1, 2), 7, np.float32)]
    pieces, parts = in_pieces([text, text[:size]], targets, size)
    assert [len(piece) // size for piece in pieces] == [3, 3, 1] and "".join(pieces[:2]) == text
    assert [part[:, 0].tolist() for part in parts] == [[0, 2, 4], [6, 8, 10], [7]]


def test_bins_are_drawn_when_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bins, "MAX_TRAIN_BINS", 40)
    table = motif_table(20, 0)
    features, targets = BinKmerRegression()._sample(table, 40)
    again, _ = BinKmerRegression()._sample(table, 40)
    assert len(features) == len(targets) == 40 and np.array_equal(features, again)
    everything = np.concatenate([bin_features(text, 20) for text in table.sequences])
    whole = {row.tobytes() for row in everything}
    assert all(row.tobytes() in whole for row in features)
