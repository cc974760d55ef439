"""Every array of every golden file is claimed by a test that mentions it, or left out for a stated reason."""

from __future__ import annotations

from pathlib import Path

from tests.parity.golden import CLAIMS, ELSEWHERE, NOT_OURS, claim, golden_items, words_of

TESTS = Path(__file__).resolve().parents[1]


def test_every_golden_array_has_its_test(shared):
    items = golden_items(shared / "golden")
    assert [item for item in items if claim(item) is None] == []
    sources = {module: (TESTS / module).read_text() for _, _, module in CLAIMS}
    silent = [
        (item, word)
        for item in items
        if (module := claim(item)) in sources
        for word in words_of(item)
        if word not in sources[module]
    ]
    assert silent == []


def test_a_forgotten_array_is_noticed():
    assert claim("gena/bert_preln/mlm/other.npz:logits") is None
    assert claim("gena/new_model/expected.npz:logits") is None
    assert claim("gena/bert_preln/mlm/expected.npz:logits") == "parity/test_gena.py"
    assert words_of("x/expected.npz:repohead_hidden_0") == ["hidden"]
    assert words_of("x/expected.npz:eval_full/gradnorm/bert.a.weight") == ["eval_full", "gradnorm"]
    assert all(len(reason) > 4 for reason in (ELSEWHERE | NOT_OURS).values())
