from __future__ import annotations

import errno
import gzip
import logging
import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from longstrand.errors import InputError
from longstrand.genome import fasta_index
from longstrand.genome.fasta import Genome
from longstrand.genome.fasta_scan import FastaIndex
from longstrand.runtime import cache_dir
from tests.genome.test_fasta import write_fasta


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"g\.fa: the file is empty"),
        ("\n\n", r"g\.fa: the file is empty"),
        ("ACGT\n", r"g\.fa:1: not a FASTA file: the line begins with 'ACGT', not with '>'"),
        ("\nhello\n>x\nA\n", r"g\.fa:1: not a FASTA file: the line begins with '(hello)?', not with '>'"),
        ("@read1\nACGT\n+\nIIII\n", r"g\.fa: a FASTQ file of reads; convert it to FASTA"),
        ("LOCUS  X\n", r"g\.fa: a GenBank file; convert it to FASTA"),
        (">x\nAC\n> \nAC\n", r"g\.fa:3: a FASTA header has no name after '>'"),
        (">x\nAC\n>y\n>z\nA\n", r"g\.fa:3: record 'y' is empty; remove it or add its sequence"),
        (">x\nAC\n>y", r"g\.fa:3: record 'y' is empty"),
        (">x\nAC\n>y\nG\n>x z\nA\n", r"g\.fa:5: record 'x' occurs twice \(first in line 1\)"),
        (">x\nAC\nAXC\n", r"g\.fa:3: 'X' in record 'x' is no nucleotide letter"),
        (">x\r\nAC\r\nA-C\r\n", r"g\.fa:3: '-' in record 'x' is no nucleotide letter"),
        (">p\nMKV\nLEE\n", r"g\.fa:3: 'L' in record 'p' is no nucleotide letter"),
        (">x\nAC GT\n", r"g\.fa:2: ' ' in record 'x' is no nucleotide letter"),
    ],
)
@pytest.mark.parametrize("name", ["g.fa", "g.fa.gz"])
def test_files_that_are_no_genome(tmp_path: Path, cache: Path, name: str, text: str, message: str) -> None:
    path = write_fasta(tmp_path / name, text)
    with pytest.raises(InputError, match=message.replace(r"g\.fa", r"g\.fa(\.gz)?")):
        Genome(path)
    assert [item for item in (cache / "genomes").iterdir() if item.suffix != ".lock"] == []


def test_missing_file(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(InputError, match=r"no\.fa: no such file; give the path of a FASTA file"):
        Genome(tmp_path / "no.fa")


def test_a_folder(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(InputError, match="a FASTA file is needed, this is a folder or a device"):
        Genome(tmp_path)


def test_an_unreadable_path(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"cannot be read \(Not a directory\)"):
        Genome(tmp_path / "file" / "g.fa")


def test_no_permission(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_fasta(tmp_path / "g.fa", ">x\nACGT\n")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match=r"g\.fa: cannot be read \(permission denied\)"):
        Genome(path)


def random_fasta(num_bases: int) -> str:
    return ">x\n" + "".join(random.Random(2).choices("ACGT", k=num_bases)) + "\n"


@pytest.mark.parametrize("missing", [1, 9, 4000])
def test_truncated_gzip(tmp_path: Path, cache: Path, missing: int) -> None:
    path = write_fasta(tmp_path / "g.fa.gz", random_fasta(30_000))
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(InputError, match=r"g\.fa\.gz: the gzip file ends too early"):
        Genome(path)
    assert not list(cache.rglob("sequence.fa"))


def test_bgzip_cut_at_a_block_border(tmp_path: Path, cache: Path) -> None:
    path = write_fasta(tmp_path / "g.fa.bgz", random_fasta(200_000))
    content = path.read_bytes()
    assert gzip.decompress(content[:-28])
    path.write_bytes(content[:-28])
    with pytest.raises(InputError, match=r"the bgzip file has no end marker"):
        Genome(path)


def test_damaged_gzip(tmp_path: Path, cache: Path) -> None:
    path = write_fasta(tmp_path / "g.fa.gz", random_fasta(30_000))
    content = bytearray(path.read_bytes())
    content[4000:4010] = b"0123456789"
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"g\.fa\.gz: the gzip file is damaged"):
        Genome(path)


@pytest.fixture
def genome(tmp_path: Path, cache: Path) -> Genome:
    return Genome(write_fasta(tmp_path / "g.fa", ">chr1\nACGTACGTAC\n>chrM\nAC\n"))


@pytest.mark.parametrize(("start", "end"), [(-1, 3), (0, 11), (5, 4), (11, 11)])
def test_out_of_range(genome: Genome, start: int, end: int) -> None:
    with pytest.raises(InputError, match=rf"chr1:{start + 1}-{end} leaves the record, which has 10 bases"):
        genome.fetch("chr1", start, end)


def test_unknown_records(genome: Genome) -> None:
    with pytest.raises(InputError, match=r"no record '1' in g\.fa, which calls it 'chr1'; use that name"):
        genome.fetch("1", 0, 1)
    with pytest.raises(InputError, match=r"no record 'scaffold9' in g\.fa; its records are chr1, chrM\."):
        genome.whole("scaffold9")
    with pytest.raises(InputError, match=r"peaks\.bed:3: no record '1' \(and 1 more\) in g\.fa"):
        genome.check_chroms(["chr1", "1", "1", "MT"], where="peaks.bed:3")


def test_a_file_cut_while_it_is_open(genome: Genome) -> None:
    genome.path.write_text(">chr1\nACGT\n")
    with pytest.raises(InputError, match="the file changed while it was being read"):
        genome.fetch("chr1", 0, 10)


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_fasta(tmp_path / "g.fa.gz", ">x\nACGT\n")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            InputError, match=r"cannot be written to the cache .* \(No space left on device\); free some"
        ):
            Genome(path)
    assert [item for item in (cache / "genomes").iterdir() if item.suffix != ".lock"] == []
    assert Genome(path).fetch("x", 0, 4) == "ACGT"


