"""Reading rows to predict on; what commands show is tested with them."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import pytest

from longstrand.data.rows import Columns, count_rows, has_intervals, read_records
from longstrand.errors import InputError
from longstrand.genome.fasta import Genome
from longstrand.inference.loaded import fingerprint_input, fingerprint_model


def read(path: Path, content: str, **options: object) -> list[tuple[str, str]]:
    path.write_text(content, newline="")
    return [(record.name, record.sequence) for record in read_records(path, **options)]


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two columns are called 'sequence'"):
        read(tmp_path / "a.csv", "sequence,label,sequence\nACGT,1,TT\n")
    assert read(tmp_path / "a.csv", "sequence,label,label\nACGT,1,0\n") == [("row_1", "ACGT")]


def test_tables_of_all_kinds(tmp_path: Path) -> None:
    right = [("row_1", "ACGT"), ("row_2", "TT")]
    assert read(tmp_path / "a.csv", "label,sequence\r\n1,ACGT\r\n0, TT \r\n") == right
    assert read(tmp_path / "a.tsv", "label\tsequence\n1,5\tACGT\n0\tTT\n") == right
    assert read(tmp_path / "a.txt", "\ufeffsequence;label\nACGT;1\nTT;0") == right
    assert read(tmp_path / "b.csv", 'sequence\n"AC\nGT"\n')[0][1] == "AC\nGT"
    named = [("x", "ACGT"), ("y", "TT")]
    assert read(tmp_path / "a.csv", "id,sequence\nx,ACGT\ny,TT\n") == named
    assert read(tmp_path / "a.csv", "id,sequence,k\n1,ACGT,x\n2,TT,y\n", columns=Columns(name="k")) == named


def test_nothing_is_skipped(tmp_path: Path) -> None:
    assert [text for _, text in read(tmp_path / "a.csv", "k,sequence\n1,\n2,nan\n3,NaN\n4,null\n5,A\n")] == [
        "",
        "",
        "",
        "",
        "A",
    ]
    assert read(tmp_path / "a.fa", ">\n>b\n>b\nA C\n") == [("", ""), ("b", ""), ("b", "AC")]


def test_long_cells_and_long_lines(tmp_path: Path) -> None:
    assert len(read(tmp_path / "a.csv", "sequence,k\n" + "ACGT" * 100_000 + ",1\n")[0][1]) == 400_000


def test_a_damaged_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longstrand.data.tables.LONGEST_CELL", 8)
    with pytest.raises(InputError, match=r"a.csv: not readable as a table after row 1 \(field larger than"):
        read(tmp_path / "a.csv", "sequence,k\nA,1\nACGTACGTACGT,2\n")


def test_rows_are_counted(tmp_path: Path) -> None:
    for name, content, number in (
        ("a.csv", "sequence\nA\nC\n", 2),
        ("b.csv", "sequence\nA\nC", 2),
        ("a.fa", ">a\nAC\n>b\nGT", 2),
        ("b.fa.gz", ">a\nAC\n>b >c\nGT\n>d\n", 3),
    ):
        data = content.encode()
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
        assert count_rows(tmp_path / name) == number
    (tmp_path / "a.bed").write_text("c\t1\t2\n")
    assert count_rows(tmp_path / "a.bed") is None


def test_what_holds_intervals(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("chrom,start,end,label\n")
    (tmp_path / "b.csv").write_text("chrom,start,end,sequence\n")
    assert has_intervals(tmp_path / "a.csv")
    assert not has_intervals(tmp_path / "b.csv")
    assert not has_intervals(tmp_path / "a.csv", Columns(sequence="dna"))
    with pytest.raises(InputError, match="no sequence column 'dna'"):
        list(read_records(tmp_path / "a.csv", columns=Columns(sequence="dna")))
    (tmp_path / "x").write_text("chr1\t5\t9\tname\n")
    (tmp_path / "y.bed").write_text(">one\nAC\n")
    assert has_intervals(tmp_path / "x")
    assert not has_intervals(tmp_path / "y.bed")


@pytest.mark.parametrize(
    ("start", "end", "strand", "right"),
    [
        (1, 4, "+", "CGG"), (1, 4, "-", "CCG"), (-2, 2, "+", "NNAC"), (-2, 2, "-", "GTNN"), (5, 9, "+", "TNNN"),
        (-1, 7, "+", "NACGGATN"), (8, 10, "+", "NN"), (-4, -1, "+", "NNN"),
    ],
)  # fmt: skip
def test_windows_past_the_ends_are_filled_with_n(tmp_path: Path, start: int, end: int, strand: str, right: str) -> None:
    (tmp_path / "g.fa").write_text(">c\nACGGAT\n")
    assert Genome(tmp_path / "g.fa").fetch_padded("c", start, end, strand) == right


@pytest.mark.parametrize("kind", ["fa", "csv", "csv.gz"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, kind: str) -> None:
    def peak(number: int) -> int:
        row = ">r\n" if kind == "fa" else ""
        data = (("" if kind == "fa" else "sequence\n") + (row + "ACGT" * 100 + "\n") * number).encode()
        path = tmp_path / f"{number}.{kind}"
        path.write_bytes(gzip.compress(data) if kind.endswith("gz") else data)
        del data
        tracemalloc.start()
        assert sum(1 for _ in read_records(path)) == number
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(10)
    assert peak(5000) < peak(500) + 100_000


def test_fingerprints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"ACGT")
    first = fingerprint_input(path)
    path.write_bytes(b"ACGA")
    assert fingerprint_input(path) != first
    monkeypatch.setattr("longstrand.inference.loaded.SMALL_FILE", 1 << 20)
    path.write_bytes(b"A" * (3 << 20))
    large = fingerprint_input(path)
    assert fingerprint_input(path) == large
    with path.open("r+b") as file:
        file.write(b"C")
    assert fingerprint_input(path) != large


def test_fingerprint_of_a_model_without_a_record(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "longstrand.json").write_text('{"tokenizer": {}}')
    (tmp_path / "model.safetensors").write_bytes(b"1")
    first = fingerprint_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"2")
    assert fingerprint_model(tmp_path) != first
    (tmp_path / "longstrand.json").write_text('{"files": {"model.safetensors": {"sha256": "sha256:2"}}}')
    second = fingerprint_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"3")
    assert fingerprint_model(tmp_path) == second
