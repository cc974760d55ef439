"""Nucleotide Transformer v1 (ESM's code) and v2 (its own code on ESM's names)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor

from longstrand.errors import CheckpointError
from longstrand.models.config import LongstrandConfig
from longstrand.models.positions import rotary_frequencies
from longstrand.models.published.names import Family, Keys, Published, activation, published_heads, target

_FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "max_position_embeddings": "max_position_embeddings",
    "hidden_dropout_prob": "hidden_dropout",
    "attention_probs_dropout_prob": "attention_dropout",
    "initializer_range": "initializer_range",
    "layer_norm_eps": "norm_eps",
    "pad_token_id": "pad_token_id",
    "mask_token_id": "mask_token_id",
    "tie_word_embeddings": "tie_word_embeddings",
    "emb_layer_norm_before": "embedding_norm",
}
_DEFAULTS: Published = {
    "norm_eps": 1e-12, "pad_token_id": 1, "mask_token_id": 2, "tie_word_embeddings": True, "embedding_norm": False,
}  # fmt: skip
_LAYER, _OURS = "esm.encoder.layer.{n}", "encoder.layers.{n}"
_INVERSE_FREQUENCIES = f"{_LAYER}.attention.self.rotary_embeddings.inv_freq"


def _common(published: Published, names: Collection[str]) -> dict[str, Any]:
    if published.get("is_folding_model") or published.get("is_decoder"):
        raise CheckpointError("is_folding_model or is_decoder is set; only encoders are supported.")
    given = {ours: published[theirs] for theirs, ours in _FIELDS.items() if published.get(theirs) is not None}
    kind = published.get("position_embedding_type", "absolute")
    if kind not in ("absolute", "rotary"):
        raise CheckpointError(f"position_embedding_type '{kind}' is not known; known: absolute, rotary.")
    fields: dict[str, Any] = {**_DEFAULTS, **given, "norm": "pre_final", "type_vocab_size": 0, "quirks": []}
    fields["positions"] = "rotary" if kind == "rotary" else "learned"
    if kind == "absolute":
        fields["quirks"] += ["positions_after_padding"]
    if published.get("token_dropout", False):
        fields["quirks"] += ["token_dropout"]
    return fields | {"heads": _heads(published, names)}


def _heads(published: Published, names: Collection[str]) -> dict[str, Any]:
    if any(name.startswith("lm_head.") for name in names):
        return {"masked_lm": {"kind": "masked_lm"}}
    if "classifier.out_proj.weight" in names:
        return {"sequence": {"kind": "sequence", "pooling": "cls", "form": "pooler", **target(published)}}
    if "classifier.weight" in names:
        return {"token": {"kind": "token", "form": "linear", **target(published)}}
    return {}


def _v1_settings(published: Published, names: Collection[str]) -> dict[str, Any]:
    return _common(published, names) | {"activation": activation(published)}


def _v2_settings(published: Published, names: Collection[str]) -> dict[str, Any]:
    gated = {"gated_mlp": True, "activation": "silu", "lm_activation": "gelu"}
    bias = bool(published.get("add_bias_fnn", False))
    return _common(published, names) | gated | {"biases": {"mlp_up": bias, "mlp_down": bias}}


def _published(config: LongstrandConfig) -> Published:
    for head in config.heads.values():
        wanted = {"sequence": ("cls", "pooler"), "token": (head.pooling, "linear")}.get(head.kind)
        if wanted is not None and (head.pooling, head.form) != wanted:
            raise CheckpointError(
                f"ESM's published format cannot express a {head.kind} head with pooling {head.pooling} and form "
                f"{head.form}."
            )
    published: Published = {theirs: getattr(config, ours) for theirs, ours in _FIELDS.items()}
    published["position_embedding_type"] = "rotary" if config.positions == "rotary" else "absolute"
    published |= {"token_dropout": "token_dropout" in config.quirks, "is_folding_model": False}
    return published | published_heads(config, "Esm")


def _v1_published(config: LongstrandConfig) -> Published:
    return _published(config) | {"model_type": "esm", "hidden_act": config.activation}


def _v2_published(config: LongstrandConfig) -> Published:
    return _published(config) | {"add_bias_fnn": config.biases.mlp_up}


def _regenerated(config: LongstrandConfig) -> dict[str, Tensor]:
    if config.positions != "rotary":
        return {}
    return {_INVERSE_FREQUENCIES.format(n=n): rotary_frequencies(config) for n in range(config.num_hidden_layers)}


def is_v2(published: Published, names: Collection[str]) -> bool:
    """Recognise v2 by its own config key; it may lack a model_type."""
    return _is_esm(published, names) and "add_bias_fnn" in published


def is_v1(published: Published, names: Collection[str]) -> bool:
    """Recognise files of ESM's own code."""
    return _is_esm(published, names) and "add_bias_fnn" not in published and published.get("model_type") == "esm"


