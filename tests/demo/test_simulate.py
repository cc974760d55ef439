from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from longstrand.data.rows import read_intervals
from longstrand.demo.diverge import Divergence
from longstrand.demo.signals import AMINO_ACIDS, CODONS, MOTIFS, PROMOTER_CLASSES
from longstrand.demo.simulate import Simulation, contig_lengths, simulate_genome, write_simulation
from longstrand.errors import InputError
from longstrand.genome.fasta import Genome
from longstrand.genome.features import Feature, SimulatedGenome, format_gff3
from longstrand.genome.sequence import gc_fraction, reverse_complement

CODE = dict(zip(CODONS, AMINO_ACIDS))


@pytest.fixture(scope="module")
def family() -> list[SimulatedGenome]:
    return simulate_genome(seed=3, num_bases=320_000, num_contigs=4, species=3)


def translate(coding: str) -> str:
    return "".join(CODE[coding[place : place + 3]] for place in range(0, len(coding), 3))


def coding_sequences(genome: SimulatedGenome) -> dict[str, str]:
    parts: dict[str, list[Feature]] = {}
    for item in genome.of_kind("CDS"):
        parts.setdefault(item.parent, []).append(item)
    result = {}
    for name, items in parts.items():
        items = items if items[0].strand == "+" else items[::-1]
        read = 0
        for item in items:
            assert item.phase == -read % 3
            read += item.end - item.start
        result[name] = "".join(genome.sequence_of(item) for item in items)
    return result


def proteins(genome: SimulatedGenome) -> dict[str, str]:
    return {name: translate(coding) for name, coding in coding_sequences(genome).items()}


def test_sizes_and_names(family: list[SimulatedGenome]) -> None:
    assert [genome.name for genome in family] == ["species_a", "species_b", "species_c"]
    first = family[0]
    assert {chrom: len(text) for chrom, text in first.contigs.items()} == dict(
        zip(["chr1", "chr2", "chr3", "chr4"], contig_lengths(320_000, 4))
    )
    assert list(family[1].contigs) == ["b1", "b2", "b3", "b4"]
    assert first.features == sorted(first.features)
    for genome in family:
        assert set("".join(genome.contigs.values())) == set("ACGTN")


def test_it_is_seeded() -> None:
    sizes = {"num_bases": 60_000, "num_contigs": 2}
    assert simulate_genome(seed=1, **sizes) == simulate_genome(seed=1, **sizes)
    assert simulate_genome(seed=1, **sizes)[0].contigs != simulate_genome(seed=2, **sizes)[0].contigs


@pytest.mark.parametrize("species", [0, 1, 2])
def test_genes_translate_and_introns_have_their_signals(family: list[SimulatedGenome], species: int) -> None:
    genome = family[species]
    translated = proteins(genome)
    assert len(translated) == len(genome.of_kind("gene")) > 50
    for protein in translated.values():
        assert protein[0] == "M"
        assert protein[-1] == "*"
        assert "*" not in protein[:-1]
    introns = genome.of_kind("intron")
    assert len(introns) > 50
    by_parent: dict[str, list[Feature]] = {}
    for kind in ("branch_site", "polypyrimidine_tract", "exon"):
        for item in genome.of_kind(kind):
            by_parent.setdefault(item.parent, []).append(item)
    for intron in introns:
        sequence = genome.sequence_of(intron)
        assert (sequence[:2], sequence[-2:]) == ("GT", "AG")
        near = by_parent[intron.parent]
        inside = [x for x in near if intron.start <= x.start and x.end <= intron.end]
        assert sorted(x.kind for x in inside) == ["branch_site", "polypyrimidine_tract"]
        borders = {x.end for x in near if x.kind == "exon"} | {x.start for x in near if x.kind == "exon"}
        assert {intron.start, intron.end} <= borders
    tracts = "".join(genome.sequence_of(x) for x in genome.of_kind("polypyrimidine_tract"))
    assert (tracts.count("T") + tracts.count("C")) / len(tracts) > 0.8
    assert Counter(genome.sequence_of(x) for x in genome.of_kind("branch_site")).most_common(1)[0][0] == "TACTAAC"
    assert {genome.sequence_of(x) for x in genome.of_kind("polyA_signal_sequence")} == {"AATAAA"}
    for kind, letters in (("five_prime_cis_splice_site", "GT"), ("three_prime_cis_splice_site", "AG")):
        assert {genome.sequence_of(x) for x in genome.of_kind(kind)} == {letters}


