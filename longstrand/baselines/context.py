"""Per-base context regression: which class a base has, from the k-mers around it; the linear token-level baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from longstrand.baselines.linear import LinearModel, Rows, fit_linear
from longstrand.baselines.onehot import UNKNOWN, digits_of, kmer_codes
from longstrand.data.labelled import LabelledTable
from longstrand.runtime import generator

MAX_BASES_A_CLASS = 40_000
"""Training bases that are used of each class; their weights stand for the others."""


def context_features(sequence: str, places: np.ndarray, *, k: int, flank: int) -> sparse.csr_matrix:
    """Say which k-mer begins at each offset around some bases.

    Args:
        sequence: ACGTN.
        places: (m,) positions, 0-based.
        k: bases of a k-mer.
        flank: offsets ``-flank`` to ``+flank`` are looked at; k-mers with N or past the ends say nothing.

    Returns:
        Sparse float32 (m, (2 * flank + 1) * 4**k); the column of an offset block is the k-mer in base 4.
    """
    digits = np.full(len(sequence) + 2 * flank + k, UNKNOWN, dtype=np.int64)
    digits[flank : flank + len(sequence)] = digits_of(sequence)
    codes, known = kmer_codes(digits, k)
    offsets = np.arange(2 * flank + 1)
    starts = places[:, None] + offsets
    rows, blocks = known[starts].nonzero()
    columns = blocks * 4**k + codes[starts[rows, blocks]]
    ones = np.ones(len(rows), dtype=np.float32)
    return sparse.csr_matrix((ones, (rows, columns)), shape=(len(places), len(offsets) * 4**k))


@dataclass(frozen=True)
class ContextModel:
    """A fitted context regression."""

    k: int
    flank: int
    linear: LinearModel

    def predict(self, sequences: Sequence[str], pairs: Sequence[str] | None = None) -> list[np.ndarray]:
        """Give class probabilities a base: n arrays float32 (num_bases, num_classes)."""
        return [
            self.linear.predict(context_features(text, np.arange(len(text)), k=self.k, flank=self.flank))
            for text in sequences
        ]


@dataclass(frozen=True)
class ContextRegression:
    """Logistic regression of the class of a base on the k-mers at ``2 * flank + 1`` offsets around it."""

    k: int = 3
    flank: int = 10
    seed: int = 0

    def fit(self, train: LabelledTable, valid: LabelledTable | None = None) -> ContextModel:
        """Fit on at most `MAX_BASES_A_CLASS` bases of each class, each weighted by how many it stands for.

        Raises:
            ValueError: the problem is not token-level.
        """
        if train.task.problem != "token":
            raise ValueError(f"context regression is for labels per base, not {train.task.problem}.")
        rows, held_out = self._rows(train), None if valid is None else self._rows(valid)
        return ContextModel(
            self.k, self.flank, fit_linear(train.task, rows, held_out, seed=self.seed, what="context regression")
        )

    def _rows(self, table: LabelledTable) -> Rows:
        targets = np.concatenate(table.targets).astype(np.int64)
        chosen, weights = self._choose(targets)
        ends = np.cumsum([len(text) for text in table.sequences])
        parts = []
        for number, text in enumerate(table.sequences):
            start = int(ends[number]) - len(text)
            inside = chosen[np.searchsorted(chosen, start) : np.searchsorted(chosen, ends[number])] - start
            parts.append(context_features(text, inside, k=self.k, flank=self.flank))
        return Rows(sparse.vstack(parts, format="csr"), targets[chosen], weights)

    def _choose(self, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Choose labelled bases: sorted positions and the number of bases that each stands for, both (m,)."""
        chosen, weights = [], []
        for kind in np.unique(targets[targets >= 0]):
            places = (targets == kind).nonzero()[0]
            kept = places
            if len(places) > MAX_BASES_A_CLASS:
                kept = generator(self.seed, int(kind), "context bases").permutation(places)[:MAX_BASES_A_CLASS]
            chosen.append(kept)
            weights.append(np.full(len(kept), len(places) / len(kept)))
        order = np.argsort(np.concatenate(chosen))
        return np.concatenate(chosen)[order], np.concatenate(weights)[order]