def _is_esm(published: Published, names: Collection[str]) -> bool:
    """Say whether the names are ESM's: a final norm of its own name, with or without the base prefix."""
    return any(name.removeprefix("esm.").startswith("encoder.emb_layer_norm_after.") for name in names)


_KEYS: Keys = (
    ("esm.embeddings.word_embeddings.weight", "encoder.embeddings.word_embeddings.weight"),
    ("esm.embeddings.layer_norm.{p}", "encoder.embeddings.norm.{p}"),
    (f"{_LAYER}.attention.self.query.{{p}}", f"{_OURS}.attention.query.{{p}}"),
    (f"{_LAYER}.attention.self.key.{{p}}", f"{_OURS}.attention.key.{{p}}"),
    (f"{_LAYER}.attention.self.value.{{p}}", f"{_OURS}.attention.value.{{p}}"),
    (f"{_LAYER}.attention.output.dense.{{p}}", f"{_OURS}.attention.dense.{{p}}"),
    (f"{_LAYER}.attention.LayerNorm.{{p}}", f"{_OURS}.attention_norm.{{p}}"),
    (f"{_LAYER}.LayerNorm.{{p}}", f"{_OURS}.mlp_norm.{{p}}"),
    (f"{_LAYER}.output.dense.{{p}}", f"{_OURS}.mlp.down.{{p}}"),
    ("esm.encoder.emb_layer_norm_after.{p}", "encoder.final_norm.{p}"),
    ("lm_head.dense.{p}", "lm_head.dense.{p}"),
    ("lm_head.layer_norm.{p}", "lm_head.norm.{p}"),
    ("lm_head.decoder.weight", "lm_head.decoder.weight"),
    ("lm_head.bias", "lm_head.decoder.bias"),
)
_HEADS: dict[str, Keys] = {
    "sequence": (
        ("classifier.dense.{p}", "classifier.pooler.{p}"),
        ("classifier.out_proj.{p}", "classifier.output.{p}"),
    ),
    "token": (("classifier.{p}", "classifier.output.{p}"),),
}
_DROPPED: Keys = (
    ("esm.contact_head.regression.{p}", "predicts contacts of proteins; never trained on DNA"),
    ("esm.pooler.dense.{p}", "no head of this family uses the pooler"),
    ("esm.embeddings.position_ids", "0, 1, 2, ...: counted, not stored"),
    (_INVERSE_FREQUENCIES, "recomputed from the configuration"),
    (_INVERSE_FREQUENCIES.replace("{n}", "*"), "recomputed; transformers 5 writes one for all layers, under this name"),
    ("esm.rotary_embeddings.inv_freq", "recomputed; so transformers 5 calls it in memory"),
)
_COPIES: Keys = (("lm_head.decoder.weight", "esm.embeddings.word_embeddings.weight"),)

NT_V1 = Family(
    name="nt_v1",
    differences=(
        "Nucleotide Transformer v1 is ESM: pre-norm with a final norm, no token types, no embedding norm, untied "
        "decoder, padding id 1. Quirks: token_dropout (clean DNA is scaled by 0.88 in evaluation too) and "
        "positions_after_padding (position ids begin at 2). The authors' JAX code has norm_eps 1e-5, the PyTorch files "
        "1e-12. Other ESM encoders load as well."
    ),
    recognise=is_v1,
    settings=_v1_settings,
    published=_v1_published,
    keys=(
        *_KEYS,
        ("esm.embeddings.position_embeddings.weight", "encoder.embeddings.position_embeddings.weight"),
        (f"{_LAYER}.intermediate.dense.{{p}}", f"{_OURS}.mlp.up.{{p}}"),
    ),
    head_keys=_HEADS,
    copies=_COPIES,
    dropped=_DROPPED,
    regenerated=_regenerated,
    tokenizer="Non-overlapping 6-mers and single letters in vocab.txt, 4105 ids, <cls> in front; at most 1000 tokens.",
)
NT_V2 = Family(
    name="nt_v2",
    differences=(
        "Nucleotide Transformer v2: v1 with rotary positions, a SwiGLU MLP (first half through the SiLU) whose two "
        "projections have no bias, and no token dropout. Its documentation says 'without biases'; attention, norms and "
        "heads have theirs. The masked-LM head keeps the GELU. A position table is in the files and not in the model."
    ),
    recognise=is_v2,
    settings=_v2_settings,
    published=_v2_published,
    keys=_KEYS,
    head_keys=_HEADS,
    fused=((f"{_LAYER}.intermediate.dense.{{p}}", (f"{_OURS}.mlp.gate.{{p}}", f"{_OURS}.mlp.up.{{p}}")),),
    copies=_COPIES,
    dropped=(*_DROPPED, ("esm.embeddings.position_embeddings.weight", "stored and never added: positions are rotary")),
    regenerated=_regenerated,
    tokenizer="As v1 with <eos> and <bos> at 4 and 5, which are never added: 4107 ids; at most 2048 tokens.",
)
