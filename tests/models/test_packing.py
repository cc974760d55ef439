"""Packed batches: taken apart by hand, and equal to padded ones in heads, losses, gradients and predictions."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from longstrand.config import build
from longstrand.data.collate import Collator
from longstrand.errors import ConfigError
from longstrand.inference.predict import predict
from longstrand.models.checkpoint import load_model
from longstrand.models.config import preset
from longstrand.models.heads import unpack
from longstrand.models.networks import NETWORKS
from longstrand.tokenization.kmer import make_kmer
from longstrand.training.settings import FinetuneConfig, PretrainConfig
from tests.toys import tiny_checkpoint

SIZE = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
LENGTHS = (11, 3, 29, 17, 5)


def test_unpacking_by_hand() -> None:
    states = torch.arange(8.0)[:, None].view(2, 4, 1)
    found, mask = unpack(states, torch.tensor([[0, 0, 1, -1], [1, 2, 2, 2]]))
    assert found[..., 0].tolist() == [[0, 1, 0], [2, 0, 0], [4, 0, 0], [5, 6, 7]]
    assert mask.tolist() == [[1, 1, 0], [1, 0, 0], [1, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
@pytest.mark.parametrize("kind", ["sequence", "token"])
def test_heads_of_packed_batches(kind: str, pooling: str) -> None:
    torch.manual_seed(0)
    head = {"kind": kind, "problem": "single_label", "num_outputs": 3, "pooling": pooling}
    model = NETWORKS[kind](preset("tiny", vocab_size=20, heads={kind: head}, **SIZE))
    draw = np.random.default_rng(0)
    examples = [
        {
            "input_ids": draw.integers(5, 20, size=length),
            "labels": draw.integers(0, 3, size=length) if kind == "token" else int(draw.integers(3)),
            "num_bases": length,
        }
        for length in LENGTHS
    ]
    results = []
    for pack in (False, True):
        batch = Collator(3, per_token=kind == "token", pack=pack)(examples)
        assert batch.pop("num_bases").tolist() == list(LENGTHS)
        assert batch["input_ids"].shape == ((1, sum(LENGTHS)) if pack else (5, 29))
        model.zero_grad()
        output = model(**batch)
        output.loss.backward()
        logits = output.logits[batch["attention_mask"].bool()] if kind == "token" else output.logits
        results.append((output.loss, logits, [weight.grad for weight in model.parameters() if weight.grad is not None]))
    (loss, logits, gradients), (packed_loss, packed_logits, packed_gradients) = results
    torch.testing.assert_close(packed_loss, loss, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(packed_logits, logits, atol=1e-5, rtol=1e-4)
    for packed, padded in zip(packed_gradients, gradients, strict=True):
        torch.testing.assert_close(packed, padded, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("positions", ["rotary", "alibi"])
@pytest.mark.parametrize("output", ["logits", "mean", "bases"])
def test_predictions_are_those_of_padded_batches_and_of_single_rows(output: str, positions: str) -> None:
    torch.manual_seed(0)
    tokenizer = make_kmer(2)
    head = {"kind": "sequence", "problem": "single_label", "num_outputs": 3}
    config = preset("tiny", vocab_size=tokenizer.vocab_size, heads={"sequence": head}, positions=positions, **SIZE)
    model = NETWORKS["sequence"](config)
    letters = random.Random(0)
    texts = ["".join(letters.choices("ACGT", k=length)) for length in (40, 7, 160, 96, 2, 41)]
    options = {"output": "logits"} if output == "logits" else {"output": "embeddings", "pooling": output}
    shapes = []
    model.encoder.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append((*args, kwargs.get("input_ids"))[0]), with_kwargs=True
    )
    packed = list(predict(model, texts, tokenizer=tokenizer, **options))
    assert len(shapes) == 1 and shapes[0].shape == (1, sum(item.num_tokens for item in packed))
    padded = list(predict(model, texts, tokenizer=tokenizer, pack=False, **options))
    assert shapes[1].shape[0] == len(texts)
    alone = [next(predict(model, [text], tokenizer=tokenizer, **options)) for text in texts]
    for one, other, single in zip(packed, padded, alone, strict=True):
        np.testing.assert_allclose(one.values, other.values, atol=1e-5)
        np.testing.assert_allclose(one.values, single.values, atol=1e-5)


@pytest.mark.parametrize("attention", ["sliding", "block_sparse"])
def test_any_checkpoint_reads_long_inputs_with_other_attention(tmp_path, attention: str) -> None:
    settings = {"sliding": {"window": 32}, "block_sparse": {"block_size": 16, "num_random_blocks": 1}}[attention]
    folder = tiny_checkpoint(tmp_path / "model", max_position_embeddings=512)
    full, changed = (
        load_model(folder, head="encoder", changes=changes)
        for changes in ({}, {"attention": {"pattern": attention, **settings}})
    )
    ids = torch.randint(5, full.config.vocab_size, (1, 400))
    with torch.no_grad():
        short, long = ids[:, :16], ids
        same = [model(short).last_hidden_state for model in (full, changed)]
        torch.testing.assert_close(same[1], same[0], atol=1e-5, rtol=1e-4)  # one block, one window: all see all
        other = [model(long).last_hidden_state for model in (full, changed)]
        slow = changed(long, output_attentions=True)
    assert (other[0] - other[1]).abs().max() > 1e-3
    torch.testing.assert_close(slow.last_hidden_state, other[1], atol=1e-5, rtol=1e-4)
    assert (slow.attentions[0][0, 0, 399, 100:300] == 0).float().mean() > 0.5


def test_memory_or_compilation_and_packing_exclude_each_other(tmp_path) -> None:
    compiled = {"output": tmp_path, "data": {"genomes": "a.fa"}, "training": {"pack": True, "compile": True}}
    with pytest.raises(ConfigError, match="packed rows differ in length"):
        build(PretrainConfig, compiled)
    memory = {"segments": 2}
    pretraining = {"output": tmp_path, "data": {"genomes": "a.fa"}, "memory": memory, "training": {"pack": True}}
    finetuning = {"output": tmp_path, "model": "a", "data": "a.csv", "memory": memory, "training": {"pack": True}}
    for kind, values in ((PretrainConfig, pretraining), (FinetuneConfig, finetuning)):
        with pytest.raises(ConfigError, match=r"set training.pack=false"):
            build(kind, values)