@pytest.mark.parametrize("species", [0, 1])
def test_promoters_follow_their_grammar(family: list[SimulatedGenome], species: int) -> None:
    genome = family[species]
    sites: dict[str, list[Feature]] = {}
    for item in genome.of_kind("TF_binding_site"):
        sites.setdefault(item.parent, []).append(item)
    genes = {item.name: item for item in genome.of_kind("gene")}
    exact = total = 0
    for promoter in genome.of_kind("promoter"):
        grammar = PROMOTER_CLASSES[promoter.note]
        gene = genes[promoter.name.removesuffix(".promoter")]
        forward = promoter.strand == "+"
        tss = gene.start if forward else gene.end
        assert tss == (promoter.end - 50 if forward else promoter.start + 50)
        places = [(x.start - tss if forward else tss - x.end, x) for x in sites[promoter.name]]
        places.sort(key=lambda pair: pair[0])
        (first_at, first), (second_at, second), *core = places
        assert (first.note, second.note) == grammar.pair
        assert abs(second_at - first_at - len(MOTIFS[first.note]) - grammar.gap) <= 1
        for (place, item), (motif, distance) in zip(core, grammar.core, strict=True):
            assert item.note == motif
            assert abs(place - distance) <= 1
            assert item.strand == promoter.strand
        for _, item in places:
            pairs = list(zip(genome.sequence_of(item), MOTIFS[item.note], strict=True))
            exact += sum(a == b for a, b in pairs)
            total += len(pairs)
    assert exact / total > 0.93


def test_composition(family: list[SimulatedGenome]) -> None:
    genome = family[0]
    islands = "".join(genome.sequence_of(x) for x in genome.of_kind("CpG_island"))
    repeats = "".join(genome.sequence_of(x) for x in genome.of_kind("dispersed_repeat"))
    assert gc_fraction(islands) > 0.58
    assert cpg_ratio(islands) > 0.7
    assert cpg_ratio("".join(genome.sequence_of(x) for x in genome.of_kind("intron"))) < 0.4
    assert len(repeats) > 0.03 * 320_000
    assert {x.strand for x in genome.of_kind("dispersed_repeat")} == {"+", "-"}
    assert {genome.sequence_of(x).strip("N") for x in genome.of_kind("gap")} == {""}
    coding = "".join(coding_sequences(genome).values())
    by_phase = [Counter(coding[start::3]) for start in range(3)]
    shares = np.array([[count[letter] / sum(count.values()) for letter in "ACGT"] for count in by_phase])
    assert np.abs(shares - shares.mean(axis=0)).max() > 0.05


def cpg_ratio(text: str) -> float:
    return text.count("CG") * len(text) / (text.count("C") * text.count("G"))


def test_the_second_species_is_a_diverged_rearranged_copy(family: list[SimulatedGenome]) -> None:
    first, second = family[:2]
    assert Counter(x.kind for x in first.features) == Counter(x.kind for x in second.features)
    assert len(proteins(first)) == len(proteins(second))
    assert proteins(first) == proteins(second)
    others = {x.name: x for x in second.of_kind("gene")}
    moved = [(x, others[x.name]) for x in first.of_kind("gene")]
    assert {a.strand == b.strand for a, b in moved} == {True, False}
    assert {a.chrom[-1] == b.chrom[-1] for a, b in moved} == {True, False}
    lengths_differ = [a.end - a.start != b.end - b.start for a, b in moved]
    assert 0.1 < np.mean(lengths_differ) < 0.95
    for kind in ("exon", "promoter"):
        twins = zip(by_name(first, kind), by_name(second, kind), strict=True)
        assert all(a.end - a.start == b.end - b.start for a, b in twins)
    same, total = 0, 0
    for a, b in zip(by_name(first, "promoter"), by_name(second, "promoter"), strict=True):
        same += sum(x == y for x, y in zip(first.sequence_of(a), second.sequence_of(b), strict=True))
        total += a.end - a.start
    assert 0.90 < same / total < 0.97


def by_name(genome: SimulatedGenome, kind: str) -> list[Feature]:
    return sorted(genome.of_kind(kind), key=lambda x: x.name)


def test_without_divergence_the_second_species_is_only_rearranged() -> None:
    still = Divergence(substitutions=0, synonymous=0, indels=0)
    first, second = simulate_genome(seed=4, num_bases=60_000, num_contigs=2, divergence=still)
    assert sum(map(len, second.contigs.values())) == 60_000

    def content(genome: SimulatedGenome) -> Counter[tuple[str, str, str]]:
        return Counter((x.kind, x.note, genome.sequence_of(x)) for x in genome.features)

    assert content(first) == content(second)
    assert first.contigs["chr1"] not in second.contigs.values()


def test_indels_leave_every_annotated_letter_in_place() -> None:
    only_indels = Divergence(substitutions=0, synonymous=0, indels=0.05, pieces=1)
    first, second = simulate_genome(seed=4, num_bases=60_000, num_contigs=2, divergence=only_indels)
    assert sum(map(len, second.contigs.values())) != 60_000
    rigid = {"exon", "CDS", "promoter", "TF_binding_site", "branch_site", "polypyrimidine_tract", "gap"}
    originals = Counter((x.kind, x.name, x.note, first.sequence_of(x)) for x in first.features if x.kind in rigid)
    copies = Counter((x.kind, x.name, x.note, second.sequence_of(x)) for x in second.features if x.kind in rigid)
    assert originals == copies
    for a, b in zip(by_name(first, "intron"), by_name(second, "intron"), strict=True):
        before, after = first.sequence_of(a), second.sequence_of(b)
        assert (before[:6], before[-3:]) == (after[:6], after[-3:])


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="50000 bases do not fill 4 chromosomes; give at least 10000 for each"):
        simulate_genome(seed=1, num_bases=50_000, num_contigs=4)
    with pytest.raises(ValueError, match="species is a number from 1 to 6, got 7"):
        simulate_genome(seed=1, num_bases=80_000, num_contigs=4, species=7)
    with pytest.raises(ValueError, match="labelled tables need at least 3 chromosomes"):
        write_simulation(Path("unused"), num_contigs=2)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"the folder cannot be written \(Not a directory\)"):
        write_simulation(tmp_path / "file" / "x", num_bases=80_000, num_contigs=3)


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path) as file:
        return list(csv.DictReader(file))


