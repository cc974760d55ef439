"""The one reader of users' files: what a file holds is decided by its content, and every command reads it here.

Tables (CSV, TSV, semicolons; Parquet; Excel; JSON) become columns of text or records; FASTA, plain lines and intervals
on a genome become records; BED, bedGraph, GFF and tables of places become intervals. FASTA and text tables are streamed
and Parquet is read in slices, so memory does not grow with them; of intervals the coordinates are held, not the bases.

Row numbers count data rows from 1. Blank lines, and rows of nothing but empty cells at the end of a text table, are no
rows. A cell that holds one of `MISSING` has no value.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from longstrand.data.tables import TABLES, Row, column_names, table_rows
from longstrand.errors import ColumnError, InputError, UsageError, nearest
from longstrand.genome.intervals import Interval, IntervalTable, parse_regions
from longstrand.genome.text import (
    CHROM_NAMES,
    END_NAMES,
    KINDS,
    START_NAMES,
    detect_file,
    is_comment,
    open_text,
    parse_whole,
)

if TYPE_CHECKING:
    import polars as pl

    from longstrand.genome.fasta import Genome

logger = logging.getLogger(__name__)
MISSING = frozenset({"", "na", "n/a", "nan", "-nan", "null", "<na>", "#n/a", "#na", "#value!", "#ref!", "#div/0!"})
"""Lower-cased cells that stand for "no value", as R, pandas, SQL and spreadsheets write it; ``None`` is one, too.