def test_an_interrupted_copy_is_never_used(tmp_path: Path, cache: Path) -> None:
    path = write_fasta(tmp_path / "g.fa.gz", ">x\nACGT\n")
    Genome(path)
    (entry,) = (item for item in (cache / "genomes").iterdir() if item.is_dir())
    (entry / "sequence.fa").write_bytes(b">x\nAC")
    stale = entry.parent / f".tmp-{entry.name}-99999999"
    stale.mkdir()
    assert Genome(path).fetch("x", 0, 4) == "ACGT"
    assert not stale.exists()
    (entry / "index.json").write_text('{"format":')
    assert Genome(path).fetch("x", 0, 4) == "ACGT"


def test_two_at_once_where_there_are_no_locks(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both scan, neither removes what the other writes, and one index is left."""
    path, both, scan = write_fasta(tmp_path / "g.fa.gz", ">x\nACGT\n"), threading.Barrier(2), fasta_index._scan_into

    def meet(source: Path, folder: Path) -> FastaIndex:
        found = scan(source, folder)
        both.wait(timeout=20)
        return found

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fasta_index, "_scan_into", meet)
    monkeypatch.setattr("fcntl.flock", no_locks)
    with ThreadPoolExecutor(2) as pool:
        assert [genome.fetch("x", 0, 4) for genome in pool.map(Genome, [path, path])] == ["ACGT"] * 2
    assert len([item for item in (cache / "genomes").iterdir() if item.is_dir()]) == 1


def test_an_index_that_cannot_be_read_back(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_fasta(tmp_path / "g.fa", ">x\nACGT\n")
    monkeypatch.setattr(fasta_index, "_read_entry", lambda entry, source: None)
    with pytest.raises(InputError, match=r"g\.fa: its index in the cache .* cannot be read back; check the disk"):
        Genome(path)


def test_a_copy_that_vanishes_before_it_is_opened(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_fasta(tmp_path / "g.fa.gz", ">x\nACGT\n")
    Genome(path)

    def gone(path: Path, flags: int) -> int:
        raise OSError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(os, "open", gone)
    with pytest.raises(InputError, match=r"sequence\.fa: cannot be read \(No such file or directory\)"):
        Genome(path)


def test_a_cache_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_fasta(tmp_path / "g.fa.gz", ">x\nACGT\n")
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("LONGSTRAND_CACHE", str(tmp_path / "file" / "cache"))
    cache_dir.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            assert Genome(path).fetch("x", 1, 3) == "CG"
        assert "cannot be written; using" in caplog.text
    finally:
        cache_dir.cache_clear()
