from __future__ import annotations

import gzip
import multiprocessing
import os
import pickle
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pysam
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longstrand.errors import InputError
from longstrand.genome import fasta_index
from longstrand.genome.fasta import Genome, chrom_twin, genome_name, match_contigs
from longstrand.genome.intervals import Interval
from longstrand.genome.sequence import reverse_complement

RECORDS = {"chr1": "ACGTNNNNACGTACGTTTGCA", "chr2": "acgtRYnnTT", "empty_after": "A"}


def to_fasta(records: dict[str, str], *, width: int, line_end: str = "\n", last: bool = True) -> str:
    lines = []
    for name, sequence in records.items():
        lines.append(f">{name} some description")
        lines += [sequence[start : start + width] for start in range(0, len(sequence), width)]
    return line_end.join(lines) + (line_end if last else "")


def write_fasta(path: Path, text: str) -> Path:
    if path.name.endswith(".bgz"):
        plain = path.with_suffix(".tmp")
        plain.write_bytes(text.encode())
        pysam.tabix_compress(str(plain), str(path), force=True)
        plain.unlink()
    elif path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode(), 1))
    else:
        path.write_bytes(text.encode())
    return path


def check_all_fetches(genome: Genome, records: dict[str, str]) -> None:
    assert genome.contigs == {name: len(sequence) for name, sequence in records.items()}
    for name, sequence in records.items():
        for start in range(len(sequence) + 1):
            for end in range(start, len(sequence) + 1):
                assert genome.fetch(name, start, end) == sequence[start:end]


@pytest.mark.parametrize("name", ["g.fa", "g.fa.gz", "g.fa.bgz"])
@pytest.mark.parametrize("width", [1, 4, 7, 21, 100])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_every_fetch_from_every_kind_of_file(tmp_path: Path, cache: Path, name: str, width: int, line_end: str) -> None:
    path = write_fasta(tmp_path / name, to_fasta(RECORDS, width=width, line_end=line_end, last=width != 7))
    check_all_fetches(Genome(path), RECORDS)
    assert [item.name for item in tmp_path.iterdir() if item != cache] == [name]
    check_all_fetches(Genome(path), RECORDS)


def test_the_fingerprint_is_of_the_content(tmp_path: Path, cache: Path) -> None:
    kinds = [("a.fa", 5, "\n"), ("b.fa.gz", 9, "\r\n"), ("c.fa.bgz", 80, "\n")]
    paths = [write_fasta(tmp_path / name, to_fasta(RECORDS, width=width, line_end=end)) for name, width, end in kinds]
    assert len({Genome(path).fingerprint for path in paths}) == 1
    other = write_fasta(tmp_path / "d.fa", to_fasta({**RECORDS, "chr2": "acgtRYnnTA"}, width=5))
    assert Genome(other).fingerprint != Genome(paths[0]).fingerprint


def test_plain_files_are_read_in_place_and_others_copied_once(tmp_path: Path, cache: Path) -> None:
    Genome(write_fasta(tmp_path / "a.fa", to_fasta(RECORDS, width=5)))
    assert not list(cache.rglob("sequence.fa"))
    packed = write_fasta(tmp_path / "b.fa.gz", to_fasta(RECORDS, width=5))
    Genome(packed)
    (copy,) = cache.rglob("sequence.fa")
    before = copy.stat().st_mtime_ns
    Genome(packed)
    assert copy.stat().st_mtime_ns == before
    uneven = write_fasta(tmp_path / "c.fa", ">x\nACG\nACGTA\nAC\n>y\nTT\n\n")
    check_all_fetches(Genome(uneven), {"x": "ACGACGTAAC", "y": "TT"})
    assert len(list(cache.rglob("sequence.fa"))) == 2


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_layout_in_blocks_of_any_size(tmp_path: Path, data: st.DataObject) -> None:
    letters = st.text(alphabet="ACGTNn", min_size=1, max_size=30)
    records = data.draw(st.dictionaries(st.sampled_from(["a", "b", "c|d", "é"]), letters, min_size=1))
    lines = []
    for name, sequence in records.items():
        lines.append(f">{name}\tx > y")
        cuts = sorted(data.draw(st.lists(st.integers(0, len(sequence)), max_size=4)))
        lines += [sequence[start:end] for start, end in zip([0, *cuts], [*cuts, len(sequence)])]
    text = data.draw(st.sampled_from(["\n", "\r\n"])).join(lines) + data.draw(st.sampled_from(["", "\n", "\n\n"]))
    path = tmp_path / "g.fa"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fasta_index, "_BLOCK", data.draw(st.integers(1, 40)))
        patch.setattr(fasta_index, "_read_entry", lambda entry, source: None)
        folder = tmp_path / "copy"
        folder.mkdir(exist_ok=True)
        (folder / fasta_index.COPY_NAME).unlink(missing_ok=True)
        index = fasta_index._scan_into(path, folder)
    copy = folder / fasta_index.COPY_NAME
    content = (copy if copy.exists() else path).read_bytes()
    for name, sequence in records.items():
        contig = index.contigs[name]
        places = [contig.offset + i + i // contig.line_bases
                  for i in range(contig.length)]  # fmt: skip
        assert bytes(content[place] for place in places).decode() == sequence
        unknown = {place for start, end in index.gaps[name] for place in range(start, end)}
        assert unknown == {place for place, letter in enumerate(sequence) if letter in "Nn"}
        assert all(first[1] < second[0] for first, second in zip(index.gaps[name], index.gaps[name][1:]))


