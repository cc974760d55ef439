"""Full attention with ALiBi on the CPU, without a table of the size (heads, L, L).

The bias of a query depends on the distance only, so the biases of any few neighbouring queries are a window onto one
strip, which is made once for all layers and documents. Legend: B batch, H heads, L tokens, S queries of a piece, K head
size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_PIECE = 256
"""Queries of a piece; the fused kernel works on 64 at a time, and fewer than that cost a tenth of its speed."""


@dataclass(frozen=True, eq=False)
class AlibiStrip:
    """Biases of the first S queries, for keys from L before to L behind them.

    Attributes:
        strip: (1, H, S, 2 L): -slope |i - (m - L)| at query i and place m.
    """

    strip: Tensor

    @classmethod
    def make(cls, slopes: Sequence[float], length: int, dtype: torch.dtype) -> AlibiStrip:
        """Make the strip for inputs of up to ``length`` tokens, of which each position is one more than the last."""
        query = torch.arange(min(_PIECE, length))[:, None]
        distance = (query - torch.arange(-length, length)).abs()
        return cls((-torch.tensor(slopes)[:, None, None] * distance)[None].to(dtype))

    def at(self, rows: Tensor) -> Tensor:
        """Give the biases (B, H, R, L) of the tokens ``rows`` (B, R)."""
        middle = self.strip.shape[-1] // 2
        places = torch.arange(middle, device=rows.device) + middle - rows[..., None]
        return self.strip[0, :, 0][:, places].transpose(0, 1)

    def attend(self, query_BHLK: Tensor, key_BHLK: Tensor, value_BHLK: Tensor, dropout: float = 0.0) -> Tensor:
        """Compute the context (B, H, L, K) of an input of at most the strip's length; differentiable."""
        length, (size, twice) = query_BHLK.shape[2], self.strip.shape[2:]
        pieces = []
        for start in range(0, length, size):
            left = twice // 2 - start
            bias = self.strip[:, :, : min(size, length - start), left : left + length]
            some = query_BHLK[:, :, start : start + size]
            pieces.append(F.scaled_dot_product_attention(some, key_BHLK, value_BHLK, attn_mask=bias, dropout_p=dropout))
        if len(pieces) == 1:
            return pieces[0]
        return torch.cat([piece.transpose(1, 2) for piece in pieces], dim=1).transpose(1, 2)
