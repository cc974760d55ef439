"""The configuration of an encoder and its heads: strict, complete, one source of every field.

`EncoderSettings` lists and validates the fields; `LongstrandConfig` carries them through transformers. Unknown keys are
refused with the nearest known name, wrong types are refused, and so is what this version cannot do yet.
"""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field, model_validator
from transformers import PreTrainedConfig

from longstrand.config import StrictModel, build
from longstrand.data.signals import TrackTransform
from longstrand.errors import ConfigError, nearest, one_of

QUIRKS: dict[str, str] = tomllib.loads(Path(__file__).with_name("quirks.toml").read_text(encoding="utf-8"))
"""Name of each quirk of published code and what it does; new models should never ask for one."""
MEMORY_QUIRKS = ("unk_segment_padding", "published_bptt", "mean_of_step_losses", "memory_in_vocabulary")
"""Those that only mean something with recurrent memory."""


class ModelSettings(StrictModel):
    """Base of the sections below: also no silent conversion of types ("12" is not 12)."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, strict=True)


class Rotary(ModelSettings):
    """Rotary positions: which part of each head is rotated, and how fast."""

    dims: int | None = Field(None, ge=2, description="leading dimensions of each head that rotate; null = all")
    theta: float = Field(10_000.0, gt=0, description="base of the angles")
    local_theta: float | None = Field(None, gt=0, description="base in sliding-window layers; null = theta")


class Attention(ModelSettings):
    """Which tokens see which; only full attention drops attention probabilities, as in the published codes."""

    pattern: Literal["full", "sliding", "block_sparse"] = Field("full", description="who sees whom")
    block_size: int | None = Field(64, ge=1, description="tokens in a block of block_sparse")
    window: int | None = Field(128, ge=2, description="sliding: token i sees j when |i - j| <= window // 2")
    global_every: int | None = Field(None, ge=1, description="layers 0, n, 2n ... stay full; null = none does")
    layout: Literal["stored", "bigbird"] = Field(
        "stored", description="block_sparse: one table, or Hugging Face's rule"
    )
    shared_layout: bool = Field(False, description="all layers use the table of layer 0")
    num_global_blocks: int = Field(2, ge=0, description="first blocks that see all and that all see")
    num_window_blocks: int = Field(3, ge=1, description="neighbouring blocks, itself included (odd)")
    num_random_blocks: int = Field(3, ge=0, description="random blocks of each block row and head")
    seed: int = Field(0, ge=0, description="seed of the random blocks of a new model")

    @property
    def block(self) -> int:
        """Tokens in a block, where there are blocks."""
        assert self.block_size is not None
        return self.block_size

    @model_validator(mode="after")
    def _check(self) -> Attention:
        if self.pattern == "block_sparse" and self.block_size is None:
            raise ValueError("block_sparse attention needs block_size")
        if self.pattern == "sliding" and self.window is None:
            raise ValueError("sliding attention needs window")
        if self.num_window_blocks % 2 == 0:
            raise ValueError(f"num_window_blocks is {self.num_window_blocks}; it must be odd")
        if self.layout == "bigbird" and (self.num_global_blocks, self.num_window_blocks) != (2, 3):
            raise ValueError("layout bigbird has num_global_blocks 2 (first and last) and num_window_blocks 3")
        return self


class Context(ModelSettings):
    """Segments at the ends of a row that only fill the memory: they are read first and no label counts there."""

    left: int = Field(0, ge=0, description="segments at the beginning of a row")
    right: int = Field(0, ge=0, description="segments at its end")


class RecurrentMemory(ModelSettings):
    """Recurrent memory: rows of any length, read segment by segment; see `longstrand.models.memory.recurrence`."""

    num_tokens: int = Field(10, ge=0, description="memory tokens; 0 = segments that know nothing of each other")
    segment_length: int = Field(512, ge=1, description="tokens of a segment, memory and special ones included")
    form: Literal["cls_mem_sep", "mem_x_mem"] = Field(
        "cls_mem_sep", description="[CLS] memory [SEP] x [SEP], or memory x memory without special tokens of its own"
    )
    split: Literal["equal", "left", "right", "centre"] = Field(
        "equal", description="lengths differ by 1 at most; or all full but the last (left) or the first (right); or "
        "ceil(tokens / segments) each and the rest in the last (centre)",
    )  # fmt: skip
    direction: Literal["forward", "bidirectional"] = Field(
        "forward", description="bidirectional: a second pass from the end with a memory of its own; states are averaged"
    )
    context: Context = Field(Context(), description="segments that only fill the memory")
    loss: Literal["last", "all"] | None = Field(
        None, description="segments whose labels count; null = last for sequence heads, all for the others"
    )
    bptt_depth: int | None = Field(
        None, ge=0, description="links between segments that gradients cross; 0 = none, null = all"
    )
    checkpointing: bool = Field(False, description="recompute each segment in the backward pass (less memory)")
    offload: bool = Field(False, description="keep activations for the backward pass in the host's memory (GPU only)")
    bins_per_segment: int | None = Field(
        None, ge=1, description="segments are whole bins, each ended by sep_token_id, at most this many"
    )
    bin_bases: int | None = Field(None, ge=1, description="bases of a bin, for whoever tokenizes; see bins_per_segment")
    cls_token_id: int | None = Field(None, ge=0, description="id of [CLS]; null = there is none")
    sep_token_id: int | None = Field(None, ge=0, description="id of [SEP]; null = there is none")

    @property
    def num_added(self) -> int:
        """Tokens of a full segment that are not content: memory and special tokens."""
        if self.form == "mem_x_mem":
            return 2 * self.num_tokens
        seps = 0 if self.sep_token_id is None else (self.num_tokens > 0) + (self.bins_per_segment is None)
        return self.num_tokens + (self.cls_token_id is not None) + seps

    @property
    def room(self) -> int:
        """Content tokens of a full segment."""
        return self.segment_length - self.num_added

    @model_validator(mode="after")
    def _check(self) -> RecurrentMemory:
        if self.room < 1:
            raise ValueError(
                f"segment_length {self.segment_length} leaves no room for DNA beside {self.num_added} memory and "
                "special tokens; use longer segments or fewer memory tokens"
            )
        if self.bins_per_segment is not None and self.form != "cls_mem_sep":
            raise ValueError("bins_per_segment needs form cls_mem_sep")
        if self.bins_per_segment is not None and self.split != "left":
            raise ValueError("bins_per_segment fills segments from the left; set split: left")
        return self


class Biases(ModelSettings):
    """Which layers have additive biases."""

    attention: bool = Field(True, description="query, key, value and dense")
    mlp_up: bool = Field(True, description="the first MLP projection (both halves of a gated one)")
    mlp_down: bool = Field(True, description="the last MLP projection")
    norm: bool = Field(True, description="layer norms")
    lm_dense: bool = Field(True, description="the projection inside the masked-LM head")


class Head(ModelSettings):
    """One head: what it predicts, from which vector, and how its loss counts."""

    kind: Literal["masked_lm", "sequence", "token", "bin"] = Field(description="what the head predicts")
    problem: Literal["single_label", "multi_label", "regression", "counts"] | None = Field(
        None, description="kind of target; counts: softplus and a Poisson loss"
    )
    pooling: Literal["cls", "mean", "max", "mean_all"] = Field(
        "mean", description="vector of a sequence; mean and max leave special_token_ids out, mean_all does not"
    )
    special_token_ids: list[int] | None = Field(None, description="ids that are no DNA, for mean and max; null = none")
    form: Literal["linear", "pooler", "dense", "normed"] = Field(
        "linear",
        description="before the output layer: nothing, dense + tanh, dropout + dense + activation, or ModernBERT's "
        "dense + activation + norm",
    )
    num_outputs: int | None = Field(None, ge=1, description="classes, labels or targets")
    class_names: list[str] | None = Field(None, description="names of the outputs, in order")
    bin_token_id: int | None = Field(None, ge=0, description="bin heads: id of the token at which a bin is read")
    bin_bases: int | None = Field(None, ge=1, description="bin heads: bases of a bin")
    total_weight: float | None = Field(
        None, gt=0, description="counts: multinomial loss along the bins, and so much of the Poisson loss of their sum"
    )
    strand_pairs: list[int] | None = Field(
        None, description="place of the output of the other strand for each; its own where there is none"
    )
    transforms: list[TrackTransform] | None = Field(
        None, description="how the targets of each output were transformed; prediction undoes it"
    )
    class_weights: list[float] | None = Field(None, description="weight of each class (single_label)")
    pos_weight: list[float] | None = Field(None, description="weight of positives of each label (multi_label)")

    @model_validator(mode="after")
    def _check(self) -> Head:
        if self.kind == "masked_lm":
            return self
        if self.problem is None or self.num_outputs is None:
            raise ValueError(
                f"a {self.kind} head needs num_outputs and problem (single_label, multi_label, regression or counts)"
            )
        if self.kind == "bin" and self.bin_token_id is None:
            raise ValueError("a bin head needs bin_token_id, the token at which each bin is read ([SEP])")
        if self.problem == "single_label" and self.num_outputs < 2:
            raise ValueError("a single_label head needs num_outputs of at least 2")
        for name in ("class_names", "class_weights", "pos_weight", "strand_pairs", "transforms"):
            value = getattr(self, name)
            if value is not None and len(value) != self.num_outputs:
                raise ValueError(f"{name} has {len(value)} entries, but num_outputs is {self.num_outputs}")
        if self.class_weights is not None and self.problem != "single_label":
            raise ValueError(f"class_weights are for single_label, not {self.problem}; use pos_weight for multi_label")
        if self.total_weight is not None and (self.problem != "counts" or self.kind != "bin"):
            raise ValueError("total_weight is for counts of bins: the multinomial runs along the bins of a row")
        pairs = self.strand_pairs
        if pairs is not None and [pairs[place] for place in pairs] != list(range(len(pairs))):
            raise ValueError(f"strand_pairs {pairs}: the partner of a partner is the output itself")
        if self.pos_weight is not None and self.problem != "multi_label":
            raise ValueError(f"pos_weight is for multi_label, not {self.problem}; use class_weights for single_label")
        return self


class EncoderSettings(ModelSettings):
    """Every field of a model's configuration."""

    vocab_size: int = Field(32_000, ge=1, description="tokens in the vocabulary")
    hidden_size: int = Field(768, ge=1, description="width of the residual stream")
    num_hidden_layers: int = Field(12, ge=0, description="number of layers")
    num_attention_heads: int = Field(12, ge=1, description="attention heads of each layer")
    intermediate_size: int = Field(3072, ge=1, description="width inside the MLP (of one half if gated)")
    type_vocab_size: int = Field(2, ge=0, description="token types; 0 = no type embedding")
    max_position_embeddings: int = Field(512, ge=1, description="tokens of the longest input of a learned table")
    positions: Literal["learned", "rotary", "alibi", "none"] = Field("learned", description="how order is encoded")
    rotary: Rotary = Field(Rotary(), description="for positions: rotary")
    norm: Literal["post", "pre", "pre_final"] = Field("pre_final", description="place of the layer norms")
    norm_eps: float = Field(1e-5, gt=0, description="epsilon of the layer norms")
    embedding_norm: bool = Field(True, description="layer norm on the embeddings")
    biases: Biases = Field(Biases(), description="which layers have biases")
    activation: Literal["gelu", "gelu_tanh", "silu", "relu"] = Field("gelu", description="MLP and LM-head activation")
    lm_activation: Literal["gelu", "gelu_tanh", "silu", "relu"] | None = Field(
        None, description="activation inside the masked-LM head; null = activation"
    )
    gated_mlp: bool = Field(False, description="activation(gate) * up instead of activation(up)")
    attention: Attention = Field(Attention(), description="attention pattern")
    hidden_dropout: float = Field(0.1, ge=0, lt=1, description="dropout of embeddings, branches and heads")
    attention_dropout: float = Field(0.1, ge=0, lt=1, description="dropout of attention probabilities")
    initializer_range: float = Field(0.02, gt=0, description="standard deviation of fresh weights")
    pad_token_id: int | None = Field(3, ge=0, description="id of padding; its input vector gets no gradient")
    mask_token_id: int | None = Field(None, ge=0, description="id of <mask>, for quirks that depend on it")
    tie_word_embeddings: bool = Field(True, description="the LM decoder is the word embedding")
    memory: RecurrentMemory | None = Field(None, description="recurrent memory; null = rows are read whole")
    heads: dict[str, Head] = Field(default_factory=dict, description="heads of this checkpoint by name")
    quirks: list[str] = Field(default_factory=list, description="named deviations of published code")
    family: str = Field("longstrand", description="where the weights come from; the encoder never reads it")

    @model_validator(mode="after")
    def _check(self) -> EncoderSettings:
        problems = [*self._contradictions(), *self._memory_problems()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _contradictions(self) -> list[str]:
        head_size, remainder = divmod(self.hidden_size, self.num_attention_heads)
        problems = []
        if remainder:
            problems.append(f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads "
                            f"{self.num_attention_heads}")  # fmt: skip
        dims = self.rotary.dims if self.rotary.dims is not None else head_size
        if self.positions == "rotary" and (dims % 2 or dims > head_size):
            problems.append(f"rotary.dims is {dims}; it must be even and at most the head size {head_size}")
        if self.pad_token_id is not None and self.pad_token_id >= self.vocab_size:
            problems.append(f"pad_token_id {self.pad_token_id} is outside the vocabulary of {self.vocab_size}")
        if "token_dropout" in self.quirks and self.mask_token_id is None:
            problems.append("the quirk token_dropout needs mask_token_id")
        if "positions_after_padding" in self.quirks and (self.pad_token_id is None or self.positions != "learned"):
            problems.append("the quirk positions_after_padding needs pad_token_id and positions: learned")
        if self.rotary.local_theta is not None and self.attention.pattern != "sliding":
            problems.append("rotary.local_theta is for attention.pattern sliding")
        unknown = [name for name in self.quirks if name not in QUIRKS]
        problems += [f"unknown quirk '{name}'{nearest(name, QUIRKS)}" for name in unknown]
        return problems

    def _memory_problems(self) -> list[str]:
        memory, problems = self.memory, []
        needless = [name for name in self.quirks if name in MEMORY_QUIRKS]
        if memory is None:
            return [f"the quirk {name} needs memory" for name in needless]
        first = 1 + (self.pad_token_id or 0) if "positions_after_padding" in self.quirks else 0
        limit = self.max_position_embeddings - first
        if self.positions == "learned" and memory.segment_length > limit:
            problems.append(f"memory.segment_length {memory.segment_length} exceeds the {limit} positions of the model")
        for name in ("cls_token_id", "sep_token_id"):
            if (getattr(memory, name) or 0) >= self.vocab_size:
                problems.append(f"memory.{name} {getattr(memory, name)} is outside the vocabulary of {self.vocab_size}")
        if memory.bins_per_segment is not None and memory.sep_token_id is None:
            problems.append("memory.bins_per_segment needs memory.sep_token_id, which ends each bin")
        bins = any(head.kind == "bin" for head in self.heads.values())
        if bins and memory.form == "cls_mem_sep" and memory.bins_per_segment is None:
            problems.append("a bin head needs memory.bins_per_segment, so that segments hold whole bins")
        pooled = {head.pooling for head in self.heads.values() if head.kind == "sequence"}
        if "cls" in pooled and (memory.form == "mem_x_mem" or memory.cls_token_id is None):
            problems.append("pooling cls needs memory.form cls_mem_sep and memory.cls_token_id; use pooling mean")
        return problems


_BASE_KEYS = {field.name for field in fields(PreTrainedConfig)} | {
    "model_type",
    "name_or_path",
    "_name_or_path",
    "num_labels",
    "use_cache",
    "attn_implementation",
    "_attn_implementation",
    "experts_implementation",
    "output_attentions",
    "torch_dtype",
    "auto_map",
    "_commit_hash",
}


if TYPE_CHECKING:

    class _Fields(PreTrainedConfig, EncoderSettings):
        """Tell type checkers that the configuration has the fields of `EncoderSettings`."""
else:
    _Fields = PreTrainedConfig


class LongstrandConfig(_Fields):
    """Carry `EncoderSettings` through transformers; sections (rotary, memory, heads, ...) are its typed, frozen values.

    Args:
        **values: fields of `EncoderSettings`, or the base fields of transformers (dtype, architectures, ...).

    Raises:
        ConfigError: unknown keys (with the nearest name), wrong types, contradictions, values not implemented yet.
    """

    model_type = "longstrand"  # type: ignore[pydantic-field]

    def __init__(self, **values: Any) -> None:
        base = {key: values.pop(key) for key in list(values) if key in _BASE_KEYS}
        self._take(build(EncoderSettings, values, "model configuration"))
        names = next((head.class_names for head in self.heads.values() if head.class_names), None)
        sizes = [head.num_outputs for head in self.heads.values() if head.num_outputs]
        if names is not None:
            base |= {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
            base.pop("num_labels", None)
        elif sizes and len(base.get("id2label") or ()) != sizes[0]:
            base |= {"id2label": {i: f"LABEL_{i}" for i in range(sizes[0])}}
            base |= {"label2id": {f"LABEL_{i}": i for i in range(sizes[0])}}
            base.pop("num_labels", None)
        super().__init__(**base)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Read a folder or hub id as transformers does; a published folder gives what `load_model` makes of it."""
        folder, read = Path(pretrained_model_name_or_path), _published_reader.get("read")
        config = read(folder) if read is not None else None
        if config is None:
            return super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        return (config, kwargs) if kwargs.pop("return_unused_kwargs", False) else config

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build from a dictionary as transformers does, and validate again what ``kwargs`` changed."""
        wants_unused = kwargs.get("return_unused_kwargs", False)
        result = super().from_dict(dict(config_dict), **{**kwargs, "return_unused_kwargs": True})
        config, unused = result
        config.validate_settings()
        unknown = [key for key in unused if not wants_unused and key not in _LOADING_KEYS]
        if unknown:
            known = sorted(EncoderSettings.model_fields)
            words = ", ".join(f"'{key}'{nearest(key, known)}" for key in unknown)
            raise ConfigError(f"model configuration: unknown key {words}.")
        return (config, unused) if wants_unused else config

    def validate_settings(self) -> None:
        """Check all fields again, for those that were set after construction.

        Raises:
            ConfigError: as the constructor.
        """
        self._take(build(EncoderSettings, self.settings(), "model configuration"))

    def _take(self, settings: EncoderSettings) -> None:
        for name in EncoderSettings.model_fields:
            setattr(self, name, getattr(settings, name))

    def settings(self) -> dict[str, Any]:
        """Copy our own fields as plain values, without those of transformers."""
        return {name: _plain(getattr(self, name)) for name in EncoderSettings.model_fields}

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain values, as transformers does."""
        return {name: _plain(value) for name, value in super().to_dict().items()}

    def replace(self, **changes: Any) -> LongstrandConfig:
        """Copy with some fields changed, validated."""
        config = type(self)(**{**self.settings(), **changes})
        config._attn_implementation_internal = self._attn_implementation_internal
        config.dtype = self.dtype
        config.name_or_path = self.name_or_path
        return config

    @property
    def recurrence(self) -> RecurrentMemory:
        """The settings of the memory, where there is one."""
        assert self.memory is not None
        return self.memory

    def head(self, kind: str) -> Head | None:
        """Find the settings of the head of a kind, or None."""
        return next((head for head in self.heads.values() if head.kind == kind), None)

    @property
    def kind(self) -> str:
        """Name the network that the heads call for, a key of `longstrand.models.networks.NETWORKS`."""
        return next((head.kind for head in self.heads.values()), "encoder")


def _plain(value: Any) -> Any:
    """Turn sections into dictionaries; other values are copied."""
    if isinstance(value, StrictModel):
        return value.model_dump()
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return copy.deepcopy(value)


_published_reader: dict[str, Callable[[Path], LongstrandConfig | None]] = {}


def read_published_with(read: Callable[[Path], LongstrandConfig | None]) -> None:
    """Tell `LongstrandConfig.from_pretrained` how folders of other codes are read (None: the folder is ours).

    `longstrand.models.published.to_ours` does so when it is imported, so that the configuration knows no family; PEFT
    and transformers ask the class for the configuration of any base model.
    """
    _published_reader["read"] = read


_LOADING_KEYS = {
    "cache_dir", "force_download", "local_files_only", "token", "revision", "proxies", "subfolder", "trust_remote_code",
    "gguf_file", "_from_auto", "_from_pipeline",
}  # fmt: skip

PRESETS: dict[str, dict[str, int]] = tomllib.loads(Path(__file__).with_name("presets.toml").read_text(encoding="utf-8"))
"""Sizes by name. Parameters without the vocabulary, in millions: 0.4, 2.4, 8.9, 25, 85, 302."""


def preset(name: str, *, vocab_size: int, pad_token_id: int | None = 3, **changes: Any) -> LongstrandConfig:
    """Make the configuration of a new model of a named size: pre-norm, final norm, rotary positions, no dropout.

    Args:
        name: one of `PRESETS`.
        vocab_size: number of ids of the tokenizer.
        pad_token_id: id of its padding token.
        **changes: any other field of `EncoderSettings`.

    Raises:
        UsageError: unknown preset.
        ConfigError: unknown or wrong field.
    """
    size = PRESETS[one_of(name, PRESETS, "model size")]
    recipe = {"positions": "rotary", "norm": "pre_final", "hidden_dropout": 0.0, "attention_dropout": 0.0}
    values = {**size, **recipe, "vocab_size": vocab_size, "pad_token_id": pad_token_id, **changes}
    return LongstrandConfig(**values)
