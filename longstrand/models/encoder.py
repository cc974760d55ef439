"""The one encoder of all families: embeddings, layers, final norm.

It reads shapes and switches from the configuration, never ``family``. Legend: B batch, L tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from longstrand.errors import ConfigError, InputError, nearest
from longstrand.models.attention.layer import SelfAttention
from longstrand.models.attention.layouts import pattern_for, rows_as_documents
from longstrand.models.attention.mask import AttentionInputs, AttentionMask, padding_bias, prepare
from longstrand.models.attention.patterns import Full, SlidingWindow
from longstrand.models.config import EncoderSettings, LongstrandConfig
from longstrand.models.linear import Linear
from longstrand.models.memory.recurrence import is_recurrent, read_segments
from longstrand.models.memory.segments import InitialMemory
from longstrand.models.memory.streaming import SegmentOutput, stream
from longstrand.models.network import Network
from longstrand.models.positions import RotaryAngles, rotary_angles, take_rows
from longstrand.models.precision import without_emulation
from longstrand.models.quirks import count_positions, drop_masked_tokens, first_position, zero_padding

_MLP_TOKENS = 1024
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda hidden: F.gelu(hidden, approximate="tanh"),
    "silu": F.silu,
    "relu": F.relu,
}


def refuse_unknown(unknown: Mapping[str, Any]) -> None:
    """Refuse leftover keyword arguments of a model.

    Raises:
        ConfigError: naming each and the nearest configuration field.
    """
    if unknown:
        words = ", ".join(f"'{name}'{nearest(name, EncoderSettings.model_fields)}" for name in unknown)
        raise ConfigError(f"unknown argument {words} for a Longstrand model.")


def layer_norm(config: LongstrandConfig) -> nn.LayerNorm:
    """Make a layer norm over the hidden size, with the configured epsilon and bias."""
    return nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=config.biases.norm)


def first_attention_norm(config: LongstrandConfig) -> nn.Module:
    """Make the norm before the attention of the first layer."""
    return nn.Identity() if "no_first_attention_norm" in config.quirks else layer_norm(config)


class Embeddings(nn.Module):
    """Word + token type + learned position, then norm and dropout."""

    def __init__(self, config: LongstrandConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, size, padding_idx=config.pad_token_id)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, size) if config.type_vocab_size else None
        learned = config.positions == "learned"
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, size) if learned else None
        self.norm = layer_norm(config) if config.embedding_norm else nn.Identity()
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.drops_first = "dropout_before_embedding_norm" in config.quirks

    def forward(self, words: Tensor, token_type_ids: Tensor | None, position_ids: Tensor) -> Tensor:
        """Add up the parts; words (B, L, D), types (B, L) or None for zeros, positions (1 or B, L) -> (B, L, D)."""
        hidden = words
        if self.token_type_embeddings is not None:
            table = self.token_type_embeddings
            hidden = hidden + (table.weight[0] if token_type_ids is None else table(token_type_ids))
        if self.position_embeddings is not None:
            hidden = hidden + self.position_embeddings(position_ids)
        return self.norm(self.dropout(hidden)) if self.drops_first else self.dropout(self.norm(hidden))


class MLP(nn.Module):
    """Two projections around an activation, optionally gated: activation(gate) * up."""

    def __init__(self, config: LongstrandConfig) -> None:
        super().__init__()
        size, inner = config.hidden_size, config.intermediate_size
        self.up = Linear(size, inner, bias=config.biases.mlp_up)
        self.gate = Linear(size, inner, bias=config.biases.mlp_up) if config.gated_mlp else None
        self.down = Linear(inner, size, bias=config.biases.mlp_down)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, hidden: Tensor) -> Tensor:
        """Transform each token; (B, L, D) -> (B, L, D).

        Without gradients on a CPU, some tokens at a time: the wide states in between stay in the cache.
        """
        pieces = hidden.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
        if not pieces or hidden.numel() <= _MLP_TOKENS * hidden.shape[-1]:
            return self._transform(hidden)
        parts = [self._transform(part) for part in hidden.flatten(0, -2).split(_MLP_TOKENS)]
        return torch.cat(parts).view_as(hidden)

    def _transform(self, hidden: Tensor) -> Tensor:
        if self.gate is None:
            return self.down(self.activation(self.up(hidden)))
        return self.down(self.activation(self.gate(hidden)) * self.up(hidden))


class EncoderLayer(nn.Module):
    """Attention and MLP, each with a residual branch; norms before (pre) or after (post) the branch."""

    def __init__(self, config: LongstrandConfig, layer: int = 0) -> None:
        super().__init__()
        self.post_norm = config.norm == "post"
        self.attention_norm = first_attention_norm(config) if layer == 0 else layer_norm(config)
        self.attention = SelfAttention(config, layer)
        self.mlp_norm = layer_norm(config)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(
        self,
        hidden: Tensor,
        mask: AttentionMask,
        angles: RotaryAngles | None,
        need_weights: bool = False,
        rows: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Run one layer; hidden (B, L, D) -> the same shape, and attention probabilities if asked for.

        With ``rows`` (B, R), which see what ``mask`` says, only those tokens are worked out: (B, R, D).
        """
        shown = hidden if self.post_norm else self.attention_norm(hidden)
        mixed, weights = self.attention(shown, mask, angles, need_weights=need_weights, rows=rows)
        hidden = hidden if rows is None else take_rows(hidden, rows)
        if self.post_norm:
            hidden = self.attention_norm(hidden + self.dropout(mixed))
            return self.mlp_norm(hidden + self.dropout(self.mlp(hidden))), weights
        hidden = hidden + self.dropout(mixed)
        return hidden + self.dropout(self.mlp(self.mlp_norm(hidden))), weights


