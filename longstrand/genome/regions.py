"""Place windows of a fixed number of bases around intervals, and find negatives that match them."""

from __future__ import annotations

import bisect
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from longstrand.errors import InputError, one_of
from longstrand.genome.fasta import Genome
from longstrand.genome.intervals import Interval, IntervalTable, subtract_intervals
from longstrand.genome.sequence import gc_fraction
from longstrand.runtime import generator

logger = logging.getLogger(__name__)

OUT_OF_RANGE = ("drop", "shift", "error")
_CANDIDATES = 8
_ROUNDS = 40


@dataclass(frozen=True)
class PlacedWindows:
    """Windows around the rows of a table.

    Attributes:
        intervals: all of the same length, on the strand of their row.
        rows: row of the table each window belongs to, ascending.
        num_dropped: rows without a window because it would leave the chromosome.
        num_shifted: windows moved inwards, so that their interval is not in the middle.
    """

    intervals: list[Interval]
    rows: list[int]
    num_dropped: int
    num_shifted: int


def window_around(interval: Interval, num_bases: int) -> tuple[int, int]:
    """Give start and end of the window whose base ``num_bases // 2``, read on the strand, is the interval's centre.

    The start may be negative and the end past the chromosome. An interval of ``num_bases`` bases is its own window.
    """
    if interval.strand == "+":
        start = interval.centre - num_bases // 2
        return start, start + num_bases
    end = interval.centre + num_bases // 2 + 1
    return end - num_bases, end


def windows_around(
    table: IntervalTable, genome: Genome, num_bases: int, *, out_of_range: str = "drop"
) -> PlacedWindows:
    """Place a window of ``num_bases`` around the centre of every interval.

    Args:
        table: intervals, all of which must lie on the genome.
        genome: gives the lengths of the chromosomes.
        num_bases: length of every window.
        out_of_range: what to do with a window that would leave its chromosome: leave the row out (``drop``, counted and
            logged), move the window inwards (``shift``, counted and logged), or stop (``error``).

    Raises:
        InputError: an interval is not on the genome (its line is named), no window is left, or, with ``error``, a
            window leaves its chromosome.
    """
    one_of(out_of_range, OUT_OF_RANGE, "way to treat windows that leave the chromosome")
    if num_bases < 1:
        raise ValueError(f"a window has at least one base, got {num_bases}.")
    check_on_genome(table, genome)
    intervals: list[Interval] = []
    rows: list[int] = []
    num_shifted = 0
    for row, item in enumerate(table.intervals):
        length = genome.contigs[item.chrom]
        start, end = window_around(item, num_bases)
        if start < 0 or end > length:
            if out_of_range == "error":
                raise InputError(
                    f"{table.where(row)}: the window of {num_bases} bases around {item} leaves {item.chrom}, which has "
                    f"{length} bases; use a shorter window or leave the row out."
                )
            if out_of_range == "drop" or length < num_bases:
                continue
            start = min(max(start, 0), length - num_bases)
            num_shifted += 1
        intervals.append(Interval(item.chrom, start, start + num_bases, item.strand))
        rows.append(row)
    return _report(PlacedWindows(intervals, rows, len(table) - len(rows), num_shifted), table, num_bases)


def check_on_genome(table: IntervalTable, genome: Genome) -> None:
    """Check that every interval lies on the genome.

    Raises:
        InputError: naming the line, and the chromosome's other name where it is ``chr1`` against ``1``.
    """
    for row, item in enumerate(table.intervals):
        length = genome.contigs.get(item.chrom)
        if length is None:
            genome.check_chroms([item.chrom], where=table.where(row))
        elif item.end > length:
            raise InputError(
                f"{table.where(row)}: {item} is out of range, {item.chrom} has {length} bases in {genome.path.name}; "
                "check that both belong to the same assembly."
            )


def matched_negatives(
    positives: Sequence[Interval],
    genome: Genome,
    *,
    ratio: int = 1,
    seed: int = 0,
    exclude: Iterable[Interval] = (),
    gc_tolerance: float = 0.02,
    same_chrom: bool = True,
) -> list[Interval]:
    """Find random intervals of the same length and nearly the same GC content that avoid the positives.

    Args:
        positives: non-empty intervals on the genome.
        genome: where to look; stretches with ``N`` are never used.
        ratio: negatives for each positive.
        seed: the same seed gives the same negatives.
        exclude: further intervals that negatives must not overlap, such as other known sites.
        gc_tolerance: largest difference of the GC fraction. Where no free place is that near after some hundred tries,
            the nearest one found is taken and a warning says how many such there are.
        same_chrom: look on the chromosome of the positive only, so that a split by chromosome stays balanced.

    Returns:
        ``ratio`` negatives for positive 0, then for positive 1, and so on, on the strand of their positive; they
        overlap neither positives nor ``exclude`` nor each other.

    Raises:
        InputError: there is no free place for a positive.
    """
    genome.check_chroms(item.chrom for item in positives)
    free = _FreePlaces(genome, [*positives, *exclude])
    negatives: list[Interval] = []
    num_far = 0
    for number, positive in enumerate(positives):
        if positive.length == 0:
            raise ValueError(f"an empty interval has no matched negatives: {positive}.")
        target = gc_fraction(genome.fetch(positive.chrom, positive.start, positive.end))
        random = generator(seed, number, "negatives")
        for _ in range(ratio):
            found, distance = _nearest_place(free, positive, target, gc_tolerance, random, same_chrom)
            num_far += distance > gc_tolerance
            free.take(found)
            negatives.append(found)
    if num_far:
        logger.warning(
            "%d of %d negatives differ by more than %g in GC from their positive", num_far, len(negatives), gc_tolerance
        )
    return negatives


