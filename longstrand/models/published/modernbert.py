"""ModernGENA: transformers' ModernBERT on GENA's tokenizer."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from longstrand.errors import CheckpointError
from longstrand.models.config import LongstrandConfig
from longstrand.models.published.names import (
    PUBLISHED_ACTIVATIONS,
    Family,
    Keys,
    Published,
    activation,
    published_heads,
    target,
)

logger = logging.getLogger(__name__)

PAD = 3
"""[PAD] of GENA's tokenizer, for files that name no padding id; ModernBERT's own default lies beyond its vocabulary."""

_FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "max_position_embeddings": "max_position_embeddings",
    "embedding_dropout": "hidden_dropout",
    "attention_dropout": "attention_dropout",
    "initializer_range": "initializer_range",
    "norm_eps": "norm_eps",
    "pad_token_id": "pad_token_id",
    "tie_word_embeddings": "tie_word_embeddings",
}
_DEFAULTS: Published = {
    "vocab_size": 50_368, "num_hidden_layers": 22, "intermediate_size": 1152, "max_position_embeddings": 8192,
    "hidden_dropout": 0.0, "attention_dropout": 0.0, "norm_eps": 1e-5,
}  # fmt: skip
"""transformers' ModernBertConfig, where its defaults are not ours."""

_BIASES = {
    "attention": "attention_bias", "mlp_up": "mlp_bias", "mlp_down": "mlp_bias", "norm": "norm_bias",
    "lm_dense": "classifier_bias",
}  # fmt: skip
_ACTIVATIONS = {**PUBLISHED_ACTIVATIONS, "gelu_tanh": "gelu_pytorch_tanh"}
_THETAS = {
    "full_attention": ("global_rope_theta", 160_000.0),
    "sliding_attention": ("local_rope_theta", 10_000.0),
}


def _settings(published: Published, names: Collection[str]) -> dict[str, Any]:
    """Map a config of ModernBERT, written by transformers 4 or 5; refuse what is not implemented."""
    if not published.get("decoder_bias", True):
        raise CheckpointError("decoder_bias is false; only masked-LM heads with a vocabulary bias are supported.")
    fields: dict[str, Any] = {ours: published[theirs] for theirs, ours in _FIELDS.items() if theirs in published}
    fields = {**_DEFAULTS, "pad_token_id": PAD, **fields, "norm": "pre_final", "embedding_norm": True}
    fields |= {"type_vocab_size": 0, "gated_mlp": True, "quirks": ["no_first_attention_norm"]}
    fields |= {"activation": activation(published, "hidden_activation")}
    fields |= {"lm_activation": activation(published, "classifier_activation")}
    fields["biases"] = {ours: bool(published.get(theirs, False)) for ours, theirs in _BIASES.items()}
    fields |= _geometry(published, fields["num_hidden_layers"])
    if published.get("mlp_dropout"):
        logger.warning("mlp_dropout %s is left out; here embeddings and branches drop", published["mlp_dropout"])
    return fields | {"heads": _heads(published, names)}


def _geometry(published: Published, layers: int) -> dict[str, Any]:
    """Read which layers are local and the two bases of their rotary angles."""
    every = published.get("global_attn_every_n_layers", 3)
    kinds = published.get("layer_types") or [_kind(layer, every) for layer in range(layers)]
    every = next((n for n in range(1, layers + 1) if kinds == [_kind(layer, n) for layer in range(layers)]), None)
    if every is None and kinds != ["sliding_attention"] * layers:
        raise CheckpointError(f"layer_types {kinds} is not supported; every n-th layer, from layer 0 on, may be full.")
    rope = published.get("rope_parameters") or {}
    thetas: dict[str, float] = {}
    for kind, (old, default) in _THETAS.items():
        given = rope.get(kind) or {}
        if given.get("rope_type", "default") != "default" or published.get("rope_scaling"):
            raise CheckpointError("only plain rotary positions are supported, rope_type default and no rope_scaling.")
        theta = given.get("rope_theta", published.get(old, default))
        thetas[kind] = (
            thetas["full_attention"] if theta is None else float(theta)
        )  # a null local base is the global one
    fields: dict[str, Any] = {"positions": "rotary", "rotary": {"theta": thetas["full_attention"]}}
    if every == 1:
        return fields
    fields["rotary"]["local_theta"] = thetas["sliding_attention"]
    window = published.get("local_attention", 128)
    return fields | {"attention": {"pattern": "sliding", "window": window, "global_every": every}}


def _kind(layer: int, every: int) -> str:
    return "sliding_attention" if layer % every else "full_attention"


def _heads(published: Published, names: Collection[str]) -> dict[str, Any]:
    if any(name.startswith("decoder.") for name in names):
        return {"masked_lm": {"kind": "masked_lm"}}
    if "classifier.weight" not in names:
        return {}
    if any("TokenClassification" in str(name) for name in published.get("architectures") or ()):
        return {"token": {"kind": "token", "form": "normed", **target(published)}}
    pooling = published.get("classifier_pooling", "cls")
    pooling = "mean_all" if pooling == "mean" else pooling
    return {"sequence": {"kind": "sequence", "pooling": pooling, "form": "normed", **target(published)}}


