"""Measure a masked language model on DNA it has never seen, as sums and counts.

The loss is the mean over all masked tokens of all windows (not a mean of batch means). Bits per base divide the
information by the bases that the masked tokens spell. They are *not* independent of the tokenizer (segmentation leaks
which tokens can stand between two others): read them beside the references of `longstrand.data.ngram_reference`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from longstrand.models.memory.losses import counted_batch

Collate = Callable[[Sequence[Any]], dict[str, torch.Tensor]]


def hold_out_evaluation(
    examples: Any, collate: Collate, *, bases_per_id: np.ndarray, batch_size: int, device: torch.device
) -> Callable[[nn.Module], dict[str, float]]:
    """Make the function that evaluates a model on fixed masked examples.

    Args:
        examples: masked examples, the same windows and masks at every call.
        collate: turns a list of examples into a batch.
        bases_per_id: bases that each token spells, shape (vocabulary,).
        batch_size: windows in a batch; does not change the result.
        device: where the model is.

    Returns:
        A function of the model giving ``loss`` (nats/token), ``accuracy`` (0 to 1), ``perplexity``, ``bits_per_base``.
    """
    bases = torch.as_tensor(bases_per_id, dtype=torch.long)

    def evaluate(model: nn.Module) -> dict[str, float]:
        loss, correct, tokens, spelled = 0.0, 0, 0, 0
        for batch in DataLoader(examples, batch_size=batch_size, collate_fn=collate):
            batch.pop("num_bases", None)
            batch = counted_batch(batch, model.config)
            labels = batch["labels"][batch["labels"] != -100]
            output = model(**{name: value.to(device) for name, value in batch.items()})
            loss += float(output.loss_sum)
            correct += int((output.label_logits.argmax(-1).cpu() == labels).sum())
            tokens += len(labels)
            spelled += int(bases[labels].sum())
        return summarise(loss, correct=correct, tokens=tokens, bases=spelled)

    return evaluate


def summarise(loss_sum: float, *, correct: int, tokens: int, bases: int) -> dict[str, float]:
    """Turn sums over masked tokens into means; NaN where nothing was masked."""
    if tokens == 0:
        return dict.fromkeys(("loss", "accuracy", "perplexity", "bits_per_base"), math.nan)
    mean = loss_sum / tokens
    return {
        "loss": mean,
        "accuracy": correct / tokens,
        "perplexity": math.exp(min(mean, 700.0)),
        "bits_per_base": loss_sum / math.log(2) / max(bases, 1),
    }
