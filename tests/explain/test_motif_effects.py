"""Motifs put in, taken out and moved apart, with scores that count words: every answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from longstrand.errors import InputError, SequenceError, UsageError
from longstrand.explain import motif_effects
from longstrand.explain.scan import Hits


def gata(texts):
    """Two outputs: GATAs, and minus twice as many."""
    counts = np.array([text.count("GATA") for text in texts], dtype=np.float32)
    return np.stack([counts, -2 * counts], axis=1)


def pair(texts):
    """1 for each GATA and CAAT, and 5 more where exactly three letters are between them."""
    return np.array([[t.count("GATA") + t.count("CAAT") + 5 * ("GATACCCCAAT" in t)] for t in texts])


def test_marginalize_by_hand():
    frame = motif_effects.marginalize(gata, ["CCCCCCCC", "GATACCCCCCCC"], "GATA")
    assert frame["effect"].to_list() == [1, -2, 1, -2]
    assert frame["with"].to_list() == [1, -2, 2, -4]
    assert motif_effects.marginalize(gata, ["GATACC"], "CC", start=0)["effect"].to_list() == [-1, 2]
    with pytest.raises(InputError, match=r"'GATA' .4 bases. does not fit"):
        motif_effects.marginalize(gata, ["CCC"], "GATA")
    table = motif_effects.summary(frame)
    assert (table["output"].to_list(), table["mean"].to_list()) == ([0, 1], [1, -2])


@pytest.mark.parametrize("ask", [
    lambda score, texts, hits: motif_effects.marginalize(score, texts, "GATA"),
    lambda score, texts, hits: motif_effects.ablate(score, texts, hits),
    lambda score, texts, hits: motif_effects.space(score, texts, ("GA", "TA"), [0]),
])  # fmt: skip
def test_the_sequence_that_a_score_refuses_is_named(ask):
    """The third one, whichever of the texts that were made of it is refused."""
    texts, row, p = ["C" * 30, "A" * 30, "G" * 31], np.array([1, 2]), np.zeros(2)
    hits = Hits(row * 0, row, row * 0, row * 0 + 4, p > 0, p, p, p, row)

    def score(some):
        for number, text in enumerate(some):
            if len(text) > 30:
                raise SequenceError(number, "too long")
        return np.zeros((len(some), 1))

    with pytest.raises(SequenceError, match=r"^sequence 3: too long$"):
        ask(score, texts, hits)


def test_ablate_by_hand():
    texts = ["CCCC", "CCGATACCCCCCCCCCCCCCCCCCCCCCC"]
    one = np.array([1])
    p = np.zeros(1)
    hits = Hits(one * 0, one, one + 1, one * 6, p > 0, p, p, p, one)
    frame = motif_effects.ablate(gata, texts, hits, shuffles=40)
    assert frame["sequence"].to_list() == [1, 1]
    assert 0.8 < frame["effect"][0] <= 1  # 1 of 12 orders of GATA is GATA
    assert frame["effect"][1] == pytest.approx(-2 * frame["effect"][0])
    assert frame["control"][0] < frame["effect"][0]
    with pytest.raises(InputError, match="no sequence has a site"):
        motif_effects.ablate(gata, texts, hits.take(np.zeros(1, bool)))


def test_space_by_hand():
    frame = motif_effects.space(pair, ["C" * 30, "G" * 30], ("GATA", "CAAT"), [2, 3, 4])
    rows = {row["distance"]: row for row in frame.rows(named=True)}
    assert [rows[d]["interaction"] for d in (2, 3, 4)] == [0, 2.5, 0]  # the bonus needs C between the two
    assert (rows[3]["first"], rows[3]["second"], rows[3]["both"]) == (1, 1, 4.5)
    flipped = motif_effects.space(pair, ["C" * 30], ("GATA", "ATTG"), [3], flip=True)
    assert flipped["interaction"].to_list() == [5]
    with pytest.raises(InputError, match="does not fit"):
        motif_effects.space(pair, ["C" * 12], ("GATA", "CAAT"), [9])
    for distances in ([-1], []):
        with pytest.raises(UsageError, match="distances are whole numbers from 0"):
            motif_effects.space(pair, ["C" * 30], ("GATA", "CAAT"), distances)
    with pytest.raises(UsageError, match="has no letter"):
        motif_effects.marginalize(gata, ["CCC"], "")
    with pytest.raises(InputError, match="there is no sequence"):
        motif_effects.marginalize(gata, [], "GATA")
