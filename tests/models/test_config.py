from __future__ import annotations

import json

import pytest

import longstrand.auto
from longstrand.errors import ConfigError, UsageError
from longstrand.models.config import PRESETS, EncoderSettings, LongstrandConfig, preset
from longstrand.models.pretrained import LongstrandForMaskedLM, LongstrandForSequenceClassification, LongstrandModel

assert longstrand.auto


def test_defaults_touch_no_quirk_and_declare_tying():
    config = LongstrandConfig()
    assert config.quirks == [] and config.tie_word_embeddings is True and config.heads == {}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"hiden_size": 16}, "unknown key 'hiden_size' (did you mean 'hidden_size'?)"),
        ({"rotary": {"teta": 1.0}}, "unknown key 'rotary.teta' (did you mean 'theta'?)"),
        ({"vocab_size": "forty"}, "'vocab_size': Input should be a valid integer (got 'forty')"),
        ({"vocab_size": "40"}, "'vocab_size': Input should be a valid integer (got '40')"),
        ({"hidden_dropout": 1.5}, "'hidden_dropout': Input should be less than 1 (got 1.5)"),
        ({"norm": "middle"}, "'norm': Input should be 'post', 'pre' or 'pre_final' (got 'middle')"),
        ({"hidden_size": 100, "num_attention_heads": 3}, "hidden_size 100 is not a multiple of num_attention_heads 3"),
        (
            {"positions": "rotary", "rotary": {"dims": 7}},
            "rotary.dims is 7; it must be even and at most the head size 64",
        ),
        ({"vocab_size": 3, "pad_token_id": 3}, "pad_token_id 3 is outside the vocabulary of 3"),
        (
            {"quirks": ["double_decoder_bia"]},
            "unknown quirk 'double_decoder_bia' (did you mean 'double_decoder_bias'?)",
        ),
        ({"memory": {"num_tokens": 8, "segment_length": 8}}, "segment_length 8 leaves no room for DNA beside 8 memory"),
        ({"memory": {"num_tokens": 4, "segment_length": 8, "form": "mem_x_mem"}}, "no room for DNA beside 8 memory"),
        ({"memory": {"bptt_depth": -1}}, "greater than or equal to 0"),
        ({"memory": {"segment_length": 600}, "positions": "learned"}, "segment_length 600 exceeds the 512 positions"),
        ({"memory": {"bins_per_segment": 3, "split": "left"}}, "bins_per_segment needs memory.sep_token_id"),
        ({"memory": {"bins_per_segment": 3, "split": "left", "form": "mem_x_mem"}}, "needs form cls_mem_sep"),
        ({"memory": {"bins_per_segment": 3, "sep_token_id": 2}}, "set split: left"),
        ({"memory": {"cls_token_id": 40_000}}, "memory.cls_token_id 40000 is outside the vocabulary"),
        ({"quirks": ["published_bptt"]}, "the quirk published_bptt needs memory"),
        (
            {
                "memory": {},
                "heads": {"x": {"kind": "sequence", "problem": "regression", "num_outputs": 1, "pooling": "cls"}},
            },
            "pooling cls needs memory.form cls_mem_sep and memory.cls_token_id",
        ),
        ({"heads": {"x": {"kind": "bin", "problem": "counts", "num_outputs": 1}}}, "a bin head needs bin_token_id"),
        ({"attention": {"pattern": "sliding", "window": None}}, "sliding attention needs window"),
        ({"attention": {"pattern": "block_sparse", "block_size": None}}, "block_sparse attention needs block_size"),
        ({"attention": {"num_window_blocks": 4}}, "num_window_blocks is 4; it must be odd"),
        ({"attention": {"layout": "bigbird", "num_global_blocks": 1}}, "layout bigbird has num_global_blocks 2"),
        ({"rotary": {"local_theta": 1.0}}, "rotary.local_theta is for attention.pattern sliding"),
        ({"heads": {"x": {"kind": "sequence"}}}, "a sequence head needs num_outputs and problem"),
        (
            {"heads": {"x": {"kind": "token", "problem": "single_label", "num_outputs": 1}}},
            "a single_label head needs num_outputs of at least 2",
        ),
        (
            {"heads": {"x": {"kind": "token", "problem": "regression", "num_outputs": 2, "class_names": ["a"]}}},
            "class_names has 1 entries, but num_outputs is 2",
        ),
        (
            {"heads": {"x": {"kind": "token", "problem": "regression", "num_outputs": 1, "class_weights": [1.0]}}},
            "class_weights are for single_label, not regression",
        ),
        (
            {"heads": {"x": {"kind": "token", "problem": "regression", "num_outputs": 1, "pos_weight": [1.0]}}},
            "pos_weight is for multi_label, not regression",
        ),
    ],
)
def test_wrong_settings_are_refused(values, words):
    with pytest.raises(ConfigError) as caught:
        LongstrandConfig(**values)
    assert words in str(caught.value)


