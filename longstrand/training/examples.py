"""Labelled rows of a fine-tuning run: split as its settings say, tokenized, and given in batches of similar length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from longstrand.data.bins import cut, encode_row
from longstrand.data.cohort import Cohort, carry_bases, carry_bins
from longstrand.data.labelled import LabelledTable, label
from longstrand.data.labelled_files import GenomeWindows, LabelColumns, RawTable, cut_rows, read_labelled, refuse_pieces
from longstrand.data.labelled_tokens import is_bio
from longstrand.data.rows import Columns, detect_file, has_intervals
from longstrand.data.signals import Signals
from longstrand.data.splits import choose_rows, split_at_random, split_by_chrom, split_by_column
from longstrand.data.tables import TABLES, column_names
from longstrand.data.targets import Task, infer_task, read_class_names
from longstrand.errors import InputError, UsageError
from longstrand.genome.fasta import Genome
from longstrand.genome.sequence import normalise, reverse_complement
from longstrand.runtime import generator
from longstrand.training.settings import DataSettings

if TYPE_CHECKING:
    from longstrand.tokenization.base import Encoding, Tokenizer


@dataclass(frozen=True)
class LabelledSplits:
    """Training, validation and (perhaps) test tables of one task, where they come from, and the tracks behind them."""

    train: LabelledTable
    valid: LabelledTable
    test: LabelledTable | None
    origin: str
    signals: Signals | None = None

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
        else infer_task(table, problem=settings.problem, class_names=names)
    )
    _split_rest(parts, settings, origin)
    if settings.piece_bases is not None:
        if task.problem != "token":
            raise UsageError(f"piece_bases cuts labels per base, but the problem is {task.problem}; leave it out.")
        parts = {name: cut_rows(part, settings.piece_bases) for name, part in parts.items()}
    tables = {name: label(part, task) for name, part in parts.items()}
    return LabelledSplits(tables["train"], tables["valid"], tables.get("test"), "; ".join(origin))


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
    given = {name: path for name in ("train", "valid", "test") if (path := getattr(settings, name)) is not None}
    if settings.fasta is not None:
        if not any(has_intervals(path, Columns(settings.columns.sequence)) for path in given.values()):
            raise UsageError(f"{settings.train}: holds sequences, so a genome has no meaning; leave it out.")
        windows = GenomeWindows(Genome(settings.fasta), settings.window, settings.negative_ratio, settings.split_seed)
        if settings.negative_ratio:
            windows.reserve(*given.values())

    columns = settings.columns
    if columns.split is None and not (settings.valid or settings.test or settings.valid_chroms or settings.test_chroms):
        names = column_names(settings.train) if detect_file(settings.train) in TABLES else []
        columns = columns.model_copy(update={"split": next((name for name in names if name.lower() == "split"), None)})

    def read(path: Path, columns: LabelColumns) -> RawTable:
        return read_labelled(path, columns, alphabet=alphabet, windows=windows, class_names=class_names)

    parts: dict[str, RawTable] = {"train": read(settings.train, columns)}
    origin = ["the training file"]
    del given["train"]
    by_place = settings.valid_chroms or settings.test_chroms
    if given and (columns.split is not None or by_place):
        what = "chromosomes" if columns.split is None else "a split column"
        raise UsageError(f"the split is given twice: by {what} and by valid or test files; choose one.")
    if columns.split is not None:
        parts = split_by_column(parts["train"], columns.split)
        origin = [f"the column '{columns.split}'"]
    elif by_place:
        parts = split_by_chrom(parts["train"], settings.valid_chroms, settings.test_chroms)
        origin = [f"chromosomes (validation {list(settings.valid_chroms)}, test {list(settings.test_chroms)})"]
    if given:
        plain = settings.columns.model_copy(update={"split": None})
        parts |= {name: read(path, plain) for name, path in given.items()}
        origin.append(f"given files for {', '.join(given)}")
    return parts, origin


def _split_rest(parts: dict[str, RawTable], settings: DataSettings, origin: list[str]) -> None:
    """Split off at random what is still missing, and choose the training rows; ``parts`` and ``origin`` are changed."""
    shares = {"valid": settings.valid_fraction, "test": settings.test_fraction}
    explicit = parts["train"].splits is not None or bool(settings.valid_chroms or settings.test_chroms)
    missing = {name: share for name, share in shares.items() if name not in parts and share > 0}
    if explicit:
        missing.pop("test", None)
    for name, share in shares.items():
        key = f"{name}_fraction"
        if name not in missing and share not in (0, DataSettings.model_fields[key].default):
            raise UsageError(f"{key} is for rows split off at random, but these come from {'; '.join(origin)}.")
    if missing:
        parts |= split_at_random(parts["train"], missing, seed=settings.split_seed)
        origin.append(f"a random split (seed {settings.split_seed}) for {', '.join(missing)}")
    if settings.max_train_rows is not None:
        parts["train"] = choose_rows(parts["train"], settings.max_train_rows, seed=settings.split_seed)


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


def open_cohort(settings: DataSettings, table: LabelledTable) -> Cohort | None:
    """Open the people of the settings, whose haplotypes the training rows are read from.

    Raises:
        UsageError: the rows hold sequences, which have no place on a genome.
        InputError: as `open_haplotypes`.
    """
    if settings.variants is None or settings.fasta is None:
        return None
    if table.raw.places is None:
        raise UsageError(
            f"{table.raw.source}: data.variants is for rows that are intervals on a genome; these hold sequences, of "
            "which nobody knows the place."
        )
    return Cohort.open(genome=Genome(settings.fasta), **dict(settings.variants))


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


_GROUP = 50


@dataclass(frozen=True)
class Tokenized:
    """A table as tokens.

    Attributes:
        encodings: one per row, special tokens included.
        num_truncated: rows that were cut on the right to fit.
        num_empty: rows without a single token of DNA.
    """

    encodings: list[Encoding]
    num_truncated: int
    num_empty: int


Scale = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Prepared:
    """Everything that training needs, read and checked.

    Attributes:
        splits: labelled tables.
        tokenized: tokens of each split.
        tokenizer: the model's own.
        limit: most tokens of an input, or None.
        scale: regression: mean and deviation of the training targets.
        metric: name of the metric that chooses the best checkpoint.
        search: what the search of settings tried; see `longstrand.training.finetune.choose`.
    """

    splits: LabelledSplits
    tokenized: dict[str, Tokenized]
    tokenizer: Tokenizer
    limit: int | None
    scale: Scale | None
    metric: str
    search: dict[str, Any] | None = None


def tokenize(table: LabelledTable, tokenizer: Tokenizer, limit: int | None, *, on_long: str = "truncate") -> Tokenized:
    """Encode all rows.

    Raises:
        InputError: a row is too long and ``on_long`` is ``refuse``, or it is a pair (pairs are never cut).
    """
    encodings, num_truncated, num_empty = [], 0, 0
    for row in range(len(table)):
        second = table.pairs[row] if table.pairs is not None else None
        encoding = encode_row(tokenizer, table.sequences[row], second, table.task.bin_bases)
        length = len(encoding)
        if limit is not None and length > limit:
            if on_long == "refuse" or second is not None or table.task.bin_bases is not None:
                raise InputError(_too_long(table, row, length, limit))
            encoding = cut(encoding, tokenizer, limit)
            num_truncated += 1
        num_empty += bool(np.all(encoding.special_tokens_mask))
        encodings.append(encoding)
    return Tokenized(encodings, num_truncated, num_empty)


def _too_long(table: LabelledTable, row: int, length: int, limit: int) -> str:
    advice = "shorten it, or set training.on_long=truncate"
    if table.pairs is not None:
        advice = "pairs are never cut, shorten them"
    elif table.task.bin_bases is not None:
        advice = "sequences of bins are never cut: give recurrent memory (memory.num_tokens=...), or shorter windows"
    return (
        f"{table.raw.source}, row {table.raw.rows[row]}: the sequence has {length:,} tokens, "
        f"but the model reads at most {limit:,}; {advice}."
    )


class TrainingExamples:
    """All examples of a run, one after the other; each is a function of the seed and its number.

    Epoch ``e`` holds ``num_batches`` full batches of different rows: rows are shuffled, groups of 50 batches are sorted
    by length so that little is padded, and the batches are shuffled again. Up to ``batch_size - 1`` rows, others in
    each epoch, are left out of it.

    Args:
        table: training rows.
        tokenized: its tokens.
        tokenizer: to read the other strand.
        batch_size: sequences of a batch; at most the number of rows.
        epochs: passes.
        seed: of order and strands.
        strand: ``both`` reads each row from a random strand each time.
        limit: most tokens.
        scale: regression: (mean, deviation) that targets are standardised by, each (num_outputs,).
        cohort: people of whom one haplotype is read in place of each row, drawn by the seed and the number.
        alphabet: letters that the rows of a cohort are normalised to, as the table was.
        signals: tracks that the targets are of; rows are moved by up to their ``jitter``.
    """

    def __init__(
        self,
        table: LabelledTable,
        tokenized: Tokenized,
        tokenizer: Tokenizer,
        *,
        batch_size: int,
        epochs: int,
        seed: int,
        strand: str = "+",
        limit: int | None = None,
        scale: tuple[np.ndarray, np.ndarray] | None = None,
        cohort: Cohort | None = None,
        alphabet: str | None = None,
        signals: Signals | None = None,
    ) -> None:
        self._signals = signals
        self._table, self._tokenizer, self._encodings = table, tokenizer, tokenized.encodings
        self._seed, self._strand, self._limit, self._scale = seed, strand, limit, scale
        self._cohort, self._alphabet = cohort, alphabet
        self._usable = np.array([not np.all(item.special_tokens_mask) for item in tokenized.encodings]).nonzero()[0]
        if len(self._usable) == 0:
            raise InputError(f"{table.raw.source}: no row has a single token; the sequences are too short.")
        self._lengths = np.array([len(item) for item in tokenized.encodings])
        self._reduce: Literal["first", "majority"] = "first" if is_bio(table.task.names) else "majority"
        self.batch_size = min(batch_size, len(self._usable))
        self.num_batches = len(self._usable) // self.batch_size
        self._num_examples = epochs * self.num_batches * self.batch_size
        self._order = lru_cache(maxsize=2)(self._epoch_order)

    def __len__(self) -> int:
        return self._num_examples

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Give ``input_ids``, ``labels``, ``num_bases`` and, for pairs, ``token_type_ids``."""
        epoch, place = divmod(number, self.num_batches * self.batch_size)
        row = int(self._order(epoch)[place])
        reverse = self._strand == "both" and generator(self._seed, number, "strand").random() < 0.5
        encoding, target = self._shown(number, row, reverse)
        example: dict[str, Any] = {
            "input_ids": encoding.input_ids,
            "labels": self._labels(target, encoding),
            "num_bases": encoding.num_bases,
        }
        if encoding.token_type_ids is not None:
            example["token_type_ids"] = encoding.token_type_ids
        return example

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_order"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._order = lru_cache(maxsize=2)(self._epoch_order)

    def _epoch_order(self, epoch: int) -> np.ndarray:
        random = generator(self._seed, epoch, "order")
        rows = self._usable[random.permutation(len(self._usable))[: self.num_batches * self.batch_size]]
        batches: list[np.ndarray] = []
        group = _GROUP * self.batch_size
        for start in range(0, len(rows), group):
            part = rows[start : start + group]
            part = part[np.argsort(-self._lengths[part], kind="stable")]
            batches += list(part.reshape(-1, self.batch_size))
        return np.concatenate([batches[place] for place in random.permutation(len(batches))])

    def _shown(self, number: int, row: int, reverse: bool) -> tuple[Encoding, Any]:
        """Give the tokens of a row and its labels: of a drawn haplotype if there are people, on a strand.

        Where that cannot be read (a deletion of the whole row, or bins or pairs with too many tokens): as it stands.
        """
        text, target, bin_bases = self._table.sequences[row], self._table.targets[row], self._table.task.bin_bases
        along = bin_bases is not None or self._table.task.problem == "token"
        if self._cohort is not None:
            places: Any = self._table.raw.places
            text, at = self._cohort.read_row(places[row], seed=self._seed, index=number, alphabet=self._alphabet)
            if bin_bases is not None:
                target = carry_bins(target, at, bin_bases)
                text = text[: len(target) * bin_bases]
            elif along:
                target = carry_bases(target, at)
        elif self._signals is not None and self._signals.jitter:
            most, places = self._signals.jitter, self._table.raw.places
            shift = int(generator(self._seed, number, "jitter").integers(-most, most + 1))
            assert places is not None
            text, target = self._signals.read(places[row], shift)
            text = text if self._alphabet is None else normalise(text, self._alphabet, where=str(places[row])).sequence
        elif not reverse:
            return self._encodings[row], target
        second = self._table.pairs[row] if self._table.pairs is not None else None
        if reverse:
            text, second = reverse_complement(text), second and reverse_complement(second)
            target = target[::-1] if along else target
            if self._signals is not None and self._signals.partners is not None:
                target = target[:, self._signals.partners]
        encoding = encode_row(self._tokenizer, text, second, bin_bases)
        if self._limit is not None and len(encoding) > self._limit:
            if second is not None or bin_bases is not None:
                return self._encodings[row], self._table.targets[row]
            encoding = cut(encoding, self._tokenizer, self._limit)
        if np.all(encoding.special_tokens_mask):
            return self._encodings[row], self._table.targets[row]
        return encoding, target

    def _labels(self, target: Any, encoding: Encoding) -> Any:
        problem = self._table.task.problem
        if problem == "token":
            return encoding.from_bases(target, reduce=self._reduce)
        if problem == "regression" and self._scale is not None:
            mean, spread = self._scale
            return ((target - mean) / spread).astype(np.float32)
        return target
