"""Haplotypes against bcftools: sixty windows of real people, tables of odd calls, and random files."""

from __future__ import annotations

import csv
import gzip
import hashlib
import pickle
import random
from itertools import pairwise

import numpy as np
import pytest

from longstrand.errors import InputError
from longstrand.genome.fasta import Genome
from longstrand.genome.haplotypes import open_haplotypes

HEADER = ["##fileformat=VCFv4.2", '##FORMAT=<ID=GT,Number=1,Type=String,Description="GT">']
COLUMNS = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT"


@pytest.fixture(scope="module")
def golden(shared):
    if not (folder := shared / "golden" / "variants").is_dir():
        pytest.skip("no golden variants")
    return folder


@pytest.fixture(scope="module")
def panel(shared, tmp_path_factory):
    """The 300 people, in the coordinates of the contig ``z``."""
    path = tmp_path_factory.mktemp("panel") / "z.vcf"
    with gzip.open(shared / "data" / "variants" / "chr20_b37_1-2Mb_300samples_phased.vcf.gz", "rb") as source:
        lines = []
        for line in source:
            if line.startswith(b"20\t"):
                _, position, rest = line.split(b"\t", 2)
                line = b"z\t%d\t%s" % (int(position) - 1_000_000, rest)
            lines.append(line)
    path.write_bytes(b"".join(lines))
    return open_haplotypes(path, Genome(shared / "data" / "genomes" / "human_b37_chr20_1000000-2000000.fa.gz"))


