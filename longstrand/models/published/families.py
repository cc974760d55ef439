"""The table of published families: how their files differ from ours.

What can be said in data is in ``families.toml``, which explains its entries; what needs a decision is a function here.
`longstrand.models.published.to_ours` applies an entry in both directions; the encoder never reads it. To add a family,
add an entry to both.
"""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from longstrand.errors import CheckpointError
from longstrand.models.attention.layouts import make_layout
from longstrand.models.config import LongstrandConfig
from longstrand.models.positions import rotary_frequencies

logger = logging.getLogger(__name__)

Published = dict[str, Any]
Keys = Mapping[str, str]

_WORDS = tomllib.loads(Path(__file__).with_name("words.toml").read_text(encoding="utf-8"))
ACTIVATIONS: dict[str, str] = _WORDS["activations"]
PROBLEMS: dict[str, str] = _WORDS["problems"]


@dataclass(frozen=True)
class Family:
    """One published family; what its tables mean is written in ``families.toml``.

    Attributes:
        name: what ``config.family`` says after an import.
        differences: how it differs from BERT and from its own paper, and why.
        recognise: whether a published config and tensor names belong here.
        keys: published template -> our template of every tensor.
        read: further fields of ours, from a published config and the fields so far.
        write: further keys of the published config.
    """

    name: str
    differences: str
    recognise: Callable[[Published, Collection[str]], bool]
    keys: Keys
    read: Callable[[Published, dict[str, Any]], dict[str, Any]] = lambda published, fields: {}
    write: Callable[[LongstrandConfig], Published] = lambda config: {}
    prefix: str = ""
    fields: Keys = field(default_factory=dict)
    activations: Keys = field(default_factory=dict)
    assumed: Mapping[str, Any] = field(default_factory=dict)
    null_is_absent: bool = False
    fixed: Mapping[str, Any] = field(default_factory=dict)
    written: Mapping[str, Any] = field(default_factory=dict)
    heads: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    head_keys: Mapping[str, Keys] = field(default_factory=dict)
    fused: Mapping[str, list[str]] = field(default_factory=dict)
    copies: Keys = field(default_factory=dict)
    dropped: Keys = field(default_factory=dict)
    regenerated: Keys = field(default_factory=dict)

    @property
    def base(self) -> str:
        """What the published names of the encoder begin with, and those of a bare encoder's file may lack."""
        return next(iter(self.keys)).split(".", 1)[0] + "."

    def settings(self, published: Published, names: Collection[str]) -> dict[str, Any]:
        """Translate a published config and tensor names into our configuration fields.

        Raises:
            CheckpointError: it says something that changes the result and is not implemented.
        """
        given = {key: value for key, value in published.items() if value is not None or not self.null_is_absent}
        published = {**self.assumed, **given}
        fields = {ours: published[theirs] for theirs, ours in self.fields.items() if theirs in published}
        fields |= {ours: _activation(published, theirs) for theirs, ours in self.activations.items()}
        fields |= {**self.fixed, "heads": self._find_head(published, names)}
        return fields | self.read(published, fields)

    def published(self, config: LongstrandConfig) -> Published:
        """Translate our configuration into a published one, of the keys that matter.

        Raises:
            CheckpointError: the format cannot express the model.
        """
        published = self._write_head(config) | {theirs: getattr(config, ours) for theirs, ours in self.fields.items()}
        for theirs, ours in self.activations.items():
            name = getattr(config, ours) or config.activation
            published[theirs] = next(key for key, value in ACTIVATIONS.items() if value == name)
        return {**published, **self.written, **self.write(config)}

    def _find_head(self, published: Published, names: Collection[str]) -> dict[str, Any]:
        """Find the head in the tensor names; the kind of problem comes from the config."""
        classes = " ".join(map(str, published.get("architectures") or ()))
        for kind, rule in self.heads.items():
            told = all(any(name.startswith(mark) for name in names) for mark in rule["marks"])
            if told and rule.get("architecture", "") in classes:
                head = {"kind": kind, **{key: rule[key] for key in rule if key not in ("marks", "architecture")}}
                if "problem" in rule:
                    return {kind: {**head, "num_outputs": published.get("num_labels")}}
                return {kind: head if kind == "masked_lm" else {**head, **_target(published)}}
        return {}

    def _write_head(self, config: LongstrandConfig) -> Published:
        """Write the architecture, problem type, number and names of outputs of the head of a model."""
        published: Published = {}
        for head in config.heads.values():
            rule = self.heads.get(head.kind)
            if rule is None or any(getattr(head, key) != rule.get(key, getattr(head, key)) for key in _COMPARED):
                raise CheckpointError(
                    f"the published format of {self.name} cannot express a {head.kind} head with pooling "
                    f"{head.pooling} and form {head.form} for {head.problem}."
                )
            published["architectures"] = [f"{self.prefix}For{_WORDS['classes'][head.kind]}"]
            if head.kind != "masked_lm":
                published["num_labels"] = head.num_outputs
            for theirs, ours in PROBLEMS.items():
                published |= {"problem_type": theirs} if ours == head.problem else {}
            if head.class_names:
                published["id2label"] = {str(number): name for number, name in enumerate(head.class_names)}
                published["label2id"] = {name: number for number, name in enumerate(head.class_names)}
        return published

    def regenerate(self, config: LongstrandConfig) -> dict[str, Tensor]:
        """Make the tensors that published files hold and the configuration determines, by their names."""
        made: dict[str, Tensor] = {}
        for template, what in self.regenerated.items():
            if what == "positions":
                made[template] = torch.arange(config.max_position_embeddings)[None]
            elif config.positions == "rotary":
                made |= {template.format(n=n): rotary_frequencies(config) for n in range(config.num_hidden_layers)}
        return made


