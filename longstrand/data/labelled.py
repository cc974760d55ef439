"""Labelled sequences: a table with a kind of problem, targets and the counts a report needs.

`labelled_files.read_labelled` reads one file into a `RawTable` (text labels), `infer_task` decides once what kind of
problem the training table poses, and `label` turns any split into a `LabelledTable` with numbers, refusing what does
not fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from longstrand.data.bins import BinTargets, moments
from longstrand.data.labelled_files import RawTable
from longstrand.data.targets import Task, encode_targets
from longstrand.errors import InputError, nearest


@dataclass(frozen=True)
class LabelledTable:
    """One split, ready to train on or to test with.

    Attributes:
        raw: sequences, names and row numbers.
        task: the kind of problem and the names of its outputs.
        targets: single-label: int64 (n,). Multi-label, regression: float32 (n, num_outputs), NaN where missing.
            Token: a list of n int16 arrays (num_bases,), -100 where missing. Bins: n arrays float32 (bins,
            num_outputs), NaN where missing: a list, or a `BinTargets`, which reads them as they are needed.
    """

    raw: RawTable
    task: Task
    targets: np.ndarray | list[np.ndarray] | BinTargets

    def __len__(self) -> int:
        return len(self.raw)

    @property
    def sequences(self) -> list[str]:
        """The n normalised sequences."""
        return self.raw.sequences

    @property
    def pairs(self) -> list[str] | None:
        """The n second sequences, or None."""
        return self.raw.pairs

    def take(self, rows: Iterable[int]) -> LabelledTable:
        """Give some rows, in the order of the table."""
        chosen = sorted(int(row) for row in rows)
        if isinstance(self.targets, BinTargets):
            targets: Any = self.targets.take(chosen)
        else:
            targets = [self.targets[row] for row in chosen] if isinstance(self.targets, list) else self.targets[chosen]
        return replace(self, raw=self.raw.take(chosen), targets=targets)

    def upper_case(self) -> LabelledTable:
        """Copy with all sequences in upper case, for what does not read text exactly; itself if they are."""
        texts = [*self.sequences, *(self.pairs or ())]
        if not any(text != text.upper() for text in texts):
            return self
        pairs = None if self.pairs is None else [text.upper() for text in self.pairs]
        return replace(self, raw=replace(self.raw, sequences=[text.upper() for text in self.sequences], pairs=pairs))

    @property
    def num_missing(self) -> int:
        """Number of targets that are missing (cells, or bases for token problems)."""
        if self.task.bin_bases is not None:
            return int(sum(np.isnan(values).sum() for values in self.targets))
        if not isinstance(self.targets, np.ndarray):
            return int(sum((labels < 0).sum() for labels in self.targets))
        return int(np.isnan(self.targets).sum()) if self.targets.dtype.kind == "f" else 0

    def counts(self) -> dict[str, Any]:
        """Describe the split for the report: sizes, letters, label distribution."""
        lengths = [len(sequence) for sequence in self.sequences]
        unknown = [len(text) - sum(text.upper().count(letter) for letter in "ACGT") for text in self.sequences]
        summary: dict[str, Any] = {
            "file": self.raw.source,
            "num_rows": len(self),
            "num_bases": sum(lengths),
            "num_lower_case_letters": self.raw.num_lower_case,
            "num_unknown_letters": sum(unknown),
            "num_sequences_with_unknown_letters": sum(count > 0 for count in unknown),
            "length": {"min": min(lengths), "median": float(np.median(lengths)), "max": max(lengths)},
            "num_missing_labels": self.num_missing,
            "num_rows_dropped": self.raw.num_dropped,
        }
        summary["labels"] = label_distribution(self)
        return summary


def label_distribution(table: LabelledTable) -> dict[str, Any]:
    """Count rows (bases) a class, positives a label, or give mean and deviation of a target."""
    names = table.task.names
    if table.task.problem in ("single_label", "token"):
        values = np.concatenate(table.targets) if isinstance(table.targets, list) else table.targets
        counts = np.bincount(values[values >= 0], minlength=len(names))
        return {name: int(count) for name, count in zip(names, counts)}
    if table.task.bin_bases is not None:
        found = moments(table.targets)
        return {
            name: {"mean": float(mean), "sd": float(spread)}
            for name, mean, spread, count in zip(names, found.mean, found.deviation, found.count)
            if count
        }
    targets = np.asarray(table.targets, dtype=np.float64)
    if table.task.problem == "multi_label":
        return {name: int(count) for name, count in zip(names, np.nansum(targets, axis=0))}
    with np.errstate(invalid="ignore"):
        return {
            name: {"mean": float(np.nanmean(column)), "sd": float(np.nanstd(column))}
            for name, column in zip(names, targets.T)
            if not np.isnan(column).all()
        }


def target_scale(table: LabelledTable) -> tuple[np.ndarray, np.ndarray]:
    """Give mean and deviation of each regression target, float64 (num_outputs,); a constant target has deviation 1."""
    if table.task.bin_bases is not None:
        found = moments(table.targets)
        return np.nan_to_num(found.mean), np.where(found.deviation > 0, found.deviation, 1.0)
    targets = np.asarray(table.targets, dtype=np.float64)
    spread = np.nanstd(targets, axis=0)
    return np.nanmean(targets, axis=0), np.where(spread > 0, spread, 1.0)


FEW_ROWS = 30
"""Fewer rows than this in a split for measuring are said to be few."""


def label_warnings(tables: Mapping[str, LabelledTable]) -> list[str]:
    """Say in sentences what looks wrong with the labels of some splits; none for measured numbers.

    A class of one row (with the class it may be misspelt from), and few rows to measure on.
    """
    warnings = []
    task = tables["train"].task
    if task.problem == "single_label":
        counts = label_distribution(tables["train"])
        single = [name for name, count in counts.items() if count <= 1]
        for name in single[:5]:
            hint = nearest(name, [other for other, count in counts.items() if count > 1])
            warnings.append(f"train: the class '{name}' has {counts[name]} row(s){hint}.")
        if len(single) > 5:
            warnings.append(f"train: {len(single) - 5} more classes have one row or none.")
        spelled = {name.casefold(): name for name in counts}
        warnings += [
            f"train: the classes '{name}' and '{other}' differ in upper and lower case alone."
            for name in counts
            if (other := spelled[name.casefold()]) != name
        ]
    for name, table in tables.items():
        if name != "train" and len(table) < FEW_ROWS:
            warnings.append(
                f"{name}: {len(table)} rows are few; one of them is {100 / len(table):.0f} % of the accuracy."
            )
    return warnings


def label(raw: RawTable, task: Task) -> LabelledTable:
    """Turn text labels into targets of a task that was inferred from the training table.

    Raises:
        InputError: a label is missing where it must not be, is no number where numbers are needed, is a class that the
            training table does not have, or has not one value a base.
    """
    if len(raw) == 0:
        raise InputError(f"{raw.source}: this split has no row; check the split column, chromosomes or fractions.")
    return LabelledTable(raw, task, encode_targets(raw, task))
