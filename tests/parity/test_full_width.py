"""Stock classes of transformers at the size of the published models: 768 wide, 12 layers, 512 to 4,096 tokens."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BigBirdConfig,
    BigBirdForMaskedLM,
    EsmConfig,
    EsmForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
)

from longstrand.models.checkpoint import load_model

SIZE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "vocab_size": 1024}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
ESM = {**SIZE, **NO_DROPOUT, "intermediate_size": 3072, "pad_token_id": 1, "mask_token_id": 2}
MODERN = {"pad_token_id": 3, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}


def bert(length):
    return BertForMaskedLM(BertConfig(**SIZE, **NO_DROPOUT, pad_token_id=3, max_position_embeddings=length))


def bigbird(length):
    del length
    config = BigBirdConfig(**SIZE, **NO_DROPOUT, pad_token_id=3, max_position_embeddings=4096, block_size=64)
    return BigBirdForMaskedLM(config)


def esm_learned(length):
    return EsmForMaskedLM(EsmConfig(**ESM, max_position_embeddings=length + 2, token_dropout=True))


def esm_rotary(length):
    return EsmForMaskedLM(
        EsmConfig(**ESM, max_position_embeddings=length, position_embedding_type="rotary", token_dropout=False)
    )


def modernbert(length):
    config = ModernBertConfig(**SIZE, **MODERN, intermediate_size=1152, max_position_embeddings=max(length, 8192))
    return ModernBertForMaskedLM(config)


def randomised(model):
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter.data, mean=float(parameter.dim() == 1), std=0.03)
    return model


CASES = [
    pytest.param(bert, 512, {}, id="bert-512"),
    pytest.param(bigbird, 1024, {}, id="bigbird-1024-random-blocks"),
    pytest.param(bigbird, 4096, {"quirks": ["zero_random_blocks"]}, id="bigbird-4096-evaluation"),
    pytest.param(esm_learned, 1000, {}, id="esm-1000"),
    pytest.param(esm_rotary, 2048, {}, id="esm-rotary-2048"),
    pytest.param(modernbert, 1024, {}, id="modernbert-1024"),
    pytest.param(modernbert, 4096, {}, id="modernbert-4096"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("make", "length", "changes"), CASES)
def test_same_logits_loss_and_gradients(make, length, changes, tmp_path):
    torch.manual_seed(0)
    stock = randomised(make(length)).eval()
    if make is bigbird and not changes:
        stock.train()  # only there does transformers draw random blocks; there is no dropout
    stock.save_pretrained(tmp_path)
    ours = load_model(tmp_path, "masked_lm", changes=changes)
    ids = torch.randint(5, SIZE["vocab_size"], (1, length))
    ids[:, 7:90:9] = 2
    mask = torch.ones_like(ids)
    mask[:, length - 37 :] = 0
    ids[:, length - 37 :] = ours.config.pad_token_id
    labels = torch.where((torch.rand(ids.shape) < 0.15) & mask.bool(), ids, -100)
    backward = length <= 1024
    with torch.set_grad_enabled(backward):
        theirs = stock(input_ids=ids, attention_mask=mask, labels=labels)
        result = ours(ids, mask, labels=labels)
    chosen = theirs.logits[labels != -100]
    scale = chosen.abs().max()
    assert (result.label_logits - chosen).abs().max() < 2e-4 * scale
    torch.testing.assert_close(result.loss, theirs.loss, rtol=1e-4, atol=0)
    if not backward:
        return
    theirs.loss.backward()
    result.loss.backward()
    expected = stock.get_input_embeddings().weight.grad
    difference = (ours.get_input_embeddings().weight.grad - expected).abs().max()
    assert difference < 1e-3 * expected.abs().max()
