"""Windows of genomes: what a DNA language model is trained and evaluated on.

`TrainingWindows` and `EvaluationWindows` are sequences: ``windows[index]`` is a pure function of the seed and the
index, so any number of workers gives the same samples and a run resumes exactly. Both pickle (fork and spawn) and need
no torch.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from longstrand.data.permutation import Permutation, draw_below, draw_bits, draw_unit, key_of, mix_bits
from longstrand.data.regions import (
    GenomeSource,
    HoldOut,
    HoldOuts,
    Regions,
    choose_holdout,
    heldout_regions,
    open_genomes,
    training_regions,
)
from longstrand.data.tiles import MIN_WINDOW, Tiles, read_on
from longstrand.errors import one_of
from longstrand.genome.fasta import Genome
from longstrand.genome.intervals import Interval
from longstrand.genome.sequence import normalise, reverse_complement
from longstrand.runtime import generator

__all__ = [
    "EvaluationWindows",
    "GenomeSource",
    "HoldOut",
    "TrainingWindows",
    "Window",
    "choose_holdout",
]

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
    """

    interval: Interval
    sequence: str
    genome: str = ""
    breaks: tuple[int, ...] = ()

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
        """Position on the contig of each letter, int64 (len(sequence),); descending on the ``-`` strand."""
        positions = np.arange(self.interval.start, self.interval.end, dtype=np.int64)
        return positions[::-1] if self.strand == "-" else positions


