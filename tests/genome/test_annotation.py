"""GFF3 and GTF by hand: the same genes in both, splice sites on both strands, and damaged lines."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from longstrand.errors import InputError
from longstrand.genome.annotation import Transcript, read_annotation, transcripts

GFF = """##gff-version 3
chr1\tx\tgene\t11\t100\t.\t+\t.\tID=g1;Name=one
chr1\tx\tmRNA\t11\t100\t.\t+\t.\tID=t1;Parent=g1
chr1\tx\tmRNA\t11\t60\t.\t+\t.\tID=t2;Parent=g1
chr1\tx\texon\t11\t20\t.\t+\t.\tParent=t1,t2
chr1\tx\texon\t41\t60\t.\t+\t.\tParent=t1,t2
chr1\tx\texon\t81\t100\t.\t+\t.\tParent=t1
chr2\tx\tgene\t5\t50\t.\t-\t.\tID=g%202
chr2\tx\tCDS\t5\t15\t.\t-\t0\tID=c;Parent=g%202
chr2\tx\tCDS\t31\t50\t.\t-\t1\tID=c;Parent=g%202
chr3\tx\tgene\t1\t9\t.\t.\t.\tID=bare
##FASTA
>chr1
ACGT
"""

GTF = """# a comment
chr1\tx\tgene\t11\t100\t.\t+\t.\tgene_id "g1"; gene_name "one";
chr1\tx\ttranscript\t11\t100\t.\t+\t.\tgene_id "g1"; transcript_id "t1";
chr1\tx\texon\t11\t20\t.\t+\t.\tgene_id "g1"; transcript_id "t1"; exon_number 1;
chr1\tx\texon\t41\t60\t.\t+\t.\tgene_id "g1"; transcript_id "t1"; exon_number 2;
chr1\tx\texon\t81\t100\t.\t+\t.\tgene_id "g1"; transcript_id "t1"; exon_number 3;
"""


def test_gff3_by_hand(tmp_path: Path) -> None:
    (tmp_path / "a.gff3.gz").write_bytes(gzip.compress(GFF.encode()))
    assert transcripts(read_annotation(tmp_path / "a.gff3.gz")) == [
        Transcript("t2", "g1", "chr1", "+", ((10, 20), (40, 60))),
        Transcript("t1", "g1", "chr1", "+", ((10, 20), (40, 60), (80, 100))),
        Transcript("g 2", "g 2", "chr2", "-", ((4, 15), (30, 50))),
        Transcript("bare", "bare", "chr3", "+", ((0, 9),)),
    ]


def test_gtf_gives_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.gtf").write_text(GTF)
    assert transcripts(read_annotation(tmp_path / "a.gtf")) == [
        Transcript("t1", "g1", "chr1", "+", ((10, 20), (40, 60), (80, 100)))
    ]


def test_splice_sites_and_starts_by_hand() -> None:
    forward = Transcript("t", "g", "c", "+", ((10, 20), (40, 60)))
    backward = Transcript("t", "g", "c", "-", ((10, 20), (40, 60)))
    assert forward.splice_sites() == [(19, "donor"), (40, "acceptor")] and forward.tss == 10
    assert backward.splice_sites() == [(19, "acceptor"), (40, "donor")] and backward.tss == 59
    assert str(backward.interval) == "c:11-60(-)"


def test_real_introns_of_yeast_begin_with_gt_and_end_with_ag(shared: Path) -> None:
    from longstrand.benchmarks.suites.splice import _is_canonical, annotated_sites
    from longstrand.genome.fasta import Genome

    folder = shared / "data/genomes"
    found = transcripts(read_annotation(folder / "scer_R64-1-1.gtf.gz"))
    genome = Genome(folder / "scer_R64-1-1.fa.gz")
    coding = [item for item in found if item.gene.startswith("Y")]  # the others are mitochondrial, or introns of tRNA
    acceptors = [site for site in annotated_sites(coding) if site.kind == "acceptor"]
    assert len(acceptors) > 250
    assert sum(_is_canonical(genome, site) for site in acceptors) / len(acceptors) > 0.98


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chr1\tx\tgene\t1\t5\n", r"a.gff:1: 5 columns where GFF and GTF have nine"),
        ("#\nchr1\tx\tgene\t0\t5\t.\t+\t.\tID=a\n", r"a.gff:2: '0' to '5' are no coordinates"),
        ("# nothing\n", r"holds no feature"),
    ],
)
def test_damaged_annotations(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.gff").write_text(text)
    with pytest.raises(InputError, match=message):
        read_annotation(tmp_path / "a.gff")


def test_a_missing_annotation(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file"):
        read_annotation(tmp_path / "a.gff")


def test_chromosomes_get_the_names_of_a_genome(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.gff3").write_text(GFF)
    found = read_annotation(tmp_path / "a.gff3", contigs={"1": 100, "2": 60})
    assert {item.chrom for item in found} == {"1", "2", "chr3"} and "('chr1' is '1'); 2 contigs" in caplog.text
    assert read_annotation(tmp_path / "a.gff3", contigs={"chr1"}) == read_annotation(tmp_path / "a.gff3")
