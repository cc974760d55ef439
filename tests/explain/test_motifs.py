"""Motif files and the scan: by hand, against FIMO's own output, and against a plain loop."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from longstrand.cli import motifs as command
from longstrand.errors import InputError, UsageError
from longstrand.explain import scan as scanning
from longstrand.explain.motifs import Motif, choose, read_motifs, write_meme

MEME = """MEME version 4

ALPHABET= ACGT

MOTIF m1 first
letter-probability matrix: alength= 4 w= 2 nsites= 10 E= 0
 0.7 0.1 0.1 0.1
 0.0 0.5 0.5 0.0

MOTIF m2
letter-probability matrix: alength= 4 w= 1 nsites= 4
 1 0 0 0
"""
JASPAR = ">m1 first\nA [ 7 0 ]\nC [ 1 5 ]\nG [ 1 5 ]\nT [ 1 0 ]\n"
TRANSFAC = "AC m1\nXX\nID first\nP0 A C G T\n01 7 1 1 1 A\n02 0 5 5 0 S\nXX\n//\n"


@pytest.mark.parametrize("text", [MEME, JASPAR, JASPAR.replace("A [", "").replace("]", ""), TRANSFAC])
def test_three_formats_hold_the_same_motif(tmp_path, text):
    if "A [" not in text and text.startswith(">"):
        text = text.replace("C [", "").replace("G [", "").replace("T [", "")
    (tmp_path / "m.txt").write_text(text)
    motif = read_motifs(tmp_path / "m.txt")[0]
    assert (motif.name, motif.other_name, motif.num_sites, motif.consensus) == ("m1", "first", 10, "AC")
    np.testing.assert_allclose(motif.frequencies, [[0.7, 0.1, 0.1, 0.1], [0, 0.5, 0.5, 0]])
    write_meme(tmp_path / "again.meme", [motif])
    np.testing.assert_allclose(read_motifs(tmp_path / "again.meme")[0].frequencies, motif.frequencies)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        (">seq\nACGT\n", "a FASTA file; motifs are read from"),
        ("hello\n", "no motif file"),
        (MEME.partition("\n")[2], "add that line"),
        (MEME.replace("ACGT", "ACDE"), "over the alphabet 'ACDE'"),
        (MEME.replace("w= 2", "w= 3"), ":6: motif 'm1' is said to have 3 places but has 2"),
        (MEME.replace("0.7", "0.2"), ":6: motif 'm1': the frequencies at place 1 sum to 0.5"),
        (MEME.replace("0.5 0.5", "0.5 x"), ":8: 4 numbers of a matrix were expected"),
        (MEME.replace("m2", "m1"), "two motifs are called 'm1'"),
        (MEME.split("letter-probability matrix: alength= 4 w= 1")[0], ":10: motif 'm2' has no letter-prob"),
        (JASPAR.replace("C [", "G ["), ":3: the line of C was expected"),
        (JASPAR.replace("7 0", "7"), "different numbers of places"),
        (JASPAR.replace("T [ 1 0 ]\n", ""), "has 3 lines, not one for each base"),
        (TRANSFAC.replace("//\n", ""), "does not end with '//'"),
        (TRANSFAC.replace("7 1 1 1", "7 1 1"), ":5: 4 numbers"),
        ("MEME version 4\n", "a MEME file without a motif"),
    ],
)
def test_broken_files_are_named(tmp_path, text, message):
    (tmp_path / "m.txt").write_text(text)
    with pytest.raises(InputError, match=r"m\.txt") as error:
        read_motifs(tmp_path / "m.txt")
    assert message in str(error.value)


def test_unknown_motif_and_background():
    motif = Motif("CTCF", np.full((3, 4), 0.25))
    assert choose([motif], ["CTCF"]) == [motif]
    with pytest.raises(UsageError, match="did you mean 'CTCF'"):
        choose([motif], ["CTCT"])
    for wrong in ("nrbd", "1,2,3", "1,1,1,0"):
        with pytest.raises(UsageError, match="background is"):
            scanning.background_of(wrong)
    np.testing.assert_allclose(scanning.background_of("input", ["AAAC", "n"]), [3 / 8, 1 / 8, 1 / 8, 3 / 8])


def plain_scan(motifs, texts, background):
    """Score every window by a loop; the p value of a score by listing all words."""
    found = {}
    for number, motif in enumerate(motifs):
        for reverse, view in enumerate((motif, motif.reverse_complement())):
            weights = scanning.score_table(view, background).weights
            words = np.array(list(itertools.product(range(4), repeat=motif.width)))
            totals = weights[np.arange(motif.width), words].sum(1)
            chance = background[words].prod(1)
            for row, text in enumerate(texts):
                for start in range(len(text) - motif.width + 1):
                    word = text[start : start + motif.width].upper()
                    if not set(word) - set("ACGT"):
                        total = sum(weights[i, "ACGT".index(letter)] for i, letter in enumerate(word))
                        found[number, row, start, bool(reverse)] = chance[totals >= total].sum()
    return found


@pytest.mark.parametrize("piece", [1 << 23, 17])
def test_scan_is_a_loop_over_windows(monkeypatch, piece):
    monkeypatch.setattr(scanning, "PIECE", piece)
    rng = np.random.default_rng(0)
    motifs = [Motif(f"m{w}", rng.dirichlet(np.full(4, 0.5), w)) for w in (3, 6, 8)]
    texts = ["", "AC", "".join(rng.choice(list("ACGTNacgt"), 90, p=[0.12] * 4 + [0.04] + [0.12] * 4))]
    texts += ["".join(rng.choice(list("ACGT"), 40)) for _ in range(3)]
    background = np.array([0.3, 0.2, 0.1, 0.4])
    hits = scanning.scan(motifs, texts, threshold=1, background=background)
    expected = plain_scan(motifs, texts, background)
    found = dict(
        zip(zip(hits.motif.tolist(), hits.sequence.tolist(), hits.start.tolist(), hits.reverse.tolist()), hits.p)
    )
    for key, p in expected.items():
        assert found.get(key, 1.0) == pytest.approx(p, rel=1e-9)
    assert set(found) <= set(expected)
    assert hits.num_windows.tolist() == [sum(key[0] == number for key in expected) for number in range(3)]
    few = scanning.scan(motifs, texts, threshold=0.01, background=background)
    assert len(few) == sum(p < 0.01 for p in expected.values())
    with pytest.raises(InputError, match="here: no motif has a place to be"):
        scanning.scan(motifs, ["NNNNNNNNN", "AC"]).found_room("here")
    with pytest.raises(UsageError, match="hold no A or T, or no C or G"):
        scanning.background_of("input", ["NNN", "CCC"])
    with pytest.raises(UsageError, match="between 0 and 1"):
        scanning.scan(motifs, texts, threshold=0)


@pytest.mark.parametrize(("file", "background"), [("fimo_uniform", "uniform"), ("fimo_nrdb_default", "nrdb")])
def test_fimo_to_the_digit(shared, tmp_path, file, background):
    folder = shared / "golden/explain/motifs/ctcf_atf1_gata2"
    with (folder / f"{file}.tsv").open() as rows:
        fimo = {
            (row["motif_id"], row["sequence_name"], int(row["start"]) - 1, int(row["stop"]), row["strand"]): row
            for row in csv.DictReader(rows, delimiter="\t")
        }
    output = tmp_path / "hits.tsv"
    command.scan(
        str(folder / "scan.fa"),
        folder / "scan.meme",
        output,
        threshold=1e-3,
        background=background,
        strand="both",
        max_q=1,
    )
    hits = pl.read_csv(output, separator="\t").rows(named=True)
    ours = {(row["motif"], row["chrom"], row["start"], row["end"], row["strand"]): row for row in hits}
    assert set(ours) == set(fimo)
    for key, row in fimo.items():
        assert ours[key]["score"] == pytest.approx(float(row["score"]), rel=1e-5)
        assert ours[key]["p"] == pytest.approx(float(row["p-value"]), rel=6e-3)


def test_q_values_of_all_windows(shared):
    folder = shared / "golden/explain/motifs/ctcf_atf1_gata2"
    blocks = [text.split("\n") for text in (folder / "scan.fa").read_text().lstrip(">").split("\n>")]
    motifs, names = read_motifs(folder / "scan.meme"), [block[0] for block in blocks]
    hits = scanning.scan(
        motifs, [block[1] for block in blocks], threshold=1, background=scanning.background_of("uniform")
    )
    q = {
        (motifs[m].name, names[s], start, "+-"[int(reverse)]): value
        for m, s, start, reverse, value in zip(hits.motif, hits.sequence, hits.start.tolist(), hits.reverse, hits.q)
    }
    with (folder / "hits_with_exact_p.tsv").open() as rows:
        for row in csv.DictReader(rows, delimiter="\t"):
            key = row["motif"], row["sequence"], int(row["start0"]), row["strand"]
            assert q[key] == pytest.approx(float(row["bh_q"]), rel=0.05)


def test_command_on_intervals_gives_places_of_the_genome(tmp_path: Path, capsys):
    (tmp_path / "g.fa").write_text(">chr1\nTTTTTACGGGTTTTTCCCGTTTTT\n")
    (tmp_path / "i.bed").write_text("chr1\t3\t12\ta\t0\t-\nchr1\t12\t24\tb\t0\t+\n")
    motif = Motif(
        "x", np.array([[0.97, 0.01, 0.01, 0.01]] + [[0.01, 0.97, 0.01, 0.01]] + [[0.01, 0.01, 0.97, 0.01]] * 3)
    )
    write_meme(tmp_path / "m.meme", [motif, Motif("wide", np.full((30, 4), 0.25))])
    command.scan(
        str(tmp_path / "i.bed"),
        tmp_path / "m.meme",
        tmp_path / "h.bed",
        genome=tmp_path / "g.fa",
        threshold=0.002,
        max_q=1,
        background="nrdb",
        strand="both",
    )
    assert "no hits: wide" in capsys.readouterr().out
    rows = [line.split("\t") for line in (tmp_path / "h.bed").read_text().splitlines()]
    assert rows[0][:6] == ["#chrom", "start", "end", "name", "score", "strand"]
    assert [(row[:4], row[5]) for row in rows[1:]] == [
        (["chr1", "5", "10", "x"], "+"),
        (["chr1", "15", "20", "x"], "-"),
    ]
    with pytest.raises(UsageError, match=r"\.parquet or \.bed"):
        command.a_table(tmp_path / "h.txt")
