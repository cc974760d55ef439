"""Statistics of important tokens: by hand, and against scipy run on its own (golden)."""

from __future__ import annotations

import json

import numpy as np
import pytest

from longstrand.errors import InputError
from longstrand.explain import importance as imp
from longstrand.explain.circular_shift import ShiftSum, circular_counts
from longstrand.explain.scan import Hits


@pytest.fixture(scope="module")
def golden(shared):
    found = json.loads((shared / "golden/explain/statistics/ctcf.json").read_text())
    columns = found["columns"]
    lengths = np.full(max(columns["sequence"]) + 1, 100)
    arrays = (np.array(columns[name]) for name in ("sequence", "start", "end"))
    return found, imp.TokenTable(*arrays, columns["token"], np.array(columns["importance"]), lengths)


def test_top_tokens_and_enrichment(golden):
    found, tokens = golden
    assert np.percentile(tokens.importance, 95) == pytest.approx(found["threshold_95"], rel=1e-6)
    assert tokens.important.sum() == found["highly_important"]
    ours = {row["token"]: row for row in imp.enriched_tokens(tokens).rows(named=True)}
    assert len(ours) == len(found["enrichment"])
    for row in found["enrichment"]:
        own = ours[row["token"]]
        assert (own["occurrences"], own["important"]) == (row["occurrences"], row["in_top"])
        assert (own["p"], own["q"]) == pytest.approx((row["p"], row["q_bh"]), rel=1e-6)


def test_classes_by_token_and_by_sequence(golden):
    found, tokens = golden
    table, unit = imp.compare_classes(tokens, found["columns"]["class"])
    for row in table.rows(named=True):
        gold = found["motif_classes"][row["class"]]
        assert (row["tokens"], row["median"]) == (gold["n"], pytest.approx(gold["median"], rel=1e-6))
        for ours, theirs in (("u", "U"), ("p", "p"), ("p_holm", "holm_p"), ("auroc", "auc")):
            assert row[ours] == (pytest.approx(gold[theirs], rel=1e-6) if theirs in gold else None)
    row = unit.row(0, named=True)
    assert row["p"] == pytest.approx(found["wilcoxon"]["p"], rel=1e-6)
    assert row["sequences"] == found["wilcoxon"]["n"]
    inside = np.array(found["columns"]["class"]) != "none"
    np.testing.assert_allclose(imp.sequence_differences(tokens, inside), found["per_sequence_difference"], rtol=1e-6)


def test_profile_by_position(golden):
    found, tokens = golden
    values = [np.zeros(100) for _ in tokens.lengths]
    for row in range(len(tokens.text)):
        start, end = tokens.start[row], tokens.end[row]
        values[tokens.sequence[row]][start:end] += tokens.importance[row] / (end - start)
    mean = imp.position_profile(values)["mean"].to_numpy()
    np.testing.assert_allclose(mean, found["position_profile_shared"], rtol=1e-6)


def test_tokens_get_the_sum_of_their_bases_and_classes_of_their_hits():
    offsets = [np.array([[0, 0], [0, 2], [2, 3]]), np.array([[0, 2], [1, 3]])]
    tokens = imp.token_table(["acg", "TTT"], offsets, [np.array([1, 2, 4.0]), np.array([1, 4, 1.0])])
    assert tokens.text == ["AC", "G", "TT", "TT"]
    np.testing.assert_allclose(tokens.importance, [3, 4, 3, 3])
    q = np.array([0.03, 0.005])
    hits = Hits(*np.array([[0, 0], [0, 1], [2, 2], [3, 3]]), np.zeros(2, bool), q, q, q, np.array([4]))
    assert imp.hit_classes(tokens, hits)[0] == ["none", "weak", "none", "strong"]
    with pytest.raises(InputError, match="sequence 1 has 3 bases but 2"):
        imp.token_table(["ACG"], offsets[:1], [np.zeros(2)])
    with pytest.raises(InputError, match="of 2 sequences, but 1"):
        imp.token_table(["ACG"], offsets[:1], [np.zeros(2)] * 2)
    with pytest.raises(InputError, match="no token"):
        imp.token_table([""], [np.empty((0, 2))], [np.empty(0)])


def test_null_of_shifts_by_hand():
    counts = circular_counts(np.array([3, 0, 1]), np.array([True, False, False]))
    assert counts.tolist() == [3, 0, 1]
    null = ShiftSum([counts, np.array([0, 1])])  # sums 3, 0, 1, 4, 1, 2, each 1/6
    assert [null.p(k) for k in range(6)] == pytest.approx([1, 5 / 6, 3 / 6, 2 / 6, 1 / 6, 0])
    assert null.mean == pytest.approx(11 / 6)
    assert null.sd == pytest.approx(np.std([3, 0, 1, 4, 1, 2]))


def test_within_sequences_by_hand():
    """Token A is important in both sequences; each of 4 shifts is as likely: p = 1/16."""
    words = list("ACGT") * 2 + ["C"] * 4
    sequence = np.repeat([0, 1, 2], 4)
    start = np.tile(np.arange(4), 3)
    values = np.array([9.0, 0, 0, 0] * 2 + [0] * 4)
    tokens = imp.TokenTable(sequence, start, start + 1, words, values, np.full(3, 4))
    within = imp._within_sequences(tokens, np.array(words), values > 1, {"A", "C"})
    assert within["A"] == pytest.approx(1 / 16)
    assert within["C"] == 1.0
