"""Every published family works with the libraries around it, from the files as they are published.

Toys of each family are laid out as published (`tests.published_toys`), loaded, and put through `Trainer`, the
fill-mask pipeline, PEFT, a new process, checkpointed gradients, bf16, `torch.compile`, and one loop from the files to a
fine-tuned model and back.
"""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer, Trainer, TrainingArguments, pipeline

import longstrand.auto
from longstrand import load_model, load_tokenizer
from longstrand.errors import InputError
from longstrand.inference.predict import predict
from longstrand.models import precision
from longstrand.models.attention.layouts import longest_input
from longstrand.models.checkpoint import save_checkpoint
from tests.part_toys import in_child
from tests.published_toys import FAMILIES, make_folder, random_dna

assert longstrand.auto


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """Lay families out as they are asked for: the published folder, and ours made from it."""
    root, made = tmp_path_factory.mktemp("families"), {}

    def toy(name):
        if name not in made:
            published = make_folder(name, root / "published" / name)
            tokenizer = load_tokenizer(published)
            model = load_model(published)
            made[name] = SimpleNamespace(name=name, published=published, tokenizer=tokenizer, ours=root / "ours" / name)
            save_checkpoint(model, tokenizer, made[name].ours)
        return made[name]

    return toy


@pytest.fixture(params=FAMILIES)
def toy(request, toys):
    return toys(request.param)


@pytest.fixture(autouse=True)
def real_bf16(monkeypatch):
    """Compute in bf16 when asked to, also on a processor that must emulate it."""
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)


def batch(toy, num_bases=200):
    """Encode two sequences, one of them shorter."""
    encodings = [
        toy.tokenizer.encode(random_dna(length, 7)).input_ids.tolist() for length in (num_bases, num_bases // 2)
    ]
    length = max(map(len, encodings))
    ids = torch.full((2, length), toy.tokenizer.pad_token_id)
    mask = torch.zeros_like(ids)
    for row, encoding in enumerate(encodings):
        ids[row, : len(encoding)], mask[row, : len(encoding)] = torch.tensor(encoding), 1
    return {"input_ids": ids, "attention_mask": mask}


def learnable(toy):
    """Make two sequences with some labels."""
    inputs = batch(toy)
    labels = torch.where(torch.arange(inputs["input_ids"].shape[1]) % 5 == 2, inputs["input_ids"], -100)
    return inputs | {"labels": labels.masked_fill(inputs["attention_mask"] == 0, -100)}


def rows(inputs):
    return [{name: tensor[row] for name, tensor in inputs.items()} for row in range(2)]


def train(model, data, folder, steps):
    arguments = TrainingArguments(
        str(folder), max_steps=steps, per_device_train_batch_size=2, learning_rate=5e-3, report_to=[], use_cpu=True,
        save_strategy="no", disable_tqdm=True, logging_steps=1, warmup_steps=0,
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=data)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def logits(model, inputs):
    with torch.no_grad():
        return model.eval()(**inputs).logits[inputs["attention_mask"].bool()]


def test_trainer(toy, tmp_path):
    model, data = load_model(toy.published), rows(learnable(toy))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    losses = train(model, data, tmp_path, 2)
    assert len(losses) == 2 and losses[1] < losses[0]
    still = [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])]
    assert still == []


def test_fill_mask_pipeline(toy):
    fill = pipeline("fill-mask", model=str(toy.ours), device="cpu")
    text = {"dnabert6": "ACGTAC CGTACG [MASK] TACGTA", "nt-v1": "ACGTAC<mask>TTTGCA", "nt-v2": "ACGTAC<mask>TTTGCA"}
    text = text.get(toy.name, "ACGTAC[MASK]TTTGCA")
    found = fill(text, top_k=3)
    assert len(found) == 3 and found[0]["score"] >= found[1]["score"] > 0
    ids = fill.tokenizer(text, return_tensors="pt")["input_ids"]
    assert (ids == fill.tokenizer.mask_token_id).sum() == 1
    with torch.no_grad():
        expected = load_model(toy.published)(ids).logits[0, (ids[0] == fill.tokenizer.mask_token_id).int().argmax()]
    assert found[0]["token"] == expected.argmax().item()
    assert found[0]["score"] == pytest.approx(expected.softmax(-1).max().item(), rel=1e-4)


ADAPTERS = {
    "lora": {"r": 2, "lora_alpha": 4, "target_modules": ["query", "value", "dense"]},
    "ia3": {"target_modules": ["key", "value", "mlp.down"], "feedforward_modules": ["mlp.down"]},
}


