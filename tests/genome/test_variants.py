"""Variants and VCF by hand, against the recommendations of the goldens, and against htslib."""

from __future__ import annotations

import csv
import gzip
import hashlib
import os
import random
import threading

import pytest

from longstrand.errors import InputError
from longstrand.genome.fasta import Genome
from longstrand.genome.variants import SKIPPED, Variant, anchored, judge, parse_variant, shortest
from longstrand.genome.vcf import Vcf, VcfWriter, judged, open_vcf, survey

GENOME = ">chr1\nGATTTACAACACACGNRa\n>chrM\nACGT\n"
HEADER = ["##fileformat=VCFv4.2", "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"]


@pytest.fixture
def genome(tmp_path):
    (tmp_path / "g.fa").write_text(GENOME)
    return Genome(tmp_path / "g.fa")


@pytest.fixture
def golden(shared):
    folder = shared / "golden" / "variants"
    if not folder.is_dir():
        pytest.skip("no golden variants")
    return folder


def vcf(tmp_path, *rows, header=HEADER):
    path = tmp_path / "in.vcf"
    path.write_text("\n".join([*header, *("\t".join(map(str, row)) for row in rows)]) + "\n")
    return path


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("chr1:12345:A:G", Variant("chr1", 12344, "A", "G")),
        ("chr1-12,345-AC-g", Variant("chr1", 12344, "AC", "G")),
        (" chr1:12345 A>G ", Variant("chr1", 12344, "A", "G")),
        ("HLA-A*01:01:01:7:A:T", Variant("HLA-A*01:01:01", 6, "A", "T")),
    ],
)
def test_written_variants(text, right):
    assert parse_variant(text) == right


@pytest.mark.parametrize("text", ["chr1:12345", "chr1 5 A G", "chr1:5:A:G,T", "rs123", "chr1:g.5A>G", "", "chr1:x:A:C"])
def test_other_texts_are_refused_with_an_example(text):
    with pytest.raises(InputError, match=r"is no variant; write it as 'chr1:12345:A:G'"):
        parse_variant(text)
    if text.startswith("rs"):
        with pytest.raises(InputError, match="looked up in a VCF"):
            parse_variant(text)


def test_shortest_form_by_hand(genome):
    #     GATTTACAACACACGNRa
    for start, ref, alt, right in [
        (4, "T", "", (2, "T", "")),  # a deletion in TTT
        (4, "TA", "A", (2, "T", "")),
        (4, "T", "TT", (2, "", "T")),
        (11, "CA", "", (8, "AC", "")),  # ACACAC from 8
        (13, "C", "CAC", (8, "", "AC")),
        (0, "GA", "A", (0, "G", "")),
        (1, "ATT", "ACT", (2, "T", "C")),
        (1, "ATT", "CTG", (1, "ATT", "CTG")),
        (1, "ATT", "CT", (1, "AT", "C")),
    ]:
        assert shortest(Variant("chr1", start, ref, alt), genome.fetch) == Variant("chr1", *right)
    assert anchored(Variant("chr1", 2, "T", ""), genome.fetch) == Variant("chr1", 1, "AT", "A")
    assert anchored(Variant("chr1", 0, "", "C"), genome.fetch) == Variant("chr1", 0, "G", "CG")
    kinds = {
        ("A", "C"): "snv",
        ("AC", "CA"): "mnv",
        ("A", "AT"): "insertion",
        ("AT", "A"): "deletion",
        ("AT", "C"): "delins",
    }
    assert {pair: Variant("c", 0, *pair).kind for pair in kinds} == kinds


