"""Intervals on a genome: 0-based, half-open, with a strand; arithmetic on lists of them; BED and interval tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from longstrand.errors import InputError
from longstrand.genome.gzip_copy import open_packed


@dataclass(frozen=True, order=True, slots=True)
class Interval:
    """A stretch of one chromosome: bases ``start`` to ``end - 1``, counted from 0, read on ``strand``.

    Ordered by (chrom, start, end, strand). ``start == end`` is an empty interval between two bases.

    Raises:
        ValueError: the bounds are negative or reversed, or the strand is neither ``+`` nor ``-``.
    """

    chrom: str
    start: int
    end: int
    strand: str = "+"

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"an interval needs 0 <= start <= end, got {self.chrom}:{self.start}-{self.end}.")
        if self.strand not in ("+", "-"):
            raise ValueError(f"strand is '+' or '-', got {self.strand!r} at {self.chrom}:{self.start}-{self.end}.")

    @property
    def length(self) -> int:
        """Number of bases."""
        return self.end - self.start

    @property
    def centre(self) -> int:
        """Base in the middle (0-based); of two middle bases the second as read on the strand."""
        return (self.start + self.end) // 2 if self.strand == "+" else (self.start + self.end - 1) // 2

    def overlaps(self, other: Interval) -> bool:
        """Say whether the two share a base, on either strand; an empty interval overlaps nothing."""
        return self.chrom == other.chrom and max(self.start, other.start) < min(self.end, other.end)

    def contains(self, other: Interval) -> bool:
        """Say whether every base of ``other`` lies in this interval, on either strand."""
        return self.chrom == other.chrom and self.start <= other.start and other.end <= self.end

    def expand(self, margin: int) -> Interval:
        """Add ``margin`` bases on both sides; the left side stops at 0, the right side is not bounded here."""
        return Interval(self.chrom, max(0, self.start - margin), self.end + margin, self.strand)

    def __str__(self) -> str:
        """Print with 1-based inclusive coordinates, as genome browsers do: ``chr1:11-20(-)``."""
        return f"{self.chrom}:{self.start + 1}-{self.end}" + ("(-)" if self.strand == "-" else "")


def merge_intervals(intervals: Iterable[Interval], *, gap: int = 0) -> list[Interval]:
    """Join intervals that overlap, touch, or lie at most ``gap`` bases apart, whatever their strand.

    Returns:
        Sorted, disjoint intervals on the ``+`` strand; empty intervals are dropped.
    """
    merged: list[tuple[str, int, int]] = []
    for item in sorted(intervals):
        if item.start == item.end:
            continue
        if merged and merged[-1][0] == item.chrom and item.start <= merged[-1][2] + gap:
            merged[-1] = (item.chrom, merged[-1][1], max(merged[-1][2], item.end))
        else:
            merged.append((item.chrom, item.start, item.end))
    return [Interval(*parts) for parts in merged]


def subtract_intervals(intervals: Iterable[Interval], holes: Iterable[Interval]) -> list[Interval]:
    """Give the bases of ``intervals`` that lie in no hole, whatever their strand.

    Returns:
        Sorted, disjoint, non-empty intervals on the ``+`` strand.
    """
    by_chrom: dict[str, list[Interval]] = {}
    for hole in merge_intervals(holes):
        by_chrom.setdefault(hole.chrom, []).append(hole)
    left: list[Interval] = []
    position: dict[str, int] = {}
    for item in merge_intervals(intervals):
        cursor = item.start
        holes_here = by_chrom.get(item.chrom, [])
        index = position.get(item.chrom, 0)
        while index < len(holes_here) and holes_here[index].end <= item.start:
            index += 1
        position[item.chrom] = index
        while index < len(holes_here) and holes_here[index].start < item.end:
            if holes_here[index].start > cursor:
                left.append(Interval(item.chrom, cursor, holes_here[index].start))
            cursor = max(cursor, holes_here[index].end)
            index += 1
        if cursor < item.end:
            left.append(Interval(item.chrom, cursor, item.end))
    return left


@dataclass(frozen=True)
class IntervalTable:
    """Intervals with the columns that came with them; row ``i`` of every list belongs together.

    Attributes:
        intervals: 0-based half-open.
        labels: the other columns by name, as text (None where a cell is empty).
        lines: line of the file each row came from (1-based; row number for Parquet).
        path: the file, for messages.
    """

    intervals: list[Interval]
    labels: dict[str, list[str | None]] = field(default_factory=dict)
    lines: list[int] = field(default_factory=list)
    path: Path | None = None

    def __len__(self) -> int:
        return len(self.intervals)

    def take(self, rows: Sequence[int]) -> IntervalTable:
        """Give a table of these rows, in this order."""
        return IntervalTable(
            [self.intervals[row] for row in rows],
            {name: [values[row] for row in rows] for name, values in self.labels.items()},
            [self.lines[row] for row in rows] if self.lines else [],
            self.path,
        )

    def where(self, row: int) -> str:
        """Name a row for a message: ``peaks.bed:17``."""
        line = self.lines[row] if self.lines else row + 1
        return f"{self.path}:{line}" if self.path is not None else f"row {row + 1}"


@dataclass(frozen=True)
class ChromSplit:
    """A table cut into three by chromosome; each part keeps the order of the whole."""

    train: IntervalTable
    valid: IntervalTable
    test: IntervalTable


def split_by_chrom(table: IntervalTable, valid_chroms: Iterable[str], test_chroms: Iterable[str]) -> ChromSplit:
    """Give the rows of some chromosomes to validation and test, all others to training.

    Raises:
        InputError: a chromosome is in both lists or has no row in the table (the error names those that have).
    """
    valid, test = set(valid_chroms), set(test_chroms)
    place = f"{table.path}: " if table.path is not None else ""
    both = sorted(valid & test)
    if both:
        raise InputError(f"{place}{', '.join(both)} cannot be both a validation and a test chromosome.")
    present = list(dict.fromkeys(item.chrom for item in table.intervals))
    absent = sorted((valid | test) - set(present))
    if absent:
        raise InputError(
            f"{place}no interval on {', '.join(absent)}; there are intervals on {', '.join(present[:30])}."
        )
    chroms = [item.chrom for item in table.intervals]
    return ChromSplit(
        table.take([row for row, chrom in enumerate(chroms) if chrom not in valid and chrom not in test]),
        table.take([row for row, chrom in enumerate(chroms) if chrom in valid]),
        table.take([row for row, chrom in enumerate(chroms) if chrom in test]),
    )


BED_ENDINGS = (".bed", ".narrowpeak", ".broadpeak", ".bedgraph")
CHROM_NAMES = ("chrom", "chr", "chromosome", "#chrom", "seqnames")
START_NAMES = ("start", "chromstart", "chrom_start")
END_NAMES = ("end", "chromend", "chrom_end", "stop")


def is_bed(path: Path) -> bool:
    """Say whether a file name is that of a BED-like file (``.bed``, ``.narrowPeak``, ..., also ``.gz``)."""
    return Path(path).name.lower().removesuffix(".gz").endswith(BED_ENDINGS)


def read_intervals(path: Path) -> IntervalTable:
    """Read a BED file or an interval table, told by the file's name.

    Raises:
        InputError: as `read_bed` and `read_interval_table`.
    """
    return read_bed(path) if is_bed(path) else read_interval_table(path)


def read_bed(path: Path) -> IntervalTable:
    """Read a BED file, plain or gzip: chrom, start, end, then optionally name, score, strand and more.

    Columns are separated by tabs (or spaces where a line has no tab); ``#``, ``track`` and ``browser`` lines are
    skipped; strand ``.`` counts as ``+``. Columns 4 and 5 become the labels ``name`` and ``score``, those from 7 on
    ``column_7``, ``column_8``...

    Raises:
        InputError: the file is missing, damaged or empty, or a line is no interval; the line is named.
    """
    path = Path(path)
    table = _Rows(path)
    num_columns = 0
    with open_packed(path) as stream:
        for line, raw in enumerate(stream, start=1):
            text = _decode(raw, path).rstrip("\r\n")
            if not text.strip() or text.startswith(("#", "track ", "browser ")):
                continue
            cells = text.split("\t") if "\t" in text else text.split()
            num_columns = num_columns or len(cells)
            if len(cells) < 3 or len(cells) != num_columns:
                raise InputError(f"{path}:{line}: {len(cells)} columns where {max(3, num_columns)} are needed.")
            table.add(line, cells[0], cells[1], cells[2], cells[5] if num_columns > 5 else "+")
            table.add_labels(cells[3:5] + cells[6:])
    names = ["name", "score", *(f"column_{number}" for number in range(7, num_columns + 1))]
    return table.finish(names[: max(0, num_columns - 3 - (num_columns > 5))])


def read_interval_table(path: Path) -> IntervalTable:
    """Read a table with columns ``chrom``, ``start``, ``end``, optionally ``strand``, and any others as labels.

    CSV or TSV with a header line (told from it), plain or gzip, or Parquet (``.parquet``). Coordinates are 0-based
    half-open, as in BED; column names are found in any case, and ``chr``, ``chromStart``, ``chromEnd`` are known too.

    Raises:
        InputError: the file is missing, damaged or empty, a column is missing, or a row is no interval (its line is
            named).
    """
    path = Path(path)
    rows = _parquet_rows(path) if path.suffix.lower() in (".parquet", ".pq") else _text_rows(path)
    _, header = next(rows, (1, []))
    lower = [name.strip().lower() for name in header]
    chrom = _find_column(lower, CHROM_NAMES, path, header)
    start = _find_column(lower, START_NAMES, path, header)
    end = _find_column(lower, END_NAMES, path, header)
    strand = lower.index("strand") if "strand" in lower else None
    others = [number for number in range(len(header)) if number not in (chrom, start, end, strand)]
    table = _Rows(path)
    for line, cells in rows:
        if len(cells) != len(header):
            raise InputError(f"{path}:{line}: {len(cells)} cells where the header names {len(header)} columns.")
        table.add(line, cells[chrom], cells[start], cells[end], "+" if strand is None else cells[strand])
        table.add_labels([cells[number] for number in others])
    return table.finish([header[number].strip() for number in others])


class _Rows:
    """Collects the rows of one file, checking each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.intervals: list[Interval] = []
        self.lines: list[int] = []
        self.labels: list[list[str]] = []

    def add(self, line: int, chrom: str, start: str, end: str, strand: str) -> None:
        chrom, strand = chrom.strip(), strand.strip() or "+"
        if not chrom:
            raise InputError(f"{self.path}:{line}: the chromosome is empty.")
        try:
            interval = Interval(chrom, int(start), int(end), "+" if strand == "." else strand)
        except ValueError as error:
            reason = str(error) if "interval" in str(error) or "strand" in str(error) else ""
            shown = reason or f"start and end are whole numbers, got {start!r} and {end!r}."
            raise InputError(f"{self.path}:{line}: {shown}") from None
        self.intervals.append(interval)
        self.lines.append(line)

    def add_labels(self, cells: list[str]) -> None:
        self.labels.append(cells)

    def finish(self, names: list[str]) -> IntervalTable:
        if not self.intervals:
            raise InputError(f"{self.path}: the file holds no interval.")
        columns = {name: [row[number] or None for row in self.labels] for number, name in enumerate(names)}
        return IntervalTable(self.intervals, columns, self.lines, self.path)


def _text_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    with open_packed(path) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        try:
            header = text.readline()
            separator = next((mark for mark in "\t,;" if mark in header), ",")
            yield 1, next(csv.reader([header], delimiter=separator), [])
            reader = csv.reader(text, delimiter=separator)
            for cells in reader:
                if cells:
                    yield reader.line_num + 1, cells
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{path}: not readable as a text table ({error}).") from None


def _parquet_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    import polars as pl

    if not path.is_file():
        raise InputError(f"{path}: no such file.")
    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{path}: not readable as Parquet ({str(error).splitlines()[0]}).") from None
    yield 0, frame.columns
    for number, row in enumerate(frame.iter_rows(), start=1):
        yield number, ["" if cell is None else str(cell) for cell in row]


def _find_column(lower: list[str], names: tuple[str, ...], path: Path, header: list[str]) -> int:
    for name in names:
        if name in lower:
            return lower.index(name)
    raise InputError(
        f"{path}: no column '{names[0]}'; columns are: {', '.join(header) or 'none'} "
        "(a file without a header line is read as BED if its name ends in .bed)."
    )


def _decode(raw: bytes, path: Path) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file.") from None
