"""Labelled rows as text: the table that holds them, and its readers, for tables of sequences and intervals on a genome.

Rows may be pieces of longer sequences: such tables are noticed when nobody said so (`refuse_pieces`), joined by the
column that names the sequence, and long sequences are cut into pieces (`cut_rows`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

from longstrand.config import StrictModel
from longstrand.data.labelled_tokens import (
    UNLABELLED,
    cut_pieces,
    inside_codes,
    join_pieces,
    plain_lists,
    split_labels,
    spread_piece,
)
from longstrand.data.rows import (
    Columns,
    detect_file,
    find_column,
    has_intervals,
    is_missing,
    read_intervals,
    refuse_columns,
    sequence_column,
    take_column,
)
from longstrand.data.tables import read_table
from longstrand.errors import ColumnError, InputError, UsageError, nearest
from longstrand.genome.sequence import normalise

if TYPE_CHECKING:
    import polars as pl

    from longstrand.genome.fasta import Genome
    from longstrand.genome.intervals import Interval, IntervalTable


LONGEST_PIECE = 12
"""Rows of at most so many bases (their median) may be tokens of a longer sequence; guide RNAs and probes are longer."""

FEWEST_PIECES = 4
"""Rows that a sequence has at least, on average, if its rows are its tokens."""

MARGIN = 100
"""Bases between a random negative and the nearest given interval, whose flanks often belong to the same signal; of
windows shorter than this, as many as a window has."""


def _words(value: Any) -> Any:
    """Read a text with commas, and numbers (a layer, a chromosome called 1) as the words they are."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(","))
    parts = value if isinstance(value, list | tuple) else [value]
    if value is None or any(isinstance(part, bool) or not isinstance(part, int | str) for part in parts):
        return value
    return tuple(str(part) for part in parts)


Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
"""Several names: a YAML list, or one text with commas."""


class LabelColumns(StrictModel):
    """Which column of the table holds what."""

    sequence: str = Field("sequence", description="Column with the DNA sequence.")
    pair: str | None = Field(None, description="Column with a second sequence, for tasks on pairs.")
    labels: Words | None = Field(None, description="Label column(s); by default 'label', else 'labels'.")
    name: str | None = Field(None, description="Column with a name of each row, copied to the predictions.")
    group: str | None = Field(
        None, description="Column naming the sequence that a row is a piece of (one row a token, as in CoNLL tables)."
    )
    split: str | None = Field(None, description="Column that says train, valid or test, when all rows are in one file.")


@dataclass(frozen=True)
class RawTable:
    """Sequences with their labels as text, in the order of the file.

    Attributes:
        source: the file, for errors.
        rows: (n,) numbers of the rows in the file, from 1, not counting the header (line numbers for intervals).
        sequences: n normalised sequences.
        labels: text labels by column, n each.
        pairs: n second sequences, or None.
        names: n names, or None.
        chroms: n chromosomes, or None if the rows are no intervals.
        places: n intervals on a genome, or None if the rows hold sequences.
        splits: n words (train, valid, test), or None.
        num_dropped: rows of the file left out because their window leaves the chromosome.
        likely_group: column that seems to name the sequence of which each row is a piece, if nobody named one.
        is_cut: rows are pieces of longer sequences; those of one sequence have the same row number.
        num_lower_case: letters of the file that were lower case (of the rows that were read together).
    """

    source: str
    rows: list[int]
    sequences: list[str]
    labels: dict[str, list[str | None]]
    pairs: list[str] | None = None
    names: list[str] | None = None
    chroms: list[str] | None = None
    places: list[Interval] | None = None
    splits: list[str] | None = None
    num_dropped: int = 0
    likely_group: str | None = None
    is_cut: bool = False
    num_lower_case: int = 0

    def __len__(self) -> int:
        return len(self.sequences)

    def take(self, indices: Sequence[int]) -> RawTable:
        """Give some rows, in the order of ``indices``."""

        def pick(values: list[Any]) -> list[Any]:
            return [values[index] for index in indices]

        columns = ("rows", "sequences", "pairs", "names", "chroms", "places", "splits")
        picked = {name: pick(found) for name in columns if (found := getattr(self, name)) is not None}
        return replace(self, labels={name: pick(values) for name, values in self.labels.items()}, **picked)


