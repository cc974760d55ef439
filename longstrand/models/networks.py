"""The encoder joined to one head, in plain PyTorch: masked LM, sequence, token, bin.

`longstrand.models.pretrained` makes transformers models of them; these alone are enough to predict, and import in half
the time. Legend: B batch, L tokens, D hidden size, V vocabulary, C outputs, N labelled positions.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput, TokenClassifierOutput
from transformers.utils.generic import ModelOutput

from longstrand.errors import ConfigError, InputError
from longstrand.models.config import Head, LongstrandConfig
from longstrand.models.encoder import Encoder, refuse_unknown
from longstrand.models.heads import MaskedLMHead, OutputHead, content_mask, divisor, head_loss, labelled, pool, unpack
from longstrand.models.memory.losses import all_segments_loss, counted_labels, pooled_mask, step_weights
from longstrand.models.memory.recurrence import RecurrentOutput
from longstrand.models.memory.streaming import RunningPool, SegmentOutput
from longstrand.models.network import Network
from longstrand.models.precision import without_emulation
from longstrand.runtime import IGNORED_LABEL


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
        config.heads = {}  # type: ignore[misc]
        return config
    head = config.head(kind) or (Head(kind="masked_lm") if kind == "masked_lm" else None)
    if head is None:
        example = {kind: {"kind": kind, "problem": "single_label", "num_outputs": 2}}
        raise ConfigError(f"the configuration declares no {kind} head; add for example heads={example}.")
    config.heads = {kind: head}  # type: ignore[misc]
    return config


class _WithEncoder(Network):
    """An encoder and one head; the configuration names exactly that head."""

    def __init__(self, config: LongstrandConfig | None = None) -> None:
        super().__init__()
        if config is not None:
            self.build(only_head(config, self.kind))

    def build(self, config: LongstrandConfig) -> None:
        """Make the encoder and the head."""
        self.config = config
        self.head_settings: Head = config.heads[self.kind]
        self.encoder = self.make_encoder(config)
        if self.kind == "masked_lm":
            self.lm_head = MaskedLMHead(config)
        else:
            self.classifier = OutputHead(config, self.head_settings)

    def make_encoder(self, config: LongstrandConfig) -> Encoder:
        """Make the encoder."""
        return Encoder(config)

    @without_emulation
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        bins_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> ModelOutput | tuple[Any, ...]:
        """Predict what the class says.

        Args:
            input_ids: (B, L), as in the encoder.
            attention_mask: (B, L).
            token_type_ids: (B, L).
            position_ids: (1 or B, L).
            labels: as the class says.
            bins_mask: (B, L) bool, tokens at which bins are read (bin heads only); None = all real ``bin_token_id``.
            **kwargs: ``num_items_in_batch``, and the encoder's ``inputs_embeds``, ``document_ids``,
                ``output_hidden_states``, ``output_attentions``, ``return_dict``.
        """
        if bins_mask is not None and self.kind != "bin":
            refuse_unknown({"bins_mask": bins_mask})
        num_items, as_tuple = kwargs.pop("num_items_in_batch", None), kwargs.pop("return_dict", None) is False
        few = self.few_tokens(labels, kwargs)
        rows = {} if few is None else {"rows": few[0]}
        encoded = self.encoder(input_ids, attention_mask, token_type_ids, position_ids, **rows, **kwargs)
        given = _Given(input_ids, attention_mask, kwargs.get("document_ids"), bins_mask, labels, num_items, few)
        output = self.answer(encoded, given)
        for name in ("hidden_states", "attentions"):  # a key without a value would be an entry of the tuple
            if (value := getattr(encoded, name)) is not None:
                output[name] = value
        return output.to_tuple() if as_tuple else output

    def few_tokens(self, labels: Tensor | None, options: Mapping[str, Any]) -> tuple[Tensor, Tensor] | None:
        """Find the tokens that the last layer is worked out for: places (B, R), and which are there; None: all."""
        return None

    def answer(self, encoded: BaseModelOutput, given: _Given) -> ModelOutput:
        """Apply the head to what the encoder made of the inputs, and compute the loss if there are labels."""
        raise NotImplementedError

    def stream(self, segments: Iterable[Tensor | Mapping[str, Tensor]], **options: Any) -> Iterator[SegmentOutput]:
        """Encode segments as they come and apply the head; see `longstrand.models.memory.streaming.stream`.

        ``logits`` are (B, n, C) per token (at padding they mean nothing), and for a sequence head (B, C) of all
        segments so far: after the last, those of the whole rows.

        Raises:
            InputError: the memory is bidirectional or has context segments.
        """
        memory = self.config.memory
        if memory is not None and (memory.direction == "bidirectional" or memory.context.left or memory.context.right):
            raise InputError(
                "a model with bidirectional memory or context segments needs whole rows: what it says about a segment "
                "depends on later ones; call the model itself, or encoder.stream for the states of one pass."
            )
        pooled = RunningPool(self.head_settings) if self.kind == "sequence" else None
        head = self.lm_head if self.kind == "masked_lm" else self.classifier

        @torch.no_grad()
        def answered(output: SegmentOutput) -> SegmentOutput:
            return replace(output, logits=head(output.last_hidden_state if pooled is None else pooled.add(output)))

        return map(answered, self.encoder.stream(segments, **options))

    def token_weights(self, encoded: BaseModelOutput, known: Tensor) -> Tensor | None:
        """Give the weight of each labelled token (B, L) where published code weighs them; see `segment_losses`."""
        if not isinstance(encoded, RecurrentOutput):
            return None
        assert encoded.segment_ids is not None and encoded.num_segments is not None
        return step_weights(encoded.segment_ids.cummax(1).values, encoded.num_segments, known, self.config)


class _Given(NamedTuple):
    """What a model was given beside the encoder's own inputs."""

    input_ids: Tensor | None
    attention_mask: Tensor | None
    document_ids: Tensor | None
    bins_mask: Tensor | None
    labels: Tensor | None
    num_items: Tensor | int | None
    few: tuple[Tensor, Tensor] | None


