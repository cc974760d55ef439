"""DNABERT-2: published outputs of tiny random models, through import and export."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from longstrand.errors import CheckpointError
from longstrand.models.checkpoint import load_model
from longstrand.models.positions import alibi_bias, alibi_slopes
from longstrand.models.pretrained import MODELS
from longstrand.models.published.to_ours import export_published, import_published
from longstrand.models.strict_load import check_weights

CLOSE = {"atol": 2e-5, "rtol": 1e-5}
PROBLEMS = {
    "single": ("single_label_classification", 3),
    "regression": ("regression", 1),
    "multilabel": ("multi_label_classification", 4),
}


@pytest.fixture(params=["tiny12h", "tiny8h"])
def golden(request, shared):
    folder = shared / "golden" / "dnabert2" / request.param
    if not folder.is_dir():
        pytest.skip("no golden outputs of DNABERT-2")
    return folder, {k: torch.from_numpy(np.asarray(v)) for k, v in np.load(folder / "expected.npz").items()}


def with_classifier(folder, target, problem):
    """Lay a classifier's files out as published."""
    name, outputs = PROBLEMS[problem]
    target.mkdir()
    shutil.copy(folder / f"model_cls_{problem}.safetensors", target / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, "problem_type": name, "num_labels": outputs}))
    return target


def with_published_padding(folder, kind):
    """Load with padding id 0, as the published code has it: row 0 then gets no gradient from the input."""
    imported = import_published(folder)
    config = imported.config.replace(pad_token_id=0)
    return MODELS[kind].from_checked(check_weights(config, imported.tensors, kind, where="golden")).eval()


def compare_norms(model, norms):
    attention, mlp = (model.encoder.layers[0].attention, model.encoder.layers[0].mlp)
    last = model.encoder.layers[1]
    embeddings = model.encoder.embeddings
    named = {
        "bert.embeddings.word_embeddings.weight": [embeddings.word_embeddings.weight],
        "bert.embeddings.token_type_embeddings.weight": [embeddings.token_type_embeddings.weight],
        "bert.embeddings.LayerNorm.weight": [embeddings.norm.weight],
        "bert.encoder.layer.0.attention.self.Wqkv.weight": [
            p.weight for p in (attention.query, attention.key, attention.value)
        ],
        "bert.encoder.layer.0.attention.self.Wqkv.bias": [
            p.bias for p in (attention.query, attention.key, attention.value)
        ],
        "bert.encoder.layer.0.mlp.gated_layers.weight": [mlp.gate.weight, mlp.up.weight],
        "bert.encoder.layer.1.attention.output.dense.weight": [last.attention.dense.weight],
        "bert.encoder.layer.1.mlp.wo.weight": [last.mlp.down.weight],
        "bert.encoder.layer.1.mlp.layernorm.bias": [last.mlp_norm.bias],
    }
    for name, parameters in named.items():
        norm = sum(p.grad.square().sum() for p in parameters).sqrt().item()
        assert norm == pytest.approx(norms[name], rel=1e-4), name


def test_embeddings_hidden_states_and_logits(golden):
    folder, expected = golden
    model = load_model(folder)
    assert (model.config.family, model.config.pad_token_id) == ("dnabert2", 3)
    ids, mask, types = (expected[name] for name in ("input_ids", "attention_mask", "token_type_ids"))
    real = mask.bool()
    with torch.no_grad():
        output = model(ids, mask, output_hidden_states=True)
        torch.testing.assert_close(output.hidden_states[0][real], expected["embedding_output"][real], **CLOSE)
        torch.testing.assert_close(output.hidden_states[1][real], expected["hidden_1"][real], **CLOSE)
        assert torch.equal(expected["hidden_2"], expected["last_hidden_state"])
        torch.testing.assert_close(output.hidden_states[2], expected["last_hidden_state"], **CLOSE)
        torch.testing.assert_close(output.logits, expected["mlm_logits"], **CLOSE)
        encode = model.encoder
        typed = encode(ids, mask, types, output_hidden_states=True)
        torch.testing.assert_close(typed.hidden_states[0][real], expected["embedding_output_tt"][real], **CLOSE)
        torch.testing.assert_close(typed.last_hidden_state, expected["last_hidden_state_tt"], **CLOSE)
        torch.testing.assert_close(encode(ids).last_hidden_state, expected["no_mask_last_hidden_state"], **CLOSE)
        left = encode(expected["left_input_ids"], expected["left_attention_mask"]).last_hidden_state
        torch.testing.assert_close(left, expected["left_last_hidden_state"], **CLOSE)
        longer = encode(expected["long_input_ids"]).last_hidden_state
        torch.testing.assert_close(longer, expected["long_last_hidden_state"], **CLOSE)
        words = model.get_input_embeddings()(ids)
        assert torch.equal(encode(None, mask, inputs_embeds=words).last_hidden_state, output.hidden_states[2])


