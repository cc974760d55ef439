"""k-mer regression: the baseline that a DNA language model has to beat.

Counts of all k-mers of a sequence go into a logistic regression (classes, labels) or a ridge regression (numbers). The
strength of the penalty is chosen on the validation rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np
from scipy import sparse

from longstrand.baselines.linear import SequenceModel, fit_sequences
from longstrand.baselines.onehot import UNKNOWN, digits_of
from longstrand.data.labelled import LabelledTable


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
    digits = digits_of("|".join(sequences))
    row = np.repeat(np.arange(len(sequences), dtype=np.int32), [len(text) + 1 for text in sequences])[: len(digits)]
    if len(digits) < k + gap:
        return sparse.csr_matrix((len(sequences), 4**k), dtype=np.float32)
    num_places = len(digits) - k - gap + 1
    code = np.zeros(num_places, dtype=np.int32)
    mirrored = np.zeros(num_places, dtype=np.int32)
    valid = row[:num_places] == row[k + gap - 1 :]
    for place in range(k):
        offset = place if 2 * place < k else place + gap
        here = digits[offset : offset + num_places]
        valid &= here < UNKNOWN
        code = code * 4 + here
        mirrored += (3 - here.astype(np.int32)) * 4**place
    rows = row[:num_places][valid]
    counts = _count(rows, code[valid], (len(sequences), 4**k))
    return counts + _count(rows, mirrored[valid], counts.shape) if both_strands else counts


@dataclass(frozen=True)
class KmerRegression:
    """Logistic or ridge regression on k-mer counts; with ``max_gap`` also of k-mers with a gap between their halves.

    Attributes:
        k: bases of a k-mer.
        both_strands: count k-mers of both strands.
        max_gap: k-mers whose halves are 1 to this many bases apart are counted too.
        seed: of the regression.

    Example:
        >>> model = KmerRegression(k=6).fit(train, valid)  # doctest: +SKIP
        >>> model.predict(test.sequences)  # doctest: +SKIP
    """

    k: int = 6
    _: KW_ONLY
    both_strands: bool = False
    max_gap: int = 0
    seed: int = 0

    def fit(self, train: LabelledTable, valid: LabelledTable | None = None) -> SequenceModel:
        """Fit on the training rows; choose the penalty by the loss on the validation rows, from strong to weak until it
        grows.

        Without ``valid`` a moderate penalty is taken. Rows whose target is missing are left out, output by output.

        Raises:
            ValueError: the problem is token-level.
        """
        return fit_sequences(self.features, train, valid, seed=self.seed, what=f"{self.k}-mer regression")

    def features(self, sequences: Sequence[str], pairs: Sequence[str] | None = None) -> sparse.csr_matrix:
        """Count k-mers, those of pairs and of each gap beside each other: sparse float32 (n, d)."""
        sides, gaps = (sequences,) if pairs is None else (sequences, pairs), range(self.max_gap + 1)
        counts = [kmer_counts(side, self.k, both_strands=self.both_strands, gap=gap) for side in sides for gap in gaps]
        return counts[0] if len(counts) == 1 else sparse.hstack(counts, format="csr")


def _count(rows: np.ndarray, codes: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    matrix = sparse.coo_matrix((np.ones(len(rows), dtype=np.float32), (rows, codes)), shape=shape)
    return matrix.tocsr()
