"""Comparison and discovery of motifs, and the page that joins them, on real sequences and on planted ones."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
import zarr

from longstrand.cli import motifs as command
from longstrand.data.rows import Record
from longstrand.errors import InputError, UsageError
from longstrand.explain import discover as discovery
from longstrand.explain.compare import compare
from longstrand.explain.importance_page import read_attributions
from longstrand.explain.motifs import Motif, read_motifs, write_meme
from longstrand.genome.features import write_fasta


def test_comparison_is_tomtoms(shared, tmp_path):
    folder = shared / "golden/explain/motifs/ctcf_atf1_gata2"
    command.compare(folder / "scan.meme", folder / "targets.meme", tmp_path / "m.tsv", top=80)
    ours = pl.read_csv(tmp_path / "m.tsv", separator="\t")
    golden = pl.read_csv(folder / "tomtom_top10.tsv", separator="\t")
    both = ours.join(golden, left_on=["query", "target"], right_on=["Query_ID", "Target_ID"])
    assert len(both) == len(golden)
    for mine, theirs in (("offset", "Optimal_offset"), ("overlap", "Overlap"), ("strand", "Orientation")):
        assert both[mine].to_list() == both[theirs].to_list()
    likely = both.filter(pl.col("p-value") > 1e-8)
    assert (
        np.abs(np.log((likely["p"] / likely["p-value"]).to_numpy())).max() < 0.2
    )  # both count scores in 100 steps, rounded differently


def planted(rng, count: int, word: str | None) -> list[str]:
    texts = []
    for number in range(count):
        letters = rng.choice(list("ACGT"), 60)
        if word and number % 5:
            own = word if number % 2 else word[::-1].translate(str.maketrans("ACGT", "TGCA"))
            start = rng.integers(0, 60 - len(word))
            letters[start : start + len(word)] = list(own)
        texts.append("".join(letters))
    return texts


def test_a_planted_motif_is_found_and_nothing_else(tmp_path, capsys):
    rng = np.random.default_rng(1)
    for name, word in (("a", "GATAAGCC"), ("b", None), ("c", None)):
        write_fasta(tmp_path / f"{name}.fa", {f"s{i}": text for i, text in enumerate(planted(rng, 120, word))})
    command.discover(
        str(tmp_path / "a.fa"), str(tmp_path / "b.fa"), tmp_path / "m.meme", count=3, width=12, method="own"
    )
    (found,) = read_motifs(tmp_path / "m.meme")
    core = Motif("x", np.eye(4)[["ACGT".index(letter) for letter in "GATAAGCC"]] * 0.96 + 0.01)
    assert (
        compare([found], [core, *(Motif(f"r{i}", rng.dirichlet(np.ones(4), 8)) for i in range(40))])["target"][0] == "x"
    )
    command.discover(
        str(tmp_path / "c.fa"), str(tmp_path / "b.fa"), tmp_path / "n.meme", count=3, width=12, method="own"
    )
    assert "no motif was found" in capsys.readouterr().out
    assert not (tmp_path / "n.meme").exists()
    with pytest.raises(InputError, match="at least 20 sequences"):
        discovery.discover(["ACGT"], ["ACGT"])
    with pytest.raises(UsageError, match="no program 'streme'"):
        command.discover(str(tmp_path / "a.fa"), str(tmp_path / "b.fa"), tmp_path / "o.meme", method="streme", count=1)


def test_ctcf_is_found_in_its_peaks(shared):
    folder = shared / "golden/explain/discovery/ctcf"
    texts = [
        [block.split("\n")[1] for block in (folder / name).read_text().split(">")[1:]]
        for name in ("primary.fa", "control.fa")
    ]
    (found, *_) = discovery.discover(*texts, count=1, width=19)
    np.testing.assert_allclose(found.motif.frequencies.sum(1), 1)
    database = read_motifs(shared / "data/motifs/JASPAR2022_CORE_vertebrates_non-redundant.meme")
    best = compare([found.motif], database, top=1).row(0, named=True)
    assert (best["target_name"], found.p < 1e-3, best["e"] < 1e-10) == ("CTCF", True, True)


def test_figure_three_by_one_command(tmp_path):
    """GATA is important outside the motif (TTTT), which discovery should tell."""
    from longstrand.tokenization.kmer import make_kmer

    rng = np.random.default_rng(0)
    texts, values = planted(rng, 100, "GATAAGCC"), []
    texts = [text[:20] + "TTTTTTTT" + text[28:] for text in texts]
    for number, text in enumerate(texts):
        own = np.zeros(len(text), dtype=np.float32)
        own[20:28] = 0.1
        for word in ("GATAAGCC", "GGCTTATC"):
            if word in text and number < 40:  # fewer than the upper 5 % of tokens
                own[text.index(word) : text.index(word) + 8] = 1
        values.append(own)
    make_kmer(2, overlapping=False).save(tmp_path / "tokenizer")
    write_fasta(tmp_path / "s.fa", {f"s{i}": text for i, text in enumerate(texts)})
    write_meme(tmp_path / "m.meme", [Motif("polyT", np.tile([0.01, 0.01, 0.01, 0.97], (8, 1)))])
    offsets = np.cumsum([0, *map(len, values)])
    np.savez(tmp_path / "a.npz", values=np.concatenate(values), offsets=offsets)
    given = (str(tmp_path / "tokenizer"), str(tmp_path / "s.fa"), tmp_path / "m.meme")
    command.importance(*given, tmp_path / "a.npz", tmp_path / "out", background="uniform")
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert [section["title"][:2] for section in report["sections"]][:4] == ["A.", "B.", "C.", "D."]
    classes = pl.read_csv(tmp_path / "out/classes.tsv", separator="\t")
    assert classes.filter(pl.col("class") == "strong")["tokens"][0] >= 400  # four 2-mers in each of 100 sequences
    enriched = pl.read_csv(tmp_path / "out/enriched.tsv", separator="\t")
    assert set(enriched["token"][:4]) <= {"GA", "AT", "TA", "AA", "AG", "GC", "CC", "GG", "CT", "TT", "TC"}
    np.savez(tmp_path / "a.npz", values=np.zeros((offsets[-1], 2)), offsets=offsets)
    with pytest.raises(InputError, match="one value a base is needed"):
        command.importance(*given, tmp_path / "a.npz", tmp_path / "out", background="uniform")
    np.savez(tmp_path / "a.npz", values=np.concatenate(values), offsets=offsets[:-1])
    with pytest.raises(InputError, match="of 99 rows for 100 sequences"):
        command.importance(*given, tmp_path / "a.npz", tmp_path / "out", background="uniform")
    (tmp_path / "a.npz").write_text("no")
    with pytest.raises(InputError, match="no attributions"):
        command.importance(*given, tmp_path / "a.npz", tmp_path / "out", background="uniform")


def test_folders_of_maps_hold_more_than_one_column(tmp_path):
    """With both strands or letters the first column is the map; scores of letters go to modisco."""
    rows = [Record(0, "a", "ACG"), Record(1, "b", "TT")]
    values = np.arange(40, dtype=np.float32).reshape(5, 8)[:, :7]
    group = zarr.open_group(str(tmp_path / "maps/attributions.zarr"), mode="w")
    group.create_array("values", data=values)
    group.create_array("offsets", data=np.array([0, 3, 5]))
    group.attrs["value_names"] = ["attribution", "+", "-", "A", "C", "G", "T"]
    np.testing.assert_equal(read_attributions(tmp_path / "maps", rows)[1], values[3:, 0])
    np.testing.assert_equal(read_attributions(tmp_path / "maps", rows, letters=True)[0], values[:3, 3:])
    group.attrs["value_names"] = ["attribution"]
    with pytest.raises(InputError, match="--method ism"):
        read_attributions(tmp_path / "maps", rows, letters=True)


def test_modisco_refuses_what_it_would_get_wrong():
    with pytest.raises(InputError, match="of one length, at least 100 bases; these have 3 to 4"):
        discovery.discover_with_modisco(["ACG", "ACGT"], [np.zeros((3, 4)), np.zeros((4, 4))])


@pytest.mark.slow
def test_modisco_finds_a_planted_pattern():
    """Two patterns of known effect: one that raises the output in its sequences, one that lowers it."""
    pytest.importorskip("modiscolite")
    rng, texts, scores = np.random.default_rng(0), [], []
    for number in range(240):
        letters, own = rng.integers(0, 4, 120), rng.normal(0, 0.02, (120, 4))
        word, effect = ("GATAAGCC", 1.0) if number % 2 else ("TTCCGGAA", -1.0)
        start = int(rng.integers(20, 90))
        for place, letter in enumerate(word, start):
            letters[place] = "ACGT".index(letter)
            own[place] += effect * (np.eye(4)[letters[place]] - 0.25)
        texts.append("".join("ACGT"[i] for i in letters))
        scores.append(own)
    found = discovery.discover_with_modisco(texts, scores)
    names = {one.name.split("_")[0][:3]: one.consensus for one in found}
    assert "GATAAGCC" in names["pos"] or "GGCTTATC" in names["pos"]
    assert "TTCCGGAA" in names["neg"]
