"""Attention: four separate projections around one function, `compute_attention`.

`longstrand.models.attention.mask` says who sees whom and by which path; `compute_attention` computes. All paths equal
the dense one.
Legend: B batch, H heads, L tokens, K head size.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longstrand.models.attention.block_sparse import BlockLists, block_lists
from longstrand.models.attention.layouts import make_layout, pattern_for
from longstrand.models.attention.mask import AttentionInputs, AttentionMask, PackedDocument, best_path
from longstrand.models.attention.patterns import BlockSparse, Pattern
from longstrand.models.config import LongstrandConfig
from longstrand.models.linear import Linear
from longstrand.models.positions import RotaryAngles, take_rows


class SelfAttention(nn.Module):
    """Multi-head self-attention with separate ``query``, ``key``, ``value`` and ``dense`` projections.

    ``layout`` is the block layout of this layer, a part of the weights, or None.
    """

    layout: Tensor | None

    def __init__(self, config: LongstrandConfig, layer: int = 0) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.dropout = config.attention_dropout
        size, bias = config.hidden_size, config.biases.attention
        self.query = Linear(size, size, bias=bias)
        self.key = Linear(size, size, bias=bias)
        self.value = Linear(size, size, bias=bias)
        self.dense = Linear(size, size, bias=bias)
        self.register_buffer("layout", make_layout(config, layer))
        self._kept: tuple[Any, ...] = ()

    def forward(
        self,
        hidden: Tensor,
        mask: AttentionMask,
        angles: RotaryAngles | None,
        *,
        need_weights: bool,
        rows: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Mix tokens; hidden (B, L, hidden_size) -> same shape, and probabilities (B, H, L, L) if asked for.

        With ``rows`` (B, R) only those tokens ask, and ``mask`` is theirs.
        """
        asking = hidden if rows is None else take_rows(hidden, rows)
        query, key, value = (
            self._split(self.query(asking)),
            self._split(self.key(hidden)),
            self._split(self.value(hidden)),
        )
        if angles is not None:
            query, key = (angles if rows is None else angles.at(rows)).rotate(query), angles.rotate(key)
        dropout = self.dropout if self.training else 0.0
        context, weights = compute_attention(query, key, value, mask, dropout=dropout, need_weights=need_weights)
        return self.dense(context.transpose(1, 2).flatten(2)), weights

    def pattern(
        self, config: LongstrandConfig, layer: int, inputs: AttentionInputs
    ) -> tuple[Pattern, BlockLists | None]:
        """Give the pattern of a layer that uses this layout, with its block lists where they will be needed.

        Both are kept until the layout or the length changes.
        """
        if self.layout is None or torch.compiler.is_compiling():
            return pattern_for(config, layer, self.layout, inputs.span), None
        version = 0 if self.layout.is_inference() else self.layout._version
        sizes = (inputs.span, inputs.documents is None)
        key = (version, sizes, tuple(config.quirks))
        kept = self._kept  # threads may share a model
        if not kept or kept[0] is not self.layout or kept[1] != key:
            pattern = pattern_for(config, layer, self.layout, inputs.span)
            lists = None
            if isinstance(pattern, BlockSparse) and inputs.documents is None:
                gathers = best_path(pattern, inputs) == "gather"
                lists = block_lists(pattern, inputs.length, inputs.device) if gathers else None
            kept = self._kept = (self.layout, key, pattern, lists)
        return kept[2], kept[3]

    def _split(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


def compute_attention(
    query_BHLK: Tensor,
    key_BHLK: Tensor,
    value_BHLK: Tensor,
    mask: AttentionMask,
    *,
    dropout: float = 0.0,
    need_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Compute softmax(q k / sqrt(K) + bias) v over what the mask allows.

    Args:
        query_BHLK: queries; keys and values have the same shape.
        key_BHLK: keys.
        value_BHLK: values.
        mask: who sees whom, from `longstrand.models.attention.mask.prepare`.
        dropout: probability of dropping an attention probability; ignored by patterns other than `Full`.
        need_weights: also return the probabilities, through the slow path; needs a dense mask.

    Returns:
        Context (B, H, L, K), and probabilities (B, H, L, L) before dropout or None.
    """
    states, bias = (query_BHLK, key_BHLK, value_BHLK), mask.bias
    dropout = dropout if mask.drops else 0.0
    if mask.blocks is not None:
        return mask.blocks.attend(*states), None
    if mask.strip is not None:
        return mask.strip.attend(*states, dropout=dropout), None
    if mask.documents is not None:
        return _attend_documents(states, mask.documents, dropout), None
    if not need_weights:
        return F.scaled_dot_product_attention(*states, attn_mask=bias, dropout_p=dropout), None
    scores = query_BHLK @ key_BHLK.transpose(2, 3) * query_BHLK.shape[-1] ** -0.5
    if bias is not None and bias.dtype == torch.bool:
        scores = scores.masked_fill(~bias, torch.finfo(scores.dtype).min)
    elif bias is not None:
        scores = scores + bias
    weights = scores.softmax(-1, dtype=torch.float32).to(value_BHLK.dtype)
    return F.dropout(weights, dropout) @ value_BHLK, weights


def _attend_documents(states: tuple[Tensor, ...], documents: tuple[PackedDocument, ...], dropout: float) -> Tensor:
    """Compute the context of documents one by one; zero where there is none. Lies as (B, L, H, K) in memory."""
    batch, heads, _, size = states[0].shape
    parts = []
    for one in documents:
        if one.mask is None:
            parts.append(states[2].new_zeros(1, one.end - one.start, heads, size))
            continue
        query, key, value = (state[one.row, None, :, one.start : one.end] for state in states)
        parts.append(compute_attention(query, key, value, one.mask, dropout=dropout)[0].transpose(1, 2))
    return torch.cat(parts, dim=1).unflatten(1, (batch, -1))[0].transpose(1, 2)
