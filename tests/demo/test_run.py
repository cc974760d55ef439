"""The demo: the whole path in small, resumed, compared honestly; settings and folders that are refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from longstrand.cli.main import main
from longstrand.config import build
from longstrand.demo import report as demo_report
from longstrand.demo import run as demo
from longstrand.demo.run import DemoConfig, Plan, claim, make_plan, real_materials, run_demo
from longstrand.errors import ConfigError, InputError, ResumeError

TINY = Plan(
    num_bases=100_000, vocab_size=64, steps=4, epochs=1, seeds=(0, 1), max_train_rows=24, max_tokens=32, batch_size=4
)


def test_the_whole_path_and_its_resumption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "make_plan", lambda config: TINY)
    said: list[str] = []
    config = DemoConfig(output=tmp_path / "out")
    result = run_demo(config, say=said.append)
    report = json.loads(result.data.read_text())
    kinds = [section["kind"] for section in report["sections"]]
    assert kinds[0] == "metrics" and {"curves", "ranking", "table"} <= set(kinds)
    models = {row["model"] for row in report["sections"][0]["rows"]}
    assert models == {"pre-trained", "random start", "6-mer regression", "majority class"}
    seeds = next(row["seeds"] for row in report["sections"][0]["rows"] if row["model"] == "random start")
    assert len(seeds) == 2
    assert report["difference"]["low"] <= report["difference"]["value"] <= report["difference"]["high"]
    assert result.page.read_text().startswith("<!doctype html>")
    assert "background" in result.page.read_text()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.safetensors")}
    again = run_demo(config)
    assert again.verdict == result.verdict
    assert kept == {path: path.stat().st_mtime_ns for path in kept}


def test_minutes_scale_the_training() -> None:
    assert make_plan(DemoConfig(minutes=6.0)).steps == 2 * make_plan(DemoConfig(minutes=3.0)).steps
    assert make_plan(DemoConfig(quick=True)).steps < make_plan(DemoConfig(minutes=0.1)).steps


def fake_run(folder: Path, labels: str, calls: str) -> Any:
    """Write the predictions of a run: one letter for each test sequence."""
    folder.mkdir()
    lines = ["row,label,predicted", *(f"{n},{a},{b}" for n, (a, b) in enumerate(zip(labels, calls), start=1))]
    (folder / "predictions_test.csv").write_text("\n".join(lines) + "\n")
    return SimpleNamespace(folder=folder)


def test_the_difference_by_hand(tmp_path: Path) -> None:
    # Perfect calls have MCC 1. With one of four wrong: (1*2 - 0*1) / sqrt(1*2*2*3) = 1 / sqrt(3).
    labels = "pppp" * 8 + "nnnn" * 8
    perfect = fake_run(tmp_path / "a", labels, labels)
    half = fake_run(tmp_path / "b", labels, "ppnn" * 8 + "nnnn" * 8)
    difference = demo_report.paired_difference([perfect], [half])
    assert difference.value == pytest.approx(1 - 1 / 3**0.5)
    assert 0 < difference.low < difference.value < difference.high < 1
    reverse = demo_report.paired_difference([half, half], [perfect])
    assert reverse.value == pytest.approx(-difference.value)
    same = demo_report.paired_difference([half], [half])
    assert (same.value, same.low, same.high) == (0, 0, 0)


def evaluations(pretrained: float, kmer: float) -> dict[str, list[dict[str, Any]]]:
    def one(value: float) -> dict[str, Any]:
        return {"primary": "mcc", "metrics": {"mcc": {"value": value}}}

    return {"pre-trained": [one(pretrained)], "random start": [one(0.25)], "6-mer regression": [one(kmer)]}


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.1, 0.3, "Pre-training helped"), (-0.1, 0.3, "no clear difference"), (-0.3, -0.1, "did harm")],
)
def test_the_verdict_follows_the_interval(low: float, high: float, words: str) -> None:
    difference = demo_report.Difference((low + high) / 2, low, high)
    lines = demo_report.comparison_verdict(evaluations(0.5, 0.4), difference)
    assert words in lines[1]
    assert len(lines) == 2
    assert "use it" in demo_report.comparison_verdict(evaluations(0.5, 0.5), difference)[2]


def test_without_labels_there_is_no_classifier() -> None:
    assert "no classifier was trained" in demo_report.comparison_verdict({}, None)[0]


def test_a_changed_setting_is_refused(tmp_path: Path) -> None:
    claim(DemoConfig(output=tmp_path / "out", seed=1))
    claim(DemoConfig(output=tmp_path / "out", seed=1))
    with pytest.raises(ResumeError, match="holds a demo with another seed; choose another --output"):
        claim(DemoConfig(output=tmp_path / "out", seed=2))


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(ResumeError, match="is not empty and holds no demo"):
        claim(DemoConfig(output=tmp_path))
    with pytest.raises(InputError, match="the folder cannot be made"):
        claim(DemoConfig(output=tmp_path / "thesis.txt" / "out"))


def test_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.fa: no such FASTA file"):
        real_materials(DemoConfig(genome=(tmp_path / "absent.fa",)))
    genome = tmp_path / "g.fa"
    genome.write_text(">a\nACGT\n")
    (tmp_path / "train.csv").write_text("sequence,label\nA,1\n")
    with pytest.raises(InputError, match=r"holds no dev\.csv"):
        real_materials(DemoConfig(genome=(genome,), labels=tmp_path))
    with pytest.raises(ConfigError, match="labels belong to real genomes"):
        build(DemoConfig, {"labels": tmp_path}, "demo")


def test_the_command_says_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["demo", "--genome", str(tmp_path / "absent.fa"), "--output", str(tmp_path / "out")])
    assert end.value.code == 1
    assert "no such FASTA file" in capsys.readouterr().err
