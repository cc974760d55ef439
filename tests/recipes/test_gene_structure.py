"""The recipe of gene structure: labels are what the annotation says, splits share no base, and a cell runs."""

from __future__ import annotations

import csv
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from longstrand.demo.simulate import simulate_genome
from longstrand.genome.features import Feature, format_gff3, write_fasta
from longstrand.runtime import read_json

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "longstrand" / "checkpoints" / "mixed_6mer_1m"


@pytest.fixture(scope="module")
def recipe():
    specification = importlib.util.spec_from_file_location("gene_structure", ROOT / "recipes" / "gene_structure.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules["gene_structure"] = module
    specification.loader.exec_module(module)
    yield module
    del sys.modules["gene_structure"]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    genome = simulate_genome(seed=5, num_bases=120_000, num_contigs=3)
    root = tmp_path_factory.mktemp("data")
    folder = root / "data" / "genomes"
    folder.mkdir(parents=True)
    write_fasta(folder / "toy.fa", genome.contigs)
    lengths = {name: len(text) for name, text in genome.contigs.items()}
    (folder / "toy.gff3").write_text(format_gff3(genome.features, lengths))
    return genome, root


def test_paint_by_hand(recipe):
    def item(start, end, kind, parent="t1", name=""):
        return Feature("c", start, end, "+", kind, name, parent)

    features = [
        item(2, 60, "gene", "", "g"),
        item(2, 60, "mRNA", "g", "t1"),
        item(2, 10, "exon"),
        item(30, 40, "exon"),
        item(42, 60, "exon"),
        item(5, 10, "CDS"),
        item(30, 40, "CDS"),
        item(42, 50, "CDS"),
        item(62, 66, "exon", "t2"),
    ]
    painted = recipe.paint(features, {"c": 70})["c"].tobytes().decode()
    assert painted == "OO???" + "C" * 5 + "I" * 20 + "C" * 10 + "??" + "C" * 8 + "?" * 10 + "OO????" + "OOOO"


def test_paint_agrees_with_the_simulated_genome(recipe, simulated):
    genome, root = simulated
    features = recipe.read_annotation(root / "data" / "genomes" / "toy.gff3")
    maps = recipe.paint(features, {name: len(text) for name, text in genome.contigs.items()})
    for kind, letter in (("intron", "I"), ("CDS", "C")):
        total = sum((maps[x.chrom][x.start : x.end] == ord(letter)).sum() for x in genome.of_kind(kind))
        assert total == sum(x.end - x.start for x in genome.of_kind(kind)) > 0
    outside = sum((values == ord("O")).sum() for values in maps.values())
    genes = sum(x.end - x.start for x in genome.of_kind("gene"))
    assert outside == sum(map(len, genome.contigs.values())) - genes


def test_boundaries_and_ceiling_by_hand(recipe):
    truth = np.full((1, 60), 0)
    truth[0, 15:45] = 1
    late = np.roll(truth, recipe.NEAR)
    assert recipe.boundary_f1(truth, truth, 1) == recipe.boundary_f1(truth, late, 1) == pytest.approx(1)
    assert recipe.boundary_f1(truth, np.roll(truth, recipe.NEAR + 1), 1) == 0
    half = np.where(np.arange(60) >= 15, 1, 0)[None]
    assert recipe.boundary_f1(truth, half, 1) == pytest.approx(2 / 3)  # one of two found, none wrong
    said = recipe.token_ceiling(truth)  # 12-17 and 42-47 have three of each: the first class
    assert set(np.flatnonzero(said[0])) == set(range(18, 42))


@pytest.mark.slow
def test_a_cell_of_each_kind_runs_resumes_and_is_collected(recipe, simulated, tmp_path, monkeypatch):
    _, root = simulated
    monkeypatch.setenv("LONGSTRAND_DATA", str(root))
    monkeypatch.setattr(recipe, "ORGANISMS", {"toy": recipe.Organism("toy.fa", "toy.gff3")})
    scale = replace(recipe.SMOKE, rates=(1e-3,), most=(16, 8, 24), batch_size=8)
    tables = recipe.make_tables(tmp_path, scale)
    seen: dict[str, str] = {}
    for split in recipe.SPLITS:
        for row in csv.DictReader((tables / f"{split}.csv").open()):
            _, contig, _, start = row["name"].split("|")
            assert row["label"].startswith("?" * 240) and row["label"].endswith("?" * 240)
            for base in range(int(start), int(start) + scale.window):
                assert seen.setdefault(f"{contig}:{base}", split) == split
    for method in ("majority", "plain", "rmt_context"):
        cell = recipe.Cell(tmp_path, tables, MODEL, method, scale)
        cell.run(0)
        written = (tmp_path / method / "seed0.json").stat().st_mtime_ns
        cell.run(0)
        assert (tmp_path / method / "seed0.json").stat().st_mtime_ns == written
    recipe.collect(tmp_path, scale, tmp_path / "results")
    rows = list(csv.DictReader((tmp_path / "results" / "gene_structure.csv").open()))
    value = {(row["task"], row["method"], row["metric"]): float(row["value"]) for row in rows}
    assert value["all", "majority", "mcc"] == 0 and -1 <= value["toy", "rmt_context", "mcc"] <= 1
    assert value["all", "ceiling_6mer", "mcc"] > 0.9
    record = read_json(tmp_path / "results" / "gene_structure.json")
    assert {(pair["method"], pair["than"]) for pair in record["differences"]} == {("rmt_context", "plain")}
    assert "annotation" in (tmp_path / "figures" / "gene_structure.svg").read_text()
    assert str(tmp_path) not in (tmp_path / "results" / "gene_structure.json").read_text()


def test_other_seeds_wait_for_the_rate_of_the_first(recipe, tmp_path):
    with pytest.raises(SystemExit, match="run seed 0 first"):
        recipe.Cell(tmp_path, tmp_path, MODEL, "plain", recipe.SMOKE).run(1)