class _FreePlaces:
    """Stretches where negatives may lie, and the negatives that already do."""

    def __init__(self, genome: Genome, taken: list[Interval]) -> None:
        self.genome = genome
        known = [Interval(chrom, *run) for chrom in genome.contigs for run in genome.non_n_runs(chrom)]
        stretches = subtract_intervals(known, taken)
        self.chroms = [item.chrom for item in stretches]
        self.starts = np.array([item.start for item in stretches], dtype=np.int64)
        self.ends = np.array([item.end for item in stretches], dtype=np.int64)
        self.chrom_array = np.array(self.chroms, dtype=object)
        self.taken: dict[str, list[tuple[int, int]]] = {}
        self._room: dict[tuple[str | None, int], np.ndarray] = {}

    def draw(self, chrom: str | None, length: int, random: np.random.Generator, count: int) -> list[tuple[str, int]]:
        """Draw places uniformly over all possible starts, without those that overlap an earlier negative."""
        cumulative = self._cumulative_room(chrom, length)
        if not len(cumulative) or cumulative[-1] == 0:
            return []
        numbers = random.integers(0, cumulative[-1], size=count)
        stretches = np.searchsorted(cumulative, numbers, side="right")
        places = []
        for number, stretch in zip(numbers.tolist(), stretches.tolist()):
            start = int(self.ends[stretch]) - length - (int(cumulative[stretch]) - 1 - number)
            if not self._is_taken(self.chroms[stretch], start, start + length):
                places.append((self.chroms[stretch], start))
        return places

    def take(self, interval: Interval) -> None:
        """Mark an interval as used."""
        bisect.insort(self.taken.setdefault(interval.chrom, []), (interval.start, interval.end))

    def _cumulative_room(self, chrom: str | None, length: int) -> np.ndarray:
        key = (chrom, length)
        if key not in self._room:
            room = np.maximum(self.ends - self.starts - length + 1, 0)
            if chrom is not None:
                room = np.where(self.chrom_array == chrom, room, 0)
            if len(self._room) > 256:
                self._room.clear()
            self._room[key] = np.cumsum(room)
        return self._room[key]

    def _is_taken(self, chrom: str, start: int, end: int) -> bool:
        taken = self.taken.get(chrom, [])
        after = bisect.bisect_left(taken, (start, start))
        before_overlaps = after > 0 and taken[after - 1][1] > start
        return before_overlaps or (after < len(taken) and taken[after][0] < end)


def _nearest_place(
    free: _FreePlaces,
    positive: Interval,
    target: float,
    tolerance: float,
    random: np.random.Generator,
    same_chrom: bool,
) -> tuple[Interval, float]:
    best: Interval | None = None
    distance = np.inf
    for _ in range(_ROUNDS):
        for chrom, start in free.draw(positive.chrom if same_chrom else None, positive.length, random, _CANDIDATES):
            end = start + positive.length
            off = abs(gc_fraction(free.genome.fetch(chrom, start, end)) - target)
            if off < distance:
                best, distance = Interval(chrom, start, end, positive.strand), off
            if off <= tolerance:
                break
        if distance <= tolerance:
            break
    if best is None:
        where = f"on {positive.chrom} " if same_chrom else ""
        raise InputError(
            f"{free.genome.path.name}: no free place of {positive.length} bases {where}for a negative to match "
            f"{positive}; use a smaller ratio, shorter windows or another chromosome."
        )
    return best, float(distance)


def _report(placed: PlacedWindows, table: IntervalTable, num_bases: int) -> PlacedWindows:
    source = table.path or "table"
    if not placed.intervals:
        raise InputError(f"{source}: no window of {num_bases} bases fits on its chromosome; use a shorter --window.")
    if placed.num_dropped:
        logger.warning(
            "%s: %d of %d rows dropped, their window of %d bases leaves the chromosome",
            source, placed.num_dropped, len(table), num_bases,
        )  # fmt: skip
    if placed.num_shifted:
        logger.warning(
            "%s: %d of %d windows moved inwards at the end of a chromosome", source, placed.num_shifted, len(table)
        )
    return placed
