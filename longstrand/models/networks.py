"""The encoder joined to one head, in plain PyTorch: masked LM, sequence, token.

`longstrand.models.pretrained` makes transformers models of them; these alone are enough to predict, and import in half
the time. Legend: B batch, L tokens, D hidden size, V vocabulary, C outputs, N labelled positions.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput, TokenClassifierOutput
from transformers.utils import ModelOutput

from longstrand.errors import ConfigError
from longstrand.models.config import Head, LongstrandConfig
from longstrand.models.encoder import Encoder
from longstrand.models.heads import MISSING, MaskedLMHead, OutputHead, divisor, head_loss, pool
from longstrand.models.precision import without_emulation


@dataclass
class MaskedLMOutput(ModelOutput):
    """Result of `MaskedLM`.

    Attributes:
        loss: scalar, or None without labels.
        logits: (B, L, V) without labels; None with labels.
        label_logits: (N, V) at the labelled positions in reading order, with labels.
        loss_sum: sum of the losses of the N positions, float32.
        num_labels: N.
        hidden_states: as in the encoder.
        attentions: as in the encoder.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    label_logits: Tensor | None = None
    loss_sum: Tensor | None = None
    num_labels: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


def only_head(config: LongstrandConfig, kind: str | None) -> LongstrandConfig:
    """Copy a configuration so that it declares exactly the head of one kind (None: no head).

    Raises:
        ConfigError: it declares none, and the kind needs settings.
    """
    config = copy.deepcopy(config)
    if kind is None:
        config.heads = {}
        return config
    head = config.head(kind) or (Head(kind="masked_lm") if kind == "masked_lm" else None)
    if head is None:
        example = {kind: {"kind": kind, "problem": "single_label", "num_outputs": 2}}
        raise ConfigError(f"the configuration declares no {kind} head; add for example heads={example}.")
    config.heads = {kind: head.model_dump()}
    return config


class _WithEncoder(nn.Module):
    """An encoder and room for one head; the configuration names exactly that head."""

    head_kind: ClassVar[str]

    def __init__(self, config: LongstrandConfig | None = None) -> None:
        super().__init__()
        if config is not None:
            self.build(only_head(config, self.head_kind))

    def build(self, config: LongstrandConfig) -> None:
        """Make the encoder and the head."""
        self.config = config
        self.head_settings = Head(**config.heads[self.head_kind])
        self.encoder = Encoder(config)


class MaskedLM(_WithEncoder):
    """Encoder with a masked-LM head; with labels, logits are computed at labelled positions only."""

    head_kind: ClassVar[str] = "masked_lm"

    def build(self, config: LongstrandConfig) -> None:
        """Make the encoder and the head."""
        super().build(config)
        self.lm_head = MaskedLMHead(config)

    @without_emulation
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> MaskedLMOutput | tuple[Any, ...]:
        """Predict tokens.

        Args:
            input_ids: (B, L), as in the encoder.
            attention_mask: (B, L).
            token_type_ids: (B, L).
            position_ids: (1 or B, L).
            labels: (B, L) ids, -100 where nothing is to be predicted.
            **kwargs: ``num_items_in_batch``, and the encoder's ``inputs_embeds``, ``output_hidden_states``,
                ``output_attentions``, ``return_dict``.
        """
        num_items, as_tuple = kwargs.pop("num_items_in_batch", None), kwargs.pop("return_dict", None) is False
        encoded = self.encoder(input_ids, attention_mask, token_type_ids, position_ids, **kwargs)
        extras = {"hidden_states": encoded.hidden_states, "attentions": encoded.attentions}
        hidden = encoded.last_hidden_state
        if labels is None:
            output = MaskedLMOutput(logits=self.lm_head(hidden), **extras)
            return output.to_tuple() if as_tuple else output
        flat = labels.flatten()
        places = (flat != MISSING).nonzero().flatten()
        logits = self.lm_head(hidden.flatten(0, 1).index_select(0, places))
        loss_sum = F.cross_entropy(logits.float(), flat.index_select(0, places), reduction="sum")
        count = torch.tensor(places.numel(), device=loss_sum.device)
        loss = loss_sum / divisor(num_items, count)
        output = MaskedLMOutput(loss, None, logits, loss_sum, count, **extras)
        return output.to_tuple() if as_tuple else output


class SequenceClassification(_WithEncoder):
    """Encoder with one output vector per sequence: classes, labels or numbers."""

    head_kind: ClassVar[str] = "sequence"

    def build(self, config: LongstrandConfig) -> None:
        """Make the encoder and the head."""
        super().build(config)
        self.classifier = OutputHead(config, self.head_settings)

    @without_emulation
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput | tuple[Any, ...]:
        """Predict per sequence; logits (B, C).

        Args:
            input_ids: (B, L), as in the encoder.
            attention_mask: (B, L).
            token_type_ids: (B, L).
            position_ids: (1 or B, L).
            labels: single_label (B,) ids, -100 missing; else (B, C) (or (B,) if C is 1) numbers, NaN missing.
            **kwargs: as in `MaskedLM.forward`.
        """
        num_items, as_tuple = kwargs.pop("num_items_in_batch", None), kwargs.pop("return_dict", None) is False
        encoded = self.encoder(input_ids, attention_mask, token_type_ids, position_ids, **kwargs)
        logits = self.classifier(pool(encoded.last_hidden_state, attention_mask, self.head_settings.pooling))
        loss = None if labels is None else head_loss(logits, labels, self.head_settings, num_items)
        output = SequenceClassifierOutput(loss, logits, encoded.hidden_states, encoded.attentions)
        return output.to_tuple() if as_tuple else output


class TokenClassification(_WithEncoder):
    """Encoder with one output vector per token: classes, labels or numbers."""

    head_kind: ClassVar[str] = "token"

    def build(self, config: LongstrandConfig) -> None:
        """Make the encoder and the head."""
        super().build(config)
        self.classifier = OutputHead(config, self.head_settings)

    @without_emulation
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> TokenClassifierOutput | tuple[Any, ...]:
        """Predict per token; logits (B, L, C).

        Args:
            input_ids: (B, L), as in the encoder.
            attention_mask: (B, L).
            token_type_ids: (B, L).
            position_ids: (1 or B, L).
            labels: single_label (B, L) ids, -100 missing; else (B, L, C) (or (B, L) if C is 1), NaN missing.
            **kwargs: as in `MaskedLM.forward`.
        """
        num_items, as_tuple = kwargs.pop("num_items_in_batch", None), kwargs.pop("return_dict", None) is False
        encoded = self.encoder(input_ids, attention_mask, token_type_ids, position_ids, **kwargs)
        logits = self.classifier(encoded.last_hidden_state)
        loss = None if labels is None else head_loss(logits, labels, self.head_settings, num_items)
        output = TokenClassifierOutput(loss, logits, encoded.hidden_states, encoded.attentions)
        return output.to_tuple() if as_tuple else output


NETWORKS: dict[str, type[nn.Module]] = {
    "encoder": Encoder,
    "masked_lm": MaskedLM,
    "sequence": SequenceClassification,
    "token": TokenClassification,
}
HEAD_PREFIXES = {"masked_lm": "lm_head.", "sequence": "classifier.", "token": "classifier."}