def test_all_spellings_have_one_shortest_form(tmp_path):
    """Two sequences that a change makes are equal exactly if the shortest forms are (repeats of 1 to 3 letters)."""
    draw = random.Random(5)
    text = "".join(draw.choice(["A", "AC", "ACC", "T"]) * draw.randint(1, 60) for _ in range(12))
    (tmp_path / "g.fa").write_text(f">c\n{text}\n")
    genome, forms = Genome(tmp_path / "g.fa"), {}
    for _ in range(4000):
        start, length = draw.randrange(len(text) - 4), draw.randint(1, 4)
        ref = text[start : start + length]
        alt = draw.choice(
            [ref[: draw.randint(0, length)], ref + ref[: draw.randint(1, length)], draw.choice("ACT") + ref[1:]]
        )
        if alt != ref:
            form = shortest(Variant("c", start, ref, alt), genome.fetch)
            assert forms.setdefault(text[:start] + alt + text[start + length :], form) == form
            assert text[form.start : form.end] == form.ref


def test_judgements(genome):
    cases = {
        ("chr1", 0, "G", "A"): None, ("chr1", 17, "A", "c"): None, ("chr1", 1, "A", "<*>"): "symbolic",
        ("chr1", 1, "A", "A[chr2:5["): "breakend", ("chr1", 1, "A", ".A"): "breakend", ("chr1", 1, "A", "*"): "star",
        ("chr1", 1, "A", "."): "no_alt", ("2", 1, "A", "C"): "unknown_contig", ("chr1", -1, "N", "A"): "outside_contig",
        ("chr1", 17, "AC", "A"): "outside_contig", ("chr1", 1, "C", "A"): "ref_mismatch",
        ("chr1", 16, "C", "A"): "ref_mismatch",
        ("chr1", 16, "G", "A"): "ref_ambiguous", ("chr1", 15, "A", "C"): "ref_ambiguous",
        ("chr1", 1, "R", "C"): "ref_ambiguous",
        ("chr1", 1, "A", "R"): "alt_ambiguous", ("chr1", 1, "A", "a"): "alt_equals_ref",
    }  # fmt: skip
    assert {case: judge(genome, *case) for case in cases} == cases
    assert set(filter(None, cases.values())) == set(SKIPPED)


def test_awkward_alleles_have_the_recommended_outcome(golden):
    genome, file = Genome(golden / "nasty.fa"), open_vcf(golden / "nasty_alleles.vcf")
    with pytest.raises(
        InputError, match=r"nasty_alleles.vcf:43: REF is 'C' \(ALT 'T'\) but ctgA:255 .* is 'R'"
    ) as caught:
        survey(file, genome)
    assert "4 with a wrong REF, 3 on unknown contigs" in str(caught.value) and "build" not in str(caught.value)
    found = survey(file, genome, skip=True)
    records = list(file)
    with open(golden / "nasty_alleles.expected.tsv") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert len(rows) == found.num_alleles and len(records) == found.num_records == 60
    for row in rows:
        record, number = records[int(row["record"]) - 1], int(row["alt_index"]) - 1
        variant, status = judged(record, genome, found.contigs)[number]
        assert status == ("ok" if row["outcome"] == "score" else row["reason"]), row
        if status == "ok":
            form = shortest(variant, genome.fetch)
            assert (form.start, form.kind) == (int(row["start0"]), row["class"])
            for text, right in ((form.ref, row["ref_minimal"]), (form.alt, row["alt_minimal"])):
                assert text == right.replace("-", "") or (text.startswith(right.split("...")[0]) and "..." in right)
            contig = genome.fetch(form.chrom, 0, genome.contigs[form.chrom]).upper()
            for each in (form, anchored(form, genome.fetch)):
                changed = contig[: each.start] + each.alt + contig[each.end :]
                assert contig[each.start : each.end] == each.ref
                assert hashlib.sha256(changed.encode()).hexdigest()[:16] == row["contig_with_allele_sha256_16"]


REFUSED = {
    "empty.vcf": "the file is empty",
    "spaces_for_tabs.vcf": r":11: the columns are separated by spaces",
    "no_header.vcf": "the header .* is missing",
    "columns_line_without_hash.vcf": ":10: the line #CHROM is missing",
    "duplicate_sample_names.vcf": "sample 'S1' occurs twice",
    "missing_info_column.vcf": ":6: the line #CHROM lacks QUAL, FILTER, INFO",
}


