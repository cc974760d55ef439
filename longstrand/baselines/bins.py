"""Baselines for numbers per bin: mean of a track, mean by place in the window, and k-mers in and around a bin."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from longstrand.baselines.onehot import digits_of, kmer_codes
from longstrand.data.bins import moments
from longstrand.data.labelled import LabelledTable
from longstrand.genome.sequence import reverse_complement
from longstrand.runtime import generator

logger = logging.getLogger(__name__)

MAX_TRAIN_BINS = 40_000
"""Training bins that the k-mer regression is fitted on, drawn at random; more change little and cost memory."""

MAX_VALID_BINS = 10_000

BLOCKS = ((5, 0, 0), (4, -2, -1), (4, 1, 2), (3, -8, 8))
"""Features of a bin: counts of k-mers that begin in the bins from ``first`` to ``last`` around it: (k, first, last)."""
NUM_FEATURES = sum(4**k for k, _, _ in BLOCKS)

ALPHAS = (30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03)
"""Ridge penalties tried, strongest first, in units of the number of training bins over a hundred."""


@dataclass(frozen=True)
class BinMeans:
    """The mean of each track, or its mean at each place counted from the middle of the sequence.

    Attributes:
        bin_bases: bases of a bin.
        mean: float32 (C,) over all bins.
        by_place: float32 (P, C) means at the places of the longest training sequence, or None.
    """

    bin_bases: int
    mean: np.ndarray
    by_place: np.ndarray | None = None

    def predict(self, sequences: Sequence[str], pairs: Sequence[str] | None = None) -> list[np.ndarray]:
        """Give the same numbers for every sequence of a length: n arrays float32 (bins, C)."""
        return [self._values(len(text) // self.bin_bases) for text in sequences]

    def _values(self, number: int) -> np.ndarray:
        if self.by_place is None:
            return np.tile(self.mean, (number, 1))
        places = np.arange(number) - number // 2 + len(self.by_place) // 2
        inside = (places >= 0) & (places < len(self.by_place))
        return np.where(inside[:, None], self.by_place[places.clip(0, len(self.by_place) - 1)], self.mean)


def fit_means(train: LabelledTable, *, by_place: bool = False, both_strands: bool = False) -> BinMeans:
    """Average the training targets over all bins, or also place by place; missing numbers are left out.

    Args:
        train: numbers per bin.
        by_place: sequences are laid over each other at their middle, where windows usually have what they are about; a
            place without a number has the mean of its track.
        both_strands: a place and its mirror image have the same mean.
    """
    bin_bases = _bin_bases(train)
    mean = np.nan_to_num(moments(train.targets).mean).astype(np.float32)
    if not by_place:
        return BinMeans(bin_bases, mean)
    longest = max(len(text) // bin_bases for text in train.sequences)
    total, count = np.zeros((longest, len(mean))), np.zeros((longest, len(mean)))
    for row in train.targets:
        for values in (row, row[::-1]) if both_strands else (row,):
            first = longest // 2 - len(values) // 2
            total[first : first + len(values)] += np.nan_to_num(values)
            count[first : first + len(values)] += ~np.isnan(values)
    places = np.where(count > 0, total / np.maximum(count, 1), mean).astype(np.float32)
    return BinMeans(bin_bases, mean, places)


def _bin_bases(table: LabelledTable) -> int:
    if table.task.bin_bases is None:
        raise ValueError("this baseline is for numbers per bin.")
    return table.task.bin_bases


def bin_features(sequence: str, bin_bases: int) -> np.ndarray:
    """Count the k-mers in each bin and around it, as `BLOCKS` says.

    A k-mer belongs to the bin in which it begins; those with N, or that reach over the end of the sequence, count
    nowhere.

    Returns:
        float32 (bins, 4**5 + 2 * 4**4 + 4**3); within a block the column is the k-mer in base 4 (A=0, C=1, G=2, T=3).
    """
    digits = digits_of(sequence)
    counts = {k: _counts(digits, k, bin_bases) for k, _, _ in BLOCKS}
    number = len(sequence) // bin_bases
    parts = []
    for k, first, last in BLOCKS:
        if first == last == 0:
            parts.append(counts[k])
            continue
        sums = np.concatenate([np.zeros((1, 4**k)), np.cumsum(counts[k], axis=0, dtype=np.float64)])
        low = (np.arange(number) + first).clip(0, number)
        high = (np.arange(number) + last + 1).clip(0, number)
        parts.append((sums[high] - sums[low]).astype(np.float32))
    return np.concatenate(parts, axis=1)


def _counts(digits: np.ndarray, k: int, bin_bases: int) -> np.ndarray:
    number = len(digits) // bin_bases
    codes, known = kmer_codes(digits, k)
    places = np.flatnonzero(known)
    cells = (places // bin_bases) * 4**k + codes[places]
    return np.bincount(cells, minlength=number * 4**k).reshape(number, 4**k).astype(np.float32)


@dataclass(frozen=True)
class BinKmerModel:
    """A fitted k-mer regression of bins.

    Attributes:
        bin_bases: bases of a bin.
        both_strands: average the predictions of the two strands.
        penalty: the chosen one of `ALPHAS`.
        weights: float32 (features, C).
        offset: float32 (C,).
    """

    bin_bases: int
    both_strands: bool
    penalty: float
    weights: np.ndarray
    offset: np.ndarray

    @property
    def num_parameters(self) -> int:
        """Weights and offsets."""
        return self.weights.size + self.offset.size

    def predict(self, sequences: Sequence[str], pairs: Sequence[str] | None = None) -> list[np.ndarray]:
        """Give numbers for the bins of each sequence: n arrays float32 (bins, C)."""
        return [self._values(text) for text in sequences]

    def _values(self, text: str) -> np.ndarray:
        predicted = bin_features(text, self.bin_bases) @ self.weights + self.offset
        if self.both_strands:
            other = bin_features(reverse_complement(text), self.bin_bases) @ self.weights + self.offset
            predicted = (predicted + other[::-1]) / 2
        return predicted.astype(np.float32)


@dataclass(frozen=True)
class BinKmerRegression:
    """Ridge regression of each track on the k-mers in and around a bin; the penalty is chosen on validation rows."""

    both_strands: bool = False
    seed: int = 0

    def fit(self, train: LabelledTable, valid: LabelledTable | None = None) -> BinKmerModel:
        """Fit on at most `MAX_TRAIN_BINS` bins; choose the penalty by the squared error on validation bins.

        Features and targets are centred and scaled on the bins that are used. Bins whose number is missing are left out
        track by track; tracks that miss the same bins are solved together.
        """
        bin_bases = _bin_bases(train)
        features, targets = self._sample(train, MAX_TRAIN_BINS)
        held_out = None if valid is None else self._sample(valid, MAX_VALID_BINS)
        centre, spread = features.mean(axis=0), features.std(axis=0)
        scale = np.where(spread > 1e-6, 1 / np.maximum(spread, 1e-6), 0).astype(np.float32)
        features -= centre
        features *= scale
        solver = _Ridge(features, targets)
        best: tuple[float, float, np.ndarray, np.ndarray] | None = None
        for alpha in ALPHAS if held_out is not None else ALPHAS[3:4]:
            weights, offset = solver.solve(alpha * len(features) / 100)
            weights = weights * scale[:, None]
            offset = offset - centre @ weights
            loss = 0.0 if held_out is None else _loss(held_out, weights, offset)
            logger.info("k-mers per bin: penalty %g, validation loss %.4f", alpha, loss)
            if best is not None and loss > best[0]:
                break
            best = (loss, alpha, weights, offset)
        assert best is not None
        return BinKmerModel(bin_bases, self.both_strands, best[1], best[2], best[3])

    def _sample(self, table: LabelledTable, most: int) -> tuple[np.ndarray, np.ndarray]:
        """Give features float32 (n, d) and targets float32 (n, C) of bins drawn at random, of all rows alike."""
        bin_bases = _bin_bases(table)
        ends = np.cumsum([0, *(len(text) // bin_bases for text in table.sequences)])
        kept = np.arange(ends[-1])
        if len(kept) > most:
            kept = np.sort(generator(self.seed, 0, "bins").permutation(len(kept))[:most])
        turned = generator(self.seed, 0, "bin strands").random(len(table)) < 0.5
        features = np.empty((len(kept), NUM_FEATURES), dtype=np.float32)
        targets = np.empty((len(kept), table.task.num_outputs), dtype=np.float32)
        for row, text in enumerate(table.sequences):
            low, high = np.searchsorted(kept, ends[row : row + 2])
            if low == high:
                continue
            inside = kept[low:high] - ends[row]
            if self.both_strands and turned[row]:
                counts = bin_features(reverse_complement(text), bin_bases)[::-1]
            else:
                counts = bin_features(text, bin_bases)
            features[low:high], targets[low:high] = counts[inside], table.targets[row][inside]
        return features, targets


def _loss(rows: tuple[np.ndarray, np.ndarray], weights: np.ndarray, offset: np.ndarray) -> float:
    features, targets = rows
    spread = np.maximum(np.nanvar(targets, axis=0), 1e-12)
    return float(np.nanmean((features @ weights + offset - targets) ** 2 / spread))


class _Ridge:
    """Normal equations of centred features, one system for all tracks that miss the same bins.

    Args:
        features: float32 (n, d).
        targets: float32 (n, C), NaN where missing.
    """

    def __init__(self, features: np.ndarray, targets: np.ndarray) -> None:
        known = ~np.isnan(targets)
        patterns, which = np.unique(known, axis=1, return_inverse=True)
        self.num_outputs = targets.shape[1]
        self.systems = []
        for number in range(patterns.shape[1]):
            columns = np.flatnonzero(which.ravel() == number)
            rows = patterns[:, number]
            used = features if rows.all() else features[rows]
            wanted = targets[rows][:, columns].astype(np.float64)
            middle = wanted.mean(axis=0) if len(wanted) else np.zeros(len(columns))
            mean = used.mean(axis=0, dtype=np.float64) if len(used) else np.zeros(features.shape[1])
            gram = (used.T @ used).astype(np.float64) - len(used) * np.outer(mean, mean)
            product = (used.T @ (wanted - middle).astype(np.float32)).astype(np.float64)
            self.systems.append((columns, gram, product, mean, middle))

    def solve(self, penalty: float) -> tuple[np.ndarray, np.ndarray]:
        """Give weights float32 (d, C) and offsets float32 (C,)."""
        width = len(self.systems[0][3])
        weights, offset = np.zeros((width, self.num_outputs)), np.zeros(self.num_outputs)
        for columns, gram, product, mean, middle in self.systems:
            factor = linalg.cho_factor(gram + penalty * np.eye(width), overwrite_a=True)
            weights[:, columns] = linalg.cho_solve(factor, product)
            offset[columns] = middle - mean @ weights[:, columns]
        return weights.astype(np.float32), offset.astype(np.float32)
