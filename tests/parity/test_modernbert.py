"""ModernGENA is transformers' ModernBERT: the same outputs, losses and gradients for random weights, both ways."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    ModernBertConfig,
    ModernBertForMaskedLM,
    ModernBertForSequenceClassification,
    ModernBertForTokenClassification,
    ModernBertModel,
)

from longstrand.errors import CheckpointError
from longstrand.models.checkpoint import load_model
from longstrand.models.config import preset
from longstrand.models.pretrained import LongstrandForSequenceClassification, LongstrandModel
from longstrand.models.published.families import FAMILIES
from longstrand.models.published.to_ours import export_published, published_name

SMALL = {
    "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 40, "vocab_size": 61,
    "local_attention": 8, "max_position_embeddings": 64,
}  # fmt: skip
IDS = {"pad_token_id": 3, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
BIASED = {"attention_bias": True, "mlp_bias": True, "norm_bias": True, "classifier_bias": True}
GEOMETRIES = [
    pytest.param({}, id="moderngena"),
    pytest.param({**BIASED, "global_attn_every_n_layers": 2, "hidden_activation": "gelu_pytorch_tanh"}, id="biased"),
    pytest.param({"layer_types": ["sliding_attention"] * 4, "classifier_activation": "silu"}, id="all-local"),
    pytest.param({"global_attn_every_n_layers": 1}, id="all-global"),
]
CLOSE = {"atol": 2e-5, "rtol": 1e-4}


def stock_model(kind, implementation="sdpa", **changes):
    torch.manual_seed(0)
    config = ModernBertConfig(**{**SMALL, **IDS, **changes}, attn_implementation=implementation)
    model = kind(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter.data, mean=1.0 if parameter.dim() == 1 else 0.0, std=0.2)
    return model


def batch(length=30, vocab_size=61):
    torch.manual_seed(1)
    ids = torch.randint(5, vocab_size, (3, length))
    mask = torch.ones_like(ids)
    mask[0, length // 2 :] = 0
    ids[0, length // 2 :] = 3
    return ids, mask


def compare_gradients(ours, stock):
    """Compare every parameter; the parts of a fused one in their order."""
    theirs = {name: parameter.grad for name, parameter in stock.named_parameters()}
    found: dict[str, list] = {}
    family = FAMILIES["moderngena"]
    order = ["query", "key", "value", "gate", "up"]
    named = sorted(
        ours.named_parameters(), key=lambda pair: order.index(p) if (p := pair[0].split(".")[-2]) in order else -1
    )
    for name, parameter in named:
        found.setdefault(published_name(family, name), []).append(parameter.grad)
    assert found.keys() == theirs.keys()
    for name, parts in found.items():
        torch.testing.assert_close(
            torch.cat(parts), theirs[name], atol=1e-5, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("changes", GEOMETRIES)
def test_masked_lm(changes, implementation, tmp_path):
    stock = stock_model(ModernBertForMaskedLM, implementation, **changes)
    stock.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    assert ours.config.family == "moderngena"
    ours.set_attn_implementation(implementation)
    ids, mask = batch()
    real = mask.bool()
    labels = torch.where((torch.rand(ids.shape) < 0.3) & real, ids, -100)
    theirs = stock(ids, mask, labels=labels, output_hidden_states=True)
    with torch.no_grad():
        plain = ours(ids, mask, output_hidden_states=True)
    torch.testing.assert_close(plain.logits[real], theirs.logits[real], **CLOSE)
    assert len(plain.hidden_states) == len(theirs.hidden_states) == 5
    for mine, other in zip(plain.hidden_states, theirs.hidden_states):
        torch.testing.assert_close(mine[real], other[real], **CLOSE)
    loss = ours(ids, mask, labels=labels).loss
    torch.testing.assert_close(loss, theirs.loss, rtol=1e-5, atol=0)
    loss.backward()
    theirs.loss.backward()
    compare_gradients(ours, stock)


def test_attentions(tmp_path):
    stock = stock_model(ModernBertForMaskedLM, "eager")
    stock.save_pretrained(tmp_path)
    ids, mask = batch()
    rows = mask.bool()[:, None].expand(3, 4, 30)
    with torch.no_grad():
        theirs = stock(ids, mask, output_attentions=True).attentions
        ours = load_model(tmp_path)(ids, mask, output_attentions=True).attentions
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine[rows], other[rows], **CLOSE)
    assert not ours[1][1, 0, 0, 5:].any() and ours[0][1, 0, 0, 5:].all()


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_sequence_classifier(pooling, tmp_path):
    stock = stock_model(
        ModernBertForSequenceClassification, classifier_pooling=pooling, num_labels=3,
        problem_type="single_label_classification",
    )  # fmt: skip
    stock.save_pretrained(tmp_path)
    ours, (ids, mask) = load_model(tmp_path), batch()
    labels = torch.tensor([0, 2, 1])
    theirs, result = stock(ids, mask, labels=labels), ours(ids, mask, labels=labels)
    torch.testing.assert_close(result.logits, theirs.logits, **CLOSE)
    torch.testing.assert_close(result.loss, theirs.loss, rtol=1e-5, atol=0)
    result.loss.backward()
    theirs.loss.backward()
    compare_gradients(ours, stock)


def test_token_classifier(tmp_path):
    stock = stock_model(ModernBertForTokenClassification, num_labels=4)
    stock.save_pretrained(tmp_path)
    ours, (ids, mask) = load_model(tmp_path), batch()
    with torch.no_grad():
        torch.testing.assert_close(ours(ids, mask).logits[mask.bool()], stock(ids, mask).logits[mask.bool()], **CLOSE)


@pytest.mark.parametrize(
    "kind",
    [ModernBertModel, ModernBertForMaskedLM, ModernBertForSequenceClassification, ModernBertForTokenClassification],
)
@pytest.mark.parametrize("changes", GEOMETRIES)
def test_round_trip_is_bit_exact_and_stock_code_reads_it(kind, changes, tmp_path):
    stock = stock_model(kind, **changes)
    stock.save_pretrained(tmp_path / "stock")
    ours = load_model(tmp_path / "stock")
    export_published(ours, tmp_path / "again")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("stock", "again"))
    before = {name if kind is not ModernBertModel else f"model.{name}": tensor for name, tensor in before.items()}
    assert after.keys() - before.keys() <= {"decoder.weight"} and before.keys() <= after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    read, info = kind.from_pretrained(tmp_path / "again", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    ids, mask = batch()
    with torch.no_grad():
        assert torch.equal(read.eval()(ids, mask)[0], stock(ids, mask)[0])
    assert load_model(tmp_path / "again").config.settings() == ours.config.settings()


def test_a_config_of_transformers_4_says_the_same(tmp_path):
    stock = stock_model(ModernBertForMaskedLM)
    stock.save_pretrained(tmp_path)
    expected = load_model(tmp_path).config.settings()
    content = json.loads((tmp_path / "config.json").read_text())
    for name in ("layer_types", "rope_parameters"):
        content.pop(name, None)
    content |= {"global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0}
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert load_model(tmp_path).config.settings() == expected
    (tmp_path / "config.json").write_text(json.dumps(content | {"local_rope_theta": None}))
    assert load_model(tmp_path).config.rotary.local_theta == 160000.0, "null means the global base"
    assert expected["rotary"] == {"dims": None, "theta": 160000.0, "local_theta": 10000.0}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"decoder_bias": False}, "decoder_bias is false"),
        ({"layer_types": ["sliding_attention", *["full_attention"] * 3]}, "is not supported; every n-th layer"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "only plain rotary positions"),
        ({"hidden_activation": "mish"}, "hidden_activation 'mish' is not known"),
    ],
)
def test_settings_that_are_refused(changes, words, tmp_path):
    stock_model(ModernBertForMaskedLM).save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content | changes))
    with pytest.raises(CheckpointError, match=words):
        load_model(tmp_path)


def test_dropout_inside_the_mlp_is_noticed(tmp_path, caplog):
    stock_model(ModernBertForMaskedLM, mlp_dropout=0.1).save_pretrained(tmp_path)
    load_model(tmp_path)
    assert "mlp_dropout 0.1 is left out" in caplog.text


MODERN = {
    "gated_mlp": True, "type_vocab_size": 0, "quirks": ["no_first_attention_norm"], "family": "moderngena",
    "vocab_size": 61, "biases": dict.fromkeys(("attention", "mlp_up", "mlp_down", "norm", "lm_dense"), False),
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"attention": {"pattern": "block_sparse"}}, "cannot express .*attention"),
        ({"biases": {**MODERN["biases"], "mlp_up": True}}, "cannot express biases"),
        ({"quirks": []}, r"cannot express quirks \[\] \(they would become \['no_first_attention_norm'\]\)"),
        ({"positions": "alibi"}, "cannot express positions 'alibi'"),
    ],
)
def test_what_the_format_cannot_express(changes, words, tmp_path):
    with pytest.raises(CheckpointError, match=words):
        export_published(LongstrandModel(preset("tiny", **{**MODERN, **changes})), tmp_path)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ({"form": "pooler"}, "a sequence head with pooling mean and form pooler"),
        ({"form": "normed", "pooling": "max"}, "pooling max"),
    ],
)
def test_heads_that_the_format_cannot_express(head, words, tmp_path):
    heads = {"one": {"kind": "sequence", "problem": "regression", "num_outputs": 1, **head}}
    model = LongstrandForSequenceClassification(preset("tiny", heads=heads, **MODERN))
    with pytest.raises(CheckpointError, match=words):
        export_published(model, tmp_path)
