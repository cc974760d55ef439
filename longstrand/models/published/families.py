"""The table of published families: how their files differ from ours, in data.

An entry says how the files are recognised, how the configuration maps, which of our names each tensor gets, which
tensors are second copies, and which are left out and why. `longstrand.models.published.to_ours` applies an entry in
both directions; the encoder never reads it. To add a family, add an entry to `FAMILIES`.

Templates: ``{n}`` is a layer number, ``{p}`` is weight or bias.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from longstrand.errors import CheckpointError
from longstrand.models.attention.layouts import make_layout
from longstrand.models.config import LongstrandConfig
from longstrand.models.positions import rotary_frequencies
from longstrand.models.published.dnabert2 import DNABERT2
from longstrand.models.published.esm import NT_V1, NT_V2
from longstrand.models.published.modernbert import MODERNGENA
from longstrand.models.published.names import (
    PUBLISHED_ACTIVATIONS,
    Family,
    Keys,
    Published,
    activation,
    published_heads,
    target,
)

# --- BERT and GENA's BERT ---------------------------------------------------------------------------------------------

_PLAIN_FIELDS = {
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
    "pad_token_id": "pad_token_id",
    "tie_word_embeddings": "tie_word_embeddings",
}
_BERT_DEFAULTS: Published = {"norm_eps": 1e-12, "pad_token_id": 0, "tie_word_embeddings": True, "type_vocab_size": 2}

_SPARSE_FIELDS = {
    "block": "block_size",
    "num_global_blocks": "num_global_blocks",
    "num_sliding_window_blocks": "num_window_blocks",
    "num_random_blocks": "num_random_blocks",
}
_SPARSE_DEFAULTS = {"block_size": 16, "num_global_blocks": 1, "num_window_blocks": 3, "num_random_blocks": 1}
"""Of DeepSpeed's BigBirdSparsityConfig."""

