"""Dependency maps: which bases does the model's expectation at a base depend on? (Tomaz da Silva 2025; GPN-Star)

Each base is substituted by the three others, and what the masked LM says of every other base is compared: rows are the
base that is changed, columns the base that is looked at. All 3 L + 1 passes of a map share batches. Inside one token
of a k-mer model the map is trivially strong (the token sees itself); such blocks are NaN in the summary. With BPE a
substitution often moves borders of tokens, and a base has no distribution of its own: there the states of tokens that
both texts have are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longstrand.errors import InputError, UsageError
from longstrand.genome.sequence import has_letters, shuffle_dinucleotides
from longstrand.models.network import Network
from longstrand.questions.bases import base_probabilities
from longstrand.questions.tokens import (
    BATCH_TOKENS,
    MaskedText,
    iter_log_probabilities,
    prepare_text,
    read_text,
    states,
)
from longstrand.runtime import generator
from longstrand.tokenization.base import Encoding, Tokenizer
from longstrand.tokenization.bpe import BpeTokenizer

FloatArray = npt.NDArray[np.float64]
Table = Callable[[list[str]], Iterator[FloatArray]]
SMALL = 1e-10
"""Added to probabilities before odds, as published."""
SHUFFLES = 3
MOST_BASES = 4000
LEVEL = 99.0
ODDS, STATES = "log2 odds", "1 - cosine of states"


@dataclass(frozen=True, eq=False)
class DependencyMap:
    """How what the model says of base j changes when base i is substituted.

    Attributes:
        sequence: the bases, upper case.
        probabilities: float64 ``(L, 4)`` of A, C, G, T, without substitution.
        odds: ``(L, L)`` largest change over substitutions, in ``unit``; the diagonal is 0. For BPE NaN where every
            substitution cuts the token of base j otherwise.
        jacobian: ``(L, L)`` largest difference of log-probabilities (nats), averaged with its transpose (GPN-Star);
            for BPE ``odds`` averaged with its transpose.
        influence: ``(L, 4)`` of each substitution: mean over j of its largest change; 0 at the reference base. The
            published function takes the largest signed ratio.
        raw: ``(L, 4, L, 4)`` log2 odds ratios, 0 at the reference base, float32; None if not asked for.
        same_token: ``(L, L)`` whether i and j lie in one token (overlapping k-mers: never).
        unit: ``log2 odds`` or, for BPE, ``1 - cosine of states``.
        resegmented: share of the substitutions that moved borders of tokens.
    """

    sequence: str
    probabilities: FloatArray
    odds: FloatArray
    jacobian: FloatArray
    influence: FloatArray
    raw: npt.NDArray[np.float32] | None
    same_token: npt.NDArray[np.bool_]
    unit: str = ODDS
    resegmented: float = 0.0

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
        model: single bases, non-overlapping k-mers: a masked LM. Overlapping k-mers: a masked LM, only masked (all
            tokens over the base that is looked at), because neighbours give the base away. BPE: any model; bases have
            no distribution of their own there, so the states of their tokens are compared.
        sequence: bases; a base that is N is not substituted.
        masked: mask the base that is looked at: cleaner, but 3 L passes for each of L bases (up to 100 or so).
        keep_raw: keep every odds ratio.
        batch_tokens: most tokens of a batch.

    Raises:
        UsageError: overlapping k-mers unmasked, BPE masked or with ``keep_raw``.
        InputError: no known base, or more than the model or a map holds.
    """
    tokenizer = model.require_tokenizer()
    by_states = isinstance(tokenizer, BpeTokenizer)
    if tokenizer.overlapping and not masked:
        raise UsageError("overlapping k-mers give a base away to its neighbours; ask for the masked map (--masked).")
    if by_states and (masked or keep_raw):
        raise UsageError(
            "a base of a BPE token has no odds of its own: its map compares states, without --masked, --raw."
        )
    text = prepare_text(model, sequence)
    size = len(text)
    if not has_letters(text):
        raise InputError("there is no A, C, G or T in the sequence, so there is nothing to map.")
    if size > MOST_BASES:
        raise InputError(
            f"a map of {size:,} bases is a table of as many columns and takes {3 * size + 1:,} passes; choose at most "
            f"{MOST_BASES:,} bases (--window)."
        )
    changes = [
        (i, q) for i in range(size) for q, letter in enumerate("ACGT") if text[i] in "ACGT" and letter != text[i]
    ]
    texts = [text, *(text[:i] + "ACGT"[q] + text[i + 1 :] for i, q in changes)]
    if by_states:
        is_lm, compared = model.kind == "masked_lm", _turns(model, texts, batch_tokens)
        own = base_probabilities(model, text, batch_tokens=batch_tokens) if is_lm else np.full((size, 4), 0.25)
    else:
        answers = (_masked_table if masked else _table)(model, batch_tokens)(texts)
        own = next(answers)
        compared = _odds(answers, own)
    moved = 0
    odds, jacobian, influence = np.full((size, size), np.nan), np.zeros((size, size)), np.zeros((size, 4))
    odds[sorted({i for i, _ in changes} ^ set(range(size)))] = 0
    raw = np.zeros((size, 4, size, 4), dtype=np.float32) if keep_raw else None
    for (i, q), (strongest, difference, ratio, has_moved) in zip(changes, compared):
        strongest[i] = difference[i] = 0
        moved += has_moved
        odds[i] = np.fmax(odds[i], strongest)
        influence[i, q] = np.nansum(strongest) / max(1, size - 1)
        jacobian[i] = np.fmax(jacobian[i], difference)
        if raw is not None:
            raw[i, q] = ratio
    owner = np.arange(size) if tokenizer.overlapping else _owners(read_text(model, text), size)
    same = owner[:, None] == owner[None]
    unit, share = STATES if by_states else ODDS, moved / max(1, len(changes))
    probabilities = own.astype(np.float64)
    return DependencyMap(text, probabilities, odds, (jacobian + jacobian.T) / 2, influence, raw, same, unit, share)


