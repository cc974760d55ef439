"""Predicting a token from its two neighbours by counting: the reference that a masked language model has to beat.

The smaller the loss of this table, the more a model must know to be better, so it is made as strong as counting allows:
Pitman-Yor smoothing of pairs and triples, the exact posterior of a first-order chain for pairs of neighbours that were
never seen together, mixture weights by expectation maximisation, and all parameters tuned on tokens that were not
counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy.sparse

DISCOUNTS = (0.1, 0.3, 0.5, 0.7, 0.9)
STRENGTHS = (0.0, 1.0, 10.0, 100.0, 1000.0)
NUM_TUNED = 40_000
_BLOCK = 2048


@dataclass(frozen=True)
class Triples:
    """Tokens with their neighbours, as three int64 columns of equal length.

    The neighbour beyond the end of a sequence is an own id, the size of the vocabulary.
    """

    left: np.ndarray
    token: np.ndarray
    right: np.ndarray

    def __len__(self) -> int:
        return len(self.token)

    def __getitem__(self, rows: np.ndarray | slice) -> Triples:
        return Triples(self.left[rows], self.token[rows], self.right[rows])


def triples_of(sequences: Iterable[np.ndarray], is_target: np.ndarray) -> Triples:
    """List all target tokens of some sequences with their neighbours.

    Args:
        sequences: arrays of ids, special tokens included.
        is_target: bool (vocab_size,), which ids are predicted.
    """
    edge = np.array([len(is_target)], dtype=np.int64)
    joined = np.concatenate([edge, *(part for ids in sequences for part in (ids.astype(np.int64), edge))])
    places = np.flatnonzero(np.append(is_target, False)[joined])
    return Triples(joined[places - 1], joined[places], joined[places + 1])


def join_triples(parts: Iterable[Triples]) -> Triples:
    """Put the rows of several parts into one."""
    columns = list(zip(*((part.left, part.token, part.right) for part in parts)))
    return Triples(*(np.concatenate(column) for column in columns))


@dataclass(frozen=True)
class Smoothing:
    """Pitman-Yor smoothing: counts lose ``discount``; the lost mass and ``strength`` go to the back-off.

    P(t | c) = max(n(c, t) - discount, 0) / (n(c) + strength) + share(c) * backoff(t), where
    share(c) = (strength + discount * distinct(c)) / (n(c) + strength) and share = 1 for a context never seen.
    """

    discount: float
    strength: float

    def kept(self, counts: np.ndarray, totals: np.ndarray) -> np.ndarray:
        """Give what the counts themselves say, 0 for a context never seen."""
        return np.maximum(counts - self.discount, 0) / np.maximum(totals + self.strength, 1e-300)

    def share(self, totals: np.ndarray, distinct: np.ndarray) -> np.ndarray:
        """Give the weight of the back-off for contexts with these counts."""
        weight = self.strength + self.discount * distinct
        return np.where(totals > 0, weight / np.maximum(totals + self.strength, 1e-300), 1.0)


@dataclass(frozen=True)
class Tuning:
    """Everything that is chosen on tokens that were not counted.

    Attributes:
        left: smoothing of P(token | left neighbour).
        right: smoothing of P(token | right neighbour).
        both: smoothing of P(token | both).
        weights: (4,) mixture of chain, left, right, unigram, to which ``both`` backs off.
    """

    left: Smoothing
    right: Smoothing
    both: Smoothing
    weights: np.ndarray


class PairTable:
    """P(token | one neighbour), smoothed towards the unigram."""

    def __init__(self, context: np.ndarray, token: np.ndarray, size: int) -> None:
        """Count pairs of ids below ``size``."""
        ones = np.ones(len(token))
        self.counts = scipy.sparse.coo_array((ones, (context, token)), shape=(size, size)).tocsr()
        self.counts.sum_duplicates()
        self.totals = np.asarray(self.counts.sum(axis=1)).ravel()
        self.distinct = np.diff(self.counts.indptr).astype(np.float64)

    def sparse_part(self, smoothing: Smoothing) -> scipy.sparse.csr_array:
        """Give max(n - discount, 0) / (n(c) + strength) as a sparse (size, size) matrix, contexts in rows."""
        part = self.counts.copy()
        part.data = smoothing.kept(part.data, np.repeat(self.totals, np.diff(part.indptr)))
        return part

    def share(self, smoothing: Smoothing) -> np.ndarray:
        """Give the weight of the unigram for each context, (size,)."""
        return smoothing.share(self.totals, self.distinct)

    def chance(self, context: np.ndarray, token: np.ndarray, unigram: np.ndarray, smoothing: Smoothing) -> np.ndarray:
        """Give P(token | context) for many pairs, (n,)."""
        counts = _values_at(self.counts, context, token)
        kept = smoothing.kept(counts, self.totals[context])
        chances: np.ndarray = kept + self.share(smoothing)[context] * unigram[token]
        return chances


class CountTable:
    """P(token | left neighbour, right neighbour) from counted triples.

    Probabilities sum to one over the target ids for any two neighbours, seen or not.
    """

    def __init__(self, counted: Triples, is_target: np.ndarray, tuning: Tuning | None = None) -> None:
        """Count.

        Args:
            counted: triples of the training data.
            is_target: bool (vocab_size,), ids that can be predicted; the unigram gives each half a count for free.
            tuning: parameters; without them only `tuned` and `unigram` can be used.
        """
        self._is_target = is_target
        self._size = len(is_target) + 1
        counts = np.bincount(counted.token, minlength=self._size) + 0.5 * np.append(is_target, False)
        self.unigram = counts / counts.sum()
        self._left = PairTable(counted.left, counted.token, self._size)
        self._right = PairTable(counted.right, counted.token, self._size)
        self._keys, self._counts = np.unique(self._key(counted), return_counts=True)
        contexts = self._keys // self._size
        self._contexts, first, self._distinct = np.unique(contexts, return_index=True, return_counts=True)
        self._totals = np.add.reduceat(self._counts, first) if len(first) else np.zeros(0, dtype=np.int64)
        self._tuning = tuning

    def tuned(self, development: Triples) -> Tuning:
        """Choose all parameters on triples that were not counted (the first 40,000, spread evenly)."""
        rows = np.unique(np.linspace(0, len(development) - 1, min(NUM_TUNED, len(development))).astype(np.int64))
        sample = development[rows]
        grid = [Smoothing(discount, strength) for discount in DISCOUNTS for strength in STRENGTHS]
        left = max(grid, key=lambda item: _score(self._left.chance(sample.left, sample.token, self.unigram, item)))
        right = max(grid, key=lambda item: _score(self._right.chance(sample.right, sample.token, self.unigram, item)))
        parts = self._parts(sample, left, right)
        weights = mixture_weights(parts)
        backoff = parts @ weights
        both = max(grid, key=lambda item: _score(self._with_triples(sample, backoff, item)))
        return Tuning(left, right, both, weights)

    def chance(self, triples: Triples) -> np.ndarray:
        """Give P(token | left, right) of each row, (n,).

        Raises:
            ValueError: the table has no tuning.
        """
        if self._tuning is None:
            raise ValueError("this count table was not tuned: pass the result of `tuned` when it is made.")
        parts = self._parts(triples, self._tuning.left, self._tuning.right)
        return self._with_triples(triples, parts @ self._tuning.weights, self._tuning.both)

    def one_sided(self, triples: Triples) -> tuple[np.ndarray, np.ndarray]:
        """Give P(token | left) and P(token | right) of each row, (n,) each.

        Raises:
            ValueError: the table has no tuning.
        """
        if self._tuning is None:
            raise ValueError("this count table was not tuned: pass the result of `tuned` when it is made.")
        left = self._left.chance(triples.left, triples.token, self.unigram, self._tuning.left)
        return left, self._right.chance(triples.right, triples.token, self.unigram, self._tuning.right)

    def _key(self, triples: Triples) -> np.ndarray:
        key: np.ndarray = (triples.left * self._size + triples.right) * self._size + triples.token
        return key

    def _parts(self, triples: Triples, left: Smoothing, right: Smoothing) -> np.ndarray:
        """Give the four estimates without triples, (n, 4): chain, left, right, unigram."""
        by_left = self._left.chance(triples.left, triples.token, self.unigram, left)
        by_right = self._right.chance(triples.right, triples.token, self.unigram, right)
        unigram = self.unigram[triples.token]
        chain = by_left * by_right / np.maximum(unigram, 1e-300) / self._chain_norm(triples, left, right)
        return np.stack([chain, by_left, by_right, unigram], axis=1)

    def _chain_norm(self, triples: Triples, left: Smoothing, right: Smoothing) -> np.ndarray:
        """Sum P(t | left) P(t | right) / P(t) over all t.

        If tokens were a first-order chain, P(t | l, r) would be proportional to exactly this product. With each
        factor split in a sparse part and a share of the unigram, the sum is a dot product of two sparse rows plus
        shares.
        """
        share_left = self._left.share(left)[triples.left]
        share_right = self._right.share(right)[triples.right]
        rows_left = self._left.sparse_part(left)
        rows_right = self._right.sparse_part(right)
        rows_right.data = rows_right.data / self.unigram[rows_right.indices]
        pairs, back = np.unique(triples.left * self._size + triples.right, return_inverse=True)
        overlap = np.zeros(len(pairs))
        for start in range(0, len(pairs), _BLOCK):
            block = slice(start, start + _BLOCK)
            product = rows_left[pairs[block] // self._size].multiply(rows_right[pairs[block] % self._size])
            overlap[block] = np.asarray(product.sum(axis=1)).ravel()
        norm: np.ndarray = overlap[back] + share_right * (1 - share_left) + share_left
        return norm

    def _with_triples(self, triples: Triples, backoff: np.ndarray, smoothing: Smoothing) -> np.ndarray:
        counts = _look_up(self._keys, self._counts, self._key(triples))
        context = triples.left * self._size + triples.right
        totals = _look_up(self._contexts, self._totals, context)
        distinct = _look_up(self._contexts, self._distinct, context)
        chances: np.ndarray = smoothing.kept(counts, totals) + smoothing.share(totals, distinct) * backoff
        return chances


def fit_count_table(counted: Triples, development: Triples, is_target: np.ndarray) -> CountTable:
    """Tune on ``development``, then count both parts with that tuning.

    Raises:
        ValueError: one of the parts is empty.
    """
    if not len(counted) or not len(development):
        raise ValueError("a count table needs tokens to count and other tokens to tune on.")
    tuning = CountTable(counted, is_target).tuned(development)
    return CountTable(join_triples([counted, development]), is_target, tuning)


def mixture_weights(parts: np.ndarray, *, num_rounds: int = 100) -> np.ndarray:
    """Find the mixture of K estimates that is most likely, by expectation maximisation.

    Args:
        parts: (n, K) probabilities that each estimate gives to what was seen.
        num_rounds: rounds; the likelihood never falls from one to the next.

    Returns:
        (K,) weights, summing to 1.
    """
    weights = np.full(parts.shape[1], 1 / parts.shape[1])
    for _ in range(num_rounds):
        joint = parts * weights
        weights = (joint / joint.sum(axis=1, keepdims=True)).mean(axis=0)
    return weights


def _score(chances: np.ndarray) -> float:
    return float(np.log(np.maximum(chances, 1e-300)).mean())


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Give the value of each wanted key, 0 where there is none; ``keys`` are sorted."""
    if not len(keys):
        return np.zeros(len(wanted))
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, values[places], 0).astype(np.float64)


def _values_at(matrix: scipy.sparse.csr_array, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    found = np.asarray(matrix[rows, columns]) if len(rows) else np.zeros(0)
    return found.ravel()
