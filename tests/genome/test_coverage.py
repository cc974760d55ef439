"""Signals along a genome: bins by hand, both formats alike, strands, what is missing, and what is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from longstrand.errors import InputError, UsageError
from longstrand.genome.coverage import is_signal, open_signal
from longstrand.genome.intervals import Interval

NAN = float("nan")
LINES = "track type=bedGraph\nchr1\t2\t4\t1\nchr1\t4\t5\t5\nchr1\t8\t12\t-2\nchr2\t0\t3\t7\n"


@pytest.fixture(params=["bedgraph", "bigwig"])
def signal(request, tmp_path):
    """A track: chr1 ..11 5... -2-2-2-2, chr2 777."""
    if request.param == "bedgraph":
        (tmp_path / "t.bedGraph").write_text(LINES)
        return open_signal(tmp_path / "t.bedGraph")
    pybigtools = pytest.importorskip("pybigtools")
    rows = [("chr1", 2, 4, 1.0), ("chr1", 4, 5, 5.0), ("chr1", 8, 12, -2.0), ("chr2", 0, 3, 7.0)]
    pybigtools.open(str(tmp_path / "t.bw"), "w").write({"chr1": 12, "chr2": 8}, iter(rows))
    return open_signal(tmp_path / "t.bw")


def bins(signal, start, end, size, strand="+", **options):
    return signal.bins(Interval("chr1", start, end, strand), size, **options).tolist()


def test_bins_by_hand(signal):
    np.testing.assert_equal(bins(signal, 0, 12, 3), [1, 3, -2, -2])
    np.testing.assert_equal(bins(signal, 0, 12, 2), [NAN, 1, 5, NAN, -2, -2])
    np.testing.assert_equal(bins(signal, 0, 12, 2, "-"), [-2, -2, NAN, 5, 1, NAN])
    np.testing.assert_equal(bins(signal, 0, 12, 2, uncovered="zero"), [0, 1, 2.5, 0, -2, -2])
    np.testing.assert_equal(bins(signal, 0, 12, 3, reduce="sum"), [1, 6, -2, -6])
    np.testing.assert_equal(bins(signal, 0, 12, 3, reduce="max"), [1, 5, -2, -2])
    np.testing.assert_equal(bins(signal, 6, 9, 3, reduce="max", uncovered="zero"), [0])
    np.testing.assert_equal(bins(signal, 1, 4, 3), [1])
    assert np.isnan(signal.bins(Interval("chr9", 0, 4), 2)).all()


def test_another_genome_is_refused(signal):
    signal.check_genome({"chr1": 12, "chr3": 5})
    with pytest.raises(InputError, match="no chromosome of the genome is in this track; it has chr1, chr2, the genome"):
        signal.check_genome({"z": 12})


def test_another_assembly_is_refused(tmp_path):
    pybigtools = pytest.importorskip("pybigtools")
    pybigtools.open(str(tmp_path / "t.bw"), "w").write({"chr1": 12}, iter([("chr1", 0, 3, 1.0)]))
    with pytest.raises(InputError, match="'chr1' has 12 bases in the track and 13 in the genome"):
        open_signal(tmp_path / "t.bw").check_genome({"chr1": 13})


def test_an_infinite_value_is_named_and_refused(tmp_path):
    pybigtools = pytest.importorskip("pybigtools")
    rows = [("chr1", 0, 6, 1.0), ("chr1", 6, 7, float("inf"))]
    pybigtools.open(str(tmp_path / "t.bw"), "w").write({"chr1": 12}, iter(rows))
    found = open_signal(tmp_path / "t.bw")
    assert bins(found, 0, 6, 3) == [1, 1]
    with pytest.raises(InputError, match=r"t.bw: the value at chr1:7 is infinite"):
        bins(found, 3, 9, 3)


def write(path, text):
    path.write_text(text)
    return path


def test_a_line_past_the_end_of_its_chromosome(tmp_path):
    (tmp_path / "t.bedGraph").write_text(LINES)
    with pytest.raises(InputError, match=r"a line ends at chr1:12; it has 11 bases"):
        open_signal(tmp_path / "t.bedGraph").check_genome({"chr1": 11, "chr2": 3})


def test_names_of_signals(tmp_path):
    assert [is_signal(Path(name)) for name in ("a.bw", "a.BigWig", "a.bedGraph.gz", "a.bdg", "a.bed", "a.bw.gz")] == [
        True, True, True, True, False, False,
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"a\.wig: a WIG track; convert it to bedGraph or BigWig"):
        open_signal(write(tmp_path / "a.wig", "track type=wiggle_0\nfixedStep chrom=chr1 start=1 step=1\n5\n"))
    with pytest.raises(InputError, match=r"a\.csv: no signal track but a text table"):
        open_signal(write(tmp_path / "a.csv", "chrom,start,end,value\nchr1,1,2,3\n"))
    with pytest.raises(InputError, match="no such file"):
        open_signal(Path("nowhere.bw"))


def test_a_gzip_bedgraph_in_any_order(tmp_path):
    path = tmp_path / "t.bg.gz"
    path.write_bytes(gzip.compress(b"chr1 4 6 2\nchr1 0 2 1\n"))
    np.testing.assert_equal(bins(open_signal(path), 0, 6, 2), [1, NAN, 2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chr1\t0\t2\t1\nchr1\t1\t3\t1\n", "two lines give a value for chr1:1"),
        ("chr1\t0\t2\n", r"t\.bg:1: expected chrom, start, end and a number"),
        ("chr1\t0\t2\tmany\n", r"t\.bg:1: expected chrom"),
        ("chr1\t5\t2\t1\n", r"t\.bg:1: start 5, end 2"),
        ("chr1\t0\t2\tinf\n", "expected chrom, start, end and a number"),
        ("# nothing\n", "holds no line of a track"),
    ],
    ids=["overlap", "short", "word", "reversed", "infinite", "empty"],
)
def test_wrong_bedgraphs(tmp_path, text, message):
    (tmp_path / "t.bg").write_text(text)
    with pytest.raises(InputError, match=message):
        open_signal(tmp_path / "t.bg")


def test_a_damaged_bigwig(tmp_path, monkeypatch):
    pytest.importorskip("pybigtools")
    (tmp_path / "t.bw").write_bytes(b"\x26\xfc\x8f\x88 not a track")
    with pytest.raises(InputError, match="not readable as BigWig"):
        open_signal(tmp_path / "t.bw")
    monkeypatch.setitem(__import__("sys").modules, "pybigtools", None)
    with pytest.raises(UsageError, match="BigWig needs the package pybigtools"):
        open_signal(tmp_path / "t.bw")


def test_a_track_goes_by_the_names_of_its_genome(signal, caplog):
    signal.check_genome({"1": 12, "2": 8})
    np.testing.assert_array_equal(signal.bins(Interval("1", 2, 6), 2), [1, 5])
    assert np.isnan(signal.values("3", 0, 2)).all()
    assert "('chr1' is '1'); 2 contigs were matched" in caplog.text
    with pytest.raises(InputError, match="contig 'chr1' could be '1' or 'Chr1' of the genome"):
        signal.check_genome({"1": 12, "Chr1": 12})
