"""Tables whose rows are pieces of longer sequences: noticed when nobody said so, and long sequences cut into pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from longstrand.data.labelled_tokens import UNLABELLED, cut_pieces, join_pieces, split_labels
from longstrand.data.rows import is_missing
from longstrand.errors import InputError

if TYPE_CHECKING:
    import polars as pl

    from longstrand.data.labelled import RawTable

LONGEST_PIECE = 12
"""Rows of at most so many bases (their median) may be tokens of a longer sequence; guide RNAs and probes are longer."""

FEWEST_PIECES = 4
"""Rows that a sequence has at least, on average, if its rows are its tokens."""


def likely_group(frame: pl.DataFrame, sequences: Sequence[str], taken: Sequence[str]) -> str | None:
    """Find a column that seems to name the sequence of which each row is a piece.

    Such a table has rows of a few bases, and a column whose values stand in runs, none of which comes back later.

    Args:
        frame: the table as text.
        sequences: of its rows.
        taken: columns that hold something else (sequence, labels, split, ...).

    Returns:
        The first such column, or None.
    """
    if len(sequences) < 2 * FEWEST_PIECES or median(map(len, sequences)) > LONGEST_PIECE:
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
        sequences=[table.sequences[row][start:end] for row, start, end in places],
        labels=labels,
        letters=table.letters,
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
