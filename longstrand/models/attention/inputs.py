"""What all layers share in one call: padding, documents, and positions of one batch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from longstrand.models.attention.alibi import AlibiStrip
from longstrand.models.positions import alibi_slopes


@dataclass(frozen=True, eq=False)
class AttentionInputs:
    """What all layers share in one call.

    Attributes:
        length: tokens, padding included.
        device: of the hidden states.
        dtype: of the scores.
        padding: (B, 1, 1, L) from `padding_bias`, or None.
        documents: (B, L) int64 number of the document of each token, or None; tokens see their own document only.
            Negative numbers are padding.
        num_heads: heads with ALiBi slopes, or 0 without ALiBi.
        position_ids: (1 or B, L), for ALiBi.
        counted: positions go up by one from token to token of a document, as they do unless a user gives them.
    """

    length: int
    device: torch.device
    dtype: torch.dtype
    padding: Tensor | None = None
    documents: Tensor | None = None
    num_heads: int = 0
    position_ids: Tensor | None = None
    counted: bool = False

    def slopes(self) -> Tensor | None:
        """Give ALiBi's slopes, (H,) float32, or None."""
        return torch.tensor(alibi_slopes(self.num_heads), device=self.device) if self.num_heads else None

    @cached_property
    def numbers(self) -> Tensor | None:
        """The documents, or what padding makes of rows: (B, L) int64, negative where there is no real token."""
        if self.documents is not None or self.padding is None or self.padding.dtype != torch.bool:
            return self.documents
        return self.padding[:, 0, 0].long() - 1

    @cached_property
    def runs(self) -> tuple[tuple[int, int, int], ...] | None:
        """The numbered documents as (row, start, end); None if one of them is not in one piece, or there are none."""
        return document_runs(self.numbers)

    @cached_property
    def span(self) -> int:
        """Tokens of the longest document."""
        if self.documents is None or self.runs is None:
            return self.length
        return max((end - start for _, start, end in self.runs), default=self.length)

    @cached_property
    def strip(self) -> AlibiStrip:
        """ALiBi's biases, made once for all layers."""
        longest = max((end - start for _, start, end in self.runs or ()), default=self.length)
        return AlibiStrip.make(alibi_slopes(self.num_heads), longest, self.dtype)

    def of_length(self, length: int) -> AttentionInputs:
        """Return the inputs of one document."""
        places = torch.arange(length, device=self.device)[None]
        return AttentionInputs(length, self.device, self.dtype, None, None, self.num_heads, places, True)


def document_runs(documents: Tensor | None) -> tuple[tuple[int, int, int], ...] | None:
    """List (row, start, end) of the documents of a packed batch (B, L); None if one of them is not in one piece.

    Negative numbers are padding, of which there may be several pieces.
    """
    if documents is None:
        return None
    runs = []
    for row, line in enumerate(documents.cpu()):
        numbers, sizes = torch.unique_consecutive(line, return_counts=True)
        real = numbers[numbers >= 0]
        if real.numel() > torch.unique(real).numel():
            return None
        ends = sizes.cumsum(0).tolist()
        runs += [(row, end - size, end) for end, size in zip(ends, sizes.tolist())]
    return tuple(runs)
