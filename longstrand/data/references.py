"""What a masked language model's loss should be read against: unigram, two neighbours, and random DNA."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from longstrand.data.examples import MaskedExamples
from longstrand.data.masking import IGNORED
from longstrand.data.ngram_reference import Triples, fit_count_table, join_triples, triples_of
from longstrand.data.regions import GenomeSource, HoldOut, HoldOuts
from longstrand.data.windows import Source, TrainingWindows
from longstrand.runtime import generator
from longstrand.tokenization.base import Tokenizer

DEVELOPMENT_EVERY = 10
"""Every tenth stretch of the training data tunes the tables before it is counted too."""


@dataclass(frozen=True)
class ReferenceLosses:
    """Losses in nats per masked token, on exactly the masked positions of an evaluation set.

    The counting models see the true neighbours, also where the language model sees [MASK]: they are slightly favoured.

    Attributes:
        unigram: frequency of each token in the training data.
        left: given the left neighbour.
        right: given the right neighbour.
        two_neighbour: given both.
        random_unigram: unigram on random DNA of the same base composition, with tables counted on such DNA.
        random_two_neighbour: both neighbours on random DNA; below ``random_unigram`` by what the segmentation of
            the tokenizer alone gives away.
        num_masked: masked tokens of the evaluation set.
        num_counted: tokens that the tables were counted on.
        bases_per_masked: mean bases that a masked token spells.
    """

    unigram: float
    left: float
    right: float
    two_neighbour: float
    random_unigram: float
    random_two_neighbour: float
    num_masked: int
    num_counted: int
    bases_per_masked: float

    def bits_per_base(self, loss: float) -> float:
        """Turn nats per masked token into bits per base."""
        return loss / math.log(2) / self.bases_per_masked if self.bases_per_masked else math.nan


def reference_losses(
    genomes: Sequence[Source],
    tokenizer: Tokenizer,
    evaluation: MaskedExamples,
    *,
    holdout: HoldOuts,
    sentences: tuple[int, int] | None = None,
    max_tokens: int = 8_000_000,
) -> ReferenceLosses:
    """Count the training data on both strands and measure the references on an evaluation set.

    For overlapping k-mers the true neighbours spell the token: ``two_neighbour`` is near 0 and no reference.

    Args:
        genomes: those of the training windows.
        tokenizer: that of the evaluation set.
        evaluation: masked hold-out.
        holdout: the same value as in training; it is not counted (its margin is, if not given).
        sentences: as in training.
        max_tokens: count about this many tokens, in whole stretches spread over the genomes.

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
    table = fit_count_table(counted, development, is_target)
    left, right = table.one_sided(masked)
    num_counted = len(counted) + len(development)
    random_unigram, random_two = _random_dna_losses(tokenizer, is_target, table.unigram, num_counted)
    return ReferenceLosses(
        unigram=_loss(table.unigram[masked.token]),
        left=_loss(left),
        right=_loss(right),
        two_neighbour=_loss(table.chance(masked)),
        random_unigram=random_unigram,
        random_two_neighbour=random_two,
        num_masked=len(masked),
        num_counted=num_counted,
        bases_per_masked=float(tokenizer.bases_per_id[masked.token].mean()),
    )


def masked_triples(examples: MaskedExamples, vocab_size: int) -> Triples:
    """List the masked tokens of a data set with their true neighbours."""
    parts = []
    for example in examples:
        labels = example["labels"]
        true = np.concatenate(([vocab_size], np.where(labels == IGNORED, example["input_ids"], labels), [vocab_size]))
        places = 1 + np.flatnonzero(labels != IGNORED)
        parts.append(Triples(true[places - 1], true[places], true[places + 1]))
    return join_triples(parts)


def _training_blocks(
    genomes: Sequence[Source],
    tokenizer: Tokenizer,
    holdout: HoldOuts,
    sentences: tuple[int, int] | None,
    max_tokens: int,
) -> Iterator[list[np.ndarray]]:
    """Give, for stretches in random order, their ids on both strands.

    Together they cover the training data once; with different weights they are drawn as the training windows are.
    """
    order = "epoch" if len({_weight(genome) for genome in genomes}) == 1 else "random"
    settings: dict[str, Any] = {"num_bases": 8192, "order": order, "seed": 0, "sentences": sentences}
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


def _weight(genome: Source) -> float:
    return genome.weight if isinstance(genome, GenomeSource) else 1.0


def _without_margin(holdout: HoldOuts) -> HoldOuts:
    """Fill in a margin of 0: stretches counted here are long, and counting beside a hold-out is no leak."""
    if holdout is None or isinstance(holdout, HoldOut):
        return replace(holdout, margin=holdout.margin or 0) if holdout else None
    return {name: replace(out, margin=out.margin or 0) for name, out in holdout.items()}


def _encode(tokenizer: Tokenizer, pieces: Sequence[str]) -> np.ndarray:
    """Tokenize pieces apart and put the special tokens around all of them."""
    before, after = (np.array(ids, dtype=np.int32) for ids in (tokenizer.template.prefix, tokenizer.template.suffix))
    return np.concatenate([before, *(tokenizer.encode_ids(piece)[0] for piece in pieces), after])


def _split(parts: list[Triples]) -> tuple[Triples, Triples]:
    """Set every tenth stretch apart (a single one is halved)."""
    if len(parts) == 1:
        half = len(parts[0]) // 2
        return parts[0][half:], parts[0][:half]
    every = min(DEVELOPMENT_EVERY, len(parts))
    development = [part for number, part in enumerate(parts) if number % every == 0]
    return join_triples(part for number, part in enumerate(parts) if number % every), join_triples(development)


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
    test = join_triples(parts[:: DEVELOPMENT_EVERY // 2])
    counted, development = _split([part for number, part in enumerate(parts) if number % (DEVELOPMENT_EVERY // 2)])
    table = fit_count_table(counted, development, is_target)
    return _loss(table.unigram[test.token]), _loss(table.chance(test))


def _base_composition(tokenizer: Tokenizer, unigram: np.ndarray) -> np.ndarray:
    """Give the shares of A, C, G, T that a unigram of tokens spells, (4,)."""
    ids = tokenizer.dna_token_ids
    letters = np.array([[tokenizer.token_strings[number].count(base) for base in "ACGT"] for number in ids])
    spelled = unigram[ids] @ letters
    shares: np.ndarray = spelled / spelled.sum()
    return shares


def _loss(chances: np.ndarray) -> float:
    return float(-np.log(np.maximum(chances, 1e-300)).mean())
