"""What a user calls "sequences": one text, a list, a column, a frame or a file; one function decides.

A text of nucleotide letters is one sequence, any other text and every `Path` is a file. Missing entries (None, NaN) are
rows without a sequence, whose answers are missing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from longstrand.data.rows import NAME_COLUMNS, Columns, Record, is_missing, read_records, sequence_column
from longstrand.data.windows import Window
from longstrand.errors import InputError, UsageError, nearest
from longstrand.inference.options import FileOptions, PredictOptions

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import polars as pl

    from longstrand.genome.fasta import Genome

Entry: TypeAlias = "str | float | Sequence[str] | Record | Window | None"
"""One row: a text, nothing (None, NaN), a pair of texts, or a text with its place."""
Sequences: TypeAlias = "str | Path | Iterable[Entry] | np.ndarray | pd.Series | pd.DataFrame | pl.Series | pl.DataFrame"

_LETTERS = re.compile(r"[ACGTUNRYSWKMBDHV]+", re.IGNORECASE)


def as_records(
    sequences: Sequences, *, genome: Genome | str | Path | None = None, options: PredictOptions | None = None
) -> Iterator[Record]:
    """Number the rows of anything that holds sequences, in its order.

    Args:
        sequences: one text; a path; a list, array or pandas or polars column of texts (or pairs of texts, `Record`s,
            windows); a pandas or polars frame with a column ``sequence``.
        genome: the genome that the intervals of a file lie on.
        options: `FileOptions` name columns and the window of intervals.

    Raises:
        InputError: there is no such file or column, or an entry is no sequence.
        UsageError: a genome without a file of intervals, or a text that may be a sequence and a file.
    """
    columns = options if isinstance(options, FileOptions) else FileOptions()
    path = _path_of(sequences)
    if path is not None:
        return read_file(path, columns, open_genome(genome))
    if genome is not None or columns.window is not None:
        raise UsageError("a genome and a window are for files of intervals; sequences are given as they are.")
    if hasattr(sequences, "columns") and hasattr(sequences, "shape"):
        frame: Any = sequences
        return _frame_rows(frame, columns)
    if unused := columns.model_fields_set & {"sequence_column", "pair_column", "name_column"}:
        raise UsageError(
            f"{', '.join(sorted(unused))}: only tables have columns; leave it out for a list of sequences."
        )
    if isinstance(sequences, str):
        return _numbered([sequences])
    if isinstance(sequences, bytes | dict | set | frozenset | Path) or not isinstance(sequences, Iterable):
        raise UsageError(f"sequences are a text, a list or column of texts, or a path; got {type(sequences).__name__}.")
    entries: Iterable[Entry] = sequences  # type: ignore[assignment]
    return _numbered(entries)


def read_file(path: Path, options: FileOptions, genome: Genome | None) -> Iterator[Record]:
    """Read the rows of a file with the columns and window of the options."""
    columns = Columns(options.sequence_column, options.pair_column, options.name_column)
    flank = max(abs(shift) for _, shift in options.views)
    return read_records(path, columns=columns, genome=genome, window=options.window, flank=flank)


@overload
def open_genome(genome: Genome | str | Path) -> Genome: ...
@overload
def open_genome(genome: None) -> None: ...
@overload
def open_genome(genome: Genome | str | Path | None) -> Genome | None: ...
def open_genome(genome: Genome | str | Path | None) -> Genome | None:
    """Open a FASTA file; a genome that is open passes through."""
    if not isinstance(genome, str | Path):
        return genome
    from longstrand.genome.fasta import Genome

    return Genome(Path(genome).expanduser())


def _path_of(sequences: Sequences) -> Path | None:
    """Return the path of a file, or None if these are sequences."""
    if not isinstance(sequences, str | Path) or sequences == "":
        return None
    path = Path(sequences).expanduser()
    if isinstance(sequences, str) and _LETTERS.fullmatch(sequences):
        if os.path.exists(path):  # Path.exists raises for a name that is too long
            raise UsageError(f"'{sequences}' is a sequence and a file; write Path('{sequences}') or ['{sequences}'].")
        return None
    if not os.path.exists(path):
        shown = str(sequences) if len(str(sequences)) < 60 else f"{str(sequences)[:50]}..."
        near = nearest(path.name, (x.name for x in path.parent.iterdir())) if os.path.isdir(path.parent) else ""
        more = ", and no sequence of nucleotide letters" if isinstance(sequences, str) else ""
        raise InputError(f"{shown}: no such file{more}{near}.")
    return path


def _frame_rows(frame: pd.DataFrame | pl.DataFrame, options: FileOptions) -> Iterator[Record]:
    names = [str(name) for name in frame.columns]
    column = sequence_column(names, options.sequence_column) or options.sequence_column
    called = options.name_column or next((usual for usual in NAME_COLUMNS if usual in names), None)
    for name in (column, options.pair_column, called):
        if name is not None and names.count(name) != 1:
            raise InputError(
                f"the frame has {names.count(name) or 'no'} column{'s' * (name in names)} '{name}'"
                f"{nearest(name, names)}; columns are: {', '.join(names)}; sequence_column= names another."
            )
    first = frame[column]
    rows = _numbered(first if options.pair_column is None else zip(first, frame[options.pair_column]))
    return rows if called is None else (replace(row, name=str(name)) for row, name in zip(rows, frame[called]))


def _numbered(items: Iterable[Entry]) -> Iterator[Record]:
    are_pairs = None
    for index, item in enumerate(items):
        if isinstance(item, Record):
            yield item
            continue
        where = f"sequence {index + 1}"
        if isinstance(item, Window):
            yield Record(index, str(item.interval), item.sequence, item.interval, where=str(item.interval))
            continue
        pair = item if isinstance(item, tuple | list) and len(item) == 2 else None
        are_pairs = pair is not None if are_pairs is None else are_pairs
        if are_pairs != (pair is not None):
            raise InputError(f"{where}: rows are pairs or single sequences, not both.")
        first, second = (_text(item, where), None) if pair is None else (_text(part, where) for part in pair)
        yield Record(index, str(index), first, second=second, where=where)


def _text(item: Entry, where: str) -> str:
    """Return the letters of an entry; none if it is missing."""
    if isinstance(item, str):
        return "" if is_missing(item) else item
    if item is None or type(item).__name__ in ("NAType", "NaTType") or (isinstance(item, float) and item != item):
        return ""
    raise InputError(f"{where}: a sequence is a text, found {item!r:.40} ({type(item).__name__}).")
