"""Tiny random models of every published family, laid out as published: config.json, weights, tokenizer files."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing

from longstrand.models.config import LongstrandConfig
from longstrand.models.pretrained import MODELS
from longstrand.models.published.to_ours import export_published

SPECIAL = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
SMALL = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "norm_eps": 1e-12,
    "hidden_dropout": 0.0, "attention_dropout": 0.0,
}  # fmt: skip
GENA = {**SMALL, "norm": "pre", "family": "gena_bert"}
ESM = {**SMALL, "type_vocab_size": 0, "embedding_norm": False, "tie_word_embeddings": False, "pad_token_id": 1,
       "mask_token_id": 2, "norm": "pre_final"}  # fmt: skip
NO_BIASES = dict.fromkeys(("attention", "mlp_up", "mlp_down", "norm", "lm_dense"), False)
FAMILIES: dict[str, dict] = {
    "gena-bert": {**GENA, "positions": "learned", "max_position_embeddings": 512},
    "gena-sparse": {
        **GENA, "positions": "rotary", "rotary": {"dims": 8}, "max_position_embeddings": 8192,
        "attention": {"pattern": "block_sparse", "block_size": 64, "shared_layout": True},
    },
    "gena-bigbird": {
        **SMALL, "family": "bigbird", "norm": "post", "positions": "learned", "max_position_embeddings": 8192,
        "activation": "gelu_tanh", "quirks": ["dropout_before_embedding_norm"],
        "attention": {"pattern": "block_sparse", "layout": "bigbird", "block_size": 64},
    },
    "moderngena": {
        **SMALL, "family": "moderngena", "norm": "pre_final", "norm_eps": 1e-5, "gated_mlp": True,
        "type_vocab_size": 0, "biases": NO_BIASES, "quirks": ["no_first_attention_norm"], "positions": "rotary",
        "num_hidden_layers": 3, "rotary": {"theta": 160000.0, "local_theta": 10000.0},
        "attention": {"pattern": "sliding", "window": 128, "global_every": 3}, "max_position_embeddings": 8192,
    },
    "dnabert6": {**SMALL, "family": "dnabert", "norm": "post", "positions": "learned", "pad_token_id": 0},
    "dnabert2": {
        **SMALL, "family": "dnabert2", "norm": "post", "positions": "alibi", "gated_mlp": True,
        "hidden_size": 36, "num_attention_heads": 3, "biases": {"mlp_up": False}, "quirks": ["zero_padding"],
    },
    "nt-v1": {**ESM, "family": "nt_v1", "positions": "learned", "max_position_embeddings": 1002,
              "quirks": ["positions_after_padding", "token_dropout"]},
    "nt-v2": {**ESM, "family": "nt_v2", "positions": "rotary", "max_position_embeddings": 2050, "gated_mlp": True,
              "activation": "silu", "lm_activation": "gelu", "biases": {"mlp_up": False, "mlp_down": False}},
}  # fmt: skip
"""Our name of a toy to its configuration; the vocabulary comes with the tokenizer."""


def make_folder(name: str, folder: Path, *, head: dict | None = None) -> Path:
    """Write a toy checkpoint as published.

    Args:
        name: key of `FAMILIES`.
        folder: created.
        head: settings of its head; None for masked LM.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocab_size = write_tokenizer(name, folder)
    torch.manual_seed(0)
    heads = {"one": head or {"kind": "masked_lm"}}
    model = MODELS[heads["one"]["kind"]](LongstrandConfig(**FAMILIES[name], vocab_size=vocab_size, heads=heads))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter.data, mean=float(parameter.dim() == 1), std=0.1)
    export_published(model, folder)
    return folder


def write_tokenizer(name: str, folder: Path) -> int:
    """Write the tokenizer files in the form that the family publishes; returns the number of ids."""
    if name.startswith("nt"):
        extra = ["<eos>", "<bos>"] if name == "nt-v2" else []
        words = ["<unk>", "<pad>", "<mask>", "<cls>", *extra, *kmers(6), *"ATCGN"]
        (folder / "vocab.txt").write_text("\n".join(words))
        roles = {"cls_token": "<cls>", "pad_token": "<pad>", "mask_token": "<mask>", "unk_token": "<unk>"}
        settings = {"tokenizer_class": "EsmTokenizer", "model_max_length": 2048 if extra else 1000}
        (folder / "tokenizer_config.json").write_text(json.dumps({**settings, **roles, "eos_token": None}))
        (folder / "special_tokens_map.json").write_text(json.dumps(roles))
        return len(words)
    if name == "dnabert6":
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *kmers(6)]
        (folder / "vocab.txt").write_text("\n".join(words) + "\n")
        (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False, "model_max_length": 512}))
        return len(words)
    return _write_bpe(folder, dnabert2=name == "dnabert2")


def random_dna(length: int, seed: int = 0) -> str:
    """Draw letters."""
    return "".join(np.random.default_rng(seed).choice(list("ACGT"), length))


def kmers(k: int) -> list[str]:
    """List k-mers in the published order, A T C G."""
    return ["".join(letters) for letters in product("ATCG", repeat=k)]


def _write_bpe(folder: Path, *, dnabert2: bool) -> int:
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace() if dnabert2 else pre_tokenizers.Split("-", "isolated")
    trainer = trainers.BpeTrainer(vocab_size=1024, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator([random_dna(2000, seed) for seed in range(20)], trainer)
    if not dnabert2:
        tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    roles = {f"{role}_token": f"[{role.upper()}]" for role in ("unk", "cls", "sep", "pad", "mask")}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **roles}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return tokenizer.get_vocab_size()
