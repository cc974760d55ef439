"""Baselines on k-mers: regression, the one that a DNA language model has to beat, boosting, and classes of bases.

Counts of all k-mers of a sequence go into a logistic regression (classes, labels) or a ridge regression (numbers), or
into gradient boosting. The strength of the penalty, or the number of trees, is chosen on the validation rows. With
labels per base a logistic regression reads the k-mers around a base.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from scipy import sparse

from longstrand.baselines.linear import (
    Constant,
    LinearModel,
    Rows,
    SequenceModel,
    fit_linear,
    fit_outputs,
    fit_sequences,
    mean_loss,
    sequence_rows,
)
from longstrand.baselines.onehot import UNKNOWN, digits_of, kmer_codes
from longstrand.data.labelled import LabelledTable
from longstrand.data.targets import Task
from longstrand.runtime import generator


def kmer_counts(sequences: Sequence[str], k: int, *, both_strands: bool = False, gap: int = 0) -> sparse.csr_matrix:
    """Count the k-mers of each sequence.

    Args:
        sequences: n sequences in ``ACGTN``; k-mers with another letter than ACGT are left out.
        k: bases of a k-mer, 1 to 12.
        both_strands: add the counts of the other strand, so that a sequence and its reverse complement are the same.
        gap: bases between the two halves of a k-mer that are not looked at; k is then even.

    Returns:
        Sparse float32 (n, 4**k); column ``c`` is the k-mer whose letters, A=0 C=1 G=2 T=3, are the digits of ``c`` in
        base 4. Sequences shorter than k give an empty row.

    Raises:
        ValueError: k is out of range, or odd with a gap.
    """
    if not 1 <= k <= 12:
        raise ValueError(f"k must be 1 to 12, got {k}.")
    if gap and k % 2:
        raise ValueError(f"k must be even with a gap, got {k}.")
    digits = digits_of("|".join(sequences))
    row = np.repeat(np.arange(len(sequences), dtype=np.int32), [len(text) + 1 for text in sequences])[: len(digits)]
    if len(digits) < k + gap:
        return sparse.csr_matrix((len(sequences), 4**k), dtype=np.float32)
    num_places = len(digits) - k - gap + 1
    code = np.zeros(num_places, dtype=np.int32)
    mirrored = np.zeros(num_places, dtype=np.int32)
    valid = row[:num_places] == row[k + gap - 1 :]
    for place in range(k):
        offset = place if 2 * place < k else place + gap
        here = digits[offset : offset + num_places]
        valid &= here < UNKNOWN
        code = code * 4 + here
        mirrored += (3 - here.astype(np.int32)) * 4**place
    rows = row[:num_places][valid]
    counts = _count(rows, code[valid], (len(sequences), 4**k))
    return counts + _count(rows, mirrored[valid], counts.shape) if both_strands else counts


@dataclass(frozen=True)
class KmerRegression:
    """Logistic or ridge regression on k-mer counts; with ``max_gap`` also of k-mers with a gap between their halves.

    Attributes:
        k: bases of a k-mer.
        both_strands: count k-mers of both strands.
        max_gap: k-mers whose halves are 1 to this many bases apart are counted too.

    Example:
        >>> model = KmerRegression(k=6).fit(train, valid)  # doctest: +SKIP
        >>> model.predict(test.sequences)  # doctest: +SKIP
    """

    k: int = 6
    _: KW_ONLY
    both_strands: bool = False
    max_gap: int = 0

    def fit(self, train: LabelledTable, valid: LabelledTable | None = None) -> SequenceModel:
        """Fit on the training rows; choose the penalty by the loss on the validation rows, from strong to weak until it
        grows.

        Without ``valid`` a moderate penalty is taken. Rows whose target is missing are left out, output by output.

        Raises:
            ValueError: the problem is token-level.
        """
        return fit_sequences(self.features, train, valid, what=f"{self.k}-mer regression")

    def features(self, sequences: Sequence[str], pairs: Sequence[str] | None = None) -> sparse.csr_matrix:
        """Count k-mers, those of pairs and of each gap beside each other: sparse float32 (n, d)."""
        sides, gaps = (sequences,) if pairs is None else (sequences, pairs), range(self.max_gap + 1)
        counts = [kmer_counts(side, self.k, both_strands=self.both_strands, gap=gap) for side in sides for gap in gaps]
        return counts[0] if len(counts) == 1 else sparse.hstack(counts, format="csr")


def _count(rows: np.ndarray, codes: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    matrix = sparse.coo_matrix((np.ones(len(rows), dtype=np.float32), (rows, codes)), shape=shape)
    return matrix.tocsr()


MAX_K = 4
"""Counts of 1-mers to 4-mers are 340 features; trees on thousands of rare ones are slow and no better."""


@dataclass(frozen=True)
class KmerBoosting:
    """Histogram gradient boosting (scikit-learn) on the counts of short k-mers.

    Attributes:
        max_k: counts of 1-mers to this are the features.
        both_strands: count k-mers of both strands.
        max_iterations: trees (of each class) at most; the number is chosen on the validation rows.
        seed: of the binning.
    """

    max_k: int = MAX_K
    both_strands: bool = False
    max_iterations: int = 150
    seed: int = 0

    def fit(self, train: LabelledTable, valid: LabelledTable | None = None) -> SequenceModel:
        """Grow trees on the training rows, and keep as many as have the lowest loss on the validation rows.

        Raises:
            ValueError: the problem is token-level.
        """
        task, what = train.task, "boosting on k-mers"
        rows, num_iterations = sequence_rows(self.features, train, what), self.max_iterations
        fitted = self._fit_all(task, rows, num_iterations)
        if valid is not None:
            held_out = sequence_rows(self.features, valid, what)
            num_iterations = _best_length(task, fitted, held_out, num_iterations)
            if num_iterations < self.max_iterations:
                fitted = self._fit_all(task, rows, num_iterations)
        return SequenceModel(task, self.features, fitted, num_iterations=num_iterations)

    def features(self, sequences: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray:
        """Count k-mers of 1 to ``max_k`` bases: float32 (n, 4 + 16 + ...), for pairs twice as wide."""
        sides, sizes = [sequences] if pairs is None else [sequences, pairs], range(1, self.max_k + 1)
        counts = [kmer_counts(side, k, both_strands=self.both_strands).toarray() for side in sides for k in sizes]
        return np.concatenate(counts, axis=1)

    def _fit_all(self, task: Task, rows: Rows, length: int) -> tuple[Any, ...]:
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        settings: dict[str, Any] = {"max_iter": length, "early_stopping": False, "max_leaf_nodes": 15}
        settings |= {"random_state": self.seed, "learning_rate": 0.1, "l2_regularization": 1.0}
        classifier, regressor = HistGradientBoostingClassifier(**settings), HistGradientBoostingRegressor(**settings)
        return fit_outputs(task, rows, classifier=classifier, regressor=regressor)


def _best_length(task: Task, estimators: tuple[Any, ...], rows: Rows, longest: int) -> int:
    """Find the number of iterations with the lowest validation loss, 1 to ``longest``."""
    losses, features, targets = np.zeros(longest), rows.features, rows.targets
    for column, model in enumerate(estimators):
        if isinstance(model, Constant):
            continue
        stages = (
            model.staged_predict(features) if task.problem == "regression" else model.staged_predict_proba(features)
        )
        for stage, predicted in enumerate(stages):
            if task.problem == "single_label":
                values = np.zeros((len(predicted), task.num_outputs))
                values[:, model.classes_] = predicted
                losses[stage] += mean_loss(task, values, targets)
            else:
                values = predicted[:, None] if predicted.ndim == 1 else predicted[:, 1:2]
                losses[stage] += mean_loss(task, values, targets[:, column : column + 1])
    return int(losses.argmin()) + 1


MAX_BASES_A_CLASS = 40_000
"""Training bases that are used of each class; their weights stand for the others."""


def context_features(sequence: str, places: np.ndarray, *, k: int, flank: int) -> sparse.csr_matrix:
    """Say which k-mer begins at each offset around some bases.

    Args:
        sequence: ACGTN.
        places: (m,) positions, 0-based.
        k: bases of a k-mer.
        flank: offsets ``-flank`` to ``+flank`` are looked at; k-mers with N or past the ends say nothing.

    Returns:
        Sparse float32 (m, (2 * flank + 1) * 4**k); the column of an offset block is the k-mer in base 4.
    """
    digits = np.full(len(sequence) + 2 * flank + k, UNKNOWN, dtype=np.int64)
    digits[flank : flank + len(sequence)] = digits_of(sequence)
    codes, known = kmer_codes(digits, k)
    offsets = np.arange(2 * flank + 1)
    starts = places[:, None] + offsets
    rows, blocks = known[starts].nonzero()
    columns = blocks * 4**k + codes[starts[rows, blocks]]
    ones = np.ones(len(rows), dtype=np.float32)
    return sparse.csr_matrix((ones, (rows, columns)), shape=(len(places), len(offsets) * 4**k))


@dataclass(frozen=True)
class ContextModel:
    """A fitted context regression."""

    k: int
    flank: int
    linear: LinearModel

    def predict(self, sequences: Sequence[str], pairs: Sequence[str] | None = None) -> list[np.ndarray]:
        """Give class probabilities a base: n arrays float32 (num_bases, num_classes)."""
        return [
            self.linear.predict(context_features(text, np.arange(len(text)), k=self.k, flank=self.flank))
            for text in sequences
        ]


@dataclass(frozen=True)
class ContextRegression:
    """Logistic regression of the class of a base on the k-mers at ``2 * flank + 1`` offsets around it."""

    k: int = 3
    flank: int = 10
    seed: int = 0

    def fit(self, train: LabelledTable, valid: LabelledTable | None = None) -> ContextModel:
        """Fit on at most `MAX_BASES_A_CLASS` bases of each class, each weighted by how many it stands for.

        Raises:
            ValueError: the problem is not token-level.
        """
        if train.task.problem != "token":
            raise ValueError(f"context regression is for labels per base, not {train.task.problem}.")
        rows, held_out = self._rows(train), None if valid is None else self._rows(valid)
        return ContextModel(self.k, self.flank, fit_linear(train.task, rows, held_out, what="context regression"))

    def _rows(self, table: LabelledTable) -> Rows:
        targets = np.concatenate(table.targets).astype(np.int64)
        chosen, weights = self._choose(targets)
        ends = np.cumsum([len(text) for text in table.sequences])
        parts = []
        for number, text in enumerate(table.sequences):
            start = int(ends[number]) - len(text)
            inside = chosen[np.searchsorted(chosen, start) : np.searchsorted(chosen, ends[number])] - start
            parts.append(context_features(text, inside, k=self.k, flank=self.flank))
        return Rows(sparse.vstack(parts, format="csr"), targets[chosen], weights)

    def _choose(self, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Choose labelled bases: sorted positions and the number of bases that each stands for, both (m,)."""
        chosen, weights = [], []
        for kind in np.unique(targets[targets >= 0]):
            places = (targets == kind).nonzero()[0]
            kept = places
            if len(places) > MAX_BASES_A_CLASS:
                kept = generator(self.seed, int(kind), "context bases").permutation(places)[:MAX_BASES_A_CLASS]
            chosen.append(kept)
            weights.append(np.full(len(kept), len(places) / len(kept)))
        order = np.argsort(np.concatenate(chosen))
        return np.concatenate(chosen)[order], np.concatenate(weights)[order]
