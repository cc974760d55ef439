"""Heads over a stream of segments: per token as they come, per sequence for all segments so far.

Legend: B rows, n tokens of a segment, D hidden size, C outputs, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from longstrand.models.recurrence import SegmentOutput


def stream_token(network: Any, outputs: Iterator[SegmentOutput]) -> Iterator[SegmentOutput]:
    """Add the logits (B, n, C) of a token or bin head; at padding they mean nothing."""
    for output in outputs:
        with torch.no_grad():
            yield replace(output, logits=network.classifier(output.last_hidden_state))


def stream_masked_lm(network: Any, outputs: Iterator[SegmentOutput]) -> Iterator[SegmentOutput]:
    """Add the logits (B, n, V) of the masked-LM head."""
    for output in outputs:
        with torch.no_grad():
            yield replace(output, logits=network.lm_head(output.last_hidden_state))


def stream_sequence(network: Any, outputs: Iterator[SegmentOutput]) -> Iterator[SegmentOutput]:
    """Add the logits (B, C) of the sequence head on all segments so far: after the last, those of the whole rows."""
    pooled = _Pooled(network.head_settings.pooling)
    for output in outputs:
        with torch.no_grad():
            yield replace(output, logits=network.classifier(pooled.add(output)))


class _Pooled:
    """A running `longstrand.models.heads.pool`: [CLS] of each row's last segment, or a mean or maximum of all tokens."""

    def __init__(self, pooling: str) -> None:
        self._pooling = pooling
        self._content: Tensor | None = None
        self._count: Tensor | None = None
        self._specials: list[Tensor | None] = [None, None]

    def add(self, output: SegmentOutput) -> Tensor:
        """Take in a segment and give the vector (B, D) so far."""
        real, hidden = output.attention_mask.bool()[..., None], output.last_hidden_state
        alive = real.any(1)
        for place, state in enumerate((output.cls_state, output.sep_state)):
            before = self._specials[place]
            self._specials[place] = state if before is None or state is None else torch.where(alive, state, before)
        specials = [state for state in self._specials if state is not None]
        if self._pooling == "cls":
            return specials[0]
        if self._pooling == "max":
            new = hidden.masked_fill(~real, torch.finfo(hidden.dtype).min).amax(1)
            self._content = new if self._content is None else torch.maximum(self._content, new)
            return torch.stack((self._content, *specials)).amax(0)
        new, count = (hidden * real).sum(1), real.sum(1)
        self._content = new if self._content is None else self._content + new
        self._count = count if self._count is None else self._count + count
        return (self._content + sum(specials)) / (self._count + len(specials))
