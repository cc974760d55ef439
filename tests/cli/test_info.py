"""`longstrand info` on folders written by hand: numbers from headers alone, one sentence for foreign folders."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from longstrand.cli.main import main
from longstrand.errors import CheckpointError, InputError
from longstrand.info.folder import inspect_folder, tokenizer_facts
from longstrand.tokenization.kmer import make_kmer


def write_weights(file: Path, tensors: dict[str, tuple[torch.dtype, list[int]]]) -> None:
    save_file({name: torch.zeros(shape, dtype=dtype) for name, (dtype, shape) in tensors.items()}, file)


def write_tokenizer(folder: Path) -> None:
    """Write a BPE of five special tokens, four bases and two words."""
    words = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "A", "C", "G", "T", "AC", "ACG"]
    vocab = {word: number for number, word in enumerate(words)}
    model = {"type": "BPE", "vocab": vocab, "merges": [["A", "C"], ["AC", "G"]], "unk_token": "[UNK]"}
    content = {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": None, "model": model}
    (folder / "tokenizer.json").write_text(json.dumps(content))


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    config = {
        "model_type": "longstrand",
        "family": "gena_bert",
        "num_hidden_layers": 3,
        "hidden_size": 8,
        "num_attention_heads": 2,
        "vocab_size": 11,
        "positions": "learned",
        "max_position_embeddings": 512,
        "heads": {"promoter": {"kind": "sequence", "problem": "single_label", "pooling": "cls", "num_outputs": 2}},
    }
    (folder / "config.json").write_text(json.dumps(config))
    write_weights(
        folder / "model.safetensors",
        {
            "a.weight": (torch.float32, [11, 8]),
            "b": (torch.bfloat16, [3]),
            "scalar": (torch.float32, []),
            "ids": (torch.int64, [9]),
        },
    )
    write_tokenizer(folder)
    about = {
        "format": "longstrand.checkpoint",
        "provenance": {
            "bases_per_token": 4.5,
            "steps": 20,
            "hold_out": {"loss": 2.5, "accuracy": 0.25},
            "provenance": {
                "command": ["longstrand", "pretrain"],
                "date": "2026-01-02",
                "versions": {"longstrand": "0.1.0"},
            },
        },
    }
    (folder / "longstrand.json").write_text(json.dumps(about))
    return folder


def test_a_model_by_hand(model_folder: Path) -> None:
    finding = inspect_folder(model_folder)
    assert finding.kind == "model"
    model = finding.facts["model"]
    assert model["parameters"] == 11 * 8 + 3 + 1
    assert model["weights"] == "4 tensors, bfloat16, float32, int64, 0.0 MB"
    assert (model["family"], model["layers"], model["hidden size"]) == ("gena_bert", 3, 8)
    assert finding.facts["context"] == {
        "tokens": 512,
        "limit": "position table",
        "bases": "about 2,304 (4.50 bases per token, measured on the training genome)",
    }
    assert finding.facts["heads"] == {"promoter": "sequence, single_label, cls, 2 outputs"}
    assert finding.facts["metrics on held-out sequence (masked tokens)"] == {"loss": 2.5, "accuracy": 0.25}
    assert finding.facts["origin"]["command"] == "longstrand pretrain"
    assert finding.facts["origin"]["training steps"] == 20


def test_a_tokenizer_by_hand(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    facts = tokenizer_facts(tmp_path)
    assert (facts["kind"], facts["vocabulary"]) == ("byte-pair encoding (BPE)", 11)
    assert facts["longest token"] == "3 bases: ACG"
    assert facts["special tokens"] == "[UNK] [CLS] [SEP] [PAD] [MASK]"
    (tmp_path / "g.fa").write_text(">one\nacgACNT\n")  # ACG, AC, T: six bases in three tokens
    measured = tokenizer_facts(tmp_path, tmp_path / "g.fa")
    assert (measured["bases per token"], measured["measured on"]) == (2.0, f"measured on {tmp_path / 'g.fa'}")
    assert facts["bases per token"] is None and "pass --fasta GENOME" in facts["measured on"]
    (tmp_path / "n.fa").write_text(">s\nNNN\n")
    with pytest.raises(InputError, match=r"n.fa: the text gives no tokens"):
        tokenizer_facts(tmp_path, tmp_path / "n.fa")
    assert inspect_folder(tmp_path).kind == "tokenizer"


def test_settings_of_the_training_do_not_name_the_tokenizer(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    unused = {"tokenizer": {"path": "mine", "kind": "kmer", "k": 6, "overlapping": False}}
    about = {"tokenizer": {"kind": "bpe"}, "provenance": {"settings": unused}}
    (tmp_path / "longstrand.json").write_text(json.dumps(about))
    assert tokenizer_facts(tmp_path)["kind"] == "byte-pair encoding (BPE)"


def test_a_vocabulary_list(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\nAAA\nAAC\n")
    facts = tokenizer_facts(tmp_path)
    assert facts["bases per token"] is None and "k-mer vocabulary" in facts["problem"]


def test_words_of_k_bases(tmp_path: Path) -> None:
    make_kmer(3).save(tmp_path / "a")
    make_kmer(3, overlapping=True).save(tmp_path / "b")
    apart, sliding = tokenizer_facts(tmp_path / "a"), tokenizer_facts(tmp_path / "b")
    assert (apart["kind"], apart["bases per token"]) == ("k-mers of 3, side by side", 3.0)
    assert (sliding["kind"], sliding["bases per token"]) == ("k-mers of 3, overlapping", 1.0)


def test_an_unfinished_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("output: x\n")
    (tmp_path / "checkpoint-40").mkdir()
    (tmp_path / "metrics.jsonl").write_text('{"step": 40, "loss": 3.5}\n{"step": 50, "lo')
    facts = inspect_folder(tmp_path).facts
    assert facts["run"]["state"].startswith("unfinished")
    assert (facts["run"]["last step"], facts["run"]["checkpoints"]) == (40, "40")
    assert facts["last row of metrics.jsonl (training and validation)"] == {"step": 40, "loss": 3.5}


def test_a_finished_run_shows_its_model(model_folder: Path) -> None:
    run = model_folder.parent
    (run / "config.yaml").write_text("output: x\n")
    metrics, worse = {"mcc": {"value": 0.5, "low": 0.25, "high": 0.75}}, {"mcc": {"value": 0.125}}
    (run / "report.json").write_text(
        json.dumps({"kind": "finetuning", "valid": {"metrics": worse}, "test": {"metrics": metrics}})
    )
    finding = inspect_folder(run)
    assert finding.facts["run"] == {"state": "finished", "kind": "finetuning"}
    assert finding.facts["metrics on test rows"] == {"mcc": "0.5000 (95 % interval 0.2500 to 0.7500)"}
    assert finding.facts["metrics on validation rows (training chose by them)"] == {"mcc": "0.1250"}
    assert finding.facts["model"]["layers"] == 3


def test_a_pickle_is_not_opened(model_folder: Path) -> None:
    (model_folder / "model.safetensors").unlink()
    assert inspect_folder(model_folder).facts["model"]["weights"] == "none in this folder"
    (model_folder / "pytorch_model.bin").write_bytes(b"\x80")
    assert inspect_folder(model_folder).facts["model"]["weights"] == "pytorch_model.bin (pickle, not opened)"


def test_the_command(model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["info", str(model_folder)])
    assert not end.value.code
    shown = capsys.readouterr().out
    assert "a model folder" in shown and "parameters        92" in shown
    with pytest.raises(SystemExit):
        main(["info", str(model_folder), "--json"])
    read: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert read["model"]["parameters"] == 92


def test_folders_that_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        inspect_folder(tmp_path / "absent")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file; give the folder"):
        inspect_folder(tmp_path / "file")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"neither a model .* look at inner inside it"):
        inspect_folder(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["info", str(tmp_path / "absent")])
    assert end.value.code == 1
    assert "no such folder" in capsys.readouterr().err


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    (tmp_path / "config.json").write_text("{}")
    for content in (b"abc", struct.pack("<Q", 1 << 60), struct.pack("<Q", 5) + b'{"a":'):
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"model\.safetensors: truncated or damaged"):
            inspect_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "Strange", "vocab": {}}}')
    facts = tokenizer_facts(tmp_path)
    assert facts["bases per token"] is None and "only BPE and k-mers are known" in facts["problem"]


def test_a_published_family_from_the_header_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The family is found from names and shapes, and copies of a tensor count once."""
    from longstrand.models.config import preset
    from longstrand.models.pretrained import LongstrandForMaskedLM
    from longstrand.models.published.to_ours import export_published

    gated = {"norm": "post", "positions": "alibi", "gated_mlp": True, "biases": {"mlp_up": False}, "norm_eps": 1e-12}
    model = LongstrandForMaskedLM(preset("tiny", vocab_size=25, family="dnabert2", quirks=["zero_padding"], **gated))
    export_published(model, tmp_path)
    facts = inspect_folder(tmp_path).facts
    assert (facts["model"]["family"], facts["model"]["positions"]) == ("dnabert2", "alibi")
    assert facts["model"]["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert facts["parameters by part"]["attention"] == 2 * 4 * (128 * 128 + 128)
    assert list(facts["quirks"]) == ["zero_padding"] and "ALiBi" in facts["model"]["differences"]
    assert facts["heads"] == {"masked_lm": "masked_lm, mean"}
    write_weights(tmp_path / "model.safetensors", {"strange.weight": (torch.float32, [3])})
    model_facts = inspect_folder(tmp_path).facts["model"]
    assert "problem" not in model_facts and model_facts["weights"].startswith("1 tensors")


def test_every_golden_folder(shared: Path) -> None:
    """Published folders of every kind, recurrent memory included, are described without reading their weights."""
    folders = [config.parent for config in sorted((shared / "golden").rglob("config.json"))]
    described = {str(folder.relative_to(shared / "golden")): inspect_folder(folder).facts for folder in folders}
    assert len(described) > 20
    problems = {name for name, facts in described.items() if "not usable" in facts.get("model", {})}
    assert problems == {"gena/rmt_repo_decoder_gpt2"}
    memory = described["gena/rmt_gena_seqcls"]
    assert memory["parameters by part"]["memory"] == 3 * 64
    assert memory["context"]["limit"] == "none: segments of 16 tokens, 3 memory tokens, forward"
