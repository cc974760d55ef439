"""Loading accounts for every tensor, through every door; saving is whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification

import longstrand
import longstrand.auto
from longstrand.errors import CheckpointError, TokenizerError, UsageError
from longstrand.models.checkpoint import load_model, load_network, save_checkpoint
from longstrand.models.config import preset
from longstrand.models.pretrained import LongstrandForMaskedLM, LongstrandForSequenceClassification
from longstrand.models.tensors import read_headers, read_tensors, weight_files

VOCABULARY = 23
CLASSES = {"problem": "single_label", "num_outputs": 3, "class_names": ["a", "b", "c"]}
DOORS = {
    "load_model": lambda folder: load_model(folder, "masked_lm"),
    "load_network": lambda folder: load_network(folder, "masked_lm"),
    "AutoModelForMaskedLM": AutoModelForMaskedLM.from_pretrained,
    "AutoModel": AutoModel.from_pretrained,
}


def toy_tokenizer(size: int = VOCABULARY, fingerprint: str = "sha256:" + "0" * 64):
    vocab = {f"t{i}": i for i in range(size)}

    def save(folder: Path) -> None:
        (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocab}, "added_tokens": [{"id": 4}]}))
        (folder / "longstrand.json").write_text(json.dumps({"kmer": {"k": 3}}))

    return SimpleNamespace(vocab_size=size, fingerprint=fingerprint, save=save)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return LongstrandForMaskedLM(preset("tiny", vocab_size=VOCABULARY)).eval()


@pytest.fixture
def folder(model, tmp_path):
    """A plain folder, without a record of hashes, so that its weights may be edited."""
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def edit(folder: Path, **changes) -> None:
    """Replace tensors by name (with ``__`` for ``.``); None removes."""
    tensors = load_file(folder / "model.safetensors")
    for name, value in changes.items():
        name = name.replace("__", ".")
        tensors.pop(name, None)
        if value is not None:
            tensors[name] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


NORM = "encoder__layers__1__mlp_norm__weight"


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({NORM: None}, "missing: encoder.layers.1.mlp_norm.weight"),
        ({"encoder__extra": torch.zeros(2)}, "unexpected: encoder.extra"),
        ({"classifier__output__weight": torch.zeros(2, 128)}, "unexpected: classifier.output.weight"),
        ({NORM: torch.zeros(5)}, "mis-shaped: encoder.layers.1.mlp_norm.weight is (5,), config.json implies (128,)"),
        ({NORM: torch.full((128,), torch.nan)}, "not finite (NaN or infinity): encoder.layers.1.mlp_norm.weight"),
        ({NORM: torch.zeros(128, dtype=torch.int64)}, "not floating-point: encoder.layers.1.mlp_norm.weight"),
        ({"lm_head__decoder__weight": torch.zeros(VOCABULARY, 128)}, "contradicting: lm_head.decoder.weight differs"),
    ],
)
def test_a_tensor_out_of_place_is_refused(folder, door, changes, words):
    edit(folder, **changes)
    with pytest.raises(CheckpointError) as caught:
        DOORS[door](folder)
    assert words in str(caught.value)


@pytest.mark.parametrize("door", DOORS)
def test_all_problems_are_listed_at_once(folder, door):
    edit(folder, **{NORM: None, "encoder__extra": torch.zeros(2), "encoder__final_norm__bias": torch.zeros(3)})
    with pytest.raises(CheckpointError, match=r"3 problems .*missing: .*unexpected: .*mis-shaped: "):
        DOORS[door](folder)


@pytest.mark.parametrize("door", DOORS)
def test_truncated_weights_are_refused(folder, door):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        DOORS[door](folder)


def test_missing_files_and_folders(folder, tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        load_model(tmp_path / "nowhere")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no weights here; expected model.safetensors"):
        load_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no config.json here"):
        load_model(folder)


def test_unknown_head_names_the_nearest(folder):
    with pytest.raises(UsageError, match=r"unknown head 'sequnce' .did you mean 'sequence'"):
        load_model(folder, "sequnce")


def test_a_missing_head_is_an_error_unless_a_new_one_is_asked_for(folder):
    for door in (
        lambda: load_model(folder, "sequence"),
        lambda: AutoModelForSequenceClassification.from_pretrained(folder),
    ):
        with pytest.raises(
            CheckpointError, match=r"has no sequence head \(heads stored: masked_lm\); ask for a fresh one"
        ):
            door()
    fresh = load_model(folder, "sequence", new_head=CLASSES)
    assert fresh.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert AutoModelForSequenceClassification.from_pretrained(folder, new_head=CLASSES).config.num_labels == 3


def test_a_new_head_is_new_and_the_backbone_is_not(folder, tmp_path, model):
    torch.manual_seed(1)
    first = load_model(folder, "sequence", new_head=CLASSES)
    first.classifier.output.weight.data.fill_(9.0)
    first.save_pretrained(tmp_path / "tuned")
    again = load_model(tmp_path / "tuned", "sequence", new_head=CLASSES)
    assert not (again.classifier.output.weight == 9.0).any() and not again.classifier.output.bias.any()
    kept = load_model(tmp_path / "tuned")
    assert isinstance(kept, LongstrandForSequenceClassification) and (kept.classifier.output.weight == 9.0).all()
    for name, tensor in model.encoder.state_dict().items():
        assert torch.equal(tensor, again.encoder.state_dict()[name])
    with pytest.raises(CheckpointError, match="no token head"):
        load_model(tmp_path / "tuned", "token")


def test_encoder_alone_leaves_the_head_behind(folder, model):
    encoder = load_model(folder, "encoder")
    ids = torch.randint(5, VOCABULARY, (2, 7))
    assert encoder.config.heads == {}
    torch.testing.assert_close(encoder(ids).last_hidden_state, model.encoder(ids).last_hidden_state)


def test_plain_network_gives_the_same_numbers(folder, model):
    ids = torch.randint(5, VOCABULARY, (2, 7))
    network = load_network(folder)
    assert torch.equal(network(ids).logits, model(ids).logits)
    assert network.lm_head.decoder.weight is network.encoder.embeddings.word_embeddings.weight


def test_other_float_widths_convert_with_a_notice(folder, model, caplog):
    edit(
        folder, **{name.replace(".", "__"): t.bfloat16() for name, t in load_file(folder / "model.safetensors").items()}
    )
    loaded = load_model(folder)
    assert loaded.dtype == torch.float32
    assert "weights stored as bfloat16 are converted to float32" in caplog.text


def test_tie_survives_loading(folder):
    loaded = load_model(folder)
    assert loaded.lm_head.decoder.weight is loaded.get_input_embeddings().weight
    assert "lm_head.decoder.weight" not in read_headers(weight_files(folder))


def test_save_and_load(model, tmp_path):
    folder = save_checkpoint(model, toy_tokenizer(), tmp_path / "saved")
    ids = torch.arange(5, 21).view(2, 8)
    for load in (load_model, load_network):
        torch.testing.assert_close(load(folder)(ids).logits, model(ids).logits, atol=1e-6, rtol=1e-6)


def test_a_saved_folder_says_what_it_is_and_holds_no_pickle(model, tmp_path):
    folder = save_checkpoint(
        model, toy_tokenizer(), tmp_path / "saved", provenance={"command": ["x"]}, metrics={"loss": 1.5}
    )
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json", "longstrand.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip
    record = json.loads((folder / "longstrand.json").read_text())
    assert record["format_version"] == 1 and record["tokenizer_fingerprint"] == "sha256:" + "0" * 64
    assert (
        record["kmer"] == {"k": 3} and record["metrics"] == {"loss": 1.5} and record["provenance"] == {"command": ["x"]}
    )
    assert set(record["files"]) == {"config.json", "model.safetensors", "tokenizer.json"}
    assert load_model(folder).tokenizer_fingerprint == "sha256:" + "0" * 64
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_damage_that_the_format_cannot_see_is_found_by_the_hash(model, tmp_path):
    folder = save_checkpoint(model, None, tmp_path / "saved")
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    for door in DOORS.values():
        with pytest.raises(CheckpointError, match="damaged or was changed after it was written"):
            door(folder)
    (folder / "model.safetensors").write_bytes(data[:-7])
    with pytest.raises(CheckpointError, match=r"were written .truncated or replaced"):
        load_model(folder)


def test_a_failed_write_leaves_the_old_folder(model, tmp_path):
    folder = save_checkpoint(model, None, tmp_path / "saved")
    before = (folder / "model.safetensors").read_bytes()

    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    def full_in_rust(_: Path) -> None:
        raise SafetensorError("I/O error: No space left on device")

    broken = SimpleNamespace(vocab_size=VOCABULARY, fingerprint="sha256:1", save=full)
    with pytest.raises(
        CheckpointError, match=r"cannot be written .No space left on device.; what was there before is intact"
    ):
        save_checkpoint(model, broken, folder)
    weightless = SimpleNamespace(config=model.config, save_pretrained=full_in_rust)
    with pytest.raises(CheckpointError, match=r"cannot be written .I/O error: No space left on device."):
        save_checkpoint(weightless, None, folder)
    assert (folder / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]
    model.lm_head.decoder.bias.data.fill_(2.0)
    save_checkpoint(model, None, folder)
    assert (load_model(folder).lm_head.decoder.bias == 2.0).all()


def test_tokenizer_and_model_that_disagree(model, tmp_path):
    with pytest.raises(TokenizerError, match="the tokenizer knows 24 tokens, the model 23"):
        save_checkpoint(model, toy_tokenizer(24), tmp_path / "saved")
    folder = save_checkpoint(model, toy_tokenizer(), tmp_path / "saved")
    assert load_model(folder, tokenizer=toy_tokenizer()) is not None
    with pytest.raises(TokenizerError, match="the model's was sha256:0000"):
        load_model(folder, tokenizer=toy_tokenizer(fingerprint="sha256:" + "1" * 64))
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"] |= {"more": VOCABULARY}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(
        TokenizerError, match="not the file that the model was saved with; the tokenizer files know 24 tokens"
    ):
        load_model(folder)


def test_vocab_txt_is_counted(folder):
    (folder / "vocab.txt").write_text("\n".join(f"t{i}" for i in range(VOCABULARY + 1)))
    with pytest.raises(TokenizerError, match="the tokenizer files know 24 tokens, the model 23"):
        load_model(folder)


def test_weights_in_several_files(folder, model):
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    parts = {"a.safetensors": names[:9], "b.safetensors": names[9:]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(load_model(folder)(ids).logits, model(ids).logits)
    (folder / "b.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"parts named by .* are absent: b.safetensors"):
        load_model(folder)


def test_legacy_files_are_read_only_as_plain_tensors(folder, model):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(load_model(folder)(ids).logits, model(ids).logits)
    torch.save({"a": [1]}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="holds other things than tensors"):
        read_tensors(folder)
    torch.save(model, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="files that carry code are never loaded"):
        read_tensors(folder)


def test_public_door(folder):
    assert isinstance(longstrand.load_model(folder, head="masked_lm"), LongstrandForMaskedLM)


def test_dropout_for_training(folder):
    assert load_model(folder, changes={"hidden_dropout": 0.2}).config.hidden_dropout == 0.2