def test_losses_and_gradient_norms(golden):
    folder, expected = golden
    model = with_published_padding(folder, "masked_lm")
    ids, mask, labels = (expected[name] for name in ("input_ids", "attention_mask", "mlm_labels"))
    plain = model(ids, mask, labels=labels).loss
    torch.testing.assert_close(plain, expected["mlm_loss_plain_ce"].float(), rtol=1e-5, atol=0)
    loss = model(ids, mask, labels=labels.masked_fill(labels == 0, -100)).loss
    torch.testing.assert_close(loss, expected["mlm_loss"].float(), rtol=1e-5, atol=0)
    loss.backward()
    norms = json.loads((folder / "mlm_grad_norms.json").read_text())
    compare_norms(model, norms)
    assert model.lm_head.dense.weight.grad.norm().item() == pytest.approx(
        norms["cls.predictions.transform.dense.weight"]
    )
    assert model.lm_head.decoder.bias.grad.norm().item() == pytest.approx(norms["cls.predictions.decoder.bias"])
    places = labels > 0
    torch.testing.assert_close(
        model(ids, mask, labels=labels.masked_fill(labels == 0, -100)).label_logits,
        expected["mlm_logits_with_labels"][places],
        **CLOSE,
    )
    row = model.get_input_embeddings().weight.grad[0].norm().item()
    assert row == pytest.approx(norms["bert.embeddings.word_embeddings.weight[row0]"], rel=1e-3)


def test_unknown_tokens_learn_here_and_padding_does_not(golden):
    folder, _ = golden
    model = load_model(folder, "encoder")
    model(torch.tensor([[1, 0, 7, 3, 2]])).last_hidden_state.square().sum().backward()
    gradient = model.get_input_embeddings().weight.grad
    assert gradient[0].norm() > 0 and gradient[3].norm() == 0


@pytest.mark.parametrize("problem", PROBLEMS)
def test_classifiers(golden, problem, tmp_path):
    folder, expected = golden
    model = load_model(with_classifier(folder, tmp_path / "cls", problem))
    output = model(expected["input_ids"], expected["attention_mask"], labels=expected[f"cls_{problem}_labels"])
    torch.testing.assert_close(output.logits, expected[f"cls_{problem}_logits"], **CLOSE)
    torch.testing.assert_close(output.loss, expected[f"cls_{problem}_loss"].float(), rtol=1e-5, atol=1e-6)
    if problem == "single":
        first = model.encoder(expected["input_ids"], expected["attention_mask"]).last_hidden_state[:, 0]
        torch.testing.assert_close(torch.tanh(model.classifier.pooler(first)), expected["pooled_output"], **CLOSE)
        learner = with_published_padding(tmp_path / "cls", "sequence")
        learner(expected["input_ids"], expected["attention_mask"], labels=expected["cls_single_labels"]).loss.backward()
        norms = json.loads((folder / "cls_grad_norms.json").read_text())
        compare_norms(learner, norms)
        assert learner.classifier.pooler.weight.grad.norm().item() == pytest.approx(norms["bert.pooler.dense.weight"])
        assert learner.classifier.output.weight.grad.norm().item() == pytest.approx(norms["classifier.weight"])
    export_published(model, tmp_path / "again")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("cls", "again"))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_round_trip_is_bit_exact(golden, tmp_path):
    folder, _ = golden
    export_published(load_model(folder), tmp_path)
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert load_model(tmp_path).config.to_dict() | {"name_or_path": ""}


def test_slopes_and_bias(golden):
    folder, expected = golden
    for number, slopes in json.loads((folder.parent / "alibi_slopes.json").read_text()).items():
        if number.isdigit():
            assert alibi_slopes(int(number)) == pytest.approx(slopes, rel=1e-6)
    bias = alibi_bias(expected["alibi_bias_64"].shape[0], torch.arange(40)[None])[0]
    torch.testing.assert_close(bias, expected["alibi_bias_64"], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("family", ["bert", "dnabert", "gena_bert"])
def test_asked_for_as_bert(golden, family):
    words = rf"these are files of dnabert2, not of {family}: .*ALiBi, GEGLU"
    with pytest.raises(CheckpointError, match=words):
        import_published(golden[0], family=family)
    with pytest.raises(CheckpointError, match=words):
        load_model(golden[0], family=family)
