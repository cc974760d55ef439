"""Texts of every awkward kind, for the property tests."""

from __future__ import annotations

from hypothesis import strategies as st

LITERALS = [
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[PAD]",
    "[MASK]",
    "-",
    "--",
    "[MASK",
    "[",
    "<mask>",
    "<cls>",
    "<pad>",
    "<",
    "-N",
]
SPACES = [" ", "\n", "\t", "  ", "\r\n", "\x0b", "\x1c", "\x85", "\xa0", " ", "　", "​"]
ODD = [
    "acgt",
    "n",
    "nnnnnnnnnnnn",
    "RYSWKM",
    "BDHVN",
    "U",
    "X",
    "1",
    "_",
    ".",
    "é",
    "–",
    "🧬",
    "\x00",
    "\x7f",
    "Ñ",
    "中",
    "ǅ",
    "e\u0301",
]

dna = st.text("ACGT", max_size=80)
gaps = st.integers(0, 60).map("N".__mul__)
repeats = st.builds(lambda unit, count: unit * count, st.text("ACGT", min_size=1, max_size=7), st.integers(1, 70))
pieces = st.one_of(dna, dna, gaps, repeats, st.sampled_from(LITERALS), st.sampled_from(SPACES), st.sampled_from(ODD))
texts = st.lists(pieces, max_size=14).map("".join)
