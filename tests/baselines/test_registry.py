"""Every baseline finds a planted motif and nothing in shuffled labels; no prediction depends on its batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from longstrand.baselines.cnn import CnnBaseline, Training, inputs
from longstrand.baselines.kmer import ContextRegression, KmerBoosting, context_features
from longstrand.baselines.networks import SEQUENCE_NETWORKS, SpliceAI
from longstrand.baselines.onehot import OneHotRegression, one_hot, padded_digits
from longstrand.baselines.registry import BaselineSettings, baselines_for, fit_baseline
from longstrand.data.labelled import LabelledTable
from longstrand.data.labelled_files import RawTable
from longstrand.data.targets import Task
from longstrand.errors import UsageError
from longstrand.evaluation.metrics import Scores, evaluate

FAST = BaselineSettings(kmer=4, cnn=Training(epochs=6, batch_size=16, learning_rate=5e-3))


def joined(values: Any) -> np.ndarray:
    """Put the arrays of rows below each other."""
    return np.concatenate(values) if isinstance(values, list) else values


def table(problem: str, num_rows: int, seed: int, *, shuffled: bool = False) -> LabelledTable:
    """Rows of 36 to 40 bases; GATTACA at place 6 decides the first output, CCGGA at 20 the second."""
    random = np.random.default_rng(seed)
    signal = random.integers(0, 2, (num_rows, 2))
    texts = []
    for first, second in signal:
        text = "".join(random.choice(list("ACGT"), int(random.integers(36, 41))))
        text = text[:6] + "GATTACA" + text[13:] if first else text
        texts.append(text[:20] + "CCGGA" + text[25:] if second else text)
    if shuffled:
        signal = random.permutation(signal)
    raw = RawTable("t", list(range(num_rows)), texts, {})
    if problem == "token":
        targets: Any = [np.zeros(len(text), np.int16) for text in texts]
        for row, (first, _) in enumerate(signal):
            targets[row][6:13] = first
            targets[row][0] = -100
        return LabelledTable(raw, Task("token", ("out", "in"), ("l",)), targets)
    if problem == "single_label":
        return LabelledTable(raw, Task("single_label", ("no", "yes"), ("l",)), signal[:, 0].astype(np.int64))
    values = signal.astype(np.float32) * (2 if problem == "regression" else 1)
    values[::7, 0] = np.nan
    return LabelledTable(raw, Task(problem, ("p", "q"), ("p", "q")), values)  # type: ignore[arg-type]


def quality(name: str, problem: str, *, shuffled: bool = False) -> float:
    train, valid, test = (table(problem, rows, seed, shuffled=shuffled) for seed, rows in enumerate((160, 60, 80)))
    values = joined(fit_baseline(name, train, valid, FAST).predict(test.sequences))
    targets = np.concatenate(test.targets).astype(np.int64) if problem == "token" else test.targets
    found = evaluate(Scores(test.task, targets, values), num_resamples=0, curves=False)["metrics"]
    return found[{"multi_label": "mean_mcc", "regression": "pearson"}.get(problem, "mcc")]["value"]


KINDS = [
    *((name, "single_label") for name in baselines_for("single_label") if name != "majority"),
    *((name, "multi_label") for name in ("kmer", "boosting", "onehot", "cnn-deepsea")),
    *((name, "regression") for name in ("kmer", "boosting", "onehot", "cnn-deepstarr")),
    *(("context", "token"), ("cnn-spliceai", "token")),
]
LONG = {
    ("cnn-spliceai", "token"),
    ("cnn-spliceai", "single_label"),
    ("boosting", "regression"),
    ("boosting", "multi_label"),
}


@pytest.mark.parametrize(
    ("name", "problem"), [pytest.param(*kind, marks=[pytest.mark.slow] * (kind in LONG)) for kind in KINDS]
)
def test_a_planted_motif_is_found(name: str, problem: str) -> None:
    assert quality(name, problem) > 0.6


@pytest.mark.parametrize("name", ["kmer", "boosting", "onehot", "cnn-deepstarr"])
def test_nothing_is_found_in_shuffled_labels(name: str) -> None:
    assert abs(quality(name, "single_label", shuffled=True)) < 0.35


def test_the_majority_of_every_problem() -> None:
    for problem in ("single_label", "multi_label", "regression", "token"):
        train = table(problem, 20, 0)
        said = joined(fit_baseline("majority", train).predict(train.sequences))
        assert np.ptp(said, axis=0).max() == 0


def test_rungs_by_problem() -> None:
    assert baselines_for("single_label")[:4] == ["majority", "kmer", "boosting", "onehot"]
    assert baselines_for("token") == ["majority", "context", "cnn-spliceai"]
    assert "boosting" not in baselines_for("multi_label", 919)
    with pytest.raises(UsageError, match="unknown baseline for token problems 'kmer'"):
        fit_baseline("kmer", table("token", 4, 0))
    with pytest.raises(UsageError, match=r"unknown network 'deepseq' \(did you mean 'deepsea'"):
        CnnBaseline("deepseq").fit(table("single_label", 4, 0))


def test_models_refuse_the_wrong_kind_of_problem() -> None:
    tokens, classes = table("token", 4, 0), table("single_label", 4, 0)
    for model in (OneHotRegression(), KmerBoosting()):
        with pytest.raises(ValueError, match="no token-level form"):
            model.fit(tokens)
    with pytest.raises(ValueError, match="labels per base, not single_label"):
        ContextRegression().fit(classes)


def test_one_hot_by_hand() -> None:
    digits = padded_digits(["ACN", "G", "TTACGTT"], 3)
    assert digits.tolist() == [[0, 1, 4], [2, 4, 4], [0, 1, 2]]
    assert one_hot(digits).toarray().tolist() == [
        [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0],
    ]


def test_context_features_by_hand() -> None:
    found = context_features("ACG", np.array([0, 1]), k=2, flank=1).toarray()
    assert found.shape == (2, 3 * 16)
    # base 0: nothing at -1, AC (1) at 0, CG (6) at +1; base 1: AC at -1, CG at 0, nothing at +1
    assert [line.nonzero()[0].tolist() for line in found] == [[16 + 1, 32 + 6], [1, 16 + 6]]


@pytest.mark.parametrize("name", list(SEQUENCE_NETWORKS))
def test_networks_do_not_depend_on_their_batch(name: str) -> None:
    train = table("single_label", 24, 0)
    settings = Training(epochs=1, batch_size=8, both_strands=True)
    model = CnnBaseline(name, settings).fit(train, train)
    alone = np.concatenate([model.predict([text]) for text in train.sequences[:5]])
    assert np.allclose(alone, model.predict(train.sequences)[:5], atol=1e-5)
    assert model.num_parameters > 1000


def test_both_strands_give_the_same_answer() -> None:
    from longstrand.genome.sequence import reverse_complement

    train = table("single_label", 24, 0)
    model = CnnBaseline("aparent", Training(epochs=1, both_strands=True)).fit(train)
    turned = [reverse_complement(text) for text in train.sequences]
    assert np.allclose(model.predict(train.sequences), model.predict(turned), atol=1e-5)


def test_padding_says_nothing_to_the_token_network() -> None:
    network = SpliceAI(2, per_base=True).eval()
    short = np.array([[0, 1, 2, 3, 4]], np.uint8)
    padded = np.concatenate([short, np.full((1, 7), 5, np.uint8)], axis=1)
    with torch.no_grad():
        assert torch.allclose(network(*inputs(short, "cpu")), network(*inputs(padded, "cpu"))[:, :5], atol=1e-6)


def test_the_best_epoch_is_kept_and_repeats() -> None:
    train, valid = table("single_label", 40, 0), table("single_label", 20, 1, shuffled=True)
    settings = Training(epochs=6, patience=2, batch_size=8, learning_rate=2e-2)
    first, second = (CnnBaseline("deepsea", settings).fit(train, valid) for _ in range(2))
    assert first.history == second.history
    assert first.epochs_trained == int(np.argmin(first.history)) + 1
    assert len(first.history) <= max(first.epochs_trained, 2) + 2
    assert np.array_equal(first.predict(valid.sequences), second.predict(valid.sequences))
    other = CnnBaseline("deepsea", replace(settings, seed=1)).fit(train, valid)
    assert not np.array_equal(first.predict(valid.sequences), other.predict(valid.sequences))


def test_pairs() -> None:
    random = np.random.default_rng(0)
    targets = random.integers(0, 2, 80)
    seconds = ["ACCA" * 4 if target else "GTTG" * 4 for target in targets]
    raw = RawTable("t", list(range(80)), ["ACGTACGT"] * 80, {}, pairs=seconds)
    rows = LabelledTable(raw, Task("single_label", ("0", "1"), ("l",)), targets)
    for name in ("boosting", "onehot", "cnn-deepsea"):
        values = fit_baseline(name, rows, rows, FAST).predict(raw.sequences, raw.pairs)
        assert (values.argmax(axis=1) == targets).all()
