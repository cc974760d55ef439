from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from longstrand.errors import CheckpointError
from longstrand.models.checkpoint import load_model
from longstrand.models.config import preset
from longstrand.models.pretrained import LongstrandForMaskedLM, LongstrandForTokenClassification, LongstrandModel
from longstrand.models.published.families import FAMILIES
from longstrand.models.published.to_ours import export_published

GENA = {"norm": "pre", "norm_eps": 1e-12, "rotary": {"dims": 8}, "family": "gena_bert"}


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    export_published(LongstrandForMaskedLM(preset("tiny", vocab_size=23, **GENA)), tmp_path)
    return tmp_path


def change_config(folder, **changes):
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "t5"}, r"unknown architecture .model_type 't5'.*known: longstrand, dnabert, bert, gena_bert"),
        ({"sparse_config_cls": "a.b:FixedSparsityConfig"}, "sparse_config_cls 'FixedSparsityConfig' is not known"),
        ({"is_decoder": True}, "only encoders are supported"),
        ({"hidden_act": "mish"}, "hidden_act 'mish' is not known; known: gelu"),
        ({"pre_layer_norm": False, "last_layer_norm": True}, "last_layer_norm without pre_layer_norm is refused"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key' is not known"),
        ({"rotary_base": None}, "rotary positions need rotary_base"),
    ],
)
def test_published_settings_that_are_refused(folder, changes, words):
    change_config(folder, **changes)
    with pytest.raises(CheckpointError, match=words):
        load_model(folder)


def test_a_missing_published_tensor_is_named_as_published(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["bert.encoder.layer.1.pre_attention_ln.bias"]
    tensors["bert.surprise"] = torch.zeros(2)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        load_model(folder)
    assert "missing: bert.encoder.layer.1.pre_attention_ln.bias (here encoder.layers.1.attention_norm.bias)" in str(
        caught.value
    )
    assert "unexpected: bert.surprise" in str(caught.value)


def test_tied_copies_that_differ_are_refused(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["cls.predictions.decoder.weight"] += 1
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"cls.predictions.decoder.weight should be a copy of bert.embeddings"):
        load_model(folder)


def test_a_bare_encoder_without_prefix(folder, tmp_path):
    tensors = {
        n.removeprefix("bert."): t for n, t in load_file(folder / "model.safetensors").items() if n.startswith("bert.")
    }
    expected = load_model(folder, "encoder")(torch.tensor([[5, 6, 7]])).last_hidden_state
    save_file(tensors, folder / "model.safetensors")
    assert torch.equal(load_model(folder)(torch.tensor([[5, 6, 7]])).last_hidden_state, expected)


def test_new_head_on_a_published_encoder(folder):
    model = load_model(folder, "sequence", new_head={"problem": "regression", "num_outputs": 2})
    assert model(torch.tensor([[5, 6, 7]])).logits.shape == (1, 2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"positions": "alibi"}, "cannot express positions 'alibi'"),
        ({"norm": "post"}, "family gena_bert is pre-norm"),
        ({"gated_mlp": True}, r"cannot express gated_mlp True \(it would become False\)"),
        ({"embedding_norm": False}, "cannot express embedding_norm False"),
        ({"type_vocab_size": 0}, "no token types"),
    ],
)
def test_what_the_published_format_cannot_express(tmp_path, changes, words):
    model = LongstrandModel(preset("tiny", vocab_size=9, **{**GENA, **changes}))
    with pytest.raises(CheckpointError, match=words):
        export_published(model, tmp_path)


def test_a_head_that_the_format_cannot_express(tmp_path):
    heads = {"t": {"kind": "token", "form": "pooler", "problem": "regression", "num_outputs": 1}}
    model = LongstrandForTokenClassification(preset("tiny", vocab_size=9, heads=heads, **GENA))
    with pytest.raises(CheckpointError, match="a token head with pooling mean and form pooler"):
        export_published(model, tmp_path)


def test_our_own_models_name_their_target_family(tmp_path):
    model = LongstrandModel(preset("tiny", vocab_size=9, norm="pre"))
    with pytest.raises(
        CheckpointError, match="family 'longstrand' has no published format; choose one of: dnabert, bert, gena_bert"
    ):
        export_published(model, tmp_path)
    export_published(model, tmp_path, "gena_bert")
    assert load_model(tmp_path).config.family == "gena_bert"


def test_norms_belong_to_their_family(tmp_path):
    model = LongstrandModel(preset("tiny", vocab_size=9, norm="pre"))
    with pytest.raises(
        CheckpointError, match="family bert is post-norm, the model's norm is 'pre'; export it as gena_bert"
    ):
        export_published(model, tmp_path, "bert")
    model = LongstrandModel(preset("tiny", vocab_size=9, norm="post", positions="learned"))
    with pytest.raises(
        CheckpointError, match="family gena_bert is pre-norm, the model's norm is 'post'; export it as bert"
    ):
        export_published(model, tmp_path, "gena_bert")
    export_published(model, tmp_path, "bert")
    assert load_model(tmp_path).config.family == "bert"


def test_every_entry_explains_itself():
    for name, family in FAMILIES.items():
        assert family.name == name and len(family.differences) > 40
        assert all(len(reason) > 10 for reason in family.dropped.values())
        assert len(set(family.keys.values())) == len(family.keys)
