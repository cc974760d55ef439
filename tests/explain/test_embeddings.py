"""Elements and species told apart: against scikit-learn run on its own (golden), and on vectors known by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from longstrand.data.rows import Record
from longstrand.errors import InputError, UsageError
from longstrand.explain import embeddings
from longstrand.explain.elements import Elements
from longstrand.genome.intervals import Interval
from longstrand.models.checkpoint import load_model
from longstrand.questions.tokens import read_text, states
from tests.toys import tiny_checkpoint


@pytest.mark.slow
def test_species_pairs(shared):
    folder = shared / "golden/explain/species"
    golden = json.loads((folder / "three_species.json").read_text())
    held = np.load(folder / "three_species.npz")
    labels = np.array(golden["species"])[held["labels"]]
    right = golden["pairs"][1]
    chosen = np.isin(labels, [right["a"], right["b"]])
    found = embeddings.pairs({"3-mers": held["features"][chosen]}, labels[chosen].tolist()).row(0, named=True)
    assert (found["a"], found["b"], found["rows"]) == (right["a"], right["b"], 240)
    assert found["f1_macro"] == pytest.approx(right["f1_macro"], abs=0.02)


def test_species_need_rows_for_the_folds():
    with pytest.raises(InputError, match="'b' has fewer than 5 rows"):
        embeddings.pairs({"x": np.zeros((8, 1))}, ["a"] * 5 + ["b"] * 3)
    with pytest.raises(InputError, match="'a' has fewer than 5 rows or groups"):
        embeddings.pairs({"x": np.zeros((12, 1))}, ["a"] * 6 + ["b"] * 6, ["g"] * 12)


def test_separation_by_hand():
    """Two directions; the second kind of features is noise. Rows of one group are never neighbours."""
    rng = np.random.default_rng(0)
    labels = ["in", "out"] * 40
    apart = np.array([[1.0, 0.0], [0.0, 1.0]] * 40) + rng.normal(0, 0.05, (80, 2))
    table = embeddings.separation(
        {"apart": apart, "noise": rng.normal(0, 1, (80, 2))}, labels, ["c1", "c1", "c2", "c2"] * 20
    )
    rows = {row["features"]: row for row in table.rows(named=True)}
    assert rows["apart"]["knn_accuracy"] == 1 and rows["apart"]["silhouette"] > 0.9
    assert rows["noise"]["knn_accuracy"] < 0.75 and abs(rows["noise"]["silhouette"]) < 0.1
    assert rows["noise"]["chance"] == 0.5
    own = np.repeat(np.eye(4), 20, axis=0)  # each group has a direction of its own, which says nothing of the others
    lone = embeddings.separation({"own": own}, ["in"] * 40 + ["out"] * 40, np.repeat(list("wxyz"), 20).tolist())
    assert lone["knn_accuracy"][0] < 1
    with pytest.raises(InputError, match="one label"):
        embeddings.separation({"x": apart}, ["in"] * 80, ["c"] * 80)
    first = embeddings.coordinates(np.array([[0, 0.0], [3, 0], [-1, 1]]))
    np.testing.assert_allclose(first.mean(0), 0, atol=1e-12)
    assert first.shape == (3, 2) and first[1, 0] > 0
    made = embeddings.coordinates(apart, "tsne")
    assert made.shape == (80, 2)
    with pytest.raises(UsageError, match=r"unknown map 'umpa' \(did you mean 'umap'"):
        embeddings.coordinates(apart, "umpa")
    with pytest.raises(UsageError, match="3 vectors are too few"):
        embeddings.coordinates(np.eye(3), "tsne")
    with pytest.raises(InputError, match="2 vectors of 2 labels are too few"):
        embeddings.separation({"model": np.eye(2)}, ["a", "b"], ["c1", "c2"])


def test_vectors_are_means_over_tokens_of_the_element(tmp_path):
    model = load_model(tiny_checkpoint(tmp_path / "m"))
    record = Record(0, "a", "ACGTTGCAACGT", Interval("c", 10, 22))
    elements = Elements({"site": {"c": np.array([[12, 15]])}})  # bases 2 to 5: tokens 1 and 2 of 2 bases
    found = embeddings.element_vectors(model, [record], elements)
    (hidden,) = states(model, [record.sequence])
    rows = [
        i
        for i, (start, end) in enumerate(read_text(model, record.sequence).offsets)
        if start < 5 and end > 2 and end > start
    ]
    np.testing.assert_allclose(found.features["model"][0], hidden[rows].mean(0), rtol=1e-5)
    assert (found.labels, found.groups) == (["site"], ["c"])
    assert not np.allclose(found.features["moved"][0], found.features["model"][0])
    assert found.features["6-mers"].sum() == 0  # three bases hold no 6-mer
    np.testing.assert_allclose(embeddings.kmer_frequencies(["AAC"], 2, both_strands=False)[0, [0, 1]], [0.5, 0.5])
    with pytest.raises(InputError, match="no window holds"):
        embeddings.element_vectors(model, [record], Elements({"site": {}}))
    whole = Elements({"site": {"c": np.array([[0, 50]])}})  # fills the window, so there is no other place to compare
    with pytest.raises(InputError, match="no window holds"):
        embeddings.element_vectors(model, [record], whole)