def _states(encoded: BaseModelOutput) -> Tensor:
    assert encoded.last_hidden_state is not None
    return encoded.last_hidden_state


class MaskedLM(_WithEncoder):
    """Encoder with a masked-LM head; with labels, last layer and logits are computed at labelled positions only.

    Labels are (B, L) ids, -100 where nothing is to be predicted.
    """

    kind: ClassVar[str] = "masked_lm"

    def few_tokens(self, labels: Tensor | None, options: Mapping[str, Any]) -> tuple[Tensor, Tensor] | None:
        """Find the labelled tokens, where they are at most half of the longest row and nothing else is asked for."""
        more = ("output_hidden_states", "output_attentions")
        if labels is None or self.config.memory is not None or torch.compiler.is_compiling():
            return None
        if any(options.get(name) or getattr(self.config, name) for name in more):
            return None
        places, present = bin_places(labels != IGNORED_LABEL)
        return (places, present) if 0 < 2 * places.shape[1] <= labels.shape[1] else None

    def answer(self, encoded: BaseModelOutput, given: _Given) -> MaskedLMOutput:
        """Predict tokens."""
        hidden = _states(encoded)
        if given.labels is None:
            return MaskedLMOutput(logits=self.lm_head(hidden))
        labels = counted_labels(given.labels, given.input_ids, self.config, getattr(encoded, "counted", None))
        flat = labels.flatten()
        places = (flat != IGNORED_LABEL).nonzero().flatten()
        chosen = hidden[given.few[1]] if given.few else hidden.flatten(0, 1).index_select(0, places)
        logits = self.lm_head(chosen)
        losses = partial(F.cross_entropy, logits.float(), flat.index_select(0, places))
        loss_sum = losses(reduction="sum")
        count = torch.tensor(places.numel(), device=loss_sum.device)
        weights = self.token_weights(encoded, labels != IGNORED_LABEL)
        if weights is None:
            loss = loss_sum / divisor(given.num_items, count)
        else:
            loss = (losses(reduction="none") * weights.flatten().index_select(0, places)).sum()
        return MaskedLMOutput(loss, None, logits, loss_sum, count)


class SequenceClassification(_WithEncoder):
    """Encoder with one output vector per sequence: classes, labels or numbers.

    Logits are (B, C), or (documents, C) in reading order for a packed batch. Labels: single_label (B,) ids, -100
    missing; else (B, C) (or (B,) if C is 1) numbers, NaN missing.
    """

    kind: ClassVar[str] = "sequence"

    def answer(self, encoded: BaseModelOutput, given: _Given) -> SequenceClassifierOutput:
        """Predict per sequence."""
        head, mask, hidden = self.head_settings, pooled_mask(given.attention_mask, encoded), _states(encoded)
        input_ids, labels = given.input_ids, given.labels
        if (documents := given.document_ids) is not None:
            documents = documents if mask is None else documents.masked_fill(mask == 0, -1)
            hidden, mask = unpack(hidden, documents)
            input_ids = None if input_ids is None else unpack(input_ids[..., None], documents)[0][..., 0]
        mask = content_mask(mask, input_ids, head)
        logits, loss = self.classifier(pool(hidden, mask, head.pooling)), None
        if labels is not None and isinstance(encoded, RecurrentOutput) and self.config.recurrence.loss == "all":
            loss = all_segments_loss(
                self.classifier, encoded, labels, head, config=self.config, num_items=given.num_items, content=mask
            )
        elif labels is not None:
            loss = head_loss(logits, labels, head, given.num_items)
        return SequenceClassifierOutput(loss, logits)


