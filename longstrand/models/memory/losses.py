"""Losses where rows are read in segments: which labels count, and how much each does.

Legend: B rows, L tokens, S segments of the longest row, D hidden size, C outputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from longstrand.models.config import Head, LongstrandConfig
from longstrand.models.heads import head_loss, labelled, pool
from longstrand.models.memory.recurrence import RecurrentOutput, counted_mask
from longstrand.runtime import IGNORED_LABEL


def counted_labels(labels: Tensor, ids: Tensor | None, config: LongstrandConfig, counted: Tensor | None) -> Tensor:
    """Set labels (B, L) or (B, L, C) to missing at tokens that do not count.

    These are those of memory's ``context`` and ``loss``, and the row's [CLS] and [SEP], which stand in no segment of
    their own; the published codes drop their labels, too.

    Args:
        labels: of the tokens.
        ids: (B, L) tokens; None where the model has no special ones.
        config: of the model.
        counted: (B, L) bool, what the encoder says about context and segments; None = all count.
    """
    memory = config.memory
    if memory is None or ids is None:
        return labels
    specials = (memory.cls_token_id, None if memory.bins_per_segment else memory.sep_token_id)
    content = torch.ones_like(ids, dtype=torch.bool) if counted is None else counted
    for special in specials if memory.form == "cls_mem_sep" else ():
        content = content if special is None else content & (ids != special)
    filler = torch.nan if labels.is_floating_point() else IGNORED_LABEL
    return labels.masked_fill(~(content if labels.dim() == 2 else content[..., None]), filler)


def counted_batch(batch: dict[str, Any], config: Any) -> dict[str, Any]:
    """Set the labels of a batch to missing where the model does not count them, without running it.

    Args:
        batch: with ``input_ids``; labels of other shapes than (B, L) or (B, L, C) come back as they are.
        config: of the model.
    """
    labels, ids = batch.get("labels"), batch.get("input_ids")
    of_rows = any(head.kind in ("sequence", "bin") for head in config.heads.values())
    if config.memory is None or labels is None or ids is None or of_rows or labels.shape[:2] != ids.shape:
        return batch
    counted = counted_mask(config, ids, batch.get("attention_mask"))
    return {**batch, "labels": counted_labels(labels, ids, config, counted)}


def pooled_mask(attention_mask: Tensor | None, encoded: Any) -> Tensor | None:
    """Give the tokens (B, L) that pooling runs over: real ones, without context."""
    counted = getattr(encoded, "counted", None)
    return attention_mask if counted is None else counted.long()


def step_weights(segments: Tensor, num_segments: Tensor, known: Tensor, config: LongstrandConfig) -> Tensor | None:
    """Weigh targets so that every step counts the same, with the quirk ``mean_of_step_losses``; else None.

    A step is what the published codes read at once: the segments that are equally far from the end of their rows.

    Args:
        segments: (B, ...) number of the segment of each target.
        num_segments: (B,).
        known: (B, ...) bool, targets that are labelled.
        config: of the model.
    """
    if "mean_of_step_losses" not in config.quirks:
        return None
    from_end = num_segments.view(-1, *(1,) * (segments.dim() - 1)) - 1 - segments
    number = int(num_segments.max())
    counts = torch.bincount(from_end[known], minlength=number).clamp(min=1)
    return torch.where(known, 1.0 / (number * counts[from_end.clamp(0, number - 1)]), 0.0)


def segment_vectors(encoded: RecurrentOutput, pooling: str, content: Tensor | None = None) -> Tensor:
    """Make one vector of each segment, (B, S, D): its [CLS], or the mean or maximum of its content tokens.

    ``content`` (B, L) says which tokens are pooled over, None = all of the segment.
    """
    if pooling == "cls":
        assert encoded.segment_states is not None
        return encoded.segment_states
    assert encoded.segment_ids is not None and encoded.num_segments is not None
    hidden, ids = encoded.last_hidden_state, encoded.segment_ids
    assert hidden is not None
    parts = []
    for segment in range(int(encoded.num_segments.max())):
        inside = ids == segment
        pooled = inside if content is None else inside & content.bool()
        pooled = torch.where(pooled.any(-1, keepdim=True), pooled, inside)
        parts.append(pool(hidden, pooled, pooling))
    return torch.stack(parts, dim=1)


def all_segments_loss(
    classifier: Any,
    encoded: RecurrentOutput,
    labels: Tensor,
    head: Head,
    *,
    config: LongstrandConfig,
    num_items: Any,
    content: Tensor | None = None,
) -> Tensor:
    """Compute the loss of a sequence head on every segment of a row against the row's label.

    The segments of a row share its weight, so the loss is a mean over rows and does not depend on how many segments
    others have; with the quirk ``mean_of_step_losses``, over steps. Context segments do not count.

    Args:
        classifier: (..., D) -> (..., C).
        encoded: what the encoder said.
        labels: (B,) or (B, C).
        head: settings of the head.
        config: of the model.
        num_items: targets of the global batch, or None.
        content: (B, L) tokens that are pooled over, or None.
    """
    assert encoded.num_segments is not None
    logits = classifier(segment_vectors(encoded, head.pooling, content))
    number, context = logits.shape[1], config.recurrence.context
    places = torch.arange(number, device=logits.device).expand(len(logits), number)
    totals = encoded.num_segments[:, None]
    left = torch.clamp(totals - 1, max=context.left)
    right = torch.minimum(torch.full_like(totals, context.right), totals - 1 - left)
    counts = (places >= left) & (places < totals - right)
    spread = labels[:, None].expand(-1, number, *labels.shape[1:])
    filler = torch.nan if labels.is_floating_point() else IGNORED_LABEL
    mine = counts if spread.dim() == 2 else counts[..., None]
    spread = spread.masked_fill(~mine, filler)
    known = labelled(spread) if spread.dim() == 2 else labelled(spread).any(-1)
    weights = step_weights(places, encoded.num_segments, known, config)
    if weights is not None:
        return head_loss(logits, spread, head, 1, weights=weights)
    items = labelled(labels).sum() if num_items is None else num_items
    return head_loss(logits, spread, head, items, weights=1.0 / counts.sum(1, keepdim=True).expand_as(places))
