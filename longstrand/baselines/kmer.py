"""k-mer regression: the baseline that a DNA language model has to beat.

Counts of all k-mers of a sequence go into a logistic regression (classes, labels) or a ridge regression (numbers). The
strength of the penalty is chosen on the validation rows.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from longstrand.data.labelled import LabelledTable
from longstrand.data.targets import Task

logger = logging.getLogger(__name__)

PENALTIES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
"""Inverse penalties C of the logistic regression that are tried, strongest penalty first."""

ALPHAS = (3000.0, 1000.0, 300.0, 100.0, 30.0, 10.0, 3.0)
"""Penalties of the ridge regression that are tried, strongest first."""

_SKIP = 4


def kmer_counts(sequences: Sequence[str], k: int, *, both_strands: bool = False) -> sparse.csr_matrix:
    """Count the k-mers of each sequence.

    Args:
        sequences: n sequences in ``ACGTN``; k-mers with another letter than ACGT are left out.
        k: bases of a k-mer, 1 to 12.
        both_strands: add the counts of the other strand, so that a sequence and its reverse complement are the same.

    Returns:
        Sparse float32 (n, 4**k); column ``c`` is the k-mer whose letters, A=0 C=1 G=2 T=3, are the digits of ``c`` in
        base 4. Sequences shorter than k give an empty row.

    Raises:
        ValueError: k is out of range.
    """
    if not 1 <= k <= 12:
        raise ValueError(f"k must be 1 to 12, got {k}.")
    digits, row = _digits(sequences)
    if len(digits) < k:
        return sparse.csr_matrix((len(sequences), 4**k), dtype=np.float32)
    num_places = len(digits) - k + 1
    code = np.zeros(num_places, dtype=np.int32)
    mirrored = np.zeros(num_places, dtype=np.int32)
    valid = np.ones(num_places, dtype=bool)
    for place in range(k):
        here = digits[place : place + num_places]
        valid &= here < _SKIP
        code = code * 4 + here
        mirrored += (3 - here.astype(np.int32)) * 4**place
    rows = row[:num_places][valid]
    counts = _count(rows, code[valid], (len(sequences), 4**k))
    return counts + _count(rows, mirrored[valid], counts.shape) if both_strands else counts


@dataclass(frozen=True)
class KmerModel:
    """A fitted k-mer regression.

    Attributes:
        task: kind of problem and names of the outputs.
        k: bases of a k-mer.
        both_strands: whether k-mers of both strands are counted.
        penalty: the chosen C (logistic) or alpha (ridge).
        estimators: fitted estimators; one, or one an output.
    """

    task: Task
    k: int
    both_strands: bool
    penalty: float
    estimators: tuple[Any, ...]

    def predict(self, sequences: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray:
        """Give class probabilities, label probabilities or numbers: float32 (n, num_outputs)."""
        features = _features(sequences, pairs, self.k, self.both_strands)
        return _predict(self.task, self.estimators, features)


class KmerRegression:
    """Logistic or ridge regression on k-mer counts.

    Example:
        >>> model = KmerRegression(k=6).fit(train, valid)  # doctest: +SKIP
        >>> model.predict(test.sequences)  # doctest: +SKIP
    """

    def __init__(self, k: int = 6, *, both_strands: bool = False, seed: int = 0) -> None:
        self.k, self.both_strands, self.seed = k, both_strands, seed

    def fit(self, train: LabelledTable, valid: LabelledTable | None = None) -> KmerModel:
        """Fit on the training rows; choose the penalty by the loss on the validation rows, from strong to weak until it
        grows.

        Without ``valid`` a moderate penalty is taken. Rows whose target is missing are left out, output by output.

        Raises:
            ValueError: the problem is token-level.
        """
        if train.task.problem == "token":
            raise ValueError("k-mer regression has no token-level form; use the majority baseline.")
        features = _features(train.sequences, train.pairs, self.k, self.both_strands)
        held_out = None if valid is None else _features(valid.sequences, valid.pairs, self.k, self.both_strands)
        candidates: tuple[float, ...] = ALPHAS if train.task.problem == "regression" else PENALTIES
        if valid is None:
            candidates = candidates[3:4]
        best: tuple[float, float, tuple[Any, ...]] | None = None
        for penalty in candidates:
            estimators = self._fit_all(train, features, penalty)
            loss = 0.0
            if valid is not None:
                loss = _loss(train.task, _predict(train.task, estimators, held_out), valid.targets)
            logger.info("%d-mer regression: penalty %g, validation loss %.4f", self.k, penalty, loss)
            if best is not None and loss > best[0]:
                break
            best = (loss, penalty, estimators)
        assert best is not None
        return KmerModel(train.task, self.k, self.both_strands, best[1], best[2])

    def _fit_all(self, train: LabelledTable, features: sparse.csr_matrix, penalty: float) -> tuple[Any, ...]:
        targets = np.asarray(train.targets)
        if train.task.problem == "single_label":
            return (self._logistic(features, targets, penalty),)
        fitted = []
        for column in targets.T:
            known = ~np.isnan(column)
            if train.task.problem == "regression":
                fitted.append(_ridge(features[known], column[known], penalty))
            else:
                fitted.append(self._logistic(features[known], column[known].astype(int), penalty))
        return tuple(fitted)

    def _logistic(self, features: sparse.csr_matrix, targets: np.ndarray, penalty: float) -> Any:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        if len(np.unique(targets)) < 2:
            return _Constant(float(targets[0]) if len(targets) else 0.0)
        model = LogisticRegression(C=penalty, max_iter=200, tol=1e-3, random_state=self.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return model.fit(features, targets)


@dataclass(frozen=True)
class _Constant:
    """Stands for a label that all training rows have, or none."""

    value: float

    def predict_proba(self, features: sparse.csr_matrix) -> np.ndarray:
        """Give the same probability to all rows: (n, 2)."""
        return np.tile([1 - self.value, self.value], (features.shape[0], 1))


def _ridge(features: sparse.csr_matrix, targets: np.ndarray, penalty: float) -> Any:
    from sklearn.linear_model import Ridge

    return Ridge(alpha=penalty, solver="sparse_cg", tol=1e-3, max_iter=200).fit(features, targets.astype(np.float64))


def _predict(task: Task, estimators: tuple[Any, ...], features: sparse.csr_matrix) -> np.ndarray:
    if task.problem == "single_label":
        model = estimators[0]
        values = np.zeros((features.shape[0], task.num_outputs), dtype=np.float32)
        values[:, model.classes_] = model.predict_proba(features)
        return values
    if task.problem == "multi_label":
        return np.stack([model.predict_proba(features)[:, 1] for model in estimators], axis=1).astype(np.float32)
    return np.stack([model.predict(features) for model in estimators], axis=1).astype(np.float32)


def _loss(task: Task, values: np.ndarray, targets: Any) -> float:
    """Mean cross entropy or squared error (each target in units of its variance)."""
    if task.problem == "single_label":
        return float(-np.log(np.clip(values[np.arange(len(targets)), targets], 1e-9, 1)).mean())
    if task.problem == "multi_label":
        likely = np.where(targets > 0.5, values, 1 - values)
        return float(-np.nanmean(np.where(np.isnan(targets), np.nan, np.log(np.clip(likely, 1e-9, 1)))))
    spread = np.maximum(np.nanvar(targets, axis=0), 1e-12)
    return float(np.nanmean((values - targets) ** 2 / spread))


def _features(sequences: Sequence[str], pairs: Sequence[str] | None, k: int, both_strands: bool) -> sparse.csr_matrix:
    counts = kmer_counts(sequences, k, both_strands=both_strands)
    if pairs is None:
        return counts
    return sparse.hstack([counts, kmer_counts(pairs, k, both_strands=both_strands)], format="csr")


def _digits(sequences: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Give the digit of each base, with a skipped one after each sequence, and the sequence of each: uint8, int32."""
    table = np.full(256, _SKIP, dtype=np.uint8)
    for digit, letter in enumerate(b"ACGT"):
        table[letter] = digit
    text = np.frombuffer("|".join(sequences).encode("ascii"), dtype=np.uint8)
    lengths = np.array([len(sequence) + 1 for sequence in sequences], dtype=np.int64)
    return table[text], np.repeat(np.arange(len(sequences), dtype=np.int32), lengths)[: len(text)]


def _count(rows: np.ndarray, codes: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    matrix = sparse.coo_matrix((np.ones(len(rows), dtype=np.float32), (rows, codes)), shape=shape)
    return matrix.tocsr()
