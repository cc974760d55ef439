"""Read CSV, TSV and Parquet tables as columns of text, with errors that name file, row and column."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from longstrand.errors import InputError, nearest

if TYPE_CHECKING:
    import polars as pl

MISSING = frozenset({"", "nan", "na", "n/a", "<na>", "null"})
"""Lower-cased texts that stand for "no value" in a label column; ``None`` is missing too."""


def read_table(path: Path) -> pl.DataFrame:
    """Read a table; every cell becomes text (null where the file has nothing).

    ``.parquet`` is recognised by its name; anything else is text, plain or gzip, whose separator (comma, tab or
    semicolon) is the first of these found in the header line.

    Raises:
        InputError: the file is missing, empty, truncated, not a table, or has a header and no rows.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a CSV, TSV, Parquet or BED file.")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty.")
    frame = _read_parquet(path) if path.suffix in (".parquet", ".pq") else _read_text(path)
    if frame.height == 0:
        raise InputError(f"{path}: the table has a header and no rows.")
    return frame


def column_names(path: Path) -> list[str]:
    """Give the names in the header of a table.

    Raises:
        InputError: as `read_table`.
    """
    return read_table(path).columns


def take_column(frame: pl.DataFrame, name: str, path: Path, what: str) -> list[str | None]:
    """Give one column as a list.

    Raises:
        InputError: there is no such column (the nearest and all available names are given), or there are two.
    """
    if f"{name}_duplicated_0" in frame.columns:  # what polars calls the second of them
        raise InputError(f"{path}: two columns are called '{name}'; rename or remove one.")
    if name not in frame.columns:
        available = ", ".join(frame.columns)
        raise InputError(f"{path}: no {what} column '{name}'{nearest(name, frame.columns)}; columns are: {available}.")
    return frame.get_column(name).to_list()


def is_missing(value: str | None) -> bool:
    """Say whether a cell holds no value: null, empty, or one of `MISSING` in any case."""
    return value is None or value.strip().lower() in MISSING


def show_rows(rows: Sequence[int], limit: int = 5) -> str:
    """Write row numbers for an error: ``row 3``, ``rows 3, 9`` or ``rows 1, 2, 3, 4, 5 and 12 more``."""
    listed = ", ".join(str(row) for row in rows[:limit])
    more = f" and {len(rows) - limit:,} more" if len(rows) > limit else ""
    return f"row{'s' if len(rows) > 1 else ''} {listed}{more}"


def _read_parquet(path: Path) -> pl.DataFrame:
    import polars as pl

    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{path}: not readable as Parquet ({_first_line(error)}).") from None
    columns = []
    for name, dtype in frame.schema.items():
        column = pl.col(name)
        if isinstance(dtype, pl.List | pl.Array):
            column = column.cast(pl.List(pl.String)).list.join(" ")
        elif dtype == pl.Boolean:
            column = column.cast(pl.Int8).cast(pl.String)
        columns.append(column.cast(pl.String))
    return frame.select(columns)


def _read_text(path: Path) -> pl.DataFrame:
    import polars as pl

    data = _decompressed(path)
    if not data.strip():
        raise InputError(f"{path}: the file is empty.")
    header = data.split(b"\n", 1)[0]
    separator = next((mark for mark in ",\t;" if mark.encode() in header), ",")
    try:
        return pl.read_csv(io.BytesIO(data), separator=separator, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        reason = _uneven_row(data, separator) or _first_line(error)
        raise InputError(f"{path}: not readable as a table ({reason}).") from None


def _uneven_row(data: bytes, separator: str) -> str | None:
    """Name the first row with more cells than the header, or with letters that are not UTF-8."""
    try:
        rows = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), delimiter=separator)
        width = len(next(rows))
        for number, cells in enumerate((cells for cells in rows if cells), 1):
            if len(cells) > width:
                return f"row {number} has {len(cells)} cells where the header names {width} columns"
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return f"line {line} holds a letter that is not UTF-8; save the table as UTF-8"
    except csv.Error:
        return None
    return None


def _decompressed(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: the gzip file is truncated or damaged ({error}).") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200].rstrip(". ") if str(error).strip() else type(error).__name__
