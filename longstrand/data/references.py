"""What a masked language model's loss should be read against: unigram, two neighbours, and random DNA.

The two-neighbour reference counts pairs only. It mixes the unigram, the token given its left and given its right
neighbour, and the product of the two (the exact posterior if tokens were a first-order chain), with weights by
expectation maximisation on tokens that were not counted. Pairs are smoothed by discounting, as
much as the same tokens ask for.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse

from longstrand.data.examples import MaskedExamples
from longstrand.data.genomes import GenomeSet, open_genomes
from longstrand.data.regions import HoldOut, HoldOuts
from longstrand.data.windows import Source, TrainingWindows
from longstrand.runtime import IGNORED_LABEL, generator
from longstrand.tokenization.base import Tokenizer

SMOOTHING = tuple(itertools.product((0.5, 0.75, 0.9), (0.0, 10.0, 100.0, 1000.0)))
"""Discounts (what each count of a pair gives away) and strengths (how often the unigram counts) that are tried."""
DEVELOPMENT_EVERY = 10
"""Every tenth stretch of the training data sets the weights of the mixture and is not counted."""
LEFT, TOKEN, RIGHT = 0, 1, 2
"""Columns of *triples*, int64 (n, 3): tokens with their neighbours. Beyond the end of a sequence the neighbour is an
id of its own, the size of the vocabulary."""
_BLOCK = 2048


def triples_of(sequences: Iterable[np.ndarray], is_target: np.ndarray) -> np.ndarray:
    """List all target tokens of some sequences with their neighbours.

    Args:
        sequences: arrays of ids, special tokens included.
        is_target: bool (vocab_size,), which ids are predicted.
    """
    edge = np.array([len(is_target)], dtype=np.int64)
    joined = np.concatenate([edge, *(part for ids in sequences for part in (ids.astype(np.int64), edge))])
    places = np.flatnonzero(np.append(is_target, False)[joined])
    return np.stack((joined[places - 1], joined[places], joined[places + 1]), axis=1)


def pair_counts(neighbour: np.ndarray, token: np.ndarray, size: int) -> scipy.sparse.csr_array:
    """Count pairs: sparse (size, size), neighbours in the rows."""
    counts = scipy.sparse.csr_array((np.ones(len(token)), (neighbour, token)), shape=(size, size))
    counts.sum_duplicates()
    return counts


class PairTable:
    """P(token | one neighbour) = (count - discount) / (total + strength), and the rest by the unigram.

    Attributes:
        kept: sparse (V + 1, V + 1), what the counts themselves say.
        share: (V + 1,) weight of the unigram after each neighbour; 1 for one never seen.
    """

    def __init__(self, counts: scipy.sparse.csr_array, smoothing: tuple[float, float]) -> None:
        discount, strength = smoothing
        totals = np.maximum(counts.sum(axis=1) + strength, 1)
        self.kept = counts.copy()
        self.kept.data = (counts.data - discount) * np.repeat(1 / totals, np.diff(counts.indptr))
        self.share = 1 - self.kept.sum(axis=1)

    @classmethod
    def fit(cls, side: int, counted: np.ndarray, development: np.ndarray, unigram: np.ndarray) -> PairTable:
        """Count pairs with the neighbour on one side, smoothed as fits the development tokens best."""
        counts = pair_counts(counted[:, side], counted[:, TOKEN], len(unigram))
        numbers = counts.copy()
        numbers.data = np.arange(1.0, counts.nnz + 1)
        neighbour, token = development[:, side], development[:, TOKEN]
        places = np.asarray(numbers[neighbour, token]).ravel().astype(np.int64) if len(token) else token
        rest = unigram[token]

        def loss(table: PairTable) -> float:
            return _loss(np.append(0.0, table.kept.data)[places] + table.share[neighbour] * rest)

        return min((cls(counts, smoothing) for smoothing in SMOOTHING), key=loss)

    def probability(self, neighbour: np.ndarray, token: np.ndarray, unigram: np.ndarray) -> np.ndarray:
        """Compute the probability (n,) of each token beside its neighbour."""
        seen = np.asarray(self.kept[neighbour, token]).ravel() if len(token) else np.zeros(0)
        probabilities: np.ndarray = seen + self.share[neighbour] * unigram[token]
        return probabilities


class TwoNeighbours:
    """The mixture of the module, counted on some tokens and weighted on others.

    Args:
        counted: tokens to count.
        development: tokens that set the weights.
        is_target: bool (V,), which ids are predicted.

    Attributes:
        unigram: (V + 1,) with one added to each count; 0 for ids that are not predicted.
        weights: (4,) of unigram, left, right and their product.
    """

    def __init__(self, counted: np.ndarray, development: np.ndarray, is_target: np.ndarray) -> None:
        size = len(is_target) + 1
        smoothed = np.bincount(counted[:, TOKEN], minlength=size) + np.append(is_target, False)
        self.unigram: np.ndarray = smoothed / smoothed.sum()
        self.left = PairTable.fit(LEFT, counted, development, self.unigram)
        self.right = PairTable.fit(RIGHT, counted, development, self.unigram)
        self.weights = mixture_weights(self.parts(development))

    def parts(self, triples: np.ndarray) -> np.ndarray:
        """Compute the four estimates (n, 4) of each token."""
        alone = self.unigram[triples[:, TOKEN]]
        left = self.left.probability(triples[:, LEFT], triples[:, TOKEN], self.unigram)
        right = self.right.probability(triples[:, RIGHT], triples[:, TOKEN], self.unigram)
        product = left * right / np.maximum(alone, 1e-300)
        return np.stack((alone, left, right, product / self._norm(triples)), axis=1)

    def probability(self, triples: np.ndarray) -> np.ndarray:
        """Compute the probability (n,) of each token between its neighbours."""
        probabilities: np.ndarray = self.parts(triples) @ self.weights
        return probabilities

    def _norm(self, triples: np.ndarray) -> np.ndarray:
        """Sum P(t | left) P(t | right) / P(t) over all tokens t, (n,): only pairs that were seen need their numbers."""
        inverse = np.divide(1, self.unigram, out=np.zeros_like(self.unigram), where=self.unigram > 0)
        over = self.right.kept @ scipy.sparse.diags_array(inverse)
        if len(inverse) <= _BLOCK:  # one number for every pair of neighbours
            both = [(self.left.kept @ over.T).toarray()[triples[:, LEFT], triples[:, RIGHT]]]
        else:
            both = [
                (self.left.kept[some[:, LEFT]] * over[some[:, RIGHT]]).sum(axis=1)
                for some in (triples[start : start + _BLOCK] for start in range(0, len(triples), _BLOCK))
            ]
        left, right = self.left.share[triples[:, LEFT]], self.right.share[triples[:, RIGHT]]
        sums: np.ndarray = np.concatenate([np.zeros(0), *both]) + right * (1 - left) + left * (1 - right) + left * right
        return sums


def mixture_weights(parts: np.ndarray, *, num_rounds: int = 100) -> np.ndarray:
    """Find the mixture of K estimates that is most likely, by expectation maximisation.

    Args:
        parts: (n, K) probabilities that each estimate gives to what was seen.
        num_rounds: rounds; the likelihood never falls from one to the next.

    Returns:
        (K,) weights, summing to 1.
    """
    weights = np.full(parts.shape[1], 1 / parts.shape[1])
    for _ in range(num_rounds if len(parts) else 0):
        weights = weights * (parts.T @ (1 / (parts @ weights))) / len(parts)
    return weights


def reference_losses(
    genomes: GenomeSet | Sequence[Source],
    tokenizer: Tokenizer,
    evaluation: MaskedExamples,
    *,
    holdout: HoldOuts,
    sentences: tuple[int, int] | None = None,
    max_tokens: int = 8_000_000,
) -> dict[str, Any]:
    """Count the training data on both strands and measure the references on an evaluation set.

    For overlapping k-mers the true neighbours spell the token: ``two_neighbour`` is near 0 and no reference. The
    counting models see the true neighbours, also where the language model sees [MASK]: they are slightly favoured.

    Args:
        genomes: those of the training windows.
        tokenizer: that of the evaluation set.
        evaluation: masked hold-out.
        holdout: the same value as in training; it is not counted (its margin is, if not given).
        sentences: as in training.
        max_tokens: count about this many tokens, in whole stretches spread over the genomes.

    Returns:
        ``{name: {"loss", "bits_per_base"}}``, in nats per masked token, on exactly the masked positions: ``unigram``
        (frequency of each token in the training data), ``left`` and ``right`` (given one neighbour),
        ``two_neighbour`` (given both), ``random_unigram`` and ``random_two_neighbour`` (on random DNA of the same base
        composition, with tables counted on such DNA; the second is below the first by what the segmentation of the
        tokenizer alone gives away). And ``masked_tokens``, ``counted_tokens``: of the evaluation, and for the tables.

    Raises:
        ValueError: nothing is masked in the evaluation set.
    """
    is_target = np.zeros(tokenizer.vocab_size, dtype=bool)
    is_target[tokenizer.dna_token_ids] = True
    masked = masked_triples(evaluation, len(is_target))
    if not len(masked):
        raise ValueError("no token of the evaluation set is masked, so there is nothing to measure.")
    blocks = list(_training_blocks(genomes, tokenizer, holdout, sentences, max_tokens))
    counted, development = _split([triples_of(block, is_target) for block in blocks])
    table = TwoNeighbours(counted, development, is_target)
    _, left, right, _ = table.parts(masked).T
    num_counted = len(counted) + len(development)
    random_unigram, random_two = _random_dna_losses(tokenizer, is_target, table.unigram, num_counted)
    bases = float(tokenizer.bases_per_id[masked[:, TOKEN]].mean())
    losses = {
        "unigram": _loss(table.unigram[masked[:, TOKEN]]),
        "left": _loss(left),
        "right": _loss(right),
        "two_neighbour": _loss(table.probability(masked)),
        "random_unigram": random_unigram,
        "random_two_neighbour": random_two,
    }
    rows = {name: {"loss": loss, "bits_per_base": loss / math.log(2) / bases} for name, loss in losses.items()}
    return {**rows, "masked_tokens": len(masked), "counted_tokens": num_counted}


def masked_triples(examples: MaskedExamples, vocab_size: int) -> np.ndarray:
    """List the masked tokens of a data set with their true neighbours."""
    parts = []
    for example in examples:
        labels = example["labels"]
        true = np.concatenate(
            ([vocab_size], np.where(labels == IGNORED_LABEL, example["input_ids"], labels), [vocab_size])
        )
        places = 1 + np.flatnonzero(labels != IGNORED_LABEL)
        parts.append(np.stack((true[places - 1], true[places], true[places + 1]), axis=1))
    return np.concatenate(parts)


def _training_blocks(
    genomes: GenomeSet | Sequence[Source],
    tokenizer: Tokenizer,
    holdout: HoldOuts,
    sentences: tuple[int, int] | None,
    max_tokens: int,
) -> Iterator[list[np.ndarray]]:
    """Give, for stretches in random order, their ids on both strands.

    Together they cover the training data once; with different weights they are drawn as the training windows are.
    """
    genomes = open_genomes(genomes)
    settings: dict[str, Any] = {"num_bases": 8192, "seed": 0, "sentences": sentences}
    settings["order"] = "epoch" if genomes.is_even else "random"
    settings["holdout"] = _without_margin(holdout)
    settings["alphabet"] = tokenizer.alphabet
    length = TrainingWindows(genomes, num_samples=1, **settings).epoch_length
    strands = [TrainingWindows(genomes, num_samples=length, strand=strand, **settings) for strand in ("+", "-")]
    num_tokens = 0
    for pair in zip(*strands):
        block = [_encode(tokenizer, window.pieces) for window in pair]
        num_tokens += sum(map(len, block))
        yield block
        if num_tokens >= max_tokens:
            return


def _without_margin(holdout: HoldOuts) -> HoldOuts:
    """Fill in a margin of 0: stretches counted here are long, and counting beside a hold-out is no leak."""
    if holdout is None or isinstance(holdout, HoldOut):
        return replace(holdout, margin=holdout.margin or 0) if holdout else None
    return {name: replace(out, margin=out.margin or 0) for name, out in holdout.items()}


def _encode(tokenizer: Tokenizer, pieces: Sequence[str]) -> np.ndarray:
    """Tokenize pieces apart and put the special tokens around all of them."""
    before, after = (np.array(ids, dtype=np.int32) for ids in (tokenizer.template.prefix, tokenizer.template.suffix))
    return np.concatenate([before, *(tokenizer.encode_ids(piece)[0] for piece in pieces), after])


def _split(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Set every tenth stretch apart (a single one is halved)."""
    if len(parts) == 1:
        half = len(parts[0]) // 2
        return parts[0][half:], parts[0][:half]
    every = min(DEVELOPMENT_EVERY, len(parts))
    counted = [part for number, part in enumerate(parts) if number % every]
    return np.concatenate(counted), np.concatenate(parts[::every])