``none`` is a word, often of a class. A single ``.`` is no value in BED, bedGraph and GFF only, where the formats say
so;
in a table it is a text like any other.
"""
SEQUENCE_NAMES = ("sequence", "seq")
"""Column of the sequences where nobody names one."""
NAME_COLUMNS = ("name", "id")
_BLANK = " \t\n\r\f\v"
"""What ends a FASTA name, to this reader and to the indexed one; other letters that Unicode calls blank do not."""


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


def is_missing(value: str | None) -> bool:
    """Return whether a cell holds no value: null, empty, ``None``, or one of `MISSING` in any case."""
    return value is None or (text := value.strip()) == "None" or (len(text) < 9 and text.lower() in MISSING)


def sequence_column(names: Sequence[str], wanted: str = "sequence") -> str | None:
    """Return the column of the sequences, or None; ``sequence`` stands for any of `SEQUENCE_NAMES`."""
    choices = SEQUENCE_NAMES if wanted == "sequence" else (wanted,)
    return next((name for name in choices if name in names), None)


_PLACES = (CHROM_NAMES, START_NAMES, END_NAMES)


def has_intervals(path: Path, columns: Columns | None = None) -> bool:
    """Return whether a file holds intervals rather than sequences.

    Raises:
        InputError: the file is missing, empty, damaged or of a kind that is not read.
    """
    kind = detect_file(path)
    if kind not in TABLES:
        return kind in ("bed", "bedgraph", "gff")
    names, wanted = column_names(path), (columns or Columns()).sequence
    lower = {name.lower() for name in names}
    return sequence_column(names, wanted) is None and wanted == "sequence" and all(map(lower.intersection, _PLACES))


def read_records(
    path: Path,
    *,
    columns: Columns | None = None,
    genome: Genome | None = None,
    window: int | None = None,
    flank: int = 0,
) -> Iterator[Record]:
    """Read the rows of a file one at a time; row *i* of the file is record *i*.

    FASTA and plain lines: one record a sequence, also an empty one. Tables: a column of sequences (a missing cell is an
    empty sequence), or places. BED, bedGraph and GFF: intervals.

    Args:
        path: the file.
        columns: names of columns in a table.
        genome: for intervals.
        window: read this many bases around the middle of each interval, filled up with N beyond the ends of the
            chromosome; None: the interval itself.
        flank: read so many bases beside every interval into `Record.flanks`.

    Raises:
        InputError: the file is missing, damaged or of another kind, a column is missing, or an interval is not on the
            genome.
        UsageError: intervals without a genome, a genome without intervals, or a column that the file cannot have.
    """
    path = Path(path)
    columns = columns or Columns()
    kind = detect_file(path)
    if has_intervals(path, columns):
        if genome is None:
            raise UsageError(f"{path}: intervals need the genome they lie on; add --genome GENOME.fa.")
        refuse_columns(path, "intervals", sequence=columns.sequence, second=columns.second)
        return _interval_records(path, columns, genome, window, flank)
    if kind not in (*TABLES, "fasta", "lines"):
        raise InputError(f"{path}: this is {KINDS[kind]}; a table, FASTA or BED file is needed.")
    if genome is not None or window is not None:
        refuse_genome(path, columns.sequence)
    if kind in TABLES:
        return _table_records(path, columns)
    refuse_columns(path, KINDS[kind], sequence=columns.sequence, second=columns.second, name=columns.name)
    return _fasta_records(path) if kind == "fasta" else _line_records(path)


def refuse_genome(path: Path, sequence: str = "sequence") -> NoReturn:
    """Refuse a genome and a window for a file that holds no intervals.

    Raises:
        InputError: it is a table with neither sequences nor intervals; its columns are named.
        UsageError: it holds sequences.
    """
    if detect_file(path) in TABLES and sequence_column(names := column_names(path), sequence) is None:
        for usual in _PLACES:
            usual_column(names, usual, path, needed=True)
    raise UsageError(
        f"{path}: holds sequences, so --genome and --window have no meaning; give a BED file or table of intervals."
    )


def refuse_columns(path: Path, kind: str, **columns: str | None) -> None:
    """Refuse names of columns that a file of this kind cannot have; the usual names of sequences are no request.

    Raises:
        UsageError: naming the first.
    """
    for what, column in columns.items():
        if column is not None and column not in SEQUENCE_NAMES:
            raise UsageError(f"{path}: {kind} have no {what} column '{column}'; give a table of sequences.")


def count_rows(path: Path) -> int | None:
    """Count the rows of a file in one quick pass, for the progress bar; None for anything but FASTA and text tables.

    A text table whose cells hold line breaks counts too many.
    """
    kind = detect_file(path)
    if kind not in ("fasta", "table", "lines"):
        return None
    with open_text(path) as lines:
        if kind == "fasta":
            return sum(line.startswith(">") for line in lines)
        return sum(not line.isspace() for line in lines) - (kind == "table")


def read_entries(path: Path) -> Iterator[tuple[str, str]]:
    """Yield title and sequence of every entry of a FASTA file, whatever its name.

    Raises:
        InputError: the file is missing or not FASTA.
    """
    kind = detect_file(path)
    if kind != "fasta":
        raise InputError(f"{path}: not FASTA but {KINDS[kind]}; the first line of FASTA starts with '>'.")
    title: str | None = None
    lines: list[str] = []
    with open_text(path, errors="replace") as text:
        for line in text:
            if line.startswith(">"):
                if title is not None:
                    yield title, "".join(lines)
                title, lines = line[1:].strip(_BLANK), []
            elif title is not None:
                lines.append("".join(line.split()))
            elif line.strip():
                raise InputError(f"{path}: not FASTA, the first line does not start with '>'.")
    if title is not None:
        yield title, "".join(lines)


def read_headless(path: Path, num_labels: int) -> Iterator[tuple[str, str]]:
    """Yield sequence and labels (joined by commas) of every row of ``SEQUENCE,label,label,...`` without a header.

    Raises:
        InputError: the file is missing or empty, or a row has another number of labels; the row is named.
    """
    row = 0
    with open_text(path) as text:
        for row, line in enumerate(text, 1):
            sequence, _, rest = line.rstrip("\n").partition(",")
            count = rest.count(",") + 1 if rest else 0
            if count != num_labels:
                raise InputError(
                    f"{path}, row {row}: {count} labels after the sequence where the task has {num_labels}."
                )
            yield sequence, rest
    if not row:
        raise InputError(f"{path}: the file is empty.")


def find_column(names: Sequence[str], name: str, path: Path, what: str) -> int:
    """Return the place of a column.

    Raises:
        InputError: there is no such column (the nearest and all available names are given), or there are two.
    """
    if f"{name}_duplicated_0" in names:
        raise InputError(f"{path}: two columns are called '{name}'; rename or remove one.")
    if name not in names:
        cut = [one if len(one) <= 40 else f"{one[:37]}..." for one in names[:40]]
        shown = ", ".join(cut) + (", ..." if len(names) > 40 else "")
        hint = " (is the header line missing?)" if any(map(_is_data, names)) else ""
        message = f"{path}: no {what} column '{name}'{nearest(name, names)}; columns are: {shown}{hint}"
        raise ColumnError(message, what) if what in ("sequence", "label") else InputError(f"{message}.")
    return names.index(name)


def usual_column(names: Sequence[str], usual: Sequence[str], path: Path, *, needed: bool = False) -> int | None:
    """Return the place of the column with one of the usual names (in any case), or None.

    Raises:
        InputError: there are two, or none that is needed.
    """
    found = [place for place, name in enumerate(names) if name.lower().removeprefix("#") in usual]
    if len(found) > 1:
        both = " and ".join(f"'{names[place]}'" for place in found)
        raise InputError(f"{path}: the columns {both} could both be the {usual[0]}; rename or remove one.")
    name = names[found[0]] if found else usual[0]
    return find_column(names, name, path, "interval") if found or needed else None


def take_column(frame: pl.DataFrame, name: str, path: Path, what: str) -> list[str | None]:
    """Return one column as a list.

    Raises:
        InputError: as `find_column`.
    """
    return frame.to_series(find_column(frame.columns, name, path, what)).to_list()


def show_rows(rows: Sequence[int], limit: int = 5) -> str:
    """Write row numbers for an error: ``row 3``, ``rows 3, 9`` or ``rows 1, 2, 3, 4, 5 and 12 more``."""
    listed = ", ".join(str(row) for row in rows[:limit])
    more = f" and {len(rows) - limit:,} more" if len(rows) > limit else ""
    return f"row{'s' if len(rows) > 1 else ''} {listed}{more}"


def read_intervals(path: Path) -> IntervalTable:
    """Read intervals with the columns that came with them.

    BED and bedGraph: columns 4 and 5 are the labels ``name`` and ``score``, those from 7 on ``column_7``...; rows of
    several blocks (BED12) are read from their start to their end, with a warning. A first line
    ``#chrom start end ...`` makes the file a table. GFF: labels ``kind``, ``name`` and ``parent``. Tables have columns
    ``chrom``, ``start``, ``end`` (in any case, also ``chromStart`` and the like), optionally ``strand``, and any others
    as labels; coordinates are 0-based half-open, as in BED. A strand of ``.`` or ``*`` counts as ``+``.

    Raises:
        InputError: the file is missing, damaged or empty, holds something else, or a row is no interval; its line is
            named.
    """
    path = Path(path)
    kind = detect_file(path)
    if kind == "gff":
        from longstrand.genome.annotation import numbered_features

        numbered = list(numbered_features(path))
        features = [item for _, item in numbered]
        labels = {name: [getattr(item, name) or None for item in features] for name in ("kind", "name", "parent")}
        return IntervalTable([item.interval for item in features], labels, [line for line, _ in numbered], path)
    if kind in ("bed", "bedgraph"):
        names, rows = _bed_rows(path)
    elif kind in TABLES:
        names = column_names(path)
        rows = table_rows(path, names)
    else:
        raise InputError(f"{path}: this is {KINDS[kind]}; a BED file or a table of chrom, start and end is needed.")
    return _interval_table(path, names, rows)


def read_regions(given: str) -> IntervalTable:
    """Read intervals of a file (`read_intervals`), or regions written out: ``chr1:1-100,chr2:5-10``.

    Written out they count from 1, both ends included (`longstrand.genome.intervals.parse_regions`).

    Raises:
        InputError: as `read_intervals`, or a text with a colon is neither a file nor regions.
    """
    if is_regions(given):
        return IntervalTable(parse_regions(given))
    return read_intervals(Path(given).expanduser())


def is_regions(given: str) -> bool:
    """Return whether a text is regions written out rather than a file: it has a colon, and no such file exists."""
    return ":" in given and not os.path.exists(Path(given).expanduser())


def _interval_table(path: Path, names: Sequence[str], rows: Iterable[Row]) -> IntervalTable:
    places = [x for usual in _PLACES if (x := usual_column(names, usual, path, needed=True)) is not None]
    strand = usual_column(names, ("strand",), path)
    others = [place for place in range(len(names)) if place not in (*places, strand)]
    intervals, lines, kept = [], [], []
    for line, cells in rows:
        chrom, start, end = (cells[place] or "" for place in places)
        intervals.append(_interval(f"{path}:{line}", chrom, start, end, "" if strand is None else cells[strand] or ""))
        lines.append(line)
        kept.append([cells[place] for place in others])
    if not intervals:
        raise InputError(f"{path}: the file holds no interval.")
    labels = {names[place]: list(values) for place, values in zip(others, zip(*kept))}
    table = IntervalTable(intervals, labels, lines, path)
    _refuse_other_places(table)
    if "column_12" in labels and (several := sum(number not in ("0", "1") for number in labels["column_10"])):
        logger.warning("%s: %d rows have several blocks (BED12); each is read whole, introns included", path, several)
    return table


def _refuse_other_places(table: IntervalTable) -> None:
    """Refuse tables whose columns say that they mean other bases: starts that count from 1, strands in column 4 or 5.

    Raises:
        InputError: naming the column, and the line.
    """
    widths = table.labels.get("width", ())
    if widths and all(width == str(item.length + 1) for width, item in zip(widths, table.intervals)):
        raise InputError(
            f"{table.where(0)}: 'width' is one more than end - start, so start counts from 1 (as in R's GRanges); "
            "subtract 1 from it."
        )
    for name in ("name", "score"):
        cells = {(cell or ".").strip() for cell in table.labels.get(name, ())}
        if "-" in cells and cells <= {"+", "-", "."}:
            raise InputError(
                f"{table.path}: the column of the {name} holds strands; BED has them in column 6, a table in one that "
                "is called strand."
            )


def _interval(where: str, chrom: str, start: str, end: str, strand: str) -> Interval:
    if is_missing(chrom):
        raise InputError(f"{where}: the chromosome is missing.")
    first, last = parse_whole(start), parse_whole(end)
    if first is None or last is None:
        raise InputError(f"{where}: start and end are whole numbers, got '{start}' and '{end}'.")
    strand = strand.strip()
    try:
        return Interval(chrom.strip(), first, last, "+" if strand in ("", ".", "*") else strand)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None


def _bed_rows(path: Path) -> tuple[list[str], Iterator[Row]]:
    """Return the names of the columns of a BED file, and its rows with the numbers of their lines."""
    with open_text(path) as lines:
        first = next((line for line in lines if line.strip() and not is_comment(line)), "")
    width = max(3, len(_bed_cells(first)))
    usual = ["chrom", "start", "end", "name", "score", "strand"]
    return (usual + [f"column_{place}" for place in range(7, width + 1)])[:width], _bed_lines(path, width)


def _bed_cells(line: str) -> list[str]:
    text = line.rstrip("\n")
    return text.split("\t") if "\t" in text else text.split()


def _bed_lines(path: Path, width: int) -> Iterator[Row]:
    with open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip() or is_comment(line):
                continue
            cells = _bed_cells(line)
            if len(cells) != width:
                raise InputError(f"{path}:{number}: {len(cells)} columns where {width} are needed.")
            yield number, [None if cell.strip() in ("", ".") else cell.strip() for cell in cells]


def _fasta_records(path: Path) -> Iterator[Record]:
    """Yield every entry; its name is the first word of the title line."""
    for index, (title, sequence) in enumerate(read_entries(path)):
        name = re.split(f"[{_BLANK}]+", title, maxsplit=1)[0]
        yield Record(index, name, _sequence(sequence), where=f"{path}, row {index + 1} ('{name}')")


def _line_records(path: Path) -> Iterator[Record]:
    with open_text(path) as lines:
        texts = (line.strip() for line in lines)
        for index, text in enumerate(text for text in texts if text):
            yield Record(index, f"row_{index + 1}", _sequence(text), where=f"{path}, row {index + 1}")


def _table_records(path: Path, columns: Columns) -> Iterator[Record]:
    names = column_names(path)
    sequence = sequence_column(names, columns.sequence) or columns.sequence
    wanted = [(sequence, "sequence"), (columns.second, "second-sequence"), (columns.name, "name")]
    for column, what in wanted:
        if column is not None:
            find_column(names, column, path, what)
    name = columns.name or next((usual for usual in NAME_COLUMNS if usual in names), None)
    return _records_of(path, (sequence, columns.second, name))


def _records_of(path: Path, chosen: tuple[str | None, ...]) -> Iterator[Record]:
    distinct = list(dict.fromkeys(column for column in chosen if column is not None))
    places = [None if column is None else distinct.index(column) for column in chosen]
    index = -1
    for index, (_, cells) in enumerate(table_rows(path, distinct)):
        first, second, name = (None if place is None else cells[place] for place in places)
        other = None if chosen[1] is None else _sequence(second)
        yield Record(index, name or f"row_{index + 1}", _sequence(first), None, other, f"{path}, row {index + 1}")
    if index < 0:
        raise InputError(f"{path}: the table has a header and no rows.")


def _sequence(cell: str | None) -> str:
    return "" if cell is None or is_missing(cell) else cell.strip()


def _interval_records(path: Path, columns: Columns, genome: Genome, window: int | None, flank: int) -> Iterator[Record]:
    from longstrand.genome.regions import on_genome, window_around

    if window is not None and window < 1:
        raise UsageError(f"--window is a number of bases, got {window}.")
    table = read_intervals(path)
    if columns.name is not None:
        find_column(list(table.labels), columns.name, path, "name")
    table = on_genome(table, genome)
    names = table.labels.get(columns.name or "name") or [None] * len(table)

    def record(index: int, interval: Interval) -> Record:
        start, end = (interval.start, interval.end) if window is None else window_around(interval, window)
        wide = genome.fetch_padded(interval.chrom, start - flank, end + flank, interval.strand)
        flanks = wide[:flank], wide[len(wide) - flank :]
        where = f"{table.where(index)} (row {index + 1})"
        sequence = wide[flank : len(wide) - flank]
        return Record(index, names[index] or str(interval), sequence, interval, None, where, flanks)

    return itertools.starmap(record, enumerate(table.intervals))


def _is_data(name: str) -> bool:
    return parse_whole(name) is not None or (len(name) > 8 and not set(name.upper()) - set("ACGTN"))
