"""Windows of genomes: what a DNA language model is trained and evaluated on.

`TrainingWindows` and `EvaluationWindows` are sequences: ``windows[index]`` is a pure function of the seed and the
index, so any number of workers gives the same samples and a run resumes exactly. Both pickle (fork and spawn) and need
no torch.
"""

from __future__ import annotations

import operator
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from longstrand.data.cohort import Cohort
from longstrand.data.genomes import GenomeSet, GenomeSource, open_genomes
from longstrand.data.permutation import Permutation, draw_below, draw_bits, draw_unit, key_of, mix_bits
from longstrand.data.regions import HoldOut, HoldOuts, Regions, choose_holdout, heldout_regions, training_regions
from longstrand.genome.fasta import Genome
from longstrand.genome.haplotypes import HaplotypeWindow
from longstrand.genome.intervals import Interval
from longstrand.genome.sequence import normalise, reverse_complement
from longstrand.runtime import generator

__all__ = ["EvaluationWindows", "GenomeSource", "HoldOut", "TrainingWindows", "Window", "choose_holdout"]

MIN_WINDOW = 16
"""Smallest window, tile and stride in bases."""
Source = GenomeSource | Genome | Path | str
StrandChoice = Literal["+", "-", "both"]


@dataclass(frozen=True)
class Window:
    """A stretch of DNA as the model will read it, and where it comes from.

    Attributes:
        interval: its place, with the strand it is read on (0-based, half-open).
        sequence: upper-case letters of the alphabet, reverse-complemented on the ``-`` strand.
        genome: name of the source.
        breaks: increasing positions in ``sequence`` where sentences end (the last one is its length); empty without
            sentences. The pieces are tokenized apart.
        haplotype: the person's haplotype (on the ``+`` strand) that the sequence was read from, if any.
    """

    interval: Interval
    sequence: str
    genome: str = ""
    breaks: tuple[int, ...] = ()
    haplotype: HaplotypeWindow | None = None

    @property
    def strand(self) -> str:
        """The strand that the sequence was read from."""
        return self.interval.strand

    @property
    def pieces(self) -> list[str]:
        """The sentences, or the whole sequence as one."""
        if not self.breaks:
            return [self.sequence]
        return [self.sequence[start:end] for start, end in zip((0, *self.breaks), self.breaks)]

    @cached_property
    def reference_positions(self) -> np.ndarray:
        """Position on the contig of each letter, int64 (len(sequence),), -1: inserted; reversed on the ``-`` strand."""
        positions = np.arange(self.interval.start, self.interval.end, dtype=np.int64)
        positions = positions if self.haplotype is None else self.haplotype.reference_positions
        return positions[::-1] if self.strand == "-" else positions


