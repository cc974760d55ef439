"""Measuring a trained model on new rows: the numbers by hand, groups, the reading record, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import matthews_corrcoef

import longstrand as ls
from longstrand.cli.main import main
from longstrand.data.labelled import label
from longstrand.data.labelled_files import RawTable, make_rows
from longstrand.data.targets import Task
from longstrand.errors import CheckpointError, ConfigError, InputError, UsageError
from longstrand.evaluation.metrics import Scores
from longstrand.evaluation.sanity import check_splits
from longstrand.genome.sequence import reverse_complement
from longstrand.training.evaluate import evaluate
from longstrand.training.measure import Scored, overlap_warnings, worst_of, worst_rows
from tests.data.window_toys import random_dna
from tests.training.test_finetune import run, two_kinds, write


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fine-tune once, with class names, on both strands, on the first 8 tokens."""
    from tests.toys import tiny_checkpoint

    folder = tmp_path_factory.mktemp("evaluate")
    start = tiny_checkpoint(folder / "tiny")
    rows = [(text, ("low", "high")[kind]) for text, kind in two_kinds(48)]
    data = {"train": write(folder / "train.csv", ["sequence", "label"], rows)}
    result = run(
        start, folder / "run", data, strand="both", max_tokens=8, evaluation={"baselines": False, "page": False}
    )
    assert result.model is not None
    return result.folder


def new_rows(folder: Path, names: tuple[str, str] = ("low", "high")) -> Path:
    rows = [
        (text, names[kind], "first" if place < 12 else "second") for place, (text, kind) in enumerate(two_kinds(30, 5))
    ]
    return write(folder / "new.csv", ["sequence", "label", "batch"], rows)


def test_wrong_options_are_named(trained: Path, tmp_path: Path) -> None:
    rows = new_rows(tmp_path)
    with pytest.raises(ConfigError, match=r"unknown key 'sequnce_column' \(did you mean 'sequence_column'\?\)"):
        evaluate(trained, rows, sequnce_column="sequence")
    with pytest.raises(ConfigError, match=r"'strand': Input should be .* \(got 'plus'\)"):
        evaluate(trained, rows, strand="plus", device="cpu")