class TokenClassification(_WithEncoder):
    """Encoder with one output vector per token: classes, labels or numbers; logits (B, L, C).

    Labels: single_label (B, L) ids, -100 missing; else (B, L, C) (or (B, L) if C is 1), NaN missing.
    """

    kind: ClassVar[str] = "token"

    def answer(self, encoded: BaseModelOutput, given: _Given) -> TokenClassifierOutput:
        """Predict per token."""
        logits, loss = self.classifier(_states(encoded)), None
        if given.labels is not None:
            labels = counted_labels(given.labels, given.input_ids, self.config, getattr(encoded, "counted", None))
            known = labelled(labels) if labels.dim() == 2 else labelled(labels).any(-1)
            weights = self.token_weights(encoded, known)
            items = given.num_items if weights is None else 1
            loss = head_loss(logits, labels, self.head_settings, items, weights=weights)
        return TokenClassifierOutput(loss, logits)


class BinRegression(_WithEncoder):
    """Encoder with one output vector per bin, read at the token that ends the bin ([SEP]).

    Enformer's form in GENA-LM: ``[CLS] bin [SEP] bin [SEP] ...``, bins tokenized apart. Logits are (B, N, C), N bins of
    the longest row, NaN past the last bin of a row. Labels: (B, N, C) (or (B, N) if C is 1) numbers, NaN missing;
    single_label (B, N) ids.
    """

    kind: ClassVar[str] = "bin"

    def answer(self, encoded: BaseModelOutput, given: _Given) -> TokenClassifierOutput:
        """Predict per bin."""
        bins_mask = given.bins_mask
        if bins_mask is None:
            if given.input_ids is None:
                raise ValueError("a bin head needs input_ids or bins_mask to find its bins")
            assert self.head_settings.bin_token_id is not None
            bins_mask = given.input_ids.eq(self.head_settings.bin_token_id)
            bins_mask = bins_mask if given.attention_mask is None else bins_mask & given.attention_mask.bool()
        places, present = bin_places(bins_mask)
        row = torch.arange(len(places), device=places.device)[:, None]
        logits, loss = self.classifier(_states(encoded)[row, places]), None
        if given.labels is not None:
            loss = self._loss(encoded, logits, given.labels, (row, places, present), given.num_items)
        return TokenClassifierOutput(loss, logits.masked_fill(~present[..., None], torch.nan))

    def _loss(
        self,
        encoded: BaseModelOutput,
        logits: Tensor,
        labels: Tensor,
        bins: tuple[Tensor, Tensor, Tensor],
        num_items: Tensor | int | None,
    ) -> Tensor:
        row, places, present = bins
        if labels.shape[:2] != present.shape:
            raise ValueError(
                f"labels are for {tuple(labels.shape[:2])} rows and bins, the input has {tuple(present.shape)}"
            )
        counted = getattr(encoded, "counted", None)
        present = present if counted is None else present & counted[row, places]
        filler = torch.nan if labels.is_floating_point() else IGNORED_LABEL
        labels = labels.masked_fill(~(present if labels.dim() == 2 else present[..., None]), filler)
        known, weights = labelled(labels) if labels.dim() == 2 else labelled(labels).any(-1), None
        if isinstance(encoded, RecurrentOutput):
            assert encoded.segment_ids is not None and encoded.num_segments is not None
            numbers = encoded.segment_ids[row, places]
            weights = step_weights(numbers, encoded.num_segments, known, self.config)
            weights = weights if weights is None or labels.dim() == 2 else weights / labels.shape[-1]
        logits = torch.where(present[..., None], logits, 0.0)
        items = num_items if weights is None else 1
        return head_loss(logits, labels, self.head_settings, items, weights=weights)


def bin_places(bins_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Find the bins of each row; mask (B, L) bool -> places (B, N), 0 past the last bin, and which are there (B, N)."""
    counts = bins_mask.sum(1)
    number = int(counts.max())
    present = torch.arange(number, device=bins_mask.device) < counts[:, None]
    order = torch.argsort(~bins_mask, dim=1, stable=True)[:, :number]
    return torch.where(present, order, 0), present


NETWORKS: dict[str, type[Network]] = {
    network.kind: network for network in (Encoder, MaskedLM, SequenceClassification, TokenClassification, BinRegression)
}
HEAD_PREFIXES = {kind: "lm_head." if kind == "masked_lm" else "classifier." for kind in NETWORKS if kind != "encoder"}
