"""Splits and their task, as the settings of a fine-tuning run say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from longstrand.data.bins import moments
from longstrand.data.labelled import LabelledTable, RawTable, infer_task, label
from longstrand.data.labelled_files import read_labelled
from longstrand.data.labelled_intervals import GenomeWindows
from longstrand.data.labelled_tokens import cut_pieces, is_bio
from longstrand.data.long_rows import refuse_pieces
from longstrand.data.splits import Splits, choose_rows, split_at_random, split_by_chrom, split_by_column
from longstrand.data.targets import Task, read_class_names
from longstrand.errors import UsageError
from longstrand.training.finetune_config import DataSettings


@dataclass(frozen=True)
class LabelledSplits:
    """Training, validation and (perhaps) test tables of one task, and where they come from."""

    train: LabelledTable
    valid: LabelledTable
    test: LabelledTable | None
    raw: Splits

    @property
    def task(self) -> Task:
        """The task, as inferred from the training rows."""
        return self.train.task

    def items(self) -> list[tuple[str, LabelledTable]]:
        """List the splits that exist with their names."""
        named = [("train", self.train), ("valid", self.valid), ("test", self.test)]
        return [(name, table) for name, table in named if table is not None]


def load_splits(settings: DataSettings, *, alphabet: str | None = "ACGTN") -> LabelledSplits:
    """Read and split the labelled rows, and decide once what kind of problem the training rows pose.

    Raises:
        InputError: a file, a row or the split is wrong; see `longstrand.data`.
        UsageError: settings that contradict each other.
    """
    names = settings.class_names
    alone = settings.problem is not None or settings.bin_bases is not None
    if settings.class_names_file is not None:
        names = read_class_names(settings.class_names_file)
    parts, origin = read_splits(settings, alphabet=alphabet, class_names=names)
    table = parts["train"]
    if not alone:
        refuse_pieces(table, "data.columns.group", "data.problem=single_label")
    task = (
        _task_of_bins(table, settings)
        if settings.bin_bases is not None
        else infer_task(
            table.labels,
            table.sequences,
            source=table.source,
            rows=table.rows,
            problem=settings.problem,
            class_names=names,
        )
    )
    raw = _split_rest(parts, settings, origin)
    tables = {name: label(part, task) for name, part in raw.items()}
    if settings.piece_bases is not None:
        if task.problem != "token":
            raise UsageError(f"piece_bases cuts labels per base, but the problem is {task.problem}; leave it out.")
        tables = {name: _in_pieces(part, settings.piece_bases) for name, part in tables.items()}
    return LabelledSplits(tables["train"], tables["valid"], tables.get("test"), raw)


def _task_of_bins(table: RawTable, settings: DataSettings) -> Task:
    """Make the task of one number a bin; raises UsageError for settings that say something else."""
    if settings.problem not in (None, "regression") or table.pairs is not None:
        raise UsageError("bin_bases is for regression of single sequences; leave out problem, and pairs.")
    names = tuple(settings.class_names or table.labels)
    why = f"declared: one number for each bin of {settings.bin_bases} bases"
    return Task("regression", names, tuple(table.labels), "columns", names, why, settings.bin_bases)


def read_splits(
    settings: DataSettings, *, alphabet: str | None, class_names: Sequence[str] | None = None
) -> tuple[dict[str, RawTable], list[str]]:
    """Read the files, and split the training rows by a column or by chromosome if the settings say so.

    Returns:
        The splits that exist so far by name (``train`` always), and where each comes from.

    Raises:
        InputError, UsageError: as `load_splits`.
    """
    windows = None
    if settings.fasta is not None:
        from longstrand.genome.fasta import Genome

        windows = GenomeWindows(Genome(settings.fasta), settings.window, settings.negative_ratio, settings.split_seed)

    def read(path: Any) -> RawTable:
        return read_labelled(path, settings.columns, alphabet=alphabet, windows=windows, class_names=class_names)

    parts: dict[str, RawTable] = {"train": read(settings.train)}
    origin = ["the training file"]
    if settings.columns.split is not None:
        _refuse_second_source(settings, "a split column")
        parts = split_by_column(parts["train"], settings.columns.split)
        origin = [f"the column '{settings.columns.split}'"]
    elif settings.valid_chroms or settings.test_chroms:
        _refuse_second_source(settings, "chromosomes")
        parts = split_by_chrom(parts["train"], settings.valid_chroms, settings.test_chroms)
        origin = [f"chromosomes (validation {list(settings.valid_chroms)}, test {list(settings.test_chroms)})"]
    given = {name: path for name, path in (("valid", settings.valid), ("test", settings.test)) if path is not None}
    if given:
        plain = settings.columns.model_copy(update={"split": None})
        parts |= {
            name: read_labelled(path, plain, alphabet=alphabet, windows=windows, class_names=class_names)
            for name, path in given.items()
        }
        origin.append(f"given files for {', '.join(given)}")
    return parts, origin


def _split_rest(parts: dict[str, RawTable], settings: DataSettings, origin: list[str]) -> Splits:
    """Split off at random what is still missing, and choose the training rows."""
    shares = {"valid": settings.valid_fraction, "test": settings.test_fraction}
    explicit = settings.columns.split is not None or bool(settings.valid_chroms or settings.test_chroms)
    missing = {name: share for name, share in shares.items() if name not in parts and share > 0}
    if explicit:
        missing.pop("test", None)
    if missing:
        parts |= split_at_random(parts["train"], missing, seed=settings.split_seed)
        origin.append(f"a random split (seed {settings.split_seed}) for {', '.join(missing)}")
    if settings.max_train_rows is not None:
        parts["train"] = choose_rows(parts["train"], settings.max_train_rows, seed=settings.split_seed)
    return Splits(parts["train"], parts["valid"], parts.get("test"), "; ".join(origin))


def _refuse_second_source(settings: DataSettings, what: str) -> None:
    if settings.valid is not None or settings.test is not None:
        raise UsageError(f"the split is given twice: by {what} and by valid or test files; choose one.")


def _in_pieces(table: LabelledTable, num_bases: int) -> LabelledTable:
    """Cut sequences with labels per base into pieces; rows and names are repeated."""
    assert isinstance(table.targets, list)
    places = [(row, *ends) for row, text in enumerate(table.sequences) for ends in cut_pieces(len(text), num_bases)]
    raw = table.raw
    names = raw.names or [str(row) for row in raw.rows]
    pieces = replace(
        raw,
        rows=[raw.rows[row] for row, _, _ in places],
        sequences=[raw.sequences[row][start:end] for row, start, end in places],
        names=[f"{names[row]}:{start}-{end}" for row, start, end in places],
        is_cut=True,
        labels={},
        pairs=None,
        chroms=None,
        splits=None,
    )
    return LabelledTable(pieces, table.task, [table.targets[row][start:end] for row, start, end in places])


def check_strand(task: Task, *strands: str) -> None:
    """Refuse both strands for labels that have a direction.

    Raises:
        UsageError: begin/inside labels are to be read from both strands.
    """
    if "both" in strands and is_bio(task.names):
        raise UsageError(
            "B-/I- labels have a direction: on the other strand a feature would begin at its end; "
            "use strand '+', or labels without B- and I-."
        )


def target_scale(table: LabelledTable) -> tuple[np.ndarray, np.ndarray]:
    """Give mean and deviation of each regression target, float64 (num_outputs,); a constant target has deviation 1."""
    if table.task.bin_bases is not None:
        found = moments(table.targets)
        return np.nan_to_num(found.mean), np.where(found.deviation > 0, found.deviation, 1.0)
    targets = np.asarray(table.targets, dtype=np.float64)
    spread = np.nanstd(targets, axis=0)
    return np.nanmean(targets, axis=0), np.where(spread > 0, spread, 1.0)


def balanced_weights(table: LabelledTable) -> list[float]:
    """Weigh classes inversely to their frequency (the mean over rows is 1), or positives of each label.

    The weight of positives is negatives / positives, within 0.01 and 100.
    """
    task = table.task
    if task.problem == "multi_label":
        targets = np.asarray(table.targets)
        positives = np.nansum(targets, axis=0)
        negatives = (~np.isnan(targets)).sum(axis=0) - positives
        return [float(value) for value in np.clip(negatives / np.maximum(positives, 1), 0.01, 100)]
    values = np.concatenate(table.targets) if isinstance(table.targets, list) else table.targets
    counts = np.bincount(values[values >= 0], minlength=task.num_outputs)
    weights = counts.sum() / (max(1, int((counts > 0).sum())) * np.maximum(counts, 1))
    return [float(value) for value in np.where(counts > 0, weights, 1.0)]
