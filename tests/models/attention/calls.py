"""Attention in one call, for tests: join who sees whom with one batch, and compute by the path that is asked for."""

from __future__ import annotations

from torch import Tensor

from longstrand.models.attention.inputs import AttentionInputs
from longstrand.models.attention.layer import compute_attention
from longstrand.models.attention.mask import AttentionMask, join_bias, join_masks, prepare
from longstrand.models.attention.patterns import FULL, Pattern


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    pattern: Pattern = FULL,
    attention_mask: Tensor | None = None,
    documents: Tensor | None = None,
    bias: Tensor | None = None,
    need_weights: bool = False,
    path: str = "auto",
) -> tuple[Tensor, Tensor | None]:
    padding = None if attention_mask is None else attention_mask.bool()[:, None, None, :]
    inputs = AttentionInputs(query.shape[2], query.device, query.dtype, padding, documents)
    mask = prepare(pattern, inputs, path="dense" if need_weights or bias is not None else path)
    if bias is not None:
        floats = [one for one in (mask.bias, bias) if one is not None and one.dtype.is_floating_point]
        joined = join_bias(join_masks(mask.bias, bias), sum(floats) if floats else None, query.dtype)
        mask = AttentionMask(joined, drops=mask.drops)
    return compute_attention(query, key, value, mask, need_weights=need_weights)
