"""Tables of every kind (CSV, TSV, semicolons; Parquet; Excel; JSON) as cells of text, for `longstrand.data.rows`.

Text tables are streamed and Parquet is read in slices, so memory does not grow with them.
"""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from longstrand.errors import InputError
from longstrand.genome.text import KINDS, FileKind, detect_file, open_text

if TYPE_CHECKING:
    import polars as pl

TABLES: tuple[FileKind, ...] = ("table", "parquet", "xlsx", "json")
SLICE = 2048
LONGEST_CELL = (1 << 31) - 1

Row = tuple[int, list[str | None]]
"""Number of a line, and cells; null where one is empty."""


def column_names(path: Path) -> list[str]:
    """Return the names in the header of a table.

    Raises:
        InputError: the file is missing, empty, damaged or not a table, which is then named.
    """
    path = Path(path)
    kind = detect_file(path)
    if kind == "table":
        with open_text(path) as lines:
            return _text_header(lines, path)[0]
    if kind == "parquet":
        return _open_parquet(path).collect_schema().names()
    return _read_frame(path, kind).columns


def read_table(path: Path) -> pl.DataFrame:
    """Read a table; every cell becomes text (null where the file has nothing).

    Lists in a cell (Parquet, JSON) are joined by ``;``, true and false become 1 and 0. The second of two columns with
    one name is called ``NAME_duplicated_0``.

    Raises:
        InputError: the file is missing, empty, truncated, not a table, or has a header and no rows; a row has more or
            fewer cells than the header.
    """
    import polars as pl

    names = column_names(path)
    rows = [cells for _, cells in table_rows(path, names)]
    if not rows:
        raise InputError(f"{path}: the table has a header and no rows.")
    return pl.DataFrame(dict(zip(names, zip(*rows))), schema=dict.fromkeys(names, pl.String))


def table_rows(path: Path, wanted: Sequence[str]) -> Iterator[Row]:
    """Yield line number and the wanted cells of every row of a table; null where a cell is empty."""
    path = Path(path)
    kind = detect_file(path)
    if kind == "table":
        yield from _text_rows(path, wanted)
        return
    if kind != "parquet":
        frames: Iterable[pl.DataFrame] = [_read_frame(path, kind).select(wanted)]
    else:
        frames = _parquet_slices(path, wanted)
    number = 0
    for frame in frames:
        for cells in _as_text(frame, path).iter_rows():
            number += 1
            yield number, list(cells)


def _text_header(lines: TextIO, path: Path) -> tuple[list[str], str, int]:
    """Read the header line of a text table: names, separator, number of its line; blank lines in front do not count."""
    separator = ""
    number = 0
    for number, line in enumerate(lines, 1):  # noqa: B007
        if match := re.fullmatch(r"sep=(.)\n?", line):
            separator = match[1]
        elif line.strip() and not line.startswith(("# ", "##")):
            break
    else:
        raise InputError(f"{path}: the file is empty.")
    bare = re.sub(r'"[^"]*"', "", line)
    separator = separator or ("\t" if "\t" in bare else max(",;", key=bare.count))
    try:
        names = next(csv.reader([line], delimiter=separator, skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}: the header line is not readable ({error}).") from None
    names[0] = names[0].removeprefix("#")
    while names and not names[-1].strip():
        names.pop()
    unique: list[str] = []
    for name in map(str.strip, names):
        again = unique.count(name) + sum(other.startswith(f"{name}_duplicated_") for other in unique)
        unique.append(name if not again else f"{name}_duplicated_{again - 1}")
    return unique, separator, number


def _text_rows(path: Path, wanted: Sequence[str]) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_CELL)
    with open_text(path) as lines:
        names, separator, before = _text_header(lines, path)
        places = [names.index(name) for name in wanted]
        row = 0
        empty: list[Row] = []
        reader = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
        try:
            for cells in reader:
                if not cells:
                    continue
                row += 1
                if len(cells) > len(names) and not any(map(str.strip, cells[len(names) :])):
                    del cells[len(names) :]
                if len(cells) != len(names):
                    raise InputError(
                        f"{path}, row {row}: {len(cells)} cells where the header names {len(names)} columns."
                    )
                found = (before + reader.line_num, [cells[place] or None for place in places])
                if len(cells) > 1 and not any(cells):
                    empty.append(found)
                    continue
                yield from empty
                empty.clear()
                yield found
        except csv.Error as error:
            raise InputError(f"{path}: not readable as a table after row {row} ({error}).") from None