def test_numbers_groups_and_files(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", str(trained), str(new_rows(tmp_path)), "--group-column", "batch", "--resamples", "20"]
    words += ["--train", str(trained.parent / "train.csv"), "--output", str(tmp_path / "out"), "--device", "cpu"]
    with pytest.raises(SystemExit) as end:
        main(words)
    assert not end.value.code
    said = capsys.readouterr().out
    assert said.startswith("30 rows: mcc ") and "group second (18 rows): " in said and "kmer: " in said
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    with open(tmp_path / "out" / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = matthews_corrcoef([row["label"] for row in rows], [row["predicted"] for row in rows])
    assert report["test"]["metrics"]["mcc"]["value"] == pytest.approx(expected, abs=1e-9)
    first = rows[:12]
    expected = matthews_corrcoef([row["label"] for row in first], [row["predicted"] for row in first])
    assert report["groups"]["group"]["first"]["metrics"]["mcc"]["value"] == pytest.approx(expected, abs=1e-9)
    assert {name: found["num_rows"] for name, found in report["groups"]["group"].items()} == {"second": 18, "first": 12}
    assert report["reading"]["strand"] == "both" and report["reading"]["max_tokens"] == 8
    assert any(row["truncated"] == "true" for row in rows)
    assert report["baselines"]["kmer"]["test"]["paired"]["verdict"] in ("better", "worse", "unclear")
    assert (tmp_path / "out" / "report.html").stat().st_size > 1000


def test_the_test_rows_again_give_what_the_run_measured(trained: Path, tmp_path: Path) -> None:
    with open(trained / "predictions_test.csv", newline="") as file:
        measured = list(csv.DictReader(file))
    texts = [text for text, _ in two_kinds(48)]
    rows = [(texts[int(row["row"]) - 1], row["label"]) for row in measured]
    path = write(tmp_path / "test.csv", ["sequence", "label"], rows)
    report = evaluate(trained, path, output=tmp_path / "out", resamples=0, device="cpu")
    with open(tmp_path / "out" / "predictions.csv", newline="") as file:
        again = list(csv.DictReader(file))
    for mine, theirs in zip(again, measured):
        assert float(mine["probability_high"]) == pytest.approx(float(theirs["probability_high"]), abs=1e-6)
    assert report["groups"] == {}


def test_numbers_stand_for_the_names_of_the_model(trained: Path, tmp_path: Path) -> None:
    """The model's classes are sorted by name: 0 is high, 1 is low."""
    named = evaluate(trained, new_rows(tmp_path), resamples=0, device="cpu")
    numbered = evaluate(trained, new_rows(tmp_path, ("1", "0")), resamples=0, device="cpu")
    assert named["test"]["metrics"] == numbered["test"]["metrics"]
    order = "labels were taken for the outputs of the model in this order: 0 = high, 1 = low."
    assert order in numbered["warnings"] and order not in named["warnings"]


def test_refusals(trained: Path, tmp_path: Path, model: Path) -> None:
    with pytest.raises(
        InputError, match=r"label 'hihg' is not among the 2 class names \(did you mean 'high'\?\): high, low"
    ):
        evaluate(trained, new_rows(tmp_path, ("low", "hihg")), resamples=0)
    with pytest.raises(CheckpointError, match="predicts no labels; fine-tune it first"):
        evaluate(model, new_rows(tmp_path), resamples=0)
    with pytest.raises(UsageError, match="a window needs the genome"):
        evaluate(trained, new_rows(tmp_path), window=8)
    (tmp_path / "g.fa").write_text(">c\nACGT\n")
    with pytest.raises(UsageError, match="holds sequences, so --genome and --window have no meaning"):
        evaluate(trained, new_rows(tmp_path), genome=tmp_path / "g.fa")


def test_warnings_name_copies_cut_rows_and_lengths(trained: Path, tmp_path: Path) -> None:
    known = trained.parent / "train.csv"
    options: dict[str, Any] = {"resamples": 0, "device": "cpu"}
    found = evaluate(trained, known, train=known, **options)["warnings"]
    assert any("48 of 48 test rows (100.0%) are also train rows" in sentence for sentence in found)
    rows = [(text * 20, ("low", "high")[kind]) for text, kind in two_kinds(8)]
    found = evaluate(trained, write(tmp_path / "long.csv", ["sequence", "label"], rows), **options)["warnings"]
    assert any("8 sequences were cut to what the model can read" in sentence for sentence in found)
    assert any("but the model was trained on at most" in sentence for sentence in found)


def test_a_model_that_tells_nothing_apart_is_named(trained: Path, tmp_path: Path) -> None:
    model, rows = ls.load_model(trained / "model"), new_rows(tmp_path)
    sentence = "the model gives the same answer to every sequence, though the labels differ"
    assert not any(sentence in one for one in evaluate(model, rows, resamples=0)["warnings"])
    for weights in model.classifier.output.parameters():
        weights.data.zero_()
    report = evaluate(model, rows, output=tmp_path / "out", resamples=0)
    assert report["warnings"][0].startswith(sentence) and sentence in (tmp_path / "out" / "report.html").read_text()


def test_reading_otherwise_is_said(trained: Path, tmp_path: Path) -> None:
    said: list[str] = []
    options: dict[str, Any] = {"strand": "+", "resamples": 0, "notice": said.append, "device": "cpu"}
    evaluate(trained, new_rows(tmp_path), **options)
    assert any("strand '+' (the model was measured with 'both')" in sentence for sentence in said)


def test_windows_that_overlap_training_windows_are_counted() -> None:
    """Of three test rows one is a training row turned round, one overlaps one by 40 of 50 bases, one is new."""
    genome = random_dna(400, seed=3)
    train, test = [genome[:50], genome[100:150]], [reverse_complement(genome[:50]), genome[110:160], genome[300:350]]
    report = check_splits({"train": make_rows(train, {}, source="t"), "valid": make_rows(test, {}, source="t")})
    found = report["across"]["valid in train"]
    assert found["num_reverse_complement"] == 1 and found["num_near_duplicates"] == 1
    said = overlap_warnings(report)
    assert said[1].startswith("1 of 3 valid rows (33.3%) share at least half of their 16-mers with one train row")
    assert said[-1].startswith("splits that share rows: split by chromosome")


def test_worst_rows_are_those_that_were_most_wrong() -> None:
    raw = RawTable("t.csv", [1, 2, 3], ["ACGT" * 20, "CCCC", "GGGG"], {"label": ["a", "b", "a"]})
    table = label(raw, Task("single_label", ("a", "b"), ("label",), codes=("a", "b")))
    logits = np.float32([[0, 3], [0, 1], [2, 0]])
    rows = worst_rows(Scored(table, logits, [1] * 3, [False] * 3), 2)
    assert [(row["row"], row["label"], row["predicted"]) for row in rows] == [(1, "a", "b"), (2, "b", "b")]
    assert rows[0]["error"] == pytest.approx(1 / (1 + np.exp(-3)), abs=1e-6)
    assert rows[0]["sequence"] == "ACGT" * 10 + "..."


def test_the_worst_of_many_outputs_is_named() -> None:
    task = Task("regression", tuple("abcdefghi"), tuple("abcdefghi"))
    values = np.zeros((3, 9), np.float32)
    values[1, 4], values[2, 8] = np.nan, -2
    found = worst_of(Scores(task, np.zeros((3, 9), np.float32), values), 2)
    assert found == [(2, {"label": "i 0", "predicted": "i -2", "error": 2.0}),
                     (0, {"label": "a 0", "predicted": "a 0", "error": 0.0})]  # fmt: skip
