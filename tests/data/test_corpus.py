"""Many genomes: corpus files, sampling, contig rules, the index in the cache, and everything that can be wrong."""

import gzip
import math
import pickle
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from longstrand.data import genomes as genome_sets
from longstrand.data.corpus import (
    GenomeEntry,
    expand,
    one_per_genus,
    open_corpus,
    read_corpus,
    tokenizer_pieces,
    write_sequences,
)
from longstrand.data.genomes import ContigRules, Sampling, open_genomes
from longstrand.data.permutation import draw_bits, draw_many
from longstrand.data.windows import HoldOut, TrainingWindows
from longstrand.errors import InputError, LongstrandError, UsageError
from longstrand.genome.fasta import Genome
from tests.data.window_toys import random_dna, write_fasta

SIZES = {"Aus bus": 400, "Aus cus": 800, "Dus eus": 1600}


@pytest.fixture
def folder(tmp_path):
    """Three genomes of two genera and two taxa in a table; each has a short contig and one of N."""
    rows = ["fasta\tspecies\ttaxon\tweight\thold_out"]
    for number, (species, size) in enumerate(SIZES.items()):
        name = f"{species.replace(' ', '_')}.fa"
        contigs = {"main": random_dna(size, seed=number), "mt mitochondrion of it": random_dna(60, seed=9 + number)}
        write_fasta(tmp_path / name, contigs | {"mostly": "N" * 300 + random_dna(100, seed=20 + number)})
        rows.append(f"{name}\t{species}\t{'one' if number < 2 else 'two'}\t\t{'none' if number else 'mt'}")
    (tmp_path / "corpus.tsv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_a_table_and_yaml_say_the_same(folder):
    table = read_corpus(folder / "corpus.tsv")
    assert [(entry.name, entry.taxon, entry.weight) for entry in table] == [
        ("Aus bus", "one", 1.0), ("Aus cus", "one", 1.0), ("Dus eus", "two", 1.0),
    ]  # fmt: skip
    assert [entry.hold_out for entry in table] == [("mt",), ("none",), ("none",)]
    text = "genomes:\n" + "".join(
        f"- {{fasta: {e.fasta.name}, species: {e.name}, taxon: {e.taxon}, hold_out: {e.hold_out[0]}}}\n" for e in table
    )
    (folder / "corpus.yaml").write_text(text)
    assert read_corpus(folder / "corpus.yaml") == table
    doubled = expand([GenomeEntry(fasta=folder / "corpus.tsv", weight=2.0)])
    assert [entry.weight for entry in doubled] == [2.0] * 3


def test_one_species_of_each_genus(folder):
    entries = read_corpus(folder / "corpus.tsv")
    chosen = [entry.name for entry in one_per_genus(entries)]
    assert len(chosen) == 2 and chosen[1] == "Dus eus"
    assert chosen == [entry.name for entry in one_per_genus(entries[::-1])][::-1]


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(), [4, 8, 16]),
        (Sampling(temperature=2.0), [2, 2 * 2**0.5, 4]),
        (Sampling(temperature=float("inf")), [1, 1, 1]),
        (Sampling(taxa={"one": 0.75, "two": 0.25}), [3, 6, 3]),
    ],
)
def test_shares_by_hand_and_in_what_is_drawn(folder, sampling, expected):
    rules = ContigRules(only=("main",))
    genomes = open_corpus(read_corpus(folder / "corpus.tsv"), sampling=sampling, contigs=rules)
    windows = TrainingWindows(genomes, num_bases=50, num_samples=2000, seed=2)
    shares = dict(zip(SIZES, np.array(expected) / sum(expected)))
    assert windows.genome_shares == pytest.approx(shares)
    drawn = [window.genome for window in windows]
    for name, share in shares.items():
        assert drawn.count(name) / 2000 == pytest.approx(share, abs=0.04)


