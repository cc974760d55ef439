"""One-hot regression: one weight a base and position, the baseline for signals at fixed places.

Sequences shorter than the longest training sequence say nothing at the missing places; longer ones are cut to the
middle, because windows are usually centred on what they are about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import sparse

from longstrand.baselines.linear import SequenceModel, fit_sequences
from longstrand.data.labelled import LabelledTable

UNKNOWN = 4
MAX_BASES = 2000
"""Places that get weights; more would be more weights than most tables have rows."""

_CODES = np.full(256, UNKNOWN, dtype=np.uint8)
_CODES[np.frombuffer(b"ACGTacgt", dtype=np.uint8)] = [0, 1, 2, 3, 0, 1, 2, 3]


def digits_of(sequence: str) -> np.ndarray:
    """Give A=0, C=1, G=2, T=3 and 4 for anything else: uint8 (num_bases,)."""
    return _CODES[np.frombuffer(sequence.encode("ascii"), dtype=np.uint8)]


def middle(sequence: str, length: int) -> str:
    """Cut a sequence to ``length`` bases in its middle; a shorter one stays."""
    start = max(0, (len(sequence) - length) // 2)
    return sequence[start : start + length]


def padded_digits(sequences: Sequence[str], length: int) -> np.ndarray:
    """Give the digits of each sequence, uint8 (n, length): longer ones cut to the middle, shorter ones filled."""
    digits = np.full((len(sequences), length), UNKNOWN, dtype=np.uint8)
    for line, sequence in zip(digits, sequences):
        own = digits_of(middle(sequence, length))
        line[: len(own)] = own
    return digits


def kmer_codes(digits: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Number the k-mer that begins at each base: code in base 4, int64 (n - k + 1,), and whether it holds no N."""
    starts = max(0, len(digits) - k + 1)
    codes, known = np.zeros(starts, dtype=np.int64), np.ones(starts, dtype=bool)
    for shift in range(k):
        here = digits[shift : shift + starts]
        codes, known = codes * 4 + here, known & (here != UNKNOWN)
    return codes, known


def one_hot(digits: np.ndarray) -> sparse.csr_matrix:
    """Turn digits (n, length) into sparse float32 (n, 4 * length); column ``4 * place + digit``."""
    rows, places = (digits != UNKNOWN).nonzero()
    columns = 4 * places + digits[rows, places]
    ones = np.ones(len(rows), dtype=np.float32)
    return sparse.csr_matrix((ones, (rows, columns)), shape=(len(digits), 4 * digits.shape[1]))


@dataclass(frozen=True)
class OneHotRegression:
    """Logistic or ridge regression on one-hot sequences."""

    def fit(self, train: LabelledTable, valid: LabelledTable | None = None) -> SequenceModel:
        """Fit on the training rows; the penalty is chosen on the validation rows.

        Raises:
            ValueError: the problem is token-level.
        """
        length = min(MAX_BASES, max(map(len, [*train.sequences, *(train.pairs or [])])))
        return fit_sequences(partial(_features, length=length), train, valid, what="one-hot regression")


def _features(sequences: Sequence[str], pairs: Sequence[str] | None, *, length: int) -> sparse.csr_matrix:
    first = one_hot(padded_digits(sequences, length))
    if pairs is None:
        return first
    return sparse.hstack([first, one_hot(padded_digits(pairs, length))], format="csr")
