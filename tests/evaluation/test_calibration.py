"""Calibration by hand: errors of known bins, temperatures of labels that are drawn with one."""

from __future__ import annotations

import json

import numpy as np
import pytest

import longstrand as ls
from longstrand.cli.main import main
from longstrand.data.targets import Task
from longstrand.errors import InputError, UsageError
from longstrand.evaluation.calibration import calibration, fit_temperature
from longstrand.evaluation.metrics import Scores
from longstrand.inference.predict import probabilities
from tests.designs.test_design import model_of

TWO, THREE = Task("single_label", ("no", "yes"), ("label",)), Task("single_label", ("a", "b", "c"), ("label",))
MANY = Task("multi_label", ("a", "b"), ("a", "b"))


def of_yes(said, right):
    said = np.array(said)
    return Scores(TWO, np.array(right), np.stack([1 - said, said], axis=1))


def test_error_by_hand():
    """Ten rows at 0.2, of which three are right, and ten at 0.9, of which all are: 0.1 each, weighted by rows."""
    scores = of_yes([0.2] * 10 + [0.9] * 10, [1] * 3 + [0] * 7 + [1] * 10)
    found = calibration(scores, num_resamples=200)
    assert found["ece"]["value"] == pytest.approx(0.1)
    assert found["ece"]["low"] < 0.1 < found["ece"]["high"] < 0.4
    assert 0.05 < found["ece_if_calibrated"] < 0.13  # E|Bin(10, .2) - 2| / 10 and of .9: 0.098 and 0.070, mean 0.084


def test_three_classes_and_labels():
    """Of three classes the highest probability counts, of labels every known cell."""
    values = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]])
    assert calibration(Scores(THREE, np.array([0, 2]), values), num_resamples=0)["ece"] == {
        "value": pytest.approx(0.65)
    }
    labels = Scores(MANY, np.array([[1, np.nan], [0, 1]]), np.array([[0.75, 0.5], [0.25, 0.75]]))
    assert calibration(labels, num_resamples=0)["ece"]["value"] == pytest.approx(0.25)
    assert calibration(Scores(Task("regression", ("y",), ("y",)), np.zeros((2, 1)), np.zeros((2, 1)))) == {}


def test_equal_probabilities_share_a_bin():
    """However they are sorted: half of the rows at 0.5 is right."""
    assert calibration(of_yes([0.5] * 50, [0] * 25 + [1] * 25))["ece"]["value"] == pytest.approx(0)


@pytest.mark.parametrize("task", [TWO, THREE, MANY], ids=["two", "three", "labels"])
def test_the_temperature_of_drawn_labels_comes_back(task):
    random, size = np.random.default_rng(0), 4000
    logits = random.normal(0, 3, (size, len(task.names)))
    true = probabilities(logits / 2.5, task.problem)
    draws = random.random((size, 1))
    targets = (random.random(true.shape) < true).astype(float) if task is MANY else (draws > true.cumsum(1)).sum(1)
    scores = Scores(task, targets, probabilities(logits, task.problem))
    found = fit_temperature(logits, scores)
    assert found == pytest.approx(2.5, rel=0.07)
    after = Scores(task, targets, probabilities(logits / found, task.problem))
    before, after = (calibration(one, num_resamples=0)["ece"]["value"] for one in (scores, after))
    assert after < 0.03 < 0.1 < before


def test_no_temperature_is_best_where_all_is_right():
    logits = np.array([[0.0, 2.0], [2.0, 0.0]])
    for targets, message in [([1, 0], "wherever it is sure"), ([-1, -1], "no row has a label")]:
        with pytest.raises(InputError, match=message):
            fit_temperature(logits, Scores(TWO, np.array(targets), probabilities(logits, "single_label")))


def test_calibrate_writes_what_predict_and_evaluate_obey(tmp_path, capsys):
    folder = model_of(tmp_path / "model")
    random = np.random.default_rng(1)
    texts = ["".join(random.choice(list("ACGT"), 12)) for _ in range(300)]
    logits = ls.predict(folder, texts, output="logits")
    labels = (random.random(logits.shape) < 1 / (1 + np.exp(-logits / 3))).astype(int)
    lines = ["sequence,low,mid,high", *(f"{text},{','.join(map(str, row))}" for text, row in zip(texts, labels))]
    (tmp_path / "valid.csv").write_text("\n".join(lines) + "\n")
    words = [str(folder), str(tmp_path / "valid.csv"), "--label", "low,mid,high"]
    with pytest.raises(SystemExit) as end:
        main(["calibrate", *words])
    assert not end.value.code and "written to" in capsys.readouterr().out
    record = json.loads((folder / "longstrand.json").read_text())
    temperature = record["reading"]["temperature"]
    assert temperature == pytest.approx(3, rel=0.35) and record["reading"]["class_names"] == ["low", "mid", "high"]
    np.testing.assert_allclose(ls.predict(folder, texts), 1 / (1 + np.exp(-logits / temperature)), atol=1e-5)
    np.testing.assert_allclose(ls.predict(folder, texts, output="logits"), logits, atol=1e-5)
    assert ls.embed(folder, texts[:2]).shape == (2, 16)
    again = ls.calibrate(folder, tmp_path / "valid.csv", label_column="low,mid,high")  # not upon the first one
    assert (
        again["temperature"] == pytest.approx(temperature, rel=1e-3) and again["ece"]["after"] < again["ece"]["before"]
    )
    found = ls.evaluate(
        folder, tmp_path / "valid.csv", label_column="low,mid,high", output=tmp_path / "out", resamples=20
    )
    assert found["calibration"]["ece"]["value"] == pytest.approx(again["ece"]["after"], abs=1e-4)
    assert "Expected calibration error 0.0" in (tmp_path / "out" / "report.html").read_text()
    with pytest.raises(UsageError, match="numbers"):
        from longstrand.tokenization.kmer import make_kmer
        from tests.explain.test_attribution import Additive

        (tmp_path / "y.csv").write_text("sequence,y\nACGT,1.5\nACGG,2.5\n")
        ls.calibrate(Additive(make_kmer(1)), tmp_path / "y.csv", label_column="y")
