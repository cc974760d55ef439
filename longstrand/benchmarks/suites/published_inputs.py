"""Inputs exactly as GENA-LM's task scripts feed them to a model, for comparison with published numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from longstrand.errors import TokenizerError
from longstrand.tokenization.base import Tokenizer

IGNORED = -100
BIN_BASES = 128


@dataclass(frozen=True)
class SpecialIds:
    """Ids of the special tokens that the scripts put between stretches."""

    cls: int
    sep: int
    pad: int

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> SpecialIds:
        """Take them from a tokenizer.

        Raises:
            TokenizerError: it lacks one of them, so it is not of the kind that the published inputs were made with.
        """
        special = tokenizer.special
        if special.cls is None or special.sep is None or special.pad is None:
            raise TokenizerError("the published inputs need a tokenizer with [CLS], [SEP] and [PAD]; take GENA-LM's.")
        return cls(special.cls, special.sep, special.pad)


@dataclass(frozen=True)
class SpliceInput:
    """One SpliceAI row as a model input of ``max_tokens`` tokens.

    Attributes:
        input_ids: int32 (max_tokens,).
        labels: int32 (max_tokens, 2): 1 in the first column where a token holds an acceptor, 2 in the second where it
            holds a donor, 0 elsewhere in the target, -100 outside it.
        labels_ohe: int32 (max_tokens, 3): the targets of the published loss (class 0 is 1 for every labelled token
            unless it holds both kinds of sites).
        labels_mask: int32 (max_tokens,): tokens that count in the loss.
    """

    input_ids: np.ndarray
    labels: np.ndarray
    labels_ohe: np.ndarray
    labels_mask: np.ndarray


def splice_input(
    tokenizer: Tokenizer, sequence: str, target: Sequence[int], max_tokens: int, *, context: int = 5000
) -> SpliceInput:
    """Encode a SpliceAI row as published: ``[CLS] left [SEP] target [SEP] right [SEP]``.

    Target and contexts are tokenized apart. If the target does not fit, it is cut on the right and has no context: what
    is cut is then never scored, so numbers of short inputs are not on the same labels as those of long ones. Contexts
    are trimmed so that both become as nearly equal as can be. Padding stands before the last ``[SEP]`` and is attended.

    Args:
        tokenizer: of GENA-LM.
        sequence: 15,000 bases, N where the contig ends.
        target: 5,000 labels: 0, 1 acceptor, 2 donor.
        max_tokens: length of the input.
        context: bases before the target.
    """
    ids = SpecialIds.of(tokenizer)
    left, middle, right = _three_parts(sequence, len(target), context)
    middle_ids, offsets = tokenizer.encode_ids(middle)
    left_ids, right_ids = tokenizer.encode_ids(left)[0], tokenizer.encode_ids(right)[0]
    token_labels = _token_labels(offsets, np.asarray(target))
    oversize = len(left_ids) + len(middle_ids) + len(right_ids) + 4 - max_tokens
    num_pads = max(0, -oversize)
    if len(middle_ids) + 4 > max_tokens:
        middle_ids, token_labels = middle_ids[: max_tokens - 4], token_labels[: max_tokens - 4]
        left_ids, right_ids = left_ids[:0], right_ids[:0]
    elif oversize > 0:
        trim_left, trim_right = _trims(len(left_ids), len(right_ids), oversize)
        left_ids, right_ids = left_ids[trim_left:], right_ids[: len(right_ids) - trim_right]
    parts = [[ids.cls], left_ids, [ids.sep], middle_ids, [ids.sep], right_ids, [ids.pad] * num_pads, [ids.sep]]
    input_ids = np.concatenate([np.asarray(part, dtype=np.int32) for part in parts])
    labels = np.full((max_tokens, 2), IGNORED, dtype=np.int32)
    start = 2 + len(left_ids)
    labels[start : start + len(token_labels)] = token_labels
    one_hot: np.ndarray = np.stack([(labels == number).any(axis=1) for number in range(3)], axis=1).astype(np.int32)
    return SpliceInput(input_ids, labels, one_hot, np.asarray(one_hot.any(axis=1), dtype=np.int32))


def _three_parts(sequence: str, num_target: int, context: int) -> tuple[str, str, str]:
    """Cut N off both ends, never from the target, and split into left context, target and right context."""
    num_left = min(len(sequence) - len(sequence.lstrip("N")), context)
    start = context - num_left
    text = sequence[num_left:]
    text = text[: max(len(text.rstrip("N")), start + num_target)]
    return text[:start], text[start : start + num_target], text[start + num_target :]


def _token_labels(offsets: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Mark the token that holds each acceptor (first column, 1) and donor (second column, 2)."""
    labels = np.zeros((len(offsets), 2), dtype=np.int32)
    for kind in (1, 2):
        places = np.searchsorted(offsets[:, 0], np.flatnonzero(target == kind), side="right") - 1
        labels[places, kind - 1] = kind
    return labels


def _trims(num_left: int, num_right: int, oversize: int) -> tuple[int, int]:
    """Say how many tokens of each context go, so that what stays is as even as can be; an odd one goes left."""
    difference = abs(num_left - num_right)
    longer = oversize / 2 + min(difference / 2, oversize / 2)
    shorter = max(0.0, (oversize - difference) / 2)
    trim_left, trim_right = (longer, shorter) if num_left >= num_right else (shorter, longer)
    if trim_left != int(trim_left):
        trim_left, trim_right = trim_left + 0.5, trim_right - 0.5
    return int(trim_left), int(trim_right)


def deepsea_input(tokenizer: Tokenizer, sequence: str, max_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Encode a DeepSEA sequence as published: ``[CLS] x [SEP]`` and padding, cut evenly on both sides.

    Returns:
        input_ids and attention_mask, int32 (max_tokens,).
    """
    special = SpecialIds.of(tokenizer)
    ids = tokenizer.encode_ids(sequence)[0]
    oversize = max(0, len(ids) + 2 - max_tokens)
    ids = ids[oversize // 2 : len(ids) - (oversize - oversize // 2)]
    num_pads = max_tokens - len(ids) - 2
    input_ids = np.concatenate([[special.cls], ids, [special.sep], [special.pad] * num_pads]).astype(np.int32)
    return input_ids, np.repeat([1, 0], [max_tokens - num_pads, num_pads]).astype(np.int32)


def binned_input(tokenizer: Tokenizer, sequence: str, *, bin_bases: int = BIN_BASES) -> np.ndarray:
    """Encode bins of 128 bases apart: ``[CLS] bin [SEP] bin [SEP] ...``; the last bin may be shorter."""
    special = SpecialIds.of(tokenizer)
    parts: list[np.ndarray] = [np.array([special.cls], dtype=np.int32)]
    for start in range(0, len(sequence), bin_bases):
        ids = tokenizer.encode_ids(sequence[start : start + bin_bases])[0]
        parts += [np.asarray(ids, dtype=np.int32), np.array([special.sep], dtype=np.int32)]
    return np.concatenate(parts)
