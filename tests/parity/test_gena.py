"""GENA's BERT: published outputs of tiny random models, through import and export."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from longstrand.models.checkpoint import load_model
from longstrand.models.published.families import FAMILIES
from longstrand.models.published.to_ours import export_published, published_name

VARIANTS = {
    "bert_preln": "gena_bert",
    "bert_preln_lastln": "gena_bert",
    "bert_postln": "bert",
    "bert_preln_rotary8": "gena_bert",
}
HEADS = [
    "mlm", "pretraining", "seqcls_single3", "seqcls_multilabel5", "seqcls_regression1", "seqcls_regression2",
    "tokcls_single4", "tokcls_multilabel3",
]  # fmt: skip
HEADS_EXACT = [head for head in HEADS if head != "pretraining"]


@pytest.fixture(params=[(variant, head) for variant in VARIANTS for head in HEADS], ids="/".join, scope="module")
def case(request: pytest.FixtureRequest, shared: Path) -> SimpleNamespace:
    variant, head = request.param
    folder = shared / "golden" / "gena" / variant / head
    if not folder.is_dir():
        pytest.skip(f"no golden outputs for {variant}/{head}")
    expected = {name: torch.from_numpy(np.asarray(value)) for name, value in np.load(folder / "expected.npz").items()}
    return SimpleNamespace(variant=variant, head=head, folder=folder, expected=expected)


def load(case: SimpleNamespace, folder: Path | None = None):
    """Load a golden model with the loss settings that its reference call used."""
    expected = case.expected
    model = load_model(folder or case.folder)
    if "pos_weight" in expected:
        weights = expected["pos_weight"].flatten(0, -2)[0]
        assert torch.equal(expected["pos_weight"], weights.expand_as(expected["pos_weight"]))
        model.head_settings = model.head_settings.model_copy(update={"pos_weight": weights.tolist()})
    return model


def run(case: SimpleNamespace, model, **options):
    names = ("input_ids", "attention_mask", "token_type_ids")
    return model(**{name: case.expected[name] for name in names}, **options)


def reference_loss(case: SimpleNamespace, model) -> torch.Tensor:
    """Compute our loss of the reference call, scaled as the reference scales."""
    labels, mask = case.expected["labels"], case.expected.get("labels_mask")
    if mask is None:
        return run(case, model, labels=labels).loss
    masked = torch.where(mask[..., None].bool(), labels, torch.nan)
    return run(case, model, labels=masked).loss * model.head_settings.num_outputs


def next_sentence_loss(case: SimpleNamespace, model) -> torch.Tensor:
    """Compute the loss of the published next-sentence head, which we leave out, on top of our encoder."""
    stored = load_file(case.folder / "model.safetensors")
    first = run(case, model.encoder).last_hidden_state[:, 0]
    vector = torch.tanh(F.linear(first, stored["bert.pooler.dense.weight"], stored["bert.pooler.dense.bias"]))
    logits = F.linear(vector, stored["cls.seq_relationship.weight"], stored["cls.seq_relationship.bias"])
    torch.testing.assert_close(logits, case.expected["seq_relationship_logits"], atol=1e-4, rtol=1e-4)
    loss = F.cross_entropy(logits, case.expected["next_sentence_label"])
    torch.testing.assert_close(loss, case.expected["nsp_loss"].float(), rtol=1e-5, atol=1e-6)
    return loss


def logits_name(case: SimpleNamespace) -> str:
    return "prediction_logits" if case.head == "pretraining" else "logits"


def test_import_gives_the_published_logits_and_hidden_states(case):
    model = load(case)
    assert model.config.family == VARIANTS[case.variant]
    with torch.no_grad():
        output = run(case, model, output_hidden_states=True)
        torch.testing.assert_close(output.logits, case.expected[logits_name(case)], atol=1e-4, rtol=1e-4)
        for index, state in enumerate(output.hidden_states):
            if f"hidden_{index}" in case.expected:
                torch.testing.assert_close(state, case.expected[f"hidden_{index}"], atol=1e-4, rtol=1e-4)
        if "pooler_output" in case.expected:
            vector = torch.tanh(model.classifier.pooler(output.hidden_states[-1][:, 0]))
            torch.testing.assert_close(vector, case.expected["pooler_output"], atol=1e-4, rtol=1e-4)


def test_loss_and_gradient_norms(case):
    model = load(case)
    loss = reference_loss(case, model)
    if case.head == "pretraining":
        torch.testing.assert_close(loss, case.expected["mlm_loss"].float(), rtol=1e-5, atol=1e-6)
        loss = loss + next_sentence_loss(case, model)
    torch.testing.assert_close(loss, case.expected["loss"].float(), rtol=1e-5, atol=1e-6)
    loss.backward()
    norms = {
        name.removeprefix("gradnorm/"): float(v) for name, v in case.expected.items() if name.startswith("gradnorm/")
    }
    compared = 0
    for name, parameter in model.named_parameters():
        theirs = published_name(FAMILIES[model.config.family], name)
        if theirs in norms and not theirs.endswith("self.key.bias"):
            assert parameter.grad.double().norm().item() == pytest.approx(norms[theirs], rel=1e-3), theirs
            compared += 1
    unused = ("self.key.bias", *((".pooler.dense.weight", ".pooler.dense.bias", "seq_relationship.weight",
              "seq_relationship.bias") if case.head == "pretraining" else ()))  # fmt: skip
    left = [name for name in norms if not name.endswith(unused)]
    assert compared == len(left)


def test_loss_without_a_mask_and_with_nothing_labelled(case):
    if "loss_all_masked" not in case.expected:
        pytest.skip("only for the masked multi-label token head")
    model = load(case)
    labels = case.expected["labels"]
    torch.testing.assert_close(
        run(case, model, labels=labels).loss, case.expected["loss_without_mask"], rtol=1e-5, atol=0
    )
    nothing = run(case, model, labels=torch.full_like(labels, torch.nan)).loss
    assert nothing.item() == case.expected["loss_all_masked"].item() == 0.0


def test_attention_probabilities_and_missing_mask(case):
    if "attn_probs_0" not in case.expected:
        pytest.skip("stored for the masked-LM head only")
    model = load(case)
    with torch.no_grad():
        output = run(case, model, output_attentions=True)
        for index, probabilities in enumerate(output.attentions):
            torch.testing.assert_close(probabilities, case.expected[f"attn_probs_{index}"], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(output.logits, case.expected["logits"], atol=1e-4, rtol=1e-4)
        unmasked = model(case.expected["input_ids"])
        torch.testing.assert_close(unmasked.logits, case.expected["nomask_logits"], atol=1e-4, rtol=1e-4)
        last = model.encoder(case.expected["input_ids"]).last_hidden_state
        torch.testing.assert_close(last, case.expected["nomask_last_hidden"], atol=1e-4, rtol=1e-4)
        ids, mask, types = (case.expected[name] for name in ("input_ids", "attention_mask", "token_type_ids"))
        words = model.get_input_embeddings()(ids)
        assert torch.equal(model(None, mask, types, inputs_embeds=words).logits, run(case, model).logits)


def test_round_trip_is_bit_exact(case, tmp_path):
    model = load_model(case.folder)
    export_published(model, tmp_path)
    before, after = load_file(case.folder / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    if case.head == "pretraining":
        before = {name: t for name, t in before.items() if "pooler" not in name and "seq_relationship" not in name}
    optional = {"bert.embeddings.position_ids"}
    assert before.keys() - optional == after.keys() - optional
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)
    with torch.no_grad():
        again = run(case, load(case, tmp_path)).logits
        assert torch.equal(again, run(case, load(case)).logits)


@pytest.mark.parametrize("variant", ["bert_preln", "bert_preln_lastln", "bert_postln", "bert_preln_rotary8"])
def test_every_published_key_is_written_back(variant, shared, tmp_path):
    path = shared / "golden" / "gena" / "state_dict_keys" / "bert_state_dict_keys.json"
    if not path.is_file():
        pytest.skip("no list of published keys")
    keys = set(json.loads(path.read_text())[variant])
    export_published(load_model(shared / "golden" / "gena" / variant / "mlm"), tmp_path)
    assert load_file(tmp_path / "model.safetensors").keys() == keys
