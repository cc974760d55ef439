"""People's DNA as training data: each window of the reference as one haplotype of one person has it.

Labels go with their bases: a deleted base takes its label with it, an inserted one has none (`carry_bases`,
`carry_bins`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from longstrand.data.permutation import draw_below
from longstrand.genome.fasta import Genome
from longstrand.genome.haplotypes import Haplotypes, HaplotypeWindow, Ints, Mismatch, Missing, Unphased, open_haplotypes
from longstrand.genome.intervals import Interval
from longstrand.genome.sequence import normalise, reverse_complement
from longstrand.runtime import IGNORED_LABEL

Weighting = Literal["individuals", "distinct"]


@dataclass
class Cohort:
    """Draws a haplotype for each window; which one depends on the seed and the number of the window alone.

    A window keeps to its place on the reference, so what is held out there is held out in all people; it is as much
    longer or shorter as its insertions and deletions make it.

    Attributes:
        haplotypes: of a phased VCF.
        weighting: ``individuals``: every haplotype of every person is as likely (Nucleotide Transformer); ``distinct``:
            every different sequence of the window is (most people share few).
        unphased: as in `Haplotypes.window`; ``refuse`` looks at all people when this is made.
        missing: as there.
        min_frequency: rarer alleles among the people are left out.

    Raises:
        InputError: somebody's calls are not phased.
    """

    haplotypes: Haplotypes
    weighting: Weighting = "individuals"
    unphased: Unphased = "refuse"
    missing: Missing = "ref"
    min_frequency: float = 0.0
    _people: dict[str, list[tuple[str, int]]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.unphased == "refuse":
            self.haplotypes.check_phased()
            self.unphased = "skip"

    @classmethod
    def open(cls, path: Path, genome: Genome, *, mismatch: Mismatch = "error", **how: Any) -> Cohort:
        """Open the haplotypes of a VCF, indexed by the first process that comes; ``how`` are the other attributes."""
        return cls(open_haplotypes(path, genome, mismatch=mismatch), **how)

    def read_row(self, place: Interval, *, seed: int, index: int, alphabet: str | None = None) -> tuple[str, Ints]:
        """Read the interval of a labelled row as the haplotype drawn for ``index`` has it, on the strand of the row.

        Returns:
            The letters (normalised to ``alphabet``, or as they are), and for each the base of the row that it is, -1
            for an inserted one.
        """
        found = self.read(place.chrom, place.start, place.end, seed=seed, index=index)
        at = np.where(found.reference_positions < 0, -1, found.reference_positions - place.start)
        text = found.sequence if alphabet is None else normalise(found.sequence, alphabet, where=str(place)).sequence
        if place.strand == "+":
            return text, at
        return reverse_complement(text), np.where(at < 0, -1, place.length - 1 - at)[::-1]

    def read(self, chrom: str, start: int, end: int, *, seed: int, index: int) -> HaplotypeWindow:
        """Read bases ``start`` to ``end - 1`` as the haplotype drawn by ``seed`` and ``index`` has them."""
        if chrom not in self._people:
            found = self.haplotypes
            self._people[chrom] = [
                (name, number + 1) for name in found.samples for number in range(found.ploidy(name, chrom))
            ]
        people = self._people[chrom]
        if self.weighting == "distinct":
            people = self.haplotypes.distinct(chrom, start, end) or people
        sample, number = people[draw_below(seed, index, "haplotype", bound=len(people))]
        return self.haplotypes.window(
            chrom, start, end, sample, number,
            unphased=self.unphased, missing=self.missing, seed=seed, min_frequency=self.min_frequency,
        )  # fmt: skip


def carry_bases(labels: np.ndarray, at: Ints) -> np.ndarray:
    """Give the labels ``(row bases,)`` of a row to the letters of a haplotype; inserted ones have none (-100)."""
    return np.where(at < 0, IGNORED_LABEL, labels[at])


def carry_bins(values: np.ndarray, at: Ints, bin_bases: int) -> np.ndarray:
    """Give the values of bins to the whole bins of a haplotype, as many as the row has at most.

    A bin has the mean of the values of the bins that its bases come from; inserted bases do not count, and a bin of
    which fewer than half of the bases have a value has none.

    Args:
        values: float32 ``(bins, columns)``, NaN where missing.
        at: base of the row of each letter, -1 for inserted ones.
        bin_bases: bases of a bin.

    Returns:
        float32 ``(bins of the haplotype, columns)``.
    """
    number = min(len(values), len(at) // bin_bases)
    at = at[: number * bin_bases]
    bases = np.where(at[:, None] < 0, np.nan, values[at // bin_bases]).reshape(number, bin_bases, values.shape[1])
    known = ~np.isnan(bases)
    count = known.sum(axis=1)
    mean = np.where(known, bases, 0.0).sum(axis=1) / np.maximum(count, 1)
    return np.where(2 * count >= bin_bases, mean, np.nan).astype(np.float32)