def _random_dna_losses(
    tokenizer: Tokenizer, is_target: np.ndarray, unigram: np.ndarray, num_tokens: int
) -> tuple[float, float]:
    """Measure unigram and two neighbours on independent bases with the composition of the training data."""
    composition = _base_composition(tokenizer, unigram)
    draw = generator(0, 0, "random DNA")
    num_bases = int(min(num_tokens, 1_000_000) * max(1.0, float(tokenizer.bases_per_id @ unigram[:-1])))
    letters = np.frombuffer(b"ACGT", dtype=np.uint8)
    parts = []
    for _ in range(max(20, num_bases // 8192)):
        text = letters[draw.choice(4, size=8192, p=composition)].tobytes().decode()
        parts.append(triples_of([_encode(tokenizer, [text])], is_target))
    test = np.concatenate(parts[:: DEVELOPMENT_EVERY // 2])
    counted, development = _split([part for number, part in enumerate(parts) if number % (DEVELOPMENT_EVERY // 2)])
    table = TwoNeighbours(counted, development, is_target)
    return _loss(table.unigram[test[:, TOKEN]]), _loss(table.probability(test))


def _base_composition(tokenizer: Tokenizer, unigram: np.ndarray) -> np.ndarray:
    """Give the shares of A, C, G, T that a unigram of tokens spells, (4,)."""
    ids = tokenizer.dna_token_ids
    letters = np.array([[tokenizer.token_strings[number].count(base) for base in "ACGT"] for number in ids])
    spelled = unigram[ids] @ letters
    shares: np.ndarray = spelled / spelled.sum()
    return shares


def _loss(probabilities: np.ndarray) -> float:
    return float(-np.log(np.maximum(probabilities, 1e-300)).mean())
