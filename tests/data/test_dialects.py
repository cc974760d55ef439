"""One table, FASTA or interval file in every dress that programs give it: the same values from every reader."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import zstandard

from longstrand.data.labelled import label, label_warnings
from longstrand.data.labelled_files import GenomeWindows, LabelColumns, read_labelled
from longstrand.data.rows import Columns, detect_file, read_intervals, read_records
from longstrand.data.tables import read_table
from longstrand.data.targets import infer_task
from longstrand.errors import InputError, UsageError
from longstrand.genome.annotation import read_annotation
from longstrand.genome.coverage import open_signal
from longstrand.genome.fasta import Genome
from longstrand.genome.intervals import Interval

ROWS = [("a", "ACGT", "1"), ("b, c", "GGCC", "0"), ("d", "TTAA", "1")]
FASTA = ">r0 first\nACGT\nAC\n>r1\nGG\n\nTT\n"
BED = "chr1\t4\t9\tpeak\t0\t-\nchr1\t10\t12\tother\t0\t+\n"
GTF = 'chr1\tx\texon\t5\t9\t.\t-\t.\tgene_id "g"; transcript_id "t";\n'
TRACK = "chr1 0 4 1.5\nchr1 4 9 2\n"


def zstd(data: bytes) -> bytes:
    """Two frames, as parallel compressors write them."""
    pack = zstandard.ZstdCompressor().compress
    return pack(data[: len(data) // 2]) + pack(data[len(data) // 2 :])


DRESSES = {
    "plain": lambda text: text.encode(),
    "crlf": lambda text: text.replace("\n", "\r\n").encode(),
    "cr": lambda text: text.replace("\n", "\r").encode(),
    "no last line end": lambda text: text.rstrip("\n").encode(),
    "blank lines": lambda text: ("\n" + text + "\n\n").encode(),
    "byte order mark": lambda text: text.encode("utf-8-sig"),
    "utf-16": lambda text: text.encode("utf-16"),
    "utf-16 big-endian": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "gzip": lambda text: gzip.compress(text.encode()),
    "gzip of two members": lambda text: gzip.compress(text[:9].encode()) + gzip.compress(text[9:].encode()),
    "zstd": lambda text: zstd(text.encode()),
    "crlf, utf-16, gzip": lambda text: gzip.compress(text.replace("\n", "\r\n").encode("utf-16")),
}


@pytest.fixture(params=list(DRESSES))
def dress(request, tmp_path):
    """Write a text in one of the dresses, under a name that says nothing."""

    def write(text: str) -> Path:
        path = tmp_path / "file"
        path.write_bytes(DRESSES[request.param](text))
        return path

    return write


def text_table(separator: str, quote: str = '"') -> str:
    lines = [["name", "sequence", "label"], *ROWS]
    return "".join(separator.join(f"{quote}{cell}{quote}" for cell in cells) + "\n" for cells in lines)


@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_tables(dress, separator: str) -> None:
    path = dress(text_table(separator))
    assert detect_file(path) == "table"
    assert read_table(path).rows() == ROWS
    assert [(record.name, record.sequence) for record in read_records(path)] == [row[:2] for row in ROWS]
    assert read_labelled(path).labels == {"label": [row[2] for row in ROWS]}


def test_fasta(dress, tmp_path: Path) -> None:
    path = dress(FASTA)
    assert [(record.name, record.sequence) for record in read_records(path)] == [("r0", "ACGTAC"), ("r1", "GGTT")]
    genome = Genome(path)
    assert {name: genome.fetch(name, 0, length) for name, length in genome.contigs.items()} == {
        "r0": "ACGTAC",
        "r1": "GGTT",
    }


def test_intervals_annotations_and_tracks(dress) -> None:
    assert read_intervals(dress(BED)).intervals == [Interval("chr1", 4, 9, "-"), Interval("chr1", 10, 12)]
    path = dress(GTF)
    assert [(item.start, item.end, item.strand, item.parent) for item in read_annotation(path)] == [(4, 9, "-", "t")]
    assert read_intervals(path).labels["kind"] == ["exon"]
    track = open_signal(dress(TRACK))
    assert track.values("chr1", 2, 6).tolist() == [1.5, 1.5, 2.0, 2.0]


def test_tables_of_other_programs(tmp_path: Path) -> None:
    pytest.importorskip("fastexcel")
    frame = pl.DataFrame(ROWS, schema=["name", "sequence", "label"], orient="row")
    frame.write_parquet(tmp_path / "parquet")
    (tmp_path / "json").write_text(json.dumps(frame.to_dicts()))
    (tmp_path / "jsonl").write_text("".join(json.dumps(row) + "\n" for row in frame.to_dicts()))
    (tmp_path / "sep").write_text("sep=;\n" + text_table(";"))
    (tmp_path / "wide").write_text(
        "name,sequence,label,,\n" + "".join(f'"{a}",{b},{c},,\n' for a, b, c in ROWS) + ",,,,\n"
    )
    (tmp_path / "remarks").write_text("# made by hand\n## twice\n" + text_table("\t", ""))
    for name in ("parquet", "json", "jsonl", "sep", "wide", "remarks"):
        assert read_table(tmp_path / name).rows() == ROWS, name
        assert [record.sequence for record in read_records(tmp_path / name)] == [row[1] for row in ROWS]


def test_json_without_a_value_or_with_two(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"sequence": "ACGT", "label": NaN}\n{"sequence": "GGT", "label": 2.50}\n')
    assert read_table(tmp_path / "t.jsonl").rows() == [("ACGT", "NaN"), ("GGT", "2.50")]
    (tmp_path / "t.jsonl").write_text('{"sequence": "ACGT", "label": 0, "label": 1}\n')
    with pytest.raises(InputError, match="one object has two values of one name"):
        read_table(tmp_path / "t.jsonl")


def test_numbers_of_json_stay_as_written(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(
        '[{"sequence": "AC", "label": 0.10, "list": [1, 0], "yes": true}, {"sequence": "GT"}]'
    )
    frame = read_table(tmp_path / "a.json")
    assert frame.rows() == [("AC", "0.10", "1;0", "1"), ("GT", None, None, None)]
    (tmp_path / "b.json").write_text('{"sequence": {"0": "AC"}}')
    with pytest.raises(InputError, match=r"b\.json: JSON, but no list of rows"):
        read_table(tmp_path / "b.json")


def write_excel(path: Path, *sheets: list[tuple[object, ...]]) -> Path:
    """Write a workbook as the format's specification says, numbers as numbers."""
    import zipfile

    def cell(value: object) -> str:
        return f"<c><v>{value}</v></c>" if isinstance(value, float) else f'<c t="inlineStr"><is><t>{value}</t></is></c>'

    schemas = "http://schemas.openxmlformats.org"
    main = f'xmlns="{schemas}/spreadsheetml/2006/main"'
    office = f"{schemas}/officeDocument/2006/relationships"
    package = f'xmlns="{schemas}/package/2006/relationships"'

    def link(name: str, kind: str, target: str) -> str:
        return f'<Relationship Id="{name}" Type="{office}/{kind}" Target="{target}"/>'

    names = [f"sheet{number}" for number in range(1, len(sheets) + 1)]
    listed = "".join(f'<sheet name="{name.title()}" sheetId="{name[5:]}" r:id="{name}"/>' for name in names)
    links = "".join(link(name, "worksheet", f"worksheets/{name}.xml") for name in names)
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{schemas}/package/2006/content-types"/>',
        "_rels/.rels": f"<Relationships {package}>{link('r', 'officeDocument', 'xl/workbook.xml')}</Relationships>",
        "xl/workbook.xml": f'<workbook {main} xmlns:r="{office}"><sheets>{listed}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f"<Relationships {package}>{links}</Relationships>",
    }
    for name, rows in zip(names, sheets):
        lines = "".join(f"<row>{''.join(map(cell, row))}</row>" for row in rows)
        parts[f"xl/worksheets/{name}.xml"] = f"<worksheet {main}><sheetData>{lines}</sheetData></worksheet>"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
    return path


