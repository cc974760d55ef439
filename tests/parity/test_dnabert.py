"""DNABERT 3-6: BERT in all but two habits of its repository, which are quirks."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from longstrand.models.checkpoint import load_model
from longstrand.models.convert import import_published, published_name
from longstrand.models.families import FAMILIES
from longstrand.models.fit import fit
from longstrand.models.pretrained import MODELS


@pytest.fixture
def golden(shared):
    folder = shared / "golden" / "dnabert1" / "tiny_k6"
    if not folder.is_dir():
        pytest.skip("no golden outputs of DNABERT")
    return folder, {
        name: torch.from_numpy(np.asarray(value)) for name, value in np.load(folder / "expected.npz").items()
    }


def with_quirks(folder, quirks):
    imported = import_published(folder, quirks=quirks)
    fitted = fit(imported.config, imported.tensors, "masked_lm", where=str(folder))
    return MODELS["masked_lm"].from_fitted(fitted)[0].eval()


def test_import_gives_the_published_logits_hidden_states_attentions_and_loss(golden):
    folder, expected = golden
    model = load_model(folder)
    ids, mask = expected["input_ids"], expected["attention_mask"]
    with torch.no_grad():
        output = model(ids, mask, output_hidden_states=True, output_attentions=True)
        torch.testing.assert_close(output.logits, expected["mlm_logits"], atol=1e-4, rtol=1e-4)
        for index, state in enumerate(output.hidden_states):
            torch.testing.assert_close(state, expected[f"hidden_{index}"], atol=1e-4, rtol=1e-4)
        for index, probabilities in enumerate(output.attentions):
            torch.testing.assert_close(probabilities, expected[f"attn_{index}"], atol=1e-5, rtol=1e-4)
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


def test_quirks_reproduce_the_repository(golden):
    folder, expected = golden
    if "repohead_mlm_logits" not in expected:
        pytest.skip("the repository's own logits are not stored")
    model = with_quirks(folder, ("double_decoder_bias", "unmasked_padding"))
    with torch.no_grad():
        logits = model(expected["input_ids"], expected["attention_mask"]).logits
    torch.testing.assert_close(logits, expected["repohead_mlm_logits"], atol=1e-4, rtol=1e-4)