def test_the_written_genome_is_the_annotated_one(simulation: Simulation) -> None:
    genome = Genome(simulation.fastas[0])
    (expected, _) = simulate_genome(seed=5, num_bases=240_000, num_contigs=4)
    assert genome.contigs == {chrom: len(text) for chrom, text in expected.contigs.items()}
    text = genome.fetch("chr2", 0, genome.contigs["chr2"])
    assert text.upper() == expected.contigs["chr2"]
    assert any(letter.islower() for letter in text)
    lines = [line.split("\t") for line in simulation.gff3s[0].read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == len(expected.features)
    introns = [(x[0], int(x[3]) - 1, int(x[4]), x[6]) for x in lines if x[2] == "intron"]
    assert introns == [(x.chrom, x.start, x.end, x.strand) for x in expected.of_kind("intron")]
    promoters = read_intervals(simulation.promoters_bed)
    assert promoters.intervals == [x.interval for x in expected.of_kind("promoter")]
    assert set(promoters.labels["name"]) <= set(PROMOTER_CLASSES)
    assert "Leave both out of pre-training" in (simulation.folder / "README.txt").read_text()


def test_promoter_tables(simulation: Simulation) -> None:
    genome = Genome(simulation.fastas[0])
    table = read_intervals(simulation.promoters / "intervals.csv")
    sequences = {genome.fetch_interval(item).upper(): (item.chrom, label)
                 for item, label in zip(table.intervals, table.labels["label"])}  # fmt: skip
    splits = {"train": ["chr1", "chr2"], "dev": simulation.valid_chroms, "test": simulation.test_chroms}
    counts = json.loads((simulation.folder / "simulation.json").read_text())["rows"]["promoters"]
    for split, chroms in splits.items():
        rows = rows_of(simulation.promoters / f"{split}.csv")
        assert len(rows) == counts[split]
        assert sum(row["label"] == "1" for row in rows) == len(rows) / 2
        assert all(len(row["sequence"]) == 300 for row in rows)
        assert all(sequences[row["sequence"]][0] in chroms for row in rows)
        assert all(sequences[row["sequence"]][1] == row["label"] for row in rows)


def test_composition_does_not_tell_promoters(simulation: Simulation) -> None:
    rows = rows_of(simulation.promoters / "train.csv")
    contents = {label: [gc_fraction(row["sequence"]) for row in rows if row["label"] == label] for label in "01"}
    assert abs(np.mean(contents["0"]) - np.mean(contents["1"])) < 0.03


def test_splice_tables(simulation: Simulation) -> None:
    for split in ("train", "dev", "test"):
        rows = rows_of(simulation.splice_donors / f"{split}.csv")
        assert {row["sequence"][40:42] for row in rows} == {"GT"}
        assert {len(row["sequence"]) for row in rows} == {80}
        positives = sum(row["label"] == "1" for row in rows)
        assert 0.4 < positives / len(rows) < 0.6
    assert not {row["sequence"] for row in rows if row["label"] == "1"} & {
        row["sequence"] for row in rows if row["label"] == "0"
    }


def test_structure_tables(simulation: Simulation) -> None:
    seen: Counter[str] = Counter()
    for row in rows_of(simulation.gene_structure / "train.csv"):
        sequence, label = row["sequence"], row["label"]
        assert len(sequence) == len(label) == 512
        seen.update(label)
        for place in range(1, 510):
            if label[place - 1 : place + 1] == "CI":
                assert sequence[place : place + 2] == "GT"
            if label[place : place + 2] == "IC":
                assert sequence[place - 1 : place + 1] == "AG"
            if label[place - 1 : place + 1] == "UC":
                assert sequence[place : place + 3] == "ATG"
    assert set("OUCI") <= set(seen) <= set("OUCI?")
    assert min(seen[letter] for letter in "OUCI") > 1000


def test_gff3_text() -> None:
    item = Feature("chr1", 4, 9, "-", "CDS", "g;1", "t1", 2, "a note")
    text = format_gff3([item], {"chr1": 20})
    assert text.splitlines()[1:] == [
        "##sequence-region chr1 1 20",
        "chr1\tlongstrand\tCDS\t5\t9\t.\t-\t2\tID=g%3B1;Parent=t1;Note=a note",
    ]


def test_features_read_their_strand() -> None:
    genome = SimulatedGenome("x", {"c": "AACGT"}, [])
    assert genome.sequence_of(Feature("c", 1, 4, "-", "exon")) == reverse_complement("ACG")
