"""Dependency maps: which bases does the model's expectation at a base depend on? (Tomaz da Silva 2025; GPN-Star)

Each base is substituted by the three others, and what the masked LM says of every other base is compared: rows are the
base that is changed, columns the base that is looked at. All 3 L + 1 passes of a map share batches. Inside one token
of a k-mer model the map is trivially strong (the token sees itself); such blocks are NaN in the summary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longstrand.errors import InputError, UsageError
from longstrand.genome.sequence import shuffle_dinucleotides
from longstrand.models.network import Network
from longstrand.questions.bases import base_probabilities
from longstrand.questions.tokens import BATCH_TOKENS, MaskedText, iter_log_probabilities, prepare_text, read_text
from longstrand.runtime import generator
from longstrand.tokenization.base import Tokenizer
from longstrand.tokenization.bpe import BpeTokenizer

FloatArray = npt.NDArray[np.float64]
Table = Callable[[list[str]], Iterator[FloatArray]]
SMALL = 1e-10
"""Added to probabilities before odds, as published."""
SHUFFLES = 3
LEVEL = 99.0


@dataclass(frozen=True, eq=False)
class DependencyMap:
    """How the expectation at base j changes when base i is substituted.

    Attributes:
        sequence: the bases, upper case.
        probabilities: float64 ``(L, 4)`` of A, C, G, T, without substitution.
        odds: ``(L, L)`` largest absolute log2 odds ratio over substitutions and bases; the diagonal is 0.
        jacobian: ``(L, L)`` largest difference of log-probabilities (nats), averaged with its transpose (GPN-Star).
        influence: ``(L, 4)`` of each substitution: mean over j of the largest absolute log2 odds ratio; 0 at the
            reference base. The published function takes the largest signed ratio.
        raw: ``(L, 4, L, 4)`` log2 odds ratios, 0 at the reference base, float32; None if not asked for.
        same_token: ``(L, L)`` whether i and j lie in one token.
    """

    sequence: str
    probabilities: FloatArray
    odds: FloatArray
    jacobian: FloatArray
    influence: FloatArray
    raw: npt.NDArray[np.float32] | None
    same_token: npt.NDArray[np.bool_]

    @property
    def between(self) -> FloatArray:
        """The map of odds with NaN on the diagonal and inside tokens."""
        hidden = self.same_token | np.eye(len(self.sequence), dtype=bool)
        return np.where(hidden, np.nan, self.odds)


def dependency_map(
    model: Network, sequence: str, *, masked: bool = False, keep_raw: bool = False, batch_tokens: int = BATCH_TOKENS
) -> DependencyMap:
    """Compute the map of one sequence.

    Args:
        model: a masked LM of single bases or non-overlapping k-mers.
        sequence: bases; a base that is N is not substituted.
        masked: mask the base that is looked at: cleaner, but 3 L passes for each of L bases (up to 100 or so).
        keep_raw: keep every odds ratio.
        batch_tokens: most tokens of a batch.

    Raises:
        UsageError: BPE and overlapping k-mers: unmasked, a base has no distribution there (a substitution moves
            borders of BPE tokens; neighbouring k-mers give the base away).
        InputError: no base, or more than the model reads.
    """
    tokenizer = model.require_tokenizer()
    if isinstance(tokenizer, BpeTokenizer) or tokenizer.overlapping:
        raise UsageError(
            "dependency maps are for single bases and non-overlapping k-mers: with BPE a substitution moves borders of "
            "tokens, and overlapping k-mers give the base away; use in-silico mutagenesis of a score instead."
        )
    text = prepare_text(model, sequence)
    if not text:
        raise InputError("the sequence is empty, so there is nothing to map.")
    table = _masked_table(model, batch_tokens) if masked else _table(model, tokenizer, batch_tokens)
    size = len(text)
    changes = [
        (i, q) for i in range(size) for q, letter in enumerate("ACGT") if text[i] in "ACGT" and letter != text[i]
    ]
    answers = table([text, *(text[:i] + "ACGT"[q] + text[i + 1 :] for i, q in changes)])
    reference = next(answers)
    odds, jacobian, influence = np.zeros((size, size)), np.zeros((size, size)), np.zeros((size, 4))
    raw = np.zeros((size, 4, size, 4), dtype=np.float32) if keep_raw else None
    before, logs = _log2_odds(reference), np.log(reference.clip(min=1e-300))
    for (i, q), changed in zip(changes, answers):
        ratio = _log2_odds(changed) - before
        strongest = np.abs(ratio).max(1)
        strongest[i] = 0
        odds[i] = np.maximum(odds[i], strongest)
        influence[i, q] = strongest.sum() / max(1, size - 1)
        difference = np.abs(np.log(changed.clip(min=1e-300)) - logs).max(1)
        difference[i] = 0
        jacobian[i] = np.maximum(jacobian[i], difference)
        if raw is not None:
            raw[i, q] = ratio
    offsets = read_text(model, text).offsets
    owner = np.full(size, -1)
    for token, (start, end) in enumerate(offsets.tolist()):
        owner[start:end] = token
    same = owner[:, None] == owner[None]
    return DependencyMap(text, reference, odds, (jacobian + jacobian.T) / 2, influence, raw, same)


def null_cut_off(
    model: Network, sequence: str, *, shuffles: int = SHUFFLES, level: float = LEVEL, seed: int = 0
) -> float:
    """Find how strong a dependency must be to be one: a percentile of maps of shuffled sequences.

    Args:
        model: as in `dependency_map`.
        sequence: shuffled so that it keeps its dinucleotides.
        shuffles: maps; 3 L + 1 passes each.
        level: percentile of their values between different tokens.
        seed: of the shuffles.
    """
    text = prepare_text(model, sequence)
    maps = [
        dependency_map(model, shuffle_dinucleotides(text, generator(seed, turn, "dependency null"))).between
        for turn in range(shuffles)
    ]
    return float(np.nanpercentile(np.concatenate([own.reshape(-1) for own in maps]), level))


def _log2_odds(probabilities: FloatArray) -> FloatArray:
    shifted = probabilities + SMALL
    shifted = shifted / shifted.sum(-1, keepdims=True)
    result: FloatArray = np.log2(shifted / (1 - shifted).clip(min=1e-300))
    return result


def _table(model: Network, tokenizer: Tokenizer, batch_tokens: int) -> Table:
    """Make the function from texts to the probabilities of the bases in one pass each; see `Words` (summed)."""
    sums = _sums_over_words(tokenizer)

    def read(texts: list[str]) -> Iterator[FloatArray]:
        encodings = [read_text(model, text) for text in texts]
        rows = [np.flatnonzero(each.offsets[:, 1] > each.offsets[:, 0]).astype(np.int32) for each in encodings]
        asked = (MaskedText(each, own[:0], own) for each, own in zip(encodings, rows))
        for encoding, own, logs in zip(
            encodings, rows, iter_log_probabilities(model, asked, batch_tokens=batch_tokens)
        ):
            result = np.full((encoding.num_bases, 4), np.nan)
            offsets, shares = encoding.offsets[own], np.exp(logs.astype(np.float64))
            lengths = offsets[:, 1] - offsets[:, 0]
            for length in np.unique(lengths).tolist():
                here = lengths == length
                ids, member = sums[length]
                values = (shares[here][:, ids] @ member).reshape(-1, length, 4)
                for start, each in zip(offsets[here, 0].tolist(), values):
                    result[start : start + length] = each
            total = result.sum(1, keepdims=True)
            yield result / np.where(total > 0, total, 1)

    return read


def _sums_over_words(tokenizer: Tokenizer) -> dict[int, tuple[npt.NDArray[np.int32], FloatArray]]:
    """Give, for each length of words, their ids and which base each has at each place: (words, length * 4)."""
    found: dict[int, list[int]] = {}
    for index in tokenizer.dna_token_ids.tolist():
        found.setdefault(len(tokenizer.token_strings[index]), []).append(index)
    tables = {}
    for length, ids in found.items():
        member = np.zeros((len(ids), length, 4))
        for row, index in enumerate(ids):
            for place, letter in enumerate(tokenizer.token_strings[index]):
                member[row, place, "ACGT".index(letter)] = 1
        tables[length] = np.array(ids, dtype=np.int32), member.reshape(len(ids), -1)
    return tables


def _masked_table(model: Network, batch_tokens: int) -> Table:
    def read(texts: list[str]) -> Iterator[FloatArray]:
        for text in texts:
            yield base_probabilities(model, text, inside="summed", batch_tokens=batch_tokens).astype(np.float64)

    return read
