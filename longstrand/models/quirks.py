"""Quirks of ESM (Nucleotide Transformer) that depend on the ids themselves, not only on their vectors.

Whoever gives ``inputs_embeds`` to a model with one of these quirks may give ``input_ids`` beside them; the result is
then that of the ids, with the given vectors. Without the ids, real tokens are those of the attention mask, and no token
is taken to be masked.
"""

from __future__ import annotations

import torch
from torch import Tensor

from longstrand.errors import InputError
from longstrand.models.config import LongstrandConfig

TRAINED_MASK_SHARE = 0.15 * 0.8
"""Share of tokens that were <mask> in ESM's pre-training (transformers, EsmEmbeddings)."""


def drop_masked_tokens(
    words: Tensor,
    input_ids: Tensor | None,
    attention_mask: Tensor | None,
    *,
    config: LongstrandConfig,
    mask_row: Tensor,
    documents: Tensor | None = None,
) -> Tensor:
    """Zero the vectors of <mask> and scale all, so that their sum is as in pre-training; also in evaluation.

    Args:
        words: (B, L, D) word vectors.
        input_ids: (B, L) or None: no token is masked then.
        attention_mask: (B, L), 1 = real token, or None.
        config: without the quirk ``token_dropout`` the vectors come back as they are.
        mask_row: (D,) word vector of <mask>.
        documents: (B, L) int64 in a packed batch, where each document has its own factor.

    Returns:
        (B, L, D). Without masked tokens the factor is 0.88. A row of nothing but <mask> is zero.

    Raises:
        InputError: there are no ids, and the vectors hold that of <mask>.
    """
    if "token_dropout" not in config.quirks:
        return words
    if input_ids is None:
        if bool((words.detach() == mask_row.detach()).all(-1).any()):
            raise InputError(
                "inputs_embeds holds the vector of the mask token, and this family scales by the number of masked "
                "tokens; give input_ids beside inputs_embeds."
            )
        return words * (1 - TRAINED_MASK_SHARE)
    assert config.mask_token_id is not None
    masked = input_ids.eq(config.mask_token_id)
    if documents is not None:
        share = _share_of_documents(masked, documents)
    else:
        real = masked.shape[1] if attention_mask is None else attention_mask.sum(-1, keepdim=True).clamp(min=1)
        share = masked.sum(-1, keepdim=True) / real
    scale = (1 - TRAINED_MASK_SHARE) / torch.where(share < 1, 1 - share, 1.0)
    return words.masked_fill(masked[..., None], 0.0) * scale[..., None].to(words.dtype)


def _share_of_documents(masked: Tensor, documents: Tensor) -> Tensor:
    """Give, at each token, the share of masked tokens of its document, (B, L)."""
    rows = torch.arange(documents.shape[0], device=documents.device)[:, None].expand_as(documents)
    _, number = torch.unique(torch.stack((rows, documents), -1).flatten(0, 1), dim=0, return_inverse=True)
    counts = torch.bincount(number)
    share = torch.bincount(number, masked.flatten().double(), minlength=counts.numel()) / counts
    return share[number].view_as(documents)


def first_position(config: LongstrandConfig) -> int:
    """Give the position of the first token: 0, or pad_token_id + 1 with the quirk ``positions_after_padding``."""
    return (config.pad_token_id or 0) + 1 if "positions_after_padding" in config.quirks else 0


def count_positions(
    input_ids: Tensor | None, attention_mask: Tensor | None, words: Tensor, config: LongstrandConfig
) -> Tensor | None:
    """Count real tokens from pad_token_id + 1 on; padding has the position pad_token_id. The rows below are unused.

    Args:
        input_ids: (B, L), or None: padding is where the attention mask is 0.
        attention_mask: (B, L) or None.
        words: (B, L, D).
        config: without the quirk ``positions_after_padding`` the answer is None: positions as everywhere.

    Returns:
        (B or 1, L) or None.

    Raises:
        InputError: more tokens than the table has left.
    """
    first, limit = first_position(config), config.max_position_embeddings
    if first == 0:
        return None
    if input_ids is not None:
        real = input_ids.ne(first - 1)
    elif attention_mask is not None:
        real = attention_mask.bool()
    else:
        real = torch.ones(1, words.shape[1], dtype=torch.bool, device=words.device)
    counted = real.cumsum(1)
    if counted.numel() and int(counted.max()) + first > limit:
        raise InputError(
            f"the input has {int(counted.max())} tokens, but the position table of this model ends at {limit - first}; "
            f"use shorter windows or truncate to {limit - first} tokens (special tokens included)."
        )
    return counted * real + first - 1


def zero_padding(hidden: Tensor, attention_mask: Tensor | None, config: LongstrandConfig) -> Tensor:
    """Set the result (B, L, D) to 0 at padding, with the quirk ``zero_padding``; else change nothing."""
    if attention_mask is not None and "zero_padding" in config.quirks:
        return hidden.masked_fill(attention_mask[..., None] == 0, 0.0)
    return hidden
