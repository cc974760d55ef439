"""`longstrand convert`: every family to ours and back, bit for bit; what is refused; what is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from longstrand.cli.main import main
from longstrand.models.checkpoint import load_model, save_checkpoint
from longstrand.models.config import preset
from longstrand.models.pretrained import LongstrandForMaskedLM
from longstrand.models.published.convert import PUBLISHED_REST, convert_folder
from longstrand.models.published.families import FAMILIES
from longstrand.models.published.to_ours import export_published
from longstrand.models.reading import Reading
from longstrand.tokenization.kmer import make_kmer

SIZES = {"vocab_size": 25, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
STOCK = {
    "bert": ("Bert", {"max_position_embeddings": 40}),
    "dnabert": ("Bert", {"max_position_embeddings": 40, "vocab_size": 69}),
    "bigbird": ("BigBird", {"max_position_embeddings": 128, "block_size": 4, "num_random_blocks": 2}),
    "nt_v1": ("Esm", {"max_position_embeddings": 40, "pad_token_id": 1, "mask_token_id": 2, "token_dropout": True}),
    "moderngena": ("ModernBert", {"pad_token_id": 3, "max_position_embeddings": 64, "bos_token_id": 1,
                                  "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}),
}  # fmt: skip
GATED = {"gated_mlp": True, "max_position_embeddings": 40}
PRE = {"norm": "pre_final", "pad_token_id": 1, "mask_token_id": 2, "type_vocab_size": 0, "embedding_norm": False}
OURS: dict[str, dict[str, Any]] = {
    "gena_bert": {"norm": "pre", "norm_eps": 1e-12, "rotary": {"dims": 4}, "max_position_embeddings": 40},
    "dnabert2": {**GATED, "norm": "post", "positions": "alibi", "biases": {"mlp_up": False}, "norm_eps": 1e-12,
                 "quirks": ["zero_padding"]},
    "nt_v2": {**GATED, **PRE, "activation": "silu", "lm_activation": "gelu", "norm_eps": 1e-12,
              "biases": {"mlp_up": False, "mlp_down": False}},
}  # fmt: skip


def write_published(family: str, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """Write a published checkpoint: by the published classes in transformers, else by our exporter and by hand."""
    torch.manual_seed(0)
    if family in STOCK:
        import transformers

        name, settings = STOCK[family]
        config = getattr(transformers, f"{name}Config")(**{**SIZES, **settings})
        getattr(transformers, f"{name}ForMaskedLM")(config).to(dtype).save_pretrained(folder)
    else:
        config = preset("tiny", **{**SIZES, "family": family, **OURS[family]})
        export_published(LongstrandForMaskedLM(config).to(dtype), folder)
    tensors = load_file(folder / "model.safetensors")
    if family == "nt_v2":
        tensors["esm.embeddings.position_embeddings.weight"] = torch.randn(42, 32).to(dtype)
    if family == "gena_bert":
        tensors["cls.seq_relationship.weight"] = torch.randn(2, 32).to(dtype)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"authors_key": ["kept", 1]}))
    words = make_kmer(3, overlapping=True, layout="dnabert").token_strings
    (folder / "vocab.txt").write_text("\n".join(words[: content["vocab_size"]]))
    (folder / "README.md").write_text("licence: theirs\r\n")
    (folder / "modeling_theirs.py").write_text("raise SystemExit\n")
    return folder


def bits(folder: Path) -> dict[str, tuple[torch.dtype, tuple[int, ...], bytes]]:
    tensors = load_file(folder / "model.safetensors")
    return {
        name: (tensor.dtype, tuple(tensor.shape), tensor.contiguous().view(torch.uint8).numpy().tobytes())
        for name, tensor in ((name, tensor if tensor.ndim else tensor[None]) for name, tensor in tensors.items())
    }


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    assert request.param in STOCK or request.param in OURS, f"no published checkpoint of {request.param} to test with"
    return request.param


@pytest.fixture(scope="module")
def folders(family: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    base = tmp_path_factory.mktemp(family)
    published = write_published(family, base / "published")
    convert_folder(published, base / "ours", target="longstrand")
    convert_folder(base / "ours", base / "back", target="published")
    return published, base / "ours", base / "back"


def test_there_and_back_is_bit_exact(folders: tuple[Path, Path, Path]) -> None:
    published, _, back = folders
    assert bits(published) == bits(back)
    for name in ("config.json", "vocab.txt", "README.md"):
        assert (published / name).read_bytes() == (back / name).read_bytes()
    assert not (back / "modeling_theirs.py").exists() and not (back / "longstrand.json").exists()


def test_ours_computes_what_the_published_one_does(family: str, folders: tuple[Path, Path, Path]) -> None:
    published, ours, _ = folders
    config = json.loads((ours / "config.json").read_text())
    assert (config["model_type"], config["family"]) == ("longstrand", family)
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])
    with torch.no_grad():
        first, second = load_model(published)(ids).logits, load_model(ours)(ids).logits
    assert torch.equal(first, second)


@pytest.mark.parametrize("family", ["dnabert2", "nt_v2"])
def test_short_types_are_kept(family: str, tmp_path: Path) -> None:
    published = write_published(family, tmp_path / "published", torch.bfloat16)
    done = convert_folder(published, tmp_path / "ours", target="longstrand")
    assert "weights stay bfloat16, as published." in done.notes
    stored = load_file(tmp_path / "ours" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    convert_folder(tmp_path / "ours", tmp_path / "back", target="published")
    assert bits(published) == bits(tmp_path / "back")


def test_a_bare_encoder_and_parts(tmp_path: Path) -> None:
    """Names without the base prefix, in two files of an index, come back in one file."""
    from safetensors.torch import save_file

    published = write_published("bert", tmp_path / "published")
    tensors = {name.removeprefix("bert."): tensor for name, tensor in load_file(published / "model.safetensors").items()
               if name.startswith("bert.")}  # fmt: skip
    (published / "model.safetensors").unlink()
    names = sorted(tensors)
    halves = {"model-1.safetensors": names[:9], "model-2.safetensors": names[9:]}
    for file, part in halves.items():
        save_file({name: tensors[name] for name in part}, published / file)
    weight_map = {name: file for file, part in halves.items() for name in part}
    (published / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    convert_folder(published, tmp_path / "ours", target="longstrand")
    convert_folder(tmp_path / "ours", tmp_path / "back", target="published")
    back = load_file(tmp_path / "back" / "model.safetensors")
    assert back.keys() == tensors.keys() and all(torch.equal(back[name], tensors[name]) for name in back)


def test_what_nothing_uses_is_kept_aside_and_said(tmp_path: Path) -> None:
    published = write_published("gena_bert", tmp_path / "published")
    done = convert_folder(published, tmp_path / "ours", target="longstrand")
    assert done.dropped["cls.seq_relationship.weight"].startswith("the next-sentence head")
    assert set(load_file(tmp_path / "ours" / PUBLISHED_REST)) == {"cls.seq_relationship.weight"}
    assert done.renamed["bert.encoder.layer.1.pre_attention_ln.bias"] == ["encoder.layers.1.attention_norm.bias"]
    assert done.left == {"modeling_theirs.py": "code is neither run nor carried over"}
    assert done.carried == ["README.md", "vocab.txt"]
    back = convert_folder(tmp_path / "ours", tmp_path / "back", target="published")
    assert back.added["cls.seq_relationship.weight"] == "kept aside since the import"
    assert back.added["cls.predictions.decoder.weight"] == "a copy of bert.embeddings.word_embeddings.weight"


def test_a_changed_model_says_what_its_config_says(tmp_path: Path) -> None:
    """A changed setting reaches the published config; keys of others stay."""
    convert_folder(write_published("gena_bert", tmp_path / "published"), tmp_path / "ours", target="longstrand")
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    (tmp_path / "ours" / "config.json").write_text(json.dumps(config | {"hidden_dropout": 0.25}))
    done = convert_folder(tmp_path / "ours", tmp_path / "back", target="published")
    written = json.loads((tmp_path / "back" / "config.json").read_text())
    assert written["hidden_dropout_prob"] == 0.25 and written["authors_key"] == ["kept", 1]
    assert any("hidden_dropout_prob" in note for note in done.notes)


@pytest.mark.parametrize(
    ("family", "changes"), [("gena_bert", {}), ("nt_v1", {"type_vocab_size": 0, "attention": {"block_size": None}})]
)
def test_a_model_of_our_own_takes_a_named_format(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    """Settings without an effect (block sizes of full attention) are no obstacle."""
    from longstrand.models.checkpoint import save_checkpoint

    tokenizer = make_kmer(2)
    model = LongstrandForMaskedLM(preset("tiny", vocab_size=tokenizer.vocab_size, **changes))
    save_checkpoint(model, tokenizer, tmp_path / "ours")
    done = convert_folder(tmp_path / "ours", tmp_path / "theirs", target="published", family=family)
    assert any("does not remember published files" in note for note in done.notes)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "theirs")(ids).logits, model.eval()(ids).logits)


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["convert", *map(str, words)])
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def test_how_a_model_was_trained_to_read_is_kept_both_ways(tmp_path: Path) -> None:
    head = {"problem": "single_label", "num_outputs": 2, "class_names": ["TATA", "other"]}
    published = write_published("bert", tmp_path / "published")
    (published / "vocab.txt").unlink()
    model = load_model(published, "sequence", new_head={**head, "pooling": "cls", "form": "pooler"})
    reading = Reading(max_tokens=12, strand="both", exact_text=True, class_names=("TATA", "other"))
    save_checkpoint(model, None, tmp_path / "trained", reading=reading)
    convert_folder(tmp_path / "trained", tmp_path / "theirs", target="published")
    convert_folder(tmp_path / "theirs", tmp_path / "again", target="longstrand")
    for name in ("trained", "theirs", "again"):
        assert load_model(tmp_path / name).reading == reading
        assert load_model(tmp_path / name).config.head("sequence").class_names == ["TATA", "other"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published, ours = write_published("dnabert2", tmp_path / "published"), tmp_path / "ours"
    code, out, _ = run(capsys, published, "--to", "longstrand", "--output", ours, "--family", "dnabert2")
    assert code == 0 and "tensors of family dnabert2, in longstrand format" in out
    assert "of them split" in out and "quirk     zero_padding" in out and "ALiBi" in out
    assert "left out  modeling_theirs.py: code is neither run" in out and "carried   README.md, vocab.txt" in out
    code, out, _ = run(capsys, ours, "--to", "published", "-o", tmp_path / "back", "--json")
    assert code == 0 and json.loads(out)["family"] == "dnabert2"


def test_an_output_that_exists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published, ours = write_published("bert", tmp_path / "published"), tmp_path / "ours"
    order = (published, "--to", "longstrand", "--output")
    assert run(capsys, *order, ours)[0] == 0
    (ours / "mark").write_text("old")
    code, _, err = run(capsys, *order, ours)
    assert code == 2 and "exists already; choose another folder, or pass --force" in err and (ours / "mark").exists()
    assert run(capsys, *order, ours, "--force")[0] == 0 and not (ours / "mark").exists()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("precious")
    code, _, err = run(capsys, *order, tmp_path / "home", "--force")
    assert code == 2 and "not replaced, not even with --force" in err
    code, _, err = run(capsys, *order, published, "--force")
    assert code == 2 and "an output must not replace the input" in err
    code, _, err = run(capsys, *order, tmp_path / "home" / "thesis.txt")
    assert code == 2 and "is a file; name a folder" in err
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((".tmp", ".old"))]


def test_a_failure_leaves_the_old_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published, ours = write_published("bert", tmp_path / "published"), tmp_path / "ours"
    convert_folder(published, ours, target="longstrand")
    tensors = load_file(published / "model.safetensors")
    del tensors["bert.encoder.layer.0.output.dense.bias"]
    save_file(tensors, published / "model.safetensors")
    code, _, err = run(capsys, published, "--to", "longstrand", "-o", ours, "--force")
    assert code == 1 and "missing: bert.encoder.layer.0.output.dense.bias" in err
    assert load_model(ours).config.family == "bert"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((".tmp", ".old"))]


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from longstrand.errors import CheckpointError
    from longstrand.models.published import convert as conversion

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    published = write_published("bert", tmp_path / "published")
    monkeypatch.setattr(conversion, "save_file", fail)
    with pytest.raises(CheckpointError, match=r"ours: cannot be written \(No space left on device\)"):
        convert_folder(published, tmp_path / "ours", target="longstrand")
    assert [path.name for path in tmp_path.iterdir()] == ["published"]


def test_wrong_directions_and_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published, ours, output = write_published("bert", tmp_path / "published"), tmp_path / "ours", tmp_path / "o"
    convert_folder(published, ours, target="longstrand")
    for words, code, sentence in [
        ((published, "--to", "published"), 2, "is in published format already; nothing to convert (use --to longst"),
        ((ours, "--to", "longstrand"), 2, "is in longstrand format already"),
        ((published, "--to", "longstand"), 2, "unknown format 'longstand' (did you mean 'longstrand'?)"),
        ((published, "--to", "longstrand", "--family", "brt"), 2, "unknown family 'brt' (did you mean 'bert'?)"),
        ((published, "--to", "longstrand", "--family", "dnabert2"), 1, "these are files of bert, not of dnabert2"),
        ((ours, "--to", "published", "--family", "gena_bert"), 1, "family gena_bert is pre-norm"),
        ((tmp_path, "--to", "longstrand"), 1, "no config.json here"),
        ((tmp_path / "absent", "--to", "longstrand"), 1, "no such folder"),
    ]:
        found, _, err = run(capsys, *words, "--output", output)
        assert found == code and sentence in err, (words, err)
        assert not output.exists()


def test_a_foreign_tokenizer_is_refused_and_a_broken_one_is_said(tmp_path: Path) -> None:
    from longstrand.errors import TokenizerError

    published = write_published("bert", tmp_path / "published")
    (published / "vocab.txt").write_text("[PAD]\nA\nA\n" + "\n".join(map(str, range(22))))
    done = convert_folder(published, tmp_path / "a", target="longstrand")
    assert any("carried over but cannot be opened" in note for note in done.notes)
    (published / "vocab.txt").write_text("\n".join(map(str, range(99))))
    with pytest.raises(TokenizerError, match="the tokenizer files know 99 tokens, the model 25"):
        convert_folder(published, tmp_path / "b", target="longstrand")
    (published / "vocab.txt").unlink()
    done = convert_folder(published, tmp_path / "c", target="longstrand")
    assert any("has no tokenizer" in note for note in done.notes)


def test_every_golden_checkpoint(shared: Path, tmp_path: Path) -> None:
    folders = [path.parent for path in sorted((shared / "golden").rglob("config.json"))
               if "rmt" not in str(path) and (path.parent / "model.safetensors").is_file()]  # fmt: skip
    assert folders, "no golden checkpoints in the data folder"
    for number, folder in enumerate(folders):
        convert_folder(folder, tmp_path / f"{number}a", target="longstrand")
        convert_folder(tmp_path / f"{number}a", tmp_path / f"{number}b", target="published")
        assert bits(folder) == bits(tmp_path / f"{number}b"), folder
        assert (folder / "config.json").read_bytes() == (tmp_path / f"{number}b" / "config.json").read_bytes()
