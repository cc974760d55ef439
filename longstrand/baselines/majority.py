"""The baseline that has not looked at the sequence: class frequencies, or the mean of the targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from longstrand.data.labelled import LabelledTable


@dataclass(frozen=True)
class Majority:
    """The same prediction for every sequence (or base).

    Attributes:
        values: float32 (num_outputs,): class frequencies, label frequencies, or mean targets of the training rows.
        per_base: whether it is made for every base.
    """

    values: np.ndarray
    per_base: bool

    @classmethod
    def fit(cls, train: LabelledTable) -> Majority:
        """Average the training targets; missing ones are left out."""
        if train.task.problem in ("single_label", "token"):
            targets = np.concatenate(train.targets) if isinstance(train.targets, list) else train.targets
            counts = np.bincount(targets[targets >= 0], minlength=train.task.num_outputs)
            return cls((counts / counts.sum()).astype(np.float32), train.task.problem == "token")
        means = np.nan_to_num(np.nanmean(np.asarray(train.targets, dtype=np.float64), axis=0))
        return cls(means.astype(np.float32), False)

    def predict(self, sequences: Sequence[str], pairs: Sequence[str] | None = None) -> Any:
        """Return the values for each sequence, float32 (n, num_outputs), or each base: n arrays (num_bases, C)."""
        if self.per_base:
            return [np.tile(self.values, (len(text), 1)) for text in sequences]
        return np.tile(self.values, (len(sequences), 1))
