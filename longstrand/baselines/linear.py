"""Linear models on sparse features of sequences: logistic regression for classes and labels, ridge for numbers.

The strength of the penalty is chosen on the validation rows, from strong to weak until the loss grows.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
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


@dataclass(frozen=True)
class Rows:
    """Features of n rows with their targets.

    Attributes:
        features: (n, d), sparse or dense.
        targets: as in `longstrand.data.labelled.LabelledTable`, not token-level.
        weights: (n,) weight of each row in the loss, or None.
    """

    features: Any
    targets: np.ndarray
    weights: np.ndarray | None = None


@dataclass(frozen=True)
class LinearModel:
    """A fitted linear model.

    Attributes:
        task: kind of problem and names of the outputs.
        penalty: the chosen C (logistic) or alpha (ridge).
        estimators: fitted estimators; one, or one an output.
    """

    task: Task
    penalty: float
    estimators: tuple[Any, ...]

    def predict(self, features: Any) -> np.ndarray:
        """Give class probabilities, label probabilities or numbers: float32 (n, num_outputs)."""
        return predict_all(self.task, self.estimators, features)


def fit_linear(
    task: Task, train: Rows, valid: Rows | None, *, what: str = "regression", penalty: float | None = None
) -> LinearModel:
    """Fit with the penalty that has the lowest loss on the validation rows; without them, a moderate one.

    Rows whose target is missing are left out, output by output. ``penalty`` sets C (or alpha) instead of choosing it.
    Nothing is drawn: the solvers know no chance.
    """
    candidates: tuple[float, ...] = ALPHAS if task.problem == "regression" else PENALTIES
    if penalty is not None:
        candidates = (penalty,)
    elif valid is None:
        candidates = candidates[3:4]
    best: tuple[float, LinearModel] | None = None
    for tried in candidates:
        model = LinearModel(task, tried, _fit_all(task, train, tried))
        loss = 0.0 if valid is None else mean_loss(task, model.predict(valid.features), valid.targets)
        logger.info("%s: penalty %g, validation loss %.4f", what, tried, loss)
        if best is not None and loss > best[0]:
            break
        best = (loss, model)
    assert best is not None
    return best[1]


Features = Callable[[Sequence[str], Sequence[str] | None], Any]
"""Gives features (n, d) of sequences and, in problems of pairs, of the second ones."""


@dataclass(frozen=True)
class SequenceModel:
    """Estimators on features of whole sequences.

    Attributes:
        task: kind of problem and names of the outputs.
        features: of sequences.
        estimators: fitted estimators; one (classes), or one an output.
        penalty: the chosen C (logistic) or alpha (ridge); None for trees.
        num_iterations: the chosen number of trees; None for regressions.
    """

    task: Task
    features: Features
    estimators: tuple[Any, ...]
    penalty: float | None = None
    num_iterations: int | None = None

    def predict(self, sequences: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray:
        """Return class probabilities, label probabilities or numbers: float32 (n, num_outputs)."""
        return predict_all(self.task, self.estimators, self.features(sequences, pairs))


def sequence_rows(features: Features, table: LabelledTable, what: str) -> Rows:
    """Return the features and targets of a table.

    Raises:
        ValueError: the problem is token-level.
    """
    if table.task.problem == "token":
        raise ValueError(f"{what} has no token-level form; use the context regression.")
    return Rows(features(table.sequences, table.pairs), np.asarray(table.targets))


def fit_sequences(features: Features, train: LabelledTable, valid: LabelledTable | None, *, what: str) -> SequenceModel:
    """Fit a regression on features of sequences; see `fit_linear`.

    Raises:
        ValueError: the problem is token-level.
    """
    rows = sequence_rows(features, train, what)
    held_out = None if valid is None else sequence_rows(features, valid, what)
    model = fit_linear(train.task, rows, held_out, what=what)
    return SequenceModel(train.task, features, model.estimators, penalty=model.penalty)


def _fit_all(task: Task, train: Rows, penalty: float) -> tuple[Any, ...]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression, Ridge

    solver = "sparse_cg" if sparse.issparse(train.features) else "auto"
    ridge = Ridge(alpha=penalty, solver=solver, tol=1e-3, max_iter=200)
    logistic = LogisticRegression(C=penalty, max_iter=200, tol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return fit_outputs(task, train, classifier=logistic, regressor=ridge)


def fit_outputs(task: Task, rows: Rows, *, classifier: Any, regressor: Any) -> tuple[Any, ...]:
    """Fit copies of an estimator of scikit-learn: one for classes, else one an output, without missing targets."""
    from sklearn.base import clone

    targets = np.asarray(rows.targets)
    if task.problem in ("single_label", "token"):
        return (_classifier(classifier, rows.features, targets, rows.weights),)
    fitted = []
    for column in targets.T:
        known = ~np.isnan(column)
        if task.problem == "regression":
            fitted.append(clone(regressor).fit(rows.features[known], column[known].astype(np.float64)))
        else:
            fitted.append(_classifier(classifier, rows.features[known], column[known].astype(int), None))
    return tuple(fitted)


def _classifier(estimator: Any, features: Any, targets: np.ndarray, weights: np.ndarray | None) -> Any:
    from sklearn.base import clone

    if len(np.unique(targets)) < 2:
        return Constant(float(targets[0]) if len(targets) else 0.0)
    return clone(estimator).fit(features, targets, sample_weight=weights)


@dataclass(frozen=True)
class Constant:
    """Stands for the only class that the training rows have, or for a label that all of them have, or none."""

    value: float

    @property
    def classes_(self) -> np.ndarray:
        """The only class."""
        return np.array([int(self.value)])

    def predict_proba(self, features: Any) -> np.ndarray:
        """Give the same probabilities of no and yes to all rows: (n, 2)."""
        return np.tile([1 - self.value, self.value], (features.shape[0], 1))


def predict_all(task: Task, estimators: tuple[Any, ...], features: Any) -> np.ndarray:
    """Apply one estimator (classes) or one an output: float32 (n, num_outputs)."""
    if task.problem in ("single_label", "token"):
        model = estimators[0]
        values = np.zeros((features.shape[0], task.num_outputs), dtype=np.float32)
        values[:, model.classes_] = 1.0 if isinstance(model, Constant) else model.predict_proba(features)
        return values
    if task.problem == "multi_label":
        return np.stack([model.predict_proba(features)[:, 1] for model in estimators], axis=1).astype(np.float32)
    return np.stack([model.predict(features) for model in estimators], axis=1).astype(np.float32)


def mean_loss(task: Task, values: np.ndarray, targets: Any) -> float:
    """Mean cross entropy or squared error (each target in units of its variance); missing targets are left out."""
    if task.problem in ("single_label", "token"):
        known = np.asarray(targets) >= 0
        chosen = values[known, np.asarray(targets)[known]]
        return float(-np.log(np.clip(chosen, 1e-9, 1)).mean())
    if task.problem == "multi_label":
        likely = np.where(targets > 0.5, values, 1 - values)
        return float(-np.nanmean(np.where(np.isnan(targets), np.nan, np.log(np.clip(likely, 1e-9, 1)))))
    spread = np.maximum(np.nanvar(targets, axis=0), 1e-12)
    return float(np.nanmean((values - targets) ** 2 / spread))
