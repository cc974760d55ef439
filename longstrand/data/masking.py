"""Choosing the tokens that a masked language model must restore.

Three ways to choose (`MaskingConfig.kind`): single tokens, spans of a few tokens (GENA-LM's n-gram masking), and spans
of k overlapping k-mers (DNABERT). A chosen token becomes [MASK], a random DNA token, or stays; its label is its own id,
all other labels are -100.

Only tokens spelled with A, C, G, T alone are chosen or put in: special tokens, padding, [UNK], and tokens that hold N
or another unknown letter teach nothing about DNA and are never masked. Spans that reach over such a token skip it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from longstrand.config import StrictModel
from longstrand.runtime import IGNORED_LABEL


class MaskingConfig(StrictModel):
    """How tokens are masked in pre-training."""

    kind: Literal["token", "span", "kmer_span"] = Field(
        default="token",
        description="single tokens; spans of 1 to max_span tokens (GENA-LM); spans of k k-mers (DNABERT)",
    )
    probability: float = Field(default=0.15, gt=0, lt=1, description="expected share of DNA tokens that get a label")
    mask: float = Field(default=0.8, ge=0, le=1, description="share of the chosen tokens that become [MASK]")
    random: float = Field(
        default=0.1, ge=0, le=1, description="share of the chosen tokens that become a random DNA token"
    )
    max_span: int = Field(
        default=3, ge=1, le=64, description="longest span in tokens (kind span); length n has weight 1/n"
    )
    kmer: int | None = Field(
        default=None, ge=2, le=64, description="tokens of a span (kind kmer_span); the tokenizer's k by default"
    )
    fate: Literal["token", "span"] | None = Field(
        default=None, description="[MASK], random or kept: drawn for each token, or for a span (default of kmer_span)"
    )

    @model_validator(mode="after")
    def _shares(self) -> MaskingConfig:
        if self.mask + self.random > 1 + 1e-9:
            raise ValueError(f"mask and random are shares of the chosen tokens: {self.mask} + {self.random} is above 1")
        for kind, field in (("span", "max_span"), ("kmer_span", "kmer")):
            if self.kind != kind:
                self.refuse_given([field], f"masking is of the kind {self.kind}")
        return self


def mask_tokens(
    input_ids: np.ndarray,
    maskable: np.ndarray,
    *,
    config: MaskingConfig,
    mask_token_id: int,
    random_token_ids: np.ndarray,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Mask one sequence of tokens.

    Each maskable token is chosen with ``config.probability`` in expectation, so short sequences may have no label
    at all; forcing one would bias them.

    Args:
        input_ids: (n,) integers; not changed.
        maskable: (n,) bool, True where a label is allowed.
        config: which tokens and what becomes of them.
        mask_token_id: id of [MASK].
        random_token_ids: ids that a random replacement is drawn from.
        generator: the random numbers of this sample.

    Returns:
        input_ids with replacements (same dtype), labels int64 (n,) with -100 where nothing is to be restored.

    Raises:
        ValueError: the lengths differ, or kmer_span has no k.
    """
    if input_ids.shape != maskable.shape:
        raise ValueError(f"input_ids {input_ids.shape} and maskable {maskable.shape} differ in shape.")
    places, fate = _choose(len(input_ids), config, generator)
    wanted = maskable[places]
    places, fate = places[wanted], fate[wanted]
    masked = input_ids.copy()
    labels = np.full(len(input_ids), IGNORED_LABEL, dtype=np.int64)
    labels[places] = input_ids[places]
    masked[places[fate < config.mask]] = mask_token_id
    swapped = places[(fate >= config.mask) & (fate < config.mask + config.random)]
    # Scaled floats, not integers(): three times as fast for a handful of numbers, with a bias below 2**-50.
    masked[swapped] = random_token_ids[(generator.random(len(swapped)) * len(random_token_ids)).astype(np.int64)]
    return masked, labels


def _choose(length: int, config: MaskingConfig, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Give the chosen places, ascending, and for each a number in [0, 1): [MASK], random or kept."""
    if config.kind == "token":
        draws = generator.random(length)
        places = np.flatnonzero(draws < config.probability)
        return places, draws[places] / config.probability
    if config.kind == "kmer_span":
        if config.kmer is None:
            raise ValueError("kmer_span needs the k of the k-mers; set masking.kmer.")
        starts, lengths = _kmer_spans(length, config.probability, config.kmer, generator)
    else:
        starts, lengths = _token_spans(length, config.probability, config.max_span, generator)
    places, number = spread(starts, lengths, length)
    fate = np.full(length, -1.0)
    fate[places] = generator.random(len(starts))[number]
    chosen = np.flatnonzero(fate >= 0)
    whole = config.fate == "span" or (config.fate is None and config.kind == "kmer_span")
    return chosen, fate[chosen] if whole else generator.random(len(chosen))


def spread(starts: np.ndarray, lengths: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """List the places in spans, and which span each belongs to; what lies outside ``[0, length)`` is left out.

    Example:
        >>> spread(np.array([-1, 3]), np.array([3, 2]), 9)[0].tolist()
        [0, 1, 3, 4]
    """
    number = np.repeat(np.arange(len(starts)), lengths)
    places = np.arange(len(number)) + (starts - np.cumsum(lengths) + lengths)[number]
    inside = (places >= 0) & (places < length)
    return places[inside], number[inside]


def _token_spans(
    length: int, probability: float, max_span: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Start spans anywhere (also before the first token, so that all tokens are alike); p(n) is proportional to 1/n."""
    rate, up_to = _span_plan(probability, max_span)
    first = max_span - 1
    starts = np.flatnonzero(generator.random(length + first) < rate) - first
    return starts, 1 + np.searchsorted(up_to, generator.random(len(starts)), side="right")


def _kmer_spans(
    length: int, probability: float, k: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw centres (also just outside the ends) and mask the k tokens around each."""
    rate = 1 - (1 - probability) ** (1 / k)
    return kmer_spans(np.flatnonzero(generator.random(length + k - 1) < rate) - k // 2, k=k)


def kmer_spans(centres: np.ndarray, *, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Give first tokens and lengths of the spans of k tokens around centres (DNABERT's MASK_LIST).

    (k - 1) // 2 tokens before and k // 2 after the centre; one base of the centre is then in masked k-mers only.
    """
    return centres - (k - 1) // 2, np.full(len(centres), k)


@lru_cache(maxsize=64)
def _span_plan(probability: float, max_span: int) -> tuple[float, np.ndarray]:
    """Give the rate of spans and the cumulative chances of the lengths 1 to max_span - 1."""
    weights = 1 / np.arange(1, max_span + 1)
    tail = np.cumsum(weights[::-1])[::-1] / weights.sum()
    return span_rate(probability, tuple(tail.tolist())), np.cumsum(weights / weights.sum())[:-1]


def span_rate(probability: float, tail: tuple[float, ...]) -> float:
    """Find the chance of a span starting at a token so that a token is covered with ``probability``.

    A token stays free if, for each j, no span longer than j starts j tokens before it: the product over j of
    ``1 - rate * P(length > j)`` is ``1 - probability``. Solved by bisection.

    Args:
        probability: wanted share of covered tokens.
        tail: P(length > j) for j = 0, 1, ...; the first is 1.
    """
    low, high = 0.0, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        free = float(np.prod([1 - rate * share for share in tail]))
        low, high = (rate, high) if 1 - free < probability else (low, rate)
    return (low + high) / 2
