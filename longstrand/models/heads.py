"""Heads: masked LM, one target vector per sequence, one per token or bin; and their losses.

The kind of problem is in the configuration, never guessed. Every loss is the sum over labelled targets, in float32,
divided by ``num_items_in_batch`` (what the global batch holds) when it is given, else by the number of labelled targets
of this call. No labelled target gives a loss of 0 with zero gradients, never NaN.
Legend: B batch, L tokens, D hidden size, V vocabulary, C outputs, N labelled positions.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from longstrand.errors import InputError
from longstrand.models.config import Head, LongstrandConfig
from longstrand.models.encoder import ACTIVATIONS, layer_norm
from longstrand.runtime import IGNORED_LABEL

EPSILON = 1e-7


class MaskedLMHead(nn.Module):
    """dense -> activation -> norm -> decoder (usually tied to the word embedding) + bias."""

    def __init__(self, config: LongstrandConfig) -> None:
        super().__init__()
        self.config = config
        self.dense = nn.Linear(config.hidden_size, config.hidden_size, bias=config.biases.lm_dense)
        self.activation = ACTIVATIONS[config.lm_activation or config.activation]
        self.norm = layer_norm(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """Score the vocabulary; (..., D) -> (..., V)."""
        logits = self.decoder(self.norm(self.activation(self.dense(hidden))))
        if "double_decoder_bias" in self.config.quirks:
            logits = logits + self.decoder.bias
        return logits


class OutputHead(nn.Module):
    """What the form says (see `longstrand.models.config.Head`), then dropout and output, on any (..., D) vectors."""

    def __init__(self, config: LongstrandConfig, head: Head) -> None:
        super().__init__()
        size, normed = config.hidden_size, head.form == "normed"
        bias = config.biases.lm_dense if normed else True
        self.pooler = nn.Linear(size, size, bias=bias) if head.form != "linear" else None
        name = (config.lm_activation if normed else None) or config.activation
        self.activation = torch.tanh if head.form == "pooler" else ACTIVATIONS[name]
        self.norm = layer_norm(config) if normed else nn.Identity()
        self.early_dropout = nn.Dropout(config.hidden_dropout) if head.form == "dense" else nn.Identity()
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.output = nn.Linear(size, head.num_outputs or 1)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (..., D) to (..., C)."""
        if self.pooler is not None:
            hidden = self.norm(self.activation(self.pooler(self.early_dropout(hidden))))
        return self.output(self.dropout(hidden))


def pool(hidden: Tensor, attention_mask: Tensor | None, pooling: str) -> Tensor:
    """Make one vector of a sequence; hidden (B, L, D) -> (B, D).

    ``cls`` is the first token; the others run over the tokens with mask 1 (see `content_mask`), so padding never
    counts. A row without any is pooled over all of its positions.
    """
    if pooling == "cls":
        return hidden[:, 0]
    if attention_mask is None:
        return hidden.amax(1) if pooling == "max" else hidden.mean(1)
    real = attention_mask.bool()
    real = (real | ~real.any(-1, keepdim=True))[..., None]
    if pooling == "max":
        return hidden.masked_fill(~real, torch.finfo(hidden.dtype).min).amax(1)
    return (hidden * real).sum(1) / real.sum(1)


def content_mask(mask: Tensor | None, input_ids: Tensor | None, head: Head) -> Tensor | None:
    """Find the tokens that the head pools over: with ``mean`` and ``max``, real ones that are DNA.

    Args:
        mask: (B, L), 1 = real token; None = all are.
        input_ids: (B, L).
        head: its pooling and special ids.

    Returns:
        (B, L) bool, or ``mask``. A row of special tokens alone keeps them.

    Raises:
        InputError: vectors are given without ids, so that special tokens cannot be told.
    """
    if head.pooling not in ("mean", "max") or not head.special_token_ids:
        return mask
    if input_ids is None:
        raise InputError(
            f"pooling {head.pooling} leaves special tokens out, and inputs_embeds does not say which they are; give "
            "input_ids beside inputs_embeds."
        )
    special = torch.isin(input_ids, torch.tensor(head.special_token_ids, device=input_ids.device))
    real = torch.ones_like(special) if mask is None else mask.bool()
    content = real & ~special
    return torch.where(content.any(-1, keepdim=True), content, real)


def divisor(num_items: Tensor | int | None, count: Tensor) -> Tensor:
    """Give what a sum of losses is divided by: the global number of targets if known, else this call's; at least 1."""
    items = count if num_items is None else torch.as_tensor(num_items, device=count.device)
    return items.clamp(min=1)


