"""Labelled intervals on a genome become labelled sequences."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from longstrand.data.labelled import LabelColumns, RawTable, count_letters, normalised
from longstrand.errors import InputError, UsageError, nearest

if TYPE_CHECKING:
    from longstrand.genome.fasta import Genome
    from longstrand.genome.intervals import Interval, IntervalTable

BED_ENDINGS = (".bed", ".narrowpeak", ".broadpeak")


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
    """

    genome: Genome
    num_bases: int | None = None
    negative_ratio: int = 0
    seed: int = 0


def is_interval_file(path: Path) -> bool:
    """Say whether the file's name is that of a BED file (plain or gzip)."""
    return str(path).lower().removesuffix(".gz").endswith(BED_ENDINGS)


def read_intervals(
    path: Path, columns: LabelColumns, *, alphabet: str | None, windows: GenomeWindows | None
) -> RawTable:
    """Cut the sequences of labelled intervals out of a genome, on their strand.

    Label columns are as declared, else ``label``, else ``labels``, else the name column of a BED file.

    Raises:
        UsageError: there is no genome, or negatives are asked for beside label columns.
        InputError: the file is damaged, an interval lies off the genome, or there is no label.
    """
    from longstrand.genome.intervals import read_bed, read_interval_table
    from longstrand.genome.regions import check_on_genome, matched_negatives, windows_around

    if windows is None:
        raise UsageError(f"{path} holds intervals; name their genome with --fasta (and a size with --window).")
    table = read_bed(path) if is_interval_file(path) else read_interval_table(path)
    num_rows = len(table)
    if windows.num_bases is None:
        check_on_genome(table, windows.genome)
        intervals = list(table.intervals)
    else:
        placed = windows_around(table, windows.genome, windows.num_bases)
        table, intervals = table.take(placed.rows), placed.intervals
    labels = _labels(table, columns, path, windows)
    rows = list(table.lines)
    if windows.negative_ratio > 0:
        negatives = matched_negatives(intervals, windows.genome, ratio=windows.negative_ratio, seed=windows.seed)
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


def _labels(
    table: IntervalTable, columns: LabelColumns, path: Path, windows: GenomeWindows
) -> dict[str, list[str | None]]:
    """Choose the label columns; if negatives are asked for, all rows are positives."""
    if windows.negative_ratio > 0:
        if columns.labels is not None:
            raise UsageError("random negatives make every given interval a positive; leave out the label columns.")
        return {"label": ["1"] * len(table)}
    wanted = columns.labels
    if wanted is None:
        usual = ("label", "labels", "name") if is_interval_file(path) else ("label", "labels")
        wanted = tuple([name for name in usual if name in table.labels][:1])
    if not wanted:
        raise InputError(
            f"{path}: the intervals have no label; add a column 'label', "
            "or ask for random negatives with data.negative_ratio=1."
        )
    for name in wanted:
        if name not in table.labels:
            known = ", ".join(table.labels)
            raise InputError(f"{path}: no label column '{name}'{nearest(name, table.labels)}; columns are: {known}.")
    return {name: table.labels[name] for name in wanted}


def _splits(table: IntervalTable, columns: LabelColumns, path: Path, intervals: list[Interval]) -> list[str] | None:
    """Read the split column; random negatives share the split of their positive."""
    if columns.split is None:
        return None
    if columns.split not in table.labels:
        raise InputError(f"{path}: no split column '{columns.split}'{nearest(columns.split, table.labels)}.")
    words = [word or "" for word in table.labels[columns.split]]
    extra = len(intervals) - len(words)
    ratio = extra // len(words) if extra else 0
    return words + [words[number // ratio] for number in range(extra)]
