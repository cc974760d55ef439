"""Stock BERT of transformers with random weights: the same logits and loss, small and at full size."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from longstrand.models.checkpoint import load_model

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
