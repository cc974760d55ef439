"""The haplotypes of a person: an allele is judged among the other alleles of the haplotype that carries it."""

from __future__ import annotations

from dataclasses import dataclass

from longstrand.errors import UsageError
from longstrand.genome.fasta import Genome
from longstrand.genome.haplotypes import Haplotypes, Missing, Unphased, open_haplotypes
from longstrand.genome.variants import Variant
from longstrand.variants.options import VariantOptions
from longstrand.variants.read import Variants


@dataclass(frozen=True, eq=False)
class OwnHaplotype:
    """One haplotype of a person.

    Attributes:
        haplotypes: of the VCF that is scored.
        sample: name of the person.
        number: 1 to the ploidy.
        unphased, missing: as in `Haplotypes.window`.
    """

    haplotypes: Haplotypes
    sample: str
    number: int
    unphased: Unphased
    missing: Missing

    def status(self, variant: Variant) -> str:
        """Say whether it carries an allele, as the VCF writes it: ``ok``, or why it has no score."""
        allele = variant.start, variant.ref, variant.alt
        return self.haplotypes.status(variant.chrom, allele, self.sample, self.number, unphased=self.unphased)

    def read(self, variant: Variant, start: int, end: int) -> tuple[str, str]:
        """Read a stretch of the contig as the haplotype has it, without and with an allele that it carries.

        Raises:
            SeveralPhaseSets: it joins heterozygous calls of several phase sets.
        """
        place = variant.chrom, start, end, self.sample, self.number
        how = {"unphased": self.unphased, "missing": self.missing}
        alleles = (variant.start, variant.ref, variant.alt), None
        without, own = (self.haplotypes.window(*place, without=one, **how).sequence for one in alleles)  # type: ignore[arg-type]
        return without, own


def open_person(source: Variants, genome: Genome, options: VariantOptions) -> list[OwnHaplotype]:
    """Open the haplotypes of ``options.sample``; the highest number of the contigs, 2 as a rule.

    Raises:
        UsageError: the variants are no VCF.
        InputError: as `open_haplotypes`; there is no such sample; its calls are not phased.
    """
    if source.vcf.records is not None:
        raise UsageError("--sample takes its haplotypes from the genotypes of a phased VCF; these variants are no VCF.")
    sample, found = options.sample or "", open_haplotypes(source.vcf.path, genome, mismatch=options.mismatch)
    if options.unphased == "refuse":
        found.check_phased([sample])
    numbers = range(1, 1 + max((found.ploidy(sample, chrom) for chrom in found.contigs), default=2))
    unphased = "skip" if options.unphased == "refuse" else options.unphased
    return [OwnHaplotype(found, sample, number, unphased, options.missing) for number in numbers]