@pytest.mark.parametrize("kind", ADAPTERS)
def test_adapters_train_save_load_and_merge(toy, kind, tmp_path):
    peft = pytest.importorskip("peft")
    config = {"lora": peft.LoraConfig, "ia3": peft.IA3Config}[kind](**ADAPTERS[kind])
    inputs = learnable(toy)
    plain = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    base = logits(load_model(toy.published), plain)
    torch.manual_seed(0)
    model = peft.get_peft_model(load_model(toy.published), config).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        model(**inputs).loss.backward()
        optimizer.step()
    trained = logits(model, plain)
    assert (trained - base).abs().max() > 1e-3
    model.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(load_model(toy.published), tmp_path)
    assert torch.equal(logits(again, plain), trained)
    merged = again.merge_and_unload()
    torch.testing.assert_close(logits(merged, plain), trained, atol=1e-4, rtol=1e-4)
    tied = merged.config.tie_word_embeddings
    assert (merged.lm_head.decoder.weight is merged.get_input_embeddings().weight) == tied
    merged.save_pretrained(tmp_path / "merged")
    assert torch.equal(logits(load_model(tmp_path / "merged"), plain), logits(merged, plain))


def load_and_compute(source, target):
    """Load each folder with the class of `transformers`, and write the logits of its inputs."""
    found = {}
    for folder, values in torch.load(source, weights_only=True).items():
        model = AutoModelForMaskedLM.from_pretrained(folder).eval()
        with torch.no_grad():
            found[folder] = model(**values).logits
    torch.save(found, target)


def test_saved_and_loaded_in_a_new_process(toys, tmp_path):
    inputs = {str(toys(name).ours): batch(toys(name)) for name in FAMILIES}
    torch.save(inputs, tmp_path / "in.pt")
    process = in_child(partial(load_and_compute, tmp_path / "in.pt", tmp_path / "out.pt"))
    process.join()
    assert process.exitcode == 0
    found = torch.load(tmp_path / "out.pt", weights_only=True)
    for name in FAMILIES:
        values = inputs[str(toys(name).ours)]
        with torch.no_grad():
            expected = load_model(toys(name).published)(**values).logits
        torch.testing.assert_close(found[str(toys(name).ours)], expected, atol=1e-5, rtol=1e-5)


def test_gradient_checkpointing_gives_the_same_gradients(toy):
    model, inputs = load_model(toy.published).train(), learnable(toy)
    model(**inputs).loss.backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    model.gradient_checkpointing_enable()
    model(**inputs).loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name])


def test_bf16(toy):
    inputs = batch(toy)
    full, half = load_model(toy.published), load_model(toy.published, dtype="bfloat16")
    assert half.dtype == torch.bfloat16
    expected = logits(full, inputs)
    scale = expected.abs().max()
    assert (logits(half, inputs).float() - expected).abs().max() < 5e-2 * scale
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (logits(full, inputs).float() - expected).abs().max() < 5e-2 * scale


def test_hidden_states_and_attentions(toy):
    model, inputs = load_model(toy.published), batch(toy)
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True, output_attentions=True)
        plain = model(**inputs)
    layers, heads = model.config.num_hidden_layers, model.config.num_attention_heads
    length = inputs["input_ids"].shape[1]
    assert len(output.hidden_states) == layers + 1 and output.hidden_states[-1].shape == (
        2,
        length,
        model.config.hidden_size,
    )
    assert [tuple(each.shape) for each in output.attentions] == [(2, heads, length, length)] * layers
    real = inputs["attention_mask"].bool()
    assert all((each[1][:, real[1]][:, :, ~real[1]] < 1e-6).all() for each in output.attentions)
    torch.testing.assert_close(output.logits[real], plain.logits[real], atol=1e-4, rtol=1e-4)


def test_an_output_has_the_entries_that_were_asked_for(toy):
    ids = torch.randint(5, 20, (2, 9))
    model = load_model(toy.ours)
    assert list(model(ids)) == ["logits"] and len(model(ids, return_dict=False)) == 1
    assert list(model(ids, output_hidden_states=True)) == ["logits", "hidden_states"]


def test_embeddings_in_place_of_ids(toy):
    model, inputs = load_model(toy.published), batch(toy)
    with torch.no_grad():
        words = model.get_input_embeddings()(inputs["input_ids"])
        given = model(inputs_embeds=words, attention_mask=inputs["attention_mask"]).logits
        assert torch.equal(given, model(**inputs).logits)


