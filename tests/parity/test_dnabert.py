"""DNABERT 3-6: BERT in all but two habits of its repository, which are quirks."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from longstrand.errors import CheckpointError
from longstrand.models.checkpoint import load_model
from longstrand.models.config import preset
from longstrand.models.pretrained import LongstrandForMaskedLM
from longstrand.models.published.families import FAMILIES
from longstrand.models.published.to_ours import export_published, published_name


@pytest.fixture
def golden(shared):
    folder = shared / "golden" / "dnabert1" / "tiny_k6"
    if not folder.is_dir():
        pytest.skip("no golden outputs of DNABERT")
    return folder, {
        name: torch.from_numpy(np.asarray(value)) for name, value in np.load(folder / "expected.npz").items()
    }


REPOSITORY = {"quirks": ["double_decoder_bias", "unmasked_padding"]}
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


def with_classifier(folder, target):
    """Lay the classifier's files out as published."""
    target.mkdir()
    shutil.copy(folder / "model_cls.safetensors", target / "model.safetensors")
    content = json.loads((folder / "config.json").read_text())
    settings = {"num_labels": 3, "problem_type": "single_label_classification"}
    (target / "config.json").write_text(json.dumps(content | settings))
    return target


def pooled(model, ids, mask):
    return torch.tanh(model.classifier.pooler(model.encoder(ids, mask).last_hidden_state[:, 0]))


def test_loss_and_gradient_norms(golden):
    folder, expected = golden
    model = load_model(folder)
    ids, mask = expected["input_ids"], expected["attention_mask"]
    loss = model(ids, mask, labels=expected["mlm_labels"]).loss
    torch.testing.assert_close(loss, expected["mlm_loss"].float(), rtol=1e-5, atol=0)
    loss.backward()
    norms = json.loads((folder / "mlm_grad_norms.json").read_text())
    compared = 0
    for name, parameter in model.named_parameters():
        theirs = published_name(FAMILIES["dnabert"], name)
        if theirs in norms and not theirs.endswith("key.bias"):
            assert parameter.grad.norm().item() == pytest.approx(norms[theirs], rel=1e-3, abs=1e-6), theirs
            compared += 1
    assert compared == len([name for name in norms if not name.endswith("key.bias")])


@pytest.mark.parametrize("prefix", ["", "repohead_"])
def test_quirks_reproduce_the_repository(golden, prefix):
    folder, expected = golden
    if f"{prefix}mlm_logits" not in expected:
        pytest.skip("the repository's own numbers are not stored")
    model = load_model(folder, changes=REPOSITORY if prefix else None)
    ids, mask = expected["input_ids"], expected["attention_mask"]
    with torch.no_grad():
        output = model(ids, mask, output_hidden_states=True, output_attentions=True)
        loss = model(ids, mask, labels=expected["mlm_labels"]).loss
    torch.testing.assert_close(output.logits, expected[f"{prefix}mlm_logits"], **CLOSE)
    torch.testing.assert_close(loss, expected[f"{prefix}mlm_loss"].float(), rtol=1e-5, atol=0)
    for index, state in enumerate(output.hidden_states):
        torch.testing.assert_close(state, expected[f"{prefix}hidden_{index}"], **CLOSE)
    for index, probabilities in enumerate(output.attentions):
        torch.testing.assert_close(probabilities, expected[f"{prefix}attn_{index}"], atol=1e-5, rtol=1e-4)


def test_classifier(golden, tmp_path):
    folder, expected = golden
    published = with_classifier(folder, tmp_path / "cls")
    model, ids, mask = load_model(published), expected["input_ids"], expected["attention_mask"]
    assert model.config.family == "dnabert"
    with torch.no_grad():
        output = model(ids, mask, labels=expected["cls_labels"])
        torch.testing.assert_close(output.logits, expected["cls_logits"], **CLOSE)
        torch.testing.assert_close(output.loss, expected["cls_loss"].float(), rtol=1e-5, atol=0)
        torch.testing.assert_close(pooled(model, ids, mask), expected["pooled_output"], **CLOSE)
        theirs = load_model(published, changes={"quirks": ["unmasked_padding"]})
        torch.testing.assert_close(theirs(ids, mask).logits, expected["repohead_cls_logits"], **CLOSE)
        torch.testing.assert_close(pooled(theirs, ids, mask), expected["repohead_pooled_output"], **CLOSE)


@pytest.mark.parametrize("kind", ["masked_lm", "sequence"])
def test_round_trip_is_bit_exact(golden, kind, tmp_path):
    folder = golden[0] if kind == "masked_lm" else with_classifier(golden[0], tmp_path / "cls")
    export_published(load_model(folder), tmp_path / "again")
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "again" / "model.safetensors")
    if kind == "masked_lm":
        before = {name: tensor for name, tensor in before.items() if "pooler" not in name}
    assert before.keys() == after.keys() - {"bert.embeddings.position_ids"}
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)


def test_another_vocabulary_is_plain_bert_and_dnabert_may_be_insisted_to_be_bert(golden, tmp_path):
    assert load_model(golden[0], family="bert").config.family == "bert"
    torch.manual_seed(0)
    model = LongstrandForMaskedLM(preset("tiny", vocab_size=70, norm="post", positions="learned"))
    export_published(model, tmp_path, "bert")
    assert load_model(tmp_path).config.family == "bert"
    with pytest.raises(CheckpointError, match="these are files of bert, not of dnabert"):
        load_model(tmp_path, family="dnabert")
