"""What one step does: the shapes that memory and time follow from.

Legend: B batch, L tokens, T = B L, D hidden size, I width inside the MLP, H heads, V vocabulary, N labelled tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from longstrand.errors import UsageError, one_of
from longstrand.models.attention import Scene, prepare
from longstrand.models.block_sparse import block_lists
from longstrand.models.config import LongstrandConfig
from longstrand.models.fit import shapes_only
from longstrand.models.layouts import is_full, make_layout, pattern_for
from longstrand.models.networks import only_head
from longstrand.models.patterns import Full

MASKED_SHARE = 0.15
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
        """T, tokens of a step."""
        return self.batch * self.length


@dataclass(frozen=True)
class LayerAttention:
    """The attention of one kind of layer.

    Attributes:
        path: ``fused``, ``masked`` (fused under a dense bias), ``dropout`` (all probabilities are made) or ``gather``.
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
        bias_is_stored: whether a dense float bias (H, L, L) is kept for the whole step.
    """

    config: LongstrandConfig
    setting: Setting
    parameters: dict[str, int]
    attentions: tuple[LayerAttention, ...]
    bias_is_stored: bool

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
    if config.positions == "learned" and setting.length > config.max_position_embeddings:
        raise UsageError(
            f"{setting.length:,} tokens do not fit: the position table of this model ends at "
            f"{config.max_position_embeddings:,}; ask for a shorter --length."
        )
    kinds: dict[bool, LayerAttention] = {}
    layers = [is_full(config, layer) for layer in range(config.num_hidden_layers)]
    for full in dict.fromkeys(layers):
        kinds[full] = _attention(config, layers.index(full), setting, layers.count(full))
    stored = config.positions == "alibi" and any(kind.path != "gather" for kind in kinds.values())
    stored = stored or any(kind.path == "masked" for kind in kinds.values())
    return Workload(config, setting, count_parameters(config, setting.head), tuple(kinds.values()), stored)


def _attention(config: LongstrandConfig, layer: int, setting: Setting, layers: int) -> LayerAttention:
    """Find the path that the encoder takes on a CPU, and what it touches."""
    length = setting.length
    drops = setting.mode == "train" and config.attention_dropout > 0
    pattern = pattern_for(config, layer, make_layout(config, layer), length)
    if isinstance(pattern, Full):
        path = "dropout" if drops else "masked" if config.positions == "alibi" else "fused"
        return LayerAttention(path, float(length) ** 2, layers=layers)
    sight = prepare(pattern, Scene(length, torch.device("cpu"), torch.float32))
    if sight.blocks is None:
        return LayerAttention("masked", float(length) ** 2, layers=layers)
    lists = block_lists(pattern, length)
    size, (_, rows, seen) = lists.block_size, lists.keys.shape
    wide = lists.wide.numel() * size
    pairs = float(rows * size * seen * size + wide * length)
    return LayerAttention("gather", pairs, 2.0 * rows * seen * size / length, wide / length, layers)


def count_parameters(config: LongstrandConfig, head: str) -> dict[str, int]:
    """Count the numbers in the weights by part: embeddings, attention, mlp, norms, head; layouts do not count."""
    wanted = (
        config if head in ("encoder", "masked_lm") or config.head(head) else config.replace(heads=_plain_head(head))
    )
    network = shapes_only(head, only_head(wanted, None if head == "encoder" else head))
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
