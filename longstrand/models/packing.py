"""Packed batches taken apart: documents one after the other back to one row each.

Legend: B rows, L tokens, D features, N documents, M tokens of the longest document.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def unpack(states: Tensor, document_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Give each document its own row, in reading order; padding (negative numbers) is dropped.

    Args:
        states: (B, L, D).
        document_ids: (B, L) int64 number of each token's document, each in one piece.

    Returns:
        (N, M, D), zero behind the end of a document, and the mask of real tokens (N, M), int64.
    """
    rows = torch.arange(document_ids.shape[0], device=document_ids.device)[:, None].expand_as(document_ids)
    places = torch.stack((rows, document_ids), -1).flatten(0, 1)
    found, counts = torch.unique_consecutive(places, dim=0, return_counts=True)
    pieces = states.flatten(0, 1).split(counts.tolist())
    real = found[:, 1] >= 0
    unpacked = pad_sequence([piece for piece, is_real in zip(pieces, real.tolist()) if is_real], batch_first=True)
    steps = torch.arange(unpacked.shape[1], device=states.device)
    return unpacked, (steps < counts[real][:, None]).long()
