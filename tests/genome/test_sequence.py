from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longstrand.errors import InputError
from longstrand.genome.sequence import Normalised, gc_fraction, normalise, reverse_complement

NUCLEOTIDES = "ACGTUNRYSWKMBDHVacgtunryswkmbdhv"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ACGTN", Normalised("ACGTN", 0, 0)),
        ("", Normalised("", 0, 0)),
        ("acGTn", Normalised("ACGTN", 3, 0)),
        ("ACRYuU", Normalised("ACNNTT", 1, 2)),
        ("nnNN", Normalised("NNNN", 2, 0)),
    ],
)
def test_normalise_by_hand(text: str, expected: Normalised) -> None:
    assert normalise(text) == expected


def test_the_alphabet_decides_what_is_kept() -> None:
    assert normalise("ACGN", "ACGT") == Normalised("ACGN", 0, 1)
    assert normalise("ACRW", "ACGTNR") == Normalised("ACRN", 0, 1)
    assert normalise("acgu", "ACGU") == Normalised("ACGU", 4, 0)


@given(st.text(alphabet=NUCLEOTIDES, max_size=60))
def test_normalise_agrees_with_a_letter_by_letter_version(text: str) -> None:
    upper = [letter.upper().replace("U", "T") for letter in text]
    result = normalise(text)
    assert result.sequence == "".join(letter if letter in "ACGTN" else "N" for letter in upper)
    assert result.num_lower_case == sum(letter.islower() for letter in text)
    assert result.num_unknown == sum(letter not in "ACGTN" for letter in upper)
    assert len(result.sequence) == len(text)


@pytest.mark.parametrize("bad", ["X", "E", "-", " ", "1", "\n", "é", "*"])
def test_a_letter_that_is_no_nucleotide_is_named_with_its_place(bad: str) -> None:
    with pytest.raises(InputError) as caught:
        normalise("ACg" + bad + "ZA", where="train.csv:17")
    assert str(caught.value).startswith(f"train.csv:17: {bad!r} at position 4 is no nucleotide letter")


def test_without_where_the_message_begins_with_the_letter() -> None:
    with pytest.raises(InputError, match=r"^'Q' at position 1 is no nucleotide"):
        normalise("Q")


def test_reverse_complement_by_hand() -> None:
    assert reverse_complement("AACGRn") == "nYCGTT"
    assert reverse_complement("RYSWKMBDHVN") == "NBDHVKMWSRY"
    assert reverse_complement("") == ""


@given(st.text(alphabet=NUCLEOTIDES.replace("U", "").replace("u", "")))
def test_reverse_complement_twice_is_the_same(text: str) -> None:
    assert reverse_complement(reverse_complement(text)) == text


def test_gc_fraction() -> None:
    assert gc_fraction("GGCA") == 0.75
    assert gc_fraction("ggcaNNNN") == 0.75
    assert gc_fraction("NNR") == 0.5
    assert gc_fraction("GCUU") == 0.5
