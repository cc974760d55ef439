from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
import pytest

from longstrand.data.rows import read_intervals
from longstrand.errors import InputError
from longstrand.genome.intervals import Interval

BED = "#comment\ntrack name=x\nchr1\t5\t9\tpeak1\t3\t-\t0.5\nchr2\t0\t4\tpeak2\t.\t.\t\n"


def write(path: Path, text: str) -> Path:
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["x.bed", "x.bed.gz", "x.narrowPeak"])
def test_bed_with_all_columns(tmp_path: Path, name: str) -> None:
    table = read_intervals(write(tmp_path / name, BED))
    assert table.intervals == [Interval("chr1", 5, 9, "-"), Interval("chr2", 0, 4, "+")]
    assert table.labels == {"name": ["peak1", "peak2"], "score": ["3", None], "column_7": ["0.5", None]}
    assert table.lines == [3, 4]
    assert table.where(1) == f"{tmp_path / name}:4"


def test_bed_rows_of_several_blocks_are_read_whole_and_this_is_said(tmp_path, caplog) -> None:
    rows = ["chr1\t5\t90\ttx\t0\t+\t5\t90\t0\t2\t10,20\t0,65\n", "chr1\t5\t9\tone\t0\t+\t5\t9\t0\t1\t4\t0\n"]
    assert read_intervals(write(tmp_path / "x.bed", "".join(rows))).intervals[0] == Interval("chr1", 5, 90)
    assert "x.bed: 1 rows have several blocks (BED12)" in caplog.text


def test_bed_with_three_columns_and_spaces(tmp_path: Path) -> None:
    table = read_intervals(write(tmp_path / "x.bed", "chr1 5 9\nchr1 7 8\n"))
    assert table.intervals == [Interval("chr1", 5, 9), Interval("chr1", 7, 8)]
    assert table.labels == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chr1\t5\n", r"x\.bed:1: 2 columns where 3 are needed"),
        ("chr1\t5\t9\nchr1\t5\t9\tx\n", r"x\.bed:2: 4 columns where 3 are needed"),
        ("chr1\t9\t5\n", r"x\.bed:1: an interval needs 0 <= start <= end, got chr1:9-5"),
        ("chr1\tfive\t9\n", r"x\.bed:1: start and end are whole numbers, got 'five' and '9'"),
        ("chr1\t5\t9\tn\t0\t?\n", r"x\.bed:1: strand is '\+' or '-', got '\?'"),
        ("\t5\t9\n", r"x\.bed:1: the chromosome is missing"),
        ("# only a comment\n", r"x\.bed: the file holds no interval"),
        ("", r"x\.bed: the file is empty"),
    ],
)
def test_bad_bed_lines_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_intervals(write(tmp_path / "x.bed", text))


def test_binary_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.bed").write_bytes(b"\x07\xfe\x00\x01")
    with pytest.raises(InputError, match=r"x\.bed: neither a table nor sequences but a binary file"):
        read_intervals(tmp_path / "x.bed")
    (tmp_path / "x.csv").write_bytes(b"chrom,start,end\n\xff\xfe,1,2\n")
    with pytest.raises(InputError, match=r"x\.csv: line 2 holds a letter that is not UTF-8"):
        read_intervals(tmp_path / "x.csv")


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz", "x.tsv", "x.parquet"])
def test_tables(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    rows = {"Chrom": ["chr1", "chr2"], "start": [5, 0], "end": [9, 4], "strand": ["-", "."], "label": ["a,b", None]}
    frame = pl.DataFrame(rows)
    if name.endswith("parquet"):
        frame.write_parquet(path)
    else:
        write(path, frame.write_csv(separator="\t" if "tsv" in name else ","))
    table = read_intervals(path)
    assert table.intervals == [Interval("chr1", 5, 9, "-"), Interval("chr2", 0, 4, "+")]
    assert table.labels == {"label": ["a,b", None]}
    assert table.lines == ([1, 2] if name.endswith("parquet") else [2, 3])


def test_a_bed_file_whose_first_line_names_its_columns_is_a_table(tmp_path: Path) -> None:
    text = "#chrom\tstart\tend\tstrand\tlabel\nchr1\t5\t9\t-\tx\n"
    table = read_intervals(write(tmp_path / "x.bed", text))
    assert (table.intervals, table.labels) == ([Interval("chr1", 5, 9, "-")], {"label": ["x"]})


def test_table_without_strand_and_with_other_names(tmp_path: Path) -> None:
    table = read_intervals(write(tmp_path / "x.csv", "name,chr,chromStart,chromEnd\nx,1,5,9\n"))
    assert table.intervals == [Interval("1", 5, 9)]
    assert table.labels == {"name": ["x"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chrom,begin,end\nchr1,5,9\n", r"no interval column 'start'; columns are: chrom, begin, end"),
        ("chr1,5,9\n", r"no interval column 'chrom' .*; columns are: chr1, 5, 9 \(is the header line missing"),
        ("chrom,start,end,label\nchr1,5,9,x\nchr1,5\n", r"x\.csv, row 2: 2 cells where the header names 4 columns"),
        ("chrom,start,end\nchr1,5,9.5\n", r"x\.csv:2: start and end are whole numbers, got '5' and '9\.5'"),
        ("chrom,start,Start,end\nchr1,5,6,9\n", r"the columns 'start' and 'Start' could both be the start"),
        ("chrom,start,end,strand,Strand\nchr1,5,9,+,-\n", r"'strand' and 'Strand' could both be the strand"),
        ("seqnames,start,end,width,strand\nchr1,5,9,5,+\nchr1,8,8,1,-\n", r"x\.csv:2: 'width' .* counts from 1"),
        ("chrom,start,end,name\nchr1,5,9,+\nchr1,5,9,-\n", r"the column of the name holds strands"),
        ("chrom,start,end\n", r"x\.csv: the file holds no interval"),
        ("", r"x\.csv: the file is empty"),
    ],
)
def test_bad_tables_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_intervals(write(tmp_path / "x.csv", text))


@pytest.mark.parametrize("name", ["no.bed", "no.csv", "no.parquet"])
def test_missing_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_intervals(tmp_path / name)


def test_a_file_that_is_no_parquet(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x\.parquet: not readable as Parquet"):
        read_intervals(write(tmp_path / "x.parquet", "PAR1 chrom,start,end\n"))


def test_truncated_gzip(tmp_path: Path) -> None:
    path = write(tmp_path / "x.bed.gz", "".join(f"chr1\t{place}\t{place + 7}\n" for place in range(0, 90_000, 7)))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match="the gzip file ends too early"):
        read_intervals(path)