def make_rows(
    sequences: Sequence[str | None],
    labels: Mapping[str, Sequence[str | None]],
    *,
    source: object,
    rows: Sequence[int] | None = None,
    pairs: Sequence[str | None] | None = None,
    alphabet: str | None = "ACGTN",
    **more: Any,
) -> RawTable:
    """Make a table: sequences are normalised, or left as they are (alphabet None).

    Args:
        sequences: n texts.
        labels: text labels by column.
        source: the file, for errors.
        rows: their numbers; by default from 1.
        pairs: n second texts.
        alphabet: letters that the tokenizer knows.
        **more: other fields of `RawTable`.

    Raises:
        InputError: a sequence is empty or holds something that is no nucleotide letter; the row is named.
    """
    rows = list(range(1, len(sequences) + 1) if rows is None else rows)
    texts, lower = _normalised(sequences, source, rows, alphabet)
    seconds = None if pairs is None else _normalised(pairs, source, rows, alphabet)[0]
    plain = {name: list(values) for name, values in labels.items()}
    return RawTable(str(source), rows, texts, plain, seconds, num_lower_case=lower, **more)


def _normalised(
    values: Sequence[str | None], source: object, rows: Sequence[int], alphabet: str | None
) -> tuple[list[str], int]:
    """Normalise sequences: the texts, and the number of lower-case letters."""
    texts, lower = [], 0
    for row, value in zip(rows, values):
        text = (value or "").strip()
        if not text:
            raise InputError(f"{source}, row {row}: the sequence is missing.")
        clean = normalise(text, alphabet, where=f"{source}, row {row}") if alphabet is not None else None
        texts.append(text if clean is None else clean.sequence)
        lower += sum(map(str.islower, text)) if clean is None else clean.num_lower_case
    return texts, lower


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
        from longstrand.genome.regions import with_names_of

        for path in paths:
            given = with_names_of(read_intervals(path), self.genome.contigs).intervals
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
    sequences = _sequences(frame, columns.sequence, path, "sequence")
    labels = {
        name: plain_lists(take_column(frame, name, path, "label"), path, range(1, frame.height + 1))
        for name in label_columns(frame.columns, columns, path)
    }
    taken = [columns.sequence, columns.pair, columns.name, columns.split, "chrom", *labels]
    return make_rows(
        sequences,
        labels,
        source=path,
        pairs=None if columns.pair is None else _sequences(frame, columns.pair, path, "second-sequence"),
        alphabet=alphabet,
        names=_texts(frame, columns.name, path, "name"),
        chroms=_texts(frame, "chrom" if "chrom" in frame.columns else None, path, "chromosome"),
        splits=_texts(frame, columns.split, path, "split"),
        likely_group=likely_group(frame, sequences, taken),
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
    raise ColumnError(f"{path}: no label column 'label'{close}; columns are: {', '.join(available)}", "label")


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
    read = make_rows(_sequences(frame, columns.sequence, path, "sequence"), {}, source=path, alphabet=alphabet)
    rows, pieces = read.rows, read.sequences
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
        num_lower_case=read.num_lower_case,
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
    from longstrand.genome.regions import matched_negatives, on_genome, windows_around

    if windows is None:
        raise UsageError(f"{path} holds intervals; name their genome with --genome (and a size with --window).")
    refuse_columns(path, "intervals", sequence=columns.sequence, second=columns.pair, group=columns.group)
    table = read_intervals(path)
    num_rows = len(table)
    if windows.num_bases is None:
        table = on_genome(table, windows.genome)
        intervals = list(table.intervals)
    else:
        intervals, table = windows_around(table, windows.genome, windows.num_bases)
    labels = _interval_labels(table, columns, path, windows)
    rows = list(table.lines)
    named = columns.name or ""
    if named:
        find_column(list(table.labels), named, path, "name")
    names = [name or str(interval) for name, interval in zip(table.labels.get(named, [None] * len(table)), intervals)]
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
    return make_rows(
        [windows.genome.fetch_interval(interval) for interval in intervals],
        labels,
        source=path,
        rows=rows,
        alphabet=alphabet,
        names=names + list(map(str, intervals[len(names) :])),
        chroms=[interval.chrom for interval in intervals],
        places=intervals,
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


def likely_group(frame: pl.DataFrame, sequences: Sequence[str | None], taken: Sequence[str | None]) -> str | None:
    """Find a column that seems to name the sequence of which each row is a piece.

    Such a table has rows of a few bases, and a column whose values stand in runs, none of which comes back later.

    Args:
        frame: the table as text.
        sequences: of its rows.
        taken: columns that hold something else (sequence, labels, split, ...).

    Returns:
        The first such column, or None.
    """
    if len(sequences) < 2 * FEWEST_PIECES or median(len(text or "") for text in sequences) > LONGEST_PIECE:
        return None
    for name in frame.columns:
        if name in taken:
            continue
        try:
            runs = join_pieces([value or "" for value in frame.get_column(name).to_list()])
        except ValueError:
            continue
        if len(runs) > 1 and len(sequences) >= FEWEST_PIECES * len(runs):
            return name
    return None


def refuse_pieces(table: RawTable, option: str, declare: str, *, where: str = "") -> None:
    """Refuse to learn a label for every few bases where the rows seem to be pieces of longer sequences.

    Args:
        table: as read without a group column.
        option: how the user names the column, for the error.
        declare: how the user insists on reading every row by itself, for the error.
        where: what else the error should say about these options.

    Raises:
        InputError: they seem to be; naming the column joins them.
    """
    if table.likely_group is None:
        return
    lengths = sorted(map(len, table.sequences))
    size = str(lengths[0]) if lengths[0] == lengths[-1] else f"{lengths[0]}-{lengths[-1]}"
    raise InputError(
        f"{table.source}: rows of {size} bases with a repeated '{table.likely_group}' column seem to be pieces of "
        f"longer sequences; {option}={table.likely_group} joins them to one sequence with a label per base each, "
        f"{declare} reads every row by itself{where}."
    )


def cut_rows(table: RawTable, num_bases: int) -> RawTable:
    """Cut sequences with labels per base into pieces of ``num_bases``, their labels with them.

    Row numbers are repeated, so the pieces of a sequence are known to belong together; names become
    ``NAME:START-END`` (0-based, half-open). A last piece of less than a quarter stays with the one before.

    Raises:
        InputError: the labels are not one a base.
    """
    places = [(row, *ends) for row, text in enumerate(table.sequences) for ends in cut_pieces(len(text), num_bases)]
    pieces = table.take([row for row, _, _ in places])
    names = table.names or [str(row) for row in table.rows]
    labels: dict[str, list[str | None]] = {}
    for column, cells in table.labels.items():
        lists = [_label_list(table, row, cell) for row, cell in enumerate(cells)]
        labels[column] = [" ".join(lists[row][start:end]) for row, start, end in places]
    return replace(
        pieces,
        places=table.places and [table.places[row].piece(start, end) for row, start, end in places],
        sequences=[table.sequences[row][start:end] for row, start, end in places],
        labels=labels,
        names=[f"{names[row]}:{start}-{end}" for row, start, end in places],
        is_cut=True,
    )


def _label_list(table: RawTable, row: int, cell: str | None) -> list[str]:
    """Give one label a base; a missing cell has none."""
    num_bases = len(table.sequences[row])
    if cell is None or is_missing(cell):
        return [UNLABELLED] * num_bases
    labels = split_labels(cell, num_bases)
    if labels is None:
        raise InputError(
            f"{table.source}, row {table.rows[row]}: only sequences with one label a base can be cut into pieces."
        )
    return labels
