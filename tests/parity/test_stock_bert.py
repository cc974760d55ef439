"""Stock BERT, BigBird and ESM of transformers with random weights: all their heads, and BERT at full size."""

from __future__ import annotations

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import BertConfig, BertForMaskedLM, BigBirdConfig, EsmConfig

from longstrand.models.checkpoint import load_model
from longstrand.models.published.to_ours import current_name, export_published

SMALL = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "vocab_size": 101,
}
SIZES = [
    pytest.param({**SMALL, "max_position_embeddings": 40}, (3, 33), id="small"),
    pytest.param({"vocab_size": 32_000}, (2, 512), id="110M", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("size", "shape"), SIZES)
def test_same_logits_loss_and_gradients(size, shape, tmp_path):
    torch.manual_seed(0)
    stock = BertForMaskedLM(BertConfig(pad_token_id=3, **size)).eval()
    for parameter in stock.parameters():
        torch.nn.init.normal_(parameter.data, std=0.05)
    stock.save_pretrained(tmp_path)
    ours = load_model(tmp_path, "masked_lm")
    assert ours.num_parameters() == stock.num_parameters()
    ids = torch.randint(5, size["vocab_size"], shape)
    mask = torch.ones_like(ids)
    mask[0, shape[1] // 2 :] = 0
    labels = torch.where((torch.rand(shape) < 0.15) & mask.bool(), ids, -100)
    theirs = stock(ids, mask, labels=labels)
    result = ours(ids, mask, labels=labels)
    torch.testing.assert_close(result.loss, theirs.loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(result.label_logits, theirs.logits[labels != -100], rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(
            ours(ids, mask).logits[mask.bool()], theirs.logits[mask.bool()], rtol=1e-4, atol=1e-4
        )
    theirs.loss.backward()
    result.loss.backward()
    expected = stock.bert.embeddings.word_embeddings.weight.grad
    torch.testing.assert_close(ours.get_input_embeddings().weight.grad, expected, rtol=1e-3, atol=1e-5)


TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "vocab_size": 61}
CONFIGS = {
    "Bert": BertConfig(**TINY, pad_token_id=3, num_labels=3),
    "BigBird": BigBirdConfig(**TINY, pad_token_id=3, num_labels=3, block_size=8, max_position_embeddings=128),
    "Esm": EsmConfig(
        **TINY, pad_token_id=1, mask_token_id=2, num_labels=3, max_position_embeddings=80, token_dropout=True
    ),
}
KINDS = {
    "Model": "encoder",
    "ForMaskedLM": "masked_lm",
    "ForPreTraining": "masked_lm",
    "ForSequenceClassification": "sequence",
    "ForTokenClassification": "token",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", CONFIGS)
def test_every_head_of_stock_classes(family, kind, tmp_path):
    """Files written by transformers 5: the same outputs, and the same tensors on export."""
    stock_class = getattr(transformers, family + kind, None)
    if stock_class is None:
        pytest.skip(f"transformers has no {family}{kind}")
    torch.manual_seed(0)
    stock = stock_class(CONFIGS[family]).eval()
    for parameter in stock.parameters():
        torch.nn.init.normal_(parameter.data, mean=float(parameter.dim() == 1), std=0.2)
    stock.save_pretrained(tmp_path / "stock")
    ours = load_model(tmp_path / "stock")
    assert ours.kind == KINDS[kind]
    ids = torch.randint(5, 61, (2, 40))
    with torch.no_grad():
        torch.testing.assert_close(ours(ids)[0], stock(input_ids=ids)[0], atol=1e-5, rtol=1e-4)
    export_published(ours, tmp_path / "again")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("stock", "again"))
    prefix = {"Bert": "bert.", "BigBird": "bert.", "Esm": "esm."}[family] if kind == "Model" else ""
    unused = ("pooler.", "seq_relationship", "contact_head", "position_ids")
    before = {prefix + current_name(name): t for name, t in before.items() if not any(word in name for word in unused)}
    if kind == "ForSequenceClassification" and family == "Bert":
        assert "bert.pooler.dense.weight" in after
    assert before.keys() <= after.keys() and all(torch.equal(before[name], after[name]) for name in before)
