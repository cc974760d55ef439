"""Where windows may lie: the bases of a genome that are known, wanted and not held out, found once.

Windows never cross the border of a `Regions` entry, so there is no retry loop and no leak into held-out bases.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from longstrand.data.permutation import draw_below, draw_bits
from longstrand.errors import InputError, UsageError, nearest
from longstrand.genome.fasta import Genome, chrom_twin
from longstrand.genome.intervals import Interval, merge_intervals, subtract_intervals

logger = logging.getLogger(__name__)

MIN_UNKNOWN_RUN = 100
"""Runs of fewer N than this stay inside a window (scaffolding gaps are longer, single unknown bases are shorter)."""

MIN_REGION = 32
"""Allowed stretches with fewer bases than this are dropped: they hold a handful of tokens."""


@dataclass(frozen=True)
class GenomeSource:
    """A FASTA file to draw windows from.

    Attributes:
        fasta: path (plain, gzip or bgzip) or an open `Genome`.
        weight: windows per base relative to the other sources; with equal weights larger genomes give more windows.
        name: what reports call it; the file name by default.
    """

    fasta: Path | str | Genome
    weight: float = 1.0
    name: str | None = None

    def open(self) -> Genome:
        """Open the genome (indexed on first use)."""
        return self.fasta if isinstance(self.fasta, Genome) else Genome(self.fasta)


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

    def in_genome(self, genome: Genome) -> list[Interval]:
        """Give the held-out stretches of one genome, without margin; contigs that it does not have are left out."""
        whole = [Interval(chrom, 0, genome.contigs[chrom]) for chrom in self.contigs if chrom in genome.contigs]
        return merge_intervals([*whole, *(item for item in self.intervals if item.chrom in genome.contigs)])


HoldOuts = HoldOut | Mapping[str, HoldOut] | None
"""One hold-out for all genomes (by contig name), or one for each genome by its name, or none."""


@dataclass(frozen=True, eq=False)
class Regions:
    """Stretches of several genomes that windows may use, as columns; sorted by genome, contig order of the file, start.

    Attributes:
        genomes: int32 (n,), number of the genome.
        chroms: n contig names.
        starts: int64 (n,), 0-based.
        ends: int64 (n,), exclusive.
    """

    genomes: np.ndarray
    chroms: tuple[str, ...]
    starts: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.chroms)

    @property
    def lengths(self) -> np.ndarray:
        """Bases of each stretch, int64 (n,)."""
        lengths: np.ndarray = self.ends - self.starts
        return lengths

    @property
    def num_bases(self) -> int:
        """Bases of all stretches together."""
        return int(self.lengths.sum())


def open_genomes(genomes: Sequence[GenomeSource | Genome | Path | str]) -> tuple[list[Genome], list[float], list[str]]:
    """Open the sources of a window data set.

    Returns:
        genomes, weights, names (made unique by numbering).

    Raises:
        ValueError: there is none.
    """
    if not genomes:
        raise ValueError("windows need at least one genome.")
    sources = [item if isinstance(item, GenomeSource) else GenomeSource(item) for item in genomes]
    opened = [source.open() for source in sources]
    names: list[str] = []
    for source, genome in zip(sources, opened, strict=True):
        name = source.name or genome.name
        names.append(name if name not in names else f"{name}#{len(names) + 1}")
    return opened, [source.weight for source in sources], names


def training_regions(
    genomes: Sequence[Genome], names: Sequence[str], *, margin: int, holdout: HoldOuts = None
) -> Regions:
    """Find all bases that training may see: not N, not held out (plus margin).

    Args:
        genomes: open genomes.
        names: their names (keys of a `HoldOut` mapping).
        margin: bases around held-out intervals, where the hold-out itself gives none.
        holdout: what to keep out.

    Raises:
        UsageError: a contig is in no genome, an interval reaches past its contig, or nothing is left.
    """
    _check_places(genomes, names, holdout)
    rows: list[tuple[int, Interval]] = []
    for number, (genome, name) in enumerate(zip(genomes, names, strict=True)):
        out = _holdout_of(name, holdout)
        gap = margin if out.margin is None else out.margin
        holes = [item.expand(gap) for item in out.in_genome(genome)]
        rows += [(number, item) for item in _in_file_order(genome, subtract_intervals(_known_bases(genome), holes))]
    return _regions(rows, "no base is left to train on: everything is N or held out.")


def heldout_regions(genomes: Sequence[Genome], names: Sequence[str], *, holdout: HoldOuts = None) -> Regions:
    """Find the known (not N) bases of the hold-out, without any margin; without one, of the genomes.

    Raises:
        UsageError: a contig is in no genome, an interval reaches past its contig, or nothing is left.
    """
    _check_places(genomes, names, holdout)
    rows: list[tuple[int, Interval]] = []
    for number, (genome, name) in enumerate(zip(genomes, names, strict=True)):
        known = _known_bases(genome)
        if holdout is not None:
            known = subtract_intervals(known, subtract_intervals(known, _holdout_of(name, holdout).in_genome(genome)))
        rows += [(number, item) for item in _in_file_order(genome, known)]
    return _regions(rows, "no base is left to evaluate on: the hold-out is empty, or N throughout.")


def choose_holdout(
    genomes: Sequence[GenomeSource | Genome | Path | str], *, fraction: float, seed: int, min_bases: int = 0
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
    opened, _, names = open_genomes(genomes)
    chosen: dict[str, HoldOut] = {}
    for name, genome in zip(names, opened, strict=True):
        total = sum(genome.contigs.values())
        if total < 2 * max(1, min_bases):
            raise InputError(f"{name}: {total} bases are too few to hold out {min_bases}; evaluate on another genome.")
        chosen[name] = _choose_contigs(genome, wanted=max(round(fraction * total), min_bases), seed=seed)
    return chosen


def _choose_contigs(genome: Genome, *, wanted: int, seed: int) -> HoldOut:
    order = sorted(range(len(genome.contigs)), key=lambda number: draw_bits(seed, number, "holdout"))
    names = list(genome.contigs)
    whole: list[str] = []
    missing = wanted
    for number in order:
        if 0 < genome.contigs[names[number]] <= missing + 0.2 * wanted:
            whole.append(names[number])
            missing -= genome.contigs[names[number]]
    if missing <= 0.2 * wanted:
        return HoldOut(contigs=tuple(name for name in names if name in whole))
    longest = max((name for name in names if name not in whole), key=lambda name: genome.contigs[name])
    length = genome.contigs[longest]
    size = min(missing, length // 2)
    start = length - size if draw_below(seed, 0, "holdout side", bound=2) else 0
    kept = tuple(name for name in names if name in whole)
    return HoldOut(contigs=kept, intervals=(Interval(longest, start, start + size),))


def _holdout_of(name: str, holdout: HoldOuts) -> HoldOut:
    if holdout is None:
        return HoldOut()
    return holdout if isinstance(holdout, HoldOut) else holdout.get(name, HoldOut())


def _check_places(genomes: Sequence[Genome], names: Sequence[str], holdout: HoldOuts) -> None:
    """Refuse contigs that exist nowhere and intervals past the end: both would silently hold out nothing."""
    if isinstance(holdout, Mapping):
        for name in holdout:
            if name not in names:
                known = ", ".join(names)
                raise UsageError(f"a hold-out names genome '{name}'{nearest(name, names)}; the genomes are: {known}.")
        parts = [([genomes[names.index(name)]], out) for name, out in holdout.items()]
    else:
        parts = [(list(genomes), holdout)] if holdout is not None else []
    for searched, out in parts:
        check_contigs(searched, out.contigs, "held-out contig")
        check_contigs(searched, (item.chrom for item in out.intervals), "contig of the held-out interval")
        for item in out.intervals:
            length = max(genome.contigs.get(item.chrom, 0) for genome in searched)
            if item.end > length:
                raise UsageError(
                    f"held-out interval {item} reaches past the end of '{item.chrom}', which has {length} bases."
                )


def check_contigs(genomes: Sequence[Genome], chroms: Iterable[str], what: str) -> None:
    """Refuse a contig that no genome has.

    Raises:
        UsageError: naming the nearest one and what there is.
    """
    known = [chrom for genome in genomes for chrom in genome.contigs]
    for chrom in dict.fromkeys(chroms):
        if chrom not in known:
            twin = chrom_twin(chrom, known)
            hint = f" (did you mean '{twin}'?)" if twin else nearest(chrom, known)
            shown = ", ".join(known[:6]) + (f", ... ({len(known)} in all)" if len(known) > 6 else "")
            raise UsageError(f"{what} '{chrom}' is in none of the FASTA files{hint}; they have: {shown}.")


def _known_bases(genome: Genome) -> list[Interval]:
    """Give the stretches without long N runs."""
    runs = (Interval(chrom, start, end) for chrom in genome.contigs for start, end in genome.non_n_runs(chrom))
    return merge_intervals(runs, gap=MIN_UNKNOWN_RUN - 1)


def _in_file_order(genome: Genome, intervals: Iterable[Interval]) -> list[Interval]:
    place = {chrom: number for number, chrom in enumerate(genome.contigs)}
    return sorted(intervals, key=lambda item: (place[item.chrom], item.start))


def _regions(rows: Sequence[tuple[int, Interval]], nothing_left: str) -> Regions:
    kept = [(number, item) for number, item in rows if item.length >= MIN_REGION]
    if not kept:
        raise UsageError(nothing_left)
    if len(kept) < len(rows):
        lost = sum(item.length for _, item in rows) - sum(item.length for _, item in kept)
        logger.info("%d stretches under %d bases (%d bases) are not used", len(rows) - len(kept), MIN_REGION, lost)
    return Regions(
        genomes=np.array([number for number, _ in kept], dtype=np.int32),
        chroms=tuple(item.chrom for _, item in kept),
        starts=np.array([item.start for _, item in kept], dtype=np.int64),
        ends=np.array([item.end for _, item in kept], dtype=np.int64),
    )
