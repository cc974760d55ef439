"""Fine-tuning end to end on toys: every kind of problem, splits, resuming, the control, and what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from longstrand.config import build
from longstrand.errors import (
    CheckpointError,
    ConfigError,
    InputError,
    ResumeError,
    TokenizerError,
    TrainingError,
    UsageError,
)
from longstrand.inference.predict import predict
from longstrand.models.checkpoint import load_model
from longstrand.tokenization.hub import load_tokenizer
from longstrand.training import finetune as module
from longstrand.training.finetune import FinetuneTrainer, best_row, finetune, is_exhausted
from longstrand.training.run_folder import TrainingResult
from longstrand.training.settings import FinetuneConfig, PretrainConfig
from tests.genome.test_haplotypes import write as write_vcf
from tests.toys import tiny_checkpoint


def two_kinds(num_rows: int, seed: int = 0) -> list[tuple[str, int]]:
    """Sequences of 8 to 20 bases, class 1 rich in C."""
    random = np.random.default_rng(seed)
    rows = []
    for row in range(num_rows):
        kind = row % 2
        shares = [0.1, 0.7, 0.1, 0.1] if kind else [0.3, 0.1, 0.3, 0.3]
        rows.append(("".join(random.choice(list("ACGT"), int(random.integers(8, 21)), p=shares)), kind))
    return rows


def write(path: Path, header: list[str], rows: list[Any]) -> Path:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def settings(model: Path, output: Path, data: dict[str, Any], **changes: Any) -> FinetuneConfig:
    training = {
        "epochs": 3,
        "batch_size": 8,
        "learning_rate": 0.02,
        "tensorboard": False,
        "device": "cpu",
        "threads": 1,
        "strand": "+",
    }
    measured = {"resamples": 20, "kmer": 2, **changes.pop("evaluation", {})}
    if measured.get("baselines") is False and measured["kmer"] == 2:
        del measured["kmer"]
    values: dict[str, Any] = {
        "output": str(output),
        "model": {"path": str(model), **changes.pop("start", {})},
        "data": {name: str(value) if isinstance(value, Path) else value for name, value in data.items()},
        "evaluation": measured,
    }
    return build(FinetuneConfig, values | {"training": training | changes})


def run(model: Path, output: Path, data: dict[str, Any], **changes: Any) -> TrainingResult:
    return finetune(settings(model, output, data, **changes))


def predictions(folder: Path) -> list[dict[str, str]]:
    with open(folder / "predictions_test.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_classes_end_to_end(model: Path, tables: dict[str, Path], tmp_path: Path) -> None:
    said: list[str] = []
    result = finetune(settings(model, tmp_path / "run", tables), notice=said.append)
    assert said[0].startswith("problem: single_label, one of 2 classes")
    assert said[1].startswith("split: 48 train, 22 valid, 25 test")
    names = {path.name for path in result.folder.iterdir()}
    expected = {
        "config.yaml",
        "inputs.json",
        "metrics.jsonl",
        "metrics.csv",
        "model",
        "report.json",
        "predictions_test.csv",
    }
    assert names >= expected
    assert not [name for name in names if name.startswith(("checkpoint", "tmp"))]
    report = json.loads((result.folder / "report.json").read_text())
    assert report["test"]["metrics"]["accuracy"]["value"] > 0.8
    assert report["test"]["num_evaluated"] == 25
    assert set(report["baselines"]) == {"kmer", "majority"}
    assert report["baselines"]["majority"]["test"]["constant_prediction"]
    assert report["splits"]["train"]["labels"] == {"0": 24, "1": 24}
    assert report["sanity"]["across"]["test in train"]["num_identical"] == 0
    assert report["task"]["problem"] == "single_label"
    assert report["best_step"] in {row["step"] for row in report["curve"]}
    assert [row["epoch"] for row in report["curve"]] == [1.0, 2.0, 3.0]
    assert len(report["inputs"]["tables"]) == 3


def test_predictions_keep_the_order_and_are_those_of_the_saved_model(
    model: Path, tables: dict[str, Path], tmp_path: Path
) -> None:
    result = run(model, tmp_path / "run", tables, evaluation={"strand": "both"})
    rows = predictions(result.folder)
    truth = two_kinds(25, 2)
    assert [row["label"] for row in rows] == [str(kind) for _, kind in truth]
    assert [int(row["row"]) for row in rows] == list(range(1, 26))
    loaded = load_model(result.folder / "model", head="sequence")
    assert loaded.config.head("sequence").class_names == ["0", "1"]
    tokenizer = load_tokenizer(result.folder / "model")
    ours = predict(loaded, [text for text, _ in truth], tokenizer=tokenizer, output="probabilities", strand="both")
    for row, prediction in zip(rows, ours):
        assert float(row["probability_1"]) == pytest.approx(float(prediction.values[1]), abs=1e-5)
        assert row["predicted"] == str(prediction.values.argmax())


def test_a_finished_run_is_not_repeated_and_a_changed_one_is_refused(
    model: Path, tables: dict[str, Path], tmp_path: Path
) -> None:
    first = run(model, tmp_path / "run", tables, epochs=1)
    weights = (first.folder / "model" / "model.safetensors").stat().st_mtime_ns
    again = run(model, tmp_path / "run", tables, epochs=1)
    assert again.report["provenance"]["date"] == first.report["provenance"]["date"]
    assert (first.folder / "model" / "model.safetensors").stat().st_mtime_ns == weights
    with pytest.raises(ResumeError, match=r"training.learning_rate: 0.02 -> 0.5"):
        run(model, tmp_path / "run", tables, epochs=1, learning_rate=0.5)
    write(tables["train"], ["sequence", "label"], two_kinds(48, 9))
    with pytest.raises(ResumeError, match="other settings or data"):
        run(model, tmp_path / "run", tables, epochs=1)


@pytest.mark.parametrize("moment", ["after a checkpoint", "before the report"])
def test_the_same_command_resumes_with_the_same_result(
    model: Path, tables: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    options: dict[str, Any] = {"strand": "both", "start": {"dropout": 0.2}}
    whole = run(model, tmp_path / "whole", tables, **options)
    broken = {"left": 2 if moment == "after a checkpoint" else 99}
    original = FinetuneTrainer._save_checkpoint

    def save_then_die(self: Any, *arguments: Any) -> None:
        original(self, *arguments)
        broken["left"] -= 1
        if broken["left"] == 0:
            raise KeyboardInterrupt

    def die(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FinetuneTrainer, "_save_checkpoint", save_then_die)
        if moment == "before the report":
            patch.setattr(module, "make_report", die)
        with pytest.raises(KeyboardInterrupt):
            run(model, tmp_path / "cut", tables, **options)
    assert not (tmp_path / "cut" / "report.json").exists()
    resumed = run(model, tmp_path / "cut", tables, **options)
    for name in ("metrics.jsonl", "predictions_test.csv", "model/model.safetensors"):
        assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name


def test_the_control_keeps_no_learned_weight(model: Path, tables: dict[str, Path]) -> None:
    learned = load_file(model / "model.safetensors")
    key = next(name for name in learned if name.endswith("query.weight"))
    splits = module.load_splits(settings(model, Path("x"), tables).data)
    tokenizer = load_tokenizer(model)
    kept = module.make_model(settings(model, Path("x"), tables), splits, tokenizer)
    control = module.make_model(settings(model, Path("x"), tables, start={"init": "random"}, seed=3), splits, tokenizer)
    assert torch.equal(kept.state_dict()[key], learned[key])
    assert not torch.equal(control.state_dict()[key], learned[key])
    assert control.config.settings() == kept.config.settings()
    other = module.make_model(settings(model, Path("x"), tables, start={"init": "random"}, seed=1), splits, tokenizer)
    assert not torch.equal(other.state_dict()[key], control.state_dict()[key])


def test_regression_predicts_natural_units(model: Path, tmp_path: Path) -> None:
    rows = [
        (text, 1000 + 40 * kind, "" if i % 5 == 0 else -0.01 * kind) for i, (text, kind) in enumerate(two_kinds(60))
    ]
    path = write(tmp_path / "t.csv", ["sequence", "expression", "decay"], rows)
    data = {"train": path, "columns": {"labels": ["expression", "decay"]}, "problem": "regression"}
    result = run(model, tmp_path / "run", data, epochs=6, patience=0)
    assert {name: part["num_rows"] for name, part in result.report["splits"].items()} == {
        "train": 48,
        "valid": 6,
        "test": 6,
    }
    assert result.report["splits"]["train"]["num_missing_labels"] > 0
    found = predictions(result.folder)
    assert 990 < float(found[0]["predicted_expression"]) < 1050
    assert abs(float(found[0]["predicted_decay"])) < 0.02
    assert result.report["valid"]["metrics"]["mse"]["value"] < 600
    loaded = load_model(result.folder / "model", head="sequence")
    assert loaded.config.head("sequence").problem == "regression"
    sequences = {index + 1: text for index, (text, _) in enumerate(two_kinds(60))}
    texts = [sequences[int(row["row"])] for row in found]
    for row, prediction in zip(found, predict(loaded, texts, tokenizer=load_tokenizer(model))):
        assert float(row["predicted_expression"]) == pytest.approx(float(prediction.values[0]), abs=1e-2)


def test_labels_with_missing_cells_and_weights(model: Path, tmp_path: Path) -> None:
    rows = [(text, kind, "" if i % 4 == 0 else 1 - kind) for i, (text, kind) in enumerate(two_kinds(60))]
    path = write(tmp_path / "t.csv", ["sequence", "p", "q"], rows)
    data = {"train": path, "columns": {"labels": "p,q"}, "test_fraction": 0.3, "valid_fraction": 0.2}
    result = run(model, tmp_path / "run", data, class_weights="balanced", evaluation={"predictions": "parquet"})
    assert result.report["task"]["problem"] == "multi_label"
    head = load_model(result.folder / "model", head="sequence").config.head("sequence")
    assert head.pos_weight is not None
    assert result.report["test"]["metrics"]["mean_roc_auc"]["value"] > 0.7
    import polars as pl

    frame = pl.read_parquet(result.folder / "predictions_test.parquet")
    assert frame.columns == ["row", "p", "probability_p", "q", "probability_q", "num_tokens", "truncated"]
    assert frame["q"].null_count() > 0


def test_accumulation_equals_one_big_batch_with_missing_labels(model: Path, tmp_path: Path) -> None:
    rows = [(text, kind, "" if i % 3 else i / 10) for i, (text, kind) in enumerate(two_kinds(40))]
    path = write(tmp_path / "t.csv", ["sequence", "a", "b"], rows)
    data = {"train": path, "columns": {"labels": "a,b"}, "test_fraction": 0}
    weights = []
    for micro in (8, 2):
        folder = tmp_path / f"micro-{micro}"
        result = run(model, folder, data, epochs=1, micro_batch_size=micro, evaluation={"baselines": False})
        weights.append(load_file(result.folder / "model" / "model.safetensors"))
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=1e-4, atol=2e-5)


def test_packed_training_equals_padded_training(model: Path, tables: dict[str, Path], tmp_path: Path) -> None:
    weights = []
    for pack in (False, True):
        folder = tmp_path / f"pack-{pack}"
        changes = {"epochs": 1, "evaluation": {"baselines": False}, "start": {"dropout": 0.0}}
        run(model, folder, tables, pack=pack, **changes)
        weights.append(load_file(folder / "model" / "model.safetensors"))
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=1e-4, atol=2e-5)


def test_labels_per_base(model: Path, tmp_path: Path) -> None:
    """Every C and G is a feature; sequences of 8 to 20 bases, cut at 16 tokens (14 bases)."""
    model = tiny_checkpoint(tmp_path / "bases", k=1)
    rows = [(text, "".join("X" if letter in "CG" else "O" for letter in text)) for text, _ in two_kinds(60)]
    path = write(tmp_path / "t.csv", ["sequence", "labels"], rows)
    result = run(model, tmp_path / "run", {"train": path}, max_tokens=16, epochs=6, evaluation={"strand": "both"})
    report = result.report
    assert report["task"] == {
        "problem": "token", "names": ["O", "X"], "columns": ["labels"], "why": report["task"]["why"],
    }  # fmt: skip
    cut = [row for row in predictions(result.folder) if row["truncated"] == "true"]
    assert cut
    assert any("were cut to 16 tokens" in warning for warning in report["warnings"])
    assert report["splits"]["test"]["num_truncated"] == len(cut)
    assert report["test"]["metrics"]["accuracy"]["value"] > 0.8
    for row in predictions(result.folder):
        assert len(row["label"].split()) == len(row["predicted"].split())
    assert load_model(result.folder / "model", head="token").config.head("token").class_names == ["O", "X"]


def test_pieces_of_labelled_genes(model: Path, tmp_path: Path) -> None:
    rows = [
        (f"g{gene}", text, label)
        for gene in range(20)
        for text, label in (("ACGT" + "ACGT"[gene % 4] * (gene // 4), "O"), ("CC", "B-x"), ("CCC", "I-x"))
    ]
    path = write(tmp_path / "t.csv", ["gene", "sequence", "labels"], rows)
    data = {"train": path, "columns": {"group": "gene"}, "piece_bases": 5}
    result = run(model, tmp_path / "run", data, epochs=1)
    assert result.report["task"]["names"] == ["O", "B-x", "I-x"]
    counts = result.report["splits"]
    assert sum(part["num_bases"] for part in counts.values()) == sum(len(text) for _, text, _ in rows)
    assert all(len(row["label"].split()) <= 6 for row in predictions(result.folder))


def test_pairs(model: Path, tmp_path: Path) -> None:
    model = tiny_checkpoint(tmp_path / "pairs", type_vocab_size=2)
    first, second = two_kinds(40, 1), two_kinds(40, 2)
    rows = [(a, b, int(kind)) for (a, kind), (b, _) in zip(first, second)]
    path = write(tmp_path / "t.csv", ["sequence", "other", "label"], rows)
    data = {"train": path, "columns": {"pair": "other"}}
    result = run(model, tmp_path / "run", data, strand="both", epochs=1, evaluation={"strand": "both"})
    assert result.report["test"]["num_evaluated"] == 4
    with pytest.raises(InputError, match="pairs are never cut"):
        run(model, tmp_path / "short", data, max_tokens=8)


def test_intervals_split_by_chromosome(model: Path, tmp_path: Path) -> None:
    letters = np.random.default_rng(0)
    fasta = tmp_path / "toy.fa"
    fasta.write_text("".join(f">chr{n}\n{''.join(letters.choice(list('ACGT'), 400))}\n" for n in range(1, 5)))
    rows = [
        (f"chr{1 + i % 4}", 40 + 7 * i, 44 + 7 * i, "+-"[i % 2], ["quiet", "active"][i % 3 == 0]) for i in range(40)
    ]
    path = write(tmp_path / "t.csv", ["chrom", "start", "end", "strand", "label"], rows)
    data = {"train": path, "fasta": fasta, "window": 16, "valid_chroms": ["chr3"], "test_chroms": "chr4"}
    result = run(model, tmp_path / "run", data, epochs=1)
    assert {name: part["num_rows"] for name, part in result.report["splits"].items()} == {
        "train": 20,
        "valid": 10,
        "test": 10,
    }
    assert predictions(result.folder)[0]["name"].startswith("chr4:")
    texts = dict(part.split("\n")[:2] for part in fasta.read_text().split(">")[1:])
    people = [(f"chr{n}", p + 1, ".", texts[f"chr{n}"][p], f"{texts[f'chr{n}'][p]}AA", ".", ".", ".", "GT", "0|1")
              for n in range(1, 5) for p in range(30, 380, 10)]  # fmt: skip
    vcf = write_vcf(tmp_path / "in.vcf", people, ["S"])
    other = run(model, tmp_path / "people", data | {"variants": vcf}, epochs=1)
    assert other.report["inputs"]["variants"] and other.report["settings"]["data"]["variants"]["path"] == str(vcf)
    assert other.report["test"] != result.report["test"] and other.report["splits"] == result.report["splits"]
    bed = tmp_path / "peaks.bed"
    bed.write_text("".join(f"{chrom}\t{start}\t{end}\n" for chrom, start, end, _, _ in rows[:16]))
    data = {"train": bed, "fasta": fasta, "window": 16, "negative_ratio": 1, "valid_chroms": ["chr3"]}
    result = run(model, tmp_path / "bed", data, epochs=1)
    assert result.report["splits"]["train"]["labels"] == {"0": 12, "1": 12}
    assert "test" not in result.report


def test_early_stopping(model: Path, tables: dict[str, Path], tmp_path: Path) -> None:
    """The metric never moves; the loss falls in the seventh decimal until rounding stops it, and counts as well."""
    result = run(model, tmp_path / "run", tables, epochs=9, patience=2, learning_rate=1e-12, schedule="constant")
    assert result.report["steps"] == 3 * 6
    assert result.report["collapsed"]
    assert any("the same answer to every sequence" in warning for warning in result.report["warnings"])


def test_best_row_and_patience() -> None:
    rows: list[dict[str, Any]] = [
        {"step": step, "eval_mcc": mcc, "eval_loss": 1.0} for step, mcc in enumerate((0.1, 0.5, 0.5, 0.2))
    ]
    assert best_row(rows, "mcc")["step"] == 1
    assert best_row(rows, "loss")["step"] == 0
    assert best_row([], "mcc") is None
    assert is_exhausted(rows, "mcc", 2)
    assert not is_exhausted(rows, "mcc", 3)
    assert not is_exhausted(rows, "mcc", 0)


def test_divergence_is_an_error(
    model: Path, tables: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "validation_numbers", lambda scored: {"loss": float("nan"), "mcc": 0.0})
    with pytest.raises(TrainingError, match="training diverged"):
        run(model, tmp_path / "run", tables)


def test_splits_and_settings_that_contradict(model: Path, tables: dict[str, Path], tmp_path: Path) -> None:
    rows = [(text, kind, ["train", "dev", "test"][i % 3]) for i, (text, kind) in enumerate(two_kinds(30))]
    path = write(tmp_path / "t.csv", ["sequence", "label", "part"], rows)
    data: dict[str, Any] = {"train": path, "columns": {"split": "part"}}
    splits = module.load_splits(settings(model, tmp_path, data).data)
    assert [len(part) for _, part in splits.items()] == [10, 10, 10]
    with pytest.raises(UsageError, match="the split is given twice: by a split column"):
        module.load_splits(settings(model, tmp_path, data | {"test": tables["test"]}).data)
    with pytest.raises(UsageError, match="the split is given twice: by chromosomes"):
        module.load_splits(settings(model, tmp_path, tables | {"test_chroms": "1"}).data)
    with pytest.raises(UsageError, match="piece_bases cuts labels per base, but the problem is single_label"):
        module.load_splits(settings(model, tmp_path, tables | {"piece_bases": 5}).data)
    (tmp_path / "g.fa").write_text(">chr1\nACGT\n")
    with pytest.raises(UsageError, match="holds sequences, so a genome has no meaning"):
        module.load_splits(settings(model, tmp_path, tables | {"fasta": tmp_path / "g.fa"}).data)
    for name, some in (("valid", data), ("test", data), ("test", tables), ("valid", tables)):
        with pytest.raises(UsageError, match=f"{name}_fraction is for rows split off at random"):
            module.load_splits(settings(model, tmp_path, some | {f"{name}_fraction": 0.3}).data)
    upper = write(tmp_path / "u.csv", ["sequence", "label", "Split"], rows)
    assert len(module.load_splits(settings(model, tmp_path, {"train": upper}).data).train) == 10
    few = module.load_splits(settings(model, tmp_path, tables | {"max_train_rows": 7}).data)
    assert len(few.train) == 7
    only = module.load_splits(settings(model, tmp_path, {"train": tables["train"], "test_fraction": 0}).data)
    assert only.test is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"train": "t.csv", "window": 5}, "window needs fasta"),
        ({"train": "t.csv", "class_names": ["a"], "class_names_file": "b"}, "not both"),
        ({"train": "t.csv", "valid_fraction": 0.6, "test_fraction": 0.5}, "leave nothing to train on"),
        ({"train": "t.csv", "variants": "in.vcf"}, "variants need fasta, the genome, and rows that are intervals"),
        ({"train": "t.csv", "negative_ratio": 1}, "random negatives need fasta"),
        ({"train": "t.csv", "bin_loss": "squared"}, "there are no bins without bin_bases"),
        ({"train": "t.csv", "vaild": "v.csv"}, "unknown key 'data.vaild' (did you mean 'valid'?)"),
    ],
)
def test_bad_data_settings(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(FinetuneConfig, {"output": "o", "model": "m", "data": data})
    assert message in str(error.value)


def test_bad_batch_settings_and_short_forms() -> None:
    with pytest.raises(ConfigError, match="batch_size 10 is no multiple of micro_batch_size 3"):
        build(
            FinetuneConfig,
            {"output": "o", "model": "m", "data": "t", "training": {"batch_size": 10, "micro_batch_size": 3}},
        )
    config = build(FinetuneConfig, {"output": "o", "model": "m", "data": "t.csv"})
    assert (config.model.path, config.data.train) == (Path("m"), Path("t.csv"))


def test_bad_input_is_refused_before_training(model: Path, tables: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown metric 'mmc' \(did you mean 'mcc'"):
        run(model, tmp_path / "a", tables, metric="mmc")
    with pytest.raises(InputError, match=r"absent\.csv: no such file"):
        run(model, tmp_path / "b", tables | {"test": tmp_path / "absent.csv"})
    words = write(
        tmp_path / "w.csv", ["sequence", "label"], [(text, ["lo", "hi"][kind]) for text, kind in two_kinds(30)]
    )
    with pytest.raises(InputError, match="row 1: 'lo' in column 'label' is not a number, as regression needs"):
        run(model, tmp_path / "c", {"train": words, "problem": "regression"})
    new = write(tmp_path / "n.csv", ["sequence", "label"], [("ACGT", 0), ("ACGT", 2)])
    with pytest.raises(InputError, match=r"label '2' \(row 2\) is not among the classes of the training table"):
        run(model, tmp_path / "d", tables | {"test": new})
    one = write(tmp_path / "o.csv", ["sequence", "label"], [("ACGT", 1)] * 9)
    with pytest.raises(InputError, match="every label is '1'; training needs at least two classes"):
        run(model, tmp_path / "e", {"train": one})
    with pytest.raises(InputError, match="but the model reads at most 8"):
        run(model, tmp_path / "f", tables, max_tokens=8, on_long="refuse")
    bio = write(tmp_path / "bio.csv", ["sequence", "labels"], [(text[:4], "O B-x I-x O") for text, _ in two_kinds(30)])
    with pytest.raises(UsageError, match="B-/I- labels have a direction"):
        run(model, tmp_path / "g", {"train": bio}, strand="both")
    with pytest.raises(UsageError, match="class_weights are for classes"):
        run(model, tmp_path / "i", tables | {"problem": "regression"}, class_weights="balanced")
    with pytest.raises(ConfigError, match="kmer would not be used: the baselines are off"):
        run(model, tmp_path / "j", tables, evaluation={"baselines": False, "kmer": 3})
    with pytest.raises(TokenizerError, match="no such folder"):
        run(tmp_path / "nowhere", tmp_path / "h", tables)


def test_a_tokenizer_that_is_not_the_models_is_refused(model: Path, tables: dict[str, Path], tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(model, mixed)
    load_tokenizer(tiny_checkpoint(tmp_path / "other", k=1)).save(mixed)
    with pytest.raises((TokenizerError, CheckpointError), match="disagree"):
        run(mixed, tmp_path / "run", tables)


def test_a_position_table_cuts_and_reports(tables: dict[str, Path], tmp_path: Path) -> None:
    short = tiny_checkpoint(tmp_path / "short", positions="learned", max_position_embeddings=9)
    result = run(short, tmp_path / "run", tables, epochs=1)
    assert result.report["splits"]["train"]["max_tokens"] == 9
    assert result.report["splits"]["train"]["num_truncated"] > 0
    assert any("what the model can read" in warning for warning in result.report["warnings"])


def test_a_run_without_a_complete_checkpoint_cannot_be_measured(tmp_path: Path) -> None:
    empty = module.RunFolder(tmp_path)
    with pytest.raises(ResumeError, match="no complete checkpoint is left to measure"):
        module._load_best(empty, None, [], "mcc")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer": {"k": 3}}, "k would not be used: the tokenizer that is made is of the kind bpe"),
        ({"tokenizer": {"kind": "kmer", "vocab_size": 99}}, "vocab_size would not be used"),
        ({"masking": {"max_span": 5}}, "max_span would not be used: masking is of the kind token"),
        ({"masking": {"kind": "span", "kmer": 5}}, "kmer would not be used: masking is of the kind span"),
        (
            {"data": {"genomes": ["g.fa"], "hold_out": {"contigs": ["b"], "fraction": 0.2}}},
            "fraction would not be used: contigs or intervals say what is held out",
        ),
    ],
)
def test_settings_of_pretraining_that_would_not_be_used(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(PretrainConfig, {"output": "o", "data": {"genomes": ["g.fa"]}} | changes)
    build(PretrainConfig, {"output": "o", "data": {"genomes": ["g.fa"]}, "tokenizer": {"path": "t", "k": 3}})