def test_files_that_break_a_convention(golden, tmp_path):
    """What is refused says why; all other files come back byte for byte (CRLF and the mark of encoding apart)."""
    genome = Genome(golden / "nasty.fa")
    with open(golden / "nasty_format" / "expected.tsv") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    for row in rows:
        path = golden / "nasty_format" / row["file"]
        if row["file"] in REFUSED:
            assert row["outcome"] == "refuse"
            with pytest.raises(InputError, match=REFUSED[row["file"]]):
                survey(open_vcf(path), genome)
            continue
        assert (
            row["outcome"] != "refuse" or row["file"] == "tag_already_there.vcf"
        )  # the names of scores are checked later
        file = open_vcf(path)
        if row["records"].isdigit():
            assert survey(file, genome).num_records == int(row["records"])
        writer = VcfWriter(tmp_path / "out.vcf", "out.vcf", file.header, file.columns)
        for record in file:
            writer.write(record)
        writer.close()
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
        right = raw.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
        assert (tmp_path / "out.vcf").read_bytes() == right + b"\n" * (not right.endswith(b"\n"))


ROW = ["chr1", "2", "i", "A", "C", ".", ".", "."]


@pytest.mark.parametrize(
    ("cell", "text", "message"),
    [
        (1, "-2", ":3: POS is '-2'"),
        (1, "2.0", ":3: POS is '2.0'"),
        (3, "", ":3: REF is empty; VCF writes the base before an insertion"),
        (7, ".\t", ":3: 9 columns, but the line #CHROM names 8"),
        (0, "chr\xe9", ":3: contig 'chr\N{REPLACEMENT CHARACTER}' .* is not in g.fa"),
        (3, "A\xe9", "ref_ambiguous"),
        (4, "C\xe9", "alt_ambiguous"),
        (4, "", "no_alt"),
        (4, "-", "alt_ambiguous"),
        (2, "i\xe9", "ok"),
        (7, "N=\xe9", "ok"),
    ],
)
def test_cells_that_are_wrong_or_of_another_encoding(tmp_path, genome, cell, text, message):
    """A sentence with the line, or a status and the bytes as they were; never a failure to decode."""
    row = [text if place == cell else one for place, one in enumerate(ROW)]
    path = tmp_path / "in.vcf"
    path.write_bytes("\n".join([*HEADER, "\t".join(row), ""]).encode("latin-1"))
    file = open_vcf(path)
    if message.startswith(":"):
        with pytest.raises(InputError, match=f"in.vcf{message}"):
            survey(file, genome)
        return
    assert survey(file, genome).statuses == {message: 1}
    (record,) = file
    assert record.text() == "\t".join(row).encode("latin-1") + b"\n" and record.id.startswith("i")


def test_samples_need_the_column_format(tmp_path):
    path = vcf(tmp_path, [*ROW, "0|1"], header=[HEADER[0], HEADER[1] + "\tS1"])
    with pytest.raises(InputError, match=r"in.vcf:2: the line #CHROM lacks FORMAT; VCF has #CHROM .* INFO FORMAT"):
        open_vcf(path)


def test_a_missing_first_line_is_added(tmp_path):
    file = open_vcf(vcf(tmp_path, ROW, header=HEADER[1:]))
    with VcfWriter(tmp_path / "o.vcf", "o.vcf", file.header, file.columns) as writer:
        writer.write(*file)
    assert (tmp_path / "o.vcf").read_text().splitlines()[:2] == ["##fileformat=VCFv4.3", HEADER[1]]


def test_a_header_line_may_name_its_id_later(tmp_path):
    lines = ['##INFO=<Number=A,ID=X,Type=Float,Description="a,ID=Y">', '##INFO=<ID=Z,Description="b">']
    assert list(open_vcf(vcf(tmp_path, header=[HEADER[0], *lines, HEADER[1]])).declared(b"INFO")) == ["X", "Z"]


