"""``longstrand tokenizer`` from the command line."""

from __future__ import annotations

import gzip
import json
import random

import pytest
from typer.testing import CliRunner

from longstrand.cli.tokenizer import app
from longstrand.errors import InputError, TokenizerError, UsageError
from longstrand.tokenization.hub import load_tokenizer
from longstrand.tokenization.kmer import make_kmer


def run(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def genome(tmp_path):
    letters = "".join(random.Random(0).choices("ACGT", [4, 2, 2, 4], k=30_000))
    path = tmp_path / "toy.fa.gz"
    with gzip.open(path, "wt") as file:
        file.write(f">one\n{letters[:20000]}\n>two\n{letters[20000:].lower()}NNNR\n")
    return path


def test_train_and_inspect(genome, tmp_path):
    folder, plot = tmp_path / "tokenizer", tmp_path / "plot.png"
    made = json.loads(run("train", genome, "--output", folder, "--vocab-size", 100, "--hold-out", "two", "--json"))
    assert made["vocab_size"] == 100 == load_tokenizer(folder).vocab_size
    record = json.loads((folder / "longstrand.json").read_text())["tokenizer_training"]
    assert (
        record["hold_out"] == ["two"]
        and list(record["genomes"]) == [str(genome)]
        and "versions" in record["provenance"]
    )
    again = tmp_path / "again"
    assert (
        json.loads(run("train", genome, "-o", again, "--vocab-size", 100, "--hold-out", "two", "--json"))["fingerprint"]
        == (made["fingerprint"])
    )
    report = json.loads(run("inspect", folder, genome, "--plot", plot, "--json"))
    assert report["num_bases"] == 30_004 and 1.5 < report["bases_per_token"] < 5
    assert report["unknown_share"] == 0 and plot.stat().st_size > 1000
    shown = run("inspect", folder, genome, "--max-bases", 5000)
    assert "bases per token" in shown and "reverse complement" in shown


def test_train_kmers(genome, tmp_path):
    shown = run("train", genome, "-o", tmp_path / "k", "--kind", "kmer", "--k", 3, "--overlapping")
    assert "69 tokens" in shown and load_tokenizer(tmp_path / "k").overlapping


def test_inspect_tables_and_lines(tmp_path):
    make_kmer(3).save(tmp_path / "k")
    (tmp_path / "table.csv").write_text("dna,label\nACGTRa,1\nACG,0\n")
    (tmp_path / "lines.txt").write_text("ACGTAA\nACG\n")
    report = json.loads(run("inspect", tmp_path / "k", tmp_path / "table.csv", "--column", "dna", "--json"))
    assert (report["num_texts"], report["num_bases"], report["num_tokens"]) == (2, 9, 5)
    assert report["letters_changed"] == {"lower_case": 1, "unknown": 1}
    report = json.loads(run("inspect", tmp_path / "k", tmp_path / "lines.txt", "--json"))
    assert (report["num_bases"], report["num_tokens"]) == (9, 3)
    report = json.loads(run("inspect", tmp_path / "k", tmp_path / "lines.txt", "--max-bases", 4, "--json"))
    assert report["num_bases"] == 4


def test_inspect_exact_text(tmp_path):
    """By default lower case is read as upper case; exact text gives what the tokenizer makes of it: unknown."""
    make_kmer(3).save(tmp_path / "k")
    (tmp_path / "in.fa").write_text(">s\nACGacg\n")
    plain = json.loads(run("inspect", tmp_path / "k", tmp_path / "in.fa", "--json"))
    exact = json.loads(run("inspect", tmp_path / "k", tmp_path / "in.fa", "--exact-text", "--json"))
    assert plain["unknown_share"] == 0 and exact["unknown_share"] > 0
    assert exact["letters_changed"] == {"lower_case": 0, "unknown": 0}


def test_wrong_requests(genome, tmp_path):
    make_kmer(3).save(tmp_path)
    wrong = [
        (UsageError, "there is a tokenizer already", ("train", genome, "-o", tmp_path)),
        (UsageError, "unknown kind of tokenizer 'bpee'", ("train", genome, "-o", tmp_path / "x", "--kind", "bpee")),
        (UsageError, "vocab_size is more than 11", ("train", genome, "-o", tmp_path / "x", "--vocab-size", 5)),
        (
            UsageError,
            "contig 'tvo' is in none of the FASTA files",
            ("train", genome, "-o", tmp_path / "x", "--hold-out", "tvo"),
        ),
        (UsageError, r"did you mean 'two'", ("train", genome, "-o", tmp_path / "x", "--hold-out", "chrtwo")),
        (UsageError, "k is 1 to 10", ("train", genome, "-o", tmp_path / "x", "--kind", "kmer", "--k", 11)),
        (UsageError, "of another kind of tokenizer than bpe", ("train", genome, "-o", tmp_path / "x", "--k", 3)),
        (
            UsageError,
            "of another kind of tokenizer than kmer",
            ("train", genome, "-o", tmp_path / "x", "--kind", "kmer", "--vocab-size", 99),
        ),
        (InputError, "gone.fa", ("train", tmp_path / "gone.fa", "-o", tmp_path / "x")),
        (InputError, "no such file", ("inspect", tmp_path, tmp_path / "gone.csv")),
        (TokenizerError, "no such folder", ("inspect", tmp_path / "gone", genome)),
        (UsageError, "--max-bases is at least 1", ("inspect", tmp_path, genome, "--max-bases", 0)),
    ]
    for kind, message, words in wrong:
        with pytest.raises(kind, match=message):
            run(*words)
