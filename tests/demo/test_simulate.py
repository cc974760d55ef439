"""The simulated genome: what is planted is where the annotation says, and no single word gives the answer away."""

from __future__ import annotations

import csv
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from longstrand.baselines.kmer import kmer_counts
from longstrand.demo.simulate import (
    AMINO_ACIDS,
    CODONS,
    GAP,
    MOTIFS,
    PAIRS,
    ROW_BASES,
    contig_lengths,
    simulate_genome,
    write_simulation,
)
from longstrand.errors import InputError
from longstrand.genome.annotation import read_annotation
from longstrand.genome.fasta import Genome
from longstrand.genome.features import Feature, SimulatedGenome
from longstrand.genome.sequence import gc_fraction, reverse_complement

CODE = dict(zip(CODONS, AMINO_ACIDS))


@pytest.fixture(scope="module")
def genome() -> SimulatedGenome:
    return simulate_genome(seed=3, num_bases=200_000, num_contigs=3)


def test_sizes_and_seed(genome: SimulatedGenome) -> None:
    assert {name: len(text) for name, text in genome.contigs.items()} == dict(
        zip(["chr1", "chr2", "chr3"], contig_lengths(200_000, 3))
    )
    assert contig_lengths(200_000, 3) == [130_000, 20_000, 50_000]
    assert genome.features == sorted(genome.features)
    assert simulate_genome(seed=3, num_bases=200_000, num_contigs=3) == genome
    assert simulate_genome(seed=4, num_bases=200_000, num_contigs=3).contigs != genome.contigs
    assert 0.38 < gc_fraction("".join(genome.contigs.values())) < 0.46


def test_genes_translate_and_introns_have_their_signals(genome: SimulatedGenome) -> None:
    parts: dict[str, list[Feature]] = {}
    for item in genome.of_kind("CDS"):
        parts.setdefault(item.parent, []).append(item)
    assert len(parts) == len(genome.of_kind("gene")) > 30
    for items in parts.values():
        ordered = items if items[0].strand == "+" else items[::-1]
        coding = ""
        for item in ordered:
            assert item.phase == -len(coding) % 3
            coding += genome.sequence_of(item)
        protein = "".join(CODE[coding[place : place + 3]] for place in range(0, len(coding), 3))
        assert protein[0] == "M" and protein[-1] == "*" and "*" not in protein[:-1]
    introns = [genome.sequence_of(item) for item in genome.of_kind("intron")]
    assert len(introns) > 20
    assert all(text.startswith("GT") and text.endswith("CAG") and "TACTAAC" in text for text in introns)


def arrangement(genome: SimulatedGenome, whole: Feature) -> list[tuple[str, bool, int]]:
    """List the motifs of a cluster in its direction: name, whether turned, gap to the motif before."""
    sites = [item for item in genome.of_kind("TF_binding_site") if item.parent == whole.name]
    sites = sites if whole.strand == "+" else sites[::-1]
    gaps = [0, *(max(b.start - a.end, a.start - b.end) for a, b in pairwise(sites))]
    return [(x.note, x.strand != whole.strand, gap) for x, gap in zip(sites, gaps)]


def test_enhancers_follow_the_grammar_and_decoys_do_not(genome: SimulatedGenome) -> None:
    first, second = MOTIFS
    right = (first, second, False, False, GAP)
    for kind in ("enhancer", "decoy"):
        for whole in genome.of_kind(kind)[:60]:
            sites = arrangement(genome, whole)
            assert len(sites) == 2 * PAIRS
            pairs = [(a[0], b[0], a[1], b[1], b[2]) for a, b in zip(sites[::2], sites[1::2])]
            assert all((pair == right) == (kind == "enhancer") for pair in pairs)
            assert sorted(name for name, *_ in sites) == sorted([first, second] * PAIRS)


def test_motifs_are_planted_as_written(genome: SimulatedGenome) -> None:
    for name, motif in MOTIFS.items():
        found = [genome.sequence_of(x) for x in genome.of_kind("TF_binding_site") if x.note == name]
        same = np.mean([[a == b for a, b in zip(text, motif)] for text in found], axis=0)
        assert len(found) > 200 and (same > 0.94).all() and (same < 1).any()


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open()))


def test_tables_and_files(simulation: Path) -> None:
    genome = Genome(simulation / "genome.fa")
    record = json.loads((simulation / "simulation.json").read_text())
    assert record["valid_chroms"] == ["chr4"] and record["test_chroms"] == ["chr5"]
    places = {"train": {"chr1", "chr2", "chr3"}, "dev": {"chr4"}, "test": {"chr5"}}
    intervals = rows(simulation / "labels" / "enhancers" / "intervals.csv")
    for split, chroms in places.items():
        table = rows(simulation / "labels" / "enhancers" / f"{split}.csv")
        assert len(table) == record["rows"][split]
        assert {row["label"] for row in table} == {"enhancer", "decoy"}
        assert all(len(row["sequence"]) == ROW_BASES for row in table)
        own = [row for row in intervals if row["chrom"] in chroms]
        texts = {genome.fetch(row["chrom"], int(row["start"]), int(row["end"])) for row in own}
        assert all({row["sequence"], reverse_complement(row["sequence"])} & texts for row in table)
    assert {item.kind for item in read_annotation(simulation / "genome.gff3")} >= {
        "gene",
        "CDS",
        "intron",
        "enhancer",
        "decoy",
    }
    assert "Nothing here is real" in (simulation / "README.txt").read_text()


def test_no_word_tells_enhancers_from_decoys(simulation: Path) -> None:
    table = rows(simulation / "labels" / "enhancers" / "test.csv")
    counts = kmer_counts([row["sequence"] for row in table], 6, both_strands=True)
    labels = np.array([row["label"] == "enhancer" for row in table])
    motif_words = [int("".join(str("ACGT".index(x)) for x in m[:6]), 4) for m in MOTIFS.values()]
    for word in motif_words:
        inside, outside = counts[labels][:, [word]].toarray(), counts[~labels][:, [word]].toarray()
        assert inside.mean() > 2 and abs(inside.mean() - outside.mean()) < 0.2


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="do not fill 5 chromosomes"):
        simulate_genome(seed=0, num_bases=60_000)
    with pytest.raises(ValueError, match="at least 3 chromosomes"):
        write_simulation(tmp_path, num_bases=60_000, num_contigs=2)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_simulation(tmp_path / "file", num_bases=100_000, num_contigs=3)
