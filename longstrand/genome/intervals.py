"""Intervals on a genome: 0-based, half-open, with a strand; arithmetic on lists and tables of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from longstrand.errors import InputError


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

    def piece(self, start: int, end: int) -> Interval:
        """Give bases ``start`` to ``end - 1`` of this interval, counted along its strand."""
        first = self.start + start if self.strand == "+" else self.end - end
        return Interval(self.chrom, first, first + end - start, self.strand)

    def expand(self, margin: int) -> Interval:
        """Add ``margin`` bases on both sides; the left side stops at 0, the right side is not bounded here."""
        return Interval(self.chrom, max(0, self.start - margin), self.end + margin, self.strand)

    def __str__(self) -> str:
        """Print with 1-based inclusive coordinates, as genome browsers do: ``chr1:11-20(-)``."""
        return f"{self.chrom}:{self.start + 1}-{self.end}" + ("(-)" if self.strand == "-" else "")


def parse_region(text: str) -> Interval:
    """Read ``chrom:start-end``, counted from 1, both ends included; commas in numbers are allowed.

    Raises:
        InputError: the text is no region.
    """
    found = re.fullmatch(r"(.+):([\d,]+)-([\d,]+)(?:\(([+-])\))?", text.strip())
    if found is None:
        raise InputError(f"'{text}' is no region; write chrom:start-end, such as chr1:1,001-2,000.")
    start, end = (int(found.group(place).replace(",", "") or 0) for place in (2, 3))
    if not 1 <= start <= end:
        raise InputError(f"'{text}' is no region: positions count from 1, and the end is not before the start.")
    return Interval(found.group(1), start - 1, end, found.group(4) or "+")


def parse_regions(text: str) -> list[Interval]:
    """Read regions with commas between them, each as `parse_region` does.

    Example:
        >>> [str(place) for place in parse_regions("chr1:1,001-2,000,2:5-10(-)")]
        ['chr1:1001-2000', '2:5-10(-)']

    Raises:
        InputError: one is no region.
    """
    return [parse_region(part) for part in re.split(r",(?=[^,]+:)", text)]


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

    def renamed(self, chroms: Mapping[str, str]) -> IntervalTable:
        """Give the same table with other names of chromosomes; those that are not in ``chroms`` stay."""
        if all(name == other for name, other in chroms.items()):
            return self
        return replace(self, intervals=[replace(x, chrom=chroms.get(x.chrom, x.chrom)) for x in self.intervals])

    def where(self, row: int) -> str:
        """Name a row for a message: ``peaks.bed:17``."""
        line = self.lines[row] if self.lines else row + 1
        return f"{self.path}:{line}" if self.path is not None else f"row {row + 1}"
