"""Gradient boosting on k-mer counts: what trees find in the same features as the k-mer regression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from longstrand.baselines.kmer import kmer_counts
from longstrand.baselines.linear import Constant, mean_loss, predict_all
from longstrand.data.labelled import LabelledTable
from longstrand.data.targets import Task

MAX_K = 4
"""Counts of 1-mers to 4-mers are 340 features; trees on thousands of rare ones are slow and no better."""


@dataclass(frozen=True)
class BoostingModel:
    """Fitted trees; ``num_iterations`` was chosen on the validation rows."""

    task: Task
    max_k: int
    both_strands: bool
    num_iterations: int
    estimators: tuple[Any, ...]

    def predict(self, sequences: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray:
        """Give class probabilities, label probabilities or numbers: float32 (n, num_outputs)."""
        return predict_all(self.task, self.estimators, _features(sequences, pairs, self.max_k, self.both_strands))


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

    def fit(self, train: LabelledTable, valid: LabelledTable | None = None) -> BoostingModel:
        """Grow trees on the training rows, and keep as many as have the lowest loss on the validation rows.

        Raises:
            ValueError: the problem is token-level.
        """
        task = train.task
        if task.problem == "token":
            raise ValueError("boosting on k-mers has no token-level form; use the context regression.")
        features = _features(train.sequences, train.pairs, self.max_k, self.both_strands)
        num_iterations = self.max_iterations
        fitted = self._fit_all(task, features, np.asarray(train.targets), num_iterations)
        if valid is not None:
            held_out = _features(valid.sequences, valid.pairs, self.max_k, self.both_strands)
            num_iterations = _best_length(task, fitted, held_out, np.asarray(valid.targets), self.max_iterations)
            if num_iterations < self.max_iterations:
                fitted = self._fit_all(task, features, np.asarray(train.targets), num_iterations)
        return BoostingModel(task, self.max_k, self.both_strands, num_iterations, fitted)

    def _fit_all(self, task: Task, features: np.ndarray, targets: np.ndarray, length: int) -> tuple[Any, ...]:
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        settings: dict[str, Any] = {"max_iter": length, "early_stopping": False, "max_leaf_nodes": 15}
        settings |= {"random_state": self.seed, "learning_rate": 0.1, "l2_regularization": 1.0}

        def classifier(rows: np.ndarray, truth: np.ndarray) -> Any:
            if len(np.unique(truth)) < 2:
                return Constant(float(truth[0]) if len(truth) else 0.0)
            return HistGradientBoostingClassifier(**settings).fit(rows, truth)

        if task.problem == "single_label":
            return (classifier(features, targets),)
        fitted = []
        for column in targets.T:
            known = ~np.isnan(column)
            if task.problem == "regression":
                fitted.append(HistGradientBoostingRegressor(**settings).fit(features[known], column[known]))
            else:
                fitted.append(classifier(features[known], column[known].astype(int)))
        return tuple(fitted)


def _best_length(
    task: Task, estimators: tuple[Any, ...], features: np.ndarray, targets: np.ndarray, longest: int
) -> int:
    """Find the number of iterations with the lowest validation loss, 1 to ``longest``."""
    losses = np.zeros(longest)
    for column, model in enumerate(estimators):
        if isinstance(model, Constant):
            continue
        stages = (
            model.staged_predict(features) if task.problem == "regression" else model.staged_predict_proba(features)
        )
        for stage, said in enumerate(stages):
            if task.problem == "single_label":
                values = np.zeros((len(said), task.num_outputs))
                values[:, model.classes_] = said
                losses[stage] += mean_loss(task, values, targets)
            else:
                values = said[:, None] if said.ndim == 1 else said[:, 1:2]
                losses[stage] += mean_loss(task, values, targets[:, column : column + 1])
    return int(losses.argmin()) + 1


def _features(sequences: Sequence[str], pairs: Sequence[str] | None, max_k: int, both_strands: bool) -> np.ndarray:
    """Count k-mers of 1 to ``max_k`` bases: float32 (n, 4 + 16 + ...), for pairs twice as wide."""
    texts = [sequences] if pairs is None else [sequences, pairs]
    blocks = [kmer_counts(part, k, both_strands=both_strands).toarray() for part in texts for k in range(1, max_k + 1)]
    return np.concatenate(blocks, axis=1)
