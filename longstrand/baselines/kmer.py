"""k-mer regression: the baseline that a DNA language model has to beat.

Counts of all k-mers of a sequence go into a logistic regression (classes, labels) or a ridge regression (numbers). The
strength of the penalty is chosen on the validation rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from longstrand.baselines.linear import Rows, fit_linear, predict_all
from longstrand.data.labelled import LabelledTable
from longstrand.data.targets import Task

_SKIP = 4


def kmer_counts(sequences: Sequence[str], k: int, *, both_strands: bool = False, gap: int = 0) -> sparse.csr_matrix:
    """Count the k-mers of each sequence.

    Args:
        sequences: n sequences in ``ACGTN``; k-mers with another letter than ACGT are left out.
        k: bases of a k-mer, 1 to 12.
        both_strands: add the counts of the other strand, so that a sequence and its reverse complement are the same.
        gap: bases between the two halves of a k-mer that are not looked at; k is then even.

    Returns:
        Sparse float32 (n, 4**k); column ``c`` is the k-mer whose letters, A=0 C=1 G=2 T=3, are the digits of ``c`` in
        base 4. Sequences shorter than k give an empty row.

    Raises:
        ValueError: k is out of range, or odd with a gap.
    """
    if not 1 <= k <= 12:
        raise ValueError(f"k must be 1 to 12, got {k}.")
    if gap and k % 2:
        raise ValueError(f"k must be even with a gap, got {k}.")
    digits, row = _digits(sequences)
    if len(digits) < k + gap:
        return sparse.csr_matrix((len(sequences), 4**k), dtype=np.float32)
    num_places = len(digits) - k - gap + 1
    code = np.zeros(num_places, dtype=np.int32)
    mirrored = np.zeros(num_places, dtype=np.int32)
    valid = row[:num_places] == row[k + gap - 1 :]
    for place in range(k):
        offset = place if 2 * place < k else place + gap
        here = digits[offset : offset + num_places]
        valid &= here < _SKIP
        code = code * 4 + here
        mirrored += (3 - here.astype(np.int32)) * 4**place
    rows = row[:num_places][valid]
    counts = _count(rows, code[valid], (len(sequences), 4**k))
    return counts + _count(rows, mirrored[valid], counts.shape) if both_strands else counts


@dataclass(frozen=True)
class KmerModel:
    """A fitted k-mer regression.

    Attributes:
        task: kind of problem and names of the outputs.
        k: bases of a k-mer.
        both_strands: whether k-mers of both strands are counted.
        max_gap: k-mers whose halves are 1 to this many bases apart are counted too.
        penalty: the chosen C (logistic) or alpha (ridge).
        estimators: fitted estimators; one, or one an output.
    """

    task: Task
    k: int
    both_strands: bool
    max_gap: int
    penalty: float
    estimators: tuple[Any, ...]

    def predict(self, sequences: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray:
        """Give class probabilities, label probabilities or numbers: float32 (n, num_outputs)."""
        features = _features(sequences, pairs, self.k, self.both_strands, self.max_gap)
        return predict_all(self.task, self.estimators, features)


class KmerRegression:
    """Logistic or ridge regression on k-mer counts; with ``max_gap`` also of k-mers with a gap between their halves.

    Example:
        >>> model = KmerRegression(k=6).fit(train, valid)  # doctest: +SKIP
        >>> model.predict(test.sequences)  # doctest: +SKIP
    """

    def __init__(self, k: int = 6, *, both_strands: bool = False, max_gap: int = 0, seed: int = 0) -> None:
        self.k, self.both_strands, self.max_gap, self.seed = k, both_strands, max_gap, seed

    def fit(self, train: LabelledTable, valid: LabelledTable | None = None) -> KmerModel:
        """Fit on the training rows; choose the penalty by the loss on the validation rows, from strong to weak until it
        grows.

        Without ``valid`` a moderate penalty is taken. Rows whose target is missing are left out, output by output.

        Raises:
            ValueError: the problem is token-level.
        """
        if train.task.problem == "token":
            raise ValueError("k-mer regression has no token-level form; use the context regression.")
        rows, held_out = (
            None
            if table is None
            else Rows(
                _features(table.sequences, table.pairs, self.k, self.both_strands, self.max_gap),
                np.asarray(table.targets),
            )
            for table in (train, valid)
        )
        assert rows is not None
        model = fit_linear(train.task, rows, held_out, seed=self.seed, what=f"{self.k}-mer regression")
        return KmerModel(train.task, self.k, self.both_strands, self.max_gap, model.penalty, model.estimators)


def _features(
    sequences: Sequence[str], pairs: Sequence[str] | None, k: int, both_strands: bool, max_gap: int
) -> sparse.csr_matrix:
    sides = (sequences,) if pairs is None else (sequences, pairs)
    counts = [kmer_counts(side, k, both_strands=both_strands, gap=gap) for side in sides for gap in range(max_gap + 1)]
    return counts[0] if len(counts) == 1 else sparse.hstack(counts, format="csr")


def _digits(sequences: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Give the digit of each base, with a skipped one after each sequence, and the sequence of each: uint8, int32."""
    table = np.full(256, _SKIP, dtype=np.uint8)
    for digit, letter in enumerate(b"ACGT"):
        table[letter] = digit
    text = np.frombuffer("|".join(sequences).encode("ascii"), dtype=np.uint8)
    lengths = np.array([len(sequence) + 1 for sequence in sequences], dtype=np.int64)
    return table[text], np.repeat(np.arange(len(sequences), dtype=np.int32), lengths)[: len(text)]


def _count(rows: np.ndarray, codes: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    matrix = sparse.coo_matrix((np.ones(len(rows), dtype=np.float32), (rows, codes)), shape=shape)
    return matrix.tocsr()
