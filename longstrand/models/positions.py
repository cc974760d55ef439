"""Where a token is: rotary angles and ALiBi distances, always recomputed from the configuration.

Nothing here is a buffer: buffers that are not in the weights come back as garbage from ``from_pretrained``.
Legend: B batch, H heads, L tokens, K head size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from longstrand.models.config import LongstrandConfig


@dataclass(frozen=True)
class RotaryAngles:
    """Cosines and sines of the rotated dimensions, (1 or B, 1, L, dims), float32; sines minus in the first half."""

    cos: Tensor
    sin: Tensor

    def at(self, rows: Tensor) -> RotaryAngles:
        """Take the angles of some tokens, rows (B, R)."""
        return RotaryAngles(*(take_rows(one[:, 0], rows)[:, None] for one in (self.cos, self.sin)))

    def rotate(self, states_BHLK: Tensor) -> Tensor:
        """Rotate the leading ``dims`` of each head, in float32; the rest passes through. Same shape and dtype."""
        dims = self.cos.shape[-1]
        turned = states_BHLK[..., :dims].float()
        turned = torch.addcmul(turned * self.cos, turned.roll(dims // 2, -1), self.sin).to(states_BHLK.dtype)
        return turned if dims == states_BHLK.shape[-1] else torch.cat((turned, states_BHLK[..., dims:]), dim=-1)


def rotary_frequencies(config: LongstrandConfig, device: torch.device | None = None, *, local: bool = False) -> Tensor:
    """Compute theta^(-2j / dims) for the pairs j of rotated dimensions, (dims / 2,), float32.

    ``local`` takes the base of sliding-window layers, where the configuration has one.
    """
    theta = (config.rotary.local_theta if local else None) or config.rotary.theta
    dims = config.rotary.dims or config.hidden_size // config.num_attention_heads
    exponents = torch.arange(0, dims, 2, device=device, dtype=torch.float32) / dims
    return 1.0 / (theta**exponents)


def rotary_angles(config: LongstrandConfig, position_ids: Tensor, *, local: bool = False) -> RotaryAngles:
    """Compute the angles of positions (1 or B, L), GPT-NeoX convention (concatenated halves)."""
    angles = position_ids[:, None, :, None].float() * rotary_frequencies(config, position_ids.device, local=local)
    return RotaryAngles(torch.cat((angles, angles), dim=-1).cos(), torch.cat((-angles, angles), dim=-1).sin())


def take_rows(states: Tensor, rows: Tensor) -> Tensor:
    """Take the tokens ``rows`` (B, R) of (1 or B, L, ...) states: (B, R, ...)."""
    batch = torch.arange(len(rows), device=rows.device)[:, None]
    return states[batch if len(states) > 1 else 0, rows]


def alibi_slopes(num_heads: int) -> list[float]:
    """Give the slope of each head (Press et al. 2022, section 3 and their code for other than powers of two).

    For a power of two n: 2^(-8(i+1)/n). Otherwise those of the power of two m below, then every second one of 2m.
    """
    below = 2 ** math.floor(math.log2(num_heads))
    slopes = [2.0 ** (-8.0 * (i + 1) / below) for i in range(below)]
    if below < num_heads:
        slopes += alibi_slopes(2 * below)[0::2][: num_heads - below]
    return slopes


def position_distances(position_ids: Tensor) -> Tensor:
    """Compute |i - j| for positions (1 or B, L); returns (1 or B, L, L), float32."""
    return (position_ids[:, :, None] - position_ids[:, None, :]).abs().float()


def alibi_bias(num_heads: int, position_ids: Tensor) -> Tensor:
    """Compute -slope * |i - j| for positions (1 or B, L); returns (1 or B, H, L, L), float32."""
    slopes = torch.tensor(alibi_slopes(num_heads), device=position_ids.device)
    return -slopes[None, :, None, None] * position_distances(position_ids)[:, None]