def test_every_problem_is_in_one_message():
    with pytest.raises(ConfigError) as caught:
        LongstrandConfig(hiden_size=1, vocab_size="x", norm="?")
    assert all(word in str(caught.value) for word in ("hiden_size", "vocab_size", "norm"))


def test_a_file_with_an_unknown_key_is_refused_by_every_door(tmp_path):
    from transformers import AutoConfig, AutoModel

    LongstrandModel(preset("tiny", vocab_size=9)).save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content | {"hiden_size": 16}))
    for door in (LongstrandConfig, AutoConfig, AutoModel, LongstrandModel):
        with pytest.raises(ConfigError, match=r"hiden_size.*did you mean 'hidden_size'"):
            door.from_pretrained(tmp_path)


def test_overrides_while_loading_are_validated(tmp_path):
    from transformers import AutoModel

    LongstrandModel(preset("tiny", vocab_size=9)).save_pretrained(tmp_path)
    assert LongstrandConfig.from_pretrained(tmp_path, hidden_dropout=0.25).hidden_dropout == 0.25
    with pytest.raises(ConfigError, match="hidden_dropout"):
        LongstrandConfig.from_pretrained(tmp_path, hidden_dropout="much")
    with pytest.raises(ConfigError, match="unknown key 'hiden_dropout'"):
        LongstrandConfig.from_pretrained(tmp_path, hiden_dropout=0.1)
    for door in (AutoModel, LongstrandModel):
        with pytest.raises(ConfigError, match="unknown argument 'hiden_dropout'"):
            door.from_pretrained(tmp_path, hiden_dropout=0.1)


def test_survives_a_file(tmp_path):
    heads = {
        "sequence": {"kind": "sequence", "problem": "single_label", "num_outputs": 3, "class_names": ["a", "b", "c"]}
    }
    config = preset("mini", vocab_size=77, heads=heads, rotary={"dims": 8})
    config.save_pretrained(tmp_path)
    again = LongstrandConfig.from_pretrained(tmp_path)
    assert again.settings() == config.settings()
    assert again.id2label == {0: "a", 1: "b", 2: "c"} and again.num_labels == 3 and again.label2id["c"] == 2


def test_labels_without_names_follow_the_head():
    config = LongstrandConfig(heads={"x": {"kind": "token", "problem": "multi_label", "num_outputs": 5}})
    assert config.num_labels == 5


def test_replace_changes_one_field_and_validates():
    config = preset("tiny", vocab_size=9)
    assert config.replace(hidden_dropout=0.5).hidden_dropout == 0.5 and config.hidden_dropout == 0.0
    with pytest.raises(ConfigError):
        config.replace(vocab_size=0)


@pytest.mark.parametrize(
    ("name", "millions"), [("tiny", 0.4), ("mini", 2.4), ("small", 8.9), ("medium", 25.3), ("base", 85.1)]
)
def test_presets_have_the_size_they_say(name, millions):
    import torch

    with torch.device("meta"):
        model = LongstrandModel(preset(name, vocab_size=4))
    assert model.num_parameters() / 1e6 == pytest.approx(millions, abs=0.1)


def test_unknown_preset_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'small'"):
        preset("smal", vocab_size=4)
    assert "large" in PRESETS


def test_a_head_must_be_declared_and_only_it_is_kept():
    with pytest.raises(ConfigError, match="declares no sequence head; add for example heads="):
        LongstrandForSequenceClassification(preset("tiny", vocab_size=9))
    heads = {"a": {"kind": "masked_lm"}, "b": {"kind": "sequence", "problem": "regression", "num_outputs": 1}}
    config = preset("tiny", vocab_size=9, heads=heads)
    assert list(LongstrandForMaskedLM(config).config.heads) == ["masked_lm"]
    assert list(LongstrandForSequenceClassification(config).config.heads) == ["sequence"]
    assert list(config.heads) == ["a", "b"]


def test_every_field_is_described():
    assert all(field.description for field in EncoderSettings.model_fields.values())