def labelled(labels: Tensor) -> Tensor:
    """Say which targets count: integers other than -100, numbers other than NaN. Same shape, bool."""
    return ~labels.isnan() if labels.is_floating_point() else labels != IGNORED_LABEL


def head_loss(
    logits: Tensor, labels: Tensor, head: Head, num_items: Tensor | int | None = None, *, weights: Tensor | None = None
) -> Tensor:
    """Compute the loss of a sequence, token or bin head.

    single_label: cross-entropy, each target times its class weight. multi_label: binary cross-entropy per label, with
    pos_weight on positives. regression: squared error. counts: Poisson loss of softplus(logits), without the term that
    does not depend on the model; with ``total_weight`` split into where (multinomial along the bins of a row) and how
    much (so much of the Poisson loss of the sum), as in Borzoi (Linder et al. 2025, Methods). The divisor counts
    targets (cells), not weights.

    Args:
        logits: (..., C).
        labels: (...) ids for single_label, else (..., C); (...) too if C is 1.
        head: its settings.
        num_items: targets of the global batch, or None.
        weights: (...) factor of each target, or None.

    Raises:
        ValueError: shape or type of the labels does not fit the problem.
    """
    logits = logits.float()
    if head.problem == "single_label":
        if labels.is_floating_point():
            raise ValueError("labels of a single_label head are class numbers, got floating-point labels")
        _check_shape(labels, logits.shape[:-1])
        weight = None if head.class_weights is None else torch.tensor(head.class_weights, device=logits.device)
        reduction = "sum" if weights is None else "none"
        loss = F.cross_entropy(
            logits.flatten(0, -2), labels.flatten().long(), weight, ignore_index=IGNORED_LABEL, reduction=reduction
        )
        loss = loss if weights is None else (loss * weights.flatten()).sum()
        return loss / divisor(num_items, labelled(labels).sum())
    if labels.shape == logits.shape[:-1] and logits.shape[-1] == 1:
        labels = labels[..., None]
    _check_shape(labels, logits.shape)
    known = labelled(labels)
    targets = torch.where(known, labels, 0).float()
    if head.problem == "multi_label":
        weight = None if head.pos_weight is None else torch.tensor(head.pos_weight, device=logits.device)
        losses = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weight, reduction="none")
    elif head.total_weight is not None:
        return _profile_loss(logits, targets, known, head.total_weight, weights) / divisor(num_items, known.sum())
    elif head.problem == "counts":
        losses = F.poisson_nll_loss(F.softplus(logits), targets, log_input=False, reduction="none")
    else:
        losses = (logits - targets).square()
    losses = torch.where(known, losses, 0.0)
    losses = losses if weights is None else losses * weights[..., None]
    return losses.sum() / divisor(num_items, known.sum())


def _profile_loss(logits: Tensor, targets: Tensor, known: Tensor, share: float, weights: Tensor | None) -> Tensor:
    """Sum the multinomial losses along bins, and a share of the Poisson losses of totals; (B, N, C) each."""
    rates = torch.where(known, F.softplus(logits) + EPSILON, 0.0)
    total, wanted = rates.sum(-2), targets.sum(-2)
    where = torch.where(
        known, targets * (rates.clamp(min=EPSILON).log() - total[..., None, :].clamp(min=EPSILON).log()), 0
    )
    where = where if weights is None else where * weights[..., None]
    much = total - wanted * total.clamp(min=EPSILON).log()
    much = much if weights is None else much * weights.mean(-1, keepdim=True)
    return share * much.sum() - where.sum()


def _check_shape(labels: Tensor, shape: Any) -> None:
    if tuple(labels.shape) != tuple(shape):
        raise ValueError(f"labels have the shape {tuple(labels.shape)}, but the head predicts {tuple(shape)}")


def unpack(states: Tensor, document_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Give each document its own row, in reading order; padding (negative numbers) is dropped.

    Args:
        states: (B, L, D): rows, tokens, features.
        document_ids: (B, L) int64 number of each token's document, each in one piece.

    Returns:
        (N, M, D): documents, tokens of the longest, features; zero behind the end of a document. And the mask of real
        tokens (N, M), int64.
    """
    rows = torch.arange(document_ids.shape[0], device=document_ids.device)[:, None].expand_as(document_ids)
    places = torch.stack((rows, document_ids), -1).flatten(0, 1)
    found, counts = torch.unique_consecutive(places, dim=0, return_counts=True)
    pieces = states.flatten(0, 1).split(counts.tolist())
    real = found[:, 1] >= 0
    unpacked = pad_sequence([piece for piece, is_real in zip(pieces, real.tolist()) if is_real], batch_first=True)
    steps = torch.arange(unpacked.shape[1], device=states.device)
    return unpacked, (steps < counts[real][:, None]).long()
