"""Who may see whom: full attention, a sliding window, and blocks named by a layout.

A pattern is a value that states its dense mask; every faster path must equal attention under that mask. Patterns know
nothing of padding or packed documents, which `longstrand.models.attention.mask.prepare` adds for each call.
Legend: H heads (1 if all heads share), L tokens, n blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Full:
    """Every token sees every token."""

    def dense_mask(self, length: int, device: torch.device | str | None = None) -> Tensor:
        """Give (1, L, L) bool, all true."""
        return torch.ones(1, length, length, dtype=torch.bool, device=device)


@dataclass(frozen=True)
class SlidingWindow:
    """Token i sees token j when |i - j| <= window // 2, itself included (ModernBERT's reading of ``local_attention``).

    Attributes:
        window: tokens in the window, at least 2.
    """

    window: int

    def __post_init__(self) -> None:
        if self.window < 2:
            raise ValueError(f"a sliding window has at least 2 tokens, got {self.window}")

    def dense_mask(self, length: int, device: torch.device | str | None = None) -> Tensor:
        """Give (1, L, L) bool: a band."""
        places = torch.arange(length, device=device)
        return ((places[:, None] - places).abs() <= self.window // 2)[None]


@dataclass(frozen=True, eq=False)
class BlockSparse:
    """Block row i sees block column j as many times as ``counts`` says; usually 0 or 1.

    A key counted c times weighs c times in the softmax: log(c) is added to its score. BigBird as published draws random
    blocks that may repeat others (gena_rmt.md 1.4).

    Attributes:
        counts: (H or 1, n, n) uint8; shorter inputs use the top-left corner.
        block_size: tokens in a block; the last block of an input may be shorter.
    """

    counts: Tensor
    block_size: int

    def __post_init__(self) -> None:
        if self.counts.dim() != 3 or self.counts.shape[1] != self.counts.shape[2] or self.counts.dtype != torch.uint8:
            shape, kind = tuple(self.counts.shape), str(self.counts.dtype).removeprefix("torch.")
            raise ValueError(f"counts of blocks are (heads, n, n) uint8, got {shape} {kind}")

    def corner(self, length: int) -> Tensor:
        """Give the counts that an input of ``length`` tokens uses, (H, n, n) uint8.

        Raises:
            ValueError: the input has more blocks than the layout.
        """
        num_blocks, limit = -(-length // self.block_size), self.counts.shape[1]
        if num_blocks > limit:
            raise ValueError(f"{length} tokens are {num_blocks} blocks, but the layout has {limit}")
        return self.counts[:, :num_blocks, :num_blocks]

    def dense_counts(self, length: int, device: torch.device | str | None = None) -> Tensor:
        """Give (H, L, L) uint8: how often each token counts."""
        block = torch.arange(length, device=device or self.counts.device) // self.block_size
        return self.corner(length).to(block.device)[:, block[:, None], block[None, :]]

    def dense_mask(self, length: int, device: torch.device | str | None = None) -> Tensor:
        """Give (H, L, L) bool."""
        return self.dense_counts(length, device) > 0


Pattern = Full | SlidingWindow | BlockSparse
FULL = Full()
