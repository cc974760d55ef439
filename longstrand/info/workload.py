"""What one step does: the shapes that memory and time follow from.

Rows that recurrent memory reads in segments are so many passes over segments of one width.
Legend: B batch, L tokens, W tokens of a segment (L without memory), T = B W tokens that the layers see at once, D
hidden size, I width inside the MLP, H heads, V vocabulary, N labelled tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from longstrand.errors import UsageError, one_of
from longstrand.models.attention.block_sparse import block_lists
from longstrand.models.attention.layer import AttentionInputs, prepare
from longstrand.models.attention.layouts import is_full, make_layout, pattern_for
from longstrand.models.attention.patterns import Full
from longstrand.models.config import LongstrandConfig
from longstrand.models.memory.recurrence import is_recurrent
from longstrand.models.memory.segments import segment_lengths
from longstrand.models.networks import NETWORKS, only_head
from longstrand.models.strict_load import shapes_only

MASKED_SHARE = 0.15
_PIECE = 256
"""Queries of a piece under ALiBi; see `longstrand.models.attention.alibi`."""
HEADS = ("encoder", "masked_lm", "sequence", "token")


@dataclass(frozen=True)
class Setting:
    """What is asked.

    Attributes:
        length: tokens of each sequence, special ones included.
        batch: sequences of a step.
        mode: ``train`` (forward, backward, clipping, AdamW) or ``infer``.
        precision: ``fp32``, or ``bf16`` by autocast.
        head: encoder, masked_lm, sequence or token.
        checkpointing: gradient checkpointing.
    """

    length: int
    batch: int = 1
    mode: Literal["train", "infer"] = "train"
    precision: Literal["fp32", "bf16"] = "fp32"
    head: str = "masked_lm"
    checkpointing: bool = False

    def __post_init__(self) -> None:
        one_of(self.mode, ("train", "infer"), "mode")
        one_of(self.precision, ("fp32", "bf16"), "precision")
        one_of(self.head, HEADS, "head")
        for name in ("length", "batch"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is at least 1, got {getattr(self, name)}.")

    @property
    def tokens(self) -> int:
        """B L, tokens of a step."""
        return self.batch * self.length


@dataclass(frozen=True)
class LayerAttention:
    """The attention of one kind of layer.

    Attributes:
        path: ``fused``, ``masked`` (fused under a dense bias), ``strip`` (fused under a piece of ALiBi's biases),
            ``dropout`` (all probabilities are made) or ``gather``.
        pairs: (query, key) pairs of one head of one sequence.
        gathered: numbers that gathering copies, in units of one state (L, D) of a sequence.
        wide: share of the tokens whose rows see most blocks.
        layers: how many layers are like this.
    """

    path: str
    pairs: float
    gathered: float = 0.0
    wide: float = 0.0
    layers: int = 1


@dataclass(frozen=True)
class Workload:
    """A model and a setting, reduced to numbers.

    Attributes:
        config: of the model.
        setting: what is asked.
        parameters: numbers in the weights, by part; a tied decoder counts once.
        attentions: the kinds of layers.
        bias: numbers of the bias or mask that is kept for the whole step.
        width: W.
        segments: passes over segments of that width, both directions together; 1 without memory.
    """

    config: LongstrandConfig
    setting: Setting
    parameters: dict[str, int]
    attentions: tuple[LayerAttention, ...]
    bias: int
    width: int
    segments: int = 1

    @property
    def tokens(self) -> int:
        """T, tokens that the layers see at once."""
        return self.setting.batch * self.width

    @property
    def recomputes(self) -> bool:
        """Whether the backward pass repeats the forward pass."""
        memory = self.config.memory if self.reads_segments else None
        return self.setting.checkpointing or bool(memory and memory.checkpointing)

    @property
    def reads_segments(self) -> bool:
        """Whether recurrent memory is at work."""
        return is_recurrent(self.config, self.setting.length)

    @property
    def num_parameters(self) -> int:
        """All parts together."""
        return sum(self.parameters.values())

    @property
    def num_labels(self) -> int:
        """N: tokens at which the masked-LM head computes logits."""
        if self.setting.head != "masked_lm":
            return 0
        return (
            max(1, round(MASKED_SHARE * self.setting.tokens)) if self.setting.mode == "train" else self.setting.tokens
        )

    def with_batch(self, batch: int) -> Workload:
        """Copy with another batch; the rest does not depend on it."""
        return replace(self, setting=replace(self.setting, batch=batch))


def make_workload(config: LongstrandConfig, setting: Setting) -> Workload:
    """Count parameters and attention of a model.

    Raises:
        UsageError: the input is longer than the model's position table.
    """
    width, segments = segments_of(config, setting.length)
    if config.positions == "learned" and width > config.max_position_embeddings:
        raise UsageError(
            f"{setting.length:,} tokens do not fit: the position table of this model ends at "
            f"{config.max_position_embeddings:,}; ask for a shorter --length."
        )
    kinds: dict[bool, LayerAttention] = {}
    layers = [is_full(config, layer) for layer in range(config.num_hidden_layers)]
    for full in dict.fromkeys(layers):
        kinds[full] = _attention(config, layers.index(full), setting, width, layers.count(full))
    bias = max((_bias(config, kind, width) for kind in kinds.values()), default=0)
    parameters = count_parameters(config, setting.head)
    return Workload(config, setting, parameters, tuple(kinds.values()), bias, width, segments)


def segments_of(config: LongstrandConfig, length: int) -> tuple[int, int]:
    """Give W and the number of passes; a row of ``length`` tokens has the special tokens of one sequence."""
    if not is_recurrent(config, length):
        return length, 1
    memory = config.memory
    assert memory is not None
    special = (
        0 if memory.form == "mem_x_mem" else sum(one is not None for one in (memory.cls_token_id, memory.sep_token_id))
    )
    lengths = segment_lengths(max(length - special, 0), memory.room, memory.split)
    return max(lengths) + memory.num_added, len(lengths) * (2 if memory.direction == "bidirectional" else 1)


def _attention(config: LongstrandConfig, layer: int, setting: Setting, length: int, layers: int) -> LayerAttention:
    """Find the path that the encoder takes on a CPU, and what it touches."""
    drops = setting.mode == "train" and config.attention_dropout > 0
    pattern = pattern_for(config, layer, make_layout(config, layer), length)
    if isinstance(pattern, Full):
        path = "dropout" if drops else "strip" if config.positions == "alibi" else "fused"
        return LayerAttention(path, float(length) ** 2, layers=layers)
    sight = prepare(pattern, AttentionInputs(length, torch.device("cpu"), torch.float32))
    if sight.blocks is None:
        return LayerAttention("masked", float(length) ** 2, layers=layers)
    lists = block_lists(pattern, length)
    size, (_, rows, seen) = lists.block_size, lists.keys.shape
    wide = lists.wide.numel() * size
    pairs = float(rows * size * seen * size + wide * length)
    return LayerAttention("gather", pairs, 2.0 * rows * seen * size / length, wide / length, layers)


def _bias(config: LongstrandConfig, kind: LayerAttention, length: int) -> int:
    """Count the numbers of a dense mask, or of ALiBi's biases for one piece of queries."""
    heads, alibi = config.num_attention_heads, config.positions == "alibi"
    if kind.path in ("fused", "gather"):
        return 0
    if kind.path == "masked":
        return (heads if alibi or config.attention.pattern == "block_sparse" else 1) * length**2
    return heads * min(_PIECE, length) * 2 * length if alibi else 0


def count_parameters(config: LongstrandConfig, head: str) -> dict[str, int]:
    """Count the numbers in the weights by part: embeddings, attention, mlp, norms, head; layouts do not count."""
    wanted = (
        config if head in ("encoder", "masked_lm") or config.head(head) else config.replace(heads=_plain_head(head))
    )
    network = shapes_only(NETWORKS[head], only_head(wanted, None if head == "encoder" else head))
    parts = dict.fromkeys(("embeddings", "attention", "mlp", "norms", "head"), 0)
    for name, parameter in network.named_parameters():
        if name == "lm_head.decoder.weight" and config.tie_word_embeddings:
            continue
        parts[part_of(name)] += parameter.numel()
    return parts


def _plain_head(head: str) -> dict[str, Any]:
    return {head: {"kind": head, "problem": "single_label", "num_outputs": 2}}


def part_of(name: str) -> str:
    """Say to which part a tensor of ours belongs, by its name."""
    if name.startswith(("lm_head.", "classifier.")):
        return "head"
    if "norm." in name:
        return "norms"
    if "embeddings." in name:
        return "embeddings"
    return "attention" if ".attention." in name else "mlp"