def write(path, rows, samples, header=HEADER):
    lines = [*header, "\t".join([COLUMNS, *samples]), *("\t".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_windows_of_real_people(golden, panel):
    with gzip.open(golden / "haplotypes.tsv.gz", "rt") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert len(rows) == 60 and len(panel.samples) == 300 and panel.dropped == {}
    for row in rows:
        start, end, where = int(row["start"]), int(row["end"]), (row["sample"], int(row["haplotype"]))
        found = panel.window("z", start, end, *where)
        assert found.sequence == row["sequence"].upper() or found.sequence == row["sequence"], row["id"]
        assert ";".join(f"{a}:{b}:{n}" for a, b, n in found.blocks.tolist()) == row["blocks"], row["id"]
        fixed = panel.window("z", start, end, *where, length=end - start)
        assert len(fixed.sequence) == int(row["fixed_length"])
        assert hashlib.sha256(fixed.sequence.encode()).hexdigest()[:16] == row["fixed_sha256_16"]
        positions = found.reference_positions
        kept = positions >= 0
        reference = panel.genome.fetch("z", start, min(end + 1000, 1_000_000))
        same = [found.sequence[i] == reference[positions[i] - start] for i in np.flatnonzero(kept)]
        assert np.mean(same) > 0.98 and (np.diff(positions[kept]) > 0).all()
    assert pickle.loads(pickle.dumps(panel)).window("z", 0, 50, "HG00096", 1).sequence == panel.genome.fetch("z", 0, 50)


def test_windows_tile_a_haplotype(panel):
    draw = random.Random(4)
    for sample, haplotype in (("HG00096", 1), ("HG00099", 2)):
        whole = panel.window("z", 0, 200_000, sample, haplotype)
        cuts = [0, *sorted(draw.sample(range(1, 200_000), 400)), 200_000]
        parts = [panel.window("z", a, b, sample, haplotype) for a, b in pairwise(cuts)]
        assert "".join(part.sequence for part in parts) == whole.sequence
        assert (
            np.concatenate([part.reference_positions for part in parts]).tolist() == whole.reference_positions.tolist()
        )


@pytest.mark.parametrize("name", ["nasty_genotypes", "nasty_triploid"])
def test_odd_calls(golden, name):
    found = open_haplotypes(golden / f"{name}.vcf", Genome(golden / "nasty.fa"))
    with open(golden / "nasty_genotypes.expected.tsv") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["file"] == name]
    assert len(rows) > 9 and found.dropped == {"star": 1, "no_alt": 1}
    for row in rows:
        where = ("chr3", 0, 120, row["sample"], int(row["haplotype"]))
        if row["length"] == ".":
            with pytest.raises(InputError, match=f"there is no number {row['haplotype']}"):
                found.window(*where)
            continue
        options = {"missing": "N"} if row["missing"] == "N" else {}
        if row["unphased"] != "-":
            with pytest.raises(InputError, match="heterozygous calls of 'UNPHASED' are not phased"):
                found.window(*where)
            options["unphased"] = row["unphased"]
        assert found.window(*where, **options).sequence.upper() == row["sequence"], row


def test_unphased_calls_at_random_or_masked(golden):
    found = open_haplotypes(golden / "nasty_genotypes.vcf", Genome(golden / "nasty.fa"))

    def both(seed):
        return [
            found.window("chr3", 0, 12, "UNPHASED", number, unphased="random", seed=seed).sequence for number in (1, 2)
        ]

    drawn = [both(seed) for seed in range(20)]
    assert both(3) == drawn[3] and len({tuple(pair) for pair in drawn}) > 2
    for pair in drawn:  # C at 6 and C at 10, one on each haplotype
        assert {pair[0][5], pair[1][5]} == {pair[0][9], pair[1][9]} == {"G", "C"}
    masked = [found.window("chr3", 0, 12, "UNPHASED", number, unphased="iupac").sequence for number in (1, 2)]
    assert masked[0] == masked[1] and masked[0][5] == masked[0][9] == "N"


def test_random_files_equal_bcftools(tmp_path):
    """Overlapping records of every kind, several at a place: the whole contig as bcftools consensus 1.24 makes it."""
    pysam, bcftools = (pytest.importorskip(name) for name in ("pysam", "pysam.bcftools"))

    draw = random.Random(8)
    for trial in range(30):
        text = "".join(draw.choices("ACGT", k=300))
        fasta = tmp_path / f"{trial}.fa"
        fasta.write_text(f">c\n{text}\n")
        rows, places = [], sorted(draw.choices(range(5, 280), k=60))
        for place in places:
            ref = text[place : place + draw.choice([1, 1, 1, 2, 4])]
            alt = draw.choice(
                [
                    ref[0] + "".join(draw.choices("ACGT", k=draw.randint(0, 4))),
                    "".join(draw.choices("ACGT", k=draw.randint(1, 3))),
                ]
            )
            if alt != ref:
                rows.append(
                    ("c", place + 1, ".", ref, alt, ".", ".", ".", "GT", draw.choice(["0|1", "1|0", "1|1", "0|0"]))
                )
        path = write(tmp_path / f"{trial}.vcf", rows, ["S"], [*HEADER, "##contig=<ID=c,length=300>"])
        pysam.tabix_compress(str(path), f"{path}.gz", force=True)
        pysam.tabix_index(f"{path}.gz", preset="vcf", force=True)
        found = open_haplotypes(path, Genome(fasta))
        for haplotype in (1, 2):
            out = tmp_path / "out.fa"
            bcftools.consensus(
                "-s", "S", "-H", str(haplotype), "-f", str(fasta), "-o", str(out), f"{path}.gz", catch_stdout=False
            )
            right = "".join(out.read_text().split("\n")[1:])
            assert found.window("c", 0, 300, "S", haplotype).sequence == right, (trial, haplotype)


def test_what_has_no_haplotypes(tmp_path):
    (tmp_path / "g.fa").write_text(">c\nACGTACGTAC\n")
    genome = Genome(tmp_path / "g.fa")
    cases = {
        "the VCF has no samples": ([("c", 2, ".", "C", "T", ".", ".", ".", "GT")], []),
        "positions fall; sort the VCF": ([("c", 5, ".", "A", "T", ".", ".", ".", "GT", "0|1"),
                                         ("c", 2, ".", "C", "T", ".", ".", ".", "GT", "0|1")], ["S"]),
        "FORMAT has no GT": ([("c", 2, ".", "C", "T", ".", ".", ".", "DP", "3")], ["S"]),
        "a genotype names allele 2; there are 1": ([("c", 2, ".", "C", "T", ".", ".", ".", "GT:DP", "0|2:1")], ["S"]),
        "a genotype names allele 3; there are 1": ([("c", 2, ".", "C", "T", ".", ".", ".", "GT", "0|3")], ["S"]),
        "a genotype is none": ([("c", 2, ".", "C", "T", ".", ".", ".", "GT", "-1|1")], ["S"]),
        "REF is 'G'": ([("c", 2, ".", "G", "T", ".", ".", ".", "GT", "0|1")], ["S"]),
    }  # fmt: skip
    for message, (rows, samples) in cases.items():
        with pytest.raises(InputError, match=message):
            open_haplotypes(write(tmp_path / "in.vcf", rows, samples), genome)
    rows = [
        ("c", 2, ".", "C", "T", ".", ".", ".", "GT:PS", "0|1:2"),
        ("c", 6, ".", "C", "T", ".", ".", ".", "GT:PS", "1|0:6"),
    ]
    found = open_haplotypes(write(tmp_path / "in.vcf", rows, ["S"]), genome)
    assert found.window("c", 0, 4, "S", 2).sequence == "ATGT"
    with pytest.raises(InputError, match="belong to several phase sets"):
        found.window("c", 0, 8, "S", 2)
    mixed = [*rows, ("c", 8, ".", "T", "A", ".", ".", ".", "GT", "0|1")]  # phase sets in some records only
    with pytest.raises(InputError, match="belong to several phase sets"):
        open_haplotypes(write(tmp_path / "mixed.vcf", mixed, ["S"]), genome).window("c", 0, 10, "S", 2)
    with pytest.raises(InputError, match=r"no sample 'T'.*; it has S"):
        found.window("c", 0, 4, "T", 1)
    with pytest.raises(InputError, match="is not on the contig of 10 bases"):
        found.window("c", 0, 11, "S", 1)
    assert found.ploidy("S", "c") == 2


def test_wide_files(tmp_path):
    """More than 512 haplotypes, a person with three, haploid and missing ones: as each alone."""
    draw = random.Random(1)
    text = "".join(draw.choices("ACGT", k=200))
    (tmp_path / "g.fa").write_text(f">c\n{text}\n")
    genome, samples = Genome(tmp_path / "g.fa"), [f"s{number}" for number in range(300)]
    rows = []
    for place in range(10, 190, 9):
        alt = draw.choice([base for base in "ACGT" if base != text[place]])
        calls = [draw.choice(["0|1", "1|0", ".|1", "0|0"]) for _ in samples]
        if place > 50:
            calls[7] = "0|1|1"
        calls[9] = draw.choice("01")
        rows.append(["c", place + 1, ".", text[place], alt, ".", ".", ".", "GT", *calls])
    whole = open_haplotypes(write(tmp_path / "all.vcf", rows, samples), genome)
    assert [whole.ploidy(f"s{number}", "c") for number in (6, 7, 9)] == [2, 3, 1]
    for number in (0, 7, 9, 150, 299):
        alone = open_haplotypes(
            write(tmp_path / f"{number}.vcf", [[*row[:9], row[9 + number]] for row in rows], [samples[number]]), genome
        )
        for haplotype in range(1, whole.ploidy(samples[number], "c") + 1):
            found = [
                one.window("c", 0, 200, samples[number], haplotype, missing="N").sequence for one in (whole, alone)
            ]
            assert found[0] == found[1] != text