class Tiles:
    """A division of regions into tiles of at most ``stride`` bases; tile *j* is computed, not stored.

    A stretch of L bases has n = ceil(L / stride) tiles of nearly equal size. Shifted tiles (n > 1) begin with a
    short one of random size and end with its complement, so there are n + 1, whatever the epoch.
    """

    def __init__(self, regions: Regions, stride: int, *, shifted: bool) -> None:
        self._regions, self._shifted = regions, shifted
        self._num_cuts = -(-regions.lengths // stride)
        counts = self._num_cuts + 1 if shifted else self._num_cuts
        self._cumulative = np.cumsum(np.where(self._num_cuts == 1, 1, counts))

    def __len__(self) -> int:
        return int(self._cumulative[-1])

    def place(self, tile: int, *, seed: int, epoch: int) -> tuple[int, int, int]:
        """Give (region, start, end) of a tile in one epoch; the tiles of an epoch partition all regions."""
        region = int(self._cumulative.searchsorted(tile, "right"))
        number = tile - (int(self._cumulative[region - 1]) if region else 0)
        first, last = int(self._regions.starts[region]), int(self._regions.ends[region])
        length, cuts = last - first, int(self._num_cuts[region])
        if cuts == 1:
            return region, first, last
        if not self._shifted:
            return region, first + number * length // cuts, first + (number + 1) * length // cuts
        key = mix_bits(key_of(seed, "tiles") ^ epoch)
        offset = 1 + ((mix_bits(key ^ region) * (length // cuts - 1)) >> 64)
        start = 0 if number == 0 else offset + (number - 1) * length // cuts
        end = length if number == cuts else offset + number * length // cuts
        return region, first + start, first + end


class Windows(Sequence[Window]):
    """What training and evaluation have in common: genomes, the stretches that may be read, and how a place is read.

    Attributes:
        genomes: the open genomes.
        num_bases: bases of a full window.
        regions: the stretches.
    """

    regions: Regions
    _cohort: Cohort | None = None

    def __init__(
        self,
        genomes: GenomeSet | Sequence[Source],
        *,
        num_bases: int,
        num_samples: int,
        seed: int,
        strand: StrandChoice,
        start: int,
        stride: int | None,
        sentences: tuple[int, int] | None,
        alphabet: str,
    ) -> None:
        if num_bases < MIN_WINDOW:
            raise ValueError(f"a window needs at least {MIN_WINDOW} bases, got {num_bases}.")
        if sentences is not None and not 1 <= sentences[0] <= sentences[1]:
            raise ValueError(f"sentences are (shortest, longest) with 1 <= shortest <= longest, got {sentences}.")
        self._stride = stride or num_bases
        if not MIN_WINDOW <= self._stride <= num_bases + start:
            raise ValueError(f"the stride must be {MIN_WINDOW} to {num_bases + start} bases, got {self._stride}.")
        self.genomes = open_genomes(genomes)
        self.num_bases, self.num_samples, self.seed = num_bases, num_samples, seed
        self._strand, self._start, self._sentences, self._alphabet = strand, start, sentences, alphabet

    def __len__(self) -> int:
        return self.num_samples

    def __getitem__(self, index: int) -> Window:  # type: ignore[override]
        """Make one window; negative indices count from the end.

        Raises:
            IndexError: the index is outside the data set.
        """
        number = operator.index(index)
        place = number + len(self) if number < 0 else number
        if not 0 <= place < len(self):
            raise IndexError(f"window {number} is outside the {len(self)} windows of this data set.")
        sample = self._sample(place)
        both = self._strand == "both"
        strand = "+-"[draw_bits(self.seed, sample, "strand") >> 63] if both else self._strand
        region, start, end = self._place(sample, strand)
        source, contig = int(self.regions.genomes[region]), int(self.regions.contigs[region])
        chrom, name = self.genomes.chrom(contig), self.genomes.names[source]
        person = self._cohort and self._cohort.read(chrom, start, end, seed=self.seed, index=sample)
        raw = person.sequence if person else self.genomes.read(source, contig, start, end)
        sequence = normalise(raw, self._alphabet, where=name).sequence
        if strand == "-":
            sequence = reverse_complement(sequence)
        breaks = self._breaks(len(sequence), sample)
        return Window(Interval(chrom, start, end, strand), sequence, name, breaks, person)

    def _sample(self, index: int) -> int:
        """Give the number that random draws of a window depend on."""
        return index

    def _place(self, sample: int, strand: str) -> tuple[int, int, int]:
        """Give the region, start and end of a window."""
        raise NotImplementedError

    def _read_on(self, region: int, start: int, end: int, strand: str) -> tuple[int, int]:
        """Extend a tile in the direction of reading, within its stretch; short tiles get no more than others."""
        reserve = self.num_bases + self._start - self._stride
        if strand == "-":
            return max(int(self.regions.starts[region]), start - reserve), end
        return start, min(int(self.regions.ends[region]), end + reserve)

    def _breaks(self, num_bases: int, sample: int) -> tuple[int, ...]:
        if self._sentences is None:
            return ()
        shortest, longest = self._sentences
        random = generator(self.seed, sample, "sentences")
        ends = np.cumsum(random.integers(shortest, longest + 1, size=-(-num_bases // shortest)))
        return (*(int(end) for end in ends[ends < num_bases]), num_bases)


class TrainingWindows(Windows):
    """All windows of a training run, made when asked for.

    ``order="random"``: the centre of each window is uniform over all allowed bases (times the genome's weight); near
    the end of an allowed stretch the window is slid inwards, so every window is full unless its stretch is shorter.
    ``order="epoch"``: the allowed stretches are cut into tiles of at most ``stride`` bases, visited in a keyed random
    order; the tiles of an epoch cover every allowed base once, with other borders and another order. Windows read on
    past their tile by ``num_bases - stride`` bases, the reserve for a tokenizer that spells some stretches with fewer
    tokens: neighbouring BPE examples overlap (`TokenBudget.repeated` says by how much). With ``start`` a tile and
    what is read on are a chunk of up to ``num_bases + start`` bases, in which the window begins at a drawn place.

    Attributes:
        epoch_length: windows of one pass over all allowed bases (``order="epoch"``), else allowed bases / num_bases.
    """

    def __init__(
        self,
        genomes: GenomeSet | Sequence[Source],
        *,
        num_bases: int,
        num_samples: int,
        seed: int,
        strand: StrandChoice = "both",
        start: int = 0,
        order: Literal["random", "epoch"] = "random",
        stride: int | None = None,
        holdout: HoldOuts = None,
        sentences: tuple[int, int] | None = None,
        alphabet: str = "ACGTN",
        cohort: Cohort | None = None,
    ) -> None:
        """Find the allowed bases; no window is read yet.

        Args:
            genomes: FASTA files, open genomes, or `GenomeSource` with weights.
            num_bases: bases of a window (for a token budget see `longstrand.data.examples.measure_budget`).
            num_samples: windows of the whole run; ``len`` of this object.
            seed: everything random follows from it.
            strand: read ``+``, ``-``, or each window on a strand drawn with equal chance.
            start: most bases that a window leaves out at the beginning of its chunk, drawn anew for each (Nucleotide
                Transformer: 100); only in the epoch order, whose coverage is then no longer exact.
            order: see above.
            stride: bases of an epoch tile, at most ``num_bases + start``; by default ``num_bases``.
            holdout: what is kept out; its margin is ``num_bases`` unless it says otherwise.
            sentences: shortest and longest sentence, (500, 1000) in GENA-LM's corpus; each is tokenized apart.
            alphabet: letters that the tokenizer knows; others become N.
            cohort: people whose haplotypes are read in place of the reference.

        Raises:
            ValueError: a number is out of range, or the epoch order was asked for with unequal weights.
            UsageError: nothing is left to train on, or a contig is unknown.
        """
        super().__init__(
            genomes, num_bases=num_bases, num_samples=num_samples, seed=seed, strand=strand, start=start,
            stride=stride, sentences=sentences, alphabet=alphabet,
        )  # fmt: skip
        if start and order == "random":
            raise ValueError("start moves windows in their chunks, and the random order has none; use order epoch.")
        self._order, self._cohort = order, cohort
        self.regions = training_regions(self.genomes, margin=num_bases, holdout=holdout)
        self._cumulative = self.regions.lengths
        np.cumsum(self._cumulative, out=self._cumulative)
        firsts = self.regions.firsts
        bases = np.diff(np.where(firsts > 0, self._cumulative[firsts - 1], 0))
        shares = self.genomes.sampling.shares(bases, self.genomes.weights, self.genomes.taxa)
        self._weights = np.divide(shares, bases, out=np.zeros_like(shares), where=bases > 0)
        if order == "epoch" and not np.allclose(used := self._weights[bases > 0], used[0], rtol=1e-9):
            raise ValueError("the epoch order covers every base once, so all genomes need the same weight.")
        # Of each genome: the end of its share, its first base and its first stretch, as numbers that are found at once.
        self._shares: list[float] = np.cumsum(shares).tolist()
        self._first_base: list[int] = [0, *np.cumsum(bases).tolist()]
        self._first_region: list[int] = firsts.tolist()
        self._permutation: tuple[int, Permutation] | None = None

    @cached_property
    def _tiles(self) -> Tiles:
        return Tiles(self.regions, self._stride, shifted=True)

    @property
    def epoch_length(self) -> int:
        """Windows after which every allowed base has been seen once (on average, in the random order)."""
        return len(self._tiles) if self._order == "epoch" else max(1, self.regions.num_bases // self.num_bases)

    @property
    def short_share(self) -> float:
        """Expected share of bases missing in windows whose allowed stretch is shorter than a window."""
        lengths = self.regions.lengths
        share = lengths * self._weights[self.regions.genomes] / self._shares[-1]
        return float((share * np.maximum(0, 1 - lengths / self.num_bases)).sum())

    @property
    def genome_shares(self) -> dict[str, float]:
        """Expected share of the windows of each genome, by name; they sum to 1."""
        shares = np.diff(self._shares, prepend=0.0) / self._shares[-1]
        return dict(zip(self.genomes.names, shares.tolist(), strict=True))

    def _place(self, sample: int, strand: str) -> tuple[int, int, int]:
        return self._tile(sample, strand) if self._order == "epoch" else self._random_place(sample)

    def _random_place(self, index: int) -> tuple[int, int, int]:
        """Draw the genome and the stretch by one number, the centre by another; slide the window into its stretch."""
        point = draw_unit(self.seed, index, "region") * self._shares[-1]
        genome = min(bisect_right(self._shares, point), len(self._shares) - 1)
        rest = point - (self._shares[genome - 1] if genome else 0.0)
        before, end = self._first_base[genome : genome + 2]
        base = min(before + int(rest / self._weights[genome]), end - 1)
        first, last = self._first_region[genome : genome + 2]
        region = first + int(self._cumulative[first:last].searchsorted(base, "right"))
        first, last = int(self.regions.starts[region]), int(self.regions.ends[region])
        centre = first + draw_below(self.seed, index, "start", bound=last - first)
        start = max(first, min(centre - self.num_bases // 2, last - self.num_bases))
        return region, start, min(last, start + self.num_bases)

    def _tile(self, index: int, strand: str) -> tuple[int, int, int]:
        epoch, step = divmod(index, len(self._tiles))
        if self._permutation is None or self._permutation[0] != epoch:
            key = mix_bits(key_of(self.seed, "order") ^ epoch)
            self._permutation = (epoch, Permutation(len(self._tiles), key=key))
        region, start, end = self._tiles.place(self._permutation[1](step), seed=self.seed, epoch=epoch)
        start, end = self._read_on(region, start, end, strand)
        spare = max(0, min(self._start, end - start - self.num_bases))
        left_out = draw_below(self.seed, index, "left out", bound=spare + 1)
        if strand == "-":
            return region, max(start, end - left_out - self.num_bases), end - left_out
        return region, start + left_out, min(end, start + left_out + self.num_bases)


class EvaluationWindows(Windows):
    """Fixed windows that tile the hold-out (without one, whole genomes), in order.

    Tiles have at most ``stride`` bases, of nearly equal size within a stretch; windows read on past their tile by
    ``num_bases - stride`` bases but never past the held-out stretch.
    """

    def __init__(
        self,
        genomes: GenomeSet | Sequence[Source],
        *,
        num_bases: int,
        holdout: HoldOuts = None,
        stride: int | None = None,
        strand: StrandChoice = "+",
        max_windows: int | None = None,
        sentences: tuple[int, int] | None = None,
        seed: int = 0,
        alphabet: str = "ACGTN",
    ) -> None:
        """Lay the tiles.

        Args:
            genomes: as for training.
            num_bases: bases of a window.
            holdout: the same value that training got; its inside is tiled, without the margin.
            stride: bases of a tile, at most ``num_bases`` (the default).
            strand: ``both`` reads each window on a strand fixed by seed and index.
            max_windows: keep this many, evenly spaced over all tiles.
            sentences: as for training, fixed by seed and index.
            seed: for strands and sentences.
            alphabet: letters that the tokenizer knows; others become N.

        Raises:
            ValueError: a number is out of range.
            UsageError: nothing is left to evaluate on, or a contig is unknown.
        """
        super().__init__(
            genomes, num_bases=num_bases, num_samples=1 if max_windows is None else max_windows, seed=seed,
            strand=strand, start=0, stride=stride, sentences=sentences, alphabet=alphabet,
        )  # fmt: skip
        self.regions = heldout_regions(self.genomes, holdout=holdout)
        self._tiles = Tiles(self.regions, self._stride, shifted=False)
        self.num_samples = min(len(self._tiles), max_windows or len(self._tiles))

    def _sample(self, index: int) -> int:
        return index * len(self._tiles) // self.num_samples

    def _place(self, sample: int, strand: str) -> tuple[int, int, int]:
        region, start, end = self._tiles.place(sample, seed=self.seed, epoch=0)
        return region, *self._read_on(region, start, end, strand)
