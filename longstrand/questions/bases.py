"""What a masked LM expects at each base, A, C, G or T, whatever its tokens.

All tokens that cover a base are masked together: one single base or non-overlapping k-mer, the k overlapping k-mers, or
one BPE token. A token's distribution then says something about the base in one of two ways:

- ``given``: compare the four words that share the token's other letters (``log p(alternate) - log p(reference)`` is
  then the usual masked log-likelihood ratio); single bases and k-mers, their default;
- ``summed``: sum over all words of the token's length with that base at that place; the only way for BPE, where the
  masked token's length is known to the model's reader and says something about the sequence.

Overlapping k-mers: the mean of the k log-probabilities (each k-mer counts the base once). The four values are then
renormalised; the probability of all other tokens is what was left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from longstrand.errors import UsageError, one_of
from longstrand.inference.predict import longest_input
from longstrand.inference.strands import StrandPolicy, average, read_on, strands_of
from longstrand.models.checkpoint import load_model
from longstrand.models.network import Network
from longstrand.questions.tokens import (
    BATCH_TOKENS,
    FloatArray,
    MaskedText,
    iter_log_probabilities,
    prepare_text,
    reading_of,
)
from longstrand.tokenization.base import IntArray, Tokenizer
from longstrand.tokenization.bpe import BpeTokenizer

BASES = "ACGT"
Inside = Literal["given", "summed"]


@dataclass(frozen=True, slots=True, eq=False)
class BaseDistribution:
    """The distribution over the four bases at each base of a sequence.

    Attributes:
        probabilities: float32 ``(num_bases, 4)``, columns A, C, G, T, rows sum to 1; NaN where no token covers a base
            or no word of the vocabulary fits (a k-mer beside an N).
        left_out: float32 ``(num_bases,)``, probability of tokens other than A, C, G, T words of the masked token's
            length, before renormalising; the mean over the tokens of a base, and over strands.
    """

    probabilities: FloatArray
    left_out: FloatArray


def base_probabilities(model: Network | Path | str, sequence: str, **options: Any) -> FloatArray:
    """Compute the probability of A, C, G and T at each base of a sequence, each base masked in turn.

    The options and errors of `base_distribution`, which also gives the probability that was left out.

    Returns:
        float32 ``(num_bases, 4)``.
    """
    return base_distribution(model, sequence, **options).probabilities


def base_distribution(
    model: Network | Path | str,
    sequence: str,
    *,
    strand: StrandPolicy = "+",
    masked: bool = True,
    inside: Inside | None = None,
    max_tokens: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> BaseDistribution:
    """Compute the distribution over the four bases at each base of a sequence.

    One forward pass for each token (overlapping k-mers: for each base). A sequence of more tokens than the model reads
    is cut into windows around each masked place, at the borders of the sequence's own tokens.

    Args:
        model: a masked LM, or what `load_model` reads.
        sequence: bases in any case; letters that the tokenizer does not know are read as N.
        strand: ``both`` averages log-probabilities and renormalises.
        masked: False: one pass in which each token sees itself (dependency maps).
        inside: see the module; None: ``given``, for BPE ``summed``.
        max_tokens: longest input of the model, special tokens included; None: what the reading record says, else what
            the position table holds, else any length.
        batch_tokens: most tokens of a batch.

    Raises:
        UsageError: the model is no masked LM; ``given`` is asked of BPE; ``max_tokens`` leaves no room.
        InputError: a letter is no nucleotide.
    """
    model = load_model(model) if isinstance(model, str | Path) else model
    words = Words(model.require_tokenizer(), inside)
    limit = max_tokens or reading_of(model).max_tokens or longest_input(model.config)
    text = prepare_text(model, sequence)
    logs, lost = [], []
    for each in strands_of(strand):
        of_strand, left_out = _read(model, read_on(each, text), words, (limit, masked, batch_tokens))
        logs.append(of_strand if each == "+" else of_strand[::-1, ::-1])
        lost.append(left_out if each == "+" else left_out[::-1])
    return BaseDistribution(np.exp(_normalised(average(logs))).astype(np.float32), average(lost).astype(np.float32))


class Words:
    """The words of a vocabulary that are spelled with A, C, G and T, by length."""

    def __init__(self, tokenizer: Tokenizer, inside: Inside | None) -> None:
        bpe = isinstance(tokenizer, BpeTokenizer)
        self.inside = one_of(inside or ("summed" if bpe else "given"), ("given", "summed"), "reading inside a token")
        if bpe and self.inside == "given":
            raise UsageError("words of BPE that differ in one base are not all in the vocabulary; use inside='summed'.")
        self.vocab, self.strings, self.dna = tokenizer.vocab, tokenizer.token_strings, tokenizer.dna_token_ids

    @cached_property
    def by_length(self) -> dict[int, tuple[IntArray, npt.NDArray[np.int8]]]:
        """Ids ``(w,)`` of the words of each length and their letters ``(w, length)`` as numbers 0-3."""
        found: dict[int, list[int]] = {}
        for index in self.dna.tolist():
            found.setdefault(len(self.strings[index]), []).append(index)
        return {
            length: (
                np.array(ids, dtype=np.int32),
                np.array([[BASES.index(letter) for letter in self.strings[i]] for i in ids], dtype=np.int8),
            )
            for length, ids in found.items()
        }

    def left_out(self, logs: npt.NDArray[np.float64], length: int) -> float:
        """Sum the probability of everything but the words of a length; logs ``(V,)``."""
        ids, _ = self.by_length.get(length, (np.empty(0, np.int32), None))
        return float(1 - np.exp(logs[ids]).sum())

    def at_place(self, logs: npt.NDArray[np.float64], text: str, place: int) -> npt.NDArray[np.float64]:
        """Give the log-probability ``(4,)`` of each base at a place of a masked token that stood for ``text``."""
        result = np.full(4, np.nan)
        if self.inside == "given":
            near = [text[:place] + base + text[place + 1 :] for base in BASES]
            return logs[[self.vocab[word] for word in near]] if all(map(self.vocab.__contains__, near)) else result
        if len(text) in self.by_length:
            ids, letters = self.by_length[len(text)]
            for base in range(4):
                own = logs[ids[letters[:, place] == base]]
                result[base] = np.logaddexp.reduce(own) if len(own) else -np.inf
        return result


def _read(
    model: Network, text: str, words: Words, how: tuple[int | None, bool, int]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Give normalised log-probabilities ``(num_bases, 4)`` and what was left out ``(num_bases,)`` of one strand."""
    limit, masked, batch_tokens = how
    tokenizer, num_bases = model.require_tokenizer(), len(text)
    ids, offsets = tokenizer.encode_ids(text)
    covers = offsets[:, 1] > offsets[:, 0]
    ids, offsets = ids[covers], offsets[covers]
    places = np.arange(num_bases)
    first, last = (np.searchsorted(column, places, side="right") for column in (offsets[:, 1], offsets[:, 0]))
    room = len(ids) if limit is None else min(len(ids), limit - tokenizer.num_special_tokens())
    if len(ids) and room < int((last - first).max()):
        raise UsageError(f"max_tokens {limit} leaves no room for the tokens of one base beside the special ones.")
    groups = _groups(first, last, len(ids), room, masked)
    before = len(tokenizer.template.prefix)

    def asked(window: int, lo: int, hi: int) -> MaskedText:
        rows = np.arange(lo, hi, dtype=np.int32) - window + before
        part = slice(window, window + room)
        return MaskedText(tokenizer.wrap(ids[part], offsets[part], num_bases), rows if masked else rows[:0], rows)

    logs, lost = np.full((num_bases, 4), np.nan), np.full(num_bases, np.nan)
    answers = iter_log_probabilities(model, (asked(*key) for key in groups), batch_tokens=batch_tokens)
    for (_, start, _), bases, answer in zip(groups, groups.values(), answers):
        values = answer.astype(np.float64)
        for base in bases:
            tokens = range(first[base], last[base])
            texts = [text[slice(*offsets[token])] for token in tokens]
            each = [
                words.at_place(values[token - start], word, base - offsets[token, 0])
                for token, word in zip(tokens, texts)
            ]
            logs[base] = average(each)
            lost[base] = np.mean([words.left_out(values[t - start], len(word)) for t, word in zip(tokens, texts)])
    return _normalised(logs), lost


