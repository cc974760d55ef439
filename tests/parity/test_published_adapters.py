"""LoRA and IA3 adapters trained on published code by PEFT 0.10, by their published names, on our model."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

pytest.importorskip("peft")

from longstrand import load_adapter
from longstrand.errors import CheckpointError, UsageError
from longstrand.models.config import preset
from longstrand.models.pretrained import LongstrandForMaskedLM

ADAPTERS = ["peft_lora_qv_r1_a32", "peft_lora_gue_r8_a16", "peft_ia3_kv_ff"]
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(params=[(version, name) for version in ("v1", "v2") for name in ADAPTERS], ids="-".join)
def golden(request, shared):
    version, name = request.param
    folder = shared / "golden" / "nt" / f"{version}_tiny"
    if not (folder / name).is_dir():
        pytest.skip("no golden adapters of Nucleotide Transformer")
    expected = {k: torch.from_numpy(np.asarray(v)) for k, v in np.load(folder / name / "expected.npz").items()}
    return folder, folder / name, expected


def run(model, expected):
    return model(input_ids=expected["input_ids"], attention_mask=expected["attention_mask"], labels=expected["labels"])


def norm(*tensors):
    return torch.cat([tensor.flatten() for tensor in tensors]).double().norm().item()


def test_logits_loss_and_merged(golden):
    folder, adapter, expected = golden
    model = load_adapter(folder, adapter)
    with torch.no_grad():
        output = run(model, expected)
        torch.testing.assert_close(output.logits, expected["logits"], **CLOSE)
        torch.testing.assert_close(output.loss, expected["loss"].float(), rtol=1e-5, atol=0)
        with model.disable_adapter():
            first = model.base_model.model.encoder(expected["input_ids"], expected["attention_mask"])[0][:, 0]
        head = load_file(folder / "classifier_single.safetensors")
        vector = torch.tanh(F.linear(first, head["classifier.dense.weight"], head["classifier.dense.bias"]))
        base = F.linear(vector, head["classifier.out_proj.weight"], head["classifier.out_proj.bias"])
        torch.testing.assert_close(base, expected["base_logits"], **CLOSE)
        assert (base - expected["logits"]).abs().max() > 1e-3
        merged = model.merge_and_unload()
        torch.testing.assert_close(run(merged, expected).logits, expected["logits"], **CLOSE)


def test_gradient_norms(golden):
    folder, adapter, expected = golden
    model = load_adapter(folder, adapter)
    run(model, expected).loss.backward()
    layers, head = model.base_model.model.encoder.layers, model.base_model.model.classifier
    norms = json.loads((adapter / "grad_norms.json").read_text())
    for name, value in norms.items():
        words = name.removeprefix("base_model.model.").split(".")
        if words[0] == "classifier":
            layer = (head.pooler if "dense" in words else head.output).modules_to_save["default"]
            if "lora_A" in words or "lora_B" in words:
                continue
            grads = [layer.weight.grad if words[-1] == "weight" else layer.bias.grad]
        else:
            layer = layers[int(words[3])]
            tail = ".".join(words[4:])
            if tail.startswith("intermediate"):
                parts = [part for part in (layer.mlp.gate, layer.mlp.up) if part is not None]
            else:
                outer = words[4] == "output"
                parts = [
                    layer.mlp.down if outer else getattr(layer.attention, words[6] if words[5] == "self" else "dense")
                ]
            if "ia3_l" in words:
                grads = [part.ia3_l["default"].grad for part in parts]
            elif "lora_A" in words:
                grads = [sum(part.lora_A["default"].weight.grad for part in parts)]
            else:
                grads = [part.lora_B["default"].weight.grad for part in parts]
        assert norm(*grads) == pytest.approx(value, rel=1e-3, abs=1e-6), name


@pytest.fixture
def copy(shared, tmp_path):
    """Copy an adapter of NT v2, to damage it."""
    folder = shared / "golden" / "nt" / "v2_tiny"
    if not (folder / ADAPTERS[0]).is_dir():
        pytest.skip("no golden adapters of Nucleotide Transformer")

    def take(name=ADAPTERS[0], change=None, **settings):
        target = tmp_path / "adapter"
        shutil.copytree(folder / name, target)
        content = json.loads((target / "adapter_config.json").read_text())
        (target / "adapter_config.json").write_text(json.dumps(content | settings))
        if change is not None:
            tensors = load_file(target / "adapter_model.safetensors")
            change(tensors)
            save_file(tensors, target / "adapter_model.safetensors")
        return folder, target

    return take


QUERY = "base_model.model.esm.encoder.layer.0.attention.self.query"


def test_ranks_and_alphas_of_single_modules(copy):
    pattern = {
        "rank_pattern": {"layer.0.attention.self.query": 1},
        "alpha_pattern": {"layer.0.attention.self.query": 64},
    }
    folder, adapter = copy(**pattern, r=4)
    model = load_adapter(folder, adapter).base_model.model.encoder
    assert model.layers[0].attention.query.scaling["default"] == 64
    assert model.layers[1].attention.value.scaling["default"] == 32


def test_a_lora_of_the_bare_encoder_needs_no_prefix(copy):
    def bare(tensors):
        for name in list(tensors):
            tensor = tensors.pop(name)
            if "classifier" not in name:
                tensors[name.replace("model.esm.", "model.")] = tensor

    folder, adapter = copy(change=bare, task_type="FEATURE_EXTRACTION")
    model = load_adapter(folder, adapter)
    assert model.base_model.model.kind == "masked_lm"
    assert model.base_model.model.encoder.layers[1].attention.value.lora_B["default"].weight.abs().sum() > 0


def test_the_kind_of_problem_can_be_named(copy):
    folder, adapter = copy()
    assert load_adapter(folder, adapter, problem="multi_label").config.heads["sequence"].problem == "multi_label"
    with pytest.raises(UsageError, match="unknown problem 'ranking'; known: single_label"):
        load_adapter(folder, adapter, problem="ranking")


@pytest.mark.parametrize(
    ("changes", "change", "words"),
    [
        ({"peft_type": "OFT"}, None, "peft_type 'OFT' is not supported; LORA and IA3 are"),
        ({"use_dora": True, "bias": "all"}, None, "sets use_dora, bias, which is not supported"),
        (
            {},
            lambda t: t.update({f"{QUERY}.weight": torch.ones(2)}),
            r"1 tensors have no place .*: unexpected: esm.enc",
        ),
        ({}, lambda t: t.update({"a.lora_A.weight": torch.ones(2, 2), "b": torch.ones(1)}), "2 tensors have no place"),
        ({}, lambda t: t.pop(f"{QUERY}.lora_B.weight"), "incomplete or mis-shaped: encoder.layers.0.attention.query"),
        (
            {},
            lambda t: t.update({f"{QUERY.replace('0', '7')}.lora_A.weight": torch.ones(1, 48)}),
            r"unexpected: encoder.layers.7.attention.query \(the model has no such layer\)",
        ),
        ({}, lambda t: t.pop("base_model.model.classifier.dense.bias"), "missing: classifier.pooler.bias"),
        (
            {},
            lambda t: t.update({"base_model.model.classifier.dense.weight": torch.ones(3, 3)}),
            r"mis-shaped: classifier.pooler.weight is \(3, 3\)",
        ),
        ({}, lambda t: t.pop("base_model.model.classifier.out_proj.weight"), "holds no output layer"),
        (
            {},
            lambda t: t.update({"base_model.model.classifier.dense.ia3_l": torch.ones(48, 1)}),
            "the adapter changes classifier.pooler and does not hold it",
        ),
    ],
)
def test_adapters_that_are_refused(copy, changes, change, words):
    folder, adapter = copy(change=change, **changes)
    with pytest.raises(CheckpointError, match=words):
        load_adapter(folder, adapter)


def test_what_is_no_adapter_or_has_no_published_names(copy, tmp_path):
    folder, adapter = copy()
    with pytest.raises(CheckpointError, match=r"no adapter_config.json here"):
        load_adapter(folder, folder)
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no weights here; expected adapter_model"):
        load_adapter(folder, adapter)
    LongstrandForMaskedLM(preset("tiny", vocab_size=9)).save_pretrained(tmp_path / "own")
    with pytest.raises(CheckpointError, match="family 'longstrand' has no published names; load it with peft"):
        load_adapter(tmp_path / "own", adapter)


def test_peft_is_needed(copy, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UsageError, match=r"adapters need the package peft; install it with: pip install"):
        load_adapter(*copy())
