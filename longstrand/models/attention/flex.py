"""The same patterns through FlexAttention, for GPUs; on a CPU only on request (it compiles for seconds, forward only).

Block layouts go in as lists of blocks, so nothing of the size (L, L) exists; padding, documents, ALiBi and repeated
blocks are small tables that the compiled kernel reads.
Legend: B batch, H heads, L tokens, n blocks, K head size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from longstrand.errors import UsageError
from longstrand.models.attention.inputs import AttentionInputs
from longstrand.models.attention.patterns import BlockSparse, Full, Pattern, SlidingWindow

_BLOCK = 128


@lru_cache(maxsize=1)
def is_available() -> bool:
    """Say whether FlexAttention and its compiler are there."""
    try:
        import triton  # noqa: F401
        from torch.nn.attention import flex_attention  # noqa: F401
    except ImportError:
        return False
    return True


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


@dataclass(frozen=True, eq=False)
class FlexCall:
    """A pattern and a batch as FlexAttention's block mask and score function."""

    block_mask: Any
    score: Callable[..., Tensor] | None

    @classmethod
    def make(cls, pattern: Pattern, inputs: AttentionInputs) -> FlexCall:
        """Describe who sees whom.

        Args:
            pattern: who may see whom.
            inputs: the batch.
        """
        from torch.nn.attention.flex_attention import BlockMask

        size = pattern.block_size if isinstance(pattern, BlockSparse) else _BLOCK
        counts = _coarse_counts(pattern, inputs, size)[None]
        seen = counts > 0
        numbers = seen.sum(-1, dtype=torch.int32)
        order = torch.argsort(seen.to(torch.uint8), dim=-1, descending=True, stable=True).to(torch.int32)
        mask = BlockMask.from_kv_blocks(
            numbers,
            order,
            BLOCK_SIZE=size,
            mask_mod=_mask(pattern, inputs, counts[0], size),
            seq_lengths=(inputs.length, inputs.length),
        )
        return cls(mask, _score(inputs, counts[0], size))

    def attend(self, query_BHLK: Tensor, key_BHLK: Tensor, value_BHLK: Tensor) -> Tensor:
        """Compute the context (B, H, L, K); no dropout of probabilities.

        Raises:
            UsageError: gradients are asked for on a CPU.
        """
        if query_BHLK.device.type == "cpu" and torch.is_grad_enabled() and query_BHLK.requires_grad:
            raise UsageError(
                "FlexAttention computes no gradients on a CPU; predict under torch.no_grad(), or train with "
                "attn_implementation='sdpa', the default."
            )
        states = (one.contiguous() for one in (query_BHLK, key_BHLK, value_BHLK))
        return _compiled()(*states, score_mod=self.score, block_mask=self.block_mask)


def _coarse_counts(pattern: Pattern, inputs: AttentionInputs, size: int) -> Tensor:
    """Count blocks of ``size`` tokens, (H or 1, n, n) uint8."""
    if isinstance(pattern, BlockSparse):
        return pattern.corner(inputs.length).to(inputs.device)
    num_blocks = -(-inputs.length // size)
    places = torch.arange(num_blocks, device=inputs.device)
    reach = num_blocks if isinstance(pattern, Full) else -(-(pattern.window // 2) // size)
    return ((places[:, None] - places).abs() <= reach).to(torch.uint8)[None]


def _mask(pattern: Pattern, inputs: AttentionInputs, counts: Tensor, size: int) -> Callable[..., Tensor]:
    """Say which pairs of tokens are allowed inside of the listed blocks."""
    documents, several = inputs.documents, counts.shape[0] > 1
    padding = None if inputs.padding is None else inputs.padding[:, 0, 0]
    reach = pattern.window // 2 if isinstance(pattern, SlidingWindow) else None

    def allowed(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        group = head if several else head * 0
        result = counts[group, query // size, key // size] > 0
        if padding is not None:
            result = result & padding[batch, key]
        if documents is not None:
            result = result & (documents[batch, query] == documents[batch, key])
        if reach is not None:
            result = result & ((query - key).abs() <= reach)
        return result

    return allowed


def _score(inputs: AttentionInputs, counts: Tensor, size: int) -> Callable[..., Tensor] | None:
    """Add ALiBi and the weights of repeated blocks to the scores, or give None if there is neither."""
    slopes, places = inputs.slopes(), inputs.position_ids
    logs = counts.clamp(min=1).float().log() if bool((counts > 1).any()) else None
    if slopes is None and logs is None:
        return None
    several, rows = counts.shape[0] > 1, places is not None and places.shape[0] > 1

    def score(value: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        if logs is not None:
            value = value + logs[head if several else head * 0, query // size, key // size]
        if slopes is not None and places is not None:
            row = batch if rows else batch * 0
            value = value - slopes[head] * (places[row, query] - places[row, key]).abs()
        return value

    return score
