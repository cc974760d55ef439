"""Labelled tables from a simulated genome: promoters, splice donors, gene structure base by base."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from longstrand.genome.fasta import Genome
from longstrand.genome.features import Feature, SimulatedGenome
from longstrand.genome.intervals import Interval
from longstrand.genome.regions import matched_negatives
from longstrand.genome.sequence import reverse_complement
from longstrand.runtime import generator

PROMOTER_BASES = 300
PROMOTER_JITTER = 40
DONOR_BASES = 80
STRUCTURE_BASES = 512
_LOOK_ALIKE = re.compile("(?=GT[AG]AG|GT[AG]A[ACT]T|GT[AG][CGT]GT)")


@dataclass(frozen=True)
class LabelledRow:
    """One row of a table: where it comes from, its letters as read on the strand, its label."""

    interval: Interval
    sequence: str
    label: str


def promoter_rows(genome: SimulatedGenome, opened: Genome, seed: int) -> list[LabelledRow]:
    """Make promoters (label 1) and as many negatives (label 0), 300 bases each, shuffled.

    The transcription start is up to 40 bases off its usual place, so that no fixed position gives the answer. Negatives
    are the decoys of the genome, and for the rest random stretches outside genes whose GC content matches.

    Args:
        genome: with promoters and decoys.
        opened: the same genome on disk.
        seed: of jitter, negatives and order.
    """
    random = generator(seed, 0, "promoter windows")
    promoters = [_jittered(item, genome, random) for item in genome.of_kind("promoter")]
    decoys = [_inside(item, random) for item in genome.of_kind("decoy")]
    avoid = [item.interval for kind in ("gene", "promoter", "decoy") for item in genome.of_kind(kind)]
    per_chrom = {chrom: sum(item.chrom == chrom for item in decoys) for chrom in genome.contigs}
    unpaired: list[Interval] = []
    for item in (promoters[number] for number in random.permutation(len(promoters)).tolist()):
        per_chrom[item.chrom] -= 1
        if per_chrom[item.chrom] < 0:
            unpaired.append(item)
    matched = matched_negatives(unpaired, opened, seed=seed, exclude=avoid, gc_tolerance=0.03)
    labelled = [(item, "1") for item in promoters] + [(item, "0") for item in [*decoys, *matched]]
    rows = [LabelledRow(item, _read(genome, item), label) for item, label in labelled]
    return [rows[number] for number in random.permutation(len(rows)).tolist()]


def donor_rows(genome: SimulatedGenome, seed: int) -> list[LabelledRow]:
    """Make windows of 80 bases with GT at base 40: donor sites (1) and as many look-alikes (0), shuffled.

    A look-alike matches the donor consensus GTRAGT in all letters but at most one, and no intron begins there.
    """
    random = generator(seed, 0, "donor windows")
    half = DONOR_BASES // 2
    rows: list[LabelledRow] = []
    for chrom, sequence in genome.contigs.items():
        introns = [item for item in genome.of_kind("intron") if item.chrom == chrom]
        true = {(item.start if item.strand == "+" else item.end, item.strand) for item in introns}
        false: list[tuple[int, str]] = []
        for strand, text in (("+", sequence), ("-", reverse_complement(sequence))):
            places = (match.start() for match in _LOOK_ALIKE.finditer(text))
            false += [(place if strand == "+" else len(text) - place, strand) for place in places]
        candidates = sorted(set(false) - true)
        chosen = random.permutation(len(candidates))[: len(true)].tolist()
        sites = [(site, "1") for site in sorted(true)] + [(candidates[number], "0") for number in chosen]
        for (place, strand), label in sites:
            if half <= place <= len(sequence) - half:
                interval = Interval(chrom, place - half, place + half, strand)
                rows.append(LabelledRow(interval, _read(genome, interval), label))
    return [rows[number] for number in random.permutation(len(rows)).tolist()]


def structure_rows(genome: SimulatedGenome) -> list[LabelledRow]:
    """Cut every gene with its surroundings into windows of 512 bases, labelled base by base on the gene's strand.

    ``O`` outside genes, ``U`` untranslated, ``C`` coding, ``I`` intron, ``?`` in a gene on the other strand.
    """
    maps = {strand: _structure(genome, strand) for strand in "+-"}
    rows: list[LabelledRow] = []
    for gene in genome.of_kind("gene"):
        length = len(genome.contigs[gene.chrom])
        start = max(0, gene.start - 100)
        for window in range(start, max(start + 1, gene.end - STRUCTURE_BASES // 2), STRUCTURE_BASES):
            if window + STRUCTURE_BASES > length:
                break
            interval = Interval(gene.chrom, window, window + STRUCTURE_BASES, gene.strand)
            label = maps[gene.strand][gene.chrom][window : window + STRUCTURE_BASES]
            shown = label if gene.strand == "+" else label[::-1]
            rows.append(LabelledRow(interval, _read(genome, interval), shown.tobytes().decode("ascii")))
    return rows


def format_table(rows: Sequence[LabelledRow]) -> str:
    """Write ``sequence,label`` as CSV text."""
    return "sequence,label\n" + "".join(f"{row.sequence},{row.label}\n" for row in rows)


def format_intervals(rows: Sequence[LabelledRow]) -> str:
    """Write ``chrom,start,end,strand,label`` as CSV text (0-based half-open), sorted."""
    ordered = sorted(rows, key=lambda row: row.interval)
    lines = (f"{x.interval.chrom},{x.interval.start},{x.interval.end},{x.interval.strand},{x.label}\n" for x in ordered)
    return "chrom,start,end,strand,label\n" + "".join(lines)


def _jittered(item: Feature, genome: SimulatedGenome, random: np.random.Generator) -> Interval:
    shift = int(random.integers(-PROMOTER_JITTER, PROMOTER_JITTER + 1))
    start = min(max(0, item.start + shift), len(genome.contigs[item.chrom]) - PROMOTER_BASES)
    return Interval(item.chrom, start, start + PROMOTER_BASES, item.strand)


def _inside(item: Feature, random: np.random.Generator) -> Interval:
    start = item.start + int(random.integers(0, max(1, item.end - item.start - PROMOTER_BASES + 1)))
    return Interval(item.chrom, start, start + PROMOTER_BASES, item.strand)


def _read(genome: SimulatedGenome, interval: Interval) -> str:
    sequence = genome.contigs[interval.chrom][interval.start : interval.end]
    return reverse_complement(sequence) if interval.strand == "-" else sequence


def _structure(genome: SimulatedGenome, strand: str) -> dict[str, np.ndarray]:
    """Give one letter a base for each chromosome, seen from one strand; uint8 ASCII."""
    maps = {chrom: np.full(len(sequence), ord("O"), np.uint8) for chrom, sequence in genome.contigs.items()}
    letter_of = {"exon": "U", "intron": "I", "CDS": "C"}
    for kind in ("gene", "exon", "intron", "CDS"):
        for item in genome.of_kind(kind):
            letter = letter_of.get(kind, "?") if item.strand == strand else "?"
            maps[item.chrom][item.start : item.end] = ord(letter)
    return maps