def test_the_strand_of_an_interval(tmp_path: Path, cache: Path) -> None:
    genome = Genome(write_fasta(tmp_path / "g.fa", to_fasta(RECORDS, width=5)))
    assert genome.fetch_interval(Interval("chr1", 0, 4)) == "ACGT"
    assert genome.fetch_interval(Interval("chr1", 16, 21, "-")) == reverse_complement("TTGCA")
    assert genome.whole("chr2") == Interval("chr2", 0, 10)
    assert repr(genome).endswith("3 records, 32 bases)")


def test_runs_without_n(tmp_path: Path, cache: Path) -> None:
    records = {"a": "NNACNGTTTnN", "b": "NNN", "c": "ACG"}
    genome = Genome(write_fasta(tmp_path / "g.fa", to_fasta(records, width=4)))
    assert genome.non_n_runs("a") == [(2, 4), (5, 9)]
    assert genome.non_n_runs("a", min_length=3) == [(5, 9)]
    assert genome.non_n_runs("b") == []
    assert genome.non_n_runs("c") == [(0, 3)]


def test_reads_longer_than_one_system_call(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longstrand.genome.fasta._LARGEST_READ", 6)
    check_all_fetches(Genome(write_fasta(tmp_path / "g.fa", to_fasta(RECORDS, width=5))), RECORDS)


def fetch_many(genome: Genome, seed: int) -> bool:
    source = random.Random(seed)
    whole = genome.fetch("c", 0, 5000)
    places = [source.randrange(4000) for _ in range(300)]
    return all(genome.fetch("c", place, place + 900) == whole[place : place + 900] for place in places)


def send_fetch_many(genome: Genome, seed: int, answers: multiprocessing.queues.Queue[bool]) -> None:
    answers.put(fetch_many(genome, seed))


@pytest.mark.parametrize("method", [pytest.param("fork", marks=pytest.mark.slow), "spawn"])
def test_processes_share_a_genome(tmp_path: Path, cache: Path, method: str) -> None:
    sequence = "".join(random.Random(1).choices("ACGT", k=5000))
    genome = Genome(write_fasta(tmp_path / "g.fa", to_fasta({"c": sequence}, width=61)))
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    workers = [context.Process(target=send_fetch_many, args=(genome, seed, answers)) for seed in range(2)]
    for worker in workers:
        worker.start()
    assert fetch_many(genome, 9)
    assert [answers.get(timeout=60) for _ in workers] == [True, True]
    for worker in workers:
        worker.join()


def open_and_fetch(path: Path, answers: multiprocessing.queues.Queue[str]) -> None:
    answers.put(Genome(path).fetch("c", 10, 20))


@pytest.mark.slow
def test_processes_that_index_at_once_share_one_copy(tmp_path: Path, cache: Path) -> None:
    sequence = "".join(random.Random(1).choices("ACGT", k=200_000))
    path = write_fasta(tmp_path / "g.fa.gz", to_fasta({"c": sequence}, width=61))
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    workers = [context.Process(target=open_and_fetch, args=(path, answers)) for _ in range(4)]
    for worker in workers:
        worker.start()
    assert [answers.get(timeout=60) for _ in workers] == [sequence[10:20]] * 4
    for worker in workers:
        worker.join()
    assert len([item for item in (cache / "genomes").iterdir() if item.is_dir()]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.01])
