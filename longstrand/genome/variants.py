"""Variants as values: alleles on a genome, how people write them, what can be scored, and the shortest leftmost form.

Coordinates are 0-based inside; only `parse_variant` and printing use the 1-based positions of VCF.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from longstrand.errors import InputError
from longstrand.genome.fasta import Genome
from longstrand.genome.sequence import IUPAC

Kind = Literal["snv", "mnv", "insertion", "deletion", "delins"]
KINDS: tuple[Kind, ...] = ("snv", "mnv", "insertion", "deletion", "delins")
SKIPPED = {
    "no_alt": "the record names no alternate allele", "star": "the allele is '*': another record deletes this site",
    "symbolic": "the allele is a symbol such as <DEL>, not a sequence", "breakend": "the allele is a breakend",
    "unknown_contig": "the genome has no contig of this name",
    "outside_contig": "the position or the end of REF lies outside the contig",
    "ref_mismatch": "REF is not what the genome has there",
    "ref_ambiguous": "REF or the genome has a letter other than A, C, G, T there",
    "alt_ambiguous": "ALT has a letter other than A, C, G, T", "alt_equals_ref": "ALT is REF",
}  # fmt: skip
"""Why an allele is not scored, whatever the score."""
EXAMPLE = "'chr1:12345:A:G', 'chr1-12345-A-G' or 'chr1:12345 A>G'"
_BASES = frozenset("ACGT")
_WRITTEN = (
    re.compile(r"(\S+):([0-9,]+):([A-Za-z]+):([A-Za-z]+)"),
    re.compile(r"(\S+)-([0-9,]+)-([A-Za-z]+)-([A-Za-z]+)"),
    re.compile(r"(\S+):([0-9,]+)\s*([A-Za-z]+)>([A-Za-z]+)"),
)
_STEP = 64


@dataclass(frozen=True, slots=True, order=True)
class Variant:
    """One alternate allele of one place, in upper case.

    Attributes:
        chrom: contig.
        start: 0-based position of the first base of ``ref``; with an empty ``ref``, the base before which ``alt`` goes.
        ref: reference bases that are replaced; may be empty in the shortest form.
        alt: what replaces them; may be empty in the shortest form.
    """

    chrom: str
    start: int
    ref: str
    alt: str

    @property
    def end(self) -> int:
        """Position after the last replaced base."""
        return self.start + len(self.ref)

    @property
    def kind(self) -> Kind:
        """What kind of change the alleles are as they stand; see `shortest` for padded ones."""
        if len(self.ref) == len(self.alt):
            return "snv" if len(self.ref) == 1 else "mnv"
        if self.ref and self.alt and not (self.ref.startswith(self.alt) or self.alt.startswith(self.ref)):
            return "delins"
        return "insertion" if len(self.alt) > len(self.ref) else "deletion"

    def __str__(self) -> str:
        return f"{self.chrom}:{self.start + 1}:{self.ref or '-'}:{self.alt or '-'}"


def common_prefix(one: str, other: str) -> int:
    """Count the letters in which two texts begin alike."""
    return next((i for i, (left, right) in enumerate(zip(one, other)) if left != right), min(len(one), len(other)))


def parse_variant(text: str) -> Variant:
    """Read a variant as people write it: ``chr1:12345:A:G``, ``chr1-12345-A-G`` or ``chr1:12345 A>G`` (1-based).

    Raises:
        InputError: it is written otherwise; rsIDs and HGVS names need a VCF that holds them.
    """
    for pattern in _WRITTEN:
        if found := pattern.fullmatch(text.strip()):
            chrom, position, ref, alt = found.groups()
            return Variant(chrom, int(position.replace(",", "")) - 1, ref.upper(), alt.upper())
    hint = ""
    if re.fullmatch(r"rs\d+|\S+:[gcnpmr]\.\S+", text.strip()):
        hint = "; names such as this one are looked up in a VCF that holds them in ID or INFO (--look-up)"
    raise InputError(f"'{text}' is no variant; write it as {EXAMPLE}{hint}.")


def judge(genome: Genome, chrom: str, start: int, ref: str, alt: str) -> str | None:
    """Say why an allele of a VCF cannot be scored, a key of `SKIPPED`, or None if it can.

    Args:
        genome: what ``chrom`` belongs to; letters are compared in upper case.
        chrom: name in the genome.
        start: 0-based; -1 is the telomere of VCF.
        ref: as written.
        alt: as written; ``.`` or empty is no allele.
    """
    if alt in ("", "."):
        return "no_alt"
    if alt == "*":
        return "star"
    if "<" in alt:
        return "symbolic"
    if "[" in alt or "]" in alt or "." in alt:
        return "breakend"
    if chrom not in genome.contigs:
        return "unknown_contig"
    if start < 0 or start + len(ref) > genome.contigs[chrom]:
        return "outside_contig"
    ref, alt = ref.upper(), alt.upper()
    found = genome.fetch(chrom, start, start + len(ref)).upper()
    if found != ref or not _BASES.issuperset(ref):
        pairs = zip(ref, found)
        fits = all(set(IUPAC.get(letter, "ACGT")) & set(IUPAC[there]) for letter, there in pairs)
        return "ref_ambiguous" if fits else "ref_mismatch"
    if not _BASES.issuperset(alt):
        return "alt_ambiguous"
    return "alt_equals_ref" if alt == ref else None


def shortest(variant: Variant, fetch: Callable[[str, int, int], str]) -> Variant:
    """Give the shortest form, leftmost of all spellings: common suffix, then prefix taken off, then moved left.

    All spellings of a change give the same form. It may have an empty allele, and it never runs below base 0.

    Args:
        variant: alleles of A, C, G, T that differ.
        fetch: ``fetch(chrom, start, end)``, such as `Genome.fetch`.
    """
    start, ref, alt = variant.start, variant.ref, variant.alt
    same = common_prefix(ref[::-1], alt[::-1])
    ref, alt = ref[: len(ref) - same], alt[: len(alt) - same]
    same = common_prefix(ref, alt)
    start, ref, alt = start + same, ref[same:], alt[same:]
    if ref and alt:
        return Variant(variant.chrom, start, ref, alt)
    unit, moved = ref or alt, 0
    while start - moved > 0:
        low = max(0, start - moved - _STEP)
        left = fetch(variant.chrom, low, start - moved).upper()[::-1]
        same = next((i for i, base in enumerate(left) if base != unit[-1 - (moved + i) % len(unit)]), len(left))
        moved += same
        if same < len(left):
            break
    turn = moved % len(unit)
    unit = unit[len(unit) - turn :] + unit[: len(unit) - turn]
    return Variant(variant.chrom, start - moved, unit if ref else "", "" if ref else unit)


def anchored(variant: Variant, fetch: Callable[[str, int, int], str]) -> Variant:
    """Give an empty allele the base before it, as VCF wants; at the start of a contig, the base after."""
    if variant.ref and variant.alt:
        return variant
    if variant.start > 0:
        base = fetch(variant.chrom, variant.start - 1, variant.start).upper()
        return Variant(variant.chrom, variant.start - 1, base + variant.ref, base + variant.alt)
    base = fetch(variant.chrom, variant.end, variant.end + 1).upper()
    return Variant(variant.chrom, variant.start, variant.ref + base, variant.alt + base)