_BERT_KEYS = (
    ("bert.embeddings.word_embeddings.weight", "encoder.embeddings.word_embeddings.weight"),
    ("bert.embeddings.position_embeddings.weight", "encoder.embeddings.position_embeddings.weight"),
    ("bert.embeddings.token_type_embeddings.weight", "encoder.embeddings.token_type_embeddings.weight"),
    ("bert.embeddings.LayerNorm.{p}", "encoder.embeddings.norm.{p}"),
    ("bert.encoder.layer.{n}.attention.self.query.{p}", "encoder.layers.{n}.attention.query.{p}"),
    ("bert.encoder.layer.{n}.attention.self.key.{p}", "encoder.layers.{n}.attention.key.{p}"),
    ("bert.encoder.layer.{n}.attention.self.value.{p}", "encoder.layers.{n}.attention.value.{p}"),
    ("bert.encoder.layer.{n}.attention.output.dense.{p}", "encoder.layers.{n}.attention.dense.{p}"),
    ("bert.encoder.layer.{n}.intermediate.dense.{p}", "encoder.layers.{n}.mlp.up.{p}"),
    ("bert.encoder.layer.{n}.output.dense.{p}", "encoder.layers.{n}.mlp.down.{p}"),
    ("cls.predictions.transform.dense.{p}", "lm_head.dense.{p}"),
    ("cls.predictions.transform.LayerNorm.{p}", "lm_head.norm.{p}"),
    ("cls.predictions.decoder.weight", "lm_head.decoder.weight"),
    ("cls.predictions.bias", "lm_head.decoder.bias"),
    ("bert.pooler.dense.{p}", "classifier.pooler.{p}"),
    ("classifier.{p}", "classifier.output.{p}"),
)
_POST_NORM_KEYS = (
    ("bert.encoder.layer.{n}.attention.output.LayerNorm.{p}", "encoder.layers.{n}.attention_norm.{p}"),
    ("bert.encoder.layer.{n}.output.LayerNorm.{p}", "encoder.layers.{n}.mlp_norm.{p}"),
)
_PRE_NORM_KEYS = (
    ("bert.encoder.layer.{n}.pre_attention_ln.{p}", "encoder.layers.{n}.attention_norm.{p}"),
    ("bert.encoder.layer.{n}.post_attention_ln.{p}", "encoder.layers.{n}.mlp_norm.{p}"),
    ("bert.encoder.last_layer_ln.{p}", "encoder.final_norm.{p}"),
    (
        "bert.encoder.layer.{n}.attention.self.sparse_self_attention.master_layout",
        "encoder.layers.{n}.attention.layout",
    ),
)
_BERT_COPIES = (
    ("cls.predictions.decoder.bias", "cls.predictions.bias"),
    ("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
)
_BERT_DROPPED = (
    ("bert.embeddings.position_ids", "0, 1, 2, ...: counted, not stored"),
    ("bert.embeddings.token_type_ids", "zeros: made, not stored"),
    ("bert.encoder.layer.{n}.attention.self.rotary_emb.inv_freq", "recomputed from the configuration"),
    ("cls.seq_relationship.{p}", "the next-sentence head of pre-training; nothing of ours uses it"),
)


def _bert_settings(published: Published, names: Collection[str]) -> dict[str, Any]:
    """Map a BERT or GENA config; refuse what changes the result and is not implemented."""
    _refuse_bert_variants(published)
    given = {ours: published[theirs] for theirs, ours in _PLAIN_FIELDS.items() if theirs in published}
    pre = bool(published.get("pre_layer_norm", False))
    final = bool(published.get("last_layer_norm", pre))
    if final and not pre:
        raise CheckpointError("last_layer_norm without pre_layer_norm is refused, as by the published code.")
    fields = {**_BERT_DEFAULTS, **given, "activation": activation(published), "embedding_norm": True}
    fields["norm"] = ("pre_final" if final else "pre") if pre else "post"
    fields |= _bert_positions(published)
    if published.get("sparse_config_cls"):
        sparse = published.get("sparse_attention") or {}
        numbers = {ours: sparse[theirs] for theirs, ours in _SPARSE_FIELDS.items() if theirs in sparse}
        fields["attention"] = {**_SPARSE_DEFAULTS, **numbers, "pattern": "block_sparse", "shared_layout": True}
    fields["heads"] = _bert_heads(published, names)
    return fields


def _refuse_bert_variants(published: Published) -> None:
    sparsity = str(published.get("sparse_config_cls") or "").rpartition(":")[2]
    if sparsity and sparsity != "BigBirdSparsityConfig":
        raise CheckpointError(f"sparse_config_cls '{sparsity}' is not known; known: BigBirdSparsityConfig.")
    if published.get("is_decoder") or published.get("add_cross_attention"):
        raise CheckpointError("is_decoder or add_cross_attention is set; only encoders are supported.")


def _bert_positions(published: Published) -> dict[str, Any]:
    kind = published.get("position_embedding_type", "absolute")
    if kind == "absolute":
        return {"positions": "learned"}
    if kind != "rotary":
        raise CheckpointError(f"position_embedding_type '{kind}' is not known; known: absolute, rotary.")
    if published.get("rotary_base") is None:
        raise CheckpointError("rotary positions need rotary_base; the published code has no default for it.")
    rotary = {"dims": published.get("rotary_dim"), "theta": float(published["rotary_base"])}
    return {"positions": "rotary", "rotary": rotary}


_GENA_SEP = 2
"""[SEP] of GENA's tokenizer, at which its Enformer head reads a bin."""


def _bert_heads(published: Published, names: Collection[str]) -> dict[str, Any]:
    """Find the heads in the tensor names; the kind of problem comes from the config as the published code reads it."""
    if any(name.startswith("cls.predictions.") for name in names):
        return {"masked_lm": {"kind": "masked_lm"}}
    if not any(name.startswith("classifier.") for name in names):
        return {}
    if "BertForEnformer" in (published.get("architectures") or ()):
        shape = {"num_outputs": published.get("num_labels"), "bin_token_id": _GENA_SEP, "bin_bases": 128}
        return {"bin": {"kind": "bin", "problem": "counts", "form": "linear", **shape}}
    head = target(published)
    if any(name.startswith("bert.pooler.") for name in names):
        return {"sequence": {"kind": "sequence", "pooling": "cls", "form": "pooler", **head}}
    return {"token": {"kind": "token", "form": "linear", **head}}


def _post_norm_published(config: LongstrandConfig) -> Published:
    """Write the published config of a post-norm BERT; raises CheckpointError for what it cannot express."""
    if config.norm != "post":
        raise CheckpointError(f"family bert is post-norm, the model's norm is '{config.norm}'; export it as gena_bert.")
    return _bert_published(config)


def _pre_norm_published(config: LongstrandConfig) -> Published:
    """Write the published config of a GENA model; raises CheckpointError for what it cannot express."""
    if config.norm == "post":
        raise CheckpointError("family gena_bert is pre-norm, the model's norm is 'post'; export it as bert.")
    return _bert_published(config)


def _bert_published(config: LongstrandConfig) -> Published:
    _refuse_inexpressible(config)
    published: Published = {theirs: getattr(config, ours) for theirs, ours in _PLAIN_FIELDS.items()}
    published |= {"model_type": "bert", "hidden_act": PUBLISHED_ACTIVATIONS[config.activation]}
    published["pre_layer_norm"] = config.norm != "post"
    published["last_layer_norm"] = config.norm == "pre_final"
    published["position_embedding_type"] = "rotary" if config.positions == "rotary" else "absolute"
    if config.positions == "rotary":
        dims = config.rotary.dims or config.hidden_size // config.num_attention_heads
        published |= {"rotary_dim": dims, "rotary_base": config.rotary.theta}
    if config.attention.pattern == "block_sparse":
        sparse = {theirs: getattr(config.attention, ours) for theirs, ours in _SPARSE_FIELDS.items()}
        sparse |= {"num_heads": config.num_attention_heads, "different_layout_per_head": True}
        published["sparse_attention"] = sparse
        published["sparse_config_cls"] = "deepspeed.ops.sparse_attention:BigBirdSparsityConfig"
    return published | published_heads(config, "Bert")


def _refuse_inexpressible(config: LongstrandConfig) -> None:
    problems = []
    if config.positions not in ("learned", "rotary"):
        problems.append(f"positions '{config.positions}'")
    if config.gated_mlp or not all(dict(config.biases).values()):
        problems.append("a gated MLP or absent biases")
    if not config.embedding_norm:
        problems.append("no embedding norm")
    if config.type_vocab_size == 0:
        problems.append("no token types")
    attention = config.attention
    if attention.pattern == "sliding" or attention.global_every or attention.layout != "stored":
        problems.append("attention other than full or block_sparse with a stored layout in all layers")
    if attention.pattern == "block_sparse" and config.norm == "post":
        problems.append("block-sparse attention with post-norm")
    for head in config.heads.values():
        expected = {"sequence": ("cls", "pooler"), "token": (head.pooling, "linear")}.get(head.kind)
        expected = (head.pooling, "linear") if head.kind == "bin" else expected
        if expected is not None and (head.pooling, head.form) != expected:
            problems.append(f"a {head.kind} head with pooling {head.pooling} and form {head.form}")
    if problems:
        raise CheckpointError(f"BERT's published format cannot express {', '.join(problems)}.")


def _bert_regenerated(config: LongstrandConfig) -> dict[str, Tensor]:
    counters = {"bert.embeddings.position_ids": torch.arange(config.max_position_embeddings)[None]}
    if config.positions != "rotary":
        return counters
    name = "bert.encoder.layer.{n}.attention.self.rotary_emb.inv_freq"
    return counters | {name.format(n=n): rotary_frequencies(config) for n in range(config.num_hidden_layers)}


def _is_plain_bert(published: Published, names: Collection[str]) -> bool:
    return published.get("model_type") == "bert" and not any("Wqkv" in name or "gated_layers" in name for name in names)


def _is_post_norm_bert(published: Published, names: Collection[str]) -> bool:
    return _is_plain_bert(published, names) and not published.get("pre_layer_norm")


_KMER_VOCABULARIES = {4**k + 5 for k in (3, 4, 5, 6)}


# --- transformers' BigBird, GENA's bigbird-base-t2t -------------------------------------------------------------------

_BIGBIRD_DEFAULTS: Published = {**_BERT_DEFAULTS, "max_position_embeddings": 4096}
_BIGBIRD_KEYS = (
    *(rule for rule in _BERT_KEYS if not rule[1].startswith("classifier.")),
    *_POST_NORM_KEYS,
)
_BIGBIRD_HEAD_KEYS: dict[str, Keys] = {
    "sequence": (
        ("classifier.dense.{p}", "classifier.pooler.{p}"),
        ("classifier.out_proj.{p}", "classifier.output.{p}"),
    ),
    "token": (("classifier.{p}", "classifier.output.{p}"),),
}


def _bigbird_settings(published: Published, names: Collection[str]) -> dict[str, Any]:
    """Map a config of transformers' BigBird; refuse what changes the result and is not implemented."""
    wrong = [key for key in ("is_decoder", "add_cross_attention", "rescale_embeddings") if published.get(key)]
    wrong += [] if published.get("use_bias", True) else ["use_bias: false"]
    if wrong:
        raise CheckpointError(f"this kind of BigBird is not supported: {', '.join(wrong)}.")
    kind = activation({"hidden_act": "gelu_new", **published})
    fields = {ours: published[theirs] for theirs, ours in _PLAIN_FIELDS.items() if theirs in published}
    fields = {**_BIGBIRD_DEFAULTS, **fields, "activation": kind, "norm": "post"}
    if published.get("attention_type", "block_sparse") == "block_sparse":
        numbers = {name: published.get(name, default) for name, default in _BIGBIRD_NUMBERS.items()}
        fields["attention"] = {"pattern": "block_sparse", "layout": "bigbird", **numbers}
    if "classifier.out_proj.weight" in names:
        head = {"kind": "sequence", "pooling": "cls", "form": "dense", **target(published)}
        return fields | {"heads": {"sequence": head}}
    bare = [name for name in names if not name.startswith("bert.pooler.")]
    return fields | {"heads": _bert_heads(published, bare)}


_BIGBIRD_NUMBERS = {"block_size": 64, "num_random_blocks": 3}


def _bigbird_published(config: LongstrandConfig) -> Published:
    """Write the published config of transformers' BigBird; raises CheckpointError for what it cannot express."""
    attention, full = config.attention, config.attention.pattern == "full"
    fits = full or (attention.pattern, attention.layout) == ("block_sparse", "bigbird")
    fits = fits and not attention.global_every and not attention.shared_layout
    shape = (config.norm, config.positions, config.gated_mlp, config.embedding_norm, all(dict(config.biases).values()))
    heads = all((head.kind, head.form) in _BIGBIRD_HEADS for head in config.heads.values())
    if not fits or shape != ("post", "learned", False, True, True) or not heads or not config.type_vocab_size:
        raise CheckpointError("family bigbird is post-norm BERT with attention layout bigbird; this model differs.")
    published: Published = {theirs: getattr(config, ours) for theirs, ours in _PLAIN_FIELDS.items()}
    published |= {"model_type": "big_bird", "hidden_act": PUBLISHED_ACTIVATIONS[config.activation]}
    published |= {"attention_type": "original_full" if full else "block_sparse", "use_bias": True}
    published |= {"rescale_embeddings": False} | (
        {} if full else {name: getattr(attention, name) for name in _BIGBIRD_NUMBERS}
    )
    return published | published_heads(config, "BigBird")


_BIGBIRD_HEADS = {("masked_lm", "linear"), ("sequence", "dense"), ("token", "linear")}


def _bigbird_tables(config: LongstrandConfig) -> dict[str, Tensor]:
    """Draw the random blocks, which published files lack."""
    layouts = {f"encoder.layers.{n}.attention.layout": make_layout(config, n) for n in range(config.num_hidden_layers)}
    return {name: layout for name, layout in layouts.items() if layout is not None}


FAMILIES: dict[str, Family] = {
    "dnabert": Family(
        name="dnabert",
        differences=(
            "DNABERT 3-6 are BERT on overlapping k-mers; the vocabulary of 4^k + 5 tells them from other BERTs. Their "
            "repository adds the vocabulary bias twice, also when the paper's models were trained, and since June 2021 "
            "does not mask padding; the files on the hub, read by transformers, do neither. Quirks double_decoder_bias "
            "and unmasked_padding give the repository's numbers; both are off unless asked for."
        ),
        recognise=lambda published, names: (
            _is_post_norm_bert(published, names) and published.get("vocab_size") in _KMER_VOCABULARIES
        ),
        settings=_bert_settings,
        published=_post_norm_published,
        keys=_BERT_KEYS + _POST_NORM_KEYS,
        copies=_BERT_COPIES,
        dropped=_BERT_DROPPED,
        regenerated=_bert_regenerated,
        tokenizer="Overlapping k-mers in vocab.txt, in the order A, T, C, G; lower case and N are [UNK]; 512 tokens.",
    ),
    "bert": Family(
        name="bert",
        differences=(
            "BERT itself: post-norm, learned positions, exact GELU, tied decoder. Also GENA's post-norm variant."
        ),
        recognise=_is_post_norm_bert,
        settings=_bert_settings,
        published=_post_norm_published,
        keys=_BERT_KEYS + _POST_NORM_KEYS,
        copies=_BERT_COPIES,
        dropped=_BERT_DROPPED,
        regenerated=_bert_regenerated,
    ),
    "gena_bert": Family(
        name="gena_bert",
        differences=(
            "BERT with pre-norm under other names, an optional final norm (absent key = present), optionally rotary "
            "positions on part of each head; padding id 3. The paper's 'CLS hidden state' is BERT's tanh pooler. "
            "Scaled initialisation of the residual projections is intended in its code and never happens. Its masked "
            "multi-label token loss is the mean over tokens of the sum over classes: num_outputs times ours."
        ),
        recognise=lambda published, names: _is_plain_bert(published, names) and bool(published.get("pre_layer_norm")),
        settings=_bert_settings,
        published=_pre_norm_published,
        keys=_BERT_KEYS + _PRE_NORM_KEYS,
        copies=_BERT_COPIES,
        dropped=_BERT_DROPPED,
        regenerated=_bert_regenerated,
    ),
    "dnabert2": DNABERT2,
    "nt_v1": NT_V1,
    "nt_v2": NT_V2,
    "moderngena": MODERNGENA,
    "bigbird": Family(
        name="bigbird",
        differences=(
            "transformers' BigBird (GENA bigbird-base-t2t): post-norm BERT whose random blocks come from numpy seeds "
            "(the layer's number). We use them in evaluation too, as the models were trained and evaluated; "
            "transformers 4.29 and later turn them into block 0 there (quirk zero_random_blocks). Random blocks at "
            "1,024, 3,072 and 4,096 tokens never reach beyond token 1,024, as published. An input of up to 5 + 2 r "
            "blocks is attended fully for that call; in transformers for good. Dropout of embeddings comes before "
            "their norm; the classifier has its own dense layer with the MLP's activation. Results depend on the "
            "padded length, as published."
        ),
        recognise=lambda published, names: published.get("model_type") == "big_bird",
        settings=lambda published, names: {
            **_bigbird_settings(published, names),
            "quirks": ["dropout_before_embedding_norm"],
        },
        published=_bigbird_published,
        keys=_BIGBIRD_KEYS,
        head_keys=_BIGBIRD_HEAD_KEYS,
        copies=_BERT_COPIES,
        dropped=(*_BERT_DROPPED, ("bert.pooler.{p}", "no head of this family uses the pooler")),
        made=_bigbird_tables,
    ),
}


def recognise_family(published: Published, names: Collection[str], where: str) -> Family:
    """Find the family of published files.

    Raises:
        CheckpointError: none fits; what was found and what is known.
    """
    for family in FAMILIES.values():
        if family.recognise(published, names):
            return family
    found = f"model_type '{published.get('model_type')}', architectures {published.get('architectures')}"
    odd = sorted({"Wqkv", "gated_layers", "lm_head", "decoder.block"} & {part for n in names for part in n.split(".")})
    found += f", tensors named {', '.join(odd)}" if odd else ""
    raise CheckpointError(f"{where}: unknown architecture ({found}); known: longstrand, {', '.join(FAMILIES)}.")