def _open_parquet(path: Path) -> pl.LazyFrame:
    import polars as pl

    try:
        table = pl.scan_parquet(path, glob=False)
        table.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{path}: not readable as Parquet ({_first_line(error)}).") from None
    return table


def _parquet_slices(path: Path, wanted: Sequence[str]) -> Iterator[pl.DataFrame]:
    import polars as pl

    table = _open_parquet(path).select(wanted)
    for start in itertools.count(0, SLICE):
        try:
            rows = table.slice(start, SLICE).collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise InputError(f"{path}: not readable as Parquet ({_first_line(error)}).") from None
        yield rows
        if rows.height < SLICE:
            return


def _read_frame(path: Path, kind: FileKind) -> pl.DataFrame:
    """Read a whole table of a kind that only polars knows."""
    import polars as pl

    if kind == "xlsx":
        return _read_workbook(path)
    if kind != "json":
        more = ", with labels in a column of their own" if kind == "fasta" else ""
        needed = f"a table with a header (CSV, TSV, Parquet, Excel) is needed{more}"
        raise InputError(f"{path}: this is {KINDS[kind]}; {needed}.")
    try:
        with open_text(path) as text:
            rows = _json_rows(text.read())
        names = dict.fromkeys(name for row in rows for name in row)
        columns = {name: [_json_cell(row.get(name)) for row in rows] for name in names}
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: JSON, but no list of rows as {{column: value}} ({_first_line(error)}).") from None
    return pl.DataFrame(columns, dict.fromkeys(names, pl.String))


def _json_rows(text: str) -> list[dict[str, Any]]:
    """Read a list of objects, or one object a line; numbers (NaN, too) stay as they are written."""
    reader = json.JSONDecoder(object_pairs_hook=_object, parse_float=str, parse_int=str, parse_constant=str)
    is_list = text.lstrip().startswith("[")
    rows = reader.decode(text) if is_list else [reader.decode(line) for line in text.splitlines() if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("an item is no object")
    return rows


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("one object has two values of one name")
    return found


def _json_cell(value: Any) -> str | None:
    if isinstance(value, list):
        return ";".join(_json_cell(item) or "" for item in value) or "-"
    if isinstance(value, dict):
        raise ValueError("a cell holds an object")
    return str(int(value)) if isinstance(value, bool) else value


def _read_workbook(path: Path) -> pl.DataFrame:
    """Read the one sheet of a workbook that holds rows."""
    import polars as pl

    try:
        import fastexcel  # noqa: F401
    except ImportError:
        raise InputError(
            f"{path}: an Excel workbook; install its reader (pip install 'longstrand[xlsx]') or save it as CSV."
        ) from None
    try:
        sheets: dict[str, pl.DataFrame] = pl.read_excel(
            path, sheet_id=0, raise_if_empty=False, read_options={"dtypes": "string"}
        )
    except Exception as error:  # the library raises kinds of its own
        raise InputError(f"{path}: not readable as an Excel workbook ({_first_line(error)}).") from None
    full = [name for name, sheet in sheets.items() if sheet.width]
    if len(full) != 1:
        what = f"{len(full)} sheets with cells ({', '.join(full[:9])}); keep one" if full else "no cell"
        raise InputError(f"{path}: an Excel workbook with {what}.")
    return sheets[full[0]]


def _as_text(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Write every cell as text; an empty one is null."""
    import polars as pl

    columns = []
    for name, dtype in frame.schema.items():
        column = pl.col(name)
        if isinstance(dtype, pl.List | pl.Array):
            column = column.cast(pl.List(pl.String)) if dtype.inner != pl.Boolean else column.cast(pl.List(pl.Int8))
            items = column.cast(pl.List(pl.String)).list.eval(pl.element().fill_null(""))
            column = pl.when(items.list.len() == 0).then(pl.lit("-")).otherwise(items.list.join(";"))
        elif dtype == pl.Boolean:
            column = column.cast(pl.Int8)
        column = column.cast(pl.String)
        columns.append(pl.when(column != "").then(column).alias(name))
    try:
        return frame.select(columns)
    except pl.exceptions.PolarsError as error:
        raise InputError(
            f"{path}: a column holds something that is no text or number ({_first_line(error)})."
        ) from None


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200].rstrip(". ") if str(error).strip() else type(error).__name__
