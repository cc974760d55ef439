"""Simulated genomes with planted, annotated signals, for demos and tests without real data.

A genome has genes on both strands with promoters of three grammars, codon bias and three-base periodicity, introns
GT..AG with branch point and polypyrimidine tract, CpG islands with and without promoters, families of diverged repeats,
microsatellites, runs of N, stray motifs and decoys (the motifs of a promoter in the wrong order). A second species is a
diverged, rearranged copy whose annotation is exact.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from longstrand.demo.diverge import Divergence, diverge
from longstrand.demo.labels import (
    donor_rows,
    format_intervals,
    format_table,
    promoter_rows,
    structure_rows,
)
from longstrand.demo.loci import Block, LocusMaker, join_blocks
from longstrand.demo.signals import Letters
from longstrand.errors import InputError
from longstrand.genome.fasta import Genome
from longstrand.genome.features import Feature, SimulatedGenome, format_bed, format_gff3, write_fasta
from longstrand.runtime import generator, write_atomically, write_json

SPECIES_NAMES = ("species_a", "species_b", "species_c", "species_d", "species_e", "species_f")
SMALLEST_CONTIG = 10_000
_LARGEST_LOCUS = 8_000


@dataclass(frozen=True)
class Simulation:
    """Where `write_simulation` put everything.

    Attributes:
        folder: holds all of it, with a ``README.txt`` and a ``simulation.json``.
        fastas: one FASTA file for each species, repeats in lower case.
        gff3s: one annotation for each species.
        promoters_bed: promoters of the first species.
        promoters: folder with ``train.csv``, ``dev.csv``, ``test.csv`` (``sequence,label``) and ``intervals.csv``.
        splice_donors: folder of the same three tables for donor sites.
        gene_structure: folder of the same three tables, with one letter a base as label.
        valid_chroms: chromosomes of the first species that the dev tables come from; hold them out of pre-training.
        test_chroms: those of the test tables.
    """

    folder: Path
    fastas: list[Path]
    gff3s: list[Path]
    promoters_bed: Path
    promoters: Path
    splice_donors: Path
    gene_structure: Path
    valid_chroms: list[str]
    test_chroms: list[str]


def simulate_genome(
    *,
    seed: int,
    num_bases: int = 1_500_000,
    num_contigs: int = 5,
    species: int = 2,
    divergence: Divergence | None = None,
) -> list[SimulatedGenome]:
    """Make a family of related genomes.

    Args:
        seed: the same seed and sizes give the same genomes.
        num_bases: of the first species, exactly; the others differ by their indels.
        num_contigs: chromosomes (``chr1``, ... in the first species, ``b1``, ... in the second), the last two being the
            smallest: 1/8 of the genome each if there are at least four.
        species: genomes to make; every further one diverges from the first.
        divergence: distance of the further species from the first.

    Raises:
        ValueError: the sizes do not fit: at least 10,000 bases a chromosome, one to six species.
    """
    lengths = contig_lengths(num_bases, num_contigs)
    if not 1 <= species <= len(SPECIES_NAMES):
        raise ValueError(f"species is a number from 1 to {len(SPECIES_NAMES)}, got {species}.")
    maker = LocusMaker(num_bases, generator(seed, 0, "simulated genome"))
    blocks = {f"chr{number + 1}": _fill_contig(maker, length) for number, length in enumerate(lengths)}
    contigs = {name: block.sequence for name, block in blocks.items()}
    features = sorted(replace(x, chrom=name) for name, block in blocks.items() for x in block.features)
    genomes = [_to_text(SPECIES_NAMES[0], contigs, features)]
    for number in range(1, species):
        letter = SPECIES_NAMES[number][-1]
        names = [f"{letter}{contig + 1}" for contig in range(num_contigs)]
        random = generator(seed, number, "diverged genome")
        others, lifted = diverge(contigs, features, random=random, names=names, divergence=divergence)
        genomes.append(_to_text(SPECIES_NAMES[number], others, lifted))
    return genomes


def contig_lengths(num_bases: int, num_contigs: int) -> list[int]:
    """Share bases among chromosomes: from four on, the last two get an eighth each; sums exactly to ``num_bases``.

    Raises:
        ValueError: a chromosome would have fewer than 10,000 bases.
    """
    if num_contigs < 1 or num_bases // (max(num_contigs, 8) if num_contigs >= 4 else num_contigs) < SMALLEST_CONTIG:
        raise ValueError(
            f"{num_bases} bases do not fill {num_contigs} chromosomes; give at least {SMALLEST_CONTIG} for each "
            f"({8 * SMALLEST_CONTIG} from four chromosomes on)."
        )
    if num_contigs < 4:
        lengths = [num_bases // num_contigs] * num_contigs
    else:
        weights = np.linspace(1.3, 0.7, num_contigs - 2)
        lengths = [int(0.75 * num_bases * weight / weights.sum()) for weight in weights] + [num_bases // 8] * 2
    lengths[0] += num_bases - sum(lengths)
    return lengths


def write_simulation(
    folder: Path,
    *,
    seed: int = 0,
    num_bases: int = 1_500_000,
    num_contigs: int = 5,
    species: int = 2,
    divergence: Divergence | None = None,
) -> Simulation:
    """Simulate genomes and write sequences, annotation and labelled tables for three tasks.

    The labelled tables come from the first species and are split by chromosome: the last is the test, the one before
    it the dev set. Arguments as for `simulate_genome`.

    Raises:
        InputError: the folder cannot be written.
        ValueError: fewer than three chromosomes, or sizes that do not fit.
    """
    if num_contigs < 3:
        raise ValueError(f"labelled tables need at least 3 chromosomes (train, dev, test), got {num_contigs}.")
    genomes = simulate_genome(
        seed=seed, num_bases=num_bases, num_contigs=num_contigs, species=species, divergence=divergence
    )
    folder = Path(folder)
    labels = [folder / "labels" / name for name in ("promoters", "splice_donors", "gene_structure")]
    try:
        for path in labels:
            path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: the folder cannot be written ({error.strerror}).") from error
    for genome in genomes:
        _write_genome(folder, genome)
    chroms = list(genomes[0].contigs)
    paths = Simulation(
        folder=folder,
        fastas=[folder / f"{genome.name}.fa" for genome in genomes],
        gff3s=[folder / f"{genome.name}.gff3" for genome in genomes],
        promoters_bed=folder / f"{genomes[0].name}.promoters.bed",
        promoters=labels[0],
        splice_donors=labels[1],
        gene_structure=labels[2],
        valid_chroms=chroms[-2:-1],
        test_chroms=chroms[-1:],
    )
    sizes = _write_labels(paths, genomes[0], seed)
    settings = {"seed": seed, "num_bases": num_bases, "num_contigs": num_contigs, "species": species}
    planted = {genome.name: dict(Counter(item.kind for item in genome.features)) for genome in genomes}
    splits = {"valid_chroms": paths.valid_chroms, "test_chroms": paths.test_chroms}
    record = {**settings, "divergence": asdict(divergence or Divergence()), **splits, "planted": planted, "rows": sizes}
    write_json(folder / "simulation.json", record)
    write_atomically(
        folder / "README.txt", _README.format(dev=paths.valid_chroms[0], test=paths.test_chroms[0], **settings)
    )
    return paths


_README = """Simulated genomes with planted, annotated signals (seed {seed}, {num_bases} bases, {species} species).
Nothing here is real: use it to try the tools and to test methods whose answer must be known.