def test_a_pipe_is_read_once_and_kept(tmp_path, genome):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    whole = vcf(tmp_path, ROW).read_bytes()
    threading.Thread(target=pipe.write_bytes, args=[whole], daemon=True).start()
    file = open_vcf(pipe)
    assert survey(file, genome).num_records == len(list(file)) == 1


@pytest.mark.parametrize("kept", [30, -40])
def test_a_damaged_bcf_is_told(tmp_path, kept):
    bcftools = pytest.importorskip("pysam.bcftools")
    header = [HEADER[0], "##contig=<ID=chr1,length=19>", HEADER[1]]
    path = vcf(tmp_path, *[ROW] * 50, header=header)
    bcftools.view("-Ob", "-o", str(tmp_path / "u.bcf"), str(path), catch_stdout=False)
    (tmp_path / "d.bcf").write_bytes(gzip.decompress((tmp_path / "u.bcf").read_bytes())[:kept])
    with pytest.raises(InputError, match=r"d.bcf: the BCF file is damaged or truncated \("):
        list(open_vcf(tmp_path / "d.bcf"))


@pytest.mark.parametrize(("end", "ending"), [("600000000", ".csi"), ("30000000000000", None), ("2", ".tbi")])
def test_an_end_far_away_does_not_stop_the_index(tmp_path, end, ending):
    pytest.importorskip("pysam")
    file = open_vcf(vcf(tmp_path, ROW, ["chr1", "5", ".", "T", "<DEL>", ".", ".", f"END={end}"]))
    with VcfWriter(tmp_path / "o.vcf.gz", "o.vcf.gz", file.header, file.columns) as writer:
        for record in file:
            writer.write(record)
    assert [path.suffix for path in tmp_path.glob("o.vcf.gz.*")] == ([ending] if ending else [])
    assert (writer.without_index is None) == (ending is not None)


def test_contigs_are_renamed_where_none_is_known_by_its_own_name(genome, tmp_path):
    rows = [("1", 2, ".", "A", "C", ".", ".", "."), ("MT", 1, ".", "A", "C", ".", ".", ".")]
    assert survey(open_vcf(vcf(tmp_path, *rows)), genome).contigs == {"1": "chr1", "MT": "chrM"}
    path = vcf(tmp_path, *rows, ("7", 1, ".", "A", "C", ".", ".", "."))
    with pytest.raises(
        InputError, match=r"in.vcf:5: contig '7' \(position 1, A>C\) is not in g.fa, which has chr1, chrM"
    ):
        survey(open_vcf(path), genome)
    assert survey(open_vcf(path), genome, skip=True).statuses == {"ok": 2, "unknown_contig": 1}
    wrong = vcf(tmp_path, ("chr1", 1, ".", "A", "C", ".", ".", "."))
    with pytest.raises(InputError, match=r"1 with a wrong REF\. Wrong genome build"):
        survey(open_vcf(wrong), genome)


def test_info_is_appended(tmp_path):
    path = vcf(tmp_path, ("c", 1, ".", "A", "C,G", ".", ".", "."), ("c", 2, "x", "A", "C", "1", "q", "B=1;F"))
    first, second = open_vcf(path)
    assert first.text([b"X=1", b"Y"]) == b"c\t1\t.\tA\tC,G\t.\t.\tX=1;Y\n"
    assert second.text([b"X=1"]) == b"c\t2\tx\tA\tC\t1\tq\tB=1;F;X=1\n"
    assert second.info == {"B": "1", "F": ""} and first.info == {}
    assert first.split(1).text() == b"c\t1\t.\tA\tG\t.\t.\t.\n"