def test_sampling_that_does_not_fit(folder):
    entries = read_corpus(folder / "corpus.tsv")
    for taxa, message in [
        ({"one": 1.0}, "gives no share to the taxon 'two' of 1 genomes"),
        ({"one": 1, "two": 1, "six": 1}, "no genome has bases of the taxon 'six'"),
    ]:
        with pytest.raises(UsageError, match=message):
            TrainingWindows(open_corpus(entries, sampling=Sampling(taxa=taxa)), num_bases=50, num_samples=1, seed=0)
    entries[0] = entries[0].model_copy(update={"taxon": None})
    with pytest.raises(UsageError, match="no share to 1 genomes without a taxon"):
        TrainingWindows(open_corpus(entries, sampling=Sampling(taxa={"two": 1.0, "one": 1})), num_bases=50,
                        num_samples=1, seed=0)  # fmt: skip
    for taxa in ({"one": -0.5, "two": 1.0}, {"one": math.nan, "two": 1}, {"one": math.inf}, {"one": 0.0, "two": 0.0}):
        with pytest.raises(ValueError, match=r"greater than or equal to 0|finite number|all shares are 0"):
            Sampling(taxa=taxa)
    with pytest.raises(ValueError, match="same weight"):
        even = Sampling(temperature=2.0)
        TrainingWindows(open_corpus(entries, sampling=even), num_bases=50, num_samples=1, seed=0, order="epoch")


@pytest.mark.parametrize(
    ("rules", "left"),
    [
        (ContigRules(min_length=100), ["main", "mostly"]),
        (ContigRules(max_unknown=0.5), ["main", "mt"]),
        (ContigRules(skip=("*mitochondrion*",)), ["main", "mostly"]),
        (ContigRules(skip=("m*t*",), only=("m*",)), ["main"]),
    ],
)
def test_contig_rules(folder, rules, left):
    genomes = open_corpus(read_corpus(folder / "corpus.tsv"), contigs=rules)
    assert list(genomes.lengths(0)) == left
    windows = TrainingWindows(genomes, num_bases=40, num_samples=1, seed=0)
    assert set(windows.regions.chroms) == set(left)


def test_the_index_in_the_cache_reads_the_same(folder, monkeypatch):
    """Kept or not, pickled or not: the same windows; a file that changed is refused by whoever opened it before."""
    paths = [entry.fasta for entry in read_corpus(folder / "corpus.tsv")]
    settings = {"num_bases": 50, "num_samples": 60, "seed": 4}
    holdout = {Genome(paths[0]).name: HoldOut(contigs=("mt",))}
    plain = TrainingWindows(paths, holdout=holdout, **settings)
    monkeypatch.setattr(genome_sets, "KEPT_FROM", 2)
    monkeypatch.setattr(genome_sets, "MOST_OPEN", 1)
    built = []
    monkeypatch.setattr(
        genome_sets, "write_index", lambda *args, keep=genome_sets.write_index: built.append(keep(*args))
    )
    for _ in range(2):
        kept = TrainingWindows(paths, holdout=holdout, **settings)
        assert isinstance(kept.genomes.contigs.base, np.memmap) and len(built) == 1
    again = pickle.loads(pickle.dumps(kept))
    assert list(plain) == list(kept) == list(again)
    assert len(pickle.dumps(kept.genomes)) < 3000
    fingerprints = kept.genomes.fingerprints
    write_fasta(paths[1], {"main": random_dna(900, seed=77)})
    unopened = pickle.loads(pickle.dumps(kept))
    with pytest.raises(InputError, match=r"Aus_cus\.fa: the file changed since this run opened it"):
        list(unopened)
    changed = open_genomes(paths)
    assert len(built) == 2 and [a == b for a, b in zip(changed.fingerprints, fingerprints)] == [True, False, True]