def test_resized_embeddings(toy, tmp_path):
    model, inputs = load_model(toy.published), batch(toy)
    before, size = logits(model, inputs), model.config.vocab_size
    model.resize_token_embeddings(size + 8, mean_resizing=False)
    after = logits(model, inputs)
    assert after.shape[-1] == model.config.vocab_size == size + 8
    torch.testing.assert_close(after[:, :size], before)
    tied = model.config.tie_word_embeddings
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(load_model(tmp_path), inputs), after)


@pytest.mark.slow
def test_traced_for_compilation(toy):
    """Trace as `torch.compile` does, without its code generator, which takes minutes: the same numbers."""
    torch._dynamo.reset()
    model, inputs = load_model(toy.published), batch(toy, 60)
    compiled = torch.compile(model, backend="aot_eager")
    with torch.no_grad():
        found, expected = compiled(**inputs).logits, model(**inputs).logits
    real = inputs["attention_mask"].bool()  # what stands at padding means nothing
    torch.testing.assert_close(found[real], expected[real], atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_compiled(toy):
    torch._dynamo.reset()
    model, inputs = load_model(toy.published), learnable(toy)
    compiled = torch.compile(model)
    plain = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        found, right = (each(**plain).logits[plain["attention_mask"].bool()] for each in (compiled, model))
    torch.testing.assert_close(found, right, atol=1e-4, rtol=1e-4)  # what stands at padding means nothing
    loss = compiled(**inputs).loss
    loss.backward()
    torch.testing.assert_close(loss, model(**inputs).loss, atol=1e-4, rtol=1e-4)


LENGTHS = (1_000, 4_500, 30_000)
REACH = {"gena-bert": 1_000, "dnabert6": 0, "nt-v1": 4_500}
"""Bases of the longest of `LENGTHS` that a family's position table holds, where it has one."""


def embed(model, toy, text):
    (found,) = predict(model, [text], tokenizer=toy.tokenizer, output="embeddings", pooling="mean")
    return found.values


def test_from_published_files_to_a_fine_tuned_model_and_back(toy, tmp_path):
    model = load_model(toy.published)
    for length in LENGTHS:
        text = random_dna(length, 3)
        num_tokens = len(toy.tokenizer.encode(text).input_ids)
        limit = longest_input(model.config)
        assert (limit is None or num_tokens <= limit) == (length <= REACH.get(toy.name, 1e9))
        if limit is None or num_tokens <= limit:
            vector = embed(model, toy, text)
            assert vector.shape == (model.config.hidden_size,) and np.isfinite(vector).all()
        else:
            with pytest.raises(InputError, match=rf"{num_tokens:,} tokens.*ends at {limit:,}.*use shorter sequences"):
                embed(model, toy, text)
            vector = embed(model, toy, text[: limit // 2])
            assert np.isfinite(vector).all()
    texts = [random_dna(90, seed) if seed % 2 else "A" * 45 + random_dna(45, seed) for seed in range(8)]
    encodings = [toy.tokenizer.encode(text).input_ids[:16] for text in texts]
    data = [{"input_ids": torch.tensor(ids).long(), "attention_mask": torch.ones(len(ids)).long(), "labels": n % 2}
            for n, ids in enumerate(encodings)]  # fmt: skip
    length = min(len(row["input_ids"]) for row in data)
    data = [
        {**row, "input_ids": row["input_ids"][:length], "attention_mask": row["attention_mask"][:length]}
        for row in data
    ]
    head = {"problem": "single_label", "num_outputs": 2}
    tuned = load_model(toy.published, "sequence", new_head=head)
    losses = train(tuned, data, tmp_path / "run", 20)
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    save_checkpoint(tuned, toy.tokenizer, tmp_path / "tuned")
    again = load_model(tmp_path / "tuned", tokenizer=load_tokenizer(tmp_path / "tuned"))
    ids = torch.stack([row["input_ids"] for row in data])
    with torch.no_grad():
        assert torch.equal(again(ids).logits, tuned.eval()(ids).logits)


def test_auto_tokenizer_gives_our_ids(toy):
    text = random_dna(120, 5)
    theirs = AutoTokenizer.from_pretrained(toy.ours)
    written = " ".join(text[i : i + 6] for i in range(len(text) - 5)) if toy.name == "dnabert6" else text
    assert theirs(written)["input_ids"] == toy.tokenizer.encode(text).input_ids.tolist()