def test_excel(tmp_path: Path) -> None:
    pytest.importorskip("fastexcel")
    rows: list[tuple[object, ...]] = [
        ("name", "sequence", "label"),
        ("x", "ACGT", 1.0),
        ("y", "GG", 0.5),
        ("z", "CC", "NA"),
    ]
    path = write_excel(tmp_path / "a.xlsx", rows, [])
    assert read_table(path).rows() == [("x", "ACGT", "1"), ("y", "GG", "0.5"), ("z", "CC", "NA")]
    with pytest.raises(InputError, match=r"b\.xlsx: an Excel workbook with 2 sheets with cells \(Sheet1, Sheet2\)"):
        read_table(write_excel(tmp_path / "b.xlsx", rows, rows))


def test_excel_without_its_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.xlsx", "w") as archive:
        archive.writestr("xl/workbook.xml", "")
    monkeypatch.setitem(__import__("sys").modules, "fastexcel", None)
    with pytest.raises(InputError, match=r"an Excel workbook; install its reader .*longstrand\[xlsx\]"):
        read_table(tmp_path / "a.xlsx")
    (tmp_path / "a.xlsx").write_bytes((tmp_path / "a.xlsx").read_bytes()[:30])
    with pytest.raises(InputError, match="truncated or damaged Excel workbook"):
        read_table(tmp_path / "a.xlsx")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"@r1\nACGT\n+\nIIII\n", "a FASTQ file of reads"),
        (b"@HD\tVN:1.6\n", "a SAM file"),
        (b"BAM\x01", "a BAM file"),
        (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
        (b"BZh9", "a bzip2 file"),
        (b"\x89HDF\r\n", "an HDF5 file"),
        (b"<!DOCTYPE html>\n", "a web page"),
        ("sequence,label\nACGT,1\n".encode("utf-16-le"), "UTF-16 without its mark"),
        (b"\x00\x01\x02\x03" * 9, "a binary file of an unknown kind"),
        (b"##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\n", "this is a VCF file of variants"),
    ],
)
def test_what_is_no_table_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    for read in (read_table, lambda path: list(read_records(path)), read_labelled, read_intervals):
        with pytest.raises(InputError, match=message):
            read(tmp_path / "t.csv")


