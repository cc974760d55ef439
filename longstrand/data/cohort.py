"""People's DNA as training data: each window of the reference as one haplotype of one person has it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from longstrand.data.permutation import draw_below
from longstrand.genome.haplotypes import Haplotypes, HaplotypeWindow, Missing, Unphased

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
