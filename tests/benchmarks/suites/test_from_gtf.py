"""Tables from an annotation: labels computed by hand on both strands, splits by chromosome, what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from longstrand.benchmarks.suites.from_gtf import from_gtf, paint
from longstrand.cli.main import main
from longstrand.errors import InputError, UsageError
from longstrand.genome.annotation import read_annotation
from longstrand.genome.sequence import reverse_complement

LENGTH = 6000
# A gene of two exons (1001-1100, 1201-1300 in GTF counting), CDS 1051-1250 without the intron, stop codon behind it.
GENE = [
    ("exon", 1001, 1100),
    ("exon", 1201, 1300),
    ("CDS", 1051, 1100),
    ("CDS", 1201, 1250),
    ("stop_codon", 1251, 1253),
]
OPTIONS = {"valid_chroms": ("b",), "test_chroms": ("c",), "splice_window": 40, "structure_window": 200}


def line(chrom: str, kind: str, start: int, end: int, strand: str) -> str:
    return f'{chrom}\tx\t{kind}\t{start}\t{end}\t.\t{strand}\t.\tgene_id "{chrom}g"; transcript_id "{chrom}t";\n'


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Three chromosomes with the same gene; that of 'c' lies on the reverse strand, mirrored."""
    random = np.random.default_rng(0)
    fasta, gtf = "", ""
    for chrom in "abc":
        text = list(random.choice(list("ACGT"), size=LENGTH))
        text[1100:1102], text[1198:1200] = "GT", "AG"
        sequence = "".join(text)
        fasta += f">{chrom}\n{sequence if chrom != 'c' else reverse_complement(sequence)}\n"
        for kind, start, end in [("transcript", 1001, 1300), *GENE]:
            mirrored = (start, end) if chrom != "c" else (LENGTH + 1 - end, LENGTH + 1 - start)
            gtf += line(chrom, kind, *mirrored, "+" if chrom != "c" else "-")
    (tmp_path / "genes.gtf").write_text(gtf)
    (tmp_path / "genome.fa").write_text(fasta)
    return tmp_path / "genes.gtf", tmp_path / "genome.fa"


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open()))


@pytest.mark.parametrize(("split", "chrom"), [("train", "a"), ("valid", "b"), ("test", "c")])
def test_structure_by_hand(files: tuple[Path, Path], tmp_path: Path, split: str, chrom: str) -> None:
    from_gtf(*files, tmp_path / "out", tasks=["gene_structure"], options=OPTIONS)
    found = rows(tmp_path / "out" / "gene_structure" / f"{split}.csv")
    whole = "0" * 100 + "1" * 50 + "2" * 50 + "3" * 100 + "2" * 53 + "1" * 47
    assert {row["chrom"] for row in found} == {chrom}
    if chrom == "c":  # windows begin at the left, which is the end of this gene
        whole, found = "1" * 50 + "2" * 50 + "3" * 100 + "2" * 53 + "1" * 47 + "0" * 100, found[::-1]
    assert "".join(row["label"] for row in found) == whole
    text = {name.split("\n")[0]: name.split("\n")[1] for name in files[1].read_text().split(">")[1:]}[chrom]
    assert all(row["sequence"] in (text, reverse_complement(text))[chrom == "c"] for row in found)


def test_splice_sites_and_promoters_have_names(files: tuple[Path, Path], tmp_path: Path) -> None:
    said: list[str] = []
    made = from_gtf(*files, tmp_path / "out", options={**OPTIONS, "before": 300}, notice=said.append)
    assert set(made) == {"splice_sites", "promoters", "gene_structure"} and len(said) == 3
    sites = {row["label"]: row["sequence"] for row in rows(tmp_path / "out" / "splice_sites" / "train.csv")}
    assert sites["donor"][20:23][1:] == "GT" and sites["acceptor"][18:20] == "AG" and "neither" in sites
    promoters = {row["label"]: row["sequence"] for row in rows(tmp_path / "out" / "promoters" / "test.csv")}
    sequence = reverse_complement(files[1].read_text().split(">c\n")[1].strip())
    assert promoters["promoter"] == sequence[700:1000]
    assert promoters["other"] in reverse_complement(sequence) or promoters["other"] in sequence
    names = rows(tmp_path / "out" / "gene_structure" / "classes.csv")
    assert {row["label"]: row["label_name"] for row in names}["2"] == "coding"


def test_paint_marks_what_only_the_other_strand_says(files: tuple[Path, Path]) -> None:
    maps = paint(read_annotation(files[0]), dict.fromkeys("abc", LENGTH), "-")
    assert maps["a"].tobytes().decode() == "0" * 1000 + "?" * 300 + "0" * 4700
    assert maps["c"].tobytes().decode().strip("0")[::-1] == "1" * 50 + "2" * 50 + "3" * 100 + "2" * 53 + "1" * 47


def test_what_is_not_possible_is_said(files: tuple[Path, Path], tmp_path: Path) -> None:
    bare = tmp_path / "bare.gtf"
    bare.write_text("".join(line(chrom, "CDS", 1001, 1300, "+") for chrom in "abc"))
    said: list[str] = []
    made = from_gtf(bare, files[1], tmp_path / "out", options=OPTIONS, notice=said.append)
    assert "splice_sites" not in made and "left out; " in said[0] and "no intron" in said[0]
    with pytest.raises(InputError, match="no intron"):
        from_gtf(bare, files[1], tmp_path / "out2", tasks=["splice_sites"], options=OPTIONS)
    with pytest.raises(InputError, match="no row of gene_structure falls in the valid split"):
        from_gtf(bare, files[1], tmp_path / "out3", tasks=["gene_structure"], options={"test_chroms": ("b", "c")})
    with pytest.raises(UsageError, match="task"):
        from_gtf(*files, tmp_path / "out4", tasks=["enhancers"])
    with pytest.raises(InputError, match="no such file"):
        from_gtf(tmp_path / "absent.gtf", files[1], tmp_path / "out5")


def test_the_command(files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "from-gtf", *map(str, files), "--output", str(tmp_path / "out"), "--valid-chroms", "b"]
    with pytest.raises(SystemExit) as end:
        main([*words, "--test-chroms", "c", "--task", "gene_structure", "--structure-window", "200", "--json"])
    assert end.value.code == 0
    assert json.loads(capsys.readouterr().out)["gene_structure"]["rows"] == {"train": 2, "valid": 2, "test": 2}