class TrainingWindows(Sequence[Window]):
    """All windows of a training run, made when asked for.

    ``order="random"``: the centre of each window is uniform over all allowed bases (times the genome's weight); near
    the end of an allowed stretch the window is slid inwards, so every window is full unless its stretch is shorter.
    ``order="epoch"``: the allowed stretches are cut into tiles of at most ``stride`` bases, visited in a keyed random
    order; the tiles of an epoch cover every allowed base once, with other borders and another order. Windows read on
    past their tile by ``num_bases - stride`` bases, the reserve for a tokenizer that spells some stretches with fewer
    tokens: neighbouring BPE examples overlap (`TokenBudget.repeated` says by how much). With ``start`` a tile and
    what is read on are a chunk of up to ``num_bases + start`` bases, in which the window begins at a drawn place.

    Attributes:
        genomes: the open genomes.
        num_bases: bases of a full window.
        regions: the allowed stretches.
        names: names of the genomes.
        epoch_length: windows of one pass over all allowed bases (``order="epoch"``), else allowed bases / num_bases.
    """

    def __init__(
        self,
        genomes: Sequence[Source],
        *,
        num_bases: int,
        num_samples: int,
        seed: int,
        strand: StrandChoice = "both",
        start: int = 0,
        order: Literal["random", "epoch"] = "random",
        stride: int | None = None,
        holdout: HoldOuts = None,
        only: Sequence[Interval] | None = None,
        sentences: tuple[int, int] | None = None,
        alphabet: str = "ACGTN",
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
            only: use these intervals alone.
            sentences: shortest and longest sentence, (500, 1000) in GENA-LM's corpus; each is tokenized apart.
            alphabet: letters that the tokenizer knows; others become N.

        Raises:
            ValueError: a number is out of range, or the epoch order was asked for with unequal weights.
            UsageError: nothing is left to train on, or a contig is unknown.
        """
        _check_sizes(num_bases, num_samples, start, sentences)
        one_of(strand, ("+", "-", "both"), "strand")
        one_of(order, ("random", "epoch"), "order of windows")
        self.genomes, weights, self.names = open_genomes(genomes)
        if order == "epoch" and len(set(weights)) > 1:
            raise ValueError("the epoch order covers every base once, so all genomes need the same weight.")
        if start and order == "random":
            raise ValueError("start moves windows in their chunks, and the random order has none; use order epoch.")
        self.num_bases, self.num_samples, self.seed = num_bases, num_samples, seed
        self._stride = _checked_stride(stride or num_bases, num_bases + start)
        self._strand, self._start, self._order, self._sentences = strand, start, order, sentences
        self._reader = _Reader(self.genomes, self.names, alphabet)
        self.regions = training_regions(self.genomes, self.names, margin=num_bases, holdout=holdout, only=only)
        self._cumulative = np.cumsum(self.regions.lengths * np.array(weights)[self.regions.genomes])
        self._tiles = Tiles(self.regions, self._stride, shifted=True)
        self._permutation: tuple[int, Permutation] | None = None

    @property
    def epoch_length(self) -> int:
        """Windows after which every allowed base has been seen once (on average, in the random order)."""
        return len(self._tiles) if self._order == "epoch" else max(1, self.regions.num_bases // self.num_bases)

    @property
    def short_share(self) -> float:
        """Expected share of bases missing in windows whose allowed stretch is shorter than a window."""
        lengths = self.regions.lengths
        chance = np.diff(self._cumulative, prepend=0.0) / self._cumulative[-1]
        return float((chance * np.maximum(0, 1 - lengths / self.num_bases)).sum())

    def __len__(self) -> int:
        return self.num_samples

    def __getitem__(self, index: int) -> Window:  # type: ignore[override]
        """Make one window; negative indices count from the end.

        Raises:
            IndexError: the index is outside the run.
        """
        index = _checked_index(index, self.num_samples)
        strand = _strand_of(self._strand, self.seed, index)
        region, start, end = self._tile(index, strand) if self._order == "epoch" else self._random_place(index)
        breaks = _sentence_breaks(self._sentences, end - start, self.seed, index)
        return self._reader.read(self.regions, region, start, end, strand, breaks)

    def __iter__(self) -> Iterator[Window]:
        return (self[index] for index in range(len(self)))

    def _random_place(self, index: int) -> tuple[int, int, int]:
        """Draw the centre, then slide the window into its stretch."""
        point = draw_unit(self.seed, index, "region") * float(self._cumulative[-1])
        region = min(int(np.searchsorted(self._cumulative, point, side="right")), len(self.regions) - 1)
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
        reserve = self.num_bases + self._start - self._stride
        region, start, end = read_on(self.regions, region, start, end, strand, reserve)
        spare = max(0, min(self._start, end - start - self.num_bases))
        left_out = draw_below(self.seed, index, "left out", bound=spare + 1)
        if strand == "-":
            return region, max(start, end - left_out - self.num_bases), end - left_out
        return region, start + left_out, min(end, start + left_out + self.num_bases)


class EvaluationWindows(Sequence[Window]):
    """Fixed windows that tile the hold-out (or given intervals, or whole genomes), in order.

    Tiles have at most ``stride`` bases, of nearly equal size within a stretch; windows read on past their tile by
    ``num_bases - stride`` bases but never past the held-out stretch.
    """

    def __init__(
        self,
        genomes: Sequence[Source],
        *,
        num_bases: int,
        holdout: HoldOuts = None,
        intervals: Sequence[Interval] | None = None,
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
            intervals: tile these instead.
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
        _check_sizes(num_bases, 1 if max_windows is None else max_windows, 0, sentences)
        one_of(strand, ("+", "-", "both"), "strand")
        self.genomes, _, self.names = open_genomes(genomes)
        self.num_bases, self.seed = num_bases, seed
        self._stride = _checked_stride(stride or num_bases, num_bases)
        self._strand, self._sentences = strand, sentences
        self._reader = _Reader(self.genomes, self.names, alphabet)
        self.regions = heldout_regions(self.genomes, self.names, holdout=holdout, intervals=intervals)
        self._tiles = Tiles(self.regions, self._stride, shifted=False)
        self._num_windows = min(len(self._tiles), max_windows or len(self._tiles))

    def __len__(self) -> int:
        return self._num_windows

    def __getitem__(self, index: int) -> Window:  # type: ignore[override]
        """Make one window; negative indices count from the end.

        Raises:
            IndexError: the index is outside the tiles.
        """
        tile = _checked_index(index, self._num_windows) * len(self._tiles) // self._num_windows
        strand = _strand_of(self._strand, self.seed, tile)
        region, start, end = self._tiles.place(tile, seed=self.seed, epoch=0)
        region, start, end = read_on(self.regions, region, start, end, strand, self.num_bases - self._stride)
        breaks = _sentence_breaks(self._sentences, end - start, self.seed, tile)
        return self._reader.read(self.regions, region, start, end, strand, breaks)

    def __iter__(self) -> Iterator[Window]:
        return (self[index] for index in range(len(self)))


class _Reader:
    """Turns a place into a `Window`."""

    def __init__(self, genomes: list[Genome], names: list[str], alphabet: str) -> None:
        self.genomes, self._names, self._alphabet = genomes, names, alphabet

    def read(self, regions: Regions, region: int, start: int, end: int, strand: str, breaks: tuple[int, ...]) -> Window:
        number, chrom = int(regions.genomes[region]), regions.chroms[region]
        raw = self.genomes[number].fetch(chrom, start, end)
        sequence = normalise(raw, self._alphabet, where=self._names[number]).sequence
        if strand == "-":
            sequence = reverse_complement(sequence)
        return Window(Interval(chrom, start, end, strand), sequence, self._names[number], breaks)


def _strand_of(strand: str, seed: int, index: int) -> str:
    return "+-"[draw_bits(seed, index, "strand") >> 63] if strand == "both" else strand


def _sentence_breaks(sentences: tuple[int, int] | None, num_bases: int, seed: int, index: int) -> tuple[int, ...]:
    if sentences is None:
        return ()
    count = -(-num_bases // sentences[0])
    lengths = generator(seed, index, "sentences").integers(sentences[0], sentences[1] + 1, size=count)
    ends = np.cumsum(lengths)
    return (*(int(end) for end in ends[ends < num_bases]), num_bases)


def _checked_index(index: int, length: int) -> int:
    number = operator.index(index)
    place = number + length if number < 0 else number
    if not 0 <= place < length:
        raise IndexError(f"window {number} is outside the {length} windows of this data set.")
    return place


def _checked_stride(stride: int, most: int) -> int:
    if not MIN_WINDOW <= stride <= most:
        raise ValueError(f"the stride must be {MIN_WINDOW} to {most} bases, got {stride}.")
    return stride


def _check_sizes(num_bases: int, num_samples: int, start: int, sentences: tuple[int, int] | None) -> None:
    if num_bases < MIN_WINDOW:
        raise ValueError(f"a window needs at least {MIN_WINDOW} bases, got {num_bases}.")
    if num_samples < 1:
        raise ValueError(f"the number of windows must be positive, got {num_samples}.")
    if start < 0:
        raise ValueError(f"start cannot be negative, got {start}.")
    if sentences is not None and not 1 <= sentences[0] <= sentences[1]:
        raise ValueError(f"sentences are (shortest, longest) with 1 <= shortest <= longest, got {sentences}.")
