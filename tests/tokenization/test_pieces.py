"""Texts that come in pieces give the ids and offsets of the whole, wherever they are cut."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from longstrand.errors import TokenizerError
from longstrand.tokenization.kmer import make_kmer
from longstrand.tokenization.pieces import encode_pieces
from longstrand.tokenization.train import train_bpe

DRAW = random.Random(3)
RANDOM = "".join(DRAW.choices("ACGT", k=6000))
REPEATS = "".join(DRAW.choice(["A" * 700, "CA" * 400, "GATTACA" * 90, "N" * 300, RANDOM[:500]]) for _ in range(12))
MIXED = RANDOM[:2000] + "N" * 3 + RANDOM[2000:2777] + "N" * 1500 + REPEATS + RANDOM[3000:4001]


@pytest.fixture(scope="module")
def bpe() -> Any:
    return train_bpe([RANDOM + REPEATS], vocab_size=200)


def cut(text: str, seed: int) -> Iterator[str]:
    draw, at = random.Random(seed), 0
    while at < len(text):
        size = draw.choice([1, 7, 300, 900])
        yield text[at : at + size]
        at += size


@pytest.mark.parametrize("kind", ["1-mers", "6-mers", "overlapping", "bpe"])
@pytest.mark.parametrize("seed", [0, 1])
def test_pieces_give_what_the_whole_gives(kind: str, seed: int, bpe: Any) -> None:
    tokenizer = {"1-mers": make_kmer(1), "6-mers": make_kmer(6), "overlapping": make_kmer(3, overlapping=True)}.get(
        kind, bpe
    )
    ids, offsets = tokenizer.encode_ids(MIXED)
    parts = list(encode_pieces(tokenizer, cut(MIXED, seed), margin=128))
    assert len(parts) > 5
    np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), ids)
    np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), offsets)


def test_nothing_gives_nothing() -> None:
    assert list(encode_pieces(make_kmer(1), [])) == list(encode_pieces(make_kmer(1), [""])) == []


class Parity:
    """A tokenizer no text can be cut for: one token a letter, which says whether the letters to its right are even."""

    def encode_ids(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        places = np.arange(len(text))
        return (len(text) - places) % 2, np.stack((places, places + 1), axis=1)


def test_a_token_that_depends_on_what_is_far_away_is_refused() -> None:
    with pytest.raises(TokenizerError, match="the token at base 4 depends on letters too far to its right"):
        list(encode_pieces(Parity(), ["A" * 8, "C"], margin=5))  # type: ignore[arg-type]
