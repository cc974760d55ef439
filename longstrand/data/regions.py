"""Where windows may lie: the bases of a genome that are known, wanted and not held out, found once.

Windows never cross the border of a `Regions` entry, so there is no retry loop and no leak into held-out bases.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from longstrand.data.genomes import LENGTH, GenomeSet, GenomeSource, open_genomes
from longstrand.data.permutation import draw_below, draw_many
from longstrand.errors import InputError, UsageError, nearest
from longstrand.genome.fasta import Genome, chrom_twin
from longstrand.genome.intervals import Interval, subtract_intervals

logger = logging.getLogger(__name__)

MIN_REGION = 32
"""Allowed stretches with fewer bases than this are dropped: they hold a handful of tokens."""


@dataclass(frozen=True)
class HoldOut:
    """What training must never see.

    Attributes:
        contigs: whole contigs, by name.
        intervals: stretches of contigs (0-based, half-open; strand ignored).
        margin: bases on both sides of ``intervals`` that are not trained on either; None means one window.
    """

    contigs: tuple[str, ...] = ()
    intervals: tuple[Interval, ...] = ()
    margin: int | None = None


HoldOuts = HoldOut | Mapping[str, HoldOut] | None
"""One hold-out for all genomes (by contig name), or one for each genome by its name, or none."""


@dataclass(frozen=True, eq=False)
class Regions:
    """Stretches of genomes that windows may use, as columns; sorted by genome, contig order of the file, start.

    Attributes:
        source: the genomes.
        contigs: int32 (n,), number of the contig in ``source``.
        starts: int64 (n,), 0-based.
        ends: int64 (n,), exclusive.
    """

    source: GenomeSet
    contigs: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    @cached_property
    def firsts(self) -> np.ndarray:
        """Number of the first stretch of each genome, and of all, int64 (genomes + 1,)."""
        found: np.ndarray = np.searchsorted(self.contigs, self.source.first_contig.astype(self.contigs.dtype))
        return found

    @cached_property
    def genomes(self) -> np.ndarray:
        """Number of the genome of each stretch, int32 (n,)."""
        return np.repeat(np.arange(len(self.source), dtype=np.int32), np.diff(self.firsts))

    @property
    def chroms(self) -> tuple[str, ...]:
        """Names of the contigs, n of them."""
        return tuple(map(self.source.chrom, self.contigs.tolist()))

    @property
    def lengths(self) -> np.ndarray:
        """Bases of each stretch, int64 (n,)."""
        lengths: np.ndarray = self.ends - self.starts
        return lengths

    @property
    def num_bases(self) -> int:
        """Bases of all stretches together."""
        return int(self.lengths.sum())


def training_regions(genomes: GenomeSet, *, margin: int, holdout: HoldOuts = None) -> Regions:
    """Find all bases that training may see: not N, not held out (plus margin).

    Args:
        genomes: what to look at.
        margin: bases around held-out intervals, where the hold-out itself gives none.
        holdout: what to keep out.

    Raises:
        UsageError: a contig is in no genome, an interval reaches past its contig, or nothing is left.
    """
    _check_places(genomes, holdout)
    return _regions(genomes, holdout, margin, "no base is left to train on: everything is N or held out.")


def heldout_regions(genomes: GenomeSet, *, holdout: HoldOuts = None) -> Regions:
    """Find the known (not N) bases of the hold-out, without any margin; without one, of the genomes.

    Raises:
        UsageError: a contig is in no genome, an interval reaches past its contig, or nothing is left.
    """
    _check_places(genomes, holdout)
    margin = 0 if holdout is None else None
    return _regions(genomes, holdout, margin, "no base is left to evaluate on: the hold-out is empty, or N throughout.")


def choose_holdout(
    genomes: GenomeSet | Sequence[GenomeSource | Genome | Path | str], *, fraction: float, seed: int, min_bases: int = 0
) -> dict[str, HoldOut]:
    """Choose about ``fraction`` of each genome to hold out: whole contigs as far as they fit, the rest as one interval.

    Contigs are visited in a random order; one is held out whole if that overshoots the wanted number of bases by no
    more than a fifth of it. What is then still missing becomes one interval at the end of the longest contig left.

    Args:
        genomes: the sources of the training windows.
        fraction: share of each genome's bases, in (0, 0.5].
        seed: which contigs.
        min_bases: smallest useful hold-out of a genome (a few windows); a genome with less than twice this is an error.

    Returns:
        A hold-out for each genome, by name, ready for `TrainingWindows` and `EvaluationWindows`.

    Raises:
        InputError: a genome is too short.
    """
    opened = open_genomes(genomes)
    chosen = {}
    for number, name in enumerate(opened.names):
        lengths = opened.lengths(number)
        wanted = max(round(fraction * sum(lengths.values())), min_bases)
        chosen[name] = choose_contigs(name, lengths, wanted=wanted, least=min_bases, seed=seed)
    return chosen


def choose_contigs(genome: str, lengths: Mapping[str, int], *, wanted: int, least: int, seed: int) -> HoldOut:
    """Choose about ``wanted`` bases of the contigs of one genome, as `choose_holdout` does.

    Raises:
        InputError: it has less than twice ``least``.
    """
    total = sum(lengths.values())
    if total < 2 * max(1, least):
        raise InputError(f"{genome}: {total} bases are too few to hold out {least}; evaluate on another genome.")
    names, sizes = list(lengths), list(lengths.values())
    shortest = min(sizes)
    whole = set[str]()
    missing = wanted
    for number in np.argsort(draw_many(seed, np.arange(len(names)), "holdout"), kind="stable").tolist():
        if 0 < sizes[number] <= missing + 0.2 * wanted:
            whole.add(names[number])
            missing -= sizes[number]
            if missing + 0.2 * wanted < shortest:
                break
    kept = tuple(name for name in names if name in whole)
    if missing <= 0.2 * wanted:
        return HoldOut(contigs=kept)
    longest = max((name for name in names if name not in whole), key=lambda name: lengths[name])
    length = lengths[longest]
    size = min(missing, length // 2)
    start = length - size if draw_below(seed, 0, "holdout side", bound=2) else 0
    return HoldOut(contigs=kept, intervals=(Interval(longest, start, start + size),))


def _holdout_of(name: str, holdout: HoldOuts) -> HoldOut:
    if holdout is None:
        return HoldOut()
    return holdout if isinstance(holdout, HoldOut) else holdout.get(name, HoldOut())


def _check_places(genomes: GenomeSet, holdout: HoldOuts) -> None:
    """Refuse contigs that exist nowhere and intervals past the end: both would silently hold out nothing."""
    numbers = {name: number for number, name in enumerate(genomes.names)}
    if isinstance(holdout, Mapping):
        for name in holdout:
            if name not in numbers:
                known = ", ".join(genomes.names)
                raise UsageError(
                    f"a hold-out names genome '{name}'{nearest(name, genomes.names)}; the genomes are: {known}."
                )
        parts = [([numbers[name]], out) for name, out in holdout.items()]
    else:
        parts = [(list(numbers.values()), holdout)] if holdout is not None else []
    for searched, out in parts:
        wanted = {*out.contigs, *(item.chrom for item in out.intervals)}
        if not wanted:
            continue
        lengths: dict[str, int] = {}
        for number in searched:
            for chrom, contig in genomes.find(number, wanted).items():
                lengths[chrom] = max(int(genomes.contigs[contig, LENGTH]), lengths.get(chrom, 0))
        if len(lengths) < len(wanted):
            known = dict.fromkeys(chrom for number in searched for chrom in genomes.lengths(number))
            check_contigs(known, out.contigs, "held-out contig")
            check_contigs(known, (item.chrom for item in out.intervals), "contig of the held-out interval")
        for item in out.intervals:
            if item.end > lengths[item.chrom]:
                raise UsageError(
                    f"held-out interval {item} reaches past the end of '{item.chrom}', which has "
                    f"{lengths[item.chrom]} bases."
                )


def check_contigs(known: Collection[str], chroms: Iterable[str], what: str) -> None:
    """Refuse a contig that no genome has.

    Args:
        known: names of the contigs that there are.
        chroms: names that are asked for.
        what: they are called in the error.

    Raises:
        UsageError: naming the nearest one and what there is.
    """
    for chrom in dict.fromkeys(chroms):
        if chrom not in known:
            twin = chrom_twin(chrom, known)
            hint = f" (did you mean '{twin}'?)" if twin else nearest(chrom, known)
            shown = ", ".join(list(known)[:6]) + (f", ... ({len(known)} in all)" if len(known) > 6 else "")
            raise UsageError(f"{what} '{chrom}' is in none of the FASTA files{hint}; they have: {shown}.")


def _regions(genomes: GenomeSet, holdout: HoldOuts, margin: int | None, nothing_left: str) -> Regions:
    """Cut the hold-out (with its margin) from the known stretches; with ``margin`` None, keep nothing else."""
    inside = margin is None
    runs = genomes.runs
    kept = np.full(len(runs), not inside)
    pieces = list[tuple[int, int, int, int]]()
    for number, name in enumerate(genomes.names):
        out = _holdout_of(name, holdout)
        if not out.contigs and not out.intervals:
            continue
        place = genomes.find(number, {*out.contigs, *(item.chrom for item in out.intervals)})
        first, last = genomes.first_run[number : number + 2].tolist()
        kept[first:last] ^= np.isin(runs[first:last, 0], [place[chrom] for chrom in out.contigs if chrom in place])
        gap = 0 if margin is None else margin if out.margin is None else out.margin
        holes = [item.expand(gap) for item in out.intervals if item.chrom in place and item.chrom not in out.contigs]
        touched = first + np.flatnonzero(np.isin(runs[first:last, 0], [place[item.chrom] for item in holes]))
        kept[touched] = False
        rows = runs[touched].tolist()
        known = [Interval(genomes.chrom(c), start, end) for c, start, end in rows]
        left = subtract_intervals(known, holes)
        left = subtract_intervals(known, left) if inside else left
        origins = [(contig, start) for contig, start, _ in rows]
        for item in left:
            contig = place[item.chrom]
            origin = int(touched[bisect_right(origins, (contig, item.start)) - 1])
            pieces.append((origin, contig, item.start, item.end))
    if genomes.allowed is not None:
        kept &= genomes.allowed[runs[:, 0]]
    # A corpus has millions of stretches: column by column, without a copy of what is not needed.
    chosen = np.flatnonzero(kept)
    cut = np.array(pieces, np.int64).reshape(-1, 4)
    slots = np.searchsorted(chosen, cut[:, 0])
    contigs, starts, ends = (np.insert(runs[chosen, k].astype(kind, copy=False), slots, cut[:, k + 1])
                             for k, kind in enumerate((np.int32, np.int64, np.int64)))  # fmt: skip
    del chosen
    long = ends - starts >= MIN_REGION
    if not long.any():
        raise UsageError(nothing_left)
    if not long.all():
        lost = int((ends - starts)[~long].sum())
        logger.info("%d stretches under %d bases (%d bases) are not used", (~long).sum(), MIN_REGION, lost)
        contigs, starts, ends = contigs[long], starts[long], ends[long]
    return Regions(genomes, contigs, starts, ends)