def _owners(encoding: Encoding, size: int) -> npt.NDArray[np.int64]:
    """Number the token of each base; -1 where there is none."""
    owner = np.full(size, -1)
    for token, (start, end) in enumerate(encoding.offsets.tolist()):
        owner[start:end] = token
    return owner


Comparison = tuple[FloatArray, FloatArray, FloatArray | None, bool]
"""For each base its largest change and largest difference of log-probability, all ratios, and whether borders moved."""


def _odds(answers: Iterator[FloatArray], before: FloatArray) -> Iterator[Comparison]:
    """Compare the probabilities after each substitution with those before."""
    odds, logs = _log2_odds(before), np.log(before.clip(min=1e-300))
    for changed in answers:
        ratio = _log2_odds(changed) - odds
        yield np.abs(ratio).max(1), np.abs(np.log(changed.clip(min=1e-300)) - logs).max(1), ratio, False


def _turns(model: Network, texts: list[str], batch_tokens: int) -> Iterator[Comparison]:
    """Say for each substitution how far the state of each base's token turns; NaN where that token is cut otherwise."""
    size, encodings = len(texts[0]), [read_text(model, text) for text in texts]
    found = (
        hidden.astype(np.float64) / np.linalg.norm(hidden, axis=1, keepdims=True).clip(min=1e-12)
        for hidden in states(model, texts, batch_tokens=batch_tokens)
    )
    first, own = next(found), _owners(encodings[0], size)
    for encoding, hidden in zip(encodings[1:], found):
        owner = _owners(encoding, size)
        kept = (owner >= 0) & (own >= 0) & (encoding.offsets[owner] == encodings[0].offsets[own]).all(1)
        turned = np.where(kept, 1 - (hidden[owner] * first[own]).sum(1), np.nan)
        yield turned, np.nan_to_num(turned), None, not np.array_equal(encoding.offsets, encodings[0].offsets)


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


def _table(model: Network, batch_tokens: int) -> Table:
    """Make the function from texts to the probabilities of the bases in one pass each; see `Words` (summed)."""
    sums, first = _sums_over_words(model.require_tokenizer(), model.config.vocab_size)

    def read(texts: list[str]) -> Iterator[FloatArray]:
        encodings = [read_text(model, text) for text in texts]
        rows = [each.content_rows for each in encodings]
        asked = (MaskedText(each, own[:0], own) for each, own in zip(encodings, rows))
        answers = iter_log_probabilities(model, asked, sums=sums, batch_tokens=batch_tokens)
        for encoding, own, found in zip(encodings, rows, answers):
            result = np.full((encoding.num_bases, 4), np.nan)
            for (start, end), values in zip(encoding.offsets[own].tolist(), found):
                column = first[end - start]
                result[start:end] = values[column : column + 4 * (end - start)].reshape(-1, 4)
            total = result.sum(1, keepdims=True)
            yield result / np.where(total > 0, total, 1)

    return read


def _sums_over_words(tokenizer: Tokenizer, size: int) -> tuple[npt.NDArray[np.float32], dict[int, int]]:
    """Mark in columns which base each word has at each place: (V, columns), and the first column of each length."""
    words = {index: tokenizer.token_strings[index] for index in tokenizer.dna_token_ids.tolist()}
    lengths = sorted({len(word) for word in words.values()})
    first = dict(zip(lengths, np.cumsum([0, *(4 * length for length in lengths)]).tolist()))
    member = np.zeros((size, 4 * sum(lengths)), dtype=np.float32)
    for index, word in words.items():
        for place, letter in enumerate(word):
            member[index, first[len(word)] + 4 * place + "ACGT".index(letter)] = 1
    return member, first


def _masked_table(model: Network, batch_tokens: int) -> Table:
    def read(texts: list[str]) -> Iterator[FloatArray]:
        for text in texts:
            yield base_probabilities(model, text, inside="summed", batch_tokens=batch_tokens).astype(np.float64)

    return read
