"""Place windows of a fixed number of bases around intervals, and find negatives that match them."""

from __future__ import annotations

import bisect
import logging
from collections.abc import Container, Iterable, Sequence
from functools import lru_cache

import numpy as np

from longstrand.errors import InputError
from longstrand.genome.fasta import Genome, match_contigs, say_matched
from longstrand.genome.intervals import Interval, IntervalTable, subtract_intervals
from longstrand.genome.sequence import gc_fraction
from longstrand.runtime import generator

logger = logging.getLogger(__name__)

_CANDIDATES = 8
_ROUNDS = 40


def window_around(interval: Interval, num_bases: int) -> tuple[int, int]:
    """Give start and end of the window whose base ``num_bases // 2``, read on the strand, is the interval's centre.

    The start may be negative and the end past the chromosome. An interval of ``num_bases`` bases is its own window.
    """
    if interval.strand == "+":
        start = interval.centre - num_bases // 2
        return start, start + num_bases
    end = interval.centre + num_bases // 2 + 1
    return end - num_bases, end


def windows_around(table: IntervalTable, genome: Genome, num_bases: int) -> tuple[list[Interval], IntervalTable]:
    """Place a window of ``num_bases`` around the centre of every interval.

    Rows whose window would leave its chromosome are left out, counted and logged.

    Returns:
        The windows, on the strand of their rows, and the rows that they belong to.

    Raises:
        InputError: an interval is not on the genome (its line is named), or no window is left.
    """
    if num_bases < 1:
        raise ValueError(f"a window has at least one base, got {num_bases}.")
    table = on_genome(table, genome)
    placed = [window_around(item, num_bases) for item in table.intervals]
    rows = [
        row
        for row, (item, (start, end)) in enumerate(zip(table.intervals, placed))
        if start >= 0 and end <= genome.contigs[item.chrom]
    ]
    source = table.path or "table"
    if not rows:
        raise InputError(f"{source}: no window of {num_bases} bases fits on its chromosome; use a shorter --window.")
    if len(rows) < len(table):
        logger.warning(
            "%s: %d of %d rows dropped, their window of %d bases leaves the chromosome",
            source, len(table) - len(rows), len(table), num_bases,
        )  # fmt: skip
    kept = table.take(rows)
    return [Interval(item.chrom, *placed[row], item.strand) for row, item in zip(rows, kept.intervals)], kept


def with_names_of(table: IntervalTable, contigs: Container[str]) -> IntervalTable:
    """Give intervals the names that a genome has for their contigs (`match_contigs`), which a note says.

    Raises:
        InputError: a name could be two contigs, or two names the same.
    """
    source = table.path or "regions"
    chroms = match_contigs((item.chrom for item in table.intervals), contigs, source)
    say_matched(chroms, source)
    return table.renamed(chroms)


def on_genome(table: IntervalTable, genome: Genome) -> IntervalTable:
    """Check that every interval lies on the genome, whose names they get as `with_names_of` says.

    Raises:
        InputError: naming the line of one that does not, or a name that could be two contigs.
    """
    table = with_names_of(table, genome.contigs)
    for row, item in enumerate(table.intervals):
        length = genome.contigs.get(item.chrom)
        if length is None:
            genome.check_chroms([item.chrom], where=table.where(row))
        elif item.end > length:
            raise InputError(
                f"{table.where(row)}: {item} is out of range, {item.chrom} has {length} bases in {genome.path.name}; "
                "check that both belong to the same assembly."
            )
    return table


def matched_negatives(
    positives: Sequence[Interval],
    genome: Genome,
    *,
    ratio: int = 1,
    seed: int = 0,
    exclude: Iterable[Interval] = (),
    gc_tolerance: float = 0.02,
    skip: bool = False,
) -> list[Interval]:
    """Find random intervals of the same length and nearly the same GC content that avoid the positives.

    They are on the chromosome of their positive, so that a split by chromosome stays balanced.

    Args:
        positives: non-empty intervals on the genome.
        genome: where to look; stretches with ``N`` are never used.
        ratio: negatives for each positive.
        seed: the same seed gives the same negatives.
        exclude: further intervals that negatives must not overlap, such as other known sites.
        gc_tolerance: largest difference of the GC fraction. Where no free place is that near after some hundred tries,
            the nearest one found is taken and a warning says how many such there are.
        skip: leave out what finds no free place, with a warning that counts them.

    Returns:
        ``ratio`` negatives for positive 0, then for positive 1, and so on, on the strand of their positive; they
        overlap neither positives nor ``exclude`` nor each other.

    Raises:
        InputError: there is no free place for a positive (not with ``skip``).
    """
    genome.check_chroms(item.chrom for item in positives)
    free = _FreePlaces(genome, [*positives, *exclude])
    negatives: list[Interval] = []
    num_far = num_without = 0
    for number, positive in enumerate(positives):
        if positive.length == 0:
            raise ValueError(f"an empty interval has no matched negatives: {positive}.")
        target = gc_fraction(genome.fetch(positive.chrom, positive.start, positive.end))
        random = generator(seed, number, "negatives")
        for _ in range(ratio):
            try:
                found, distance = _nearest_place(free, positive, target, gc_tolerance, random)
            except InputError:
                if not skip:
                    raise
                num_without += 1
                continue
            num_far += distance > gc_tolerance
            free.take(found)
            negatives.append(found)
    if num_without:
        logger.warning("%d negatives were left out: no place of their length is free", num_without)
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
        self._room = lru_cache(maxsize=256)(self._cumulative_room)

    def draw(self, chrom: str, length: int, random: np.random.Generator, count: int) -> list[tuple[str, int]]:
        """Draw places uniformly over all possible starts, without those that overlap an earlier negative."""
        cumulative = self._room(chrom, length)
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

    def _cumulative_room(self, chrom: str, length: int) -> np.ndarray:
        room = np.maximum(self.ends - self.starts - length + 1, 0)
        return np.cumsum(np.where(self.chrom_array == chrom, room, 0))

    def _is_taken(self, chrom: str, start: int, end: int) -> bool:
        taken = self.taken.get(chrom, [])
        after = bisect.bisect_left(taken, (start, start))
        before_overlaps = after > 0 and taken[after - 1][1] > start
        return before_overlaps or (after < len(taken) and taken[after][0] < end)


def _nearest_place(
    free: _FreePlaces, positive: Interval, target: float, tolerance: float, random: np.random.Generator
) -> tuple[Interval, float]:
    best: Interval | None = None
    distance = np.inf
    for _ in range(_ROUNDS):
        for chrom, start in free.draw(positive.chrom, positive.length, random, _CANDIDATES):
            end = start + positive.length
            off = abs(gc_fraction(free.genome.fetch(chrom, start, end)) - target)
            if off < distance:
                best, distance = Interval(chrom, start, end, positive.strand), off
            if off <= tolerance:
                break
        if distance <= tolerance:
            break
    if best is None:
        raise InputError(
            f"{free.genome.path.name}: no free place of {positive.length} bases on {positive.chrom} for a negative to "
            f"match {positive}; use a smaller ratio, shorter windows or another chromosome."
        )
    return best, float(distance)