@pytest.mark.parametrize("pack", [zstd, gzip.compress])
def test_truncated_packed_files(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    content = pack(text_table(",").encode() * 9)
    for end in (len(content) // 3, len(content) - 1):
        (tmp_path / "t.csv").write_bytes(content[:end])
        with pytest.raises(InputError, match="ends too early"):
            read_table(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sequence,a,b\nAC,1,2\nAC,1\n", "row 2: 2 cells where the header names 3 columns"),
        ("sequence,a,b\nAC,1,2,3\n", "row 1: 4 cells where the header names 3 columns"),
        ('sequence,a,b\nAC,"1,2\n', "not readable as a table after row 0"),
        ('sequence,a,b\nAC,"1"x,2\n', "not readable as a table after row 0"),
    ],
)
def test_uneven_rows_are_refused_by_all(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    for read in (
        read_table,
        lambda path: list(read_records(path)),
        lambda path: read_labelled(path, LabelColumns(labels="a")),
    ):
        with pytest.raises(InputError, match=message):
            read(tmp_path / "t.csv")


def test_a_row_of_empty_cells_counts_unless_nothing_follows(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("sequence,label\nAC,1\n,\nGT,0\n,\n\n,\n")
    assert read_table(tmp_path / "t.csv").rows() == [("AC", "1"), (None, None), ("GT", "0")]
    with pytest.raises(InputError, match="row 2: the sequence is missing"):
        read_labelled(tmp_path / "t.csv")


@pytest.mark.parametrize("word", ["NA", "NaN", "nan", "N/A", "NULL", "None", "<NA>", "#N/A", ""])
def test_missing_sequences_and_labels(tmp_path: Path, word: str) -> None:
    (tmp_path / "t.csv").write_text(f"sequence,label\nAC,1\n{word},2\nGT,{word}\n")
    assert [record.sequence for record in read_records(tmp_path / "t.csv")] == ["AC", "", "GT"]
    (tmp_path / "t.fa").write_text(f">a\nACGT\n>b\n{word}\n")
    assert [record.sequence for record in read_records(tmp_path / "t.fa")] == ["ACGT", ""]
    if word.isalpha() and word.isupper():
        (tmp_path / "t.txt").write_text(f"ACGTA\n{word if word == 'NA' else 'NAN'}\n")
        assert [record.sequence for record in read_records(tmp_path / "t.txt")] == ["ACGTA", ""]
    with pytest.raises(InputError, match="row 2: the sequence is missing"):
        read_labelled(tmp_path / "t.csv")
    (tmp_path / "u.csv").write_text(f"sequence,label\nAC,1.5\nGT,{word}\nCC,2\n")
    table = read_labelled(tmp_path / "u.csv")
    task = infer_task(table)
    assert (task.problem, label(table, task).num_missing) == ("regression", 1)


@pytest.mark.parametrize(
    "cell", ["[0, 1, 1, 0]", "[0 1 1 0]", "(0, 1, 1, 0)", "['0' '1' '1' '0']", "array([0, 1, 1, 0])"]
)
def test_lists_as_programs_print_them(tmp_path: Path, cell: str) -> None:
    (tmp_path / "t.csv").write_text(f'sequence,label\nACGT,"{cell}"\nAC,"[1, 0]"\n')
    table = read_labelled(tmp_path / "t.csv")
    task = infer_task(table)
    assert (task.problem, task.names) == ("token", ("0", "1"))
    assert [values.tolist() for values in label(table, task).targets] == [[0, 1, 1, 0], [1, 0]]


def test_lists_of_names_and_lists_in_lists(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("sequence,label\nACGTA,\"['a b', 'c']\"\nACG,\"[]\"\n")
    table = read_labelled(tmp_path / "t.csv")
    assert table.labels == {"label": ["a b;c", "-"]}
    (tmp_path / "t.csv").write_text('sequence,label\nAC,1\nAC,"[[0, 1], [1, 0]]"\n')
    with pytest.raises(InputError, match="row 2: a list in a list"):
        read_labelled(tmp_path / "t.csv")


def test_columns_that_intervals_cannot_have(tmp_path: Path) -> None:
    (tmp_path / "g.fa").write_text(">chr1\nACGTACGTAC\n")
    (tmp_path / "t.csv").write_text("chrom,start,end,gene\nchr1,1,4,x\nchr1,2,5,\n")
    genome = Genome(tmp_path / "g.fa")
    records = list(read_records(tmp_path / "t.csv", genome=genome, columns=Columns(name="gene")))
    assert [(record.name, record.sequence) for record in records] == [("x", "CGT"), ("chr1:3-5", "GTA")]
    with pytest.raises(InputError, match="no name column 'gen'"):
        read_records(tmp_path / "t.csv", genome=genome, columns=Columns(name="gen"))
    with pytest.raises(UsageError, match="intervals have no second column 'b'"):
        read_records(tmp_path / "t.csv", genome=genome, columns=Columns(second="b"))
    with pytest.raises(UsageError, match="FASTA sequences have no name column 'gene'"):
        read_records(tmp_path / "g.fa", columns=Columns(name="gene"))
    with pytest.raises(UsageError, match="FASTA sequences have no sequence column 'dna'"):
        read_records(tmp_path / "g.fa", columns=Columns("dna"))
    (tmp_path / "b.bed").write_text("chr1\t1\t4\tx\nchr1\t2\t5\ty\n")
    windows = GenomeWindows(genome)
    with pytest.raises(UsageError, match="intervals have no sequence column 'dna'"):
        read_labelled(tmp_path / "b.bed", LabelColumns(sequence="dna"), windows=windows)
    with pytest.raises(UsageError, match="intervals have no second column 'b'"):
        read_labelled(tmp_path / "b.bed", LabelColumns(pair="b"), windows=windows)
    named = read_labelled(tmp_path / "t.csv", LabelColumns(labels=("gene",), name="gene"), windows=windows)
    assert named.names == ["x", "chr1:3-5"]


def test_a_stray_carriage_return_moves_no_base(tmp_path: Path) -> None:
    """Case 06: one carriage return inside a record, everything else the same."""
    sequence = "ACGTTGCA" * 40
    lines = [sequence[start : start + 60] for start in range(0, len(sequence), 60)]
    (tmp_path / "clean.fa").write_text(">a\n" + "\n".join(lines) + "\n")
    lines[2] = lines[2][:17] + "\r" + lines[2][17:]
    (tmp_path / "stray.fa").write_bytes((">a\n" + "\n".join(lines) + "\n").encode())
    clean, stray = Genome(tmp_path / "clean.fa"), Genome(tmp_path / "stray.fa")
    assert stray.fingerprint == clean.fingerprint
    assert stray.fetch("a", 100, 300) == sequence[100:300]


def test_a_file_changed_with_its_times_put_back(tmp_path: Path) -> None:
    import os

    path = tmp_path / "g.fa"
    path.write_text(">a\nACGT\n")
    before = path.stat()
    assert Genome(path).fetch("a", 0, 4) == "ACGT"
    path.write_text(">a\nTTTT\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert Genome(path).fetch("a", 0, 4) == "TTTT"


def test_negatives_avoid_whole_intervals_of_all_splits(tmp_path: Path) -> None:
    """Fault 6: wide peaks, narrow windows, three files: no negative in a peak, none on a negative of another split."""
    import random

    letters = random.Random(3)
    (tmp_path / "g.fa").write_text(">chr1\n" + "".join(letters.choices("ACGT", k=30_000)) + "\n")
    peaks = [Interval("chr1", start, start + 600) for start in range(500, 29_000, 2_000)]
    for number, name in enumerate(("train", "valid", "test")):
        rows = [f"{item.chrom}\t{item.start}\t{item.end}\n" for item in peaks[number::3]]
        (tmp_path / f"{name}.bed").write_text("".join(rows))
    windows = GenomeWindows(Genome(tmp_path / "g.fa"), num_bases=100, negative_ratio=4)
    paths = [tmp_path / f"{name}.bed" for name in ("train", "valid", "test")]
    windows.reserve(*paths)
    negatives = []
    for path in paths:
        table = read_labelled(path, windows=windows)
        drawn = [name for name, value in zip(table.names or [], table.labels["label"]) if value == "0"]
        assert len(drawn) == 20
        places = [tuple(map(int, name.split(":")[1].split("-"))) for name in drawn]
        negatives += [Interval("chr1", start - 1, end) for start, end in places]
    assert not any(item.overlaps(peak.expand(100)) for item in negatives for peak in peaks)
    ordered = sorted(negatives)
    assert all(first.end <= second.start for first, second in itertools.pairwise(ordered))


def test_warnings_on_labels(tmp_path: Path) -> None:
    rows = "".join(f"{'ACGT'[i % 4] * (i + 2)},{'promoter' if i % 2 else 'other'}\n" for i in range(40))
    text = f"sequence,label\n{rows}ACCA,promotr\nCCC,promoter\nGGG,Other\nTTT,Other\n"
    (tmp_path / "t.csv").write_text(text)
    table = read_labelled(tmp_path / "t.csv")
    train = label(table, infer_task(table))
    assert label_warnings({"train": train, "test": label(table.take(range(10)), train.task)}) == [
        "train: the class 'promotr' has 1 row(s) (did you mean 'promoter'?).",
        "train: the classes 'Other' and 'other' differ in upper and lower case alone.",
        "test: 10 rows are few; one of them is 10 % of the accuracy.",
    ]


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        detect_file(tmp_path)