class Encoder(Network):
    """Embeddings, layers, final norm; plain PyTorch. `longstrand.models.pretrained` joins it to transformers."""

    layer_class: ClassVar[type[EncoderLayer]] = EncoderLayer

    def __init__(self, config: LongstrandConfig | None = None) -> None:
        super().__init__()
        if config is not None:
            self.build(config)

    def build(self, config: LongstrandConfig) -> None:
        """Make the layers; apart from the constructor so that transformers' base class may run before it."""
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(self.layer_class(config, layer) for layer in range(config.num_hidden_layers))
        self.final_norm = layer_norm(config) if config.norm == "pre_final" else nn.Identity()
        self.memory = InitialMemory(config) if config.memory is not None and config.memory.num_tokens else None

    @without_emulation
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        document_ids: Tensor | None = None,
        rows: Tensor | None = None,
        **unknown: Any,
    ) -> BaseModelOutput | tuple[Any, ...]:
        """Encode tokens.

        Args:
            input_ids: (B, L) ids; or give ``inputs_embeds``. With both, the vectors are used, and the ids say which
                tokens are special (quirks of ids, memory, pooling). With ``memory``, rows of any length are read in
                segments (see `longstrand.models.memory.recurrence`) and the result is a `RecurrentOutput`.
            attention_mask: (B, L), 1 = real token; None = all are real.
            token_type_ids: (B, L); None = zeros.
            position_ids: (1 or B, L); None = 0, 1, ...
            inputs_embeds: (B, L, D) word vectors; types, positions and the embedding norm are still applied.
            output_hidden_states: also return the embedding output and every layer's output, num_layers + 1 tensors.
                The last one is the result after the final norm.
            output_attentions: also return each layer's probabilities (B, heads, L, L), through the slow path.
            return_dict: False for a tuple.
            document_ids: (B, L) int64 for packed batches: a token sees its own document only, and positions (unless
                given) count from the start of each document. Documents are contiguous; padding is one, too.
            rows: (B, R) int64, tokens for which alone the last states are wanted, (B, R, D); this spares most of the
                last layer. Not with memory.
            **unknown: refused.

        Raises:
            InputError: the input is longer than the position table; or, with memory, something is asked for that
                segments do not have.
        """
        refuse_unknown(unknown)
        keep = bool(self.config.output_hidden_states if output_hidden_states is None else output_hidden_states)
        weigh = bool(self.config.output_attentions if output_attentions is None else output_attentions)
        given = input_ids if input_ids is not None else inputs_embeds
        if given is not None and is_recurrent(self.config, given.shape[1]):
            asked = {"position_ids": position_ids, "document_ids": document_ids, "output_attentions": weigh or None}
            if names := ", ".join(name for name, value in asked.items() if value is not None):
                raise InputError(
                    f"{names}: not available where memory reads rows in segments; each counts from 0 by itself."
                )
            segments = read_segments(
                self, input_ids, attention_mask, token_type_ids, inputs_embeds=inputs_embeds, keep=keep
            )
            return segments.to_tuple() if return_dict is False else segments
        states, attentions = self.encode(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds=inputs_embeds,
            document_ids=document_ids,
            keep=keep,
            weigh=weigh,
            rows=rows,
        )
        output = BaseModelOutput(
            last_hidden_state=states[-1],
            hidden_states=tuple(states) if keep else None,
            attentions=tuple(attentions) if weigh else None,
        )
        return output.to_tuple() if return_dict is False else output

    def states_at(self, rows: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Compute the last hidden states of some tokens alone, which spares most of the last layer.

        Args:
            rows: (B, R) int64.
            input_ids: (B, L).
            attention_mask: (B, L), 1 = real token; None = all are real.

        Returns:
            (B, R, D), as `forward` gives them there.
        """
        if 2 * rows.shape[1] > input_ids.shape[1] or is_recurrent(self.config, input_ids.shape[1]):
            hidden: Tensor = self(input_ids, attention_mask).last_hidden_state
            return take_rows(hidden, rows)
        found: Tensor = self(input_ids, attention_mask, rows=rows).last_hidden_state
        return found

    def stream(
        self, segments: Iterable[Tensor | Mapping[str, Tensor]], *, memory: Tensor | None = None, backward: bool = False
    ) -> Iterator[SegmentOutput]:
        """Encode segments as they come; see `longstrand.models.memory.streaming.stream`."""
        return stream(self, segments, memory=memory, backward=backward)

    def encode(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        document_ids: Tensor | None = None,
        keep: bool = False,
        weigh: bool = False,
        rows: Tensor | None = None,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Encode rows whole; the arguments of `forward`.

        Returns:
            Hidden states, (B, L, D) of every layer with ``keep``, else the last only; and attention probabilities.
            With ``rows`` (B, R), the last one is (B, R, D).
        """
        words = self._words(input_ids, inputs_embeds, attention_mask, document_ids)
        if document_ids is None:
            document_ids = rows_as_documents(attention_mask, self.config)
        counted = position_ids is None
        if position_ids is None and document_ids is None:
            position_ids = count_positions(input_ids, attention_mask, words, self.config)
        position_ids = self._positions(words, position_ids, document_ids)
        hidden = self.embeddings(words, token_type_ids, position_ids)
        states, attentions = [hidden], []
        slow = weigh or self.config._attn_implementation == "eager"
        inputs = self._attention_inputs(attention_mask, position_ids, document_ids, hidden)
        inputs = replace(inputs, counted=counted)
        path = "dense" if slow else "flex" if self.config._attn_implementation == "flex_attention" else "auto"
        for layer, (mask, angles) in zip(self.layers, self._geometry(inputs, position_ids, path)):
            few = None if rows is None or layer is not self.layers[-1] else mask.at(rows)
            hidden, weights = layer(hidden, few or mask, angles, slow, rows=None if few is None else rows)
            if keep:
                states.append(hidden)
            if weigh:
                attentions.append(weights)
        if rows is not None and few is None:
            hidden = take_rows(hidden, rows)
        hidden = self.final_norm(hidden)
        states[-1] = hidden if rows is not None else zero_padding(hidden, attention_mask, self.config)
        return states if keep else states[-1:], attentions

    def _words(
        self, input_ids: Tensor | None, inputs_embeds: Tensor | None, mask: Tensor | None, documents: Tensor | None
    ) -> Tensor:
        if input_ids is None and inputs_embeds is None:
            raise ValueError("give input_ids or inputs_embeds")
        table = self.embeddings.word_embeddings
        words = table(input_ids) if inputs_embeds is None else inputs_embeds
        mask_row = table.weight[self.config.mask_token_id or 0]
        return drop_masked_tokens(words, input_ids, mask, config=self.config, mask_row=mask_row, documents=documents)

    def _positions(self, words: Tensor, position_ids: Tensor | None, document_ids: Tensor | None) -> Tensor:
        length, limit = words.shape[1], self.config.max_position_embeddings
        counted = position_ids is None and document_ids is None
        if position_ids is None:
            position_ids = torch.arange(length, device=words.device)[None]
            if document_ids is not None:
                starts = F.pad(document_ids[:, 1:] != document_ids[:, :-1], (1, 0)) * position_ids
                position_ids = position_ids - starts.cummax(1).values + first_position(self.config)
        if self.config.positions == "learned":
            last = length if counted or not position_ids.numel() else int(position_ids.max()) + 1
            if last > limit:
                raise InputError(
                    f"the input has {last} tokens, but the position table of this model ends at {limit}; "
                    f"use shorter windows or truncate to {limit} tokens (special tokens included)."
                )
        return position_ids

    def _attention_inputs(
        self, attention_mask: Tensor | None, position_ids: Tensor, document_ids: Tensor | None, hidden: Tensor
    ) -> AttentionInputs:
        """Collect what all layers share."""
        config, dtype = self.config, hidden.dtype
        if torch.is_autocast_enabled(position_ids.device.type):
            dtype = torch.get_autocast_dtype(position_ids.device.type)
        if document_ids is not None and attention_mask is not None:
            document_ids = document_ids.masked_fill(attention_mask == 0, -1)
        padding = None if document_ids is not None else padding_bias(attention_mask, config)
        heads = config.num_attention_heads if config.positions == "alibi" else 0
        return AttentionInputs(hidden.shape[1], hidden.device, dtype, padding, document_ids, heads, position_ids)

    def _geometry(
        self, inputs: AttentionInputs, position_ids: Tensor, path: str
    ) -> Iterator[tuple[AttentionMask, RotaryAngles | None]]:
        """Give each layer who sees whom and its rotary angles; layers of one kind share them."""
        config = self.config
        rotary = config.positions == "rotary"
        masks: dict[Any, AttentionMask] = {}
        angles: dict[bool, RotaryAngles | None] = {}
        with_layout = [number for number, layer in enumerate(self.layers) if layer.attention.layout is not None]
        for number in range(len(self.layers)):
            owner = with_layout[0] if with_layout and config.attention.shared_layout else number
            attention: SelfAttention = self.layers[owner].attention  # type: ignore[assignment]
            pattern, lists = attention.pattern(config, number, inputs)
            local = isinstance(pattern, SlidingWindow)
            key = pattern if isinstance(pattern, Full | SlidingWindow) else owner
            if key not in masks:
                sized = partial(pattern_for, config, number, attention.layout)
                masks[key] = prepare(pattern, inputs, path=path, lists=lists, sized=sized)
            if local not in angles:
                angles[local] = rotary_angles(config, position_ids, local=local) if rotary else None
            yield masks[key], angles[local]
