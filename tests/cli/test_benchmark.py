"""``longstrand benchmark list`` and ``build``: tables, one task in full, JSON, the sanity report, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from longstrand.cli.main import main
from tests.benchmarks.toys import dna, write_csv
from tests.toys import tiny_checkpoint


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["benchmark", *map(str, words)])
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "list")
    lines = out.splitlines()
    assert code == 0 and lines[0].split()[:5] == ["id", "train", "/", "valid", "/"]
    (line,) = [line for line in lines if line.startswith("gue/tf_0 ")]
    assert "32,378 / 1,000 / 1,000" in line and " 101 " in line and " mcc " in line
    assert "gena/enformer_bins" in out and "nt_revised/H3K4me3" in out
    _, out, _ = run(capsys, "list", "gue")
    assert out.count("gue/") == 28
    _, out, _ = run(capsys, "list", "gue/splice_reconstructed")
    assert "published mcc, DNABERT-2 (Zhou et al. 2023), Table 4" in out and "  DNABERT-2 0.8499" in out
    assert "note: 30 sequences are in dev and test, as published." in out
    _, out, _ = run(capsys, "list", "gena/promoters_300", "--json")
    (facts,) = json.loads(out)
    assert facts["options"]["published"]["default"] is False and facts["window"] == 300


def test_build_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sequences = dna(60, 40)
    write_csv(tmp_path / "in/enhancers/train.csv", sequences[:40], [0, 1] * 20)
    write_csv(tmp_path / "in/enhancers/test.csv", [*sequences[40:], sequences[0]], [0, 1] * 10 + [1])
    model = tiny_checkpoint(tmp_path / "model")
    source = ["--source", tmp_path / "in", "--output", tmp_path / "out"]
    code, out, err = run(capsys, "build", "own", *source, "--tokenizer", model, "--max-tokens", 12)
    assert code == 0 and out.startswith("own/enhancers: 36 / 4 / 21 rows in ")
    assert "leak: 1 of 21 test rows (4.8%) are also" in err and "1 with another label" in err
    assert "inputs of 12 tokens: train: 100.0% of the rows are cut" in err
    report = json.loads((tmp_path / "out/own/enhancers/sanity.json").read_text())
    assert report["truncation"]["model"]["input_tokens"] == 12
    code, out, _ = run(capsys, "build", "own", *source, "--json")
    assert code == 0 and json.loads(out)[0]["id"] == "own/enhancers"
    code, out, err = run(capsys, "build", "own", *source, "--strict")
    assert code == 1 and "refused (--strict)" in err and not (tmp_path / "out/own/enhancers").exists()


def test_bad_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = ["--source", tmp_path, "--output", tmp_path / "out"]
    code, _, err = run(capsys, "build", "gue/tf_7", *source)
    assert code == 2 and "unknown task 'gue/tf_7' (did you mean 'gue/tf_" in err
    code, _, err = run(capsys, "build", "gue/tf_0", *source)
    assert code == 1 and "lacks tf/0/train.csv, tf/0/dev.csv, tf/0/test.csv; published as the GUE archive" in err
    code, _, err = run(capsys, "list", "gui")
    assert code == 2 and "did you mean 'gue'" in err