@pytest.mark.parametrize("length", [5000, 1_000_000_000])
def test_the_index_finds_every_record(tmp_path, length):
    """Random records and queries; a TBI for usual contigs, a CSI for a very long one."""
    pysam = pytest.importorskip("pysam")
    draw = random.Random(length)
    places = {name: sorted(draw.randrange(length) for _ in range(1000)) for name in ("a", "b")}
    header = [b"##fileformat=VCFv4.2", *(f"##contig=<ID={name},length={length + 99}>".encode() for name in places)]
    source = vcf(tmp_path, *(
        (name, place + 1, f"{name}{number}", "A" * draw.choice([1, 1, 1, 90]), "C", ".", ".", "X" * draw.randrange(99))
        for name, starts in places.items() for number, place in enumerate(starts)
    ))  # fmt: skip
    file = open_vcf(source)
    writer = VcfWriter(tmp_path / "tmp", "out.vcf.gz", header, file.columns)
    for record in file:
        writer.write(record)
    writer.close()
    (tmp_path / "tmp").rename(tmp_path / "out.vcf.gz")
    ending = ".csi" if length > 1 << 29 else ".tbi"
    assert writer.without_index is None and (tmp_path / f"out.vcf.gz{ending}").exists()
    rows = [(record.chrom, record.start, record.start + len(record.ref), record.id) for record in file]
    with pysam.VariantFile(str(tmp_path / "out.vcf.gz")) as peer:
        assert [record.id for record in peer] == [row[3] for row in rows]
        for _ in range(50):
            name, start = draw.choice("ab"), draw.randrange(length)
            end = start + draw.choice([1, 100, length // 10])
            right = [row[3] for row in rows if row[0] == name and row[1] < end and row[2] > start]
            assert [record.id for record in peer.fetch(name, start, end)] == right
    assert [record.cells for record in open_vcf(tmp_path / "out.vcf.gz")] == [record.cells for record in file]


@pytest.mark.parametrize(
    ("places", "is_sorted"),
    [("a0 a0 a5 a5 b1", True), ("a5 b1 a9", False), ("a5 a4", False), ("a5 a4 a6 b1", False), ("", True)],
)
def test_only_sorted_records_have_an_index(tmp_path, places, is_sorted):
    rows = [(place[0], place[1], ".", "A", "C", ".", ".", ".") for place in places.split()]
    file = open_vcf(vcf(tmp_path, *rows))
    writer = VcfWriter(tmp_path / "out.vcf.gz", "out.vcf.gz", file.header, file.columns)
    for record in file:
        writer.write(record)
    writer.close()
    assert (writer.without_index is None) == is_sorted == bool(list(tmp_path.glob("*.tbi")))
    assert is_sorted or "has no index, because its records are not sorted" in writer.without_index


def test_bcf_there_and_back(tmp_path):
    pysam = pytest.importorskip("pysam")
    header = [HEADER[0], '##INFO=<ID=DP,Number=1,Type=Integer,Description="d">', "##contig=<ID=c,length=9>", HEADER[1]]
    file = open_vcf(vcf(tmp_path, ("c", 2, "x", "A", "C,AT", "5", ".", "DP=7"), header=header))
    writer = VcfWriter(tmp_path / "tmp", "o.bcf", file.header, file.columns)
    for record in file:
        writer.write(record)
    writer.close()
    (tmp_path / "tmp").rename(tmp_path / "o.bcf")
    with pysam.VariantFile(str(tmp_path / "o.bcf")) as peer:
        assert peer.format == "BCF" and [str(record).strip() for record in peer] == ["c\t2\tx\tA\tC,AT\t5\t.\tDP=7"]
    assert [record.cells[:8] for record in open_vcf(tmp_path / "o.bcf")] == [record.cells for record in file]
    bad = Vcf(tmp_path / "bad", [b"##fileformat=VCFv4.2"], [b"#CHROM"])
    writer = VcfWriter(tmp_path / "tmp", "o.bcf", bad.header, bad.columns)
    with pytest.raises(InputError, match="BCF cannot hold this file"):
        writer.close()
