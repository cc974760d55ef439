"""Read labelled sequences from tables of sequences, or from intervals on a genome."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from longstrand.data.labelled import LabelColumns, RawTable, count_letters, normalised
from longstrand.data.labelled_intervals import GenomeWindows, read_labelled_intervals
from longstrand.data.labelled_tokens import inside_codes, join_pieces, plain_lists, spread_piece
from longstrand.data.long_rows import likely_group
from longstrand.data.rows import Columns, has_intervals, is_missing, read_table, sequence_column, take_column
from longstrand.errors import InputError, UsageError, nearest

if TYPE_CHECKING:
    import polars as pl

logger = logging.getLogger(__name__)


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
        return read_labelled_intervals(path, columns, alphabet=alphabet, windows=windows)
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