@pytest.mark.parametrize("kept", [False, True])
def test_everything_missing_is_named_at_once(folder, monkeypatch, kept):
    monkeypatch.setattr(genome_sets, "KEPT_FROM", 2 if kept else 99)
    for name in ("Aus_bus.fa", "Dus_eus.fa"):
        (folder / name).unlink()
    with pytest.raises(
        InputError, match=r"^2 genomes cannot be read: \S+Aus_bus\.fa, \S+Dus_eus\.fa: no such file; [^:]*$"
    ):
        open_corpus(read_corpus(folder / "corpus.tsv"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a.fa\tx\t0\nb.fa\ty\tnan\nc.fa\tz\t-1", r":2: 'weight'.*:3: 'weight'.*:4: 'weight'"),
        ("a.fa\tx\t1\nb.fa\tx \t1", "each species is given once; two are called x"),
        ("a.fa\tHomo sapiens\t1\nb.fa\thomo_sapiens\t1", "two are called Homo sapiens, homo_sapiens"),
        ("Aus_bus.fa\tx\t1\nsame.fa\ty\t1", r"same genome: \S+Aus_bus.fa and \S+same.fa"),
        ("Aus_bus.fa\tx\t1\nzip.fa.gz\ty\t1", r"same genome: \S+Aus_bus.fa and \S+zip.fa.gz"),
        ("Aus_bus.fa\tx\t1\nlink.fa\ty\t1", r"same genome: \S+Aus_bus.fa and \S+link.fa"),
        ("Aus_bus.fa\tx\t1\nmasked.fa\ty\t1", r"same genome: \S+Aus_bus.fa and \S+masked.fa"),
        ("zip.fa.gz\tx\t1\nturned.fa\ty\t1", r"same genome: \S+zip.fa.gz and \S+turned.fa"),
        ("Aus_bus.fa\tx\t1\nwords.fa\ty\t1\nempty.fa\tz\t1", r"words.fa:2: '!' in record 'a'.*empty.fa"),
        ("other.tsv\tx\t1", "not another corpus"),
    ],
)
def test_wrong_rows(folder, monkeypatch, rows, message):
    monkeypatch.setattr(genome_sets, "KEPT_FROM", 2)
    text = (folder / "Aus_bus.fa").read_text()
    (folder / "same.fa").write_text(text.replace("of it", "of the same"))
    (folder / "zip.fa.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "link.fa").symlink_to("Aus_bus.fa")
    (folder / "masked.fa").write_text(
        "".join(line if line[0] == ">" else line.lower() for line in text.splitlines(True))
    )
    records = [f">chr{number}\n" + record.partition("\n")[2] for number, record in enumerate(text.split(">")[1:])]
    (folder / "turned.fa").write_text("".join(records[::-1]))
    (folder / "empty.fa").write_text("")
    (folder / "words.fa").write_text(">a\nACGT!\n")
    (folder / "bad.tsv").write_text(f"fasta\tspecies\tweight\n{rows}\n")
    with pytest.raises(LongstrandError, match=message):
        open_corpus(expand([GenomeEntry(fasta=folder / "bad.tsv")]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1", "a corpus is a list of genomes"),
        ("[{fasta: a.fa, speces: x}]", "did you mean 'species'"),
        ("[", "YAML"),
        ("[{fasta: a.fa, weight: 1, weight: 2}]", "'weight' is given twice"),
    ],
)
def test_wrong_files(tmp_path, text, message):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(LongstrandError, match=message):
        read_corpus(tmp_path / "bad.yaml")
    (tmp_path / "labels.csv").write_text("sequence,label\n" + "ACGT,1\n" * 50)
    with pytest.raises(InputError, match=r"labels\.csv: as genomes, a table is a corpus .* with --sequences\.$"):
        read_corpus(tmp_path / "labels.csv")
    (tmp_path / "long.csv").write_text("fasta,weight\n" + "a.fa,-1\n" * 12)
    with pytest.raises(InputError, match=r"long.csv:11: 'weight'.* And 2 more\.$"):
        read_corpus(tmp_path / "long.csv")
    with pytest.raises(LongstrandError, match="belong into the corpus file"):
        expand([GenomeEntry(fasta=tmp_path / "bad.yaml", species="x")])


def test_sequences_of_tables(tmp_path):
    """Labels are not read; test rows are refused, by the name of the file or by its column."""
    table = tmp_path / "train.csv"
    table.write_text("sequence,label\nacgtacgt,1\n,0\nGGTTRA,2\n")
    other = tmp_path / "more.csv"
    other.write_text("sequence,label\nTTTT,1\n")
    made = write_sequences([table, other], tmp_path, column="sequence")
    lines = made.read_text().split()
    assert [line for line in lines if set(line) <= set("ACGTN")] == ["ACGTACGT", "GGTTNA", "TTTT"]
    assert write_sequences([table, other], tmp_path, column="sequence") == made
    assert write_sequences([table], tmp_path, column="sequence") != made
    for name in ("test.csv", "H3_test.csv", "my-dev.csv", "holdout.csv"):
        (tmp_path / name).write_text(table.read_text())
        with pytest.raises(InputError, match="rows are for measuring"):
            write_sequences([other, tmp_path / name], tmp_path, column="sequence")
    with pytest.raises(InputError, match=r"no1.csv, \S+no2.csv: no such file"):
        write_sequences([tmp_path / "no1.csv", table, tmp_path / "no2.csv"], tmp_path, column="sequence")
    with pytest.raises(InputError, match=r"train.csv, .*more.csv: hold the same rows"):
        other.write_text(table.read_text())
        write_sequences([table, other], tmp_path, column="sequence")
    table.write_text("sequence,label,Split\nAC,1,train\nAC,0,Test\n")
    with pytest.raises(InputError, match=r"train.csv: row 2: 'Test' rows"):
        write_sequences([table], tmp_path, column="sequence")


def test_pieces_for_a_tokenizer(folder):
    genomes = open_corpus(read_corpus(folder / "corpus.tsv"))
    pieces = list(tokenizer_pieces(genomes, num_bases=10**6, seed=0))
    assert sum(map(len, pieces)) <= sum(SIZES.values()) + 3 * 160
    genomes.weights[:] = (1, 2, 3)
    assert list(tokenizer_pieces(genomes, num_bases=3000, seed=0, evenly=True)) and genomes.sampling == Sampling()
    assert genomes.weights.tolist() == [1, 2, 3]


def test_many_draws_are_single_draws():
    drawn = draw_many(3, np.arange(50), "x")
    assert drawn.tolist() == [draw_bits(3, number, "x") for number in range(50)]


def test_addresses_are_copied_once(folder, tmp_path, monkeypatch):
    """A corpus of one file here and two elsewhere; later without the server; what is not there is named at once."""
    monkeypatch.setattr("longstrand.genome.download.cache_dir", lambda: tmp_path / "cache")
    (folder / "far.fa.gz").write_bytes(gzip.compress(b">a\n" + b"ACGTTGCAAC" * 30 + b"\n"))
    (folder / "more.fa").write_text(">a\n" + "GATTACACCA" * 40 + "\n")
    serve = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"http://127.0.0.1:{server.server_port}"
        (folder / "far.tsv").write_text(f"fasta\tspecies\nAus_bus.fa\ta\n{host}/far.fa.gz\tb\n{host}/more.fa\tc\n")
        first = open_corpus(expand([GenomeEntry(fasta=folder / "far.tsv")]))
        with pytest.raises(InputError, match=r"/no1.fa: cannot be downloaded .* 404.*/no2.fa: cannot be downloaded"):
            open_corpus([GenomeEntry(fasta=f"{host}/no{number}.fa") for number in (1, 2)])
        server.shutdown()
    later = open_corpus(expand([GenomeEntry(fasta=folder / "far.tsv")]))
    assert later.fingerprints == first.fingerprints and later.read(2, int(later.first_contig[2]), 0, 7) == "GATTACA"
