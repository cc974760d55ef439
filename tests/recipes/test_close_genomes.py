"""The recipe on close genomes: blocks and windows are what it says, methods read alike, and it runs from end to end."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import itertools
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from longstrand.demo.simulate import simulate_genome
from longstrand.runtime import read_json
from tests.toys import tiny_checkpoint

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "close_genomes.py"
METHODS = ("kmer", "one_segment", "rmt_curriculum", "block_sparse")


@pytest.fixture(scope="module")
def recipe():
    specification = importlib.util.spec_from_file_location("close_genomes", RECIPE)
    module = importlib.util.module_from_spec(specification)
    sys.modules["close_genomes"] = module
    specification.loader.exec_module(module)
    module.SPECIES = {"first": ["a"], "second": ["b"], "third": ["c"]}
    yield module
    del sys.modules["close_genomes"]


@pytest.fixture(scope="module")
def experiment(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("close")
    genomes = [simulate_genome(seed=seed, num_bases=60_000, num_contigs=2) for seed in (3, 4, 5)]
    for name, genome in zip("abc", genomes):
        records = (f">{contig}\n{text}\n" for contig, text in genome.contigs.items())
        with gzip.open(folder / f"{name}.fa.gz", "wt") as file:
            file.writelines(records)
    checkpoint = tiny_checkpoint(folder / "model", k=6)
    tiny = {"tokens": 10, "segments": (1, 2, 5), "num_classes": 2, "block": 5_000, "max_blocks": 8, "sparse_block": 4}
    scale = replace(recipe.SMOKE, **tiny, batch_size=4, kmer_rows=12, rates=(1e-3,))
    return recipe.Experiment(scale, folder, checkpoint, folder / "runs")


def test_blocks_are_apart_and_windows_lie_in_them(recipe, experiment):
    parts = recipe.split_blocks("first", experiment.genomes, experiment.scale)
    places = sorted((block.chrom, block.start, block.end) for part in parts.values() for block in part)
    assert len(places) == 8 and all(end - start >= 5_000 for _, start, end in places)
    assert all(a[0] != b[0] or a[2] <= b[1] for a, b in itertools.pairwise(places))
    windows = recipe.draw_windows([parts["test"], parts["valid"]], "test", bases=300, number=5, seed=0)
    assert windows.labels.tolist() == [0] * 5 + [1] * 5
    for text, label, unit in zip(windows.texts, windows.labels, windows.unit):
        block = [*parts["test"], *parts["valid"]][unit]
        assert len(text) == 300 and text in block.genome.fetch(block.chrom, block.start, block.end)
        assert (unit >= len(parts["test"])) == label


def test_all_methods_read_the_same_number_of_tokens(recipe):
    for method in recipe.METHODS.values():
        for scale in (recipe.FULL, recipe.SMOKE):
            steps = method.steps(scale)
            assert sum(n * segments for n, (segments, _) in zip(steps, method.stages)) == scale.budget * method.times
            assert sum(steps) * scale.batch_size % scale.num_classes == 0


def test_the_rate_is_chosen_by_validation_loss_with_the_first_seed(recipe, experiment, monkeypatch):
    losses, asked = {1e-3: 0.5, 2e-3: 0.4, 4e-3: 0.6}, []

    def train(_, name, *, rate, seed):
        asked.append((name, seed))
        return Path("model"), {"valid": {"loss": losses[rate]}}

    monkeypatch.setattr(recipe, "train", train)
    three = replace(experiment, scale=replace(experiment.scale, rates=tuple(losses)))
    assert recipe.best_rate(three, "block_sparse") == (2e-3, {"0.001": 0.5, "0.002": 0.4, "0.004": 0.6})
    assert asked == [("block_sparse", 0)] * 3


def test_the_recipe_runs_and_collects(recipe, experiment):
    for name in METHODS:
        recipe.run_cell(experiment, name, 0)
    group = read_json(experiment.output / "group.json")
    assert len(group["group"]) == 2 and np.array(group["confusion"]).sum() == 2 * 5 * experiment.scale.valid_rows
    rows = recipe.collect(experiment, experiment.output)
    with (experiment.output / "close_genomes.csv").open() as file:
        written = list(csv.DictReader(file))
    assert len(written) == len(rows) and tuple(written[0]) == recipe.COLUMNS
    accuracy = {(row["method"], row["segments"]): row["value"] for row in rows if row["metric"] == "accuracy"}
    assert len({accuracy["truncated", n] for n in (1, 2, 5)}) == 1
    assert accuracy["truncated", 1] == accuracy["mean_of_segments", 1]
    assert accuracy["kmer", 1] == accuracy["kmer_mean_of_segments", 1]
    assert {row["train_segments"] for row in rows if row["method"] == "rmt_curriculum"} == {4}
    assert all((row["seconds"] is not None and row["seconds"] > 0) for row in rows if row["method"].startswith("rmt"))
    assert "rmt_curriculum" in recipe.summary(rows)
    report = read_json(experiment.output / "close_genomes.json")
    assert "rmt_two_segments-seed1" in report["missing"] and str(experiment.output) not in str(report)


def test_a_stream_says_what_predict_says_of_windows_of_each_length(recipe, experiment):
    folder = experiment.output / "rmt_curriculum" / "rate0.001-seed0" / "model"
    model, tokenizer = recipe.load_model(folder), recipe.load_tokenizer(folder)
    texts = experiment.test_windows().texts
    ids = np.stack([tokenizer.encode_ids(text)[0] for text in texts]).astype(np.int64)
    said = recipe.stream_windows(model, ids, experiment.scale.tokens, rows=3)
    assert said.shape == (4, 5, 2)
    for segments in (1, 2, 5):
        expected = recipe.logits(model, (text[: 60 * segments] for text in texts), tokenizer)
        np.testing.assert_allclose(said[:, segments - 1], expected, atol=1e-5)


def test_a_finished_cell_is_not_run_again(recipe, experiment, monkeypatch):
    monkeypatch.setattr(recipe, "measure", lambda *_: pytest.fail("measured again"))
    for name in METHODS:
        recipe.run_cell(experiment, name, 0)
