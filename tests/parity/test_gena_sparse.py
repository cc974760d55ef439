"""GENA's sparse models: DeepSpeed's block layout and transformers' BigBird, against published outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from longstrand.models import attention
from longstrand.models.checkpoint import load_model
from longstrand.models.convert import export_published, published_name
from longstrand.models.families import FAMILIES
from longstrand.models.layouts import bigbird_tables

CLOSE = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture(params=["dense", "gather"], autouse=True)
def path(request, monkeypatch):
    """Run every comparison through both paths."""
    monkeypatch.setattr(attention, "BREAK_EVEN", 0.0 if request.param == "gather" else 1e9)


@pytest.fixture(scope="module")
def golden(shared: Path) -> Path:
    folder = shared / "golden" / "gena"
    if not folder.is_dir():
        pytest.skip("no golden outputs of GENA")
    return folder


def read(path: Path) -> dict[str, torch.Tensor]:
    content = np.load(path)
    return {name: torch.from_numpy(np.asarray(content[name])) for name in content if content[name].dtype.kind in "fiu"}


def compare(model, expected, prefix, labels=True):
    """Compare logits, hidden states of real tokens, loss and gradient norms."""
    ids, mask = expected["input_ids"], expected["attention_mask"]
    output = model(ids, mask, output_hidden_states=True)
    logits, theirs = output.logits, expected[f"{prefix}logits"]
    real = mask.bool() if logits.dim() == 3 else torch.ones(len(ids), dtype=torch.bool)
    torch.testing.assert_close(logits[real], theirs[real], **CLOSE)
    for index, state in enumerate(output.hidden_states):
        stored = expected[f"{prefix}hidden_{index}"][:, : ids.shape[1]]
        torch.testing.assert_close(state[mask.bool()], stored[mask.bool()], **CLOSE)
    loss = model(ids, mask, labels=expected["labels"]).loss
    torch.testing.assert_close(loss, expected[f"{prefix}loss"].float(), rtol=1e-5, atol=1e-6)
    model.zero_grad()
    loss.backward()
    start, compared = f"{prefix}gradnorm/", 0
    norms = {name.removeprefix(start): float(v) for name, v in expected.items() if name.startswith(start)}
    for name, parameter in model.named_parameters():
        published = published_name(FAMILIES[model.config.family], name)
        if published in norms and not published.endswith("self.key.bias"):
            assert parameter.grad.double().norm().item() == pytest.approx(norms[published], rel=1e-3), published
            compared += 1
    assert compared == sum(not name.endswith("self.key.bias") for name in norms)


@pytest.mark.parametrize("prefix", ["sharedlayout/", "perlayer/"])
def test_block_layout_of_deepspeed(golden, prefix):
    folder = golden / "bert_preln_rotary8_dssparse_emulated"
    expected, model = read(folder / "expected.npz"), load_model(folder)
    assert model.config.family == "gena_bert" and model.config.attention["shared_layout"]
    assert torch.equal(model.encoder.layers[1].attention.layout.long(), expected["master_layout_layer1"])
    model.config.attention["shared_layout"] = prefix == "sharedlayout/"
    compare(model, expected, prefix)
    with torch.no_grad():
        mask = expected["attention_mask"][:, :48].bool()
        short = model(expected["input_ids"][:, :48], mask.long()).logits
    torch.testing.assert_close(short[mask], expected[f"{prefix}short48_logits"][mask], **CLOSE)


def test_block_layout_round_trip(golden, tmp_path):
    folder = golden / "bert_preln_rotary8_dssparse_emulated"
    export_published(load_model(folder), tmp_path)
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)
    load_model(tmp_path)


@pytest.mark.parametrize(
    ("head", "prefix"),
    [("mlm", "train_sparse/"), ("mlm", "eval_sparse/"), ("mlm", "eval_full/"), ("seqcls", "eval_sparse/")],
)
def test_bigbird(golden, head, prefix):
    expected, model = read(golden / "hf_bigbird" / head / "expected.npz"), load_model(golden / "hf_bigbird" / head)
    assert model.config.family == "bigbird"
    if prefix == "eval_sparse/":
        model.config.quirks = [*model.config.quirks, "zero_random_blocks"]
    if prefix == "eval_full/":
        model.config.attention = {**model.config.attention, "pattern": "full"}
    compare(model, expected, prefix)


def test_bigbird_is_full_for_a_short_input_and_sparse_again_after_it(golden):
    expected, model = read(golden / "hf_bigbird/mlm/expected.npz"), load_model(golden / "hf_bigbird/mlm")
    ids, mask = expected["input_ids"], expected["attention_mask"]
    with torch.no_grad():
        before = model(ids, mask).logits
        short = model(ids[:, :40], mask[:, :40]).logits
        assert torch.equal(model(ids, mask).logits, before)
    real = mask[:, :40].bool()
    torch.testing.assert_close(short[real], expected["short40_logits"][real], **CLOSE)


@pytest.mark.parametrize("head", ["mlm", "seqcls"])
def test_bigbird_round_trip(golden, head, tmp_path):
    model = load_model(golden / "hf_bigbird" / head)
    export_published(model, tmp_path)
    before, after = (
        load_file(golden / "hf_bigbird" / head / "model.safetensors"),
        load_file(tmp_path / "model.safetensors"),
    )
    before = {name: tensor for name, tensor in before.items() if "pooler" not in name}
    assert before.keys() <= after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert load_model(tmp_path).config.settings() == model.config.settings()


def test_random_tables_of_the_published_size(golden):
    stored = np.load(golden / "hf_bigbird" / "rand_attn_tables_base_b64_r3.npz")
    for layer in range(12):
        tables = bigbird_tables(layer, 12, 64, 64, 3)
        for length, plan in ((1024, 0), (2048, 1), (3072, 0), (4096, 0)):
            assert (tables[plan][:, : length // 64 - 2] == stored[f"layer{layer}_L{length}"]).all()
