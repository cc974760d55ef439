"""Tokens to bases and back, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longstrand.tokenization.base import Encoding
from longstrand.tokenization.kmer import make_kmer


def encoding(offsets: list[tuple[int, int]], num_bases: int) -> Encoding:
    n = len(offsets)
    return Encoding(np.arange(n, dtype=np.int32), np.array(offsets, dtype=np.int32), num_bases, np.zeros(n, dtype=bool))


TILED = encoding([(0, 0), (0, 3), (3, 4), (4, 6), (0, 0)], 7)  # base 6 is covered by no token
SLIDING = encoding([(0, 0), (0, 3), (1, 4), (2, 5)], 5)


def test_to_bases_of_tiles():
    values = np.array([[9, 9], [6, 0], [2, 1], [4, 8], [9, 9]], dtype=np.float32)
    mean = TILED.to_bases(values)
    assert mean.shape == (7, 2) and mean.dtype == np.float32
    assert mean[:6, 0].tolist() == [6, 6, 6, 2, 4, 4] and np.isnan(mean[6]).all()
    assert TILED.to_bases(values, "share")[:, 0].tolist() == [2, 2, 2, 2, 2, 2, 0]
    assert TILED.to_bases(values[:, 0], "sum").tolist() == [6, 6, 6, 2, 4, 4, 0]
    full = encoding([(0, 0), (0, 3), (3, 4), (4, 6), (0, 0)], 6)
    assert all(full.to_bases(values[:, 0], how).tolist() == [6, 6, 6, 2, 4, 4] for how in ("mean", "max", "sum"))
    assert full.to_bases(values[:, 0], "share").tolist() == [2, 2, 2, 2, 2, 2]
    assert encoding([(0, 0), (0, 0)], 0).to_bases(values[:2]).shape == (0, 2)


def test_to_bases_of_overlapping_kmers():
    values = [100, 3, 9, 6]
    assert SLIDING.to_bases(values).tolist() == [3, 6, 6, 7.5, 6]
    assert SLIDING.to_bases(values, "max").tolist() == [3, 9, 9, 9, 6]
    assert SLIDING.to_bases(values, "sum").tolist() == [3, 12, 18, 15, 6]
    assert SLIDING.to_bases(values, "share").sum() == 18
    assert np.isnan(TILED.to_bases([1, -5, -6, -7, 1], "max")[6])


def test_from_bases_of_integers():
    labels = np.array([1, 2, 2, -100, 5, 4, 4])
    assert TILED.from_bases(labels, "majority").tolist() == [-100, 2, -100, 4, -100]
    assert TILED.from_bases(labels, "max").tolist() == [-100, 2, -100, 5, -100]
    assert TILED.from_bases(labels, "first").tolist() == [-100, 1, -100, 5, -100]
    mean = TILED.from_bases(labels)
    assert mean[1] == pytest.approx(5 / 3) and mean[3] == 4.5 and np.isnan(mean[[0, 2, 4]]).all()
    assert TILED.from_bases(labels > 1, "max").tolist() == [-100, 1, 0, 1, -100]


def test_from_bases_of_floats():
    labels = np.array([[1, 0], [np.nan, 0], [3, 0], [np.nan, 1], [5, 2]], dtype=np.float32)
    mean = SLIDING.from_bases(labels)
    assert mean.shape == (4, 2) and mean.dtype == np.float32
    assert mean[1:, 0].tolist() == [2, 3, 4] and np.isnan(mean[0]).all()
    assert SLIDING.from_bases(labels, "first")[1:, 0].tolist() == [1, 3, 3]
    assert SLIDING.from_bases(np.full(5, np.nan), "majority").tolist() == pytest.approx([np.nan] * 4, nan_ok=True)
    assert SLIDING.from_bases(np.empty((5, 0))).shape == (4, 0)


@settings(max_examples=50, deadline=None)
@given(text=st.text("ACGTN", max_size=60), k=st.integers(1, 6), overlapping=st.booleans())
def test_constant_labels_come_back(text, k, overlapping):
    encoded = make_kmer(k, overlapping=overlapping).encode(text)
    back = encoded.to_bases(encoded.from_bases(np.full(len(text), 3)))
    covered = np.zeros(len(text), dtype=bool)
    for start, end in encoded.offsets:
        covered[start:end] = True
    assert (back[covered] == 3).all() and np.isnan(back[~covered]).all()


def test_wrong_rows_and_reductions():
    with pytest.raises(ValueError, match="one row per token is needed: got 3 rows for 5 tokens"):
        TILED.to_bases([1, 2, 3])
    with pytest.raises(ValueError, match="one row per base is needed: got no rows"):
        TILED.from_bases(1)
    with pytest.raises(ValueError, match="reduce is mean, max, sum or share, not 'median'"):
        TILED.to_bases(np.zeros(5), "median")
    with pytest.raises(ValueError, match="reduce is mean, max, majority or first, not 'median'"):
        TILED.from_bases(np.zeros(7), "median")
