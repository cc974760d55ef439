"""Read sequences to predict on, one row at a time: FASTA, tables of sequences, intervals on a genome.

Row *i* of the file is record *i*; nothing is skipped. FASTA files and text tables are streamed and Parquet tables are
read in slices, so memory does not grow with them; of intervals the coordinates are held, the bases are not.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longstrand.errors import InputError, UsageError, nearest
from longstrand.genome.gzip_copy import open_packed
from longstrand.genome.intervals import Interval, is_bed, read_intervals
from longstrand.genome.sequence import reverse_complement

if TYPE_CHECKING:
    from longstrand.genome.fasta import Genome

FASTA_ENDINGS = (".fa", ".fasta", ".fna", ".ffn", ".fas")
PARQUET_ENDINGS = (".parquet", ".pq")
PARQUET_SLICE = 2048
LONGEST_CELL = (1 << 31) - 1
EMPTY_CELLS = ("nan", "NaN", "NULL", "null")
"""Cells that spreadsheets and pandas write for "nothing"; read as an empty sequence."""


@dataclass(frozen=True)
class Record:
    """One input row.

    Attributes:
        index: number of the row, from 0.
        name: what the row is called.
        sequence: letters as read.
        interval: where they come from, if known.
        second: the other sequence, for models of pairs.
        where: how errors name the row.
        flanks: some letters before and after the sequence, for windows that are shifted; may be empty.
    """

    index: int
    name: str
    sequence: str
    interval: Interval | None = None
    second: str | None = None
    where: str = ""
    flanks: tuple[str, str] = ("", "")

    @property
    def num_bases(self) -> int:
        """Number of letters of the (first) sequence."""
        return len(self.sequence)


@dataclass(frozen=True)
class Columns:
    """Which columns of a table hold what; ``name`` None: a column called name or id, if there is one."""

    sequence: str = "sequence"
    second: str | None = None
    name: str | None = None


def read_records(
    path: Path,
    *,
    columns: Columns | None = None,
    genome: Genome | None = None,
    window: int | None = None,
    flank: int = 0,
) -> Iterator[Record]:
    """Read a file by what its name says (``.gz`` may follow each).

    ``.fa``, ``.fasta``, ``.fna``, ``.ffn``: one record a sequence, also an empty one. ``.csv``, ``.tsv``, ``.txt``,
    ``.parquet``: a column of sequences, or ``chrom,start,end[,strand]``. ``.bed`` and its kin: intervals.

    Args:
        path: the file.
        columns: names of columns in a table of sequences.
        genome: for intervals.
        window: read this many bases around the middle of each interval, filled up with N beyond the ends of the
            chromosome; None: the interval itself.
        flank: read so many bases beside every interval into `Record.flanks`.

    Raises:
        InputError: the file is missing, damaged or of another kind, a column is missing, or an interval is not on the
            genome.
        UsageError: intervals without a genome, or a genome without intervals.
    """
    path = Path(path)
    columns = columns or Columns()
    if has_intervals(path, columns):
        if genome is None:
            raise UsageError(f"{path}: intervals need the genome they lie on; add --fasta GENOME.fa.")
        return _read_interval_records(path, genome, window, flank)
    if genome is not None or window is not None:
        raise UsageError(
            f"{path}: holds sequences, so --fasta and --window have no meaning; give a BED file or table of intervals."
        )
    if _ends_with(path, FASTA_ENDINGS):
        return _read_fasta(path)
    return _read_table(path, columns)


def has_intervals(path: Path, columns: Columns | None = None) -> bool:
    """Say whether a file holds intervals rather than sequences; looks into the header of a table.

    Raises:
        InputError: the file is missing or empty.
    """
    path = Path(path)
    if is_bed(path):
        return True
    if _ends_with(path, FASTA_ENDINGS):
        return False
    header = _header(path)
    lower = {name.lower() for name in header}
    return (
        (columns or Columns()).sequence not in header and bool(lower & {"chrom", "chr", "#chrom"}) and "start" in lower
    )


def count_rows(path: Path) -> int | None:
    """Count the rows of a file in one quick pass, for the progress bar; None for Parquet and intervals.

    A text table whose cells hold line breaks counts too many.
    """
    if _ends_with(path, PARQUET_ENDINGS) or is_bed(path):
        return None
    is_fasta = _ends_with(path, FASTA_ENDINGS)
    number, last = 0, b"\n"
    with open_packed(path) as file:
        while block := file.read(1 << 20):
            number += (last[-1:] + block).count(b"\n>") if is_fasta else block.count(b"\n")
            last = block
    return number if is_fasta else number - (last[-1:] == b"\n")


def _ends_with(path: Path, endings: tuple[str, ...]) -> bool:
    return Path(path).name.lower().removesuffix(".gz").endswith(endings)


def _read_fasta(path: Path) -> Iterator[Record]:
    """Give every entry; its name is the first word of the title line."""
    index, name = -1, ""
    lines: list[str] = []

    def record() -> Record:
        return Record(index, name, "".join(lines), where=f"{path}, row {index + 1} ('{name}')")

    for text in _text_lines(path):
        if text.startswith(">"):
            if index >= 0:
                yield record()
            index, name, lines = index + 1, (text[1:].split() or [""])[0], []
        elif index >= 0:
            lines.append("".join(text.split()))
        elif text.strip():
            raise InputError(f"{path}: not FASTA, the first line does not start with '>'.")
    if index < 0:
        raise InputError(f"{path}: the file holds no sequence.")
    yield record()


def _text_lines(path: Path) -> Generator[str, None, None]:
    with open_packed(path) as stream:
        try:
            yield from io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        except UnicodeDecodeError:
            raise InputError(f"{path}: not a text file in UTF-8; save it as UTF-8.") from None


def _header(path: Path) -> list[str]:
    if not path.is_file():
        raise InputError(f"{path}: no such file.")
    if _ends_with(path, PARQUET_ENDINGS):
        return list(_open_parquet(path).collect_schema())
    lines = _text_lines(path)
    first = next(lines, "")
    lines.close()
    if not first.strip():
        raise InputError(f"{path}: the file is empty.")
    return next(csv.reader([first], delimiter=_separator(first)))


def _separator(header: str) -> str:
    return next((mark for mark in "\t,;" if mark in header), ",")


def _read_table(path: Path, columns: Columns) -> Iterator[Record]:
    header = _header(path)
    wanted = {"sequence": columns.sequence, "second-sequence": columns.second, "name": columns.name}
    for what, column in wanted.items():
        if column is not None and column not in header:
            raise InputError(
                f"{path}: no {what} column '{column}'{nearest(column, header)}; columns are: {', '.join(header)}."
            )
        if column is not None and header.count(column) > 1:
            raise InputError(f"{path}: two columns are called '{column}'; rename or remove one.")
    name = columns.name or next((column for column in ("name", "id") if column in header), None)
    chosen = [columns.sequence, columns.second, name]
    rows = _parquet_rows(path, chosen) if _ends_with(path, PARQUET_ENDINGS) else _text_rows(path, header, chosen)
    return _table_records(path, rows)


def _table_records(path: Path, rows: Iterator[list[Any]]) -> Iterator[Record]:
    index = -1
    for index, (first, second, name) in enumerate(rows):
        where = f"{path}, row {index + 1}"
        yield Record(index, f"row_{index + 1}" if name is None else str(name), _sequence(first), None, second, where)
    if index < 0:
        raise InputError(f"{path}: the table has a header and no rows.")


def _sequence(cell: str | None) -> str:
    text = "" if cell is None else str(cell).strip()
    return "" if text in EMPTY_CELLS else text


def _text_rows(path: Path, header: list[str], columns: list[str | None]) -> Iterator[list[Any]]:
    """Give the chosen cells of every row; empty lines are no rows."""
    csv.field_size_limit(LONGEST_CELL)
    places = [None if column is None else header.index(column) for column in columns]
    lines = _text_lines(path)
    delimiter = _separator(next(lines))
    number = 0
    try:
        for cells in csv.reader(lines, delimiter=delimiter):
            if not cells:
                continue
            number += 1
            if len(cells) != len(header):
                raise InputError(
                    f"{path}, row {number}: {len(cells)} cells where the header names {len(header)} columns."
                )
            yield [None if place is None else cells[place] for place in places]
    except csv.Error as error:
        raise InputError(f"{path}: not readable as a table after row {number} ({error}).") from None


def _open_parquet(path: Path) -> Any:
    import polars as pl

    try:
        table = pl.scan_parquet(path, glob=False)
        table.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{path}: not readable as Parquet ({str(error).splitlines()[0]}).") from None
    return table


def _parquet_rows(path: Path, columns: list[str | None]) -> Iterator[list[Any]]:
    names = list(dict.fromkeys(column for column in columns if column is not None))
    table = _open_parquet(path).select(names)
    start = 0
    while True:
        rows = table.slice(start, PARQUET_SLICE).collect()
        for row in rows.iter_rows(named=True):
            yield [None if column is None else row[column] for column in columns]
        start += rows.height
        if rows.height < PARQUET_SLICE:
            return


def _read_interval_records(path: Path, genome: Genome, window: int | None, flank: int) -> Iterator[Record]:
    from longstrand.genome.regions import check_on_genome, window_around

    if window is not None and window < 1:
        raise UsageError(f"--window is a number of bases, got {window}.")
    table = read_intervals(path)
    check_on_genome(table, genome)
    names = table.labels.get("name")

    def read(interval: Interval) -> tuple[str, tuple[str, str]]:
        start, end = (interval.start, interval.end) if window is None else window_around(interval, window)
        wide = fetch_padded(genome, interval.chrom, start - flank, end + flank, interval.strand)
        return wide[flank : len(wide) - flank], (wide[:flank], wide[len(wide) - flank :])

    return _interval_records(table.intervals, names, table.where, read)


def _interval_records(
    intervals: list[Interval],
    names: list[str | None] | None,
    where: Callable[[int], str],
    read: Callable[[Interval], tuple[str, tuple[str, str]]],
) -> Iterator[Record]:
    for index, interval in enumerate(intervals):
        name = names[index] if names is not None else None
        sequence, flanks = read(interval)
        place = f"{where(index)} (row {index + 1})"
        yield Record(index, name or str(interval), sequence, interval, None, place, flanks)


def fetch_padded(genome: Genome, chrom: str, start: int, end: int, strand: str) -> str:
    """Read bases ``start`` to ``end - 1`` on a strand; positions beyond the ends of the chromosome are N."""
    length = genome.contigs[chrom]
    inside = genome.fetch(chrom, min(max(start, 0), length), min(max(end, 0), length))
    sequence = "N" * min(-min(start, 0), end - start) + inside + "N" * min(max(end - length, 0), end - start)
    return reverse_complement(sequence) if strand == "-" else sequence
