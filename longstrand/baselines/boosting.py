"""Gradient boosting on k-mer counts: what trees find in the same features as the k-mer regression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from longstrand.baselines.kmer import kmer_counts
from longstrand.baselines.linear import Constant, Rows, SequenceModel, fit_outputs, mean_loss, sequence_rows
from longstrand.data.labelled import LabelledTable
from longstrand.data.targets import Task

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
