"""The commands about what a model knows, from file to page, on a tiny random model."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from longstrand.cli import explain_model as command
from longstrand.cli import motifs
from longstrand.errors import InputError, UsageError
from longstrand.explain.motifs import Motif, write_meme
from tests.toys import tiny_checkpoint


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain")
    rng = np.random.default_rng(0)
    contigs = {name: "".join(rng.choice(list("ACGT"), 400)) for name in ("c1", "c2")}
    (folder / "g.fa").write_text("".join(f">{name}\n{text}\n" for name, text in contigs.items()))
    windows = [(name, start, start + 40) for name in contigs for start in range(0, 400, 40)]
    (folder / "w.bed").write_text("".join(f"{c}\t{a}\t{b}\tw\n" for c, a, b in windows))
    marked = "".join(f"{c}\t{a + 5}\t{a + 15}\texon\n{c}\t{a + 20}\t{a + 28}\tsite\n" for c, a, _ in windows)
    (folder / "e.bed").write_text(marked)
    table = "".join(f"{contigs[c][a:b]},{c}\n" for c, a, b in windows)
    (folder / "t.csv").write_text("sequence,label\n" + table)
    tiny_checkpoint(folder / "model")
    return folder


def asked(files, name):
    places = {"genome": files / "g.fa", "elements": files / "e.bed"}
    return (str(files / "model"), str(files / "w.bed"), files / name), places


def titles(folder):
    return [section["title"] for section in json.loads((folder / "report.json").read_text())["sections"]]


def test_reconstruction_attention_and_elements(files):
    given, places = asked(files, "r")
    command.reconstruction(*given, **places, mask="share", seed=0)
    assert pl.read_csv(files / "r/elements.tsv", separator="\t")["element"].to_list() == [
        "all",
        "exon",
        "site",
        "outside",
    ]
    given, places = asked(files, "a")
    command.attention(*given, **places, mu=0.03)
    heads = pl.read_csv(files / "a/heads.tsv", separator="\t")
    assert (len(heads), heads["element"].unique(maintain_order=True).to_list()) == (4, ["exon", "site"])
    assert (heads["p_z_all"] <= 1).all()
    shown = titles(files / "a")
    assert shown[0] == "Heads that point at elements" and any("head" in name and "site" in name for name in shown[3:])
    given, places = asked(files, "e")
    command.elements_command(*given, **places, layer=-1, map="pca", seed=0)
    assert titles(files / "e")[1] == "A look at the vectors (PCA)"
    table = pl.read_csv(files / "e/separation.tsv", separator="\t")
    assert table["features"].to_list() == ["model", "moved", "6-mers"]
    with pytest.raises(UsageError, match="need --elements"):
        command.attention(*given, mu=0.3)
    chrom, start = (files / "w.bed").read_text().split("\t")[:2]
    (files / "one.bed").write_text(f"{chrom}\t{start}\t{int(start) + 20}\n")
    (files / "other.bed").write_text(f"{chrom}\t{int(start) + 20}\t{int(start) + 22}\tx\n")
    lone = (given[0], str(files / "one.bed"), files / "lone")
    with pytest.raises(InputError, match=r"other\.bed: no element lies on a row of .*one\.bed"):
        command.reconstruction(*lone, genome=places["genome"], elements=files / "other.bed")


def test_dependency(files):
    given, places = asked(files, "d")
    command.dependency(*given, genome=places["genome"], row=2, window=20, masked=False, raw=True, shuffles=1)
    held = np.load(files / "d/map.npz")
    assert held["raw"].shape == (20, 4, 20, 4)
    assert titles(files / "d")[:3] == ["Map", "What chance gives", "Strongest pairs"]
    with pytest.raises(UsageError, match="20 rows, so there is no row 21"):
        command.dependency(*given, genome=places["genome"], row=21, window=20, masked=False, raw=False, shuffles=0)
    with pytest.raises(UsageError, match="no cut-off"):
        command.dependency(*given, genome=places["genome"], row=1, window=20, masked=True, raw=False, shuffles=1)


@pytest.mark.slow
def test_species(files):
    model = str(files / "model")
    command.species(
        model, files / "t.csv", files / "s", label="label", layers="0,-1", pooling="mean", length=30, map="pca", seed=0
    )
    pairs = pl.read_csv(files / "s/pairs.tsv", separator="\t")
    assert pairs["features"].to_list() == ["layer 0", "layer -1", "6-mers"]
    assert pairs["rows"].to_list() == [20] * 3


def test_motifs_in_a_score(files, capsys):
    """A masked LM's score is its pseudo-log-likelihood."""
    write_meme(files / "m.meme", [Motif("x", np.eye(4)[[2, 0, 3, 0]] * 0.96 + 0.01)])
    model, table = str(files / "model"), str(files / "t.csv")
    motifs.marginalize(model, table, "x", files / "o.tsv", files / "m.meme")
    effects = pl.read_csv(files / "o.tsv", separator="\t")
    assert len(effects) == 20
    np.testing.assert_allclose(effects["effect"], effects["with"] - effects["without"], atol=1e-4)
    assert motifs.called(effects, ["enhancer"])["output"].unique().to_list() == ["enhancer"]
    motifs.ablate(
        model, table, files / "m.meme", files / "o.tsv", threshold=0.02, background="nrdb", shuffles=2, seed=0
    )
    assert {"intact", "shuffled", "control"} < set(pl.read_csv(files / "o.tsv", separator="\t").columns)
    motifs.space(model, table, "GATA", "CC", files / "o.tsv", distances="0-3", flip=False)
    assert pl.read_csv(files / "o.tsv", separator="\t")["distance"].to_list() == [0, 1, 2, 3]
    assert "strongest together at" in capsys.readouterr().out
    with pytest.raises(UsageError, match="9-3: the first is above the last"):
        motifs.space(model, table, "GATA", "CC", files / "o.tsv", distances="9-3", flip=False)
    with pytest.raises(InputError, match=r"t\.csv, row 1: 'A{200}' .* does not fit"):
        motifs.marginalize(model, table, "A" * 200, files / "o.tsv")
    with pytest.raises(UsageError, match="no word of A, C, G, T"):
        motifs.marginalize(model, table, "x", files / "o.tsv")
