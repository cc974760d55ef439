"""Read labelled sequences from tables of sequences, or from intervals on a genome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from longstrand.data.labelled import LabelColumns, RawTable, count_letters, normalised
from longstrand.data.labelled_tokens import inside_codes, join_pieces, plain_lists, spread_piece
from longstrand.data.long_rows import likely_group
from longstrand.data.rows import (
    Columns,
    detect_file,
    find_column,
    has_intervals,
    is_missing,
    read_intervals,
    read_table,
    sequence_column,
    take_column,
)
from longstrand.errors import InputError, UsageError, nearest

if TYPE_CHECKING:
    import polars as pl

    from longstrand.genome.fasta import Genome
    from longstrand.genome.intervals import Interval, IntervalTable


MARGIN = 100
"""Bases between a random negative and the nearest given interval, whose flanks often belong to the same signal; of
windows shorter than this, as many as a window has."""


@dataclass(frozen=True)
class GenomeWindows:
    """How intervals become sequences.

    Attributes:
        genome: where the bases come from.
        num_bases: cut windows of this size around the centre of every interval; None takes the intervals as they are.
            Rows whose window leaves the chromosome are left out and counted.
        negative_ratio: this many GC- and length-matched random intervals are added for each given one; the given ones
            are then labelled 1 and the random ones 0.
        seed: of the random intervals.
        taken: where no random interval may lie; those that are drawn are added.
    """

    genome: Genome
    num_bases: int | None = None
    negative_ratio: int = 0
    seed: int = 0
    taken: list[Interval] = field(default_factory=list)

    def reserve(self, *paths: Path) -> None:
        """Keep random intervals off the whole given intervals of these files (those of every split) and `MARGIN`.

        Raises:
            InputError: a file is damaged.
        """
        for path in paths:
            given = read_intervals(path).intervals
            self.taken.extend(item.expand(min(MARGIN, self.num_bases or item.length)) for item in given)


def read_labelled(
    path: Path,
    columns: LabelColumns | None = None,
    *,
    alphabet: str | None = "ACGTN",
    windows: GenomeWindows | None = None,
    class_names: Sequence[str] | None = None,
) -> RawTable:
    """Read sequences with text labels.

    A BED file, or a table with columns ``chrom``, ``start``, ``end`` and no sequence column, holds intervals and needs
    ``windows``. Sequences are normalised to ``alphabet``, or left as they are
    (None). With ``columns.group`` each row is a labelled piece, and the
    pieces of a group are joined into one sequence with one label a base.

    Raises:
        InputError: the file is missing, damaged or empty, a column is missing, a sequence is missing or holds something
            that is no nucleotide letter; row and nearest name are given.
        UsageError: intervals without a genome.
    """
    path = Path(path)
    columns = columns or LabelColumns()
    if has_intervals(path, Columns(columns.sequence)):
        return _read_intervals(path, columns, alphabet=alphabet, windows=windows)
    frame = read_table(path)
    columns = columns.model_copy(
        update={"sequence": sequence_column(frame.columns, columns.sequence) or columns.sequence}
    )
    if columns.group is not None:
        return _read_pieces(frame, path, columns, alphabet, class_names)
    rows = list(range(1, frame.height + 1))
    sequences, num_lower_case = normalised(_sequences(frame, columns.sequence, path, "sequence"), path, rows, alphabet)
    pairs = None
    if columns.pair is not None:
        pairs, _ = normalised(_sequences(frame, columns.pair, path, "second-sequence"), path, rows, alphabet)
    labels = {
        name: plain_lists(take_column(frame, name, path, "label"), path, rows)
        for name in label_columns(frame.columns, columns, path)
    }
    taken = [columns.sequence, columns.pair, columns.name, columns.split, "chrom", *labels]
    return RawTable(
        source=str(path),
        rows=rows,
        sequences=sequences,
        labels=labels,
        letters=count_letters(sequences, num_lower_case),
        pairs=pairs,
        names=_texts(frame, columns.name, path, "name"),
        chroms=_texts(frame, "chrom" if "chrom" in frame.columns else None, path, "chromosome"),
        splits=_texts(frame, columns.split, path, "split"),
        likely_group=likely_group(frame, sequences, [name for name in taken if name is not None]),
    )


def label_columns(available: Sequence[str], columns: LabelColumns, path: Path) -> tuple[str, ...]:
    """Find the label columns: as declared, else ``label``, else ``labels``.

    Raises:
        InputError: none is there; the nearest and all available names are given.
    """
    if columns.labels is not None:
        return columns.labels
    for name in ("label", "labels"):
        if name in available:
            return (name,)
    close = nearest("label", available)
    raise InputError(
        f"{path}: no label column 'label'{close}; columns are: {', '.join(available)}; "
        "name it with data.columns.labels=NAME."
    )


def _sequences(frame: pl.DataFrame, name: str, path: Path, what: str) -> list[str | None]:
    """Take a column of sequences; a text for "no value" such as NA is none, though both are nucleotide letters."""
    return [None if is_missing(value) else value for value in take_column(frame, name, path, what)]


def _texts(frame: pl.DataFrame, name: str | None, path: Path, what: str) -> list[str] | None:
    return None if name is None else [value or "" for value in take_column(frame, name, path, what)]


def _read_pieces(
    frame: pl.DataFrame, path: Path, columns: LabelColumns, alphabet: str | None, class_names: Sequence[str] | None
) -> RawTable:
    """Join pieces (rows) of a group into one sequence with one label a base."""
    groups = [group or "" for group in take_column(frame, columns.group or "", path, "group")]
    rows = list(range(1, frame.height + 1))
    pieces, num_lower_case = normalised(_sequences(frame, columns.sequence, path, "sequence"), path, rows, alphabet)
    names = label_columns(frame.columns, columns, path)
    if len(names) != 1:
        raise UsageError(f"pieces of a group take one label column, not {len(names)}: {', '.join(names)}.")
    codes = [
        "?" if value is None or is_missing(value) else value.strip()
        for value in take_column(frame, names[0], path, "label")
    ]
    inside = inside_codes(sorted(set(codes)), class_names)
    try:
        runs = join_pieces(groups)
    except ValueError as error:
        row = rows[error.args[1]]
        raise InputError(
            f"{path}, row {row}: group '{groups[error.args[1]]}' comes back after another one; "
            f"sort the table by '{columns.group}'."
        ) from None
    sequences = ["".join(pieces[start:end]) for start, end in runs]
    labels = [
        " ".join(
            label for place in range(start, end) for label in spread_piece(codes[place], len(pieces[place]), inside)
        )
        for start, end in runs
    ]
    return RawTable(
        source=str(path),
        rows=[rows[start] for start, _ in runs],
        sequences=sequences,
        labels={names[0]: list(labels)},
        letters=count_letters(sequences, num_lower_case),
        names=[groups[start] for start, _ in runs],
        chroms=_one_a_run(frame, "chrom" if "chrom" in frame.columns else None, path, runs),
        splits=_one_a_run(frame, columns.split, path, runs),
    )


def _one_a_run(frame: pl.DataFrame, name: str | None, path: Path, runs: Sequence[tuple[int, int]]) -> list[str] | None:
    """Give the one value that a column has in each run of rows.

    Raises:
        InputError: a run has two.
    """
    values = _texts(frame, name, path, str(name))
    if values is None:
        return None
    for start, end in runs:
        other = next((place for place in range(start, end) if values[place] != values[start]), None)
        if other is not None:
            raise InputError(
                f"{path}, row {other + 1}: '{name}' changes from '{values[start]}' to '{values[other]}' within one "
                "sequence; the pieces of a sequence stay together."
            )
    return [values[start] for start, _ in runs]


def _read_intervals(
    path: Path, columns: LabelColumns, *, alphabet: str | None, windows: GenomeWindows | None
) -> RawTable:
    """Cut the sequences of labelled intervals out of a genome, on their strand.

    Label columns are as declared, else ``label``, else ``labels``, else the name column of a BED file.

    Raises:
        UsageError: there is no genome, or negatives are asked for beside label columns.
        InputError: the file is damaged, an interval lies off the genome, or there is no label.
    """
    from longstrand.genome.regions import check_on_genome, matched_negatives, windows_around

    if windows is None:
        raise UsageError(f"{path} holds intervals; name their genome with --fasta (and a size with --window).")
    table = read_intervals(path)
    num_rows = len(table)
    if windows.num_bases is None:
        check_on_genome(table, windows.genome)
        intervals = list(table.intervals)
    else:
        placed = windows_around(table, windows.genome, windows.num_bases)
        table, intervals = table.take(placed.rows), placed.intervals
    labels = _interval_labels(table, columns, path, windows)
    rows = list(table.lines)
    if windows.negative_ratio > 0:
        if not windows.taken:
            windows.reserve(path)
        negatives = matched_negatives(
            intervals, windows.genome, ratio=windows.negative_ratio, seed=windows.seed, exclude=windows.taken
        )
        windows.taken.extend(negatives)
        labels = {name: [*values, *["0"] * len(negatives)] for name, values in labels.items()}
        rows += [rows[number // windows.negative_ratio] for number in range(len(negatives))]
        intervals += negatives
    raw = [windows.genome.fetch_interval(interval) for interval in intervals]
    sequences, num_lower_case = normalised(raw, path, rows, alphabet)
    return RawTable(
        source=str(path),
        rows=rows,
        sequences=sequences,
        labels=labels,
        letters=count_letters(sequences, num_lower_case),
        names=[str(interval) for interval in intervals],
        chroms=[interval.chrom for interval in intervals],
        splits=_splits(table, columns, path, intervals),
        num_dropped=num_rows - len(table),
    )


def _interval_labels(
    table: IntervalTable, columns: LabelColumns, path: Path, windows: GenomeWindows
) -> dict[str, list[str | None]]:
    """Choose the label columns; if negatives are asked for, all rows are positives."""
    if windows.negative_ratio > 0:
        if columns.labels is not None:
            raise UsageError("random negatives make every given interval a positive; leave out the label columns.")
        return {"label": ["1"] * len(table)}
    wanted = columns.labels
    if wanted is None:
        usual = ("label", "labels", "name") if detect_file(path) in ("bed", "bedgraph") else ("label", "labels")
        wanted = tuple([name for name in usual if name in table.labels][:1])
    if not wanted:
        raise InputError(
            f"{path}: the intervals have no label; add a column 'label', "
            "or ask for random negatives with data.negative_ratio=1."
        )
    for name in wanted:
        find_column(list(table.labels), name, path, "label")
    return {name: plain_lists(table.labels[name], path, table.lines) for name in wanted}


def _splits(table: IntervalTable, columns: LabelColumns, path: Path, intervals: list[Interval]) -> list[str] | None:
    """Read the split column; random negatives share the split of their positive."""
    if columns.split is None:
        return None
    find_column(list(table.labels), columns.split, path, "split")
    words = [word or "" for word in table.labels[columns.split]]
    extra = len(intervals) - len(words)
    ratio = extra // len(words) if extra else 0
    return words + [words[number // ratio] for number in range(extra)]
