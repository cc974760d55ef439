"""``longstrand finetune`` on the command line: what it prints, its exit codes, its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from longstrand.cli.main import main
from tests.toys import tiny_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = [f"{'AC' * (4 + i)}{'G' if i % 2 else 'T' * 3},{'on' if i % 2 else 'off'}" for i in range(30)]
    path = tmp_path / "labels.csv"
    path.write_text("sequence,label\n" + "\n".join(rows) + "\n")
    return path


def run(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main(["finetune", *words])
    captured = capsys.readouterr()
    return int(stopped.value.code or 0), captured.out, captured.err


QUICK = [
    "training.tensorboard=false",
    "training.threads=1",
    "evaluation.resamples=10",
    "--epochs",
    "1",
    "--device",
    "cpu",
]


def test_one_command(model: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", str(model), "--train", str(table), "--output", str(tmp_path / "run"), "--lr", "0.01", *QUICK]
    code, out, err = run(words, capsys)
    assert code == 0
    assert "problem: single_label, one of 2 classes a sequence (off, on); inferred: the labels are words" in err
    assert "split: 24 train, 4 valid, 2 test" in err
    assert f"model: {tmp_path / 'run' / 'model'}" in out
    assert "k-mer regression: mcc" in out
    assert "next: longstrand predict" in out
    code, out, _ = run([*words, "--json"], capsys)
    report = json.loads(out)
    assert (code, report["kind"], report["stopped_by"]) == (0, "finetuning", None)
    assert report["settings"]["training"]["learning_rate"] == 0.01


def test_exact_text(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lower case reaches the tokenizer, which does not know it; the k-mer baseline still reads it."""
    rows = [f"{'AC' * (4 + i)}{'ac' * 3}{'g' if i % 2 else 't' * 3},{i % 2}" for i in range(30)]
    (tmp_path / "low.csv").write_text("sequence,label\n" + "\n".join(rows) + "\n")
    words = ["--model", str(model), "--train", str(tmp_path / "low.csv"), "--lr", "0.01", "--json", *QUICK]
    reports = {}
    for name, more in (("plain", []), ("exact", ["--exact-text"])):
        code, out, err = run([*words, "--output", str(tmp_path / name), *more], capsys)
        assert code == 0, err
        reports[name] = json.loads(out)
    plain, exact = (reports[name]["splits"]["train"] for name in ("plain", "exact"))
    assert plain["num_lower_case_letters"] == exact["num_lower_case_letters"] > 0
    assert exact["num_unknown_letters"] == 0 and plain["tokens"] != exact["tokens"]
    kmer = [reports[name]["baselines"]["kmer"]["test"]["metrics"] for name in ("plain", "exact")]
    assert kmer[0] == kmer[1]


def test_yaml_settings_and_options(
    model: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(f"model: {model}\ndata: {table}\noutput: {tmp_path / 'run'}\ntraining: {{epochs: 7}}\n")
    code, out, _ = run(
        ["--config", str(config), "--init", "random", "--lr", "0.01", "evaluation.baselines=false", *QUICK], capsys
    )
    assert code == 0
    assert "k-mer" not in out
    resolved = (tmp_path / "run" / "config.yaml").read_text()
    assert "init: random" in resolved
    assert "epochs: 1\n" in resolved


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--train", "absent.csv"], 1, "absent.csv: no such file"),
        (["--label", "lable"], 1, "no label column 'lable' (did you mean 'label'?); columns are: sequence, label"),
        (["--problem", "regression"], 1, "is not a number, as regression needs"),
        (["--problem", "regresion"], 2, "'data.problem'"),
        (["training.epoch=3"], 2, "unknown key 'training.epoch' (did you mean 'epochs'?)"),
        (["--device", "tpu9"], 2, "unknown device 'tpu9'"),
        (["--model", "nowhere"], 1, "nowhere: no such folder"),
        (["--valid-chroms", "chr1"], 1, "a split by chromosome needs a column 'chrom'"),
    ],
)
def test_refusals_are_one_sentence(
    words: list[str],
    code: int,
    message: str,
    model: Path,
    table: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usual = ["--model", str(model), "--train", str(table), "--output", str(tmp_path / "run")]
    line = [*usual, *QUICK]
    if words[0] in line:
        place = line.index(words[0])
        del line[place : place + 2]
    found, _, err = run([*line, *words], capsys)
    assert found == code
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "run" / "model").exists()


def test_missing_settings(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run([], capsys)
    assert code == 2
    assert "'output' is required" in err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(["--help"], capsys)
    assert code == 0
    assert "--valid-chroms" in out
