"""The baseline that has not looked at the sequence: class frequencies, or the mean of the targets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from longstrand.data.labelled import LabelledTable


@dataclass(frozen=True)
class Majority:
    """What is said about every sequence (or base).

    Attributes:
        values: float32 (num_outputs,): class frequencies, label frequencies, or mean targets of the training rows.
    """

    values: np.ndarray

    @classmethod
    def fit(cls, train: LabelledTable) -> Majority:
        """Average the training targets; missing ones are left out."""
        if train.task.problem in ("single_label", "token"):
            targets = np.concatenate(train.targets) if isinstance(train.targets, list) else train.targets
            counts = np.bincount(targets[targets >= 0], minlength=train.task.num_outputs)
            return cls((counts / counts.sum()).astype(np.float32))
        return cls(np.nan_to_num(np.nanmean(np.asarray(train.targets, dtype=np.float64), axis=0)).astype(np.float32))

    def predict(self, num_rows: int) -> np.ndarray:
        """Give the same values for all rows: float32 (num_rows, num_outputs)."""
        return np.tile(self.values, (num_rows, 1))
