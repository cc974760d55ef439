"""Labelled intervals on a genome become labelled sequences."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from longstrand.data.labelled import LabelColumns, RawTable, count_letters, normalised
from longstrand.data.labelled_tokens import plain_lists
from longstrand.data.rows import detect_file, find_column, read_intervals
from longstrand.errors import InputError, UsageError

if TYPE_CHECKING:
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


def read_labelled_intervals(
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
    labels = _labels(table, columns, path, windows)
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