def test_a_killed_indexing_leaves_nothing_that_is_used(tmp_path: Path, cache: Path, delay: float) -> None:
    sequence = "".join(random.Random(1).choices("ACGT", k=100_000)) * 8
    path = write_fasta(tmp_path / "g.fa.gz", to_fasta({"c": sequence}, width=61))
    context = multiprocessing.get_context("fork")
    worker = context.Process(target=open_and_fetch, args=(path, context.Queue()))
    worker.start()
    time.sleep(delay)
    worker.kill()
    worker.join()
    assert Genome(path).fetch("c", 799_000, 800_000) == sequence[799_000:]
    assert not list((cache / "genomes").glob(".tmp-*"))


def test_threads_share_a_genome(tmp_path: Path, cache: Path) -> None:
    sequence = "".join(random.Random(1).choices("ACGT", k=5000))
    genome = Genome(write_fasta(tmp_path / "g.fa.gz", to_fasta({"c": sequence}, width=61)))
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda seed: fetch_many(genome, seed), range(8)))


def test_a_pickle_notices_another_file(tmp_path: Path, cache: Path) -> None:
    path = write_fasta(tmp_path / "g.fa", to_fasta(RECORDS, width=5))
    stored = pickle.dumps(Genome(path))
    assert pickle.loads(stored).fetch("chr1", 0, 4) == "ACGT"
    write_fasta(path, to_fasta({"chr1": "TTTT"}, width=5))
    with pytest.raises(InputError, match=r"g\.fa: the file changed since this run opened it"):
        pickle.loads(stored)


def test_a_pickle_opens_from_another_folder(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fasta(tmp_path / "g.fa", to_fasta(RECORDS, width=5))
    monkeypatch.chdir(tmp_path)
    stored = pickle.dumps(Genome("g.fa"))
    monkeypatch.chdir(os.sep)
    again = pickle.loads(stored)
    assert again.fetch("chr1", 0, 4) == "ACGT"
    assert again.path == Path("g.fa")


def test_names() -> None:
    assert genome_name(Path("x/hg38.fa.gz")) == "hg38"
    assert genome_name(Path("scer.R64-1-1.fasta")) == "scer.R64-1-1"
    assert genome_name(Path(".fa")) == ".fa"


@pytest.mark.parametrize(
    ("chrom", "names", "twin"),
    [
        ("chr1", ["1", "2"], "1"),
        ("1", ["chr1", "chr2"], "chr1"),
        ("MT", ["chrM"], "chrM"),
        ("chrM", ["MT"], "MT"),
        ("1", ["Chr1"], "Chr1"),
        ("chri", ["chrI", "CHRI"], "CHRI"),
        ("chr7", ["chr1"], None),
    ],
)
def test_the_other_name_of_a_chromosome(chrom: str, names: list[str], twin: str | None) -> None:
    assert chrom_twin(chrom, names) == twin


def test_contigs_of_a_file_by_the_names_of_a_genome() -> None:
    """Their own names where there is one; else the other usual ones, unless that could mean two."""
    assert match_contigs(["chr1", "chrX", "chr1"], {"chr1", "X"}, "f") == {"chr1": "chr1"}
    assert match_contigs(["chr1", "chrM", "chrUn"], {"1", "Mito"}, "f") == {"chr1": "1", "chrM": "Mito"}
    assert match_contigs(["z"], {"1"}, "f") == match_contigs([], {"1"}, "f") == {}
    with pytest.raises(InputError, match="f: contig 'chrM' could be 'M' or 'MT' of the genome"):
        match_contigs(["chrM"], {"M", "MT"}, "f")
    with pytest.raises(InputError, match="f: contigs 'chr1' and 'Chr1' would both be '1' of the genome"):
        match_contigs(["chr1", "Chr1"], {"1"}, "f")


@pytest.mark.data
def test_real_genomes_agree_with_pysam(shared: Path, tmp_path: Path, cache: Path) -> None:
    source = shared / "data" / "genomes" / "dmelanogaster_1pct.fa.gz"
    plain = tmp_path / "dm.fa"
    plain.write_bytes(gzip.decompress(source.read_bytes()))
    pysam.faidx(str(plain))
    numbers = random.Random(3)
    with pysam.FastaFile(str(plain)) as peer:
        for genome in (Genome(source), Genome(plain)):
            assert genome.contigs == dict(zip(peer.references, peer.lengths))
            for _ in range(300):
                chrom = numbers.choice(list(genome.contigs))
                start = numbers.randrange(genome.contigs[chrom])
                end = min(genome.contigs[chrom], start + numbers.randrange(5000))
                assert genome.fetch(chrom, start, end) == peer.fetch(chrom, start, end)