def _published(config: LongstrandConfig) -> Published:
    """Write ModernBERT's config with the keys that transformers 4.48 and later read."""
    attention, sliding = config.attention, config.attention.pattern == "sliding"
    wrong = [f"a {head.kind} head of form {head.form}" for head in config.heads.values()
             if head.kind != "masked_lm" and head.form != "normed"]  # fmt: skip
    poolings = [head.pooling for head in config.heads.values() if head.kind == "sequence"]
    wrong += [f"pooling {pooling} (only cls and mean_all)" for pooling in poolings if pooling in ("max", "mean")]
    wrong += ["attention block_sparse"] if attention.pattern == "block_sparse" else []
    wrong += ["different biases in the two MLP projections"] if _uneven(config) else []
    if wrong:
        raise CheckpointError(f"ModernBERT's published format cannot express {', '.join(wrong)}.")
    published: Published = {theirs: getattr(config, ours) for theirs, ours in _FIELDS.items()}
    published |= {theirs: getattr(config.biases, ours) for ours, theirs in _BIASES.items()}
    published |= {"model_type": "modernbert", "hidden_activation": _ACTIVATIONS[config.activation]}
    published["classifier_activation"] = _ACTIVATIONS[config.lm_activation or config.activation]
    published |= {"mlp_dropout": config.hidden_dropout, "classifier_dropout": config.hidden_dropout}
    every = (attention.global_every or config.num_hidden_layers + 1) if sliding else 1
    kinds = [_kind(layer, every) for layer in range(config.num_hidden_layers)]
    if sliding and not attention.global_every:
        kinds = ["sliding_attention"] * config.num_hidden_layers
    local = config.rotary.local_theta or config.rotary.theta
    published |= {"layer_types": kinds, "global_attn_every_n_layers": every, "local_attention": attention.window}
    published |= {"global_rope_theta": config.rotary.theta, "local_rope_theta": local}
    return published | _published_head(config)


def _uneven(config: LongstrandConfig) -> bool:
    return config.biases.mlp_up != config.biases.mlp_down


def _published_head(config: LongstrandConfig) -> Published:
    poolings = [head.pooling for head in config.heads.values() if head.kind == "sequence"]
    return published_heads(config, "ModernBert") | (
        {"classifier_pooling": poolings[0].removesuffix("_all")} if poolings else {}
    )


def is_modernbert(published: Published, names: Collection[str]) -> bool:
    """Recognise the two fused projections under ModernBERT's names, whatever model_type a wrapper gives itself."""
    ends = (".attn.Wqkv.weight", ".mlp.Wi.weight")
    return all(any(name.endswith(end) for name in names) for end in ends)


_LAYER, _OURS = "model.layers.{n}", "encoder.layers.{n}"
_CLASSIFIER: Keys = (
    ("head.dense.{p}", "classifier.pooler.{p}"),
    ("head.norm.{p}", "classifier.norm.{p}"),
    ("classifier.{p}", "classifier.output.{p}"),
)

MODERNGENA = Family(
    name="moderngena",
    differences=(
        "ModernGENA is transformers' ModernBERT: pre-norm with a final norm, an embedding norm, GEGLU (first half "
        "through the GELU), fused Wqkv, no biases but in the decoder and classifiers, no token types. Every third "
        "layer, from layer 0 on, attends fully; the others see 128 tokens around (64 on each side) and have a rotary "
        "base of their own (10,000; full layers 160,000). Quirk no_first_attention_norm: layer 0 has no norm before "
        "its attention. Its classifiers share dense, activation and norm with the masked-LM head (form normed)."
    ),
    recognise=is_modernbert,
    settings=_settings,
    published=_published,
    keys=(
        ("model.embeddings.tok_embeddings.weight", "encoder.embeddings.word_embeddings.weight"),
        ("model.embeddings.norm.{p}", "encoder.embeddings.norm.{p}"),
        (f"{_LAYER}.attn_norm.{{p}}", f"{_OURS}.attention_norm.{{p}}"),
        (f"{_LAYER}.attn.Wo.{{p}}", f"{_OURS}.attention.dense.{{p}}"),
        (f"{_LAYER}.mlp_norm.{{p}}", f"{_OURS}.mlp_norm.{{p}}"),
        (f"{_LAYER}.mlp.Wo.{{p}}", f"{_OURS}.mlp.down.{{p}}"),
        ("model.final_norm.{p}", "encoder.final_norm.{p}"),
    ),
    head_keys={
        "masked_lm": (
            ("head.dense.{p}", "lm_head.dense.{p}"),
            ("head.norm.{p}", "lm_head.norm.{p}"),
            ("decoder.{p}", "lm_head.decoder.{p}"),
        ),
        "sequence": _CLASSIFIER,
        "token": _CLASSIFIER,
    },
    fused=(
        (f"{_LAYER}.attn.Wqkv.{{p}}", tuple(f"{_OURS}.attention.{part}.{{p}}" for part in ("query", "key", "value"))),
        (f"{_LAYER}.mlp.Wi.{{p}}", (f"{_OURS}.mlp.gate.{{p}}", f"{_OURS}.mlp.up.{{p}}")),
    ),
    copies=(("decoder.weight", "model.embeddings.tok_embeddings.weight"),),
    tokenizer="GENA's BPE of 32,000 tokens (t2t_1000h_multi_32k) in tokenizer.json.",
)