_COMPARED = ("pooling", "form", "problem")


def made_layouts(config: LongstrandConfig) -> dict[str, Tensor]:
    """Draw the tensors of ours that published files lack: the random blocks of transformers' BigBird."""
    if config.attention.layout != "bigbird":
        return {}
    layouts = {f"encoder.layers.{n}.attention.layout": make_layout(config, n) for n in range(config.num_hidden_layers)}
    return {name: layout for name, layout in layouts.items() if layout is not None}


def _activation(published: Published, key: str) -> str:
    name = published.get(key, "gelu")
    if name not in ACTIVATIONS:
        raise CheckpointError(f"{key} '{name}' is not known; known: {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[name]


def _target(published: Published) -> dict[str, Any]:
    """Read the outputs, their names and the kind of problem of a published classifier, as transformers reads them."""
    outputs = published.get("num_labels") or len(published.get("id2label") or (0, 1))
    problem = PROBLEMS.get(published.get("problem_type") or "")
    if problem is None:
        problem = "regression" if outputs == 1 else "single_label"
        logger.warning("problem_type is not set; taking %s for %d outputs", problem, outputs)
    names = {int(number): str(name) for number, name in (published.get("id2label") or {}).items()}
    if sorted(names) != list(range(outputs)) or all(name == f"LABEL_{number}" for number, name in names.items()):
        return {"problem": problem, "num_outputs": outputs}
    return {"problem": problem, "num_outputs": outputs, "class_names": [names[number] for number in range(outputs)]}


def _refuse(published: Published, *keys: str) -> None:
    wrong = [key for key in keys if published.get(key)]
    if wrong:
        raise CheckpointError(f"{' and '.join(wrong)} is set; only encoders are supported.")


def _positions(published: Published) -> str:
    kind = published.get("position_embedding_type", "absolute")
    if kind not in ("absolute", "rotary"):
        raise CheckpointError(f"position_embedding_type '{kind}' is not known; known: absolute, rotary.")
    return "rotary" if kind == "rotary" else "learned"


# --- BERT and GENA's BERT ---------------------------------------------------------------------------------------------

_SPARSE_FIELDS, _SPARSE_DEFAULTS = _WORDS["sparse_fields"], _WORDS["sparse_defaults"]
_SPARSE_CLASS = "deepspeed.ops.sparse_attention:BigBirdSparsityConfig"
_KMER_VOCABULARIES = {4**k + 5 for k in (3, 4, 5, 6)}


def _is_bert(published: Published, names: Collection[str], *, pre_norm: bool) -> bool:
    fused = any("Wqkv" in name or "gated_layers" in name for name in names)
    return published.get("model_type") == "bert" and not fused and bool(published.get("pre_layer_norm")) == pre_norm


def _read_bert(published: Published, fields: dict[str, Any]) -> dict[str, Any]:
    """Read norms, positions and sparse attention of BERT and GENA's BERT."""
    _refuse(published, "is_decoder", "add_cross_attention")
    pre = bool(published.get("pre_layer_norm", False))
    final = bool(published.get("last_layer_norm", pre))
    if final and not pre:
        raise CheckpointError("last_layer_norm without pre_layer_norm is refused, as by the published code.")
    more: dict[str, Any] = {"norm": ("pre_final" if final else "pre") if pre else "post"}
    more["positions"] = _positions(published)
    if more["positions"] == "rotary":
        if published.get("rotary_base") is None:
            raise CheckpointError("rotary positions need rotary_base; the published code has no default for it.")
        more["rotary"] = {"dims": published.get("rotary_dim"), "theta": float(published["rotary_base"])}
    if sparsity := str(published.get("sparse_config_cls") or "").rpartition(":")[2]:
        if sparsity != _SPARSE_CLASS.rpartition(":")[2]:
            raise CheckpointError(f"sparse_config_cls '{sparsity}' is not known; known: BigBirdSparsityConfig.")
        numbers = {**_SPARSE_DEFAULTS, **(published.get("sparse_attention") or {})}
        blocks = {ours: numbers[theirs] for theirs, ours in _SPARSE_FIELDS.items()}
        more["attention"] = {**blocks, "pattern": "block_sparse", "shared_layout": True}
    return more


def _write_bert(config: LongstrandConfig, *, pre_norm: bool) -> Published:
    if pre_norm == (config.norm == "post"):
        own, other = ("gena_bert is pre-norm", "bert") if pre_norm else ("bert is post-norm", "gena_bert")
        raise CheckpointError(f"family {own}, the model's norm is '{config.norm}'; export it as {other}.")
    sparse = config.attention.pattern == "block_sparse"
    if config.type_vocab_size == 0 or (sparse and not pre_norm):
        raise CheckpointError("BERT's published format cannot express no token types, or sparse attention post-norm.")
    published: Published = {"pre_layer_norm": pre_norm, "last_layer_norm": config.norm == "pre_final"}
    published["position_embedding_type"] = "rotary" if config.positions == "rotary" else "absolute"
    if config.positions == "rotary":
        dims = config.rotary.dims or config.hidden_size // config.num_attention_heads
        published |= {"rotary_dim": dims, "rotary_base": config.rotary.theta}
    if sparse:
        numbers = {theirs: getattr(config.attention, ours) for theirs, ours in _SPARSE_FIELDS.items()}
        numbers |= {"num_heads": config.num_attention_heads, "different_layout_per_head": True}
        published |= {"sparse_attention": numbers, "sparse_config_cls": _SPARSE_CLASS}
    return published


# --- transformers' BigBird, GENA's bigbird-base-t2t -------------------------------------------------------------------

_BIGBIRD_NUMBERS = {"block_size": 64, "num_random_blocks": 3}


def _read_bigbird(published: Published, fields: dict[str, Any]) -> dict[str, Any]:
    _refuse(published, "is_decoder", "add_cross_attention", "rescale_embeddings")
    if not published.get("use_bias", True):
        raise CheckpointError("use_bias is false; only BigBird with biases is supported.")
    if published.get("attention_type", "block_sparse") != "block_sparse":
        return {}
    numbers = {name: published.get(name, default) for name, default in _BIGBIRD_NUMBERS.items()}
    return {"attention": {"pattern": "block_sparse", "layout": "bigbird", **numbers}}


def _write_bigbird(config: LongstrandConfig) -> Published:
    if config.type_vocab_size == 0:
        raise CheckpointError("BigBird's published format cannot express no token types.")
    if config.attention.pattern == "full":
        return {"attention_type": "original_full"}
    return {"attention_type": "block_sparse", **{name: getattr(config.attention, name) for name in _BIGBIRD_NUMBERS}}


# --- Nucleotide Transformer v1 (ESM's code) and v2 (its own code on ESM's names) --------------------------------------


def _is_esm(published: Published, names: Collection[str]) -> bool:
    """Say whether the names are ESM's: a final norm of its own name, with or without the base prefix."""
    return any(name.removeprefix("esm.").startswith("encoder.emb_layer_norm_after.") for name in names)


def _read_esm(published: Published, fields: dict[str, Any]) -> dict[str, Any]:
    _refuse(published, "is_folding_model", "is_decoder")
    positions = _positions(published)
    quirks = ["positions_after_padding"] if positions == "learned" else []
    quirks += ["token_dropout"] if published.get("token_dropout") else []
    return {"positions": positions, "quirks": quirks}


def _read_nt_v2(published: Published, fields: dict[str, Any]) -> dict[str, Any]:
    bias = bool(published.get("add_bias_fnn", False))
    return _read_esm(published, fields) | {"biases": {"mlp_up": bias, "mlp_down": bias}}


def _write_esm(config: LongstrandConfig) -> Published:
    positions = "rotary" if config.positions == "rotary" else "absolute"
    return {"position_embedding_type": positions, "token_dropout": "token_dropout" in config.quirks}


# --- ModernGENA: transformers' ModernBERT on GENA's tokenizer ---------------------------------------------------------

_MODERN_BIASES = _WORDS["modern_biases"]
_THETAS = {"full_attention": ("global_rope_theta", 160_000.0), "sliding_attention": ("local_rope_theta", 10_000.0)}


def _ends(*endings: str) -> Callable[[Published, Collection[str]], bool]:
    """Recognise fused projections under names of their own, whatever model_type a wrapper gives itself."""
    return lambda published, names: all(any(name.endswith(end) for name in names) for end in endings)


def _read_modern(published: Published, fields: dict[str, Any]) -> dict[str, Any]:
    """Map a config of ModernBERT, written by transformers 4 or 5; refuse what is not implemented."""
    if not published.get("decoder_bias", True):
        raise CheckpointError("decoder_bias is false; only masked-LM heads with a vocabulary bias are supported.")
    if published.get("mlp_dropout"):
        logger.warning("mlp_dropout %s is left out; here embeddings and branches drop", published["mlp_dropout"])
    if (head := fields["heads"].get("sequence")) is not None:
        pooling = published.get("classifier_pooling", "cls")
        head["pooling"] = "mean_all" if pooling == "mean" else pooling
    biases = {ours: bool(published.get(theirs, False)) for ours, theirs in _MODERN_BIASES.items()}
    return {"biases": biases, "positions": "rotary", **_read_layers(published, fields["num_hidden_layers"])}


def _read_layers(published: Published, layers: int) -> dict[str, Any]:
    """Read which layers are local and the two bases of their rotary angles."""
    every = published.get("global_attn_every_n_layers", 3)
    kinds = published.get("layer_types") or _layer_types(layers, every)
    every = next((n for n in range(1, layers + 1) if kinds == _layer_types(layers, n)), None)
    if every is None and kinds != ["sliding_attention"] * layers:
        raise CheckpointError(f"layer_types {kinds} is not supported; every n-th layer, from layer 0 on, may be full.")
    rope = published.get("rope_parameters") or {}
    thetas: list[float] = []
    for kind, (old, default) in _THETAS.items():
        given = rope.get(kind) or {}
        if given.get("rope_type", "default") != "default" or published.get("rope_scaling"):
            raise CheckpointError("only plain rotary positions are supported, rope_type default and no rope_scaling.")
        theta = given.get("rope_theta", published.get(old, default))
        thetas.append(thetas[0] if theta is None else float(theta))  # a null local base is the global one
    if every == 1:
        return {"rotary": {"theta": thetas[0]}}
    attention = {"pattern": "sliding", "window": published.get("local_attention", 128), "global_every": every}
    return {"rotary": {"theta": thetas[0], "local_theta": thetas[1]}, "attention": attention}


def _layer_types(layers: int, every: int) -> list[str]:
    return ["sliding_attention" if layer % every else "full_attention" for layer in range(layers)]


def _write_modern(config: LongstrandConfig) -> Published:
    """Write ModernBERT's config with the keys that transformers 4.48 and later read."""
    attention, layers = config.attention, config.num_hidden_layers
    published: Published = {theirs: getattr(config.biases, ours) for ours, theirs in _MODERN_BIASES.items()}
    published |= {"mlp_dropout": config.hidden_dropout, "classifier_dropout": config.hidden_dropout}
    named = {"hidden_activation": config.activation, "classifier_activation": config.lm_activation or config.activation}
    published |= {key: "gelu_pytorch_tanh" for key, name in named.items() if name == "gelu_tanh"}
    every = (attention.global_every or layers + 1) if attention.pattern == "sliding" else 1
    kinds = _layer_types(layers, every)
    if attention.pattern == "sliding" and not attention.global_every:
        kinds = ["sliding_attention"] * layers
    local = config.rotary.local_theta or config.rotary.theta
    published |= {"layer_types": kinds, "global_attn_every_n_layers": every, "local_attention": attention.window}
    published |= {"global_rope_theta": config.rotary.theta, "local_rope_theta": local}
    for head in config.heads.values():
        if head.kind == "sequence" and head.pooling not in ("cls", "mean_all"):
            raise CheckpointError(f"ModernBERT's published format cannot express pooling {head.pooling}.")
        published |= {"classifier_pooling": head.pooling.removesuffix("_all")} if head.kind == "sequence" else {}
    return published


_CODE: dict[str, dict[str, Any]] = {
    "dnabert": {
        "recognise": lambda published, names: (
            _is_bert(published, names, pre_norm=False) and published.get("vocab_size") in _KMER_VOCABULARIES
        ),
        "read": _read_bert,
        "write": lambda config: _write_bert(config, pre_norm=False),
    },
    "bert": {
        "recognise": lambda published, names: _is_bert(published, names, pre_norm=False),
        "read": _read_bert,
        "write": lambda config: _write_bert(config, pre_norm=False),
    },
    "gena_bert": {
        "recognise": lambda published, names: _is_bert(published, names, pre_norm=True),
        "read": _read_bert,
        "write": lambda config: _write_bert(config, pre_norm=True),
    },
    "dnabert2": {"recognise": _ends(".attention.self.Wqkv.weight", ".mlp.gated_layers.weight")},
    "nt_v1": {
        "recognise": lambda published, names: (
            _is_esm(published, names) and "add_bias_fnn" not in published and published.get("model_type") == "esm"
        ),
        "read": _read_esm,
        "write": _write_esm,
    },
    "nt_v2": {
        "recognise": lambda published, names: _is_esm(published, names) and "add_bias_fnn" in published,
        "read": _read_nt_v2,
        "write": lambda config: _write_esm(config) | {"add_bias_fnn": config.biases.mlp_up},
    },
    "moderngena": {
        "recognise": _ends(".attn.Wqkv.weight", ".mlp.Wi.weight"),
        "read": _read_modern,
        "write": _write_modern,
    },
    "bigbird": {
        "recognise": lambda published, names: published.get("model_type") == "big_bird",
        "read": _read_bigbird,
        "write": _write_bigbird,
    },
}


def _read_table() -> dict[str, Family]:
    table = tomllib.loads(Path(__file__).with_name("families.toml").read_text(encoding="utf-8"))
    for entry in table.values():
        parent = table.get(entry.pop("like", ""), {})
        entry |= {**parent, **entry, "keys": {**parent.get("keys", {}), **entry.get("keys", {})}}
    return {name: Family(name=name, **table[name], **code) for name, code in _CODE.items()}


FAMILIES = _read_table()


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
