"""A simulated genome with planted, annotated signals, for demos and tests without real data.

It has genes on both strands (codon bias, introns GT..AG, polyadenylation signal) and, between them, a made-up grammar:
an enhancer is a cluster of three pairs of motifs in one order, orientation and spacing. Decoys are clusters of the same
motifs, each pair in another order, orientation or spacing, and single motifs lie about; so no word says what is an
enhancer, only the arrangement.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from longstrand.errors import InputError
from longstrand.genome.features import Feature, SimulatedGenome, format_gff3, write_fasta
from longstrand.genome.intervals import Interval
from longstrand.genome.sequence import reverse_complement
from longstrand.runtime import generator, write_atomically, write_json

MOTIFS = {"ETS": "CGGAAGTG", "TBOX": "TAGGTGTG"}
"""The two motifs of a pair in their order, in the spirit of well-known ones."""

GAP = 8
"""Bases between the two motifs of a pair."""

PAIRS = 3
FIDELITY = 0.97
"""Chance that a base of a planted motif is as written; otherwise it is a random one."""

PLANTED = {"enhancer": 0.53, "decoy": 0.41, "single": 0.06}
"""Shares of what is planted between genes."""

ROW_BASES = 170
SMALLEST_CONTIG = 10_000
AMINO_ACIDS = "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG"
"""Amino acid of each of `CODONS` in the standard code; ``*`` is a stop."""
_LETTERS = np.frombuffer(b"AAACCGGTTT", np.uint8)
CODONS = tuple(a + b + c for a in "TCAG" for b in "TCAG" for c in "TCAG")


@dataclass(frozen=True)
class PlantedBlock:
    """A stretch of sequence and its features, which count from the start of the stretch (their chrom is empty)."""

    sequence: str
    features: tuple[Feature, ...] = ()

    def flipped(self) -> PlantedBlock:
        """Return the same stretch on the other strand."""
        size, other = len(self.sequence), {"+": "-", "-": "+"}
        turned = (
            Feature("", size - x.end, size - x.start, other[x.strand], x.kind, x.name, x.parent, x.phase, x.note)
            for x in self.features
        )  # `dataclasses.replace` takes three times as long
        return PlantedBlock(reverse_complement(self.sequence), tuple(turned))


def join_blocks(blocks: Sequence[PlantedBlock], chrom: str = "", parent: str = "") -> PlantedBlock:
    """Put blocks one after the other, shifting their features, on a chromosome or as parts of another feature."""
    features, offset = list[Feature](), 0
    for block in blocks:
        features += [
            Feature(
                chrom, x.start + offset, x.end + offset, x.strand, x.kind, x.name, parent or x.parent, x.phase, x.note
            )
            for x in block.features
        ]
        offset += len(block.sequence)
    return PlantedBlock("".join(block.sequence for block in blocks), tuple(features))


class BlockMaker:
    """Makes the blocks of one genome from one stream of random numbers."""

    def __init__(self, random: np.random.Generator) -> None:
        self.random, self.num_genes, self.num_planted = random, 0, 0
        preferred = {
            amino: random.choice([c for c, a in zip(CODONS, AMINO_ACIDS) if a == amino]) for amino in AMINO_ACIDS
        }
        weights = np.array(
            [0.0 if a == "*" else 6.0 if preferred[a] == c else 1.0 for c, a in zip(CODONS, AMINO_ACIDS)]
        )
        self.codon_shares = weights / weights.sum()

    def pick(self, options: Sequence[str], shares: Sequence[float] | None = None) -> str:
        """Draw what `Generator.choice` would draw, in a tenth of its time."""
        if shares is None:
            return options[int(self.random.integers(len(options)))]
        sums = list(accumulate(shares))
        return options[bisect_right([part / sums[-1] for part in sums], self.random.random())]

    def background(self, low: int, high: int | None = None) -> str:
        """Draw ``low`` to ``high`` (included) bases, 40 % of them G or C."""
        size = low if high is None else int(self.random.integers(low, high + 1))
        return _LETTERS[self.random.integers(len(_LETTERS), size=size)].tobytes().decode("ascii")

    def motif(self, name: str, *, turned: bool = False) -> PlantedBlock:
        """Draw one instance of a motif."""
        text = MOTIFS[name]
        for place in np.flatnonzero(self.random.random(len(text)) >= FIDELITY).tolist():
            text = f"{text[:place]}{'ACGT'[self.random.integers(4)]}{text[place + 1 :]}"
        block = PlantedBlock(text, (Feature("", 0, len(text), "+", "TF_binding_site", note=name),))
        return block.flipped() if turned else block

    def planted(self, kind: str) -> PlantedBlock:
        """Make an enhancer or a decoy (clusters of pairs), or a single motif."""
        if kind == "single":
            return self.motif(self.pick(list(MOTIFS)))
        self.num_planted += 1
        blocks = [self.pair(kind == "decoy")]
        for _ in range(PAIRS - 1):
            blocks += [PlantedBlock(self.background(8, 18)), self.pair(kind == "decoy")]
        name = f"{kind}{self.num_planted}"
        block = join_blocks(blocks, parent=name)
        return PlantedBlock(block.sequence, (Feature("", 0, len(block.sequence), "+", kind, name), *block.features))

    def pair(self, wrong: bool) -> PlantedBlock:
        """Make the two motifs in their arrangement, or in another spacing, order or orientation."""
        (first, second), gap, turned = MOTIFS, GAP, (False, False)
        change = self.pick(["spacing", "order", "orientation"], (0.5, 0.2, 0.3)) if wrong else ""
        if change == "spacing":
            others = [size for size in range(2 * GAP + 3) if abs(size - GAP) > 1]
            gap = others[int(self.random.integers(len(others)))]
        elif change == "order":
            first, second = second, first
        elif change == "orientation":
            turned = (False, True) if self.random.random() < 0.5 else (True, False)
        middle = PlantedBlock(self.background(gap))
        return join_blocks([self.motif(first, turned=turned[0]), middle, self.motif(second, turned=turned[1])])

    def between_genes(self) -> list[PlantedBlock]:
        """Make a stretch with planted clusters and motifs, at least 40 bases apart."""
        blocks = [PlantedBlock(self.background(100, 200))]
        for _ in range(int(self.random.integers(10, 18))):
            block = self.planted(self.pick(list(PLANTED), list(PLANTED.values())))
            blocks += [block.flipped() if self.random.random() < 0.5 else block, PlantedBlock(self.background(40, 80))]
        return blocks

    def gene(self) -> PlantedBlock:
        """Make a gene: leader, CDS cut by introns, trailer with the polyadenylation signal."""
        self.num_genes += 1
        gene, transcript = f"gene{self.num_genes}", f"gene{self.num_genes}.t1"
        codons = self.random.choice(CODONS, size=int(self.random.integers(80, 220)), p=self.codon_shares)
        coding = "ATG" + "".join(codons) + self.pick(["TAA", "TGA", "TAG"])
        cuts = sorted(
            {int(x) for x in self.random.integers(60, len(coding) - 60, size=int(self.random.integers(0, 4)))}
        )
        cuts = [cut for before, cut in pairwise([0, *cuts]) if cut - before > 40]
        leader, trailer = self.background(60, 120) + "GCCACC", self.background(80, 140) + "AATAAA" + self.background(20)
        text, features, exon = leader, list[Feature](), 0
        for number, (start, end) in enumerate(pairwise([0, *cuts, len(coding)]), 1):
            place = len(text)
            features.append(Feature("", place, place + end - start, "+", "CDS", f"{gene}.cds", transcript, -start % 3))
            text += coding[start:end]
            if end < len(coding):
                intron = self.intron()
                features.append(Feature("", exon, len(text), "+", "exon", f"{gene}.exon{number}", transcript))
                exon = len(text) + len(intron)
                features.append(Feature("", len(text), exon, "+", "intron", f"{gene}.intron{number}", transcript))
                text += intron
        text += trailer
        features.append(Feature("", exon, len(text), "+", "exon", f"{gene}.exon{len(cuts) + 1}", transcript))
        whole = (Feature("", 0, len(text), "+", "gene", gene), Feature("", 0, len(text), "+", "mRNA", transcript, gene))
        return PlantedBlock(text, (*whole, *features))

    def intron(self) -> str:
        """Make an intron: donor, filler, branch point, polypyrimidine tract, acceptor."""
        tract = "".join(self.random.choice(list("CT"), size=int(self.random.integers(12, 20))))
        donor = "GT" + self.pick(["AAGT", "GAGT"])
        return donor + self.background(40, 160) + "TACTAAC" + self.background(2, 7) + tract + "CAG"


def simulate_genome(*, seed: int, num_bases: int = 2_000_000, num_contigs: int = 5) -> SimulatedGenome:
    """Make a genome.

    Args:
        seed: the same seed and sizes give the same genome.
        num_bases: over all chromosomes, exactly.
        num_contigs: chromosomes, ``chr1`` and so on.

    Raises:
        ValueError: the sizes do not fit: at least 10,000 bases a chromosome.
    """
    maker = BlockMaker(generator(seed, 0, "simulated genome"))
    contigs, features = dict[str, str](), list[Feature]()
    for number, length in enumerate(contig_lengths(num_bases, num_contigs), 1):
        blocks, filled = list[PlantedBlock](), 0
        while filled < length - 4_000:
            gene = maker.gene()
            new = [*maker.between_genes(), gene if maker.random.random() < 0.5 else gene.flipped()]
            filled += sum(len(block.sequence) for block in new)
            blocks += new
        block = join_blocks([*blocks, PlantedBlock(maker.background(length - filled))], f"chr{number}")
        contigs[f"chr{number}"] = block.sequence
        features += block.features
    return SimulatedGenome("simulated", contigs, sorted(features, key=attrgetter(*Feature.__slots__)))


def contig_lengths(num_bases: int, num_contigs: int) -> list[int]:
    """Share bases among chromosomes: from three on, the last gets a quarter, the one before it a tenth.

    Raises:
        ValueError: a chromosome would have fewer than 10,000 bases.
    """
    if num_contigs < 3:
        lengths = [num_bases // max(1, num_contigs)] * num_contigs
    else:
        each = int(0.65 * num_bases) // (num_contigs - 2)
        lengths = [*[each] * (num_contigs - 2), num_bases // 10, num_bases // 4]
    if not lengths or min(lengths) < SMALLEST_CONTIG:
        raise ValueError(f"{num_bases} bases do not fill {num_contigs} chromosomes of {SMALLEST_CONTIG} bases.")
    lengths[0] += num_bases - sum(lengths)
    return lengths


def write_simulation(
    folder: Path,
    *,
    seed: int = 0,
    num_bases: int = 2_000_000,
    num_contigs: int = 5,
    num_rows: Sequence[int] = (150, 50, 2000),
) -> dict[str, Any]:
    """Simulate a genome and write sequence, annotation, and labelled tables of enhancers against decoys.

    The folder holds ``genome.fa``, ``genome.gff3`` (everything that was planted), ``labels/enhancers`` with
    ``train.csv``, ``dev.csv``, ``test.csv`` (``sequence,label``) and ``intervals.csv``, and what is returned as
    ``simulation.json``. The tables are split by chromosome: the last is the test, the one before it the dev set.

    Args:
        folder: where everything goes.
        seed: of the genome.
        num_bases: over all chromosomes.
        num_contigs: at least three.
        num_rows: labelled rows of train, dev and test, half of them enhancers; fewer where the genome has fewer.

    Returns:
        Settings, ``valid_chroms`` and ``test_chroms`` (hold both out of pre-training), number of each kind planted, and
        rows of each table.

    Raises:
        InputError: the folder cannot be written.
        ValueError: fewer than three chromosomes, or sizes that do not fit.
    """
    if num_contigs < 3:
        raise ValueError(f"labelled tables need at least 3 chromosomes (train, dev, test), got {num_contigs}.")
    genome, folder = simulate_genome(seed=seed, num_bases=num_bases, num_contigs=num_contigs), Path(folder)
    chroms, enhancers = list(genome.contigs), folder / "labels" / "enhancers"
    try:
        enhancers.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: the folder cannot be written ({error.strerror}).") from error
    write_fasta(folder / "genome.fa", genome.contigs)
    lengths = {name: len(text) for name, text in genome.contigs.items()}
    write_atomically(folder / "genome.gff3", format_gff3(genome.features, lengths))
    sizes, places = dict[str, int](), list[str]()
    for name, wanted, own in zip(("train", "dev", "test"), num_rows, (chroms[:-2], chroms[-2:-1], chroms[-1:])):
        rows = enhancer_rows(genome, own, wanted, seed)
        lines = (f"{genome.sequence_of(place)},{label}\n" for place, label in rows)
        write_atomically(enhancers / f"{name}.csv", "sequence,label\n" + "".join(lines))
        sizes[name] = len(rows)
        places += [f"{x.chrom},{x.start},{x.end},{x.strand},{label}\n" for x, label in sorted(rows)]
    write_atomically(enhancers / "intervals.csv", "chrom,start,end,strand,label\n" + "".join(places))
    settings = {"seed": seed, "num_bases": num_bases, "num_contigs": num_contigs}
    splits = {"valid_chroms": chroms[-2:-1], "test_chroms": chroms[-1:]}
    made = {**settings, **splits, "planted": dict(Counter(item.kind for item in genome.features)), "rows": sizes}
    write_json(folder / "simulation.json", made)
    readme = Path(__file__).with_name("simulation_readme.txt").read_text()
    write_atomically(folder / "README.txt", readme.format(dev=chroms[-2], test=chroms[-1], gap=GAP, **settings))
    return made


def enhancer_rows(
    genome: SimulatedGenome, chroms: Sequence[str], num_rows: int, seed: int
) -> list[tuple[Interval, str]]:
    """Choose windows of 80 bases around enhancers and as many decoys, on random strands, shuffled.

    The centre of a window is up to 8 bases off that of the cluster.
    """
    random = generator(seed, 0, f"enhancer rows {tuple(chroms)}")
    found = {kind: [x for x in genome.of_kind(kind) if x.chrom in chroms] for kind in ("enhancer", "decoy")}
    each = min(num_rows // 2, *(len(items) for items in found.values()))
    rows = list[tuple[Interval, str]]()
    for kind, items in found.items():
        for number in random.permutation(len(items))[:each]:
            item = items[number]
            start = (item.start + item.end - ROW_BASES) // 2 + int(random.integers(-8, 9))
            rows.append((Interval(item.chrom, start, start + ROW_BASES, str(random.choice(["+", "-"]))), kind))
    return [rows[number] for number in random.permutation(len(rows))]
