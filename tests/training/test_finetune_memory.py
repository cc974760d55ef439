"""Fine-tuning, predicting and embedding with a ``memory`` block: any length, train on n segments, run on more."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from longstrand import load_model, load_tokenizer
from longstrand.config import build
from longstrand.errors import ConfigError, UsageError
from longstrand.inference.predict import predict
from longstrand.models.pretrained import LongstrandForSequenceClassification
from longstrand.runtime import seed_everything
from longstrand.training.finetune import FinetuneTrainer, finetune
from longstrand.training.methods import FinetuneMethod, apply_method
from longstrand.training.settings import FinetuneConfig
from tests.toys import tiny_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny", positions="learned", max_position_embeddings=16)


def write(path: Path, rows: list[tuple[Any, ...]]) -> str:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([("sequence", "label"), *rows])
    return str(path)


def rows(number: int, low: int, high: int, *, per_base: bool = False) -> list[tuple[str, Any]]:
    """Sequences of random length; the label is whether, or at which bases, there is C."""
    letters = random.Random(number)
    made = []
    for row in range(number):
        text = "".join(letters.choice("AGTC" if row % 2 else "AGT") for _ in range(letters.randint(low, high)))
        made.append((text, "".join("01"[letter == "C"] for letter in text) if per_base else row % 2))
    return made


def settings(model: Path, folder: Path, per_base: bool = False, **changes: Any) -> FinetuneConfig:
    folder.mkdir(exist_ok=True)
    values = {
        "output": str(folder / "run"),
        "model": {"path": str(model), "pooling": "cls"},
        "data": {"train": write(folder / "train.csv", rows(16, 45, 60, per_base=per_base)),
                 "valid": write(folder / "valid.csv", rows(6, 45, 90, per_base=per_base)),
                 "test": write(folder / "test.csv", rows(6, 100, 150, per_base=per_base))},
        "memory": {"num_tokens": 2, "segment_length": 16},
        "training": {"epochs": 1, "batch_size": 8, "learning_rate": 0.01, "tensorboard": False, "device": "cpu",
                     "threads": 1, "micro_batch_size": 4},
        "evaluation": {"resamples": 5, "baselines": False},
    }  # fmt: skip
    for name, change in changes.items():
        values[name] = {**values.get(name, {}), **change} if isinstance(change, dict) else change
    return build(FinetuneConfig, values)


def test_rows_are_cut_to_segments_in_training_and_read_whole_afterwards(model, tmp_path, monkeypatch):
    seen, stock = [], FinetuneTrainer.training_step

    def watched(self, net, inputs, *rest):
        seen.append(inputs["input_ids"].shape[1])
        return stock(self, net, inputs, *rest)

    monkeypatch.setattr(FinetuneTrainer, "training_step", watched)
    result = finetune(settings(model, tmp_path, memory={"curriculum": {"stages": [1, 2], "steps": [1]}}))
    trained, tokenizer = load_model(result.model), load_tokenizer(result.model)
    room, specials = 16 - 2 - 1 - 2, tokenizer.num_special_tokens()
    assert seen == [room + specials] * 2 + [2 * room + specials] * 2
    assert trained.config.memory.num_tokens == 2 and type(trained) is LongstrandForSequenceClassification
    assert "curriculum" not in trained.config.memory
    longest = max((text for text, _ in rows(6, 100, 150)), key=len)
    one, reverse, both = (next(predict(trained, [longest], tokenizer=tokenizer, strand=s)) for s in ("+", "-", "both"))
    assert one.num_tokens == len(tokenizer.encode(longest)) > 4 * room and not one.truncated
    np.testing.assert_allclose(both.values, (one.values + reverse.values) / 2, atol=1e-6)
    changed = longest[:12].translate(str.maketrans("ACGT", "CGTA")) + longest[12:]  # all of the first segment
    assert not np.array_equal(next(predict(trained, [changed], tokenizer=tokenizer)).values, one.values)


def test_labels_per_base_with_an_adapter_and_both_directions(model, tmp_path):
    pytest.importorskip("peft")
    memory = {"segments": 3, "direction": "bidirectional"}
    result = finetune(settings(model, tmp_path, per_base=True, memory=memory, method="lora"))
    trained, tokenizer, plain = load_model(result.model), load_tokenizer(result.model), load_model(model, "encoder")
    words = "embeddings.word_embeddings.weight"
    assert torch.equal(trained.encoder.state_dict()[words], plain.state_dict()[words])
    seed_everything(0)
    fresh = {"num_tokens": 2, "segment_length": 16, "direction": "bidirectional"}
    untrained = load_model(model, "encoder", changes={"memory": fresh}).memory
    for name, value in trained.encoder.memory.named_parameters():
        assert (value - untrained.get_parameter(name)).abs().max() > 1e-4
    text = rows(6, 100, 150)[0][0]
    values = next(predict(trained, [text], tokenizer=tokenizer, strand="both")).values
    assert values.shape == (len(text), 2) and np.isfinite(values).all()


def test_a_frozen_encoder_leaves_its_memory_to_train(model):
    head = {"problem": "regression", "num_outputs": 1}
    changes = {"memory": {"num_tokens": 2, "segment_length": 16}}
    network = apply_method(
        load_model(model, "sequence", new_head=head, changes=changes), FinetuneMethod(name="frozen"), base=model
    )
    trained = {name for name, weight in network.named_parameters() if weight.requires_grad}
    assert trained == {"encoder.memory.initial", "classifier.output.weight", "classifier.output.bias"}


@pytest.fixture(scope="module")
def long_reader(model):
    changes = {"memory": {"num_tokens": 2, "segment_length": 16}}
    torch.manual_seed(0)
    return load_model(model, "encoder", changes=changes), load_tokenizer(model)


def test_empty_rows_unknown_letters_and_one_base_beside_long_rows(long_reader):
    encoder, tokenizer = long_reader
    texts = ["", "A", "N" * 300, "ACGT" * 100, "AC" + "N" * 200 + "GT", "C"]
    together = list(predict(encoder, texts, tokenizer=tokenizer, output="embeddings", pooling="mean"))
    assert [row.empty for row in together] == [True, *[False] * 5] and np.isnan(together[0].values).all()
    for text, row in zip(texts[1:], together[1:]):
        alone = next(predict(encoder, [text], tokenizer=tokenizer, output="embeddings", pooling="mean"))
        np.testing.assert_allclose(row.values, alone.values, atol=1e-5, rtol=1e-5)
        assert np.isfinite(row.values).all()
    per_base = next(predict(encoder, texts[3:4], tokenizer=tokenizer, output="embeddings", pooling="bases"))
    assert per_base.values.shape == (400, 16)


def test_one_token_to_a_megabase_in_one_batch(tmp_path):
    folder = tiny_checkpoint(tmp_path / "tiny", k=6, hidden_size=8, intermediate_size=8, num_attention_heads=1)
    changes = {"memory": {"num_tokens": 2, "segment_length": 512}}
    encoder, tokenizer = load_model(folder, "encoder", changes=changes), load_tokenizer(folder)
    letters = random.Random(0)
    texts = ["ACGTAC", "".join(letters.choices("ACGT", k=1_000_000)), "ACGTAC" * 2000]
    encodings = [tokenizer.encode(text).input_ids for text in texts]
    ids = torch.full((3, max(map(len, encodings))), tokenizer.pad_token_id)
    for row, own in zip(ids, encodings):
        row[: len(own)] = torch.from_numpy(own.astype(np.int64))
    mask = (torch.arange(ids.shape[1]) < torch.tensor([len(own) for own in encodings])[:, None]).long()
    with torch.inference_mode():
        together = encoder(ids, mask)
        assert together.num_segments.tolist() == [1, 329, 4]
        for row in (0, 2):
            alone = encoder(ids[row : row + 1, : len(encodings[row])]).last_hidden_state[0]
            torch.testing.assert_close(together.last_hidden_state[row, : len(alone)], alone, atol=1e-5, rtol=1e-5)


def test_labels_per_bin(model, tmp_path):
    letters, lines = random.Random(5), []
    for _ in range(84):
        text = "".join(letters.choice("ACGT") for _ in range(8 * letters.randint(3, 6)))
        shares = [text[start : start + 8].count("C") for start in range(0, len(text), 8)]
        lines.append((text, ";".join(map(str, shares))))
    memory = {"bins_per_segment": 1, "split": "left"}
    config = settings(model, tmp_path, memory=memory, data={"bin_bases": 8}, training={"strand": "both", "epochs": 6})
    for name, part in (("train", lines[:60]), ("valid", lines[60:72]), ("test", lines[72:])):
        write(tmp_path / f"{name}.csv", part)
    result = finetune(config)
    assert result.report["test"]["num_evaluated"] == sum(line[1].count(";") + 1 for line in lines[72:])
    assert result.report["test"]["metrics"]["pearson"]["value"] > 0.3 and "baselines" not in result.report
    trained, tokenizer = load_model(result.model), load_tokenizer(result.model)
    assert trained.head_settings.kind == "bin" and trained.head_settings.bin_bases == 8
    asked = {"tokenizer": tokenizer, "output": "probabilities", "strand": trained.reading.strand}
    rates = next(predict(trained, [lines[74][0]], **asked)).values
    with open(result.folder / "predictions_test.csv", newline="") as file:
        written = list(csv.DictReader(file))[2]
    assert written["label"] == lines[74][1].replace(".0", "")
    np.testing.assert_allclose(rates[:, 0], [float(cell) for cell in written["predicted_label"].split(";")], rtol=1e-3)


def test_bins_and_settings_that_contradict(model, tmp_path):
    with pytest.raises(UsageError, match="bin_bases is for regression of single sequences"):
        finetune(settings(model, tmp_path, data={"bin_bases": 8, "problem": "token"}))
    with pytest.raises(ConfigError, match=r"a bin head needs memory\.bins_per_segment"):
        changes = {"memory": {"num_tokens": 2, "segment_length": 16}}
        head = {"problem": "counts", "num_outputs": 1, "bin_token_id": 2}
        load_model(model, "bin", new_head=head, changes=changes)
