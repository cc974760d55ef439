"""Nucleotide Transformer v1 and v2: published outputs of tiny random models, through import and export."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import EsmConfig, EsmForMaskedLM

from longstrand.errors import InputError
from longstrand.models.checkpoint import load_model
from longstrand.models.published.to_ours import export_published, import_published

CLOSE = {"atol": 2e-5, "rtol": 1e-5}
PROBLEMS = {
    "single": ("single_label_classification", 3),
    "regression": ("regression", 1),
    "multilabel": ("multi_label_classification", 4),
    "token": ("single_label_classification", 5),
}


@pytest.fixture(params=["v1", "v2"])
def golden(request, shared):
    folder = shared / "golden" / "nt" / f"{request.param}_tiny"
    if not folder.is_dir():
        pytest.skip("no golden outputs of Nucleotide Transformer")
    return folder, {k: torch.from_numpy(np.asarray(v)) for k, v in np.load(folder / "expected.npz").items()}


def test_embeddings_hidden_states_attentions_and_logits(golden):
    folder, expected = golden
    model = load_model(folder)
    assert model.config.family == "nt_" + folder.name[:2]
    ids, mask = expected["input_ids"], expected["attention_mask"]
    real = mask.bool()
    with torch.no_grad():
        output = model(ids, mask, output_hidden_states=True, output_attentions=True)
        for index, state in enumerate(output.hidden_states):
            torch.testing.assert_close(state[real], expected[f"hidden_{index}"][real], **CLOSE)
        assert torch.equal(expected["embedding_output"], expected["hidden_0"])
        before_norm = []
        hook = model.encoder.final_norm.register_forward_pre_hook(lambda _, inputs: before_norm.append(inputs[0]))
        model(ids, mask)
        hook.remove()
        torch.testing.assert_close(before_norm[0][real], expected["last_block_pre_final_ln"][real], **CLOSE)
        for index, weights in enumerate(output.attentions):
            rows = real[:, None].expand(weights.shape[:3])
            torch.testing.assert_close(weights[rows], expected[f"attn_{index}"][rows], **CLOSE)
        torch.testing.assert_close(output.logits[real], expected["mlm_logits"][real], **CLOSE)
        encode = model.encoder
        clean = expected["unmasked_input_ids"]
        state = encode(clean, mask).last_hidden_state
        torch.testing.assert_close(state[real], expected["unmasked_last_hidden"][real], **CLOSE)
        start = encode(ids[:, :8], torch.ones_like(ids[:, :8])).last_hidden_state
        torch.testing.assert_close(start, expected["nomask_last_hidden"], **CLOSE)
        if "long_input_ids" in expected:
            longer = encode(expected["long_input_ids"]).last_hidden_state
            torch.testing.assert_close(longer, expected["long_last_hidden"], **CLOSE)


def test_loss_and_gradient_norms(golden):
    folder, expected = golden
    model = load_model(folder)
    loss = model(expected["input_ids"], expected["attention_mask"], labels=expected["mlm_labels"]).loss
    torch.testing.assert_close(loss, expected["mlm_loss"].float(), rtol=1e-5, atol=0)
    loss.backward()
    layers, encoder, head = model.encoder.layers, model.encoder, model.lm_head
    up = [layers[0].mlp.up.weight] + ([layers[0].mlp.gate.weight] if model.config.gated_mlp else [])
    named = {
        "esm.embeddings.word_embeddings.weight": [encoder.embeddings.word_embeddings.weight],
        "esm.encoder.layer.0.attention.self.query.weight": [layers[0].attention.query.weight],
        "esm.encoder.layer.0.intermediate.dense.weight": up,
        "esm.encoder.layer.1.output.dense.weight": [layers[1].mlp.down.weight],
        "esm.encoder.layer.1.LayerNorm.bias": [layers[1].mlp_norm.bias],
        "esm.encoder.emb_layer_norm_after.weight": [encoder.final_norm.weight],
        "lm_head.bias": [head.decoder.bias],
        "lm_head.dense.weight": [head.dense.weight],
        "lm_head.decoder.weight": [head.decoder.weight],
    }
    if encoder.embeddings.position_embeddings is not None:
        named["esm.embeddings.position_embeddings.weight"] = [encoder.embeddings.position_embeddings.weight]
    norms = json.loads((folder / "mlm_grad_norms.json").read_text())
    key_bias = "esm.encoder.layer.0.attention.self.key.bias"
    assert norms.keys() - named.keys() == {key_bias}
    # 0 in exact arithmetic with absolute positions; of another size with rotary ones
    rotary = encoder.embeddings.position_embeddings is None
    assert layers[0].attention.key.bias.grad.norm().item() == pytest.approx(
        norms[key_bias], rel=1e-3 if rotary else 0, abs=0 if rotary else 1e-5
    )
    for name, parameters in named.items():
        norm = sum(p.grad.square().sum() for p in parameters).sqrt().item()
        assert norm == pytest.approx(norms[name], rel=1e-4), name


@pytest.mark.parametrize("problem", PROBLEMS)
def test_heads(golden, problem, tmp_path):
    folder, expected = golden
    tensors = {n: t for n, t in load_file(folder / "model.safetensors").items() if not n.startswith("lm_head.")}
    tensors |= load_file(folder / f"classifier_{problem}.safetensors")
    save_file(tensors, tmp_path / "model.safetensors")
    name, outputs = PROBLEMS[problem]
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "problem_type": name, "num_labels": outputs}))
    model = load_model(tmp_path)
    ids, mask = expected["unmasked_input_ids"], expected["attention_mask"]
    with torch.no_grad():
        if problem == "token":
            real = mask.bool()
            torch.testing.assert_close(model(ids, mask).logits[real], expected["tokcls_logits"][real], **CLOSE)
        else:
            output = model(ids, mask, labels=expected[f"cls_{problem}_labels"])
            torch.testing.assert_close(output.logits, expected[f"cls_{problem}_logits"], **CLOSE)
            torch.testing.assert_close(output.loss, expected[f"cls_{problem}_loss"].float(), rtol=1e-5, atol=1e-6)
    export_published(model, tmp_path / "again")
    after = load_file(tmp_path / "again" / "model.safetensors")
    assert all(torch.equal(after[n], tensors[n]) for n in tensors.keys() & after.keys())
    assert {n for n in tensors if n.startswith("classifier.")} <= after.keys()


def test_round_trip_is_bit_exact_and_says_what_it_leaves_out(golden, tmp_path):
    folder, _ = golden
    imported = import_published(folder)
    export_published(load_model(folder), tmp_path)
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert before.keys() - after.keys() <= imported.dropped.keys()
    assert not after.keys() - before.keys()
    assert all(torch.equal(before[name], after[name]) for name in after)
    if folder.name == "v2_tiny":
        assert "never added" in imported.dropped["esm.embeddings.position_embeddings.weight"]


def test_embeddings_in_place_of_ids(golden):
    folder, expected = golden
    model = load_model(folder, "encoder")
    ids, mask = expected["input_ids"], expected["attention_mask"]
    clean = expected["unmasked_input_ids"]
    with torch.no_grad():
        words = model.get_input_embeddings()
        plain = model(clean, mask).last_hidden_state
        assert torch.equal(model(None, mask, inputs_embeds=words(clean)).last_hidden_state, plain)
        expected_state = model(ids, mask).last_hidden_state
        assert torch.equal(model(ids, mask, inputs_embeds=words(ids)).last_hidden_state, expected_state)
        if "token_dropout" in model.config.quirks:
            with pytest.raises(InputError, match=r"holds the vector of the mask token.*give input_ids beside"):
                model(None, mask, inputs_embeds=words(ids))
        nothing = model(torch.full((1, 6), 2)).last_hidden_state
        assert torch.isfinite(nothing).all()


def test_too_long_for_the_table(shared):
    folder = shared / "golden" / "nt" / "v1_tiny"
    if not folder.is_dir():
        pytest.skip("no golden outputs of Nucleotide Transformer")
    with pytest.raises(InputError, match="the input has 41 tokens, but the position table of this model ends at 40"):
        load_model(folder, "encoder")(torch.full((1, 41), 7))


TINY_ESM = {
    "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
    "pad_token_id": 1, "mask_token_id": 2, "max_position_embeddings": 64, "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}  # fmt: skip


@pytest.mark.parametrize("kind", ["absolute", "rotary"])
@pytest.mark.parametrize("before", [False, True])
def test_other_encoders_of_stock_esm(kind, before, tmp_path):
    """ESM-2 is rotary; transformers 5 writes its inverse frequencies under one odd name."""
    torch.manual_seed(0)
    config = EsmConfig(**TINY_ESM, position_embedding_type=kind, token_dropout=True, emb_layer_norm_before=before)
    stock = EsmForMaskedLM(config).eval()
    for parameter in stock.parameters():
        torch.nn.init.normal_(parameter.data, mean=float(parameter.dim() == 1), std=0.2)
    stock.save_pretrained(tmp_path)
    ids = torch.randint(5, 61, (2, 20))
    ids[:, 3] = 2
    mask = torch.ones_like(ids)
    mask[1, 12:], ids[1, 12:] = 0, 1
    with torch.no_grad():
        found = load_model(tmp_path)(ids, mask).logits[mask.bool()]
        torch.testing.assert_close(found, stock(ids, mask).logits[mask.bool()], atol=1e-4, rtol=1e-4)