species_*.fa        sequences; dispersed repeats are in lower case, gaps are N
species_*.gff3      everything that was planted: genes, promoters and motifs, introns, CpG islands, repeats, decoys
*.promoters.bed     promoters of the first species (250 bases before to 50 after the transcription start)
labels/promoters       300 bases, 1 = promoter, 0 = background of like GC, or a promoter's motifs in the wrong order
labels/splice_donors   80 bases around GT, 1 = an intron begins at base 40, 0 = a look-alike
labels/gene_structure  512 bases, one letter a base: O outside, U untranslated, C coding, I intron, ? other strand
simulation.json     settings, splits, counts

Tables are split by chromosome: dev is {dev}, test is {test}, everything else is train. Leave both out of pre-training.
The other species share ancestors with all chromosomes of the first one, so pre-training on them sees relatives of the
test sequences (without labels).
"""


def _write_genome(folder: Path, genome: SimulatedGenome) -> None:
    masked = {chrom: bytearray(sequence, "ascii") for chrom, sequence in genome.contigs.items()}
    for item in genome.features:
        if item.kind in ("dispersed_repeat", "microsatellite"):
            masked[item.chrom][item.start : item.end] = masked[item.chrom][item.start : item.end].lower()
    write_fasta(folder / f"{genome.name}.fa", {chrom: text.decode("ascii") for chrom, text in masked.items()})
    lengths = {chrom: len(sequence) for chrom, sequence in genome.contigs.items()}
    write_atomically(folder / f"{genome.name}.gff3", format_gff3(genome.features, lengths))
    write_atomically(folder / f"{genome.name}.promoters.bed", format_bed(genome.of_kind("promoter")))


def _write_labels(paths: Simulation, genome: SimulatedGenome, seed: int) -> dict[str, dict[str, int]]:
    """Write the tables of the three tasks and count their rows."""
    opened = Genome(paths.fastas[0])
    tasks = {
        paths.promoters: promoter_rows(genome, opened, seed),
        paths.splice_donors: donor_rows(genome, seed),
        paths.gene_structure: structure_rows(genome),
    }
    split_of = dict.fromkeys(genome.contigs, "train")
    split_of |= dict.fromkeys(paths.valid_chroms, "dev") | dict.fromkeys(paths.test_chroms, "test")
    sizes: dict[str, dict[str, int]] = {}
    for folder, rows in tasks.items():
        for split in ("train", "dev", "test"):
            chosen = [row for row in rows if split_of[row.interval.chrom] == split]
            write_atomically(folder / f"{split}.csv", format_table(chosen))
            sizes.setdefault(folder.name, {})[split] = len(chosen)
    write_atomically(paths.promoters / "intervals.csv", format_intervals(tasks[paths.promoters]))
    return sizes


def _fill_contig(maker: LocusMaker, length: int) -> Block:
    """Line up loci until the chromosome is full; the rest is plain background."""
    random = maker.random
    blocks: list[Block] = []
    filled = 0
    next_gap = int(random.integers(length // 4, length // 2))
    while length - filled > _LARGEST_LOCUS or not blocks:
        new = [maker.intergenic()]
        if filled > next_gap:
            new += [maker.gap(), maker.intergenic()]
            next_gap += int(random.integers(length // 4, length // 2))
        if random.random() < 0.7:
            new += [maker.repeat(), maker.intergenic()]
        if random.random() < 0.5:
            new += [maker.decoy(), maker.intergenic()]
        if random.random() < 0.15:
            new += [maker.orphan_island(), maker.intergenic()]
        new.append(maker.gene())
        new = [block.flipped() if random.random() < 0.5 else block for block in new]
        blocks += new
        filled += sum(len(block.sequence) for block in new)
    blocks.append(Block(maker.plain.take(length - filled), []))
    return join_blocks(blocks)


def _to_text(name: str, contigs: dict[str, Letters], features: list[Feature]) -> SimulatedGenome:
    texts = {chrom: sequence.tobytes().decode("ascii") for chrom, sequence in contigs.items()}
    return SimulatedGenome(name, texts, features)