def _groups(
    first: npt.NDArray[np.int64], last: npt.NDArray[np.int64], num_tokens: int, room: int, masked: bool
) -> dict[tuple[int, int, int], list[int]]:
    """Collect the bases that one forward pass answers: (first token of its window, tokens asked from, to) -> bases.

    Masked, these are the bases of the same tokens, and the window stands around them. Unmasked, they are all bases of
    the middle of a window.
    """
    step = max(1, room // 2)
    wanted: dict[tuple[int, int, int], list[int]] = {}
    for base in np.flatnonzero(last > first).tolist():
        lo, hi = int(first[base]), int(last[base])
        middle = (lo + hi) // 2
        window = middle - room // 2 if masked else (middle - room // 4) // step * step
        window = max(0, min(window, num_tokens - room, lo))
        window = max(window, hi - room)
        key = (window, lo, hi) if masked else (window, 0, 0)
        wanted.setdefault(key, []).append(base)
    if masked:
        return wanted
    return {
        (window, int(first[bases].min()), int(last[bases].max())): bases for (window, _, _), bases in wanted.items()
    }


def _normalised(logs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Scale log-probabilities (num_bases, 4) so that each row sums to 1; NaN stays."""
    if not len(logs):
        return logs
    with np.errstate(invalid="ignore"):
        scaled: npt.NDArray[np.float64] = logs - np.logaddexp.reduce(logs, axis=1, keepdims=True)
    return scaled
