"""DNABERT-2 and DNABERT-S: BERT with ALiBi, a gated MLP and fused projections, in files that look like BERT's."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from longstrand.errors import CheckpointError
from longstrand.models.config import LongstrandConfig
from longstrand.models.published.names import Family, Published, activation, published_heads, target

PAD = 3
"""[PAD] of the published tokenizer. The published config names none, and BERT's default 0 is [UNK]."""

_FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "type_vocab_size": "type_vocab_size",
    "max_position_embeddings": "max_position_embeddings",
    "hidden_dropout_prob": "hidden_dropout",
    "attention_probs_dropout_prob": "attention_dropout",
    "initializer_range": "initializer_range",
    "layer_norm_eps": "norm_eps",
    "tie_word_embeddings": "tie_word_embeddings",
}
_LAYER, _OURS = "bert.encoder.layer.{n}", "encoder.layers.{n}"


def _settings(published: Published, names: Collection[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {ours: published[theirs] for theirs, ours in _FIELDS.items() if theirs in published}
    fields = {"norm_eps": 1e-12, "attention_dropout": 0.0, **fields}
    fields |= {"activation": activation(published), "gated_mlp": True, "norm": "post", "positions": "alibi"}
    fields |= {"biases": {"mlp_up": False}, "pad_token_id": PAD, "quirks": ["zero_padding"], "heads": {}}
    if any(name.startswith("cls.predictions.") for name in names):
        fields["heads"] = {"masked_lm": {"kind": "masked_lm"}}
    elif any(name.startswith("classifier.") for name in names):
        fields["heads"] = {"sequence": {"kind": "sequence", "pooling": "cls", "form": "pooler", **target(published)}}
    return fields


_HEAD = ("sequence", "cls", "pooler")
"""Kind, pooling and form of the one classifier that the published code has."""


def _published(config: LongstrandConfig) -> Published:
    for head in config.heads.values():
        if head.kind != "masked_lm" and (head.kind, head.pooling, head.form) != _HEAD:
            raise CheckpointError(
                f"DNABERT-2's published format cannot express a {head.kind} head with pooling {head.pooling} and "
                f"form {head.form}; it has a sequence head with pooling cls and form pooler."
            )
    published: Published = {theirs: getattr(config, ours) for theirs, ours in _FIELDS.items()}
    published |= {"hidden_act": config.activation, "position_embedding_type": "absolute", "pad_token_id": PAD}
    published |= {"model_type": "bert", "alibi_starting_size": config.max_position_embeddings}
    return published | published_heads(config, "Bert")


def is_dnabert2(published: Published, names: Collection[str]) -> bool:
    """Recognise the two fused projections; the config is BERT's, or has no model_type at all."""
    ends = (".attention.self.Wqkv.weight", ".mlp.gated_layers.weight")
    return all(any(name.endswith(end) for name in names) for end in ends)


DNABERT2 = Family(
    name="dnabert2",
    differences=(
        "DNABERT-2 and DNABERT-S: BERT without positions but with ALiBi, GEGLU (first half through the GELU, no bias) "
        "and fused Wqkv; stock BERT classes load its files mostly at random. Its paper describes ALiBi slopes as one "
        "geometric series; its code follows Press et al. for head counts that are no powers of two. The published "
        "config names no padding id, and 0 is [UNK]; here it is the tokenizer's 3. Its own code counts only labels "
        "above 0 in the loss; here all but -100 count. Published files have no pooler: a classifier starts from noise."
    ),
    recognise=is_dnabert2,
    settings=_settings,
    published=_published,
    keys=(
        ("bert.embeddings.word_embeddings.weight", "encoder.embeddings.word_embeddings.weight"),
        ("bert.embeddings.token_type_embeddings.weight", "encoder.embeddings.token_type_embeddings.weight"),
        ("bert.embeddings.LayerNorm.{p}", "encoder.embeddings.norm.{p}"),
        (f"{_LAYER}.attention.output.dense.{{p}}", f"{_OURS}.attention.dense.{{p}}"),
        (f"{_LAYER}.attention.output.LayerNorm.{{p}}", f"{_OURS}.attention_norm.{{p}}"),
        (f"{_LAYER}.mlp.wo.{{p}}", f"{_OURS}.mlp.down.{{p}}"),
        (f"{_LAYER}.mlp.layernorm.{{p}}", f"{_OURS}.mlp_norm.{{p}}"),
        ("cls.predictions.transform.dense.{p}", "lm_head.dense.{p}"),
        ("cls.predictions.transform.LayerNorm.{p}", "lm_head.norm.{p}"),
        ("cls.predictions.decoder.{p}", "lm_head.decoder.{p}"),
        ("bert.pooler.dense.{p}", "classifier.pooler.{p}"),
        ("classifier.{p}", "classifier.output.{p}"),
    ),
    fused=(
        (
            f"{_LAYER}.attention.self.Wqkv.{{p}}",
            tuple(f"{_OURS}.attention.{part}.{{p}}" for part in ("query", "key", "value")),
        ),
        (f"{_LAYER}.mlp.gated_layers.{{p}}", (f"{_OURS}.mlp.gate.{{p}}", f"{_OURS}.mlp.up.{{p}}")),
    ),
    copies=(("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),),
    tokenizer=(
        "BPE of 4096 tokens in tokenizer.json (the paper says SentencePiece; it is not). N, lower case and IUPAC "
        "letters are one [UNK] each; white space splits words."
    ),
)
